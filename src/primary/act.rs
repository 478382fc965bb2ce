//! What was decided: starting, telling, ending workers.

use std::sync::Arc;

use super::{Entry, Primary};
use crate::{
    backend::{Force, Outfit, WorkerSpec},
    channel::check_room,
    error::{Error, ErrorKind, Result},
    event::{ExitStatus, State, Step},
    events::{Event, EventSink},
    fork::Fork,
    handle::WorkerHandle,
    id::WorkerId,
    message::Message,
    supervise::{Action, Decision, Happening, Seat},
    worker::{Command, Program},
};

/// How many handles of a worker are made at once for its messages.
const COPIES: usize = 64;

impl Primary {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Fork(seat) => self.fork_in(seat),
            Action::Look => self.look(),
            Action::Disconnect(worker) => self.disconnect(worker),
            Action::Close(worker) => {
                self.report.closed += 1;
                self.ask(worker, Command::Close);
            }
            Action::Abort(worker) => {
                self.end(worker, Force::Abort);
            }
            Action::Kill(worker) => {
                self.end(worker, Force::Kill);
            }
            Action::Abandon(worker) => self.backend.force(worker, Force::Abandon),
            Action::Unready => self.tell_unready(),
            Action::StopAccepting => self.dispatcher.close(),
            Action::GiveUp(cause) => {
                let text = format!("no worker got ready and stayed: {cause}");
                self.failure = Some(Error::new(ErrorKind::Start, text));
            }
            Action::NobodyLeft(code) => {
                let text = format!("no worker is left; the last one ended with code {code}");
                self.failure = Some(Error::new(ErrorKind::Start, text).with_exit_code(code));
            }
            Action::Exhausted(cause) => {
                let text = format!("too many workers failed; the last one: {cause}");
                self.failure = Some(Error::new(ErrorKind::Exhausted, text));
            }
            Action::Tell(decision) => self.tell_program(decision),
        }
    }

    pub(super) fn tell_program(&mut self, decision: Decision) {
        let report = &mut self.report;
        match &decision {
            Decision::Restart { .. } => report.restarts += 1,
            Decision::Recycle { .. } => report.recycled += 1,
            Decision::Hung { worker, .. } => {
                report.hung += 1;
                self.lost(*worker);
            }
            Decision::Reloaded => report.reloads += 1,
            Decision::ReloadFailed { .. } => report.failed_reloads += 1,
            _ => {}
        }
        self.world.decided(&decision);
        log::log!(decision.level(), "{decision}");
        // Whoever hears of it finds it in the status.
        self.publish();
        self.sink.emit(Event::Decision { decision });
    }

    /// Whoever starts while the stop is announced is not to look ready.
    fn tell_unready_too(&mut self, worker: WorkerId) {
        if self.stopping {
            self.ask(worker, Command::Unready);
        }
    }

    /// A worker that hangs has lost its seat: its replacement does not wait for its end.
    fn lost(&mut self, worker: WorkerId) {
        let seat = self.workers.get_mut(&worker).and_then(|entry| entry.seat.take());
        if let Some((_, past)) = seat.and_then(|seat| self.seats.get_mut(&seat)) {
            past.restarts += 1;
        }
    }

    fn tell_unready(&mut self) {
        let workers: Vec<_> = self.workers.keys().copied().collect();
        workers.into_iter().for_each(|worker| self.ask(worker, Command::Unready));
    }

    fn fork_in(&mut self, seat: Seat) {
        let (slot, past) = self
            .seats
            .get(&seat)
            .map_or((None, Default::default()), |(slot, past)| (Some(*slot), *past));
        let handle = match self.crew.enlist(self.crew.next_id(), slot, past) {
            Ok(handle) => handle,
            Err(error) => return self.not_enlisted(seat, error),
        };
        self.seats.insert(seat, (handle.slot(), past));
        let prepared = Fork::new().prepare(&self.settings, self.crew.desk.packing);
        let outfit = prepared.map(|(outfit, streams)| {
            handle.hold(streams);
            outfit
        });
        self.fork(handle, Some(seat), outfit);
    }

    fn not_enlisted(&mut self, seat: Seat, error: Error) {
        self.sink.emit(Event::Error { worker: None, error });
        self.tell(Happening::NotForked { seat });
    }

    pub(super) fn fork(
        &mut self,
        handle: WorkerHandle,
        seat: Option<Seat>,
        outfit: Result<Outfit>,
    ) {
        let (worker, slot, generation) = (handle.id(), handle.slot(), handle.generation());
        self.report.started += 1;
        self.workers.insert(worker, Entry::new(handle.clone(), seat));
        self.backend.stats().reset(slot, worker.get(), generation);
        self.dispatcher.join(worker, slot);
        handle.line().open_to(straight_to_the_program(&self.sink, &handle));
        let line = handle.line().clone();
        let place = seat.map_or(slot.get(), |Seat(seat)| seat);
        let started = outfit.and_then(|outfit| {
            self.backend.start(WorkerSpec { worker, slot, place, generation, line, outfit })
        });
        if let Ok(pid) = &started {
            handle.started(*pid);
            self.tell_unready_too(worker);
        }
        self.publish();
        self.sink.emit(Event::Fork { worker: handle.clone() });
        self.tell(Happening::Forked { worker, seat });
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

    pub(super) fn disconnect(&mut self, worker: WorkerId) {
        if let Some(entry) = self.workers.get(&worker) {
            entry.handle.leaves_voluntarily();
            self.withdraw(worker);
        }
    }

    /// Withdraws a worker from every listener, then tells it to drain; once.
    pub(super) fn withdraw(&mut self, worker: WorkerId) {
        let Some(entry) = self.workers.get(&worker) else { return };
        if entry.handle.state() >= State::Draining {
            return;
        }
        entry.handle.step(Step::Leave);
        self.dispatcher.withdraw(worker, None);
        self.ask(worker, Command::Disconnect);
    }

    /// Ends a worker against its will. Whether it was there.
    pub(super) fn end(&mut self, worker: WorkerId, force: Force) -> bool {
        let known = self.workers.contains_key(&worker);
        if known {
            self.report.forced_kills += u64::from(force == Force::Kill);
            self.backend.force(worker, force);
        }
        known
    }

    /// Ends the cluster, in phases; the second time at once.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.ending = true;
        self.world.forget_successor();
        self.tell(Happening::Stop);
    }

    /// Gives a broadcast message to all workers that have joined its name, but to its sender. One that
    /// has too much to take loses it.
    pub(super) fn pass_on(&self, sender: Option<WorkerId>, message: &Message) {
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

    /// A worker that is gone needs no command; an offer comes back by itself.
    pub(super) fn ask(&mut self, worker: WorkerId, command: Command) {
        if let Err(error) = self.backend.ask(worker, command) {
            log::debug!("not sent: {error}");
        }
    }
}

/// How a worker that shares the primary's memory gives its messages to the program.
fn straight_to_the_program(sink: &Arc<EventSink>, worker: &WorkerHandle) -> Program {
    // A thread that was left behind must not keep the program waiting for events.
    let (sink, worker) = (Arc::downgrade(sink), worker.clone());
    // The program's thread drops each handle that it was given: were each made when it is needed, both threads would
    // write to the count of all handles with every message.
    let mut copies = Vec::new();
    Box::new(move |message| match sink.upgrade() {
        Some(sink) => {
            let worker = copies.pop().unwrap_or_else(|| {
                copies.resize(COPIES - 1, worker.clone());
                worker.clone()
            });
            sink.emit(Event::Message { worker, message });
            Ok(())
        }
        None => Err(message),
    })
}
