//! The supervisor itself: it takes in what happened, then lets time pass, then fills its seats.
//!
//! Here is how workers come and fail; how they are ended is in `ends`, what is looked at and replaced
//! without a failure is in `changes`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Action, Decision, Ending, Exhausted, Happening, Policy, Restart, Seat,
    health::{Pulse, Rung},
    recycle::Bounds,
    restart::Window,
    rollout::Progress,
    scale::Trend,
    seats::{Place, Seats},
};
use crate::{dice::Dice, id::WorkerId};

/// How often ages, requests and memory are looked at.
pub(super) const RECYCLE_INTERVAL: Duration = Duration::from_secs(1);

const ENDED_EARLY: &str = "the new worker ended before it was ready";

/// How long to wait for room for another worker.
const NO_ROOM: Duration = Duration::from_secs(1);

/// Keeps the seats filled, and ends the workers in order.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(super) policy: Policy,
    pub(super) phase: Phase,
    pub(super) workers: BTreeMap<WorkerId, Record>,
    pub(super) seats: Seats,
    pub(super) failures: Window,
    pub(super) reload: Option<Progress>,
    pub(super) trend: Trend,
    /// When the workers are looked at next, if they are.
    pub(super) look: Option<Instant>,
    /// Whether the last look came too late to judge by.
    pub(super) late: bool,
    /// What each worker's loop had worked at the last look, and when that was.
    pub(super) worked: (Instant, BTreeMap<WorkerId, u64>),
    pub(super) dice: Dice,
    pub(super) ever_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Serving, unready, until then.
    Announced(Instant),
    Stopping,
    /// Everybody was killed.
    Killing,
}

/// What is known of a worker.
#[derive(Debug)]
pub(super) struct Record {
    /// Where it serves or is to serve; none once it leaves, and for those the program forked itself.
    pub(super) seat: Option<Seat>,
    pub(super) started: Instant,
    pub(super) ready: bool,
    pub(super) pulse: Pulse,
    pub(super) bounds: Bounds,
    pub(super) end: Option<End>,
    /// Why it was ended, if that says more than how it ended.
    pub(super) blame: Option<String>,
}

/// How far a worker was brought towards its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) rung: Rung,
    /// When the next step is due.
    pub(super) due: Instant,
    /// It does not react: steps are short, and one of them leaves a trace.
    pub(super) hung: bool,
    /// It was given more time because nobody looked when its time was over.
    pub(super) excused: bool,
}

impl End {
    pub(super) fn new(rung: Rung, due: Instant) -> Self {
        Self { rung, due, hung: false, excused: false }
    }
}

/// A worker that failed.
struct Failure {
    worker: WorkerId,
    seat: Seat,
    started: Instant,
    cause: String,
    /// With an error of its own: trying again may not help.
    refused: bool,
    code: Option<i32>,
}

impl Failure {
    /// The failure in an ending, if it is one.
    fn of(worker: WorkerId, seat: Seat, record: &Record, ending: Ending) -> Option<Self> {
        let (cause, refused, code) = match (record.blame.clone(), ending) {
            (Some(blame), _) => (blame, false, None),
            (None, Ending::Done) => return None,
            (None, Ending::Refused(cause)) => (cause, true, None),
            (None, Ending::Crashed(cause)) => (cause, false, None),
            (None, Ending::Code(code)) => (format!("code {code}"), false, Some(code)),
        };
        Some(Self { worker, seat, started: record.started, cause, refused, code })
    }

    /// Whether the worker said that it is not to be restarted.
    fn is_final(&self, restart: &Restart) -> bool {
        self.code.is_some() && self.code == restart.final_code
    }
}

