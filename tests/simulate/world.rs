//! A world without processes or threads: workers that boot, serve, hang, leave and die when it is their
//! time, and a supervisor that is told so.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    chance::Chance,
    id::WorkerId,
    supervise::{
        Action, Autoscale, Decision, Ending, Happening, Health, Intensity, Policy, Recycle,
        Restart, Rollout, Seat, Shutdown, Sight, Supervisor,
    },
};

/// A worker of this world.
struct Worker {
    seat: Option<Seat>,
    ready: bool,
    was_ready: bool,
    /// It was told to leave, by whichever means.
    told: bool,
    hung: bool,
    /// Not even SIGKILL ends it, as with a thread that is stuck.
    immortal: bool,
    beats: u64,
    requests: u64,
    /// What happens to it next by itself.
    next: Option<(Instant, Next)>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Ready,
    Gone,
    Fail,
}

pub struct World {
    chance: Chance,
    aloud: bool,
    /// Decisions that are still being carried out, one within the other.
    depth: usize,
    start: Instant,
    now: Instant,
    policy: Policy,
    supervisor: Supervisor,
    workers: BTreeMap<WorkerId, Worker>,
    last: u64,
    target: usize,
    stopping: bool,
    gave_up: bool,
    /// Nobody is to be started any more.
    closed: bool,
    /// Workers that were sent away for a good reason.
    excused: usize,
    /// When a seat may be filled again at the earliest.
    not_before: BTreeMap<Seat, Instant>,
    /// In a calm history nothing fails, and nobody leaves by itself.
    calm: bool,
    /// How many have served at the same time, as far as they are still wanted.
    established: usize,
    /// Restarts in a row, by seat.
    rows: BTreeMap<Seat, u32>,
    /// The seat and the start of every worker.
    born: BTreeMap<WorkerId, (Seat, Instant)>,
    /// Whose end or silence the supervisor hears of had served once.
    had_served: bool,
    /// Seats may have been given up, or workers failed that were not restarted: rows are shorter than they seem.
    rows_are_uncertain: bool,
}

impl World {
    pub fn new(mut chance: Chance, aloud: bool) -> Self {
        let start = Instant::now();
        let calm = chance.one_in(4);
        let policy = any_policy(&mut chance);
        let supervisor = Supervisor::new(policy.clone(), start);
        let target = policy.workers;
        let mut world = Self {
            chance,
            aloud,
            depth: 0,
            start,
            now: start,
            policy,
            supervisor,
            workers: BTreeMap::new(),
            last: 0,
            target,
            stopping: false,
            gave_up: false,
            closed: false,
            excused: 0,
            not_before: BTreeMap::new(),
            calm,
            established: 0,
            rows: BTreeMap::new(),
            born: BTreeMap::new(),
            had_served: false,
            rows_are_uncertain: false,
        };
        world.say(|world| format!("{:#?}", world.policy));
        world.tell(Happening::Start);
        world
    }

    /// Something happens, or time passes.
    pub fn step(&mut self) {
        match self.chance.below(20) {
            0 | 1 | 4 | 5 if self.calm => self.pass_time(),
            0 => self.crash(),
            1 => self.hang(),
            2 if self.chance.one_in(2) => self.tell(Happening::Reload),
            3 if self.chance.one_in(2) => self.scale(),
            4 if self.chance.one_in(10) => self.jump(),
            5 => self.leave(),
            6 if self.chance.one_in(30) => self.ask_to_stop(),
            _ => self.pass_time(),
        }
    }

    /// A stop ends, whatever was going on.
    pub fn stop(&mut self) {
        if !self.stopping {
            self.ask_to_stop();
        }
        let Shutdown { delay, drain, close, kill, .. } = self.policy.shutdown;
        let patience = self.policy.health.unwrap_or_default().patience;
        let end = self.now + delay + drain + close + kill + patience * 3 + Duration::from_secs(1);
        while !self.supervisor.over() {
            assert!(self.now < end, "the stop does not end");
            self.pass_time();
        }
        for worker in self.workers.values() {
            assert!(worker.immortal, "a worker was forgotten");
        }
        assert_eq!(self.supervisor.deadline(), None, "nothing is left to wait for");
    }

    // What happens.

    fn crash(&mut self) {
        if let Some(worker) = self.anybody(|worker| !worker.immortal) {
            let ending = match self.chance.below(8) {
                0 => Ending::Done,
                1 => Ending::Refused("its own error".into()),
                2 => Ending::Code(self.chance.below(2) as i32 * 78),
                _ => Ending::Crashed("signal 11".into()),
            };
            self.end(worker, ending);
        }
    }

