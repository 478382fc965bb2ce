//! Child processes: starting one that inherits a single descriptor and dies with its parent, watching it
//! and signalling it.
//!
//! [`spawn`] must be called from a thread that lives as long as the children may: `PDEATHSIG` belongs to the
//! forking *thread*, so children are killed when that thread ends, even if its process goes on.

#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

#[cfg(feature = "compare")]
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::{
    io::{Errno, FdFlags, fcntl_setfd},
    process::{
        Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
        set_parent_process_death_signal,
    },
};

/// How to start a child.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// The file to run, looked up in `PATH` if it holds no slash.
    pub(crate) program: &'a Path,
    /// Its arguments, without the program's own name.
    pub(crate) args: &'a [OsString],
    /// The whole environment.
    pub(crate) env: &'a BTreeMap<OsString, OsString>,
    /// The working directory; the parent's if absent.
    pub(crate) cwd: Option<&'a Path>,
    /// The user to become. A privileged parent's supplementary groups are dropped, too.
    pub(crate) uid: Option<u32>,
    /// The group to become.
    pub(crate) gid: Option<u32>,
    /// Whether the child leads a process group of its own.
    pub(crate) own_group: bool,
    /// Standard input, output and error.
    pub(crate) stdio: [Stdio; 3],
    /// The one descriptor that the child keeps, under the same number. It must be above 2.
    pub(crate) inherit: BorrowedFd<'a>,
    /// Whether the kernel kills the child when the calling thread ends. It cannot if the program is
    /// set-user-ID or has file capabilities.
    pub(crate) die_with: bool,
}

/// Starts a child. An error of the child's side (exec, cwd, uid) is returned here, too.
///
/// The child starts with no signal blocked; ignored signals stay ignored, except `SIGPIPE`.
pub(crate) fn spawn(spawn: Spawn<'_>) -> io::Result<Child> {
    let inherit = spawn.inherit.as_raw_fd();
    if inherit <= 2 {
        let text = format!("descriptor {inherit} would be replaced by the child's stdio");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let [stdin, stdout, stderr] = spawn.stdio;
    let mut command = Command::new(spawn.program);
    command.args(spawn.args).stdin(stdin).stdout(stdout).stderr(stderr);
    command.env_clear().envs(spawn.env);
    spawn.cwd.map(|cwd| command.current_dir(cwd));
    spawn.uid.map(|uid| command.uid(uid));
    spawn.gid.map(|gid| command.gid(gid));
    spawn.own_group.then(|| command.process_group(0));
    let parent = spawn.die_with.then(own_pid);
    // SAFETY: `prepare_child` makes three system calls and touches no lock, heap or thread-local, so it may
    // run between fork and exec. `inherit` is borrowed until this function returns, after the child's exec.
    unsafe { command.pre_exec(move || prepare_child(inherit, parent)) };
    command.spawn()
}

/// Runs in the child between fork and exec: only system calls, no allocation.
fn prepare_child(inherit: RawFd, parent: Option<i32>) -> io::Result<()> {
    if let Some(parent) = parent {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above; its signal would never come. A parent in an
        // outer process namespace has no number here, and then only the channel's end tells.
        if getppid().is_some_and(|now| now.as_raw_pid() != parent) {
            return Err(Errno::SRCH.into());
        }
    }
    // SAFETY: the caller of `spawn` borrows this descriptor, and the fork has copied it.
    let inherit = unsafe { BorrowedFd::borrow_raw(inherit) };
    Ok(fcntl_setfd(inherit, FdFlags::empty())?)
}

/// A descriptor that becomes readable when the process has ended.
///
/// Ask for it before the child is reaped: afterwards its number may name another process.
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // Checked first: rustix asserts that the number is not negative.
    let pid = if pid > 0 { Pid::from_raw(pid) } else { None };
    let pid = pid.ok_or(Errno::INVAL)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The number of the signal that no process survives.
pub(crate) const SIGKILL: i32 = Signal::KILL.as_raw();

/// Sends the signal of this number to exactly the process that `pidfd` was opened for.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
    Ok(pidfd_send_signal(pidfd, signal)?)
}

/// The parent's process id; 0 when the parent is in an outer process namespace.
pub(crate) fn parent_pid() -> i32 {
    getppid().map_or(0, Pid::as_raw_pid)
}

