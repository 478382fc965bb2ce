//! The program's handle on a cluster, and the thread behind it.
//!
//! The primary's loop runs on a thread of its own, which lives as long as the cluster: worker processes
//! are tied to the thread that forked them (`PR_SET_PDEATHSIG`, prctl(2)).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    backend::{
        Backend, Common,
        cores::Cores,
        process::{ProcessBackend, child},
        thread::ThreadBackend,
    },
    builder::{self, Builder, Observer, Settings},
    config::{Memory, Mode, Workers},
    desk::{Desk, Request},
    error::{Context as _, Error, ErrorKind, Result},
    event::ExitStatus,
    event_loop::{EventLoop, mailbox},
    events::{self, Event, EventStream, Events},
    fork::Fork,
    handle::WorkerHandle,
    id::{Slot, WorkerId},
    message::{Broadcast, Codec, Members, Packing, Port},
    outside::{self, Outside},
    pool::Pool,
    primary::Primary,
    setup::Setup,
    shared::{
        Regions, SharedBuffer, SlotStats, StatsPage,
        store::{Choice, Store},
    },
    status::{Board, Past, Status},
    status_socket::{self, Opened, StatusSocket},
    supervise::Health,
    worker::{Body, Pace},
};

/// A running cluster (Node: the `cluster` module in the primary).
///
/// Dropping it ends all workers at once; [`Cluster::shutdown`] ends them in good order.
#[derive(Debug)]
pub struct Cluster {
    /// Those in force; a snapshot that was given out stays as it is.
    settings: Mutex<Arc<Settings>>,
    events: EventStream,
    store: Choice,
    /// Absent in a worker process of another cluster.
    primary: Option<Running>,
}

#[derive(Debug)]
struct Running {
    crew: Arc<Crew>,
    stats: Arc<StatsPage>,
    regions: Regions,
    supervised: bool,
    thread: JoinHandle<Result<Report>>,
    /// Ends after the primary, when this is dropped.
    _status: Option<StatusSocket>,
}

/// What a cluster did (see [`Builder::run`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Workers started.
    pub started: u64,
    /// Of those, replacements of workers that had failed.
    pub restarts: u64,
    /// Workers that were replaced because they had done enough.
    pub recycled: u64,
    /// Workers that gave no sign of life.
    pub hung: u64,
    /// Reloads that replaced every worker.
    pub reloads: u64,
    /// Reloads that were broken off.
    pub failed_reloads: u64,
    /// How workers ended, counted by cause.
    pub exits: BTreeMap<String, u64>,
    /// Connections that the primary accepted for the workers.
    pub dispatched: u64,
    /// Of those, connections that a worker gave back or left behind and another got.
    pub dispatched_again: u64,
    /// Workers that did not drain in time and were told to end.
    pub closed: u64,
    /// Workers that were killed.
    pub forced_kills: u64,
    /// Threads that could not be ended and were left behind.
    pub abandoned: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "workers started: {} ({} for one that failed)", self.started, self.restarts)?;
        for (cause, count) in &self.exits {
            writeln!(f, "  ended with {cause}: {count}")?;
        }
        writeln!(
            f,
            "connections dispatched by the primary: {} ({} of them again)",
            self.dispatched, self.dispatched_again
        )?;
        writeln!(f, "workers recycled: {}, hung: {}", self.recycled, self.hung)?;
        writeln!(f, "reloads: {}, broken off: {}", self.reloads, self.failed_reloads)?;
        write!(
            f,
            "workers closed: {}, killed: {}, abandoned: {}",
            self.closed, self.forced_kills, self.abandoned
        )
    }
}

impl Cluster {
    /// Begins to choose the settings of a cluster in this mode.
    pub fn builder(mode: Mode) -> Builder {
        Builder::new(mode)
    }