    fn hang(&mut self) {
        let immortal = self.chance.one_in(4);
        if let Some(id) = self.anybody(|worker| !worker.hung && !worker.told)
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.hung = true;
            worker.immortal = immortal;
            worker.next = None;
            self.say(|_| format!("{id} hangs (immortal: {immortal})"));
        }
    }

    fn leave(&mut self) {
        let Some(id) = self.anybody(|worker| worker.ready && !worker.told && !worker.hung) else {
            return;
        };
        self.will_be_gone(id);
        self.tell(Happening::Leaving { worker: id });
    }

    fn scale(&mut self) {
        if self.stopping || self.gave_up {
            return;
        }
        self.target = 1 + self.chance.below(6) as usize;
        self.tell(Happening::Scale(self.target));
    }

    /// The supervisor's own thread did not run for a while; the workers did.
    fn jump(&mut self) {
        self.now += Duration::from_millis(self.chance.below(120_000));
        self.say(|_| "nobody looked for a while".into());
        // What happened meanwhile is heard of before time is looked at.
        while let Some((_, id)) = self.next_of_all().filter(|(at, _)| *at <= self.now) {
            self.go_on(id);
        }
        self.tell(Happening::Tick);
    }

    fn ask_to_stop(&mut self) {
        self.stopping = true;
        self.tell(Happening::Stop);
    }

    /// To whatever comes next: a worker's own next step, or the supervisor's deadline.
    fn pass_time(&mut self) {
        let own = self.next_of_all();
        let deadline = self.supervisor.deadline();
        match own {
            Some((at, id)) if deadline.is_none_or(|deadline| at <= deadline) => {
                self.now = self.now.max(at);
                self.go_on(id);
            }
            _ => {
                let next = deadline.unwrap_or(self.now + Duration::from_secs(1));
                self.now = self.now.max(next);
                self.tell(Happening::Tick);
            }
        }
    }

    fn next_of_all(&self) -> Option<(Instant, WorkerId)> {
        self.workers.iter().filter_map(|(id, worker)| Some((worker.next?.0, *id))).min()
    }

    fn go_on(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        match worker.next.take().unwrap().1 {
            Next::Ready => {
                worker.ready = true;
                worker.was_ready = true;
                self.tell(Happening::Ready { worker: id });
            }
            Next::Gone => self.end(id, Ending::Done),
            Next::Fail => self.end(id, Ending::Crashed("while it booted".into())),
        }
    }

    fn end(&mut self, id: WorkerId, ending: Ending) {
        // Its seat may be given up.
        self.rows_are_uncertain |= matches!(ending, Ending::Done);
        self.had_served = self.workers.remove(&id).unwrap().was_ready;
        self.tell(Happening::Ended { worker: id, ending });
    }

    fn anybody(&mut self, which: impl Fn(&Worker) -> bool) -> Option<WorkerId> {
        let ids: Vec<_> =
            self.workers.iter().filter(|(_, it)| which(it)).map(|(id, _)| *id).collect();
        let count = ids.len() as u64;
        (count > 0).then(|| ids[self.chance.below(count) as usize])
    }

    // The supervisor and its actions.

    fn tell(&mut self, happening: Happening) {
        self.say(|_| format!("<- {happening:?}"));
        // Whoever has just got ready takes somebody's place.
        let is_tick = matches!(happening, Happening::Tick);
        let before = self.serving() - usize::from(matches!(happening, Happening::Ready { .. }));
        let may_lose = self.may_lose(&happening);
        let excused = self.excused;
        let mut actions = Vec::new();
        self.supervisor.handle(self.now, happening, &mut actions);
        self.depth += 1;
        actions.into_iter().for_each(|action| self.act(action));
        self.depth -= 1;
        if !may_lose && !self.stopping && !self.gave_up {
            let excused = self.excused - excused + self.policy.rollout.unavailable;
            let after = self.serving();
            assert!(
                after + excused >= before,
                "workers that could stay were sent away: {before} -> {after}, {excused} excused"
            );
        }
        self.check();
        self.check_established();
        if let Some(deadline) = self.supervisor.deadline().filter(|_| is_tick) {
            assert!(deadline > self.now, "the supervisor would spin");
        }
    }

    /// Whether fewer may serve afterwards.
    fn may_lose(&self, happening: &Happening) -> bool {
        matches!(happening, Happening::Stop | Happening::Scale(_) | Happening::Leaving { .. })
    }

    fn act(&mut self, action: Action) {
        self.say(|_| format!("-> {action:?}"));
        match action {
            Action::Fork(seat) => self.fork(seat),
            Action::Look => self.look(),
            Action::Disconnect(worker) | Action::Close(worker) => self.will_be_gone(worker),
            Action::Abort(worker) | Action::Kill(worker) => self.kill(worker),
            Action::Abandon(worker) => {
                let abandoned = self.workers.remove(&worker).expect("an abandoned worker is known");
                assert!(abandoned.immortal, "{worker} was abandoned and would have ended");
            }
            Action::GiveUp(_) | Action::NobodyLeft(_) | Action::Exhausted(_) => self.gave_up = true,
            Action::StopAccepting => self.closed = true,
            Action::Tell(Decision::Hung { worker, .. }) => {
                self.excused += 1;
                self.had_served = self.workers[&worker].was_ready;
            }
            Action::Tell(Decision::Scale { from, to }) => self.scaled(from, to),
            Action::Tell(Decision::Restart { worker, delay, .. }) => self.restarts(worker, delay),
            Action::Tell(Decision::Reload) => self.forget_retries(),
            Action::Tell(Decision::NoRestart { .. }) => self.rows_are_uncertain = true,
            Action::Tell(Decision::ReloadFailed { cause }) => {
                self.rows_are_uncertain = true;
                let by_an_old_one = self.had_served && !cause.contains("no room");
                assert!(!by_an_old_one, "an old worker broke the reload off: {cause}");
            }
            Action::Unready | Action::Tell(_) => {}
        }
    }

    fn scaled(&mut self, from: usize, to: usize) {
        self.excused += from.saturating_sub(to);
        self.rows_are_uncertain |= to < from;
        // Those that are still to come have not served.
        self.established = self.established.min(to);
    }

    /// Somebody wants new workers now; whoever serves meanwhile is not failing.
    fn forget_retries(&mut self) {
        let serving = self.workers.values().filter(|worker| worker.ready && !worker.told);
        let served: Vec<_> = serving.filter_map(|worker| worker.seat).collect();
        self.not_before.retain(|seat, _| !served.contains(seat));
    }

    /// A failed worker is to be replaced after this delay, which grows with the row of its seat.
    fn restarts(&mut self, worker: WorkerId, delay: Duration) {
        let Some(restart) = &self.policy.restart else { panic!("restarts are off") };
        let (seat, started) = self.born[&worker];
        let row = self.rows.entry(seat).or_default();
        let was_healthy = self.now.duration_since(started) >= restart.healthy;
        *row = if was_healthy { 1 } else { *row + 1 };
        let doubled = restart.first_delay * 2_u32.saturating_pow(row.saturating_sub(2).min(20));
        let least = if *row < 2 { Duration::ZERO } else { doubled.min(restart.longest_delay) };
        assert!(delay >= least || self.rows_are_uncertain, "{delay:?} instead of {least:?}");
        let most = restart.longest_delay.mul_f64(1.0 + restart.jitter);
        assert!(delay <= most, "{delay:?}, {most:?} is the most");
        self.not_before.insert(seat, self.now + delay);
    }

    fn fork(&mut self, seat: Seat) {
        assert!(!self.closed, "a worker is started during a stop");
        if let Some(earliest) = self.not_before.remove(&seat) {
            let early = self.now < earliest && !self.rows_are_uncertain;
            assert!(!early, "a restart came too early");
        }
        if self.chance.one_in(200) && !self.calm {
            return self.tell(Happening::NotForked { seat });
        }
        self.last += 1;
        let id = WorkerId::new(self.last);
        let longest = if self.chance.one_in(5) { 90_000 } else { 100 };
        let boot = Duration::from_millis(self.chance.below(longest));
        let next = if self.chance.one_in(10) && !self.calm { Next::Fail } else { Next::Ready };
        let worker = Worker {
            seat: Some(seat),
            ready: false,
            was_ready: false,
            told: false,
            hung: false,
            immortal: false,
            beats: 0,
            requests: 0,
            next: Some((self.now + boot, next)),
        };
        self.workers.insert(id, worker);
        self.born.insert(id, (seat, self.now));
        self.tell(Happening::Forked { worker: id, seat: Some(seat) });
    }

    fn look(&mut self) {
        let interval = self.chance.below(50_000_000);
        let sights = self.workers.iter_mut().map(|(id, worker)| {
            worker.beats += u64::from(!worker.hung);
            worker.requests += 10;
            let busy_ns = worker.beats * interval;
            let memory = Some(worker.beats << 10);
            (*id, Sight { beats: worker.beats, requests: worker.requests, memory, busy_ns })
        });
        let workers = sights.collect();
        let waiting = self.chance.one_in(20);
        self.tell(Happening::Seen { workers, waiting });
    }

    fn will_be_gone(&mut self, id: WorkerId) {
        let drain = Duration::from_millis(self.chance.below(20_000));
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.told = true;
            worker.ready = false;
            if !worker.hung {
                worker.next.get_or_insert((self.now + drain, Next::Gone));
                worker.next = worker.next.map(|(at, _)| (at, Next::Gone));
            }
        }
    }

    fn kill(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.told = true;
            worker.ready = false;
            worker.next = (!worker.immortal).then_some((self.now, Next::Gone));
        }
    }

    // What must hold.

    /// Workers that can serve and were not told to leave.
    fn serving(&self) -> usize {
        self.workers.values().filter(|worker| worker.ready && !worker.told).count()
    }

    fn check(&self) {
        let staying = self.workers.values().filter(|worker| !worker.told && !worker.hung).count();
        let surge = self.policy.rollout.surge.max(1);
        let most = self.most() + surge;
        assert!(staying <= most, "{staying} workers, {most} are the most");
        let wanted = self.supervisor.target() + surge;
        let all_is_done = self.depth == 0 && !self.stopping && !self.gave_up;
        assert!(staying <= wanted || !all_is_done, "{staying} workers, {wanted} are wanted");
        if let Some(restart) = &self.policy.restart {
            let booting =
                self.workers.values().filter(|it| !it.ready && !it.told && !it.hung).count();
            assert!(booting <= restart.starts_at_once, "{booting} workers start at the same time");
        }
    }

    /// Where nothing fails, no more are missing than may be.
    fn check_established(&mut self) {
        let serving = self.serving();
        if self.stopping || self.gave_up || !self.calm {
            return;
        }
        // A seat that failed too often is given up.
        let target = self.supervisor.target();
        self.established = self.established.max(serving).min(target);
        let fewest = self.established.saturating_sub(self.policy.rollout.unavailable);
        assert!(serving >= fewest, "{serving} serve, {fewest} could");
    }

    fn most(&self) -> usize {
        let scale = self.policy.scale.as_ref().map_or(0, |scale| scale.max);
        self.target.max(scale)
    }

    fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.aloud {
            println!("{:>9} ms  {}", self.now.duration_since(self.start).as_millis(), what(self));
        }
    }
}

