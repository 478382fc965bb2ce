//! The process of an arm: this program, started again with a marker in its environment.
//!
//! Runs on the thread that called `compare`: the kernel kills the arm when that thread ends. The workers of the arm's
//! cluster die with the arm.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::invitation::MARKER;
use crate::{
    backend::process::{self as workers, Marker},
    error::{Context as _, Error, ErrorKind, Result},
    id::WorkerId,
    outside,
    sys::process::{self, Spawn},
};

/// How long an arm may take to end in good order.
const END: Duration = Duration::from_secs(5);

/// What an arm is for, which is what it says on its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Measure,
    /// What it says about a fault that was ordered interests nobody.
    Break,
}

/// A process that is killed and reaped when this is dropped.
#[derive(Debug)]
pub(super) struct ChildProcess {
    child: Child,
    /// Readable when it has ended.
    end: OwnedFd,
}

impl ChildProcess {
    /// Starts this program again, as an arm.
    pub(super) fn start(name: &str, end: &OwnedFd, purpose: Purpose) -> Result<Self> {
        let mut child = spawn(name, end, purpose)?;
        match process::pidfd(child.id() as i32) {
            Ok(end) => Ok(Self { child, end }),
            Err(error) => {
                bury(&mut child);
                Err(Error::caused(ErrorKind::Io, "watch an arm of the comparison", error))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, but no longer than [`END`].
    pub(super) fn wait(&self) {
        let limit = Timespec::try_from(END).ok();
        // An early return is seen by whoever looks for the exit status.
        let _ = poll(&mut [PollFd::new(&self.end, PollFlags::IN)], limit.as_ref());
    }

    /// How it ended, of a process that has hung up.
    pub(super) fn ended(&mut self) -> String {
        self.wait();
        match self.child.try_wait() {
            Ok(Some(status)) => how_ended(status),
            Ok(None) => "it hung up and goes on".into(),
            Err(error) => error.to_string(),
        }
    }

    /// Why an arm that has hung up cannot be measured.
    pub(super) fn lost(&mut self, when: &str) -> Error {
        let how = self.ended();
        Error::new(ErrorKind::Start, format!("the program, started again, ended {when}: {how}"))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        bury(&mut self.child);
    }
}

/// Kills a process that may have ended, and reaps it. A killed process does not take long.
fn bury(child: &mut Child) {
    let _ = child.kill();
    if let Err(error) = child.wait() {
        log::warn!("an arm of the comparison cannot be waited for: {error}");
    }
}

/// Starts this program again, as an arm.
fn spawn(name: &str, end: &OwnedFd, purpose: Purpose) -> Result<Child> {
    let marker = Marker::new(name, WorkerId::new(1), end.as_fd());
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| !outside::is_for_this_process(name) && name != workers::MARKER)
        .collect();
    env.insert(MARKER.into(), marker.to_text().into());
    let program = workers::own_program()?;
    let stderr = if purpose == Purpose::Break { Stdio::null() } else { Stdio::inherit() };
    let spawned = process::spawn(Spawn {
        program: &program,
        args: &std::env::args_os().skip(1).collect::<Vec<_>>(),
        env: &env,
        cwd: None,
        uid: None,
        gid: None,
        own_group: false,
        stdio: [Stdio::null(), Stdio::null(), stderr],
        inherit: end.as_fd(),
        die_with: true,
    });
    spawned.context(ErrorKind::Start, || format!("run {} as an arm", program.display()))
}

/// An exit status in words.
fn how_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".into(),
    }
}
