//! What a worker's body holds.

use std::{fmt, future::poll_fn, io, rc::Rc, task::Poll};

use serde::Serialize;
use socket2::Socket;

use super::{Answer, Denial, Listener, Note, State};
use crate::{
    accept::{Connection, Grant, ListenOptions},
    channel::{Flow, Receipt, check_room},
    config::Address,
    error::{Error, ErrorKind, Result},
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

    /// The worker's place in the cluster; its replacement takes the same.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.state.identity.slot
    }

    /// 1 for the first worker in this slot, one more for each replacement.
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

    /// Listens on an address that all workers of the cluster share (Node: `server.listen`).
    ///
    /// The primary binds it once. Port 0 gives one free port to all workers: the n-th `listen` on
    /// port 0 of every worker is the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] for a malformed address; [`ErrorKind::Listen`] when the primary cannot
    /// bind it (with the operating system's error beneath) or this worker listens on it already;
    /// [`ErrorKind::Disconnecting`] when the worker is leaving.
    pub async fn listen<A>(&self, address: A) -> Result<Listener>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        self.listen_with(address, ListenOptions::default()).await
    }

    /// Listens with options other than the default ones. If several workers differ, those of the
    /// first count.
    ///
    /// # Errors
    ///
    /// As [`Worker::listen`].
    pub async fn listen_with<A>(&self, address: A, options: ListenOptions) -> Result<Listener>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let address = address.try_into()?;
        self.check_staying()?;
        let grant = self.ask_to_listen(&address, options).await?;
        let listener = Listener::open(self.state.clone(), grant)?;
        if self.is_draining() {
            return Err(leaving());
        }
        self.state.send(Note::Listening { listener: listener.id() });
        Ok(listener)
    }

    async fn ask_to_listen(&self, address: &Address, options: ListenOptions) -> Result<Grant> {
        let request = Request::new(&self.state);
        self.state.link.send(Note::Listen {
            request: request.number,
            address: address.clone(),
            options,
        })?;
        request.answer().await.map_err(|denial| denied(address, denial))
    }

    fn check_staying(&self) -> Result<()> {
        if self.is_draining() { Err(leaving()) } else { Ok(()) }
    }

    /// Sends a message to the primary (Node: `process.send`): behind all that were sent before.
    ///
    /// [`Flow::Slow`] says that the program has many to take already; the message was queued all the
    /// same.
    ///
    /// # Errors
    ///
    /// The value comes back in the error: [`ErrorKind::Closed`] when the primary is gone,
    /// [`ErrorKind::Full`] when the program has too many messages to take,
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Codec`] when the value cannot be sent to a process.
    pub fn send<T: Serialize + Send + 'static>(&self, value: T) -> Result<Flow, SendError<T>> {
        self.post(value, None)
    }

    /// [`send`](Self::send) with a socket, a listener or a port beside the value (Node:
    /// `process.send(message, sendHandle)`), which is the primary's from now on.
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
    /// [`ErrorKind::Closed`] when the primary is gone.
    pub async fn flush(&self) -> Result<()> {
        self.state.link.track().await
    }

    /// Joins a broadcast: what is posted under this name anywhere in the cluster arrives here (Node:
    /// `new BroadcastChannel(name)`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] for a name that is empty or has more than 256 bytes;
    /// [`ErrorKind::Full`] when this worker has joined 1024 names; [`ErrorKind::Closed`] when the
    /// primary is gone.
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
    /// [`ErrorKind::Io`] when this process can open no more descriptors.
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

/// A listen that waits for its answer; dropping it declines the answer.
struct Request<'a> {
    state: &'a State,
    number: u32,
}

impl<'a> Request<'a> {
    fn new(state: &'a State) -> Self {
        let number = state.requests.get();
        state.requests.set(number.wrapping_add(1));
        state.answers.borrow_mut().insert(number, Answer::Awaited(None));
        Self { state, number }
    }

    async fn answer(&self) -> Result<Grant, Denial> {
        poll_fn(|cx| {
            let mut answers = self.state.answers.borrow_mut();
            match answers.remove(&self.number) {
                Some(Answer::Granted(grant)) => Poll::Ready(Ok(grant)),
                Some(Answer::Denied(denial)) => Poll::Ready(Err(denial)),
                Some(Answer::Awaited(_)) | None => {
                    answers.insert(self.number, Answer::Awaited(Some(cx.waker().clone())));
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let answer = self.state.answers.borrow_mut().remove(&self.number);
        if let Some(answer) = answer {
            self.state.decline(answer);
        }
    }
}

fn leaving() -> Error {
    Error::new(ErrorKind::Disconnecting, "the worker is leaving and cannot listen any more")
}

fn denied(address: &Address, denial: Denial) -> Error {
    let text = format!("cannot listen on {address}");
    match denial.errno {
        Some(errno) => Error::caused(ErrorKind::Listen, text, io::Error::from_raw_os_error(errno)),
        None => Error::new(ErrorKind::Listen, format!("{text}: {}", denial.text)),
    }
}
