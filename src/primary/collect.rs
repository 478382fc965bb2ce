//! What happened: requests, signals, time, and what workers say and do.

use std::{
    future::Future as _,
    io,
    task::{Context, Poll},
    time::Duration,
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

use super::{Entry, Primary};
use crate::{
    accept::Wanted,
    backend::{Event as Happened, Force},
    desk::Request,
    error::{Error, ErrorKind},
    event::{ExitStatus, State, Step},
    event_loop::{self, sleep_until},
    events::Event,
    handle::WorkerHandle,
    id::{ListenerId, WorkerId},
    message,
    status::Past,
    supervise::{Ending, Happening, Sight},
    worker::{Command, Denial, Note},
};

/// The signals that a supervised cluster answers.
pub(super) const SIGNALS: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGTTIN, SIGTTOU, SIGUSR2];

/// Requests taken in per round.
const REQUESTS_PER_ROUND: usize = 1024;

/// Signals to stop closer together than this are one: `timeout(1)` and service managers signal a program
/// and then its whole group, and that must not turn a drain into a kill.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

impl Primary {
    pub(super) fn take_requests(&mut self, cx: &mut Context<'_>) {
        for _ in 0..REQUESTS_PER_ROUND {
            match self.requests.poll_next(cx) {
                Poll::Ready(Some(request)) => self.serve(request),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Setup(settings) => {
                self.settings = settings.clone();
                self.sink.emit(Event::Setup { settings });
            }
            Request::Fork(handle, outfit) => self.fork(handle, None, Ok(*outfit)),
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
            Request::Kill(worker) => {
                if self.end(worker, Force::Kill) {
                    self.tell(Happening::Killed { worker });
                }
            }
            Request::Signal(worker, signal) => self.backend.force(worker, Force::Signal(signal)),
            Request::Scale(workers) => self.tell(Happening::Scale(workers)),
            Request::Reload => self.tell(Happening::Reload),
            Request::Upgrade => self.upgrade(),
            Request::Stop if self.stopping => {}
            Request::Stop => self.stop(),
            Request::StopNow => {
                self.stop();
                self.stop();
            }
        }
    }

    pub(super) fn take_signals(&mut self, cx: &mut Context<'_>) {
        while let Some(Poll::Ready(signal)) =
            self.signals.as_ref().map(|signals| signals.poll_next(cx))
        {
            match signal {
                SIGHUP => self.tell(Happening::Reload),
                SIGTTIN => self.tell(Happening::Scale(self.supervisor.target() + 1)),
                SIGTTOU => self.tell(Happening::Scale(self.supervisor.target().max(2) - 1)),
                SIGUSR2 => self.upgrade(),
                SIGQUIT if self.stopping => {}
                signal => self.stop_by(signal),
            }
        }
    }

    /// The first signal changes nothing about a stop that the program has asked for; the next one hurries it.
    fn stop_by(&mut self, signal: i32) {
        let now = event_loop::now();
        let last = self.signalled;
        if last.is_some_and(|last| now - last < SAME_SIGNAL) {
            return;
        }
        log::info!("signal {signal}: the cluster stops");
        self.signalled = Some(now);
        if last.is_some() || !self.stopping {
            self.stop();
        }
    }

    /// Whether time has changed something.
    pub(super) fn take_time(&mut self, cx: &mut Context<'_>) -> bool {
        let mut passed = false;
        loop {
            let Some(deadline) = self.supervisor.deadline() else {
                self.alarm = None;
                return passed;
            };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return passed;
            }
            self.alarm = None;
            passed = true;
            self.tell(Happening::Tick);
        }
    }

    pub(super) fn deal(&mut self, cx: &mut Context<'_>) {
        let mut dealt = std::mem::take(&mut self.dealt);
        let stats = self.backend.stats().clone();
        self.dispatcher.poll(cx, &|slot| stats.open(slot), &mut dealt);
        for (worker, offer) in dealt.drain(..) {
            if self.was_asked_to_leave(worker) {
                self.dispatcher.returned(worker, offer);
            } else {
                self.ask(worker, Command::Offer(offer));
            }
        }
        self.dealt = dealt;
        for (address, error) in self.dispatcher.take_failures() {
            let text = format!("cannot accept connections on {address}");
            let error = Error::caused(ErrorKind::Listen, text, error);
            self.sink.emit(Event::Error { worker: None, error });
        }
        for (worker, listener) in self.dispatcher.take_looks() {
            self.ask_to_look(worker, listener);
        }
    }

