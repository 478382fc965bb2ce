//! A worker from the inside: what runs its body, and what the body holds. The same in both modes.
//!
//! Runs on the worker's own event loop. Owns the worker's end of the link, its messages and its
//! listeners. It does not know whether it is a process or a thread.
//!
//! What it was given at its start (arguments, variables, data) is there before the body runs.
//!
//! The life of a worker, in order: say that it is online; run the body; on `Disconnect` (which comes
//! behind everything that was sent before) tell the body by `recv`, `draining` and every listener;
//! when the body has returned, drop what it left running, refuse what was offered and not adopted,
//! say why it ended, and wait until all of that has left.

mod beat;
mod desk;
mod given;
mod handle;
mod line;
mod link;
mod listen;
mod listener;
mod turn;
mod udp;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

pub(crate) use given::Given;
pub use handle::Worker;
pub(crate) use line::{Line, Program};
pub(crate) use link::{Arrival, Command, Denial, Link, Note};
pub use listener::{Closing, Dropped, Listener};
pub use udp::UdpSocket;

use crate::{
    accept::{Grant, Offer},
    error::{Error, ErrorKind, Result},
    event::ExitStatus,
    event_loop::{self, EventLoop, JoinHandle},
    id::{ConnectionId, ListenerId, Slot, WorkerId},
    message::{Members, Message, Packing},
    shared::{SlotMeter, store::Choice},
};
use desk::Desk;

/// Who a worker is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
    /// The cluster's name.
    pub(crate) cluster: Arc<str>,
    /// How messages are packed.
    pub(crate) packing: Packing,
    pub(crate) pace: Pace,
    /// The core it is pinned to, if it is.
    pub(crate) core: Option<usize>,
}

/// How a worker's loop spends its idle time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// How often it beats at least, if that matters.
    pub(crate) beat: Option<Duration>,
    /// How long it looks again before it sleeps.
    pub(crate) idle_poll: Duration,
}

/// What a worker does, as the builder keeps it.
pub(crate) type Body = Arc<dyn Fn(Worker) -> BodyFuture + Send + Sync>;

/// A body at work: its exit code, or why it failed.
pub(crate) type BodyFuture = Pin<Box<dyn Future<Output = Result<i32>>>>;

/// What a worker's body may return: nothing, an exit code, or a result whose error says why the
/// worker failed.
pub trait Outcome {
    /// The worker's exit code.
    ///
    /// # Errors
    ///
    /// The reason of the failure; the worker's exit code is 1.
    fn code(self) -> Result<i32, String>;
}

impl Outcome for () {
    fn code(self) -> Result<i32, String> {
        Ok(0)
    }
}

/// The exit code; 0 is a success. A process keeps the lowest 8 bits (exit(3)).
impl Outcome for i32 {
    fn code(self) -> Result<i32, String> {
        Ok(self)
    }
}

impl<E: fmt::Display> Outcome for Result<(), E> {
    fn code(self) -> Result<i32, String> {
        self.map_or_else(|error| Err(error.to_string()), |()| Ok(0))
    }
}

impl<E: fmt::Display> Outcome for Result<i32, E> {
    fn code(self) -> Result<i32, String> {
        self.map_err(|error| error.to_string())
    }
}

/// How a worker's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this code.
    Code(i32),
    /// It was told to end at once.
    Killed,
}

/// Runs a worker to its end: returns when nothing of it is left to do.
pub(crate) fn run(
    event_loop: &mut EventLoop,
    identity: Identity,
    given: Given,
    link: Rc<dyn Link>,
    meter: SlotMeter,
    body: &Body,
) -> Ended {
    event_loop.set_idle_poll(identity.pace.idle_poll);
    let state = Rc::new(State::new(identity, given, link, meter));
    let lived = catch_unwind(AssertUnwindSafe(|| event_loop.block_on(live(&state, body))));
    let (ended, failure) = match lived {
        Ok(Ok(Life::Returned(Ok(code)))) => (Ended::Code(code), None),
        Ok(Ok(Life::Returned(Err(failure)))) => (Ended::Code(1), Some(failure)),
        Ok(Ok(Life::Left(code))) => (Ended::Code(code), None),
        Ok(Ok(Life::Killed)) => (Ended::Killed, None),
        Ok(Err(error)) => {
            let failure = Error::caused(ErrorKind::Io, "the event loop failed", error);
            (Ended::Code(1), Some(failure))
        }
        Err(panic) => (Ended::Code(ExitStatus::PANIC), Some(Error::panicked(&*panic))),
    };
    // What a destructor of a cancelled task does must not hide how the worker ended.
    let wound_up = catch_unwind(AssertUnwindSafe(|| wind_up(event_loop, &state, failure)));
    if wound_up.is_err() {
        log::error!("{}: a task panicked while the worker ended", state.name);
    }
    ended
}