    /// Starts the primary, or becomes the worker this process was started for.
    pub(crate) fn start(settings: Settings, body: Body, supervised: bool) -> Result<Self> {
        let store = Choice::new(settings.store.clone());
        let body = with_store(body, store.clone());
        if let Some(invitation) = child::accept_invitation(&settings.name) {
            let pool = pool_of_a_process(&settings)?;
            child::become_worker(invitation, body, pool);
        }
        let settings = Arc::new(settings);
        let (mut sink, events) =
            events::queue(settings.event_queue, supervised && child::invited_to().is_none());
        if child::invited_to().is_some() {
            return Ok(Self { settings: Mutex::new(settings), events, store, primary: None });
        }
        let outside = Outside::take(supervised)?;
        if supervised && settings.reap_orphans {
            outside::init::step_aside();
        }
        let status = open_status(&settings, &outside)?;
        if let Some(status) = &status {
            sink.show_to(status.feed());
        }
        if settings.mode == Mode::Process {
            builder::take_name(&settings.name)?;
        }
        let primary = start_primary(settings.clone(), body, sink, outside, supervised)?;
        // From here on an early return ends the primary.
        let mut cluster =
            Self { settings: Mutex::new(settings), events, store, primary: Some(primary) };
        cluster.serve_status(status)?;
        Ok(cluster)
    }

    /// Serves the status socket from now on, if there is one.
    fn serve_status(&mut self, opened: Option<Opened>) -> Result<()> {
        let settings = self.settings();
        if let (Some(running), Some(opened)) = (&mut self.primary, opened) {
            running._status = Some(opened.serve(running.crew.clone(), settings)?);
        }
        Ok(())
    }

    /// Changes what workers are started with from now on (Node: `cluster.setupPrimary`). What `setup`
    /// does not mention keeps its value; workers that run keep all of theirs. [`Cluster::settings`]
    /// shows the change at once, a `setup` event follows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`], naming the setting: nothing has changed then. [`ErrorKind::Closed`] when
    /// the cluster has ended.
    pub fn setup_primary(&self, setup: Setup) -> Result<()> {
        // Held until the primary is told, so that its order is the order of the calls.
        let mut settings = self.settings.lock();
        let changed = Arc::new(settings.changed_by(setup)?);
        self.request(Request::Setup(changed.clone()))?;
        *settings = changed;
        Ok(())
    }

    /// Starts a worker (Node: `cluster.fork`). Its handle is valid at once; whether the worker could
    /// be started, the events say.
    ///
    /// # Errors
    ///
    /// As [`Cluster::fork_with`].
    pub fn fork(&self) -> Result<WorkerHandle> {
        self.fork_with(Fork::new())
    }

    /// Starts a worker with variables and data of its own (Node: `cluster.fork(env)`, `workerData`).
    ///
    /// # Errors
    ///
    /// No worker was added; an id was used up all the same. [`ErrorKind::Setting`] for a variable that
    /// cannot be one; [`ErrorKind::TooLarge`] or [`ErrorKind::Codec`] for data that cannot be given to
    /// a process; [`ErrorKind::Start`] when the pipes of its standard streams cannot be made;
    /// [`ErrorKind::Full`] when the cluster has [`Workers::MAX`](crate::Workers::MAX) workers;
    /// [`ErrorKind::Closed`] when the cluster has ended.
    pub fn fork_with(&self, fork: Fork) -> Result<WorkerHandle> {
        let Some(running) = &self.primary else { return Ok(never_started()) };
        let crew = &running.crew;
        let worker = crew.next_id();
        let (outfit, streams) = fork.prepare(&self.settings(), crew.desk.packing)?;
        let handle = crew.enlist(worker, None, Past::default())?;
        handle.hold(streams);
        self.events.worker_asked_for();
        let asked = crew.desk.request(Request::Fork(handle.clone(), Box::new(outfit)));
        asked.inspect_err(|_| crew.strike(worker))?;
        Ok(handle)
    }

    /// The workers that have not ended, by id (Node: `cluster.workers`).
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerHandle> {
        self.primary.as_ref().map_or_else(Vec::new, |running| running.crew.all())
    }

