//! What a worker's body holds.

use std::{fmt, future::poll_fn, rc::Rc, task::Poll};

use serde::Serialize;
use socket2::Socket;

use super::{Note, State};
use crate::{
    accept::Connection,
    channel::{Flow, Receipt, check_room},
    error::Result,
    event_loop,
    id::{Slot, WorkerId},
    message::{self, Broadcast, Handle, Message, Port, Relay, SendError},
    shared::SlotStats,
};

/// A worker, as the code inside it sees it (Node: `cluster.worker`).
///
/// Cheap to clone; stays on the worker's own thread. Its surface is smaller than a primary's: a
/// worker forks nothing.
#[derive(Clone)]
pub struct Worker {
    pub(super) state: Rc<State>,
}

impl Worker {
    pub(super) fn new(state: Rc<State>) -> Self {
        Self { state }
    }

    /// The worker's id: 1 for the first of the cluster, never reused (Node: `worker.id`).
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.state.identity.worker
    }

    /// The worker's place in the cluster. Whoever replaces it after a failure takes the same; a successor that
    /// starts while it still runs (recycling, reload) takes another.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.state.identity.slot
    }

    /// 1 for the first worker in this slot, one more for each that has it after that one.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.state.identity.generation
    }

    /// `bimodal-worker-ID`; in [`Mode::Thread`](crate::Mode::Thread) also the thread's name. The system,
    /// which keeps 15 bytes of it, shows `bimodal-w-ID`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.state.identity.cluster
    }

    /// The counters of all workers of the cluster, by slot.
    #[must_use]
    pub fn stats(&self) -> Vec<SlotStats> {
        self.state.meter.page().rows()
    }

    /// Sends a message to the primary (Node: `process.send`): behind all that were sent before.
    ///
    /// [`Flow::Slow`] says that the program has many to take already; the message was queued all the
    /// same.
    ///
    /// # Errors
    ///
    /// The value comes back in the error: [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the
    /// primary is gone, [`ErrorKind::Full`](crate::ErrorKind::Full) when the program has too many
    /// messages to take, [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) or
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec) when the value cannot be sent to a process.
    pub fn send<T: Serialize + Send + 'static>(&self, value: T) -> Result<Flow, SendError<T>> {
        self.post(value, None)
    }

    /// [`send`](Self::send) with a socket, a listener or a port beside the value (Node:
    /// `process.send(message, sendHandle)`), which is the primary's from now on.
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

    /// [`send`](Self::send) with a receipt, which says when the message has left this worker (Node:
    /// the callback of `send`). It does not say that the program has received it.
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
        Ok(self.state.link.track())
    }

    /// Waits until everything that was sent has left this worker. What has left is delivered, even if
    /// the process exits or crashes right after.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the primary is gone.
    pub async fn flush(&self) -> Result<()> {
        self.state.link.track().await
    }

    /// Joins a broadcast: what is posted under this name anywhere in the cluster arrives here (Node:
    /// `new BroadcastChannel(name)`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`](crate::ErrorKind::Setting) for a name that is empty or has more than 256
    /// bytes; [`ErrorKind::Full`](crate::ErrorKind::Full) when this worker has joined 1024 names;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the primary is gone.
    pub fn broadcast(&self, name: impl Into<String>) -> Result<Broadcast> {
        let State { members, identity, .. } = &*self.state;
        let relay = Box::new(UpwardRelay { state: self.state.clone() });
        Broadcast::join(name.into(), members.clone(), identity.packing, relay)
    }

    /// Serves a stream that came with a message: counted with this worker's connections
    /// ([`Worker::stats`]), as one that it accepted is.
    ///
    /// # Errors
    ///
    /// The socket could not be configured or registered with the loop.
    pub fn adopt(&self, stream: impl Into<Socket>) -> Result<Connection> {
        Ok(Connection::from_counted_stream(stream.into(), Some(Rc::new(self.state.meter.clone())))?)
    }

    /// Makes a channel: two ports, either of which can be sent to the primary, and by it to any other
    /// worker (Node: `new MessageChannel`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when this process can open no more descriptors.
    pub fn channel(&self) -> Result<(Port, Port)> {
        Port::pair(self.state.identity.packing)
    }

    fn post<T: Serialize + Send + 'static>(
        &self,
        value: T,
        handle: Option<Handle>,
    ) -> Result<Flow, SendError<T>> {
        let State { link, identity, .. } = &*self.state;
        message::send(value, handle, identity.packing, link.load(), |message| {
            link.send_message(message)
        })
    }

    /// The next message from the primary, in the order they were sent (Node: the `message` event).
    /// `None` when the worker is leaving and none is left.
    pub async fn recv(&self) -> Option<Message> {
        let message = poll_fn(|cx| {
            if let Some(message) = self.try_recv() {
                return Poll::Ready(Some(message));
            }
            if self.is_draining() {
                return Poll::Ready(None);
            }
            self.state.wait(cx.waker());
            Poll::Pending
        });
        message.await
    }

    /// The next message from the primary, if one is there.
    #[must_use]
    pub fn try_recv(&self) -> Option<Message> {
        let message = self.state.messages.borrow_mut().pop_front()?;
        self.state.link.taken(message.bytes());
        Some(message)
    }

    /// Resolves when the worker is to leave: it gets no new connections, finishes what it has, and
    /// returns from its body (Node: the worker's `disconnect` event).
    pub async fn draining(&self) {
        let draining = poll_fn(|cx| {
            if self.is_draining() {
                return Poll::Ready(());
            }
            self.state.wait(cx.waker());
            Poll::Pending
        });
        draining.await;
    }

    /// Whether the worker is to leave.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state.draining.get()
    }

    /// Says that this worker can do its work: whoever waits for it, such as a reload, goes on. A worker
    /// that listens is ready with that; one that does not says so here. A second call changes nothing.
    pub fn ready(&self) {
        self.state.got_ready();
        self.state.send(Note::Ready);
    }

    /// Whether new clients should be sent to this worker, for the answer to a load balancer's probe: from
    /// the moment when it is ready until the cluster is about to stop, or the worker to leave. It may well
    /// serve when this is false.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let State { ready, unready, .. } = &*self.state;
        ready.get() && !unready.get() && !self.is_draining()
    }

    /// Whether the primary is there (Node: `worker.isConnected`).
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state.connected.get()
    }

    /// Leaves the cluster in good order: the primary withdraws this worker from every listener, then
    /// it drains (Node: `worker.disconnect`). A second call changes nothing.
    pub fn disconnect(&self) -> &Self {
        self.state.leave(true);
        self
    }

    /// Ends this worker now, with code 0; open connections are cut (Node: `worker.kill` inside a
    /// worker).
    pub fn kill(&self) {
        self.state.leave(true);
        self.state.end(0);
    }

    /// Ends this worker with this code, as a crash and not as a disconnect (Node: `process.exit` in a
    /// worker): a supervised worker is replaced unless the code is 0. What was sent before is
    /// delivered; open connections are cut. In [`Mode::Process`](crate::Mode::Process) the process
    /// ends, with the lowest 8 bits of the code; else only this worker does.
    ///
    /// Nothing that follows it runs; other tasks of the worker may have one more turn.
    pub async fn exit(&self, code: i32) -> ! {
        self.state.end(code);
        loop {
            std::future::pending::<()>().await;
        }
    }

    /// The share of its time that this worker's loop was busy, from 0 to 1 (Node:
    /// `performance.eventLoopUtilization().utilization`).
    #[must_use]
    pub fn utilization(&self) -> f64 {
        event_loop::current_stats().utilization()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("identity", &self.state.identity).finish_non_exhaustive()
    }
}

/// From a worker's members to everybody else: by way of the primary.
struct UpwardRelay {
    state: Rc<State>,
}

impl Relay for UpwardRelay {
    fn join(&self, name: &str) -> Result<()> {
        self.state.link.send(Note::Join { topic: name.into() })
    }

    fn leave(&self, name: &str) {
        self.state.send(Note::Leave { topic: name.into() });
    }

    fn pass(&self, message: Message) -> Result<()> {
        // What the flow would say is for whoever can wait.
        let _ = check_room(self.state.link.load(), message.bytes())?;
        self.state.link.send_message(message).map_err(|(error, _)| error)
    }
}
