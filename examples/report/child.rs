//! Programs that end with this one, however it ends.
//!
//! Each is the head of a process group of its own, which is killed when its guard is dropped (a panic included) and when
//! SIGINT, SIGTERM or SIGHUP comes. For the case that this program is killed itself, each runs under util-linux's
//! `setpriv --pdeathsig`: the kernel kills it when the thread that started it ends, so only the main thread starts any.
//! What the children start is theirs to end: the lab's workers end with their primary, and so do those of Node.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::Result;

/// The process groups that run. Held while one is started or reaped, so that no id is signalled that was used again.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// The exit status of a shell's command that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(2);

/// Ends everything and this program when a signal asks for it.
pub(crate) fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Kept to the end, so that nothing is started any more.
            let groups = groups();
            groups.iter().for_each(|group| kill(*group));
            eprintln!("\nreport: interrupted; what was finished is kept, the same command goes on");
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: Pid) {
    // It may have ended by itself.
    let _ = kill_process_group(group, Signal::KILL);
}

/// A command that is killed with this program; give it its arguments and [`Guard::start`] it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    // The shell looks whether this program had ended before the kernel was asked, and then becomes the program.
    const UNLESS_ORPHAN: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", UNLESS_ORPHAN, "sh"]);
    command.arg(std::process::id().to_string()).arg(program);
    command
}

/// A child that runs.
pub(crate) struct Guard {
    child: Child,
    pid: Pid,
}

impl Guard {
    /// Starts a command of [`command`], in a process group of its own. On the main thread only.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut groups = groups();
        let child = command.process_group(0).spawn().map_err(|error| {
            format!("{:?}: {error}; `setpriv` is part of util-linux", command.get_program())
        })?;
        let pid = Pid::from_child(&child);
        groups.push(pid);
        Ok(Self { child, pid })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It is not reaped before this guard goes, so the id is its own.
        let _ = kill_process(self.pid, signal);
    }

    /// Whether it has ended, without reaping it.
    pub(crate) fn has_ended(&self) -> bool {
        let path = format!("/proc/{}/stat", self.id());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // Behind the name in parentheses, which may hold anything, comes the state.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.has_ended() {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    /// Waits for its end, however long that takes.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        while !self.has_ended() {
            thread::sleep(LOOK);
        }
        self.reap()
    }

    /// Kills what is left of the group, and waits for the child. Its id means nothing afterwards.
    fn reap(&mut self) -> Result<ExitStatus> {
        let mut groups = groups();
        if let Some(at) = groups.iter().position(|group| *group == self.pid) {
            kill(self.pid);
            groups.swap_remove(at);
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.reap();
    }
}