    /// The worker with this id, unless it has ended.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<WorkerHandle> {
        self.primary.as_ref()?.crew.get(id)
    }

    /// The events, one after the other (Node: `cluster.on`). The iterator waits for the next, and
    /// ends when no worker is left and every event was taken.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events::new(&self.events)
    }

    /// The next event, if it comes within this time.
    #[must_use]
    pub fn next_event_timeout(&self, time: Duration) -> Option<Event> {
        self.events().next_timeout(time)
    }

    /// Asks every worker to leave in good order (Node: `cluster.disconnect`). [`Cluster::events`]
    /// ends when all are gone; [`Cluster::wait_gone`] waits for that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the cluster has ended.
    pub fn disconnect(&self) -> Result<()> {
        self.request(Request::DisconnectAll)
    }

    /// Waits until no worker is left (Node: the callback of `cluster.disconnect`), which is at once
    /// when there is none, but no longer than this. Whether none is left: then all have ended, and
    /// what they listened on is closed. It takes no events.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        self.primary.as_ref().is_none_or(|running| running.crew.wait_gone(limit))
    }

    /// Joins a broadcast: what is posted under this name in any worker arrives here (Node: `new
    /// BroadcastChannel(name)`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] for a name that is empty or has more than 256 bytes;
    /// [`ErrorKind::Full`] when the program has joined 1024 names; [`ErrorKind::Closed`] in a worker
    /// process of another cluster.
    pub fn broadcast(&self, name: impl Into<String>) -> Result<Broadcast> {
        let crew = &self.running()?.crew;
        let relay = Box::new(crew.desk.clone());
        Broadcast::join(name.into(), crew.members.clone(), crew.desk.packing, relay)
    }

    /// The memory that [`Builder::region`] declared under this name: the same in all workers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when none was declared; [`ErrorKind::Closed`] in a worker process of another
    /// cluster.
    pub fn region(&self, name: &str) -> Result<SharedBuffer> {
        self.running()?.regions.get(name)
    }

    /// The store that [`Builder::store`] chose: the same for all workers. The first call opens it.
    ///
    /// # Errors
    ///
    /// As [`Worker::store`](crate::Worker::store).
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.store.store()
    }

    /// Makes a channel: two ports, either of which can be sent to any worker of the cluster, or used
    /// here (Node: `new MessageChannel`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when this process can open no more descriptors.
    pub fn channel(&self) -> Result<(Port, Port)> {
        let settings = self.settings();
        let shared = settings.mode == Mode::Thread;
        let memory = if shared { Memory::Shared } else { Memory::Separate };
        Port::pair(packing(&settings, memory))
    }

    /// The settings in force (Node: `cluster.settings`), as they are now: a later
    /// [`setup_primary`](Self::setup_primary) makes new ones.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().clone()
    }

    /// The counters of all workers, by slot.
    #[must_use]
    pub fn stats(&self) -> Vec<SlotStats> {
        self.primary.as_ref().map_or_else(Vec::new, |running| running.stats.rows())
    }

    /// Keeps so many workers running from now on: starts those that are missing, lets the last ones drain.
    /// With an [autoscaler](Builder::autoscale), its bounds hold.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] for a number that is 0 or above [`Workers::MAX`](crate::Workers::MAX), and when the
    /// cluster is not supervised; [`ErrorKind::Closed`] when it has ended.
    pub fn scale(&self, workers: usize) -> Result<()> {
        let workers = Workers::Exactly(workers).resolve()?;
        self.check_supervised("scale")?;
        self.request(Request::Scale(workers))
    }

    /// Replaces every worker, a few at a time (as SIGHUP does; Node has nothing like it): as
    /// [`Builder::rollout`] says, the first new worker alone. In [`Mode::Process`] the new ones run the
    /// program as it is on disk now. When a new worker does not get ready the reload is broken off: who was not
    /// replaced yet goes on, and [`Event::Decision`] says why. While a reload is under way, any number of
    /// calls leads to one more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when the cluster is not supervised; [`ErrorKind::Closed`] when it has ended.
    pub fn reload(&self) -> Result<()> {
        self.check_supervised("reload")?;
        self.request(Request::Reload)
    }

    /// Lets the program as it is on disk now take over (as SIGUSR2 does; nginx: upgrading an executable on
    /// the fly), in either mode: it is started as a new primary, with the same arguments, environment and
    /// standard streams, and has every listening socket from the start. When all its workers are
    /// [ready](Builder::boot_timeout) this cluster stops in good order, and [`wait`](Self::wait) returns. No
    /// connection is refused meanwhile. A new program that ends, or does not get ready within the boot
    /// timeout (60 s if none was chosen), leaves this one serving; [`Event::Decision`] says why. What is asked for
    /// while an upgrade is under way is part of it.
    ///
    /// What does not go along: workers' memory and regions, data left for an address, and sockets that a
    /// worker bound for itself. A program with several supervised clusters, and one that is process 1 of a container,
    /// cannot be upgraded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when the cluster is not supervised; [`ErrorKind::Closed`] when it has ended.
    pub fn upgrade(&self) -> Result<()> {
        self.check_supervised("upgrade")?;
        self.request(Request::Upgrade)
    }

    /// What the cluster looks like now. It asks nobody: workers that are stuck do not delay it.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.primary {
            Some(running) => running.crew.board.status(&running.crew.all()),
            None => Board::default().status(&[]),
        }
    }

    /// Begins to stop (as SIGTERM does), in the phases of [`Builder::shutdown`]. [`wait`](Self::wait) waits for
    /// the end. What stops already goes on as it does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the cluster has ended.
    pub fn stop(&self) -> Result<()> {
        self.request(Request::Stop)
    }

    /// Stops at once (as the second SIGTERM does): every worker is killed, and no phase waits.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop).
    pub fn stop_now(&self) -> Result<()> {
        self.request(Request::StopNow)
    }

    /// Waits until the cluster has ended, and says what it did. It takes the events that are left. A cluster
    /// that was launched ends only when it is [stopped](Self::stop).
    ///
    /// # Errors
    ///
    /// As [`Builder::run`].
    pub fn wait(self) -> Result<Report> {
        self.observe_to_the_end(None)
    }

    /// Ends the cluster: asks every worker to leave, closes what is still open when they had their time
    /// ([`Builder::shutdown`]), and says what the cluster did.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Panic`] when the primary's thread panicked.
    pub fn shutdown(mut self) -> Result<Report> {
        self.request(Request::Stop).or_else(already_ended)?;
        self.join()
    }

    /// Waits until the cluster has ended, and shows every event to the observer.
    pub(crate) fn observe_to_the_end(mut self, observer: Option<Observer>) -> Result<Report> {
        let mut observer = observer.unwrap_or_else(|| Box::new(|_| {}));
        while let Some(event) = self.events.next_of_all() {
            observer(&event);
        }
        self.join()
    }

    fn check_supervised(&self, what: &str) -> Result<()> {
        if self.primary.as_ref().is_none_or(|running| running.supervised) {
            return Ok(());
        }
        let text = format!(
            "`{what}` needs a cluster that keeps its own workers: start it with `supervise`, not with `launch`"
        );
        Err(Error::new(ErrorKind::Setting, text))
    }

    /// What is not there in a worker process of another cluster.
    fn running(&self) -> Result<&Running> {
        let idle = || Error::new(ErrorKind::Closed, "the cluster does nothing in this process");
        self.primary.as_ref().ok_or_else(idle)
    }

    fn request(&self, request: Request) -> Result<()> {
        match &self.primary {
            Some(running) => running.crew.desk.request(request),
            None => Ok(()),
        }
    }

    fn join(&mut self) -> Result<Report> {
        let Some(running) = self.primary.take() else { return Ok(Report::default()) };
        let panicked =
            |_| Error::new(ErrorKind::Panic, "the primary's thread panicked; its message is above");
        running.thread.join().map_err(panicked)?
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What a cluster that is dropped would report interests nobody.
        let _ = self.request(Request::StopNow);
        let _ = self.join();
    }
}

