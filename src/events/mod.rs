//! What the primary tells the program, and the queue it takes to get there.
//!
//! The primary's thread puts events in and never waits for the program: when that is behind and the queue is
//! full, events are dropped and counted, and the program learns how many it missed. Messages are never
//! dropped and are not counted against the queue's bound: their own is what may be under way from each
//! worker, which is told what the program took.

mod queue;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use self::queue::Queue;
use crate::{
    builder::Settings,
    clock,
    config::Address,
    error::Error,
    event::{ExitStatus, State},
    handle::WorkerHandle,
    message::Message,
    patience::Patience,
    status_socket::Feed,
    supervise::Decision,
};

/// Something that happened in a cluster (Node: the events of `cluster`).
///
/// For each worker, once each and in this order: `Fork`, `Online`, `Listening` (one per address),
/// `Disconnect`, `Exit`; messages lie between `Online` and `Disconnect`. A worker whose body fails or
/// panics has `Error` before `Disconnect`, one that cannot be started `Fork`, `Error`, `Disconnect`,
/// `Exit`. Each is shown first to the worker's own observers
/// ([`WorkerHandle::on_event`]), then to the program, in the same call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// These settings are in force (Node: `setup`): at the start, and after each
    /// [`Cluster::setup_primary`](crate::Cluster::setup_primary). Newer ones may be, too, by now.
    Setup {
        /// The settings.
        settings: Arc<Settings>,
    },
    /// A worker was asked for (Node: `fork`).
    Fork {
        /// Which.
        worker: WorkerHandle,
    },
    /// A worker's body runs (Node: `online`).
    Online {
        /// Which.
        worker: WorkerHandle,
    },
    /// A worker is ready for connections (Node: `listening`).
    Listening {
        /// Which.
        worker: WorkerHandle,
        /// Where: never port 0.
        address: Address,
    },
    /// A worker sent a message (Node: `message`).
    Message {
        /// Which.
        worker: WorkerHandle,
        /// What.
        message: Message,
    },
    /// A worker's channel is closed (Node: `disconnect`).
    Disconnect {
        /// Which.
        worker: WorkerHandle,
    },
    /// A worker has ended, and nothing of it is left (Node: `exit`).
    Exit {
        /// Which.
        worker: WorkerHandle,
        /// How.
        status: ExitStatus,
    },
    /// Something failed that the cluster goes on without (Node: `error`): a worker could not be
    /// started ([`ErrorKind::Start`]), panicked ([`ErrorKind::Panic`]) or returned an error
    /// ([`ErrorKind::Body`]), or connections cannot be accepted ([`ErrorKind::Listen`]).
    ///
    /// [`ErrorKind::Start`]: crate::ErrorKind::Start
    /// [`ErrorKind::Panic`]: crate::ErrorKind::Panic
    /// [`ErrorKind::Body`]: crate::ErrorKind::Body
    /// [`ErrorKind::Listen`]: crate::ErrorKind::Listen
    Error {
        /// Whom it concerns, if a single worker.
        worker: Option<WorkerHandle>,
        /// What.
        error: Error,
    },
    /// A supervised cluster has decided something by itself (Node has nothing like it).
    Decision {
        /// What, and why.
        decision: Decision,
    },
    /// The program was so far behind that events had to be dropped.
    Missed {
        /// How many.
        count: u64,
    },
}

