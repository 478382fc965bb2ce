//! What a listener's handle, its connections and the runtime share: offers that wait to be adopted,
//! and how many connections more the worker takes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::{Note, State};
use crate::{
    accept::{Count, Offer},
    config::Address,
    event_loop,
    id::ListenerId,
    shared::SlotMeter,
};

/// As many as the primary offers at most before it hears from a worker: a room beyond this needs not
/// be told exactly.
const AMPLE: u32 = 64;

/// One address that the worker listens on.
pub(super) struct Desk {
    /// Its number in the cluster; a listener of the worker's own has none.
    listener: Option<ListenerId>,
    address: Address,
    offers: RefCell<VecDeque<Offer>>,
    /// Who waits: for a connection, and once the listener is closed, for the end of the last.
    waker: RefCell<Option<Waker>>,
    withdrawn: Cell<bool>,
    closed: Cell<bool>,
    accepting: Cell<bool>,
    /// The primary asks to look at the socket.
    look: Cell<bool>,
    limit: Limit,
    /// Open connections.
    open: Cell<usize>,
    /// The room that the primary knows of.
    told: Cell<Option<u32>>,
}

/// How many connections a listener has open at most.
#[derive(Clone, Copy, Default)]
pub(super) struct Limit {
    pub(super) connections: Option<usize>,
    /// What comes beyond is taken and closed.
    pub(super) drop_excess: bool,
    /// Connections come as offers, so the primary has to know the room exactly.
    pub(super) by_offers: bool,
}

impl Desk {
    pub(super) fn new(listener: Option<ListenerId>, address: Address, limit: Limit) -> Self {
        Self {
            listener,
            address,
            offers: RefCell::default(),
            waker: RefCell::default(),
            withdrawn: Cell::new(false),
            closed: Cell::new(false),
            accepting: Cell::new(true),
            look: Cell::new(false),
            limit,
            open: Cell::new(0),
            told: Cell::new(None),
        }
    }

    /// Puts a desk where the runtime finds it, and tells its room if that is limited.
    pub(super) fn set_up(self: &Rc<Self>, state: &State) {
        if let Some(listener) = self.listener {
            state.desks.borrow_mut().insert(listener, self.clone());
        }
        if self.room_is_news() {
            self.tell_room(state);
        }
    }

    /// Takes a desk away: the worker wants nothing more from this address.
    pub(super) fn take_down(&self, state: &State) {
        self.closed.set(true);
        let Some(listener) = self.listener else { return };
        if state.desks.borrow_mut().remove(&listener).is_some() {
            state.send(Note::Unlisten { listener });
            self.close(state);
        }
    }

