//! What is replaced, added or taken away although nothing failed: reload, recycling, another number of
//! workers; and the look at all workers that hangs, recycling and scaling are decided by.

use std::time::{Duration, Instant};

use super::{
    Action, BOOT, Decision, Seat, Sight,
    rollout::Progress,
    seats::Place,
    supervisor::{Phase, RECYCLE_INTERVAL, Supervisor},
};
use crate::id::WorkerId;

impl Supervisor {
    // Reload.

    pub(super) fn start_reload(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        if let Some(progress) = &mut self.reload {
            return progress.ask_again();
        }
        self.seats.forget_retries();
        let seats: Vec<_> = self.seats.all().map(|(seat, _)| seat).collect();
        actions.push(Action::Tell(Decision::Reload));
        self.reload = Some(Progress::new(seats.into_iter()));
        self.advance_reload(now, actions);
    }

    /// Gives seats their turn as far as surge and unavailability allow.
    pub(super) fn advance_reload(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let rollout = self.policy.rollout;
        loop {
            let Some(progress) = &mut self.reload else { return };
            // Somebody is being recycled: that one is not part of this, and it counts as surge.
            if self.seats.being_replaced().any(|seat| !progress.concerns(seat)) {
                return;
            }
            let Some(seat) = progress.next(rollout.surge + rollout.unavailable) else { break };
            let without_successor = progress.under_way() > rollout.surge;
            if without_successor && !self.may_be_missing(seat) {
                self.reload.iter_mut().for_each(|progress| progress.postpone(seat));
                return;
            }
            self.renew(now, seat, without_successor, actions);
        }
        if self.reload.as_ref().is_some_and(Progress::is_over)
            && let Some(progress) = self.reload.take()
        {
            actions.push(Action::Tell(Decision::Reloaded));
            if progress.asked_again() {
                self.start_reload(now, actions);
            }
        }
    }

    /// Whether nobody may serve in this seat for a while: others may be missing already.
    fn may_be_missing(&self, seat: Seat) -> bool {
        let missing = self.seats.all().filter(|(_, place)| !self.is_served(place)).count();
        let serves = self.seats.get(seat).is_some_and(|place| self.is_served(place));
        missing < self.policy.rollout.unavailable || !serves
    }

    fn is_served(&self, place: &Place) -> bool {
        let record = place.worker.and_then(|worker| self.workers.get(&worker));
        record.is_some_and(|record| record.ready)
    }

    fn renew(
        &mut self,
        now: Instant,
        seat: Seat,
        without_successor: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(place) = self.seats.get_mut(seat) else { return self.forget(seat) };
        // Whoever is started anyway is new.
        if place.worker.is_none() {
            return self.forget(seat);
        }
        let old = if without_successor { place.worker.take() } else { None };
        if place.successor.is_none() && !place.asked {
            place.due = Some(now);
        }
        if let Some(old) = old {
            self.retire(now, old, actions);
        }
    }

    fn forget(&mut self, seat: Seat) {
        if let Some(progress) = &mut self.reload {
            progress.forget(seat);
        }
    }

    pub(super) fn reload_concerns(&self, seat: Seat) -> bool {
        self.reload.as_ref().is_some_and(|progress| progress.concerns(seat))
    }

    /// The new worker of a seat failed: who was not replaced yet stays.
    pub(super) fn fail_reload(&mut self, now: Instant, cause: String, actions: &mut Vec<Action>) {
        if self.reload.take().is_none() {
            return;
        }
        actions.push(Action::Tell(Decision::ReloadFailed { cause }));
        for successor in self.seats.give_up_successors() {
            self.retire(now, successor, actions);
        }
    }

    // Another number.

    pub(super) fn scale(&mut self, now: Instant, workers: usize, actions: &mut Vec<Action>) {
        let from = self.seats.len();
        if self.phase != Phase::Running || workers == from {
            return;
        }
        actions.push(Action::Tell(Decision::Scale { from, to: workers }));
        (from..workers).for_each(|_| self.seats.add(now));
        for _ in workers..from {
            let Some(seat) = self.least_useful() else { return };
            self.forget(seat);
            if let Some(place) = self.seats.remove(seat) {
                self.retire_all_of(now, &place, actions);
            }
        }
    }

