//! A worker's listener: connections from whichever door the primary opened, as one stream.
//!
//! Offers come first, in order; adopting one is what acknowledges it. Beside them a listener accepts
//! from a socket of its own, or takes from the queue that all loops share. How many it takes per turn
//! is bounded, so that a worker which is busy leaves the rest to others.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Instant,
};

use socket2::Socket;

use super::{Note, State};
use crate::{
    accept::{Accept, Acceptor, Connection, Count, Grant, Intake, Offer, SharedQueue},
    config::{Address, Memory},
    error::{Context as _, ErrorKind, Result},
    event_loop::{self, HookGuard, SleepHook, on_sleep},
    id::ListenerId,
    shared::SlotMeter,
};

/// Connections taken per turn from a socket or queue that others take from too: few, so that they are
/// spread over the loops that have time for them.
const TAKEN_PER_TURN: u32 = 4;

/// An address that this worker and others listen on together (Node: a `net.Server` in a worker).
///
/// Dropping it withdraws this worker from the address; the others keep listening (Node:
/// `server.close`).
pub struct Listener {
    state: Rc<State>,
    desk: Rc<Desk>,
    entrance: Entrance,
    /// Counts all its connections: a meter for each would share the page's count between threads.
    meter: Rc<dyn Count>,
    turn: Turn,
    /// Whether the primary keeps a duplicate of what it offers until it is adopted.
    keeps_duplicates: bool,
}

/// Where connections come from beside the desk.
enum Entrance {
    Nowhere,
    Socket(Acceptor),
    Queue(Taker),
}

impl Listener {
    pub(super) fn open(state: Rc<State>, grant: Grant) -> Result<Self> {
        let desk = Rc::new(Desk::new(grant.listener, grant.address));
        let entrance = match grant.intake {
            Intake::Offers => Entrance::Nowhere,
            Intake::Queue(queue) => Entrance::Queue(Taker::new(queue)),
            Intake::Socket(socket) => {
                let acceptor = Acceptor::new(socket);
                Entrance::Socket(acceptor.context(ErrorKind::Listen, || {
                    format!("cannot wait for connections on {}", desk.address)
                })?)
            }
        };
        state.desks.borrow_mut().insert(desk.listener, desk.clone());
        let meter = Rc::new(state.meter.clone());
        let keeps_duplicates = state.link.memory() == Memory::Separate;
        Ok(Self { state, desk, entrance, meter, turn: Turn::default(), keeps_duplicates })
    }

    pub(super) fn id(&self) -> ListenerId {
        self.desk.listener
    }

    /// Where it listens: never port 0.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.desk.address
    }

    /// The next connection; `None` when this worker is to leave, after those that were on their way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Listen`] when the listening socket itself fails. What costs one connection only
    /// is not an error.
    pub async fn accept(&mut self) -> Result<Option<Connection>> {
        let accepted = poll_fn(|cx| self.poll_next(cx)).await;
        // Before the caller reads from it: a connection that was begun must not be given to another.
        self.state.acknowledge();
        accepted
    }

    /// Withdraws this worker from the address; the others keep listening.
    pub fn close(self) {}

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Connection>>> {
        loop {
            if let Some(offer) = self.desk.take() {
                self.state.adopt(offer.listener, offer.id);
                match self.open_connection(offer.socket, self.keeps_duplicates) {
                    Some(connection) => return Poll::Ready(Ok(Some(connection))),
                    None => continue,
                }
            }
            let socket = match self.poll_entrance(cx)? {
                Poll::Ready(Some(socket)) => socket,
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    self.desk.park(cx.waker());
                    return Poll::Pending;
                }
            };
            if let Some(connection) = self.open_connection(socket, false) {
                return Poll::Ready(Ok(Some(connection)));
            }
        }
    }

    /// The next socket from beside the desk; ready with `None` when nothing will come any more.
    fn poll_entrance(&mut self, cx: &mut Context<'_>) -> Result<Poll<Option<Socket>>> {
        if self.desk.withdrawn.get() {
            return Ok(Poll::Ready(self.entrance.last()));
        }
        if !self.desk.accepting.get() || self.entrance.is_nowhere() {
            return Ok(Poll::Pending);
        }
        if !self.turn.take_one() {
            wake_next_turn(cx);
            return Ok(Poll::Pending);
        }
        let polled = match &mut self.entrance {
            Entrance::Nowhere => Poll::Pending,
            Entrance::Queue(taker) => taker.poll_take(cx).map(Ok),
            Entrance::Socket(acceptor) => acceptor.poll_accept(cx),
        };
        match polled {
            Poll::Ready(socket) => {
                let socket =
                    socket.context(ErrorKind::Listen, || format!("{} failed", self.desk.address));
                socket.map(|socket| Poll::Ready(Some(socket)))
            }
            Poll::Pending => {
                self.turn.give_back();
                Ok(Poll::Pending)
            }
        }
    }

    /// A socket that cannot be put on the loop costs its own connection only.
    fn open_connection(&self, socket: Socket, handed: bool) -> Option<Connection> {
        match Connection::adopt(socket, Some(self.meter.clone()), handed) {
            Ok(connection) => Some(connection),
            Err(error) => {
                log::warn!("a connection to {} is lost: {error}", self.desk.address);
                None
            }
        }
    }
}