/// What came first.
enum Life {
    Returned(Result<i32>),
    /// The worker ended itself with this code, or its primary is gone.
    Left(i32),
    Killed,
}

async fn live(state: &Rc<State>, body: &Body) -> Life {
    let _beat = beat::start(&state.meter, state.identity.pace.beat);
    state.send(Note::Online);
    // Ahead of what it spawns: a connection that this loop was woken for waits behind no handler.
    let mut body = event_loop::spawn_urgent(body(Worker::new(state.clone())));
    poll_fn(|cx| state.poll(cx, &mut body)).await
}

fn wind_up(event_loop: &mut EventLoop, state: &Rc<State>, failure: Option<Error>) {
    event_loop.cancel_tasks();
    state.flush_adopted();
    state.close_desks();
    state.send(Note::Finished { failure });
    // An error here is the loop's; the channel closes either way.
    if let Err(error) = event_loop.block_on(poll_fn(|cx| state.link.poll_flush(cx))) {
        log::warn!("{}: what was sent last may be lost: {error}", state.name);
    }
}

/// Arrivals taken in before tasks run again.
const ARRIVALS_PER_TURN: usize = 256;

/// What the runtime and all handles of one worker share.
pub(crate) struct State {
    pub(crate) identity: Identity,
    given: Given,
    store: RefCell<Choice>,
    name: String,
    link: Rc<dyn Link>,
    meter: SlotMeter,
    connected: Cell<bool>,
    draining: Cell<bool>,
    /// The worker said, or has shown, that it is ready.
    ready: Cell<bool>,
    /// The cluster is about to stop.
    unready: Cell<bool>,
    /// The code with which the worker ends itself, once it does.
    left: Cell<Option<i32>>,
    messages: RefCell<VecDeque<Message>>,
    /// Who waits for a message or for the end: woken together, each looks for itself.
    waiting: RefCell<Vec<Waker>>,
    /// Members of broadcasts.
    members: Arc<Members>,
    requests: Cell<u32>,
    answers: RefCell<HashMap<u32, Answer>>,
    desks: RefCell<HashMap<ListenerId, Rc<Desk>>>,
    adopted: RefCell<Vec<(ListenerId, Vec<ConnectionId>)>>,
    /// Listeners with another room for connections than the primary knows of.
    rooms: RefCell<Vec<Rc<Desk>>>,
    root: RefCell<Option<Waker>>,
}

/// Where the answer to a listen is left.
enum Answer {
    Awaited(Option<Waker>),
    Granted(Grant),
    Denied(Denial),
}

impl State {
    fn new(identity: Identity, given: Given, link: Rc<dyn Link>, meter: SlotMeter) -> Self {
        Self {
            name: format!("bimodal-worker-{}", identity.worker),
            identity,
            given,
            store: RefCell::new(Choice::new(None)),
            link,
            meter,
            connected: Cell::new(true),
            draining: Cell::new(false),
            ready: Cell::new(false),
            unready: Cell::new(false),
            left: Cell::new(None),
            messages: RefCell::default(),
            waiting: RefCell::default(),
            members: Arc::default(),
            requests: Cell::new(0),
            answers: RefCell::default(),
            desks: RefCell::default(),
            adopted: RefCell::default(),
            rooms: RefCell::default(),
            root: RefCell::default(),
        }
    }

