//! The primary's loop: collect what happened, decide, act.
//!
//! Runs on the primary's own thread as the one root future of its event loop. Owns the workers' table,
//! the backend, the dispatcher (and with it every listening socket) and the supervisor. It knows the
//! mode from nowhere.
//!
//! Every turn, in this order: requests from handles, signals, connections to deal, then what the
//! backend brings, then time and the world outside; again while that brings something, so that what was asked for is sent
//! before the loop sleeps. Time comes last because a deadline must not be held against a worker whose
//! answer is there already.
//!
//! `collect` takes in what happened, `act` does what was decided, `entry` is a worker in the table, and
//! `world` deals with the world outside the program.

mod act;
mod collect;
mod entry;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use self::{entry::Entry, world::World};
use crate::{
    accept::{Dispatcher, Offer, Rules},
    backend::Backend,
    builder::Settings,
    clock,
    cluster::{Crew, Report},
    desk::Request,
    error::{Context as _, Error, ErrorKind, Result},
    event_loop::{self, Mailbox, Signals, Sleep},
    events::{Event, EventSink},
    id::{Slot, WorkerId},
    outside::Outside,
    status::{Past, Published},
    supervise::{Happening, Seat, Supervisor},
};

/// Rounds of "ask and hear" before tasks and timers of the loop get their turn.
const ROUNDS_PER_TURN: usize = 8;

pub(crate) struct Primary {
    settings: Arc<Settings>,
    backend: Box<dyn Backend>,
    crew: Arc<Crew>,
    requests: Mailbox<Request>,
    sink: Arc<EventSink>,
    signals: Option<Signals>,
    /// When a signal last asked for a stop.
    signalled: Option<Instant>,
    dispatcher: Dispatcher,
    supervisor: Supervisor,
    workers: BTreeMap<WorkerId, Entry>,
    /// Who was last in each of the supervisor's seats.
    seats: BTreeMap<Seat, (Slot, Past)>,
    report: Report,
    /// The workers that have joined a broadcast name.
    audience: BTreeMap<String, BTreeSet<WorkerId>>,
    /// Why the cluster gave up, if it did.
    failure: Option<Error>,
    /// A stop was asked for.
    stopping: bool,
    /// Whether the end of the last worker is the end of the cluster.
    ending: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    dealt: Vec<(WorkerId, Offer)>,
    world: World,
}

impl Primary {
    /// A primary on the current loop.
    pub(crate) fn new(
        settings: Arc<Settings>,
        backend: Box<dyn Backend>,
        crew: Arc<Crew>,
        requests: Mailbox<Request>,
        sink: EventSink,
        outside: Outside,
        supervised: bool,
    ) -> Result<Self> {
        let rules = Rules {
            scheduling: settings.scheduling,
            window: settings.window,
            keep_open: supervised || settings.keep_listening,
        };
        let supervision = &settings.supervision;
        let policy = if supervised {
            supervision.policy(settings.workers)
        } else {
            supervision.unsupervised()
        };
        let signals = supervised.then(|| Signals::new(&collect::SIGNALS)).transpose();
        Ok(Self {
            supervisor: Supervisor::new(policy, event_loop::now()),
            settings,
            backend,
            crew,
            requests,
            sink: Arc::new(sink),
            signals: signals.context(ErrorKind::Io, || "cannot watch for signals".into())?,
            signalled: None,
            dispatcher: Dispatcher::new(rules, outside.handed.clone()),
            workers: BTreeMap::new(),
            seats: BTreeMap::new(),
            report: Report::default(),
            audience: BTreeMap::new(),
            failure: None,
            stopping: false,
            ending: supervised,
            alarm: None,
            dealt: Vec::new(),
            world: World::new(outside, supervised)?,
        })
    }

    /// Runs the cluster to its end.
    pub(crate) async fn run(mut self) -> Result<Report> {
        self.sink.emit(Event::Setup { settings: self.settings.clone() });
        self.tell(Happening::Start);
        poll_fn(|cx| self.poll(cx)).await;
        self.stopping = true;
        self.world.farewell().await;
        let counts = self.dispatcher.counts();
        self.report.dispatched = counts.dispatched;
        self.report.dispatched_again = counts.again;
        self.publish();
        self.failure.map_or(Ok(self.report), Err)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut happened = Vec::new();
        for _ in 0..ROUNDS_PER_TURN {
            self.take_requests(cx);
            self.take_signals(cx);
            self.deal(cx);
            let brought = self.backend.poll(cx, &mut happened).is_ready();
            happened.drain(..).for_each(|event| self.note(event));
            let decided = self.take_time(cx) | self.look_outside(cx);
            if self.ending && self.supervisor.over() && self.workers.is_empty() {
                return Poll::Ready(());
            }
            if !brought && !decided {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Lets the supervisor decide, and does what it decides.
    fn tell(&mut self, happening: Happening) {
        let mut actions = Vec::new();
        // The turn's time may be older than what happened, and delays would seem shorter than they are.
        self.supervisor.handle(clock::now(), happening, &mut actions);
        actions.into_iter().for_each(|action| self.act(action));
        self.publish();
        self.tell_outside();
    }

    fn publish(&self) {
        self.crew.board.publish(Published {
            target: self.supervisor.target(),
            reloading: self.supervisor.is_reloading(),
            stopping: self.stopping,
            report: self.report.clone(),
        });
    }
}