fn already_ended(error: Error) -> Result<()> {
    if error.kind() == ErrorKind::Closed { Ok(()) } else { Err(error) }
}

/// In a worker process of another cluster: a worker of this one is nobody.
fn never_started() -> WorkerHandle {
    let packing = Packing { memory: Memory::Separate, codec: Codec::default(), max_bytes: 0 };
    let (stats, posted) = (StatsPage::heap(), Arc::default());
    let desk = Desk { requests: mailbox().0, packing, stats, posted };
    let handle = WorkerHandle::new(WorkerId::new(0), Slot(0), 0, Past::default(), desk);
    handle.closed();
    handle.ended(ExitStatus::NotStarted);
    handle
}

/// The handles of all workers that have not ended, and who comes next.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) desk: Desk,
    /// The program's members of broadcasts.
    pub(crate) members: Arc<Members>,
    pub(crate) board: Board,
    roll: Mutex<Roll>,
    /// Notified when the last worker is struck.
    gone: Condvar,
}

#[derive(Debug, Default)]
struct Roll {
    last: u64,
    handles: BTreeMap<WorkerId, WorkerHandle>,
    /// Workers so far, by slot.
    generations: HashMap<Slot, u32>,
    /// Slots of workers that were left behind: they may still write to their rows.
    lost: HashSet<Slot>,
}