    /// The last seat that nobody serves in yet, else the last one.
    fn least_useful(&self) -> Option<Seat> {
        let order = |(seat, place): &(Seat, &Place)| (!self.is_served(place), *seat);
        self.seats.all().max_by_key(order).map(|(seat, _)| seat)
    }

    fn retire_all_of(&mut self, now: Instant, place: &Place, actions: &mut Vec<Action>) {
        for worker in place.worker.into_iter().chain(place.successor) {
            self.retire(now, worker, actions);
        }
    }

    // Looking.

    /// How often the workers are looked at, if anything depends on it.
    pub(super) fn look_interval(&self) -> Option<Duration> {
        let health = self.policy.health.map(|health| health.interval());
        let scale = self.policy.scale.as_ref().map(super::Autoscale::interval);
        let recycle = self.policy.recycle.is_on().then_some(RECYCLE_INTERVAL);
        health.into_iter().chain(scale).chain(recycle).min()
    }

    pub(super) fn look_around(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(due) = self.look.filter(|due| *due <= now && self.phase == Phase::Running) else {
            return;
        };
        let Some(interval) = self.look_interval() else { return };
        self.late = now.duration_since(due) > interval;
        self.look = Some(now + interval);
        actions.push(Action::Look);
    }

    pub(super) fn seen(
        &mut self,
        now: Instant,
        workers: &[(WorkerId, Sight)],
        waiting: bool,
        actions: &mut Vec<Action>,
    ) {
        if self.phase != Phase::Running {
            return;
        }
        for (worker, sight) in workers {
            self.judge(now, *worker, sight, actions);
        }
        self.late = false;
        self.scale_by_load(now, workers, waiting, actions);
    }

    fn judge(&mut self, now: Instant, worker: WorkerId, sight: &Sight, actions: &mut Vec<Action>) {
        let (late, health) = (self.late, self.policy.health);
        // What a worker does before it is ready may well take a while without a beat.
        let boot = self.policy.boot_timeout.unwrap_or(BOOT);
        let Some(record) = self.workers.get_mut(&worker) else { return };
        let Some(seat) = record.seat.filter(|_| record.end.is_none()) else { return };
        let silent = record.pulse.silence(now, sight.beats);
        let deadline = health
            .map(|health| if record.ready { health.deadline } else { health.deadline.max(boot) });
        if late {
            // Whoever is late itself cannot tell silence from its own absence.
            record.pulse.excuse(now);
        } else if deadline.is_some_and(|deadline| silent >= deadline) {
            return self.hung(now, worker, silent, actions);
        }
        let (age, ready) = (now.duration_since(record.started), record.ready);
        let reached = record.bounds.reached(age, sight);
        if let Some(cause) = reached.filter(|_| ready) {
            self.recycle(now, worker, seat, cause, actions);
        }
    }

    fn recycle(
        &mut self,
        now: Instant,
        worker: WorkerId,
        seat: Seat,
        cause: String,
        actions: &mut Vec<Action>,
    ) {
        let surge = self.policy.rollout.surge.max(1);
        if self.reload.is_some() || self.seats.being_replaced().count() >= surge {
            return;
        }
        let Some(place) = self.seats.get_mut(seat) else { return };
        if place.worker == Some(worker) && !place.is_awaiting() {
            place.due = Some(now);
            actions.push(Action::Tell(Decision::Recycle { worker, cause }));
        }
    }

    fn scale_by_load(
        &mut self,
        now: Instant,
        workers: &[(WorkerId, Sight)],
        waiting: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(rule) = self.policy.scale.clone() else { return };
        let worked = workers.iter().map(|(worker, sight)| (*worker, sight.busy_ns)).collect();
        let (before, earlier) = std::mem::replace(&mut self.worked, (now, worked));
        let elapsed = now.duration_since(before).as_nanos() as f64;
        let shares: Vec<f64> = workers
            .iter()
            .filter_map(|(worker, sight)| {
                let spent = sight.busy_ns.checked_sub(*earlier.get(worker)?)?;
                Some((spent as f64 / elapsed).min(1.0))
            })
            .collect();
        if shares.is_empty() || elapsed == 0.0 || self.reload.is_some() {
            return;
        }
        let utilization = shares.iter().sum::<f64>() / shares.len() as f64;
        let advised = self.trend.advise(now, &rule, self.seats.len(), utilization, waiting);
        self.scale(now, advised, actions);
    }
}
