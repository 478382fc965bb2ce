//! Process 1 of a container: the init that the kernel expects there.
//!
//! Orphans of anybody become children of process 1, which has to reap them. A primary cannot do that
//! itself: it cannot tell an orphan from a child that the program started, whose exit status somebody
//! waits for. So the program steps aside: it goes on in a child, and what stays behind as process 1
//! has nothing of the program's. It passes signals on, reaps whoever ends, and ends with the program's
//! exit status.
//!
//! Runs on the main thread, before any other is started.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::{
    consts::{
        SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU,
        SIGUSR1, SIGUSR2, SIGWINCH,
    },
    iterator::Signals,
};

use crate::sys::{
    first::{SignalsBlocked, close_from, exit_now, fork},
    process::own_pid,
};

/// What is passed on: everything that is sent to control a program.
const PASSED_ON: [i32; 12] = [
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCONT, SIGTSTP, SIGTTIN,
    SIGTTOU, SIGWINCH,
];

/// The first descriptor that is not a standard stream.
const AFTER_STDIO: u32 = 3;

/// What a shell makes of a signal that ended a program.
const SIGNALLED: i32 = 128;

/// Whether process 1 would end with this process.
static ASIDE: AtomicBool = AtomicBool::new(false);

/// Whether the whole container ends when this process does.
pub(crate) fn ends_the_container() -> bool {
    own_pid() == 1 || ASIDE.load(SeqCst)
}

/// Where this is process 1, goes on in a child; elsewhere does nothing.
pub(crate) fn step_aside() {
    if own_pid() != 1 {
        return;
    }
    if let Err(error) = split() {
        log::warn!(
            "this is process 1 and reaps no orphans: {error}; start the cluster before threads, or the \
             program under an init (docker run --init)"
        );
    }
}

/// Returns in the child.
fn split() -> io::Result<()> {
    // What comes before the init is ready must wait for it: nobody else would pass it on.
    let blocked = SignalsBlocked::new()?;
    let Some(program) = fork()? else {
        ASIDE.store(true, SeqCst);
        return Ok(());
    };
    // A peer of a socket that was opened before would never see its end.
    if let Err(error) = close_from(AFTER_STDIO) {
        log::debug!("process 1 keeps what was open: {error}");
    }
    let signals = Signals::new(PASSED_ON.iter().chain(&[SIGCHLD]));
    drop(blocked);
    match signals {
        Ok(signals) => serve(program, signals),
        // The program is there and a child of this process: it must not be left alone.
        Err(_) => loop {
            reap(program, WaitOptions::empty());
        },
    }
}

/// Passes signals on and reaps, until the program ends.
fn serve(program: Pid, mut signals: Signals) -> ! {
    reap(program, WaitOptions::NOHANG);
    loop {
        for signal in signals.wait() {
            match Signal::from_named_raw(signal) {
                Some(Signal::CHILD) => reap(program, WaitOptions::NOHANG),
                // It may have ended: its SIGCHLD is on its way.
                Some(signal) => drop(kill_process(program, signal)),
                None => {}
            }
        }
    }
}

/// Reaps whoever has ended; ends with the program, if it is one of them.
fn reap(program: Pid, options: WaitOptions) {
    while let Ok(Some((child, status))) = wait(options) {
        if child == program {
            exit_now(code(status));
        }
    }
}

fn code(status: WaitStatus) -> i32 {
    let signalled = || status.terminating_signal().map(|signal| SIGNALLED + signal);
    status.exit_status().or_else(signalled).unwrap_or(SIGNALLED)
}
