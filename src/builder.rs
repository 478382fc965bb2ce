//! The settings of a cluster: chosen, checked, frozen.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    backend::process::child,
    cluster::{Cluster, Report},
    config::{MAX_IDLE_POLL, Memory, Mode, Scheduling, Workers},
    error::{Error, ErrorKind, Result},
    events::Event,
    message::{self, Codec},
    pool::PoolSettings,
    setup::Setup,
    shared::{self, store::Storage},
    status_socket,
    supervision::Supervision,
    worker::{Body, Outcome, Worker},
};

/// Chooses the settings of a cluster; [`run`](Builder::run) or [`launch`](Builder::launch) starts it
/// (Node: `cluster.setupPrimary`).
#[must_use = "a builder starts nothing"]
pub struct Builder {
    settings: Settings,
    workers: Workers,
    /// As they were declared, unchecked.
    regions: Vec<(String, usize)>,
    scheduling: Option<Scheduling>,
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
    /// Whether addresses stay open when no worker listens on them.
    pub keep_listening: bool,
    /// Events kept for a reader that is behind.
    pub event_queue: usize,
    /// How a supervised cluster keeps itself.
    pub supervision: Supervision,
    /// The largest encoded message, in bytes.
    pub max_message: usize,
    /// How messages between processes are encoded; absent: as [`Codec`] defaults.
    pub codec: Option<Codec>,
    /// The memory that all share: bytes, in whole words, by name.
    pub regions: BTreeMap<String, usize>,
    /// The pool for heavy work: of the cluster where workers are threads, else of each worker.
    pub pool: PoolSettings,
    /// Where the store is; absent: worker processes have none.
    pub store: Option<Storage>,
    /// Whether each worker is pinned to a core.
    pub pin: bool,
    /// How long idle loops look again before they sleep.
    pub idle_poll: Duration,
    /// Whether a supervised cluster makes a process 1 an init.
    pub reap_orphans: bool,
    /// Where other programs can watch the cluster; absent: nowhere.
    pub status_socket: Option<PathBuf>,
    /// What workers are started with; what was never set holds the default that applies.
    pub setup: Setup,
}