impl Crew {
    pub(crate) fn new(desk: Desk) -> Self {
        let members = Arc::default();
        let (board, roll) = Default::default();
        Self { desk, members, board, roll, gone: Condvar::new() }
    }

    /// An id for one more worker. It is used up, whatever becomes of the worker.
    pub(crate) fn next_id(&self) -> WorkerId {
        let mut roll = self.roll.lock();
        roll.last += 1;
        WorkerId::new(roll.last)
    }

    /// A handle for one more worker, in this slot if it is free, else in the lowest that is.
    pub(crate) fn enlist(
        &self,
        worker: WorkerId,
        slot: Option<Slot>,
        past: Past,
    ) -> Result<WorkerHandle> {
        let mut roll = self.roll.lock();
        let slot = roll.free_slot(slot)?;
        let generation = roll.generations.entry(slot).or_default();
        *generation += 1;
        let handle = WorkerHandle::new(worker, slot, *generation, past, self.desk.clone());
        roll.handles.insert(worker, handle.clone());
        Ok(handle)
    }

    /// Strikes a worker that has ended.
    pub(crate) fn strike(&self, worker: WorkerId) {
        let mut roll = self.roll.lock();
        if let Some(handle) = roll.handles.remove(&worker)
            && handle.exit_status() == Some(ExitStatus::Abandoned)
        {
            roll.lost.insert(handle.slot());
        }
        if roll.handles.is_empty() {
            self.gone.notify_all();
        }
    }

    /// Waits until no worker is left, but no longer than this. Whether none is.
    fn wait_gone(&self, limit: Duration) -> bool {
        let mut roll = self.roll.lock();
        self.gone.wait_while_for(&mut roll, |roll| !roll.handles.is_empty(), limit);
        roll.handles.is_empty()
    }

    pub(crate) fn get(&self, worker: WorkerId) -> Option<WorkerHandle> {
        self.roll.lock().handles.get(&worker).cloned()
    }

    pub(crate) fn all(&self) -> Vec<WorkerHandle> {
        self.roll.lock().handles.values().cloned().collect()
    }
}