    /// The worker's root future: arrivals first, then the body's end.
    fn poll(&self, cx: &mut Context<'_>, body: &mut JoinHandle<Result<i32>>) -> Poll<Life> {
        *self.root.borrow_mut() = Some(cx.waker().clone());
        self.flush_adopted();
        if let Poll::Ready(life) = self.take_arrivals(cx) {
            return Poll::Ready(life);
        }
        if let Some(code) = self.left.get() {
            return Poll::Ready(Life::Left(code));
        }
        match Pin::new(body).poll(cx) {
            Poll::Ready(Ok(outcome)) => Poll::Ready(Life::Returned(outcome)),
            // Only the end of the loop cancels the body.
            Poll::Ready(Err(_)) => Poll::Ready(Life::Left(0)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn take_arrivals(&self, cx: &mut Context<'_>) -> Poll<Life> {
        for _ in 0..ARRIVALS_PER_TURN {
            match self.link.poll_arrival(cx) {
                Poll::Ready(Arrival::Command(command)) => self.obey(command),
                Poll::Ready(Arrival::Terminate) => self.leave(false),
                Poll::Ready(Arrival::Kill) => return Poll::Ready(Life::Killed),
                Poll::Ready(Arrival::Gone) => {
                    self.connected.set(false);
                    return Poll::Ready(Life::Left(0));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn obey(&self, command: Command) {
        match command {
            Command::Message(message) if message.topic().is_some() => {
                self.link.taken(message.bytes());
                self.members.deliver(&message);
            }
            Command::Message(message) => {
                self.messages.borrow_mut().push_back(message);
                self.wake_waiting();
            }
            Command::Offer(offer) => self.put_on_desk(offer),
            Command::Granted { request, grant } => self.answer(request, Answer::Granted(grant)),
            Command::Denied { request, denial } => self.answer(request, Answer::Denied(denial)),
            Command::Disconnect => self.drain(),
            Command::Close => self.end(0),
            Command::Unready => self.unready.set(true),
            Command::Look { listener } => self.look(listener),
        }
    }

    fn put_on_desk(&self, offer: Offer) {
        let desk = self.desks.borrow().get(&offer.listener).cloned();
        let unwanted = match desk {
            Some(desk) => desk.put(offer),
            None => Some(offer),
        };
        if let Some(offer) = unwanted {
            self.send(Note::Refused(offer));
        }
    }

    fn look(&self, listener: ListenerId) {
        let desk = self.desks.borrow().get(&listener).cloned();
        if let Some(desk) = desk {
            desk.ask_to_look();
        }
    }

    fn answer(&self, request: u32, answer: Answer) {
        let previous = match self.answers.borrow_mut().get_mut(&request) {
            Some(place) => Some(std::mem::replace(place, answer)),
            None => return self.decline(answer),
        };
        if let Some(Answer::Awaited(Some(waker))) = previous {
            waker.wake();
        }
    }

    /// Nobody waits for this listener any more.
    fn decline(&self, answer: Answer) {
        if let Answer::Granted(grant) = answer {
            self.send(Note::Unlisten { listener: grant.listener });
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        let desks: Vec<_> = self.desks.borrow().values().cloned().collect();
        desks.iter().for_each(|desk| desk.withdraw());
        self.wake_waiting();
    }

    /// It listens, or says so itself.
    fn got_ready(&self) {
        self.ready.set(true);
    }

    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waits| waits.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn wake_root(&self) {
        let root = self.root.borrow().clone();
        if let Some(root) = root {
            root.wake();
        }
    }

    /// Ends the worker in the loop's next turn. The first code counts.
    fn end(&self, code: i32) {
        if self.left.get().is_none() {
            self.left.set(Some(code));
            self.wake_root();
        }
    }

    /// Asks the primary to withdraw this worker; the drain begins with its answer.
    fn leave(&self, voluntary: bool) {
        self.send(Note::Leaving { voluntary });
    }

    /// Sends a note; one that cannot be sent concerns nobody any more.
    fn send(&self, note: Note) {
        if self.link.send(note).is_err() {
            self.connected.set(false);
        }
    }

    /// Remembers an adopted connection; several are told to the primary together.
    fn adopt(&self, listener: ListenerId, id: ConnectionId) {
        let mut adopted = self.adopted.borrow_mut();
        if adopted.is_empty() {
            self.wake_root();
        }
        match adopted.iter_mut().find(|(of, _)| *of == listener) {
            Some((_, ids)) => ids.push(id),
            None => adopted.push((listener, vec![id])),
        }
    }

    /// Tells the primary, soon, how many more connections a listener takes.
    fn room_changed(&self, desk: &Rc<Desk>) {
        if !desk.room_is_news() {
            return;
        }
        let mut rooms = self.rooms.borrow_mut();
        if !rooms.iter().any(|known| Rc::ptr_eq(known, desk)) {
            rooms.push(desk.clone());
            self.wake_root();
        }
    }

    /// Tells the primary at once what was adopted.
    fn acknowledge(&self) {
        if self.adopted.borrow().is_empty() {
            return;
        }
        self.flush_adopted();
        // What does not fit goes out when the root future, which was woken, looks again.
        let _ = self.link.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    fn flush_adopted(&self) {
        for (listener, ids) in std::mem::take(&mut *self.adopted.borrow_mut()) {
            self.send(Note::Adopted { listener, ids });
        }
        // Behind what was adopted: the primary subtracts that from the room it knows.
        for desk in std::mem::take(&mut *self.rooms.borrow_mut()) {
            desk.tell_room(self);
        }
    }

    fn close_desks(&self) {
        let desks = std::mem::take(&mut *self.desks.borrow_mut());
        for desk in desks.into_values() {
            desk.close(self);
        }
    }
}
