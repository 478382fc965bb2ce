//! The primary's loop: collect what happened, decide, act.
//!
//! Runs on the primary's own thread as the one root future of its event loop. Owns the workers' table,
//! the backend, the dispatcher (and with it every listening socket) and the supervisor. It knows the
//! mode from nowhere.
//!
//! Every turn, in this order: requests from handles, signals, time, connections to deal, then what the
//! backend brings; again while that brings something, so that what was asked for is sent before the
//! loop sleeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    accept::{Dispatcher, Offer, Rules, Wanted},
    backend::{Backend, Event as Happened, Force, Outfit, WorkerSpec},
    builder::Settings,
    channel::check_room,
    cluster::{Crew, Report},
    desk::Request,
    error::{Context as _, Error, ErrorKind, Result},
    event::{ExitStatus, State, Step},
    event_loop::{self, Mailbox, Signals, Sleep, sleep_until},
    events::{Event, EventSink},
    fork::Fork,
    handle::WorkerHandle,
    id::{Slot, WorkerId},
    message::{self, Message},
    supervise::{Action, Ending, Happening, Policy, Restart, Supervisor},
    worker::{Command, Denial, Note, Program},
};

/// Rounds of "ask and hear" before tasks and timers of the loop get their turn.
const ROUNDS_PER_TURN: usize = 8;
/// Requests taken in per round.
const REQUESTS_PER_ROUND: usize = 1024;

/// Signals closer together than this are one: `timeout(1)` and service managers signal a program and
/// then its whole group, and that must not turn a drain into a kill.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

pub(crate) struct Primary {
    settings: Arc<Settings>,
    backend: Box<dyn Backend>,
    crew: Arc<Crew>,
    requests: Mailbox<Request>,
    sink: Arc<EventSink>,
    signals: Option<Signals>,
    signalled: Option<Instant>,
    dispatcher: Dispatcher,
    supervisor: Supervisor,
    workers: BTreeMap<WorkerId, Entry>,
    report: Report,
    /// The workers that have joined a broadcast name.
    audience: BTreeMap<String, BTreeSet<WorkerId>>,
    /// Why the cluster gave up, if it did.
    failure: Option<String>,
    /// Whether the end of the last worker is the end of the cluster.
    ending: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    dealt: Vec<(WorkerId, Offer)>,
}

/// A worker that has not ended.
struct Entry {
    handle: WorkerHandle,
    /// What its body said when it ended.
    finished: Option<Option<String>>,
    /// A signal from outside told it to leave: it is to be replaced.
    told_to_leave: bool,
}

impl Primary {
    /// A primary on the current loop.
    pub(crate) fn new(
        settings: Arc<Settings>,
        backend: Box<dyn Backend>,
        crew: Arc<Crew>,
        requests: Mailbox<Request>,
        sink: EventSink,
        supervised: bool,
    ) -> Result<Self> {
        let rules = Rules {
            scheduling: settings.scheduling,
            window: settings.window,
            queue: settings.accept_queue,
            memory: backend.memory(),
            keep_open: supervised || settings.keep_listening,
        };
        let policy = Policy {
            workers: if supervised { settings.workers } else { 0 },
            restart: supervised.then(Restart::default),
            grace: settings.shutdown_timeout,
        };
        let signals = supervised.then(|| Signals::new(&[SIGTERM, SIGINT])).transpose();
        Ok(Self {
            settings,
            backend,
            crew,
            requests,
            sink: Arc::new(sink),
            signals: signals.context(ErrorKind::Io, || "cannot watch for signals".into())?,
            signalled: None,
            dispatcher: Dispatcher::new(rules),
            supervisor: Supervisor::new(policy, event_loop::now()),
            workers: BTreeMap::new(),
            report: Report::default(),
            audience: BTreeMap::new(),
            failure: None,
            ending: supervised,
            alarm: None,
            dealt: Vec::new(),
        })
    }

