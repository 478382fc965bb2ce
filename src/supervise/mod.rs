//! What to do when a worker ends, when a stop is asked for, when time passes: pure decisions.
//!
//! [`Supervisor::handle`] takes the time and what happened and appends what to do. It reads no
//! clock, starts nothing and touches no worker; the primary carries the actions out. One slot is
//! one place to keep filled.

mod restart;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub(crate) use restart::Restart;

use crate::id::{Slot, WorkerId};

/// How a supervised cluster behaves.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How many slots to keep filled.
    pub(crate) workers: usize,
    /// When to start a replacement; never if absent.
    pub(crate) restart: Option<Restart>,
    /// How long workers may drain before they are killed.
    pub(crate) grace: Duration,
}

/// How a worker came to its end, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its body returned without an error, or it was asked to leave.
    Done,
    /// Its body returned an error, or it could not be started: trying again may not help.
    Refused(String),
    /// Anything else.
    Crashed(String),
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// The cluster starts.
    Start,
    /// A worker was started in this slot.
    Forked { worker: WorkerId, slot: Slot },
    /// A worker listens: it is ready.
    Ready { worker: WorkerId },
    /// A worker is gone.
    Ended { worker: WorkerId, ending: Ending },
    /// A worker was told to end at once.
    Killed { worker: WorkerId },
    /// A graceful stop was asked for; the second time means at once.
    Stop,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a worker in this slot.
    Fork(Slot),
    /// Ask this worker to drain and leave.
    Disconnect(WorkerId),
    /// End this worker now.
    Kill(WorkerId),
    /// Leave this worker behind: it did not react to being killed.
    Abandon(WorkerId),
    /// Nothing can serve: end the cluster with this cause.
    GiveUp(String),
}

/// How long a killed worker may take to be gone before it is left behind.
const KILL_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Record {
    slot: Slot,
    started: Instant,
    ready: bool,
    killed: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Draining until the deadline.
    Stopping(Instant),
}

/// Keeps the slots filled, and ends them in order.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    phase: Phase,
    workers: BTreeMap<WorkerId, Record>,
    /// Rapid failures in a row, by slot.
    failures: BTreeMap<Slot, u32>,
    /// Replacements to start, by time.
    due: BTreeSet<(Instant, Slot)>,
    ever_ready: bool,
}