impl Roll {
    /// This slot, or the lowest that is free.
    fn free_slot(&self, wanted: Option<Slot>) -> Result<Slot> {
        let taken = self.handles.values().map(WorkerHandle::slot);
        let taken: HashSet<_> = taken.chain(self.lost.iter().copied()).collect();
        let mut all = wanted.into_iter().chain((0..StatsPage::ROWS).map(Slot));
        let free = all.find(|slot| !taken.contains(slot));
        // The rest of the page is for those that replace others, and for those left behind.
        free.filter(|_| wanted.is_some() || self.handles.len() < Workers::MAX).ok_or_else(|| {
            let text =
                format!("the cluster has {} workers, which is the most it can have", Workers::MAX);
            Error::new(ErrorKind::Full, text)
        })
    }
}

/// Starts the primary's thread and waits until it is ready for requests.
fn start_primary(
    settings: Arc<Settings>,
    body: Body,
    sink: events::EventSink,
    outside: Outside,
    supervised: bool,
) -> Result<Running> {
    let (post, requests) = mailbox();
    let (ready, started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("bimodal-primary".into()).spawn(move || {
        let mut event_loop =
            EventLoop::new().context(ErrorKind::Io, || "cannot make an event loop".into())?;
        event_loop.set_idle_poll(settings.idle_poll);
        let backend = event_loop.enter(|| new_backend(&settings, body, supervised))?;
        let (stats, regions) = (backend.stats().clone(), backend.regions().clone());
        let packing = packing(&settings, backend.memory());
        let crew = Arc::new(Crew::new(Desk {
            requests: post,
            packing,
            stats: stats.clone(),
            posted: Arc::default(),
        }));
        let primary = event_loop.enter(|| {
            Primary::new(settings, backend, crew.clone(), requests, sink, outside, supervised)
        })?;
        // The caller waits for this.
        let _ = ready.send((crew, stats, regions));
        event_loop
            .block_on(primary.run())
            .context(ErrorKind::Io, || "the primary's loop failed".into())?
    });
    let thread = thread.context(ErrorKind::Io, || "cannot start the primary's thread".into())?;
    match started.recv() {
        Ok((crew, stats, regions)) => {
            Ok(Running { crew, stats, regions, supervised, thread, _status: None })
        }
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            _ => Err(Error::new(
                ErrorKind::Panic,
                "the primary's thread panicked; its message is above",
            )),
        },
    }
}

/// Opens the status socket, if one was chosen.
fn open_status(settings: &Settings, outside: &Outside) -> Result<Option<Opened>> {
    let open = |path| status_socket::open(path, outside.legacy.as_ref());
    settings.status_socket.as_deref().map(open).transpose()
}

/// A worker process's own pool, made before the process is pinned; it keeps off the cores of loops if it can.
fn pool_of_a_process(settings: &Settings) -> Result<Pool> {
    let spare = Cores::usable(settings.pin).without(settings.workers);
    settings.pool.clone().or_cores(spare).build()
}

/// A body that finds the store when it starts.
fn with_store(body: Body, store: Choice) -> Body {
    Arc::new(move |worker| {
        worker.choose_store(store.clone());
        body(worker)
    })
}

/// The one place that turns the mode into something else.
fn new_backend(settings: &Settings, body: Body, supervised: bool) -> Result<Box<dyn Backend>> {
    let common = |memory| Common {
        name: settings.name.as_str().into(),
        packing: packing(settings, memory),
        pace: Pace {
            beat: settings.supervision.health.as_ref().map(Health::beat).filter(|_| supervised),
            idle_poll: settings.idle_poll,
        },
        cores: Cores::usable(settings.pin),
        regions: settings.regions.clone(),
    };
    match settings.mode {
        Mode::Thread => {
            let common = common(Memory::Shared);
            let pool = (settings.pool.clone(), settings.workers);
            Ok(Box::new(ThreadBackend::new(common, pool, body)?))
        }
        Mode::Process => Ok(Box::new(ProcessBackend::new(common(Memory::Separate))?)),
    }
}

fn packing(settings: &Settings, memory: Memory) -> Packing {
    let codec = settings.codec.unwrap_or_default();
    Packing { memory, codec, max_bytes: settings.max_message }
}