impl Builder {
    pub(crate) fn new(mode: Mode) -> Self {
        let settings = Settings {
            mode,
            name: "default".into(),
            workers: 0,
            scheduling: default_scheduling(mode),
            window: 8,
            keep_listening: false,
            event_queue: 16_384,
            supervision: Supervision::default(),
            max_message: message::MAX_BYTES,
            codec: None,
            regions: BTreeMap::new(),
            pool: PoolSettings::new(),
            store: None,
            pin: mode == Mode::Thread,
            idle_poll: Duration::ZERO,
            reap_orphans: true,
            status_socket: None,
            setup: Setup::new(),
        };
        let regions = Vec::new();
        Self { settings, workers: Workers::Auto, regions, scheduling: None, on_event: None }
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

    /// Who gets the next connection. Default: what the environment variable
    /// [`BIMODAL_SCHEDULING`](Scheduling::VARIABLE) says, else [`Scheduling::RoundRobin`] for processes
    /// and [`Scheduling::Shared`] for threads. It cannot be changed once the cluster runs.
    pub fn scheduling(mut self, scheduling: Scheduling) -> Self {
        self.scheduling = Some(scheduling);
        self
    }

    /// How many connections a worker may be offered before it has adopted one of them, from 1 to 64.
    /// Default 8. It is the most that a worker which does not answer can hold up; Node's is 1.
    pub fn window(mut self, connections: usize) -> Self {
        self.settings.window = connections;
        self
    }

    /// Whether an address stays open when the last worker that listens on it has gone: clients wait
    /// for the next worker instead of being refused, so a single worker can be replaced unnoticed.
    /// Default false, as in Node. [`run`](Self::run) always does. The address is closed when the
    /// cluster ends or all workers are [disconnected](crate::Cluster::disconnect); of addresses without a
    /// worker at most 256 stay open, and one that a worker closed by itself goes first.
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

    /// Declares memory that the primary and all workers share (Node: a `SharedArrayBuffer` that is sent to
    /// all), to be found with [`Worker::region`] and [`Cluster::region`]: 1 to 1 GiB, rounded up to whole
    /// words of 8 bytes, zero at first. It lives as long as the cluster, whatever becomes of workers.
    ///
    /// There can be 32, each with a name of its own of 1 to 128 bytes.
    pub fn region(mut self, name: impl Into<String>, bytes: usize) -> Self {
        self.regions.push((name.into(), bytes));
        self
    }

    /// The pool of threads that [`Worker::pool`] gives to workers for heavy work. In [`Mode::Thread`] there is one
    /// for all workers, in [`Mode::Process`] each has its own. No thread is started before the first task.
    ///
    /// By default loops and pools together have as many threads as there are cores, and a pool has one at least:
    /// with W workers on C cores C - W threads for the pool that worker threads share, (C - W) / W for
    /// each process. A program whose work is mostly heavy has fewer [`workers`](Self::workers) than cores, or
    /// [chooses](PoolSettings::threads) more threads. Where loops are pinned, the pool's threads
    /// use the cores that no loop is pinned to, if there are as many as threads.
    pub fn pool(mut self, settings: PoolSettings) -> Self {
        self.settings.pool = settings;
        self
    }

    /// Where the store of the cluster is, to be found with [`Worker::store`] and [`Cluster::store`]. Default:
    /// [`Storage::Memory`] for threads; none for processes, which cannot share that. It is opened when it
    /// is first asked for, in each process that does.
    pub fn store(mut self, storage: Storage) -> Self {
        self.settings.store = Some(storage);
        self
    }

    /// Whether each worker is pinned to a core of those that the program may use when the cluster starts, one after the
    /// other (nginx: `worker_cpu_affinity auto`; Node has nothing like it). Default: threads are, processes are not. What
    /// a pinned worker starts itself, threads and programs, is where it is.
    ///
    /// A pinned loop finds its caches warm. One that is not can go where a core is free, which matters where other
    /// busy programs share the cores.
    pub fn pin(mut self, pin: bool) -> Self {
        self.settings.pin = pin;
        self
    }

    /// How long the loops of the primary and of the workers, when they are idle, look for work again and again before
    /// they sleep, at most 10 ms. Default 0: they sleep at once. Some 20 to 50 us bring the round trip of a message
    /// down by what a sleep and a wake-up take, and use the core meanwhile: for machines with a core to spare.
    pub fn idle_poll(mut self, time: Duration) -> Self {
        self.settings.idle_poll = time;
        self
    }

    /// Whether a program that is process 1, as in a container, reaps the orphans that the kernel gives it.
    /// Default true; elsewhere it changes nothing.
    ///
    /// [`run`](Self::run) then goes on in a child. Process 1 is left with nothing of the program's: it passes signals on,
    /// reaps, and ends with the program's exit status (128 and the number of the signal that ended it). Orphans are no
    /// workers, and the children that the program starts itself keep their exit statuses for it. With other
    /// threads running it stays as it was, which is logged.
    pub fn reap_orphans(mut self, reap: bool) -> Self {
        self.settings.reap_orphans = reap;
        self
    }

    /// Lets other programs watch the cluster on a Unix socket at this path, such as this crate's example `top`: the
    /// counters of all workers at an interval, and events as they come, as lines of JSON. Default: none. What is asked and
    /// answered, [the world outside](crate::docs::outside) tells.
    ///
    /// The file has mode 0600, and only processes of the primary's user, or root, are answered. It goes when the cluster
    /// has ended. One that a killed program has left there is replaced; anything else that is there is left alone, and the
    /// cluster does not start. A relative path starts at the directory of the program; in full it has at most 107 bytes.
    pub fn status_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.status_socket = Some(path.into());
        self
    }

    /// What workers are started with (Node: `cluster.setupPrimary`): program, arguments, environment,
    /// directory, user, standard streams. What an earlier call mentioned and this one does not stays.
    pub fn setup(mut self, setup: Setup) -> Self {
        self.settings.setup.merge(setup);
        self
    }

    /// Called with every event while [`run`](Self::run) runs, on the thread that called it.
    /// [`launch`](Self::launch) does not call it: there the program reads
    /// [`Cluster::events`](crate::Cluster::events).
    pub fn on_event(mut self, observer: impl FnMut(&Event) + 'static) -> Self {
        self.on_event = Some(Box::new(observer));
        self
    }