impl Supervisor {
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        let due = (0..policy.workers).map(|slot| (now, Slot(slot))).collect();
        Self {
            policy,
            phase: Phase::Running,
            workers: BTreeMap::new(),
            failures: BTreeMap::new(),
            due,
            ever_ready: false,
        }
    }

    /// Takes in what happened at `now` and appends what to do.
    pub(crate) fn handle(&mut self, now: Instant, happening: Happening, actions: &mut Vec<Action>) {
        match happening {
            Happening::Start | Happening::Tick => {}
            Happening::Forked { worker, slot } => {
                self.workers
                    .insert(worker, Record { slot, started: now, ready: false, killed: None });
            }
            Happening::Ready { worker } => self.ready(worker),
            Happening::Ended { worker, ending } => self.ended(now, worker, ending, actions),
            Happening::Killed { worker } => self.killed(now, worker),
            Happening::Stop => self.stop(now, actions),
        }
        self.pass_time(now, actions);
    }

    /// When time alone will change something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = self.due.first().map(|(time, _)| *time);
        let grace = match self.phase {
            Phase::Stopping(deadline)
                if self.workers.values().any(|record| record.killed.is_none()) =>
            {
                Some(deadline)
            }
            _ => None,
        };
        let kills = self
            .workers
            .values()
            .filter_map(|record| record.killed.map(|at| at + KILL_GRACE))
            .min();
        due.into_iter().chain(grace).chain(kills).min()
    }

    /// Whether the cluster is over: nobody runs and nobody will be started.
    pub(crate) fn over(&self) -> bool {
        self.workers.is_empty() && self.due.is_empty()
    }

    /// Whether a stop was asked for.
    pub(crate) fn stopping(&self) -> bool {
        self.phase != Phase::Running
    }

    fn ready(&mut self, worker: WorkerId) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.ready = true;
            self.ever_ready = true;
        }
    }

    fn killed(&mut self, now: Instant, worker: WorkerId) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.killed.get_or_insert(now);
        }
    }

    fn ended(&mut self, now: Instant, worker: WorkerId, ending: Ending, actions: &mut Vec<Action>) {
        let Some(record) = self.workers.remove(&worker) else { return };
        let (cause, refused) = match ending {
            Ending::Done => return,
            Ending::Refused(cause) => (cause, true),
            Ending::Crashed(cause) => (cause, false),
        };
        if self.stopping() {
            return;
        }
        let Some(restart) = &self.policy.restart else { return };
        let healthy = now.duration_since(record.started) >= restart.healthy;
        let failures = self.failures.entry(record.slot).or_default();
        *failures = if healthy { 1 } else { *failures + 1 };
        let hopeless = refused || !self.ever_ready;
        let nobody = self.workers.values().all(|record| !record.ready);
        if !healthy && hopeless && nobody && *failures >= restart.attempts {
            return self.give_up(now, cause, actions);
        }
        self.due.insert((now + restart.delay(*failures), record.slot));
    }

    /// Nobody serves, and more tries would only repeat the same failure.
    fn give_up(&mut self, now: Instant, cause: String, actions: &mut Vec<Action>) {
        actions.push(Action::GiveUp(cause));
        self.stop(now, actions);
    }

    fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.stopping() {
            return self.kill_all(now, actions);
        }
        self.phase = Phase::Stopping(now + self.policy.grace);
        self.due.clear();
        actions.extend(self.workers.keys().map(|worker| Action::Disconnect(*worker)));
    }

    fn kill_all(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (worker, record) in
            self.workers.iter_mut().filter(|(_, record)| record.killed.is_none())
        {
            record.killed = Some(now);
            actions.push(Action::Kill(*worker));
        }
    }

    fn pass_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while let Some((time, slot)) = self.due.first().copied().filter(|(time, _)| *time <= now) {
            self.due.remove(&(time, slot));
            actions.push(Action::Fork(slot));
        }
        if matches!(self.phase, Phase::Stopping(deadline) if deadline <= now) {
            self.kill_all(now, actions);
        }
        self.abandon(now, actions);
    }

    fn abandon(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let unkillable = |record: &Record| record.killed.is_some_and(|at| at + KILL_GRACE <= now);
        let lost: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, record)| unkillable(record))
            .map(|(id, _)| *id)
            .collect();
        for worker in lost {
            self.workers.remove(&worker);
            actions.push(Action::Abandon(worker));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Bench {
        supervisor: Supervisor,
        now: Instant,
        next: u64,
    }

    impl Bench {
        fn new(workers: usize) -> Self {
            let now = crate::clock::now();
            let policy = Policy {
                workers,
                restart: Some(Restart::default()),
                grace: Duration::from_secs(10),
            };
            Self { supervisor: Supervisor::new(policy, now), now, next: 0 }
        }

        fn tell(&mut self, happening: Happening) -> Vec<Action> {
            let mut actions = Vec::new();
            self.supervisor.handle(self.now, happening, &mut actions);
            actions
        }

        fn pass(&mut self, millis: u64) -> Vec<Action> {
            self.now += Duration::from_millis(millis);
            self.tell(Happening::Tick)
        }

        fn fork(&mut self, slot: usize) -> WorkerId {
            self.next += 1;
            let worker = WorkerId::new(self.next);
            self.tell(Happening::Forked { worker, slot: Slot(slot) });
            worker
        }

        fn fail(&mut self, worker: WorkerId) -> Vec<Action> {
            self.tell(Happening::Ended { worker, ending: Ending::Crashed("broken".into()) })
        }
    }

    #[test]
    fn every_slot_is_filled_at_start_and_again_after_a_crash() {
        let mut bench = Bench::new(2);
        assert_eq!(bench.tell(Happening::Start), [Action::Fork(Slot(0)), Action::Fork(Slot(1))]);
        let first = bench.fork(0);
        bench.fork(1);
        bench.tell(Happening::Ready { worker: first });
        assert_eq!(bench.fail(first), [Action::Fork(Slot(0))]);
    }

    #[test]
    fn a_crash_loop_is_slowed_up_to_the_cap_and_forgotten_after_a_healthy_time() {
        let mut bench = Bench::new(1);
        bench.tell(Happening::Start);
        let mut delays = Vec::new();
        for _ in 0..12 {
            let worker = bench.fork(0);
            bench.tell(Happening::Ready { worker });
            let before = bench.now;
            if bench.fail(worker).is_empty() {
                bench.now = bench.supervisor.deadline().unwrap();
                assert_eq!(bench.tell(Happening::Tick), [Action::Fork(Slot(0))]);
            }
            delays.push(bench.now.duration_since(before).as_millis());
        }
        assert_eq!(
            delays,
            [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]
        );
        let worker = bench.fork(0);
        bench.tell(Happening::Ready { worker });
        bench.pass(60_000);
        assert_eq!(bench.fail(worker), [Action::Fork(Slot(0))]);
    }

    #[test]
    fn a_start_that_never_succeeds_ends_with_its_own_cause() {
        let mut bench = Bench::new(1);
        bench.tell(Happening::Start);
        let mut actions = Vec::new();
        for _ in 0..Restart::default().attempts {
            let worker = bench.fork(0);
            actions = bench.fail(worker);
            bench.pass(60_000);
        }
        assert_eq!(actions, [Action::GiveUp("broken".into())]);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn a_body_that_keeps_refusing_ends_the_cluster_unless_another_worker_serves() {
        let refuse = |bench: &mut Bench, slot| {
            let mut actions = Vec::new();
            for _ in 0..Restart::default().attempts {
                let worker = bench.fork(slot);
                bench.tell(Happening::Ready { worker });
                let ending = Ending::Refused("taken".into());
                actions.extend(bench.tell(Happening::Ended { worker, ending }));
                bench.now += Duration::from_secs(1);
            }
            actions
        };
        let mut bench = Bench::new(2);
        bench.tell(Happening::Start);
        let serving = bench.fork(0);
        bench.tell(Happening::Ready { worker: serving });
        let gives_up = Action::GiveUp("taken".into());
        assert!(!refuse(&mut bench, 1).contains(&gives_up));
        bench.fail(serving);
        assert!(refuse(&mut bench, 1).contains(&gives_up));
    }

    #[test]
    fn a_stop_drains_then_kills_then_abandons() {
        let mut bench = Bench::new(1);
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        assert_eq!(bench.tell(Happening::Stop), [Action::Disconnect(worker)]);
        assert_eq!(bench.pass(9_999), []);
        assert_eq!(bench.pass(1), [Action::Kill(worker)]);
        assert_eq!(bench.pass(999), []);
        assert_eq!(bench.pass(1), [Action::Abandon(worker)]);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn a_second_stop_kills_at_once_and_nothing_is_restarted() {
        let mut bench = Bench::new(1);
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        bench.tell(Happening::Stop);
        assert_eq!(bench.tell(Happening::Stop), [Action::Kill(worker)]);
        assert_eq!(bench.fail(worker), []);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn a_body_that_returned_is_not_replaced() {
        let mut bench = Bench::new(1);
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        assert_eq!(bench.tell(Happening::Ended { worker, ending: Ending::Done }), []);
        assert!(bench.supervisor.over());
    }
}
