//! What a worker's body holds.

use std::{fmt, future::poll_fn, io, rc::Rc, task::Poll};

use serde::Serialize;

use super::{Answer, Denial, Listener, Load, Note, State};
use crate::{
    accept::{Grant, ListenOptions},
    config::Address,
    error::{Error, ErrorKind, Result},
    id::{Slot, WorkerId},
    message::Message,
    shared::SlotStats,
};

/// A worker, as the code inside it sees it (Node: `cluster.worker`).
///
/// Cheap to clone; stays on the worker's own thread. Its surface is smaller than a primary's: a
/// worker forks nothing.
#[derive(Clone)]
pub struct Worker {
    state: Rc<State>,
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

    /// `bimodal-worker-ID`; in [`Mode::Thread`](crate::Mode::Thread) also the thread's name.
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
    /// [`Flow::Slow`] says that much is under way already; the message was queued all the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when the primary is gone, [`ErrorKind::Full`] when too much is under way,
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Codec`] when the value cannot be sent to a process.
    pub fn send<T: Serialize + Send + 'static>(&self, value: T) -> Result<Flow> {
        let message =
            Message::pack(value, self.state.link.memory(), self.state.identity.max_message)?;
        let flow = check_room(self.state.link.load(), message.bytes())?;
        self.state.link.send(Note::Message(message))?;
        Ok(flow)
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
    pub fn disconnect(&self) {
        self.state.leave(true);
    }

    /// Ends this worker now, with code 0; open connections are cut (Node: `worker.kill` inside a
    /// worker).
    pub fn kill(&self) {
        self.state.leave(true);
        self.state.left.set(true);
        self.state.wake_root();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("identity", &self.state.identity).finish_non_exhaustive()
    }
}

/// What sending a message says about those before it (Node: what `send` returns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "`Slow` asks to send less until the other side has caught up"]
pub enum Flow {
    /// Go on.
    Go,
    /// The other side is behind: pause, or the queue's bound will be reached.
    Slow,
}

/// Messages and bytes under way from which on a sender is asked to slow down.
const SLOW: Load = Load { messages: 1024, bytes: 1 << 20 };
/// Messages and bytes under way at which a message is refused.
const FULL: Load = Load { messages: 262_144, bytes: 128 << 20 };

/// Whether a message of this many bytes may follow what is under way.
pub(crate) fn check_room(load: Load, bytes: usize) -> Result<Flow> {
    if load.messages >= FULL.messages || load.bytes.saturating_add(bytes) > FULL.bytes {
        let text = format!(
            "{} messages ({} bytes) are under way and not taken; send less, or receive them",
            load.messages, load.bytes
        );
        return Err(Error::new(ErrorKind::Full, text));
    }
    Ok(if load.messages >= SLOW.messages || load.bytes >= SLOW.bytes {
        Flow::Slow
    } else {
        Flow::Go
    })
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
