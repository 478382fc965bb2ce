//! The primary's view of one worker.
//!
//! A handle may live on any thread. It holds what the primary has published about the worker, a way to
//! ask the primary for something, and the line by which messages go straight to the worker.

use std::{
    fmt,
    io::{PipeReader, PipeWriter},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    channel::{Flow, Receipt},
    clock,
    config::Memory,
    desk::{Desk, Request},
    error::{Error, ErrorKind, Result},
    event::{ExitStatus, State, Step},
    events::Event,
    fork::Streams,
    id::{Slot, WorkerId},
    message::{self, Handle, SendError},
    observers::Observers,
    shared::{Latency, SlotStats},
    signal::Signal,
    status::{Past, WorkerStatus},
    sys,
    worker::Line,
};

/// One worker, as its primary sees it (Node: `Worker` in `cluster.workers`). Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle {
    record: Arc<Record>,
}

struct Record {
    worker: WorkerId,
    slot: Slot,
    generation: u32,
    desk: Desk,
    line: Line,
    /// When it was asked for.
    begun: Instant,
    past: Past,
    life: Mutex<State>,
    ready: AtomicBool,
    connected: AtomicBool,
    /// Whether it leaves because it was asked to, once that is known.
    voluntary: Mutex<Option<bool>>,
    /// 0 until it was started.
    pid: AtomicU32,
    status: Mutex<Option<ExitStatus>>,
    streams: Mutex<Streams>,
    observers: Observers,
}

impl WorkerHandle {
    pub(crate) fn new(
        worker: WorkerId,
        slot: Slot,
        generation: u32,
        past: Past,
        desk: Desk,
    ) -> Self {
        let record = Record {
            worker,
            slot,
            generation,
            line: Line::new(desk.packing),
            desk,
            begun: clock::now(),
            past,
            life: Mutex::new(State::Starting),
            ready: AtomicBool::new(false),
            connected: AtomicBool::new(true),
            voluntary: Mutex::default(),
            pid: AtomicU32::new(0),
            status: Mutex::default(),
            streams: Mutex::default(),
            observers: Observers::default(),
        };
        Self { record: Arc::new(record) }
    }

