//! The primary's view of one worker.
//!
//! A handle may live on any thread. It holds what the primary has published about the worker, a way to
//! ask the primary for something, and the line by which messages go straight to the worker.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    channel::{Flow, Receipt},
    error::{Error, ErrorKind, Result},
    event::{State, Step},
    event_loop::Postbox,
    id::{Slot, WorkerId},
    message::{self, Handle, Packing, SendError},
    worker::Line,
};

/// What handles ask the primary for.
#[derive(Debug)]
pub(crate) enum Request {
    Fork(WorkerHandle),
    Disconnect(WorkerId),
    DisconnectAll,
    Kill(WorkerId),
    /// End the cluster: drain, then kill.
    Stop,
    /// End the cluster now.
    StopNow,
}

/// How a handle reaches the primary and packs what it sends.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) requests: Postbox<Request>,
    pub(crate) packing: Packing,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("packing", &self.packing).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn request(&self, request: Request) -> Result<()> {
        self.requests
            .post(request)
            .map_err(|_| Error::new(ErrorKind::Closed, "the cluster has ended"))
    }
}

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
    life: Mutex<State>,
    connected: AtomicBool,
    voluntary: AtomicBool,
    /// 0 until it was started.
    pid: AtomicU32,
}

impl WorkerHandle {
    pub(crate) fn new(worker: WorkerId, slot: Slot, generation: u32, desk: Desk) -> Self {
        let record = Record {
            worker,
            slot,
            generation,
            line: Line::new(desk.packing),
            desk,
            life: Mutex::new(State::Starting),
            connected: AtomicBool::new(true),
            voluntary: AtomicBool::new(false),
            pid: AtomicU32::new(0),
        };
        Self { record: Arc::new(record) }
    }

    /// The worker's id: 1 for the first of the cluster, never reused (Node: `worker.id`).
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.record.worker
    }

    /// The worker's place in the cluster; its replacement takes the same.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.record.slot
    }

    /// 1 for the first worker in this slot, one more for each replacement.
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

    /// Where the worker is in its life. It may be further than the event that is being handled.
    #[must_use]
    pub fn state(&self) -> State {
        *self.record.life.lock()
    }

    /// Whether the worker's channel is open (Node: `worker.isConnected`): from the fork until its
    /// `disconnect` event.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.record.connected.load(SeqCst)
    }

    /// Whether the worker has ended (Node: `worker.isDead`).
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state() == State::Gone
    }

    /// Whether the worker left because it was asked to, or asked to itself (Node:
    /// `worker.exitedAfterDisconnect`). False for a crash, and for a worker that was killed.
    #[must_use]
    pub fn exited_after_disconnect(&self) -> bool {
        self.record.voluntary.load(SeqCst)
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

    /// Asks the worker to leave in good order (Node: `worker.disconnect`): it gets no new
    /// connections, finishes what it has, and ends. The `exit` event says when. A second call changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the worker is gone.
    pub fn disconnect(&self) -> Result<()> {
        self.check_connected()?;
        self.record.voluntary.store(true, SeqCst);
        self.record.desk.request(Request::Disconnect(self.id()))
    }

    /// Ends the worker without waiting for it (Node: `worker.kill('SIGKILL')`): a process at once, by
    /// SIGKILL; a thread at its loop's next turn. A thread that does not get there within a second is
    /// left behind: its `exit` event says [`Abandoned`](crate::ExitStatus::Abandoned).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the worker is gone.
    pub fn kill(&self) -> Result<()> {
        if self.is_dead() {
            return Err(self.gone());
        }
        self.record.desk.request(Request::Kill(self.id()))
    }

    /// The way to the worker.
    pub(crate) fn line(&self) -> &Line {
        &self.record.line
    }

    pub(crate) fn started(&self, pid: u32) {
        self.record.pid.store(pid, SeqCst);
    }

    pub(crate) fn step(&self, step: Step) {
        let mut life = self.record.life.lock();
        *life = life.after(step);
    }

    pub(crate) fn leaves_voluntarily(&self) {
        self.record.voluntary.store(true, SeqCst);
    }

    pub(crate) fn closed(&self) {
        self.record.connected.store(false, SeqCst);
        self.record.line.close();
    }

    fn check_connected(&self) -> Result<()> {
        if self.is_connected() { Ok(()) } else { Err(self.gone()) }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("{self} is gone"))
    }
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