impl Event {
    /// Node's name of the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "setup",
            Self::Fork { .. } => "fork",
            Self::Online { .. } => "online",
            Self::Listening { .. } => "listening",
            Self::Message { .. } => "message",
            Self::Disconnect { .. } => "disconnect",
            Self::Exit { .. } => "exit",
            Self::Error { .. } => "error",
            Self::Decision { .. } => "decision",
            Self::Missed { .. } => "missed",
        }
    }

    /// The state that the worker entered with this event (Node: `worker.state` in the event's
    /// handler), if it entered one. The worker itself may be further already.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        match self {
            Self::Fork { .. } => Some(State::Starting),
            Self::Online { .. } => Some(State::Online),
            Self::Listening { .. } => Some(State::Listening),
            Self::Disconnect { .. } => Some(State::Disconnected),
            Self::Exit { .. } => Some(State::Gone),
            Self::Setup { .. }
            | Self::Message { .. }
            | Self::Error { .. }
            | Self::Decision { .. }
            | Self::Missed { .. } => None,
        }
    }

    /// The worker it is about, if it is about one.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerHandle> {
        match self {
            Self::Fork { worker }
            | Self::Online { worker }
            | Self::Listening { worker, .. }
            | Self::Message { worker, .. }
            | Self::Disconnect { worker }
            | Self::Exit { worker, .. } => Some(worker),
            Self::Error { worker, .. } => worker.as_ref(),
            Self::Setup { .. } | Self::Decision { .. } | Self::Missed { .. } => None,
        }
    }
}

/// The two ends of an event queue. With `endless`, it does not end while no worker is there.
pub(crate) fn queue(bound: usize, endless: bool) -> (EventSink, EventStream) {
    let shared = Arc::new(Shared {
        queue: Queue::new(),
        bound,
        kept: AtomicUsize::new(0),
        missed: AtomicU64::new(0),
        live: AtomicUsize::new(0),
    });
    (
        EventSink { shared: shared.clone(), feed: None },
        EventStream { shared, endless, patience: Patience::default() },
    )
}

#[derive(Debug)]
struct Shared {
    queue: Queue<Event>,
    /// How many events but messages are kept.
    bound: usize,
    /// How many there are.
    kept: AtomicUsize,
    missed: AtomicU64,
    /// Workers that were asked for and whose `exit` the reader has not seen.
    live: AtomicUsize,
}

/// Where the primary puts events.
#[derive(Debug)]
pub(crate) struct EventSink {
    shared: Arc<Shared>,
    /// The other readers: those of the status socket.
    feed: Option<Feed>,
}

impl EventSink {
    /// Shows all events to the status socket as well.
    pub(crate) fn show_to(&mut self, feed: Feed) {
        self.feed = Some(feed);
    }