/// This process's id.
pub(crate) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// Bytes of anonymous memory that this process has in use and shares with no other (`RssAnon`, proc(5));
/// `None` if it is not there.
pub(crate) fn private_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Lets neither this process nor those that it starts leave a core dump.
#[cfg(feature = "compare")]
pub(crate) fn forbid_core_dumps() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(setrlimit(Resource::Core, none)?)
}

/// How many threads this process has now; `None` where the system does not tell.
pub(crate) fn threads_running() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::Read,
        os::{fd::AsFd, unix::process::ExitStatusExt},
    };

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::sys::channel;

    const NO_VARIABLES: &BTreeMap<OsString, OsString> = &BTreeMap::new();

    fn shell<'a>(args: &'a [OsString], inherit: BorrowedFd<'a>) -> Spawn<'a> {
        Spawn {
            program: Path::new("/bin/sh"),
            args,
            env: NO_VARIABLES,
            cwd: None,
            uid: None,
            gid: None,
            own_group: false,
            stdio: [Stdio::null(), Stdio::piped(), Stdio::inherit()],
            inherit,
            die_with: false,
        }
    }

    fn script(text: &str) -> Vec<OsString> {
        vec!["-c".into(), text.into()]
    }

    fn output(mut child: Child) -> String {
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        text
    }

    fn wait_for_end(pidfd: &OwnedFd) {
        let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&deadline)).unwrap();
        assert_eq!(ready, 1, "the child is still running after 10 s");
    }

    #[test]
    fn a_child_inherits_one_descriptor_and_no_other() {
        let (ours, theirs) = channel::seqpacket_pair().unwrap();
        let args = script(&format!(
            "test -S /proc/self/fd/{} && echo inherited; test -e /proc/self/fd/{} && echo leaked; true",
            theirs.as_raw_fd(),
            ours.as_raw_fd()
        ));
        assert_eq!(output(spawn(shell(&args, theirs.as_fd())).unwrap()), "inherited\n");
        let flags = rustix::io::fcntl_getfd(&theirs).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC), "only the child's copy is inheritable");
    }

    #[test]
    fn environment_and_directory_are_the_childs_own() {
        let (_ours, theirs) = channel::seqpacket_pair().unwrap();
        let args = script("echo \"$BIMODAL_UNIT_TEST:$HOME:$(pwd)\"");
        let env = BTreeMap::from([("BIMODAL_UNIT_TEST".into(), "set".into())]);
        let spec = Spawn { env: &env, cwd: Some(Path::new("/")), ..shell(&args, theirs.as_fd()) };
        assert_eq!(output(spawn(spec).unwrap()), "set::/\n");
    }

    #[test]
    fn a_failed_start_is_an_error() {
        let (_ours, theirs) = channel::seqpacket_pair().unwrap();
        let program = Path::new("/nonexistent/program");
        let error = spawn(Spawn { program, ..shell(&[], theirs.as_fd()) }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = spawn(shell(&[], io::stdin().as_fd())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_pidfd_signals_and_reports_the_end() {
        let (_ours, theirs) = channel::seqpacket_pair().unwrap();
        let args = script("exec sleep 60");
        let mut child = spawn(shell(&args, theirs.as_fd())).unwrap();
        let watch = pidfd(child.id() as i32).unwrap();
        signal(watch.as_fd(), Signal::TERM.as_raw()).unwrap();
        wait_for_end(&watch);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
        assert!(signal(watch.as_fd(), SIGKILL).is_err(), "a reaped child takes no signal");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let (_ours, theirs) = channel::seqpacket_pair().unwrap();
        let args = script("exec sleep 60");
        let spec = Spawn { die_with: true, ..shell(&args, theirs.as_fd()) };
        let mut child =
            std::thread::scope(|scope| scope.spawn(|| spawn(spec).unwrap()).join().unwrap());
        let watch = pidfd(child.id() as i32).unwrap();
        wait_for_end(&watch);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }

    #[test]
    fn memory_in_use_is_seen() {
        let own = std::process::id();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let memory = private_memory(own).unwrap();
        assert!(memory >= 64 << 20, "{memory} bytes");
        drop(block);
        assert_eq!(private_memory(0), None);
    }

    #[test]
    fn process_numbers_are_checked() {
        assert!(pidfd(0).is_err());
        assert!(pidfd(-1).is_err());
        assert_eq!(own_pid(), std::process::id() as i32);
        assert_eq!(parent_pid(), std::os::unix::process::parent_id() as i32);
        assert!(threads_running().unwrap() >= 2, "the test's thread and the runner's");
    }
}