/// Any policy a user could choose.
fn any_policy(chance: &mut Chance) -> Policy {
    let restart = Restart {
        starts_at_once: 1 + chance.below(8) as usize,
        per_worker: chance.one_in(3).then(|| Intensity {
            failures: 1 + chance.below(5) as u32,
            within: Duration::from_secs(60),
        }),
        per_cluster: chance
            .one_in(3)
            .then_some(Intensity { failures: 5, within: Duration::from_secs(30) }),
        ..Restart::default()
    };
    let recycle = Recycle {
        requests: chance.one_in(3).then(|| 20 + chance.below(100)),
        memory: chance.one_in(3).then(|| (5 + chance.below(50)) << 10),
        age: chance.one_in(3).then(|| Duration::from_secs(1 + chance.below(60))),
        jitter: 0.2,
    };
    let surge = chance.below(3) as usize;
    let unavailable = if surge == 0 { 1 } else { chance.below(2) as usize };
    let rollout = Rollout { surge, unavailable };
    let delay = Duration::from_secs(chance.below(2) * 5);
    let shutdown = Shutdown { delay, ..Shutdown::default() };
    let workers = 1 + chance.below(5) as usize;
    Policy {
        workers,
        restart: Some(restart),
        boot_timeout: chance.one_in(2).then(|| Duration::from_secs(1 + chance.below(30))),
        health: chance.one_in(2).then(Health::default),
        recycle,
        scale: chance.one_in(4).then(|| Autoscale::between(1, 1 + chance.below(6) as usize)),
        rollout,
        shutdown,
        seed: chance.below(u64::MAX),
    }
}
