//! How workers are ended: step by step, each with a deadline, and all of them at a stop.

use std::time::{Duration, Instant};

use super::{
    Action, BOOT, Decision,
    health::Rung,
    supervisor::{End, Phase, Record, Supervisor},
};
use crate::id::WorkerId;

/// A step that comes this much too late was not due to the worker.
const LATE: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Asks a worker to leave; from here on it has no seat.
    pub(super) fn retire(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let due = now + self.policy.shutdown.drain;
        self.ask_to_leave(worker, End::new(Rung::Asked, due), actions);
    }

    /// The same for a worker that shows no sign of life: the next steps come sooner.
    pub(super) fn evict(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let due = now + self.patience();
        let end = End { hung: true, ..End::new(Rung::Asked, due) };
        self.ask_to_leave(worker, end, actions);
    }

    fn ask_to_leave(&mut self, worker: WorkerId, end: End, actions: &mut Vec<Action>) {
        let Some(record) = self.workers.get_mut(&worker) else { return };
        record.seat = None;
        if record.end.is_none() {
            record.end = Some(end);
            actions.push(Action::Disconnect(worker));
        }
    }

    pub(super) fn kill(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let due = now + self.policy.shutdown.kill;
        let Some(record) = self.workers.get_mut(&worker) else { return };
        if record.end.is_none_or(|end| end.rung != Rung::Killed) {
            record.end = Some(End::new(Rung::Killed, due));
            actions.push(Action::Kill(worker));
        }
    }

    // A stop.

    pub(super) fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Running => self.begin_to_stop(now, actions),
            Phase::Announced(_) | Phase::Stopping => {
                self.drain_all(now, actions);
                self.kill_all(now, actions);
            }
            Phase::Killing => {}
        }
    }

    fn begin_to_stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let delay = self.policy.shutdown.delay;
        actions.extend([Action::Tell(Decision::Stop), Action::Unready]);
        self.reload = None;
        if delay.is_zero() {
            self.drain_all(now, actions);
        } else {
            self.phase = Phase::Announced(now + delay);
        }
    }

    pub(super) fn drain_all(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Stopping | Phase::Killing) {
            return;
        }
        self.phase = Phase::Stopping;
        self.reload = None;
        self.seats.want_nobody();
        actions.push(Action::StopAccepting);
        let workers: Vec<_> = self.workers.keys().copied().collect();
        workers.into_iter().for_each(|worker| self.retire(now, worker, actions));
    }

    fn kill_all(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Killing;
        let workers: Vec<_> = self.workers.keys().copied().collect();
        workers.into_iter().for_each(|worker| self.kill(now, worker, actions));
    }

    // Time.

    pub(super) fn pass_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Announced(until) if until <= now) {
            self.drain_all(now, actions);
        }
        let workers: Vec<_> = self.workers.keys().copied().collect();
        for worker in workers {
            self.check_boot(now, worker, actions);
            self.take_next_step(now, worker, actions);
        }
        self.look_around(now, actions);
    }

    fn check_boot(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(record) = self.workers.get(&worker) else { return };
        if self.boot_deadline(worker, record).is_none_or(|deadline| deadline > now) {
            return;
        }
        let within = now.duration_since(record.started);
        actions.push(Action::Tell(Decision::NotReady { worker, within }));
        if let Some(record) = self.workers.get_mut(&worker) {
            record.blame = Some(format!("it was not ready after {} ms", within.as_millis()));
        }
        self.kill(now, worker, actions);
    }

    /// When a worker that is to serve must be ready: a successor always has a deadline, because whoever
    /// replaces something waits for it.
    pub(super) fn boot_deadline(&self, worker: WorkerId, record: &Record) -> Option<Instant> {
        if record.ready || record.end.is_some() {
            return None;
        }
        let seat = record.seat?;
        let place = self.seats.get(seat)?;
        let last = !place.is_awaiting() && self.reload_concerns(seat);
        let awaited = place.successor == Some(worker) || last;
        let time = self.policy.boot_timeout.or(awaited.then_some(BOOT))?;
        Some(record.started + time)
    }

    fn take_next_step(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let (shutdown, patience) = (self.policy.shutdown, self.patience());
        let Some(end) = self.workers.get_mut(&worker).and_then(|record| record.end.as_mut()) else {
            return;
        };
        if end.due > now {
            return;
        }
        if now.duration_since(end.due) > LATE && !end.excused {
            // It may have ended meanwhile, and nobody was there to hear of it.
            end.due = now + shutdown.kill;
            end.excused = true;
            return;
        }
        if end.rung == Rung::Killed {
            self.workers.remove(&worker);
            actions.push(Action::Abandon(worker));
            return;
        }
        end.rung = end.rung.next(end.hung);
        end.excused = false;
        let (action, time) = match end.rung {
            Rung::Asked | Rung::Told if end.hung => (Action::Close(worker), patience),
            Rung::Asked | Rung::Told => (Action::Close(worker), shutdown.close),
            Rung::Aborted => (Action::Abort(worker), patience),
            Rung::Killed => (Action::Kill(worker), shutdown.kill),
        };
        end.due = now + time;
        actions.push(action);
    }

    fn patience(&self) -> Duration {
        self.policy.health.unwrap_or_default().patience
    }
}
