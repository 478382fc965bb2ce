//! The settings of a cluster: chosen, checked, frozen.

use std::{
    collections::BTreeSet, ffi::OsString, fmt, future::Future, path::PathBuf, sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    cluster::{Cluster, Report},
    config::{Mode, Scheduling, Stdio, Workers},
    error::{Error, ErrorKind, Result},
    events::Event,
    message::{self, Codec},
    worker::{Body, Outcome, Worker},
};

/// Chooses the settings of a cluster; [`run`](Builder::run) or [`launch`](Builder::launch) starts it
/// (Node: `cluster.setupPrimary`).
#[must_use = "a builder starts nothing"]
pub struct Builder {
    settings: Settings,
    workers: Workers,
    on_event: Option<Observer>,
}

/// Called with every event of a supervised cluster.
pub(crate) type Observer = Box<dyn FnMut(&Event)>;

/// The settings of a cluster, checked (Node: `cluster.settings`).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What a worker is.
    pub mode: Mode,
    /// The cluster's name, unique in the program.
    pub name: String,
    /// How many workers [`Builder::run`] keeps running.
    pub workers: usize,
    /// Who gets the next connection.
    pub scheduling: Scheduling,
    /// Connections a worker may be offered before it has adopted one of them.
    pub window: usize,
    /// The bound of the accept queue that threads share.
    pub accept_queue: usize,
    /// Whether addresses stay open when no worker listens on them.
    pub keep_listening: bool,
    /// Events kept for a reader that is behind.
    pub event_queue: usize,
    /// How long workers may drain before they are killed.
    pub shutdown_timeout: Duration,
    /// The largest encoded message, in bytes.
    pub max_message: usize,
    /// How messages between processes are encoded; absent: as [`Codec`] defaults.
    pub codec: Option<Codec>,
    /// Whether worker threads are pinned to cores.
    pub pin: bool,
    /// Bytes of stack of a worker thread.
    pub stack_size: Option<usize>,
    /// What is added to a worker process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where a worker process starts.
    pub cwd: Option<PathBuf>,
    /// The user a worker process runs as.
    pub uid: Option<u32>,
    /// The group a worker process runs as.
    pub gid: Option<u32>,
    /// Where a worker process's standard streams go.
    pub stdio: Option<Stdio>,
}

impl Builder {
    pub(crate) fn new(mode: Mode) -> Self {
        let settings = Settings {
            mode,
            name: "default".into(),
            workers: 0,
            scheduling: match mode {
                Mode::Process => Scheduling::RoundRobin,
                Mode::Thread => Scheduling::Shared,
            },
            window: 8,
            accept_queue: 1024,
            keep_listening: false,
            event_queue: 16_384,
            shutdown_timeout: Duration::from_secs(10),
            max_message: message::MAX_BYTES,
            codec: None,
            pin: mode == Mode::Thread,
            stack_size: None,
            env: Vec::new(),
            cwd: None,
            uid: None,
            gid: None,
            stdio: None,
        };
        Self { settings, workers: Workers::Auto, on_event: None }
    }

    /// The cluster's name. Default `default`. A program with several clusters gives each its own: in
    /// [`Mode::Process`] it is how a worker process finds its body.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// How many workers [`run`](Self::run) keeps running. Default [`Workers::Auto`]. With
    /// [`launch`](Self::launch) the program forks as many as it wants.
    pub fn workers(mut self, workers: impl Into<Workers>) -> Self {
        self.workers = workers.into();
        self
    }

    /// Who gets the next connection. Default [`Scheduling::RoundRobin`] for processes,
    /// [`Scheduling::Shared`] for threads.
    pub fn scheduling(mut self, scheduling: Scheduling) -> Self {
        self.settings.scheduling = scheduling;
        self
    }

    /// How many connections a worker may be offered before it has adopted one of them, from 1 to 64.
    /// Default 8. It is the most that a worker which does not answer can hold up; Node's is 1.
    pub fn window(mut self, connections: usize) -> Self {
        self.settings.window = connections;
        self
    }

    /// The bound of the queue that worker threads share under [`Scheduling::Shared`], from 1 to
    /// 65 536. Default 1024. When it is full, connections wait in the kernel's backlog.
    pub fn accept_queue(mut self, connections: usize) -> Self {
        self.settings.accept_queue = connections;
        self
    }