    /// Runs the cluster to its end.
    pub(crate) async fn run(mut self) -> Result<Report> {
        self.sink.emit(Event::Setup { settings: self.settings.clone() });
        self.tell(Happening::Start);
        poll_fn(|cx| self.poll(cx)).await;
        let counts = self.dispatcher.counts();
        self.report.dispatched = counts.dispatched;
        self.report.dispatched_again = counts.again;
        match self.failure {
            Some(cause) => Err(Error::new(
                ErrorKind::Start,
                format!("no worker got ready and stayed: {cause}"),
            )),
            None => Ok(self.report),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut happened = Vec::new();
        for _ in 0..ROUNDS_PER_TURN {
            self.take_requests(cx);
            self.take_signals(cx);
            self.take_time(cx);
            self.deal(cx);
            let brought = self.backend.poll(cx, &mut happened);
            happened.drain(..).for_each(|event| self.note(event));
            if self.ending && self.supervisor.over() && self.workers.is_empty() {
                return Poll::Ready(());
            }
            if brought.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // Collect.

    fn take_requests(&mut self, cx: &mut Context<'_>) {
        for _ in 0..REQUESTS_PER_ROUND {
            match self.requests.poll_next(cx) {
                Poll::Ready(Some(request)) => self.serve(request),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    fn take_signals(&mut self, cx: &mut Context<'_>) {
        while let Some(Poll::Ready(signal)) =
            self.signals.as_ref().map(|signals| signals.poll_next(cx))
        {
            let now = event_loop::now();
            if self.signalled.is_none_or(|last| now - last >= SAME_SIGNAL) {
                log::info!("signal {signal}: the cluster stops");
                self.signalled = Some(now);
                self.stop();
            }
        }
    }

    fn take_time(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(deadline) = self.supervisor.deadline() else {
                self.alarm = None;
                return;
            };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            self.alarm = None;
            self.tell(Happening::Tick);
        }
    }

    fn deal(&mut self, cx: &mut Context<'_>) {
        let mut dealt = std::mem::take(&mut self.dealt);
        let stats = self.backend.stats().clone();
        self.dispatcher.poll(cx, &|slot| stats.open(slot), &mut dealt);
        for (worker, offer) in dealt.drain(..) {
            self.ask(worker, Command::Offer(offer));
        }
        self.dealt = dealt;
        for (address, error) in self.dispatcher.take_failures() {
            let text = format!("cannot accept connections on {address}");
            let error = Error::caused(ErrorKind::Listen, text, error);
            self.sink.emit(Event::Error { worker: None, error });
        }
    }

    // Decide.

    fn serve(&mut self, request: Request) {
        match request {
            Request::Setup(settings) => {
                self.settings = settings.clone();
                self.sink.emit(Event::Setup { settings });
            }
            Request::Fork(handle, outfit) => self.fork(handle, Ok(*outfit)),
            Request::Broadcast(message) => {
                self.crew.desk.posted.subtract(1, message.bytes());
                self.pass_on(None, &message);
            }
            Request::Disconnect(worker) => self.disconnect(worker),
            Request::DisconnectAll => {
                self.dispatcher.close();
                let workers: Vec<_> = self.workers.keys().copied().collect();
                workers.into_iter().for_each(|worker| self.disconnect(worker));
            }
            Request::Kill(worker) => self.kill(worker),
            Request::Signal(worker, signal) => self.backend.force(worker, Force::Signal(signal)),
            Request::Stop => self.stop(),
            Request::StopNow => {
                self.stop();
                self.tell(Happening::Stop);
            }
        }
    }

    fn note(&mut self, happened: Happened) {
        match happened {
            Happened::Note { worker, note } => self.hear(worker, note),
            Happened::Returned { worker, offer } => {
                self.dispatcher.returned(worker, offer);
            }
            Happened::Closed { worker } => self.closed(worker),
            Happened::Exited { worker, status } => self.exited(worker, status),
        }
    }

    fn hear(&mut self, worker: WorkerId, note: Note) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let handle = entry.handle.clone();
        match note {
            Note::Online => {
                handle.step(Step::Online);
                self.sink.emit(Event::Online { worker: handle });
            }
            Note::Listen { request, wanted } => {
                let command = self.listen(&handle, request, wanted);
                self.ask(worker, command);
            }
            Note::Listening { listener } => {
                if let Some(address) = self.dispatcher.ready(worker, listener) {
                    handle.step(Step::Listening);
                    self.sink.emit(Event::Listening { worker: handle, address });
                    self.tell(Happening::Ready { worker });
                }
            }
            Note::Unlisten { listener } => self.dispatcher.withdraw(worker, Some(listener)),
            Note::Room { listener, connections } => {
                self.dispatcher.set_room(worker, listener, connections);
            }
            Note::Adopted { listener, ids } => self.dispatcher.adopted(worker, listener, ids.len()),
            // Backends tell of these as `Returned`.
            Note::Refused(offer) => {
                self.dispatcher.returned(worker, offer);
            }
            Note::Leaving { voluntary } => {
                entry.told_to_leave |= !voluntary;
                if voluntary {
                    handle.leaves_voluntarily();
                }
                self.withdraw(worker);
            }
            Note::Message(message) if message.topic().is_some() => {
                handle.line().took(message.bytes());
                self.crew.members.deliver(&message);
                self.pass_on(Some(worker), &message);
            }
            Note::Join { topic } => self.join(worker, topic),
            Note::Leave { topic } => self.leave(worker, &topic),
            Note::Message(message) => self.sink.emit(Event::Message { worker: handle, message }),
            Note::Finished { failure } => {
                entry.finished.get_or_insert(failure.as_ref().map(Error::to_string));
                if let Some(error) = failure {
                    self.sink.emit(Event::Error { worker: Some(handle), error });
                }
            }
        }
    }

    fn listen(&mut self, handle: &WorkerHandle, request: u32, wanted: Wanted) -> Command {
        if handle.state() >= State::Draining {
            let text = "the worker is leaving".into();
            return Command::Denied { request, denial: Denial { errno: None, text } };
        }
        match self.dispatcher.listen(handle.id(), wanted) {
            Ok(grant) => Command::Granted { request, grant },
            Err(error) => Command::Denied { request, denial: denial(&error) },
        }
    }

    fn closed(&mut self, worker: WorkerId) {
        self.dispatcher.leave(worker);
        if let Some(entry) = self.workers.get(&worker) {
            entry.handle.closed();
            self.sink.emit(Event::Disconnect { worker: entry.handle.clone() });
        }
    }

    fn exited(&mut self, worker: WorkerId, status: ExitStatus) {
        let Some(entry) = self.workers.remove(&worker) else { return };
        entry.handle.ended(status);
        self.backend.stats().stop_clocks(entry.handle.slot());
        self.audience.retain(|_, workers| {
            workers.remove(&worker);
            !workers.is_empty()
        });
        self.crew.strike(worker);
        *self.report.exits.entry(status.to_string()).or_default() += 1;
        self.report.abandoned += u64::from(status == ExitStatus::Abandoned);
        let ending = entry.ending(status);
        if let Ending::Refused(cause) | Ending::Crashed(cause) = &ending {
            log::warn!("{} ended: {cause}", entry.handle);
        }
        self.sink.emit(Event::Exit { worker: entry.handle, status });
        self.tell(Happening::Ended { worker, ending });
    }

    /// A worker whose names are too many is not honest: it gets what it could have joined.
    fn join(&mut self, worker: WorkerId, topic: String) {
        let joined = self.audience.values().filter(|workers| workers.contains(&worker)).count();
        if joined < message::MAX_NAMES {
            self.audience.entry(topic).or_default().insert(worker);
        }
    }

    fn leave(&mut self, worker: WorkerId, topic: &str) {
        if let Some(workers) = self.audience.get_mut(topic) {
            workers.remove(&worker);
            if workers.is_empty() {
                self.audience.remove(topic);
            }
        }
    }

    // Act.

    /// Gives a broadcast message to all workers that have joined its name, but to its sender. One that
    /// has too much to take loses it.
    fn pass_on(&self, sender: Option<WorkerId>, message: &Message) {
        let audience = message.topic().and_then(|topic| self.audience.get(topic));
        for worker in audience.into_iter().flatten().filter(|worker| Some(**worker) != sender) {
            let Some(entry) = self.workers.get(worker) else { continue };
            let line = entry.handle.line();
            let room = check_room(line.load(), message.bytes()).is_ok();
            if let Some(copy) = message.duplicate().filter(|_| room) {
                // A worker that is gone needs none.
                let _ = line.send(copy);
            }
        }
    }

    fn tell(&mut self, happening: Happening) {
        let mut actions = Vec::new();
        self.supervisor.handle(event_loop::now(), happening, &mut actions);
        actions.into_iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fork(slot) => self.fork_in(slot),
            Action::Disconnect(worker) => self.disconnect(worker),
            Action::Kill(worker) => self.kill(worker),
            Action::Abandon(worker) => self.backend.force(worker, Force::Abandon),
            Action::GiveUp(cause) => self.failure = Some(cause),
        }
    }

    fn fork_in(&mut self, slot: Slot) {
        let handle = match self.crew.enlist(self.crew.next_id(), Some(slot)) {
            Ok(handle) => handle,
            Err(error) => return self.sink.emit(Event::Error { worker: None, error }),
        };
        let prepared = Fork::new().prepare(&self.settings, self.crew.desk.packing);
        let outfit = prepared.map(|(outfit, streams)| {
            handle.hold(streams);
            outfit
        });
        self.fork(handle, outfit);
    }

    fn fork(&mut self, handle: WorkerHandle, outfit: Result<Outfit>) {
        let (worker, slot, generation) = (handle.id(), handle.slot(), handle.generation());
        self.report.started += 1;
        self.report.restarts += u64::from(generation > 1);
        let entry = Entry { handle: handle.clone(), finished: None, told_to_leave: false };
        self.workers.insert(worker, entry);
        self.backend.stats().reset(slot, worker.get(), generation);
        self.dispatcher.join(worker, slot);
        handle.line().open_to(straight_to_the_program(&self.sink, &handle));
        let line = handle.line().clone();
        let started = outfit.and_then(|outfit| {
            self.backend.start(WorkerSpec { worker, slot, generation, line, outfit })
        });
        if let Ok(pid) = &started {
            handle.started(*pid);
        }
        self.sink.emit(Event::Fork { worker: handle.clone() });
        self.tell(Happening::Forked { worker, slot });
        if let Err(error) = started {
            self.not_started(worker, handle, error);
        }
    }

    fn not_started(&mut self, worker: WorkerId, handle: WorkerHandle, error: Error) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.finished = Some(Some(error.to_string()));
        }
        self.sink.emit(Event::Error { worker: Some(handle), error });
        self.closed(worker);
        self.exited(worker, ExitStatus::NotStarted);
    }

    fn disconnect(&mut self, worker: WorkerId) {
        if let Some(entry) = self.workers.get(&worker) {
            entry.handle.leaves_voluntarily();
            self.withdraw(worker);
        }
    }

    /// Withdraws a worker from every listener, then tells it to drain; once.
    fn withdraw(&mut self, worker: WorkerId) {
        let Some(entry) = self.workers.get(&worker) else { return };
        if entry.handle.state() >= State::Draining {
            return;
        }
        entry.handle.step(Step::Leave);
        self.dispatcher.withdraw(worker, None);
        self.ask(worker, Command::Disconnect);
    }

    fn kill(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.report.forced_kills += 1;
            self.backend.force(worker, Force::Kill);
            self.tell(Happening::Killed { worker });
        }
    }