    /// The status socket, if there is one.
    pub(crate) fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref()
    }

    /// Puts an event in, or counts it as missed.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(feed) = &self.feed {
            feed.see(&event);
        }
        if let Err(event) = self.offer(event) {
            self.shared.gone(&event);
            self.shared.missed.fetch_add(1, SeqCst);
            self.tell_missed();
        }
    }

    /// Puts an event in if there is room.
    fn offer(&self, event: Event) -> Result<(), Event> {
        if !matches!(event, Event::Message { .. }) {
            let more = |kept| (kept < self.shared.bound).then_some(kept + 1);
            if self.shared.kept.fetch_update(SeqCst, SeqCst, more).is_err() {
                return Err(event);
            }
        }
        self.shared.queue.push(event)
    }

    /// The reader may have made room, and be waiting, since the queue was full.
    fn tell_missed(&self) {
        let count = self.shared.missed.swap(0, SeqCst);
        if self.offer(Event::Missed { count }).is_err() {
            self.shared.missed.fetch_add(count, SeqCst);
        }
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// Where the program takes events out.
#[derive(Debug)]
pub(crate) struct EventStream {
    shared: Arc<Shared>,
    endless: bool,
    patience: Patience,
}

impl EventStream {
    pub(crate) fn worker_asked_for(&self) {
        self.shared.live.fetch_add(1, SeqCst);
    }

    /// The next event; waits until the deadline, which only a wait asks for, or for ever. `None` when the time is
    /// over, or when nothing can come any more.
    pub(crate) fn next(&self, deadline: impl FnOnce() -> Option<Instant>) -> Option<Event> {
        let event = self.at_hand().or_else(|| self.wait(deadline()))?;
        self.shared.gone(&event);
        show(&event);
        Some(event)
    }

    /// The next event; waits for it until the primary has ended, whoever is alive.
    pub(crate) fn next_of_all(&self) -> Option<Event> {
        let next = self.at_hand().or_else(|| self.sleep(None, || false));
        next.inspect(show)
    }

    /// An event left the queue.
    fn take(&self, event: Event) -> Event {
        match &event {
            Event::Message { worker, message } => worker.line().took(message.bytes()),
            _ => {
                self.shared.kept.fetch_sub(1, SeqCst);
            }
        }
        event
    }

    fn wait(&self, deadline: Option<Instant>) -> Option<Event> {
        let is_over = || !self.endless && self.shared.live.load(SeqCst) == 0;
        if is_over() {
            return None;
        }
        self.patience.wait(deadline, || self.at_hand(), || self.sleep(deadline, is_over))
    }

    fn sleep(&self, deadline: Option<Instant>, is_over: impl Fn() -> bool) -> Option<Event> {
        let event = self.shared.queue.next(deadline, is_over);
        event.map(|event| self.take(event)).or_else(|| self.missed())
    }

    fn at_hand(&self) -> Option<Event> {
        let event = self.shared.queue.try_next();
        event.map(|event| self.take(event)).or_else(|| self.missed())
    }

    fn missed(&self) -> Option<Event> {
        let count = self.shared.missed.swap(0, SeqCst);
        (count > 0).then_some(Event::Missed { count })
    }
}

impl Drop for EventStream {
    /// What nobody will take any more may hold sockets.
    fn drop(&mut self) {
        self.shared.queue.close();
        while self.shared.queue.try_next().is_some() {}
    }
}

/// Shows the event to those who observe its worker.
fn show(event: &Event) {
    if let Some(worker) = event.worker() {
        worker.show(event);
    }
}

impl Shared {
    /// A reader has got an event, or none ever will.
    fn gone(&self, event: &Event) {
        if let Event::Exit { .. } = event {
            let less = |live: usize| live.checked_sub(1);
            if self.live.fetch_update(SeqCst, SeqCst, less) == Ok(1) {
                self.queue.ask_again();
            }
        }
    }
}

/// The events of a cluster, one after the other; waits for the next. Ends when every event was taken and
/// no worker is left, or, where the cluster is supervised, the cluster has ended.
#[derive(Debug)]
pub struct Events<'a> {
    stream: &'a EventStream,
}

impl<'a> Events<'a> {
    pub(crate) fn new(stream: &'a EventStream) -> Self {
        Self { stream }
    }

    /// The next event, if it comes within this time.
    pub fn next_timeout(&mut self, time: Duration) -> Option<Event> {
        self.stream.next(|| clock::now().checked_add(time))
    }
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.stream.next(|| None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn missed(count: u64) -> Event {
        Event::Missed { count }
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_missed() {
        let (sink, stream) = queue(2, false);
        for count in 1..=5 {
            sink.emit(missed(count));
        }
        let counts: Vec<_> = std::iter::from_fn(|| stream.at_hand())
            .map(|event| if let Event::Missed { count } = event { count } else { 0 })
            .collect();
        assert_eq!(counts, [1, 2, 3], "two events, then the three that were dropped");
    }

    #[test]
    fn the_stream_ends_with_the_last_worker_or_with_the_primary() {
        let (sink, stream) = queue(2, false);
        assert!(stream.next(|| None).is_none(), "no worker was asked for");
        stream.worker_asked_for();
        drop(sink);
        assert!(stream.next(|| None).is_none(), "the primary is gone");
    }

    #[test]
    fn whoever_waits_for_all_events_learns_what_was_missed_when_it_has_caught_up() {
        let (sink, stream) = queue(1, false);
        (1..=3).for_each(|count| sink.emit(missed(count)));
        let counts = [1, 2].map(|_| match stream.next_of_all() {
            Some(Event::Missed { count }) => count,
            other => panic!("{other:?}"),
        });
        assert_eq!(counts, [1, 2], "an event, then the two that were dropped");
    }
}
