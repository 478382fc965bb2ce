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
    collections::BTreeMap,
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
    backend::{Backend, Event as Happened, Force, WorkerSpec},
    builder::Settings,
    cluster::{Crew, Report},
    error::{Context as _, Error, ErrorKind, Result},
    event::{ExitStatus, State, Step},
    event_loop::{self, Mailbox, Signals, Sleep, sleep_until},
    events::{Event, EventSink},
    handle::{Request, WorkerHandle},
    id::{Slot, WorkerId},
    supervise::{Action, Ending, Happening, Policy, Restart, Supervisor},
    worker::{Command, Denial, Note},
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
    sink: EventSink,
    signals: Option<Signals>,
    signalled: Option<Instant>,
    dispatcher: Dispatcher,
    supervisor: Supervisor,
    workers: BTreeMap<WorkerId, Entry>,
    report: Report,
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
            sink,
            signals: signals.context(ErrorKind::Io, || "cannot watch for signals".into())?,
            signalled: None,
            dispatcher: Dispatcher::new(rules),
            supervisor: Supervisor::new(policy, event_loop::now()),
            workers: BTreeMap::new(),
            report: Report::default(),
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
            Request::Fork(handle) => self.fork(handle),
            Request::Disconnect(worker) => self.disconnect(worker),
            Request::DisconnectAll => {
                self.dispatcher.close();
                let workers: Vec<_> = self.workers.keys().copied().collect();
                workers.into_iter().for_each(|worker| self.disconnect(worker));
            }
            Request::Kill(worker) => self.kill(worker),
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
            Note::Message(message) => self.sink.emit(Event::Message { worker: handle, message }),
            Note::Finished { failure } => entry.finished = Some(failure),
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
        entry.handle.step(Step::End);
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

    // Act.

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
        match self.crew.enlist(Some(slot)) {
            Ok(handle) => self.fork(handle),
            Err(error) => self.sink.emit(Event::Error { worker: None, error }),
        }
    }

    fn fork(&mut self, handle: WorkerHandle) {
        let (worker, slot, generation) = (handle.id(), handle.slot(), handle.generation());
        self.report.started += 1;
        self.report.restarts += u64::from(generation > 1);
        let entry = Entry { handle: handle.clone(), finished: None, told_to_leave: false };
        self.workers.insert(worker, entry);
        self.backend.stats().reset(slot, worker.get(), generation);
        self.dispatcher.join(worker, slot);
        let spec = WorkerSpec { worker, slot, generation, line: handle.line().clone() };
        let started = self.backend.start(&spec);
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
        let asked = self.handle.exited_after_disconnect();
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

fn denial(error: &io::Error) -> Denial {
    Denial { errno: error.raw_os_error(), text: error.to_string() }
}
