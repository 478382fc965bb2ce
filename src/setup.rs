//! What workers are started with: settings that a running cluster may change for workers to come.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use crate::{
    backend::process,
    config::{Mode, Stdio},
    error::{Error, ErrorKind, Result},
};

/// What workers are started with (Node: the settings of `cluster.setupPrimary`).
///
/// [`Builder::setup`](crate::Builder::setup) gives it to a cluster at its start,
/// [`Cluster::setup_primary`](crate::Cluster::setup_primary) to a running one, for the workers that
/// are started from then on. Both are cumulative: what is not mentioned keeps its value.
#[derive(Clone, Debug, Default)]
#[must_use = "a setup changes nothing by itself"]
#[non_exhaustive]
pub struct Setup {
    /// The program that worker processes run.
    pub exec: Option<PathBuf>,
    /// The arguments of workers, without the program's own name.
    pub args: Option<Vec<OsString>>,
    /// What is added to the environment of worker processes.
    pub env: Vec<(OsString, OsString)>,
    /// Where worker processes start.
    pub cwd: Option<PathBuf>,
    /// The user worker processes run as.
    pub uid: Option<u32>,
    /// The group worker processes run as.
    pub gid: Option<u32>,
    /// Whether each worker process leads a process group of its own.
    pub own_group: Option<bool>,
    /// Where the standard input of worker processes comes from.
    pub stdin: Option<Stdio>,
    /// Where the standard output of worker processes goes.
    pub stdout: Option<Stdio>,
    /// Where the standard error of worker processes goes.
    pub stderr: Option<Stdio>,
    /// Bytes of stack of a worker thread.
    pub stack_size: Option<usize>,
}

impl Setup {
    /// A setup that mentions nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program that worker processes run (Node: `exec`). Default: this program. Another one must
    /// itself get to [`Builder::run`](crate::Builder::run) or [`launch`](crate::Builder::launch) of a
    /// cluster with the same [name](crate::Builder::name). [`Mode::Process`] only.
    pub fn exec(mut self, program: impl Into<PathBuf>) -> Self {
        self.exec = Some(program.into());
        self
    }

    /// The arguments of workers (Node: `args`): of a process its command line's, and in both modes
    /// [`Worker::args`](crate::Worker::args). Default: this program's own, as they are when the
    /// cluster is built. They replace those set before.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a variable to the environment of worker processes, or changes it there. For a single
    /// worker, in both modes, see [`Fork::env`](crate::Fork::env). [`Mode::Process`] only.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Where worker processes start (Node: `cwd`). Default: where the primary is. A directory that
    /// is not there shows when a worker starts. [`Mode::Process`] only.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// The user worker processes run as (Node: `uid`). [`Mode::Process`] only.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// The group worker processes run as (Node: `gid`). [`Mode::Process`] only.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Whether each worker process leads a process group of its own. Default false: workers are in
    /// the primary's, so that a terminal's signals (Ctrl-C) reach them directly as well; they leave
    /// SIGINT to the primary. [`Mode::Process`] only.
    pub fn process_group(mut self, own: bool) -> Self {
        self.own_group = Some(own);
        self
    }

    /// Where all three standard streams of worker processes go (Node: `stdio`). Default
    /// [`Stdio::Inherit`]. [`Mode::Process`] only.
    ///
    /// What Node has further entries in its list for, a message does: send one end of a
    /// [`UnixStream::pair`](std::os::unix::net::UnixStream::pair) with
    /// [`WorkerHandle::send_with`](crate::WorkerHandle::send_with).
    pub fn stdio(self, stdio: Stdio) -> Self {
        self.stdin(stdio).stdout(stdio).stderr(stdio)
    }