    /// Whether an address stays open when the last worker that listens on it has gone: clients wait
    /// for the next worker instead of being refused, so a single worker can be replaced unnoticed.
    /// Default false, as in Node. [`run`](Self::run) always does. The address is closed when the
    /// cluster ends or all workers are [disconnected](crate::Cluster::disconnect).
    pub fn keep_listening(mut self, keep: bool) -> Self {
        self.settings.keep_listening = keep;
        self
    }

    /// How many events are kept for a program that is behind with reading them, at least 16. Default
    /// 16 384. What comes beyond is dropped, and [`Event::Missed`] says how much. Messages are never
    /// dropped and do not count here: a worker whose messages nobody takes is refused more.
    pub fn event_queue(mut self, events: usize) -> Self {
        self.settings.event_queue = events;
        self
    }

    /// How long workers may drain before they are killed. Default 10 s.
    pub fn shutdown_timeout(mut self, time: Duration) -> Self {
        self.settings.shutdown_timeout = time;
        self
    }

    /// The largest message between processes, encoded, in bytes: 1 to 1 GiB. Default 16 MiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }

    /// How messages between processes are encoded (Node: `serialization`). Default
    /// [`Codec::MessagePack`]. [`Mode::Process`] only: threads move what they send.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = Some(codec);
        self
    }

    /// Whether each worker thread is pinned to a core. Default true. Processes are never pinned.
    pub fn pin(mut self, pin: bool) -> Self {
        self.settings.pin = pin;
        self
    }

    /// Bytes of stack of a worker thread. Default: the standard library's, 2 MiB. [`Mode::Thread`]
    /// only.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Adds a variable to the environment of worker processes. [`Mode::Process`] only.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.settings.env.push((name.into(), value.into()));
        self
    }

    /// Where worker processes start. Default: where the primary is. [`Mode::Process`] only.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.cwd = Some(directory.into());
        self
    }

    /// The user worker processes run as. [`Mode::Process`] only.
    pub fn uid(mut self, uid: u32) -> Self {
        self.settings.uid = Some(uid);
        self
    }

    /// The group worker processes run as. [`Mode::Process`] only.
    pub fn gid(mut self, gid: u32) -> Self {
        self.settings.gid = Some(gid);
        self
    }

    /// Where the standard streams of worker processes go. [`Mode::Process`] only.
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.settings.stdio = Some(stdio);
        self
    }

    /// Called with every event while [`run`](Self::run) runs, on the thread that called it.
    /// [`launch`](Self::launch) does not call it: there the program reads
    /// [`Cluster::events`](crate::Cluster::events).
    pub fn on_event(mut self, observer: impl FnMut(&Event) + 'static) -> Self {
        self.on_event = Some(Box::new(observer));
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`], naming the setting, what is wrong with it in this mode, and the remedy.
    pub fn build(&self) -> Result<Settings> {
        let mut settings = self.settings.clone();
        settings.workers = self.workers.resolve()?;
        settings.check()?;
        Ok(settings)
    }

    /// Runs a supervised cluster until it has ended: keeps the workers running, restarts those that
    /// crash with a growing delay, drains on SIGTERM and SIGINT (a second one, at least 100 ms later, ends at once).
    ///
    /// Call it from `main`, before threads are started. In a worker process it does not return: the
    /// process becomes the worker. A worker whose body returns without an error is done and is not
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] as [`build`](Self::build); [`ErrorKind::Start`] when no worker ever got
    /// ready, with the workers' own reason; [`ErrorKind::Io`] when the primary itself cannot start.
    pub fn run<F, Fut>(mut self, body: F) -> Result<Report>
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + 'static,
    {
        let observer = self.on_event.take();
        let cluster = Cluster::start(self.build()?, erase(body), true)?;
        cluster.observe_to_the_end(observer)
    }

    /// Starts a cluster without workers and without supervision (Node's way): the program forks,
    /// reads the events, and decides.
    ///
    /// Call it from `main`, before threads are started. In a worker process it does not return: the
    /// process becomes the worker. In a worker process of *another* cluster of the program it returns
    /// an inert cluster, whose workers never start and whose events end at once, so that `main` gets
    /// to that other cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] as [`build`](Self::build); [`ErrorKind::Io`] when the primary itself
    /// cannot start.
    pub fn launch<F, Fut>(self, body: F) -> Result<Cluster>
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + 'static,
    {
        Cluster::start(self.build()?, erase(body), false)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn erase<F, Fut>(body: F) -> Body
where
    F: Fn(Worker) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + 'static,
{
    Arc::new(move |worker| {
        let future = body(worker);
        Box::pin(async move { future.await.failure().map_or(Ok(()), Err) })
    })
}

impl Settings {
    fn check(&self) -> Result<()> {
        let name = self.name.len();
        within("name (its length)", name, 1, 128)?;
        within("window", self.window, 1, 64)?;
        within("accept_queue", self.accept_queue, 1, 65_536)?;
        within("event_queue", self.event_queue, 16, 1 << 24)?;
        within("max_message", self.max_message, 1, 1 << 30)?;
        self.check_mode()
    }

    /// What belongs to a process cannot be given to a thread, and the other way round.
    fn check_mode(&self) -> Result<()> {
        if self.mode == Mode::Thread && self.codec.is_some() {
            return Err(Error::new(
                ErrorKind::Setting,
                "`codec` cannot be set in thread mode: messages are moved there, not encoded; leave it out, or use process mode",
            ));
        }
        let process_only = [
            ("env", !self.env.is_empty()),
            ("cwd", self.cwd.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
            ("stdio", self.stdio.is_some()),
        ];
        let set = |settings: &[(&'static str, bool)]| {
            settings.iter().find(|(_, set)| *set).map(|(name, _)| *name)
        };
        match self.mode {
            Mode::Thread => match set(&process_only) {
                Some(name) => Err(unsuitable(
                    name,
                    self.mode,
                    "all threads of a process share one",
                    Mode::Process,
                )),
                None => Ok(()),
            },
            Mode::Process => match set(&[("stack_size", self.stack_size.is_some())]) {
                Some(name) => Err(unsuitable(
                    name,
                    self.mode,
                    "a process's main thread has the system's",
                    Mode::Thread,
                )),
                None => Ok(()),
            },
        }
    }
}

fn within(setting: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Setting,
        format!("{setting} is {value}; it must be from {least} to {most}"),
    ))
}

fn unsuitable(setting: &str, mode: Mode, reason: &str, other: Mode) -> Error {
    let text = format!(
        "`{setting}` cannot be set per worker in {mode} mode: {reason}; leave it out, or use {other} mode"
    );
    Error::new(ErrorKind::Setting, text)
}

/// The names in use: a worker process finds its body by name, so each may be used once.
static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Takes a name for the rest of the program's life.
pub(crate) fn take_name(name: &str) -> Result<()> {
    if NAMES.lock().insert(name.to_owned()) {
        return Ok(());
    }
    let text = format!(
        "`name` is {name:?}, which this program has used for a cluster of processes already; give each cluster its own `.name(..)`"
    );
    Err(Error::new(ErrorKind::Setting, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_hold_in_a_mode_is_refused_with_the_remedy() {
        let thread = || Builder::new(Mode::Thread);
        let refused = [
            ("env", thread().env("A", "b")),
            ("cwd", thread().cwd("/")),
            ("uid", thread().uid(1)),
            ("gid", thread().gid(1)),
            ("stdio", thread().stdio(Stdio::Null)),
            ("codec", thread().codec(Codec::Json)),
            ("stack_size", Builder::new(Mode::Process).stack_size(1 << 20)),
        ];
        for (setting, builder) in refused {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            let text = error.to_string();
            assert!(
                text.contains(&format!("`{setting}`")) && text.contains("leave it out"),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_checked() {
        let builder = || Builder::new(Mode::Process);
        for refused in [
            builder().window(0),
            builder().window(65),
            builder().accept_queue(0),
            builder().event_queue(1),
            builder().max_message(0),
            builder().name(""),
            builder().workers(0),
        ] {
            assert_eq!(refused.build().unwrap_err().kind(), ErrorKind::Setting);
        }
        assert_eq!(builder().workers(3).build().unwrap().workers, 3);
    }

    #[test]
    fn each_mode_has_its_own_default_policy() {
        let scheduling = |mode| Builder::new(mode).build().unwrap().scheduling;
        assert_eq!(scheduling(Mode::Process), Scheduling::RoundRobin);
        assert_eq!(scheduling(Mode::Thread), Scheduling::Shared);
    }

    #[test]
    fn a_name_is_taken_once() {
        take_name("unit-test").unwrap();
        assert!(take_name("unit-test").unwrap_err().to_string().contains(".name(..)"));
    }
}