    /// Changes how the cluster keeps itself.
    pub(crate) fn supervision(mut self, change: impl FnOnce(&mut Supervision)) -> Self {
        change(&mut self.settings.supervision);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`], naming the setting, what is wrong with it in this mode, and the remedy;
    /// [`ErrorKind::Start`] when the system does not say which program this is.
    pub fn build(&self) -> Result<Settings> {
        let mut settings = self.settings.clone();
        settings.workers = self.workers.resolve()?;
        settings.regions = shared::check(&self.regions)?;
        settings.scheduling = self.choose_scheduling(std::env::var_os(Scheduling::VARIABLE))?;
        settings.choose_store()?;
        let socket = settings.status_socket.as_deref().map(status_socket::check);
        settings.status_socket = socket.transpose()?;
        settings.check()?;
        settings.pool = settings.pool.clone().or_threads(settings.spare_cores()?);
        settings.setup.fill(settings.mode)?;
        Ok(settings)
    }

    fn choose_scheduling(&self, variable: Option<OsString>) -> Result<Scheduling> {
        match (self.scheduling, variable) {
            (Some(chosen), _) => Ok(chosen),
            (None, Some(value)) => Scheduling::from_variable(&value),
            (None, None) => Ok(default_scheduling(self.settings.mode)),
        }
    }

    /// Runs a supervised cluster until it has ended: keeps the workers running, replaces those that crash
    /// or hang, drains when it is told to stop. What happens when, the chapter
    /// [Supervision](crate::docs::supervision) tells.
    ///
    /// | signal | |
    /// |---|---|
    /// | SIGTERM, SIGINT | stop, in the phases of [`shutdown`](Self::shutdown); the second one, at least 100 ms later, at once |
    /// | SIGQUIT | stop as well, and no number of them hurries it |
    /// | SIGHUP | [reload](Cluster::reload) |
    /// | SIGTTIN, SIGTTOU | a worker more, a worker less |
    /// | SIGUSR2 | [upgrade](Cluster::upgrade) |
    ///
    /// What it does in a container and under a service manager: [the world outside](crate::docs::outside).
    ///
    /// Call it from `main`, before threads are started. In a worker process it does not return: the
    /// process becomes the worker. A worker whose body returns without an error is done and is not
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] as [`build`](Self::build); [`ErrorKind::Start`] when no worker got ready and
    /// stayed, with the workers' own reason; [`ErrorKind::Exhausted`] when workers failed more often than
    /// [`Restart`](crate::Restart) allows and it says [`Exhausted::Stop`](crate::Exhausted::Stop);
    /// [`ErrorKind::Io`] when the primary itself cannot start, or a region cannot be made.
    /// [`Error::exit_code`] turns each into an exit status for an outer supervisor.
    pub fn run<F, Fut>(mut self, body: F) -> Result<Report>
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + 'static,
    {
        let observer = self.on_event.take();
        self.supervise(body)?.observe_to_the_end(observer)
    }

    /// [`run`](Self::run), but returns at once with the running cluster, which the program can
    /// [scale](Cluster::scale), [reload](Cluster::reload) and look at; [`Cluster::wait`] waits for its end. The
    /// program reads [`Cluster::events`]; `on_event` is not called. Signals stop and reload the cluster as they do
    /// in `run`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] as [`build`](Self::build); [`ErrorKind::Io`] when the primary itself
    /// cannot start, or a region cannot be made.
    pub fn supervise<F, Fut>(self, body: F) -> Result<Cluster>
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + 'static,
    {
        let cluster = Cluster::start(self.build()?, erase(body), true)?;
        if child::invited_to().is_none() {
            log::info!("{}", self.workers.explain()?);
        }
        Ok(cluster)
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
    /// cannot start, or a region cannot be made.
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
        Box::pin(
            async move { future.await.code().map_err(|text| Error::new(ErrorKind::Body, text)) },
        )
    })
}

impl Settings {
    fn check(&self) -> Result<()> {
        let name = self.name.len();
        within("name (its length)", name, 1, 128)?;
        within("window", self.window, 1, 64)?;
        within("event_queue", self.event_queue, 16, 1 << 24)?;
        within("max_message", self.max_message, 1, 1 << 30)?;
        if self.mode == Mode::Thread && self.codec.is_some() {
            return Err(Error::new(
                ErrorKind::Setting,
                "`codec` cannot be set in thread mode: messages are moved there, not encoded; leave it out, or use process mode",
            ));
        }
        self.check_idle_poll()?;
        self.supervision.check(self.mode)?;
        self.pool.check()?;
        self.setup.check(self.mode)
    }

    fn check_idle_poll(&self) -> Result<()> {
        if self.idle_poll <= MAX_IDLE_POLL {
            return Ok(());
        }
        let text =
            format!("idle_poll is {:?}; it must be at most {MAX_IDLE_POLL:?}", self.idle_poll);
        Err(Error::new(ErrorKind::Setting, text))
    }

    /// The cores that loops leave over, for each pool.
    fn spare_cores(&self) -> Result<usize> {
        let spare = Workers::Auto.resolve()?.saturating_sub(self.workers);
        Ok(if self.mode == Mode::Process { spare / self.workers } else { spare })
    }

    fn choose_store(&mut self) -> Result<()> {
        let memory = match self.mode {
            Mode::Process => Memory::Separate,
            Mode::Thread => Memory::Shared,
        };
        self.store = self.store.take().or_else(|| Storage::default_for(memory));
        self.store.as_ref().map_or(Ok(()), |storage| storage.check(memory))
    }

    /// These settings with what a setup changes about them.
    pub(crate) fn changed_by(&self, setup: Setup) -> Result<Self> {
        setup.check(self.mode)?;
        let mut changed = self.clone();
        changed.setup.merge(setup);
        Ok(changed)
    }
}

fn default_scheduling(mode: Mode) -> Scheduling {
    match mode {
        Mode::Process => Scheduling::RoundRobin,
        Mode::Thread => Scheduling::Shared,
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
    fn a_codec_needs_something_to_encode() {
        let error = Builder::new(Mode::Thread).codec(Codec::Json).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        let text = error.to_string();
        assert!(text.contains("`codec`") && text.contains("leave it out"), "{text}");
    }

    #[test]
    fn numbers_are_checked() {
        let builder = || Builder::new(Mode::Process);
        for refused in [
            builder().window(0),
            builder().window(65),
            builder().event_queue(1),
            builder().max_message(0),
            builder().idle_poll(Duration::from_millis(11)),
            builder().name(""),
            builder().workers(0),
        ] {
            assert_eq!(refused.build().unwrap_err().kind(), ErrorKind::Setting);
        }
        assert_eq!(builder().workers(3).build().unwrap().workers, 3);
    }

    #[test]
    fn a_pool_that_cannot_be_is_refused() {
        let builder = Builder::new(Mode::Thread).pool(PoolSettings::new().queue(0));
        assert!(builder.build().unwrap_err().to_string().contains("the pool's queue is 0"));
    }

    #[test]
    fn loops_and_pools_share_the_cores() {
        let cores = Workers::Auto.resolve().unwrap();
        let spare = |mode, workers: usize| {
            let settings = Builder::new(mode).workers(workers).build().unwrap();
            settings.spare_cores().unwrap()
        };
        for mode in [Mode::Process, Mode::Thread] {
            assert_eq!((spare(mode, 1), spare(mode, cores)), (cores - 1, 0));
            assert_eq!(spare(mode, cores + 1), 0);
        }
    }

    #[test]
    fn the_program_chooses_the_policy_then_the_environment_then_the_mode() {
        let choose = |builder: Builder, variable: Option<&str>| {
            builder.choose_scheduling(variable.map(OsString::from)).unwrap()
        };
        for mode in [Mode::Process, Mode::Thread] {
            let chosen = Builder::new(mode).scheduling(Scheduling::ReusePort);
            assert_eq!(choose(chosen, Some("rr")), Scheduling::ReusePort);
            assert_eq!(choose(Builder::new(mode), Some("none")), Scheduling::Shared);
        }
        assert_eq!(choose(Builder::new(Mode::Process), None), Scheduling::RoundRobin);
        assert_eq!(choose(Builder::new(Mode::Thread), None), Scheduling::Shared);
    }

    #[test]
    fn a_name_is_taken_once() {
        take_name("unit-test").unwrap();
        assert!(take_name("unit-test").unwrap_err().to_string().contains(".name(..)"));
    }
}