    /// Where the standard input of worker processes comes from. [`Mode::Process`] only.
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.stdin = Some(stdio);
        self
    }

    /// Where the standard output of worker processes goes. [`Mode::Process`] only.
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.stdout = Some(stdio);
        self
    }

    /// Where the standard error of worker processes goes. [`Mode::Process`] only.
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.stderr = Some(stdio);
        self
    }

    /// Whether the handles of workers have their standard streams (Node: `silent`):
    /// [`Stdio::Piped`] if so, else [`Stdio::Inherit`]. [`Mode::Process`] only.
    pub fn silent(self, silent: bool) -> Self {
        self.stdio(if silent { Stdio::Piped } else { Stdio::Inherit })
    }

    /// Bytes of stack of a worker thread. Default: the standard library's, 2 MiB. [`Mode::Thread`]
    /// only.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Takes over what a later setup mentions.
    pub(crate) fn merge(&mut self, later: Self) {
        let Self { exec, args, env, cwd, uid, gid, own_group, stdin, stdout, stderr, stack_size } =
            later;
        for (name, value) in env {
            self.env.retain(|(earlier, _)| *earlier != name);
            self.env.push((name, value));
        }
        keep(&mut self.exec, exec);
        keep(&mut self.args, args);
        keep(&mut self.cwd, cwd);
        keep(&mut self.uid, uid);
        keep(&mut self.gid, gid);
        keep(&mut self.own_group, own_group);
        keep(&mut self.stdin, stdin);
        keep(&mut self.stdout, stdout);
        keep(&mut self.stderr, stderr);
        keep(&mut self.stack_size, stack_size);
    }

    /// Fills what was never set and is the program's own.
    pub(crate) fn fill(&mut self, mode: Mode) -> Result<()> {
        if mode == Mode::Process && self.exec.is_none() {
            self.exec = Some(process::own_program()?);
        }
        self.args.get_or_insert_with(|| std::env::args_os().skip(1).collect());
        Ok(())
    }

    /// What belongs to a process cannot be given to a thread, and the other way round.
    pub(crate) fn check(&self, mode: Mode) -> Result<()> {
        let stdio = [self.stdin, self.stdout, self.stderr];
        let process_only = [
            ("exec", self.exec.is_some()),
            ("env", !self.env.is_empty()),
            ("cwd", self.cwd.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
            ("process_group", self.own_group.is_some()),
            ("stdio", stdio.iter().any(Option::is_some)),
        ];
        let thread_only = [("stack_size", self.stack_size.is_some())];
        let set = |settings: &[(&'static str, bool)]| {
            settings.iter().find(|(_, set)| *set).map(|(name, _)| *name)
        };
        let (misplaced, reason, other) = match mode {
            Mode::Thread => {
                let reason = "all threads of a process share one";
                (set(&process_only), reason, Mode::Process)
            }
            Mode::Process => {
                let reason = "a process's main thread has the system's";
                (set(&thread_only), reason, Mode::Thread)
            }
        };
        match misplaced {
            Some(name) => Err(unsuitable(name, mode, reason, other)),
            None => self.check_texts(),
        }
    }

    fn check_texts(&self) -> Result<()> {
        check_env(&self.env)?;
        let exec = self.exec.iter().map(|path| ("exec", path.as_os_str()));
        let cwd = self.cwd.iter().map(|path| ("cwd", path.as_os_str()));
        let args = self.args.iter().flatten().map(|arg| ("args", arg.as_os_str()));
        match exec.chain(cwd).chain(args).find(|(_, text)| has_nul(text)) {
            Some((setting, text)) => {
                let text =
                    format!("`{setting}` holds a NUL byte, which no process can get: {text:?}");
                Err(Error::new(ErrorKind::Setting, text))
            }
            None => Ok(()),
        }
    }
}

fn keep<T>(earlier: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *earlier = later;
    }
}

fn unsuitable(setting: &str, mode: Mode, reason: &str, other: Mode) -> Error {
    let hint = if setting == "env" { ", give it to a single worker with `Fork::env`" } else { "" };
    let text = format!(
        "`{setting}` cannot be set per worker in {mode} mode: {reason}; leave it out{hint}, or use {other} mode"
    );
    Error::new(ErrorKind::Setting, text)
}

/// Whether these can be entries of an environment (environ(7)).
pub(crate) fn check_env(env: &[(OsString, OsString)]) -> Result<()> {
    let refused = env.iter().find(|(name, value)| {
        name.is_empty() || name.as_bytes().contains(&b'=') || has_nul(name) || has_nul(value)
    });
    match refused {
        Some((name, _)) => {
            let text = format!(
                "`env` has the variable {name:?}; a name is not empty and has no `=`, and neither it nor its value has a NUL byte"
            );
            Err(Error::new(ErrorKind::Setting, text))
        }
        None => Ok(()),
    }
}

fn has_nul(text: &OsStr) -> bool {
    text.as_bytes().contains(&0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mentioned_keeps_its_value() {
        let mut setup = Setup::new().cwd("/").uid(1).args(["a"]).env("A", "1").env("B", "1");
        setup.merge(Setup::new().uid(2).stdout(Stdio::Null).env("A", "2"));
        assert_eq!((setup.cwd, setup.uid), (Some("/".into()), Some(2)));
        assert_eq!(setup.args, Some(vec!["a".into()]));
        assert_eq!((setup.stdin, setup.stdout), (None, Some(Stdio::Null)));
        assert_eq!(setup.env, [("B".into(), "1".into()), ("A".into(), "2".into())]);
    }

    #[test]
    fn what_cannot_hold_in_a_mode_is_refused_with_the_remedy() {
        let new = Setup::new;
        let refused = [
            ("exec", Mode::Thread, new().exec("/bin/true")),
            ("env", Mode::Thread, new().env("A", "b")),
            ("cwd", Mode::Thread, new().cwd("/")),
            ("uid", Mode::Thread, new().uid(1)),
            ("gid", Mode::Thread, new().gid(1)),
            ("process_group", Mode::Thread, new().process_group(false)),
            ("stdio", Mode::Thread, new().stdio(Stdio::Null)),
            ("stdio", Mode::Thread, new().silent(true)),
            ("stack_size", Mode::Process, new().stack_size(1 << 20)),
        ];
        for (setting, mode, setup) in refused {
            let error = setup.check(mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            let text = error.to_string();
            assert!(
                text.contains(&format!("`{setting}`")) && text.contains("leave it out"),
                "{text}"
            );
        }
    }

    #[test]
    fn texts_that_no_process_can_get_are_refused() {
        let new = Setup::new;
        for (setting, setup) in [
            ("`exec`", new().exec("a\0b")),
            ("`cwd`", new().cwd("\0")),
            ("`args`", new().args(["fine", "a\0"])),
            ("`env`", new().env("", "x")),
            ("`env`", new().env("A=B", "x")),
            ("`env`", new().env("A\0", "x")),
            ("`env`", new().env("A", "x\0")),
        ] {
            let error = setup.check(Mode::Process).unwrap_err();
            assert!(error.to_string().contains(setting), "{error}");
        }
    }
}