    /// The worker's id: 1 for the first of the cluster, never reused (Node: `worker.id`).
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.record.worker
    }

    /// The worker's place in the cluster. Whoever replaces it after a failure takes the same; a successor that
    /// starts while it still runs (recycling, reload) takes another.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.record.slot
    }

    /// 1 for the first worker in this slot, one more for each that has it after that one.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.record.generation
    }

    /// `bimodal-worker-ID`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("bimodal-worker-{}", self.record.worker)
    }

    /// The process the worker runs in, once it was started (Node: `worker.process.pid`). A worker
    /// thread's is the primary's own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.record.pid.load(SeqCst)).filter(|pid| *pid != 0)
    }

    /// Where the worker is in its life (Node: `worker.state`). It may be further than the event that is
    /// being handled, whose own state [`Event::state`] tells.
    #[must_use]
    pub fn state(&self) -> State {
        *self.record.life.lock()
    }

    /// Whether the worker is ready: it listens, or has [said so](crate::Worker::ready), and is not leaving.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.record.ready.load(SeqCst) && self.state() < State::Draining
    }

    /// Bytes of memory that are the worker's alone now: what its process has in use and shares with nobody
    /// (`RssAnon` of proc(5)). `None` for a thread, which shares the primary's, and for a process that is
    /// not there.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        match self.record.desk.packing.memory {
            Memory::Shared => None,
            Memory::Separate => sys::process::private_memory(self.pid()?),
        }
    }

    /// Whether the worker's channel is open (Node: `worker.isConnected`): from the fork until its
    /// `disconnect` event.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.record.connected.load(SeqCst)
    }

    /// Whether the worker has ended (Node: `worker.isDead`). May be true already when the program takes
    /// `disconnect`, as [`state`](Self::state) may be further than the event.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state() == State::Gone
    }

    /// Whether the worker leaves because it was asked to, or asked to itself (Node:
    /// `worker.exitedAfterDisconnect`). `None` until that is known: [`disconnect`](Self::disconnect)
    /// makes it `Some(true)`, and the worker's `disconnect` event at the latest makes it
    /// `Some(false)`, as for a crash, an exit with a code, and a worker that was killed.
    #[must_use]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        *self.record.voluntary.lock()
    }

    /// Whether the worker was asked to leave, or is leaving by itself, and has not left yet.
    #[must_use]
    pub fn is_disconnecting(&self) -> bool {
        self.is_connected() && (self.was_asked_to_leave() || self.state() == State::Draining)
    }

    /// How the worker ended, once it has: what its `exit` event says (Node: `worker.process.exitCode`
    /// and `signalCode`).
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.record.status.lock()
    }

    /// The worker's counters now. All 0 before it is online and after its end.
    #[must_use]
    pub fn stats(&self) -> SlotStats {
        let row = self.record.desk.stats.row(self.slot());
        if row.worker == self.id().get() && !self.is_dead() { row } else { SlotStats::default() }
    }

    /// How long the worker's requests took so far. Nothing before it is online and after its end.
    #[must_use]
    pub fn latency(&self) -> Latency {
        let latency = self.record.desk.stats.latency(self.slot());
        if self.stats().worker == 0 { Latency::default() } else { latency }
    }

    /// The pipe to the worker's standard input, once, if it was started with
    /// [`Stdio::Piped`](crate::Stdio::Piped) (Node: `worker.process.stdin`).
    #[must_use = "dropping it closes the pipe"]
    pub fn take_stdin(&self) -> Option<PipeWriter> {
        self.record.streams.lock().stdin.take()
    }

    /// The pipe from the worker's standard output, once, as [`take_stdin`](Self::take_stdin) (Node:
    /// `worker.process.stdout`).
    #[must_use = "dropping it closes the pipe"]
    pub fn take_stdout(&self) -> Option<PipeReader> {
        self.record.streams.lock().stdout.take()
    }

    /// The pipe from the worker's standard error, once, as [`take_stdin`](Self::take_stdin) (Node:
    /// `worker.process.stderr`).
    #[must_use = "dropping it closes the pipe"]
    pub fn take_stderr(&self) -> Option<PipeReader> {
        self.record.streams.lock().stderr.take()
    }

    /// Calls `observer` with every event of this worker but `fork` that the program takes from now on
    /// (Node: `worker.on`): on the thread that takes it, before [`Cluster::events`](crate::Cluster::events)
    /// returns it or [`Builder::on_event`](crate::Builder::on_event) shows it. Several observers are
    /// called in the order in which they came; the last event is `exit`.
    ///
    /// A panic of an observer goes through the call that takes the event, as any panic of the program's
    /// own: where nothing catches it the cluster is dropped, which ends the workers.
    pub fn on_event(&self, observer: impl FnMut(&Event) + Send + 'static) {
        self.record.observers.add(Box::new(observer));
    }

    /// Sends a message to the worker (Node: `worker.send`): behind all that were sent before, also
    /// before the worker is online or receives. After [`disconnect`](Self::disconnect) it may still be
    /// sent until the worker's channel is closed; whether its body takes it is the body's affair.
    ///
    /// [`Flow::Slow`] says that the worker has many to take already; the message was queued all the
    /// same.
    ///
    /// # Errors
    ///
    /// The value comes back in the error: [`ErrorKind::Closed`] when the worker is gone,
    /// [`ErrorKind::Full`] when it has too many messages to take, [`ErrorKind::TooLarge`] or
    /// [`ErrorKind::Codec`] when the value cannot be sent to a process.
    pub fn send<T: Serialize + Send + 'static>(&self, value: T) -> Result<Flow, SendError<T>> {
        self.post(value, None)
    }

    /// [`send`](Self::send) with a socket, a listener or a port beside the value (Node:
    /// `worker.send(message, sendHandle)`), which is the worker's from now on.
    /// Under way it counts as 256 KiB: 512 that are not taken fill the way.
    ///
    /// # Errors
    ///
    /// As `send`; the handle comes back, too.
    pub fn send_with<T: Serialize + Send + 'static>(
        &self,
        value: T,
        handle: impl Into<Handle>,
    ) -> Result<Flow, SendError<T>> {
        self.post(value, Some(handle.into()))
    }

    /// [`send`](Self::send) with a receipt, which says when the message has left this side (Node: the
    /// callback of `send`). It does not say that the worker has received it.
    ///
    /// # Errors
    ///
    /// As `send`.
    pub fn send_tracked<T: Serialize + Send + 'static>(
        &self,
        value: T,
    ) -> Result<Receipt, SendError<T>> {
        // What the flow would say, the receipt says better.
        let _ = self.send(value)?;
        Ok(self.record.line.track())
    }

    /// Blocks until everything that was sent to the worker has left this side, or for this long.
    ///
    /// # Errors
    ///
    /// As [`Receipt::wait`].
    pub fn flush(&self, limit: Duration) -> Result<()> {
        self.record.line.track().wait(limit)
    }

    fn post<T: Serialize + Send + 'static>(
        &self,
        value: T,
        handle: Option<Handle>,
    ) -> Result<Flow, SendError<T>> {
        let Record { desk, line, .. } = &*self.record;
        if let Err(error) = self.check_connected() {
            return Err(SendError::new(error, value, handle));
        }
        message::send(value, handle, desk.packing, line.load(), |message| line.send(message))
    }

    /// Asks the worker to leave in good order (Node: `worker.disconnect`): it is given no new
    /// connections, and accepts none for itself from its loop's next turn on; it finishes what it has,
    /// and ends. The `exit` event says when. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the worker is gone; nothing has changed.
    pub fn disconnect(&self) -> Result<&Self> {
        self.check_connected()?;
        self.leaves_voluntarily();
        self.record.desk.request(Request::Disconnect(self.id()))?;
        Ok(self)
    }

    /// Ends the worker without waiting for it (Node: `worker.kill('SIGKILL')`): a process at once, by
    /// SIGKILL; a thread at its loop's next turn. A thread that does not get there within a second is
    /// left behind: its `exit` event says [`Abandoned`](crate::ExitStatus::Abandoned).
    ///
    /// Node's default is SIGTERM, which ends a process that has no handler for it. Here every worker
    /// answers SIGTERM by draining: that is [`kill_with`](Self::kill_with) of [`Signal::Term`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the worker is gone; nothing has changed.
    pub fn kill(&self) -> Result<()> {
        self.kill_with(Signal::Kill)
    }

    /// Sends the worker a signal (Node: `worker.kill(signal)`). [`Signal::Kill`] is
    /// [`kill`](Self::kill); [`Signal::Term`] asks the worker to drain, as it would by itself, and
    /// one whose loop is blocked does not answer; the others do to a process what it makes of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when the worker is a thread, for signals other than these two;
    /// [`ErrorKind::Closed`] when the worker is gone.
    pub fn kill_with(&self, signal: Signal) -> Result<()> {
        let memory = self.record.desk.packing.memory;
        if memory == Memory::Shared && !matches!(signal, Signal::Kill | Signal::Term) {
            return Err(no_signals(signal));
        }
        if self.is_dead() {
            return Err(self.gone());
        }
        self.record.desk.request(match signal {
            Signal::Kill => Request::Kill(self.id()),
            signal => Request::Signal(self.id(), signal),
        })
    }

    /// The way to the worker.
    pub(crate) fn line(&self) -> &Line {
        &self.record.line
    }

    /// The worker as [`Cluster::status`](crate::Cluster::status) shows it.
    pub(crate) fn status(&self) -> WorkerStatus {
        let Record { past, begun, .. } = &*self.record;
        WorkerStatus {
            worker: self.id(),
            slot: self.slot(),
            generation: self.generation(),
            pid: self.pid(),
            state: self.state(),
            ready: self.is_ready(),
            age: clock::now().saturating_duration_since(*begun),
            restarts: past.restarts,
            last_exit: past.last_exit,
            stats: self.stats(),
        }
    }

    /// The worker is ready; whether it was not before.
    pub(crate) fn got_ready(&self) -> bool {
        !self.record.ready.swap(true, SeqCst)
    }

    pub(crate) fn started(&self, pid: u32) {
        self.record.pid.store(pid, SeqCst);
    }

    pub(crate) fn step(&self, step: Step) {
        let mut life = self.record.life.lock();
        *life = life.after(step);
    }

    /// Whether the program asked the worker to leave, or the worker did.
    pub(crate) fn was_asked_to_leave(&self) -> bool {
        self.exited_after_disconnect() == Some(true)
    }

    pub(crate) fn leaves_voluntarily(&self) {
        self.record.voluntary.lock().get_or_insert(true);
    }

    pub(crate) fn closed(&self) {
        self.record.voluntary.lock().get_or_insert(false);
        self.record.connected.store(false, SeqCst);
        self.record.line.close();
        self.step(Step::Close);
    }

    pub(crate) fn ended(&self, status: ExitStatus) {
        *self.record.status.lock() = Some(status);
        self.step(Step::End);
    }

    pub(crate) fn hold(&self, streams: Streams) {
        *self.record.streams.lock() = streams;
    }

    /// Shows an event to whoever observes this worker; `fork` is the cluster's alone.
    pub(crate) fn show(&self, event: &Event) {
        match event {
            Event::Fork { .. } => {}
            Event::Exit { .. } => self.record.observers.show_last(event),
            _ => self.record.observers.show(event),
        }
    }

    fn check_connected(&self) -> Result<()> {
        if self.is_connected() { Ok(()) } else { Err(self.gone()) }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("{self} is gone"))
    }
}

fn no_signals(signal: Signal) -> Error {
    let text = format!(
        "{signal} cannot be sent to a worker in thread mode: all threads of a process share its signals; use Signal::Term or Signal::Kill, or process mode"
    );
    Error::new(ErrorKind::Setting, text)
}

impl fmt::Display for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.record.worker)
    }
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerHandle({}, {:?})", self.record.worker, self.state())
    }
}