impl Supervisor {
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        let mut seats = Seats::default();
        let workers =
            policy.scale.as_ref().map_or(policy.workers, |rule| rule.clamp(policy.workers));
        (0..workers).for_each(|_| seats.add(now));
        let mut supervisor = Self {
            phase: Phase::Running,
            workers: BTreeMap::new(),
            seats,
            failures: Window::default(),
            reload: None,
            trend: Trend::default(),
            look: None,
            late: false,
            worked: (now, BTreeMap::new()),
            dice: Dice::new(policy.seed),
            ever_ready: false,
            policy,
        };
        supervisor.look = supervisor.look_interval().map(|interval| now + interval);
        supervisor
    }

    /// Takes in what happened at `now` and appends what to do.
    pub(crate) fn handle(&mut self, now: Instant, happening: Happening, actions: &mut Vec<Action>) {
        match happening {
            Happening::Start => {}
            // Only here does time pass: of several things that happened together, all are heard first.
            Happening::Tick => self.pass_time(now, actions),
            Happening::Forked { worker, seat } => self.forked(now, worker, seat, actions),
            Happening::NotForked { seat } => self.not_forked(now, seat, actions),
            Happening::Ready { worker } => self.ready(now, worker, actions),
            Happening::Leaving { worker } => self.leaving(now, worker),
            Happening::Ended { worker, ending } => self.ended(now, worker, ending, actions),
            Happening::Killed { worker } => self.killed(now, worker),
            Happening::Seen { workers, waiting } => self.seen(now, &workers, waiting, actions),
            Happening::Scale(workers) => {
                let workers =
                    self.policy.scale.as_ref().map_or(workers, |rule| rule.clamp(workers));
                self.scale(now, workers, actions);
            }
            Happening::Reload => self.start_reload(now, actions),
            Happening::Stop => self.stop(now, actions),
        }
        self.advance_reload(now, actions);
        self.fill_seats(now, actions);
    }

    /// When time alone will change something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.over() {
            return None;
        }
        let due = self.seats.first_due().filter(|_| self.may_start_more());
        let announced = match self.phase {
            Phase::Announced(until) => Some(until),
            _ => None,
        };
        let look = self.look.filter(|_| self.phase == Phase::Running);
        let boots = self.workers.iter().filter_map(|(id, record)| self.boot_deadline(*id, record));
        let ends = self.workers.values().filter_map(|record| record.end.map(|end| end.due));
        due.into_iter().chain(announced).chain(look).chain(boots).chain(ends).min()
    }

    /// How many workers are kept running.
    pub(crate) fn target(&self) -> usize {
        self.seats.len()
    }

    /// Whether every worker is being replaced.
    pub(crate) fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// Whether the cluster is over: nobody runs and nobody will be started.
    pub(crate) fn over(&self) -> bool {
        let nobody_comes = self.seats.all().all(|(_, place)| place.due.is_none() && !place.asked);
        self.workers.is_empty() && nobody_comes
    }

    // Lives.

    fn forked(
        &mut self,
        now: Instant,
        worker: WorkerId,
        seat: Option<Seat>,
        actions: &mut Vec<Action>,
    ) {
        let place = seat.and_then(|seat| self.seats.get_mut(seat));
        let is_late = seat.is_some() && place.is_none();
        let seat = seat.filter(|_| place.is_some());
        place.into_iter().for_each(|place| place.seat(worker));
        if let (Some(seat), Some(progress)) = (seat, &mut self.reload) {
            progress.started(seat);
        }
        let (pulse, bounds) = (Pulse::new(now), self.policy.recycle.draw(&mut self.dice));
        let record =
            Record { seat, started: now, ready: false, pulse, bounds, end: None, blame: None };
        self.workers.insert(worker, record);
        match self.phase {
            // Its seat was taken away meanwhile.
            Phase::Running | Phase::Announced(_) if is_late => self.retire(now, worker, actions),
            Phase::Running | Phase::Announced(_) => {}
            Phase::Stopping => self.retire(now, worker, actions),
            Phase::Killing => self.kill(now, worker, actions),
        }
    }

    /// There was no room for the worker that was asked for: there may be later.
    fn not_forked(&mut self, now: Instant, seat: Seat, actions: &mut Vec<Action>) {
        let is_wanted = matches!(self.phase, Phase::Running | Phase::Announced(_));
        let Some(place) = self.seats.get_mut(seat) else { return };
        place.asked = false;
        place.due = is_wanted.then_some(now + NO_ROOM);
        if self.reload_concerns(seat) {
            self.fail_reload(now, "there is no room for another worker".into(), actions);
        }
    }

    fn ready(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(record) = self.workers.get_mut(&worker) else { return };
        record.ready = true;
        self.ever_ready = true;
        let Some(seat) = record.seat else { return };
        let predecessor = self.seats.get_mut(seat).and_then(|place| place.succeed(worker));
        if let Some(progress) = &mut self.reload {
            progress.done(seat);
        }
        if let Some(predecessor) = predecessor {
            self.retire(now, predecessor, actions);
        }
    }

    /// It gets as long as if it had been asked to leave.
    fn leaving(&mut self, now: Instant, worker: WorkerId) {
        let due = now + self.policy.shutdown.drain;
        if self.policy.restart.is_some()
            && let Some(record) = self.workers.get_mut(&worker)
        {
            record.end.get_or_insert(End::new(Rung::Asked, due));
        }
    }

    fn killed(&mut self, now: Instant, worker: WorkerId) {
        let due = now + self.policy.shutdown.kill;
        if let Some(record) = self.workers.get_mut(&worker)
            && record.end.is_none_or(|end| end.rung != Rung::Killed)
        {
            record.end = Some(End::new(Rung::Killed, due));
        }
    }

    fn ended(&mut self, now: Instant, worker: WorkerId, ending: Ending, actions: &mut Vec<Action>) {
        let Some(record) = self.workers.remove(&worker) else { return };
        let Some((seat, place)) = self.seat_of(&record) else { return };
        if place.is_succeeded(worker) {
            // Another is on its way already, and need not wait to take over.
            return place.leave(worker);
        }
        // Whoever was to take another's place and did not has failed, however it put it.
        let failed_to_succeed = place.successor == Some(worker) && record.blame.is_none();
        place.leave(worker);
        let ending = match ending {
            Ending::Done if failed_to_succeed => Ending::Refused(ENDED_EARLY.into()),
            ending => ending,
        };
        let Some(failure) = Failure::of(worker, seat, &record, ending) else {
            return self.done(now, seat, actions);
        };
        self.failed(now, failure, actions);
    }

    /// A worker's body returned: its seat stays empty, unless a successor is on its way.
    fn done(&mut self, now: Instant, seat: Seat, actions: &mut Vec<Action>) {
        if self.reload_concerns(seat) {
            self.fail_reload(now, ENDED_EARLY.into(), actions);
        }
        if self.seats.get(seat).is_some_and(Place::is_empty) {
            self.close_seat(seat);
        }
    }

    /// A worker shows no sign of life: it loses its seat now, whatever becomes of it.
    pub(super) fn hung(
        &mut self,
        now: Instant,
        worker: WorkerId,
        silent: Duration,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Tell(Decision::Hung { worker, silent }));
        let Some(record) = self.workers.remove(&worker) else { return };
        let ending = Ending::Crashed(format!("no sign of life for {} ms", silent.as_millis()));
        let seat = self.seat_of(&record).and_then(|(seat, place)| {
            let is_succeeded = place.is_succeeded(worker);
            place.leave(worker);
            (!is_succeeded).then_some(seat)
        });
        let failure = seat.and_then(|seat| Failure::of(worker, seat, &record, ending));
        self.workers.insert(worker, record);
        self.evict(now, worker, actions);
        if let Some(failure) = failure {
            self.failed(now, failure, actions);
        }
    }

    /// Another takes the place of a worker that failed, sooner or later or never.
    fn failed(&mut self, now: Instant, failure: Failure, actions: &mut Vec<Action>) {
        let Some(restart) = self.policy.restart.clone() else { return };
        if matches!(self.phase, Phase::Stopping | Phase::Killing) {
            return;
        }
        let reloading = self.reload_concerns(failure.seat);
        if reloading {
            self.fail_reload(now, failure.cause.clone(), actions);
        }
        let Some(place) = self.seats.get_mut(failure.seat) else { return };
        let lived = now.duration_since(failure.started);
        place.count_failure(lived, restart.healthy);
        let (failures, served) = (place.failures, place.worker.is_some());
        let too_many = place.window.overflows(now, restart.per_worker)
            | self.failures.overflows(now, restart.per_cluster);
        let hopeless = lived < restart.healthy && (failure.refused || !self.ever_ready);
        if hopeless && failures >= restart.attempts && !self.anybody_ready() {
            self.give_up(now, failure.cause, actions);
        } else if served && reloading {
            // Whoever wants to may reload again.
        } else if too_many || failure.is_final(&restart) {
            let stop = too_many && restart.exhausted == Exhausted::Stop;
            if served && !stop {
                self.keep(failure, actions);
            } else {
                self.let_go(now, failure, stop, actions);
            }
        } else {
            let delay = restart.delay(failures, &mut self.dice);
            self.start_again(now, failure, delay, actions);
        }
    }

    fn start_again(
        &mut self,
        now: Instant,
        failure: Failure,
        delay: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Failure { worker, seat, cause, .. } = failure;
        if let Some(place) = self.seats.get_mut(seat) {
            place.due = (!place.asked).then_some(now + delay);
            actions.push(Action::Tell(Decision::Restart { worker, cause, delay }));
        }
    }

    /// Nobody can take over from who serves in this seat: that one goes on, whatever it has done.
    fn keep(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        let Failure { worker, seat, cause, .. } = failure;
        actions.push(Action::Tell(Decision::NoRestart { worker, cause }));
        let serves = self.seats.get(seat).and_then(|place| place.worker);
        if let Some(record) = serves.and_then(|serves| self.workers.get_mut(&serves)) {
            record.bounds = Bounds::default();
        }
    }

    /// The seat of a worker that failed once too often, or for good, stays empty.
    fn let_go(&mut self, now: Instant, failure: Failure, stop: bool, actions: &mut Vec<Action>) {
        let is_final =
            self.policy.restart.as_ref().is_some_and(|restart| failure.is_final(restart));
        let Failure { worker, seat, cause, code, .. } = failure;
        actions.push(Action::Tell(Decision::NoRestart { worker, cause: cause.clone() }));
        self.close_seat(seat);
        if !stop && !self.seats.is_empty() {
            return;
        }
        actions.push(match (stop, code.filter(|_| is_final)) {
            (true, _) => Action::Exhausted(cause),
            (false, Some(code)) => Action::NobodyLeft(code),
            (false, None) => Action::GiveUp(cause),
        });
        self.drain_all(now, actions);
    }

    fn close_seat(&mut self, seat: Seat) {
        self.seats.remove(seat);
        if let Some(progress) = &mut self.reload {
            progress.forget(seat);
        }
    }

    fn give_up(&mut self, now: Instant, cause: String, actions: &mut Vec<Action>) {
        actions.push(Action::GiveUp(cause));
        self.drain_all(now, actions);
    }

    // Seats.

    fn seat_of(&mut self, record: &Record) -> Option<(Seat, &mut Place)> {
        let seat = record.seat?;
        Some((seat, self.seats.get_mut(seat)?))
    }

    fn fill_seats(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while self.may_start_more()
            && let Some(seat) = self.seats.take_due(now)
        {
            actions.push(Action::Fork(seat));
        }
    }

    fn may_start_more(&self) -> bool {
        let starting =
            self.workers.values().filter(|record| record.seat.is_some() && !record.ready);
        let most =
            self.policy.restart.as_ref().map_or(usize::MAX, |restart| restart.starts_at_once);
        starting.count() + self.seats.asked() < most
    }

    fn anybody_ready(&self) -> bool {
        self.workers.values().any(|record| record.ready && record.seat.is_some())
    }
}