    pub(super) fn id(&self) -> Option<ListenerId> {
        self.listener
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Puts an offer down; gives it back when nobody takes offers here.
    pub(super) fn put(&self, offer: Offer) -> Option<Offer> {
        if self.withdrawn.get() || !self.wants_more() {
            return Some(offer);
        }
        self.offers.borrow_mut().push_back(offer);
        self.wake();
        None
    }

    /// The next offer, if there is room for it.
    pub(super) fn take(&self) -> Option<Offer> {
        if self.is_full() {
            return None;
        }
        let offer = self.offers.borrow_mut().pop_front()?;
        self.told.set(self.told.get().map(|room| room.saturating_sub(1)));
        Some(offer)
    }

    /// Nothing more will come; what is here is still taken.
    pub(super) fn withdraw(&self) {
        self.withdrawn.set(true);
        self.wake();
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.get()
    }

    /// The listener is gone, or the worker ends.
    pub(super) fn close(&self, state: &State) {
        self.closed.set(true);
        self.withdraw();
        self.refuse_all(state);
    }

    /// A connection may wait at the socket that no worker was woken for.
    pub(super) fn ask_to_look(&self) {
        self.look.set(true);
        self.wake();
    }

    /// Whether the listener was asked to look at the socket since this was last called.
    pub(super) fn was_asked_to_look(&self) -> bool {
        self.look.take()
    }

    /// Pauses or resumes; says whether that is a change.
    pub(super) fn set_accepting(&self, accepting: bool) -> bool {
        self.accepting.replace(accepting) != accepting
    }

    /// Whether connections are wanted now.
    pub(super) fn wants_more(&self) -> bool {
        self.accepting.get() && !self.is_full()
    }

    /// Whether a connection that was taken has to be closed at once.
    pub(super) fn is_excess(&self) -> bool {
        self.limit.drop_excess && self.is_at_limit()
    }

    /// Ready when no connection is open.
    pub(super) fn poll_unused(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.get() == 0 {
            return Poll::Ready(());
        }
        self.park(cx.waker());
        Poll::Pending
    }

    fn opened(&self) {
        self.open.set(self.open.get() + 1);
    }

    fn one_ended(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        if self.is_limited() || self.closed.get() && self.open.get() == 0 {
            self.wake();
        }
    }

    fn is_limited(&self) -> bool {
        self.limit.connections.is_some()
    }

    fn is_full(&self) -> bool {
        !self.limit.drop_excess && self.is_at_limit()
    }

    fn is_at_limit(&self) -> bool {
        self.limit.connections.is_some_and(|limit| self.open.get() >= limit)
    }

    /// How many connections the primary may offer; without a number, any number.
    fn room(&self) -> Option<u32> {
        if !self.accepting.get() {
            return Some(0);
        }
        let limit = self.limit.connections.filter(|_| !self.limit.drop_excess)?;
        let left = u32::try_from(limit.saturating_sub(self.open.get())).unwrap_or(u32::MAX);
        (self.limit.by_offers || left == 0).then_some(left)
    }

    /// Whether the primary has to be told of the room.
    pub(super) fn room_is_news(&self) -> bool {
        match (self.told.get(), self.room()) {
            (told, room) if told == room => false,
            (Some(told), Some(room)) => room < told || told < AMPLE,
            _ => true,
        }
    }

    /// Tells the primary how many connections it may offer.
    pub(super) fn tell_room(&self, state: &State) {
        let Some(listener) = self.listener.filter(|_| !self.closed.get()) else { return };
        let connections = self.room();
        self.told.set(connections);
        state.send(Note::Room { listener, connections });
    }

    pub(super) fn refuse_all(&self, state: &State) {
        loop {
            let offer = self.offers.borrow_mut().pop_front();
            let Some(offer) = offer else { return };
            state.send(Note::Refused(offer));
        }
    }

    pub(super) fn park(&self, waker: &Waker) {
        let mut parked = self.waker.borrow_mut();
        if !parked.as_ref().is_some_and(|parked| parked.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        let waker = self.waker.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
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

    fn answered(&self, asked: Instant) {
        self.request_timed(asked, event_loop::now());
    }
}

/// Counts the connections of a listener.
pub(super) struct DeskMeter {
    state: Rc<State>,
    desk: Rc<Desk>,
}

impl DeskMeter {
    /// One for all connections of a listener, as a meter for each would share the page's count between threads.
    pub(super) fn of(state: &Rc<State>, desk: &Rc<Desk>) -> Rc<dyn Count> {
        Rc::new(Self { state: state.clone(), desk: desk.clone() })
    }
}

impl Count for DeskMeter {
    fn opened(&self) {
        self.state.meter.opened();
        self.desk.opened();
        if self.desk.is_limited() {
            self.state.room_changed(&self.desk);
        }
    }

    fn closed(&self) {
        self.state.meter.closed();
        self.desk.one_ended();
        if self.desk.is_limited() {
            self.state.room_changed(&self.desk);
        }
    }

    fn request(&self) {
        self.state.meter.request();
    }

    fn answered(&self, asked: Instant) {
        self.state.meter.answered(asked);
    }
}