    /// Ends the cluster: no new connections, then every worker drains.
    fn stop(&mut self) {
        self.ending = true;
        self.dispatcher.close();
        self.tell(Happening::Stop);
    }

    /// A worker that is gone needs no command; an offer comes back by itself.
    fn ask(&mut self, worker: WorkerId, command: Command) {
        if let Err(error) = self.backend.ask(worker, command) {
            log::debug!("not sent: {error}");
        }
    }
}

impl Entry {
    fn ending(&self, status: ExitStatus) -> Ending {
        let asked = self.handle.exited_after_disconnect() == Some(true);
        match &self.finished {
            Some(Some(cause)) if status == ExitStatus::Code(ExitStatus::PANIC) => {
                Ending::Crashed(cause.clone())
            }
            Some(Some(cause)) => Ending::Refused(cause.clone()),
            Some(None) if status.success() && !self.told_to_leave => Ending::Done,
            _ if asked => Ending::Done,
            _ if self.told_to_leave => Ending::Crashed("a signal told it to leave".into()),
            _ => Ending::Crashed(status.to_string()),
        }
    }
}

/// How a worker that shares the primary's memory gives its messages to the program.
fn straight_to_the_program(sink: &Arc<EventSink>, worker: &WorkerHandle) -> Program {
    // A thread that was left behind must not keep the program waiting for events.
    let (sink, worker) = (Arc::downgrade(sink), worker.clone());
    Box::new(move |message| match sink.upgrade() {
        Some(sink) => {
            sink.emit(Event::Message { worker: worker.clone(), message });
            Ok(())
        }
        None => Err(message),
    })
}

fn denial(error: &io::Error) -> Denial {
    Denial { errno: error.raw_os_error(), text: error.to_string() }
}