impl Accept for Listener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Connection>>> {
        let polled = self.poll_next(cx);
        if !matches!(polled, Poll::Ready(Ok(Some(_)))) {
            self.state.acknowledge();
        }
        polled
    }

    fn set_accepting(&mut self, accepting: bool) {
        if self.desk.accepting.replace(accepting) == accepting {
            return;
        }
        self.state.acknowledge();
        self.state.send(Note::Accepting { listener: self.desk.listener, accepting });
        if accepting {
            self.desk.wake();
        } else {
            self.desk.refuse_all(&self.state);
            if let Entrance::Queue(taker) = &self.entrance {
                taker.rest();
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let desk = self.state.desks.borrow_mut().remove(&self.desk.listener);
        if let Some(desk) = desk {
            self.state.send(Note::Unlisten { listener: desk.listener });
            desk.close(&self.state);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.desk.address).finish_non_exhaustive()
    }
}

impl Entrance {
    fn is_nowhere(&self) -> bool {
        matches!(self, Self::Nowhere)
    }

    /// What a worker that leaves still has to take: the rest of a queue that nobody fills any more.
    fn last(&mut self) -> Option<Socket> {
        if let Self::Queue(taker) = self
            && taker.doze.queue.is_closed()
            && let Some(socket) = taker.doze.queue.take()
        {
            return Some(socket);
        }
        *self = Self::Nowhere;
        None
    }
}

impl Count for SlotMeter {
    fn opened(&self) {
        self.connection_opened();
    }

    fn closed(&self) {
        self.connection_closed();
    }

    fn request(&self) {
        self.request_answered();
    }
}

/// Where the offers for one listener wait to be adopted.
pub(super) struct Desk {
    listener: ListenerId,
    address: Address,
    offers: RefCell<VecDeque<Offer>>,
    waker: RefCell<Option<Waker>>,
    withdrawn: Cell<bool>,
    accepting: Cell<bool>,
}

impl Desk {
    fn new(listener: ListenerId, address: Address) -> Self {
        Self {
            listener,
            address,
            offers: RefCell::default(),
            waker: RefCell::default(),
            withdrawn: Cell::new(false),
            accepting: Cell::new(true),
        }
    }

    /// Puts an offer down; gives it back when nobody takes offers here.
    pub(super) fn put(&self, offer: Offer) -> Option<Offer> {
        if self.withdrawn.get() || !self.accepting.get() {
            return Some(offer);
        }
        self.offers.borrow_mut().push_back(offer);
        self.wake();
        None
    }

    /// Nothing more will come; what is here is still taken.
    pub(super) fn withdraw(&self) {
        self.withdrawn.set(true);
        self.wake();
    }

    /// The listener is gone, or the worker ends.
    pub(super) fn close(&self, state: &State) {
        self.withdraw();
        self.refuse_all(state);
    }

    fn take(&self) -> Option<Offer> {
        self.offers.borrow_mut().pop_front()
    }

    fn refuse_all(&self, state: &State) {
        while let Some(offer) = self.take() {
            state.send(Note::Refused(offer));
        }
    }

    fn park(&self, waker: &Waker) {
        let mut parked = self.waker.borrow_mut();
        if !parked.as_ref().is_some_and(|parked| parked.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
    }

    fn wake(&self) {
        let waker = self.waker.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// How much was taken in the current turn of the loop.
#[derive(Default)]
struct Turn {
    at: Option<Instant>,
    taken: u32,
}

impl Turn {
    /// Whether one more may be taken in this turn. A turn is known by its cached time.
    fn take_one(&mut self) -> bool {
        let now = event_loop::now();
        if self.at != Some(now) {
            *self = Self { at: Some(now), taken: 0 };
        }
        if self.taken == TAKEN_PER_TURN {
            return false;
        }
        self.taken += 1;
        true
    }

    fn give_back(&mut self) {
        self.taken -= 1;
    }
}

/// Comes back by itself: a socket that was left before it said `EAGAIN` makes no new edge.
fn wake_next_turn(cx: &mut Context<'_>) {
    // Its first poll is always pending and leaves the waker with the loop.
    let _ = pin!(event_loop::yield_now()).poll(cx);
}

/// This loop's place at the shared queue.
struct Taker {
    doze: Rc<Doze>,
    _hook: HookGuard,
}

impl Taker {
    fn new(queue: Arc<SharedQueue>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let doze =
            Rc::new(Doze { queue, id: NEXT.fetch_add(1, Relaxed), waiting: RefCell::default() });
        Self { _hook: on_sleep(doze.clone()), doze }
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Socket> {
        if let Some(socket) = self.doze.queue.take() {
            return Poll::Ready(socket);
        }
        let mut waiting = self.doze.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes nothing for now: if a wake-up was meant for this loop, another gets it.
    fn rest(&self) {
        *self.doze.waiting.borrow_mut() = None;
        self.doze.queue.pass_on();
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.rest();
        self.doze.queue.awake(self.doze.id);
    }
}

/// Registers the loop at the queue while it sleeps, and only then.
struct Doze {
    queue: Arc<SharedQueue>,
    id: u64,
    /// Who waits for a connection; nobody while the listener rests.
    waiting: RefCell<Option<Waker>>,
}

impl Doze {
    fn wake(&self) {
        let waiting = self.waiting.borrow().clone();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl SleepHook for Doze {
    fn before_sleep(&self) -> bool {
        let waiting = self.waiting.borrow();
        let Some(waker) = &*waiting else { return true };
        if self.queue.sleep(self.id, waker) {
            return true;
        }
        drop(waiting);
        self.wake();
        false
    }

    fn after_sleep(&self) {
        self.queue.awake(self.id);
    }

    fn pass_by(&self) {
        if !self.queue.is_empty() {
            self.wake();
        }
    }
}
