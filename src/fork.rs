//! One worker's own share: its variables, its data, its standard streams.
//!
//! Everything is prepared before the worker is counted: what fails here leaves nothing behind.

use std::{
    ffi::OsString,
    fmt,
    io::{self, PipeReader, PipeWriter, pipe},
};

use serde::Serialize;

use crate::{
    backend::{Outfit, Stream},
    builder::Settings,
    config::Stdio,
    error::{Context as _, ErrorKind, Result},
    message::{Message, Packing},
    outside::is_for_the_primary,
    setup::check_env,
};

/// What one worker gets besides the cluster's settings, for
/// [`Cluster::fork_with`](crate::Cluster::fork_with) (Node: the argument of `cluster.fork`).
#[derive(Default)]
#[must_use = "it describes a worker and starts none"]
pub struct Fork {
    env: Vec<(OsString, OsString)>,
    data: Option<Pack>,
}

/// A value that waits to hear how it has to travel.
type Pack = Box<dyn FnOnce(Packing) -> Result<Message> + Send>;

impl Fork {
    /// A worker like all others.
    pub fn new() -> Self {
        Self::default()
    }

    /// A variable of the worker's, over one of the primary's or of the settings' of the same name.
    ///
    /// It is what [`Worker::env`](crate::Worker::env) reads, in both modes. A worker process has it in
    /// its environment as well; the environment of this process never changes.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// What the worker finds in [`Worker::data`](crate::Worker::data) when its body starts (Node:
    /// `workerData`). Encoded for a process, moved to a thread. A second value replaces the first.
    pub fn data<T: Serialize + Send + 'static>(mut self, value: T) -> Self {
        self.data = Some(Box::new(move |packing| Message::packed(value, packing)));
        self
    }

    /// What the backend needs, and what the handle keeps.
    pub(crate) fn prepare(
        self,
        settings: &Settings,
        packing: Packing,
    ) -> Result<(Outfit, Streams)> {
        check_env(&self.env)?;
        let data = self.data.map(|pack| pack(packing)).transpose()?;
        let setup = &settings.setup;
        let (stdio, streams) =
            connect([setup.stdin, setup.stdout, setup.stderr].map(Option::unwrap_or_default))
                .context(ErrorKind::Start, || "make the pipes of a worker's stdio".into())?;
        let outfit = Outfit {
            exec: setup.exec.clone().unwrap_or_default(),
            args: setup.args.clone().unwrap_or_default(),
            vars: inherited().chain(setup.env.iter().cloned()).chain(self.env).collect(),
            cwd: setup.cwd.clone(),
            uid: setup.uid,
            gid: setup.gid,
            own_group: setup.own_group.unwrap_or(false),
            stdio,
            stack_size: setup.stack_size,
            data,
        };
        Ok((outfit, streams))
    }
}

/// The program's own variables, without those that only the primary is to find.
fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_for_the_primary(name))
}

impl fmt::Debug for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        let data = self.data.is_some();
        f.debug_struct("Fork").field("env", &names).field("data", &data).finish()
    }
}

/// The primary's ends of a worker's standard streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) stderr: Option<PipeReader>,
}

/// The worker's ends, and the primary's.
fn connect([stdin, stdout, stderr]: [Stdio; 3]) -> io::Result<([Stream; 3], Streams)> {
    let mut streams = Streams::default();
    let stdin = match plain(stdin) {
        Some(stream) => stream,
        None => {
            let (theirs, ours) = pipe()?;
            streams.stdin = Some(ours);
            Stream::Pipe(theirs.into())
        }
    };
    let stdout = output(stdout, &mut streams.stdout)?;
    let stderr = output(stderr, &mut streams.stderr)?;
    Ok(([stdin, stdout, stderr], streams))
}

fn output(stdio: Stdio, ours: &mut Option<PipeReader>) -> io::Result<Stream> {
    if let Some(stream) = plain(stdio) {
        return Ok(stream);
    }
    let (reader, theirs) = pipe()?;
    *ours = Some(reader);
    Ok(Stream::Pipe(theirs.into()))
}

/// The stream, unless it needs a pipe.
fn plain(stdio: Stdio) -> Option<Stream> {
    match stdio {
        Stdio::Inherit => Some(Stream::Inherit),
        Stdio::Null => Some(Stream::Null),
        Stdio::Piped => None,
    }
}