    fn ask_to_look(&mut self, worker: WorkerId, listener: ListenerId) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        if entry.looks.is_due(listener, || entry.handle.line().track()) {
            self.ask(worker, Command::Look { listener });
        }
    }

    /// Also when this thread has not read the request yet.
    fn was_asked_to_leave(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.handle.was_asked_to_leave())
    }

    /// Looks at every worker, from outside.
    pub(super) fn look(&mut self) {
        let with_memory = self.settings.supervision.recycle.memory.is_some();
        let sight = |entry: &Entry| {
            let stats = entry.handle.stats();
            Sight {
                beats: stats.beats,
                requests: stats.requests,
                memory: if with_memory { entry.handle.memory() } else { None },
                busy_ns: stats.busy_ns,
            }
        };
        let seen = self.workers.iter().map(|(worker, entry)| (*worker, sight(entry))).collect();
        // A connection or two for each worker is what a busy server looks like.
        let waiting = self.dispatcher.waiting() > 2 * self.workers.len();
        self.tell(Happening::Seen { workers: seen, waiting });
    }

    pub(super) fn note(&mut self, happened: Happened) {
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
            Note::Ready => self.ready(&handle),
            Note::Listen { request, wanted } => {
                let command = self.listen(&handle, request, wanted);
                self.ask(worker, command);
            }
            Note::Listening { listener } => {
                if let Some(address) = self.dispatcher.ready(worker, listener) {
                    handle.step(Step::Listening);
                    // Whoever hears of it finds it ready.
                    let is_news = handle.got_ready();
                    self.sink.emit(Event::Listening { worker: handle.clone(), address });
                    if is_news {
                        self.tell(Happening::Ready { worker });
                    }
                }
            }
            Note::Unlisten { listener } => self.dispatcher.withdraw(worker, Some(listener)),
            Note::Left { listener, errno } => {
                let error = errno.map(io::Error::from_raw_os_error);
                self.dispatcher.left(worker, listener, error);
            }
            Note::Room { listener, connections } => {
                self.dispatcher.set_room(worker, listener, connections);
            }
            Note::Adopted { listener, ids } => self.dispatcher.adopted(worker, listener, ids.len()),
            // Backends tell of these as `Returned`.
            Note::Refused(offer) => {
                self.dispatcher.returned(worker, offer);
            }
            Note::Leaving { voluntary } => self.leaves(worker, voluntary),
            Note::Message(message) if message.topic().is_some() => {
                handle.line().took(message.bytes());
                self.crew.members.deliver(&message);
                self.pass_on(Some(worker), &message);
            }
            Note::Join { topic } => self.join(worker, topic),
            Note::Leave { topic } => self.leave(worker, &topic),
            Note::Message(message) => self.sink.emit(Event::Message { worker: handle, message }),
            // Only the first word of it counts.
            Note::Finished { .. } if entry.finished.is_some() => {}
            Note::Finished { failure } => {
                entry.finished = Some(failure.as_ref().map(Error::to_string));
                if let Some(error) = failure {
                    self.sink.emit(Event::Error { worker: Some(handle), error });
                }
            }
        }
    }

    fn ready(&mut self, handle: &WorkerHandle) {
        if handle.got_ready() {
            self.tell(Happening::Ready { worker: handle.id() });
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

    fn leaves(&mut self, worker: WorkerId, voluntary: bool) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.told_to_leave |= !voluntary;
        if voluntary {
            entry.handle.leaves_voluntarily();
        }
        self.withdraw(worker);
        self.tell(Happening::Leaving { worker });
    }

    pub(super) fn closed(&mut self, worker: WorkerId) {
        self.dispatcher.leave(worker);
        if let Some(entry) = self.workers.get(&worker) {
            entry.handle.closed();
            self.sink.emit(Event::Disconnect { worker: entry.handle.clone() });
            // A process can live on without its channel: it gets as long as if it had been asked to leave.
            self.tell(Happening::Leaving { worker });
        }
    }

    pub(super) fn exited(&mut self, worker: WorkerId, status: ExitStatus) {
        let Some(entry) = self.workers.remove(&worker) else { return };
        entry.handle.ended(status);
        self.backend.stats().end(entry.handle.slot());
        self.audience.retain(|_, workers| {
            workers.remove(&worker);
            !workers.is_empty()
        });
        self.crew.strike(worker);
        *self.report.exits.entry(status.to_string()).or_default() += 1;
        self.report.abandoned += u64::from(status == ExitStatus::Abandoned);
        let ending = entry.ending(status);
        self.remember(&entry, status, &ending);
        self.publish();
        self.sink.emit(Event::Exit { worker: entry.handle, status });
        self.tell(Happening::Ended { worker, ending });
    }

    /// What the next worker in this seat will be told to have come after.
    fn remember(&mut self, entry: &Entry, status: ExitStatus, ending: &Ending) {
        if let Some((_, past)) = entry.seat.and_then(|seat| self.seats.get_mut(&seat)) {
            let failed = u64::from(*ending != Ending::Done);
            *past = Past { restarts: past.restarts + failed, last_exit: Some(status) };
        }
        match ending {
            Ending::Refused(cause) | Ending::Crashed(cause) => {
                log::warn!("{} ended: {cause}", entry.handle);
            }
            Ending::Code(code) => log::warn!("{} ended with code {code}", entry.handle),
            Ending::Done => log::debug!("{} ended", entry.handle),
        }
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
}

fn denial(error: &io::Error) -> Denial {
    Denial { errno: error.raw_os_error(), text: error.to_string() }
}
