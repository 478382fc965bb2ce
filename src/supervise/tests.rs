use std::time::{Duration, Instant};

use super::*;

struct Bench {
    supervisor: Supervisor,
    now: Instant,
    next: u64,
    decisions: Vec<Decision>,
}

fn policy(workers: usize) -> Policy {
    let restart = Restart { jitter: 0.0, ..Restart::default() };
    Policy { workers, restart: Some(restart), ..Policy::default() }
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let now = crate::clock::now();
        let supervisor = Supervisor::new(policy, now);
        Self { supervisor, now, next: 0, decisions: Vec::new() }
    }

    /// What is to be done; what is only to be told is kept aside.
    fn tell(&mut self, happening: Happening) -> Vec<Action> {
        let mut actions = Vec::new();
        self.supervisor.handle(self.now, happening, &mut actions);
        let mut done = Vec::new();
        for action in actions {
            match action {
                Action::Tell(decision) => self.decisions.push(decision),
                action => done.push(action),
            }
        }
        done
    }

    fn pass(&mut self, millis: u64) -> Vec<Action> {
        self.now += Duration::from_millis(millis);
        self.tell(Happening::Tick)
    }

    fn fork(&mut self, seat: usize) -> WorkerId {
        self.next += 1;
        let worker = WorkerId::new(self.next);
        self.tell(Happening::Forked { worker, seat: Some(Seat(seat)) });
        worker
    }

    fn ready(&mut self, worker: WorkerId) -> Vec<Action> {
        self.tell(Happening::Ready { worker })
    }

    /// A worker in each of the first seats, ready.
    fn serving(&mut self, seats: usize) -> Vec<WorkerId> {
        self.tell(Happening::Start);
        let workers: Vec<_> = (0..seats).map(|seat| self.fork(seat)).collect();
        workers.iter().for_each(|worker| drop(self.ready(*worker)));
        workers
    }

    fn end(&mut self, worker: WorkerId, ending: Ending) -> Vec<Action> {
        self.tell(Happening::Ended { worker, ending })
    }

    fn fail(&mut self, worker: WorkerId) -> Vec<Action> {
        self.end(worker, Ending::Crashed("broken".into()))
    }

    fn see(&mut self, sights: &[(WorkerId, Sight)]) -> Vec<Action> {
        self.tell(Happening::Seen { workers: sights.to_vec(), waiting: false })
    }
}

fn fork(seat: usize) -> Action {
    Action::Fork(Seat(seat))
}

mod restarts {
    use super::*;

    #[test]
    fn every_seat_is_filled_at_start_and_again_after_a_crash() {
        let mut bench = Bench::new(policy(2));
        assert_eq!(bench.tell(Happening::Start), [fork(0), fork(1)]);
        let first = bench.fork(0);
        bench.fork(1);
        bench.ready(first);
        assert_eq!(bench.fail(first), [fork(0)]);
    }

    #[test]
    fn a_crash_loop_is_slowed_up_to_the_cap_and_forgotten_after_a_healthy_time() {
        let mut bench = Bench::new(policy(1));
        bench.tell(Happening::Start);
        let mut delays = Vec::new();
        for _ in 0..12 {
            let worker = bench.fork(0);
            bench.ready(worker);
            let before = bench.now;
            if bench.fail(worker).is_empty() {
                bench.now = bench.supervisor.deadline().unwrap();
                assert_eq!(bench.tell(Happening::Tick), [fork(0)]);
            }
            delays.push(bench.now.duration_since(before).as_millis());
        }
        assert_eq!(
            delays,
            [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]
        );
        let worker = bench.fork(0);
        bench.ready(worker);
        bench.pass(60_000);
        assert_eq!(bench.fail(worker), [fork(0)]);
    }

    #[test]
    fn jitter_makes_a_delay_longer_by_its_share_at_most() {
        let restart = Restart { jitter: 0.5, ..Restart::default() };
        let mut dice = crate::dice::Dice::new(7);
        let delays: Vec<_> = (0..100).map(|_| restart.delay(3, &mut dice).as_millis()).collect();
        assert!(delays.iter().all(|delay| (200..=300).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay > 250) && delays.iter().any(|delay| *delay < 250));
    }

    #[test]
    fn a_start_that_never_succeeds_ends_with_its_own_cause() {
        let mut bench = Bench::new(policy(1));
        bench.tell(Happening::Start);
        let mut actions = Vec::new();
        for _ in 0..Restart::default().attempts {
            let worker = bench.fork(0);
            actions = bench.fail(worker);
            bench.pass(60_000);
        }
        assert_eq!(actions, [Action::GiveUp("broken".into()), Action::StopAccepting]);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn a_body_that_keeps_refusing_ends_the_cluster_unless_another_worker_serves() {
        let refuse = |bench: &mut Bench, seat| {
            let mut actions = Vec::new();
            for _ in 0..Restart::default().attempts {
                let worker = bench.fork(seat);
                bench.ready(worker);
                actions.extend(bench.end(worker, Ending::Refused("taken".into())));
                actions.extend(bench.pass(1000));
            }
            actions
        };
        let mut bench = Bench::new(policy(2));
        bench.tell(Happening::Start);
        let serving = bench.fork(0);
        bench.ready(serving);
        let gives_up = Action::GiveUp("taken".into());
        assert!(!refuse(&mut bench, 1).contains(&gives_up));
        bench.fail(serving);
        assert!(refuse(&mut bench, 1).contains(&gives_up));
    }

    #[test]
    fn the_final_code_is_not_answered_with_a_restart() {
        let mut bench = Bench::new(policy(2));
        let workers = bench.serving(2);
        assert_eq!(bench.end(workers[0], Ending::Code(78)), []);
        assert!(matches!(&bench.decisions[..], [Decision::NoRestart { .. }]));
        assert_eq!(
            bench.end(workers[1], Ending::Code(78)),
            [Action::NobodyLeft(78), Action::StopAccepting]
        );
    }

    #[test]
    fn too_many_failures_in_the_window_close_the_seat_or_the_cluster() {
        for exhausted in [Exhausted::KeepRest, Exhausted::Stop] {
            let intensity = Intensity { failures: 2, within: Duration::from_secs(60) };
            let mut restart = policy(2).restart.unwrap();
            restart.per_worker = Some(intensity);
            restart.exhausted = exhausted;
            let mut bench = Bench::new(Policy { restart: Some(restart), ..policy(2) });
            bench.serving(2);
            let mut worker = WorkerId::new(1);
            for _ in 0..2 {
                bench.fail(worker);
                bench.pass(1000);
                worker = bench.fork(0);
                bench.ready(worker);
            }
            let actions = bench.fail(worker);
            let gave_up = actions.iter().any(|action| matches!(action, Action::Exhausted(_)));
            assert_eq!(gave_up, exhausted == Exhausted::Stop, "{actions:?}");
            assert!(!actions.contains(&fork(0)));
        }
    }

    #[test]
    fn only_so_many_start_at_the_same_time() {
        let mut restart = policy(4).restart.unwrap();
        restart.starts_at_once = 2;
        let mut bench = Bench::new(Policy { restart: Some(restart), ..policy(4) });
        assert_eq!(bench.tell(Happening::Start), [fork(0), fork(1)]);
        let (first, second) = (bench.fork(0), bench.fork(1));
        assert_eq!(bench.ready(first), [fork(2)]);
        bench.fork(2);
        assert_eq!(bench.ready(second), [fork(3)]);
    }

    #[test]
    fn a_body_that_returned_is_not_replaced() {
        let mut bench = Bench::new(policy(1));
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        assert_eq!(bench.end(worker, Ending::Done), []);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn who_is_not_ready_in_time_is_killed_and_replaced() {
        let boot = Duration::from_secs(5);
        let mut bench = Bench::new(Policy { boot_timeout: Some(boot), ..policy(1) });
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        assert_eq!(bench.pass(4_999), []);
        assert_eq!(bench.pass(1), [Action::Kill(worker)]);
        assert_eq!(bench.end(worker, Ending::Crashed("signal 9".into())), [fork(0)]);
        let cause = |decision: &Decision| match decision {
            Decision::Restart { cause, .. } => Some(cause.clone()),
            _ => None,
        };
        let causes: Vec<_> = bench.decisions.iter().filter_map(cause).collect();
        assert_eq!(causes, ["it was not ready after 5000 ms"]);
    }
}

mod stops {
    use super::*;

    #[test]
    fn a_stop_drains_then_closes_then_kills_then_abandons() {
        let mut bench = Bench::new(policy(1));
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        let begun = bench.tell(Happening::Stop);
        assert_eq!(begun, [Action::Unready, Action::StopAccepting, Action::Disconnect(worker)]);
        assert_eq!(bench.pass(9_999), []);
        assert_eq!(bench.pass(1), [Action::Close(worker)]);
        assert_eq!(bench.pass(1_000), [Action::Kill(worker)]);
        assert_eq!(bench.pass(999), []);
        assert_eq!(bench.pass(1), [Action::Abandon(worker)]);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn a_second_stop_kills_at_once_and_nothing_is_restarted() {
        let mut bench = Bench::new(policy(1));
        bench.tell(Happening::Start);
        let worker = bench.fork(0);
        bench.tell(Happening::Stop);
        assert_eq!(bench.tell(Happening::Stop), [Action::Kill(worker)]);
        assert_eq!(bench.fail(worker), []);
        assert!(bench.supervisor.over());
    }

    #[test]
    fn a_delay_lets_load_balancers_look_away_first() {
        let shutdown = Shutdown { delay: Duration::from_secs(5), ..Shutdown::default() };
        let mut bench = Bench::new(Policy { shutdown, ..policy(1) });
        let workers = bench.serving(1);
        assert_eq!(bench.tell(Happening::Stop), [Action::Unready]);
        assert_eq!(bench.pass(5_000), [Action::StopAccepting, Action::Disconnect(workers[0])]);
    }

    #[test]
    fn who_was_not_looked_at_in_time_is_given_more() {
        let mut bench = Bench::new(policy(1));
        let workers = bench.serving(1);
        bench.tell(Happening::Stop);
        bench.tell(Happening::Stop);
        assert_eq!(bench.pass(60_000), [], "nobody has heard of its end meanwhile");
        assert_eq!(bench.pass(1_000), [Action::Abandon(workers[0])]);
    }
}

mod health {
    use super::*;

    fn bench() -> (Bench, Vec<WorkerId>) {
        let mut bench = Bench::new(Policy { health: Some(Health::default()), ..policy(2) });
        let workers = bench.serving(2);
        (bench, workers)
    }

    fn beats(beats: u64) -> Sight {
        Sight { beats, ..Sight::default() }
    }

    #[test]
    fn a_silent_worker_loses_its_seat_and_is_ended_step_by_step() {
        let (mut bench, workers) = bench();
        let mut actions = Vec::new();
        for round in 1..=5 {
            assert_eq!(bench.pass(7_500), [Action::Look]);
            actions = bench.see(&[(workers[0], beats(1)), (workers[1], beats(round))]);
            if !actions.is_empty() {
                break;
            }
        }
        assert_eq!(actions, [Action::Disconnect(workers[0]), fork(0)]);
        bench.fork(0);
        for action in [Action::Close, Action::Abort, Action::Kill, Action::Abandon] {
            let expected = action(workers[0]);
            assert!(bench.pass(1_000).contains(&expected), "{expected:?}");
        }
    }

    #[test]
    fn whoever_looks_late_does_not_judge() {
        let (mut bench, workers) = bench();
        bench.pass(7_500);
        bench.see(&[(workers[0], beats(1)), (workers[1], beats(1))]);
        bench.pass(60_000);
        assert_eq!(bench.see(&[(workers[0], beats(1)), (workers[1], beats(1))]), []);
        bench.pass(7_500);
        assert_eq!(bench.see(&[(workers[0], beats(1)), (workers[1], beats(1))]), []);
    }
}

mod changes {
    use super::*;

    #[test]
    fn a_recycled_worker_leaves_when_its_successor_is_ready() {
        let recycle = Recycle { requests: Some(100), ..Recycle::default() };
        let mut bench = Bench::new(Policy { recycle, ..policy(2) });
        let workers = bench.serving(2);
        let sight = Sight { requests: 100, ..Sight::default() };
        bench.pass(1_000);
        let both = [(workers[0], sight), (workers[1], sight)];
        assert_eq!(bench.see(&both), [fork(0)], "one at a time");
        let successor = bench.fork(0);
        assert_eq!(bench.ready(successor), [Action::Disconnect(workers[0])]);
        bench.pass(1_000);
        assert_eq!(bench.see(&[(workers[1], sight)]), [fork(1)]);
    }

    #[test]
    fn a_reload_begins_with_one_and_retires_nobody_before_it_is_ready() {
        let rollout = Rollout { surge: 2, unavailable: 0 };
        let mut bench = Bench::new(Policy { rollout, ..policy(3) });
        let workers = bench.serving(3);
        assert_eq!(bench.tell(Happening::Reload), [fork(0)]);
        let canary = bench.fork(0);
        let more = bench.ready(canary);
        assert_eq!(more, [Action::Disconnect(workers[0]), fork(1), fork(2)]);
        let (second, third) = (bench.fork(1), bench.fork(2));
        assert_eq!(bench.ready(second), [Action::Disconnect(workers[1])]);
        assert_eq!(bench.ready(third), [Action::Disconnect(workers[2])]);
        assert_eq!(bench.decisions, [Decision::Reload, Decision::Reloaded]);
    }

    #[test]
    fn a_canary_that_fails_leaves_the_old_generation_serving() {
        let mut bench = Bench::new(policy(2));
        bench.serving(2);
        bench.tell(Happening::Reload);
        let canary = bench.fork(0);
        assert_eq!(bench.fail(canary), []);
        let cause = "broken".to_owned();
        assert_eq!(bench.decisions, [Decision::Reload, Decision::ReloadFailed { cause }]);
        assert_eq!(bench.tell(Happening::Reload), [fork(0)], "and can be tried again");
    }

    #[test]
    fn a_canary_that_does_not_get_ready_fails_as_well() {
        let mut bench = Bench::new(policy(1));
        bench.serving(1);
        bench.tell(Happening::Reload);
        let canary = bench.fork(0);
        assert_eq!(bench.pass(60_000), [Action::Kill(canary)]);
        bench.end(canary, Ending::Crashed("signal 9".into()));
        assert!(matches!(bench.decisions.last(), Some(Decision::ReloadFailed { .. })));
    }

    #[test]
    fn reloads_that_are_asked_for_meanwhile_become_one_more() {
        let mut bench = Bench::new(policy(1));
        bench.serving(1);
        for _ in 0..3 {
            bench.tell(Happening::Reload);
        }
        for _ in 0..2 {
            let worker = bench.fork(0);
            bench.ready(worker);
        }
        let once = [Decision::Reload, Decision::Reloaded];
        assert_eq!(bench.decisions, [once.clone(), once].concat());
    }

    #[test]
    fn another_number_of_workers_is_reached_from_both_sides() {
        let mut bench = Bench::new(policy(1));
        let workers = bench.serving(1);
        assert_eq!(bench.tell(Happening::Scale(3)), [fork(1), fork(2)]);
        let (second, third) = (bench.fork(1), bench.fork(2));
        let fewer = bench.tell(Happening::Scale(1));
        assert_eq!(fewer, [Action::Disconnect(third), Action::Disconnect(second)]);
        assert_eq!(bench.fail(workers[0]), [fork(0)]);
    }

    #[test]
    fn load_adds_workers_and_a_constant_load_keeps_their_number() {
        let scale = Some(Autoscale::between(1, 8));
        let mut bench = Bench::new(Policy { scale, ..policy(1) });
        let mut workers = bench.serving(1);
        let mut busy = 0.0;
        // Work for two and a half loops.
        for _ in 0..200 {
            bench.pass(1_000);
            busy += 2.5e9 / workers.len().max(3) as f64;
            let sight = Sight { busy_ns: busy as u64, ..Sight::default() };
            let sights: Vec<_> = workers.iter().map(|worker| (*worker, sight)).collect();
            for action in bench.see(&sights) {
                let Action::Fork(seat) = action else { panic!("{action:?}") };
                let worker = bench.fork(seat.0);
                bench.ready(worker);
                workers.push(worker);
            }
        }
        assert_eq!(workers.len(), 4);
        let changes = bench.decisions.iter().filter(|it| matches!(it, Decision::Scale { .. }));
        assert_eq!(changes.count(), 3, "1 to 4, and no way back");
    }
}

/// Things that happen while others are under way.
mod crossings {
    use super::*;

    fn old() -> Recycle {
        Recycle { age: Some(Duration::from_secs(5)), ..Recycle::default() }
    }

    /// A worker that has reached its age, and its successor.
    fn recycling() -> (Bench, WorkerId, WorkerId) {
        let mut bench = Bench::new(Policy { recycle: old(), ..policy(1) });
        let worker = bench.serving(1)[0];
        bench.pass(5_000);
        assert_eq!(bench.see(&[(worker, Sight::default())]), [fork(0)]);
        let successor = bench.fork(0);
        (bench, worker, successor)
    }

    #[test]
    fn a_successor_that_fails_is_tried_again_after_a_delay_and_the_old_one_stays() {
        let (mut bench, worker, successor) = recycling();
        assert_eq!(bench.fail(successor), [fork(0)]);
        let second = bench.fork(0);
        assert_eq!(bench.end(second, Ending::Done), [], "whoever never got ready has failed");
        assert_eq!(bench.see(&[(worker, Sight::default())]), [], "nobody else is asked for");
        assert_eq!(bench.pass(100), [fork(0)]);
        let third = bench.fork(0);
        assert_eq!(bench.ready(third), [Action::Disconnect(worker)]);
    }

    #[test]
    fn who_fails_while_a_successor_is_under_way_needs_no_other() {
        let (mut bench, worker, successor) = recycling();
        assert_eq!(bench.fail(worker), []);
        assert_eq!(bench.ready(successor), []);
        assert!(matches!(bench.decisions[..], [Decision::Recycle { .. }]));
    }

    #[test]
    fn an_old_worker_that_fails_does_not_break_a_reload_off() {
        let mut bench = Bench::new(policy(2));
        let workers = bench.serving(2);
        bench.tell(Happening::Reload);
        let canary = bench.fork(0);
        assert_eq!(bench.fail(workers[0]), []);
        assert_eq!(bench.fail(workers[1]), [fork(1)]);
        let restarted = bench.fork(1);
        bench.ready(canary);
        assert_eq!(bench.ready(restarted), [], "it is new already");
        assert_eq!(bench.decisions.last(), Some(&Decision::Reloaded));
    }

    #[test]
    fn nobody_is_taken_away_while_others_are_missing() {
        let rollout = Rollout { surge: 0, unavailable: 1 };
        let mut bench = Bench::new(Policy { rollout, ..policy(2) });
        let workers = bench.serving(2);
        assert_eq!(bench.fail(workers[1]), [fork(1)]);
        let restarted = bench.fork(1);
        assert_eq!(bench.tell(Happening::Reload), []);
        assert_eq!(bench.ready(restarted), [Action::Disconnect(workers[0]), fork(0)]);
    }

    #[test]
    fn who_starts_for_a_seat_that_is_gone_leaves() {
        let mut bench = Bench::new(policy(1));
        bench.serving(1);
        assert_eq!(bench.tell(Happening::Scale(2)), [fork(1)]);
        assert_eq!(bench.tell(Happening::Scale(1)), []);
        bench.next += 1;
        let late = WorkerId::new(bench.next);
        let happening = Happening::Forked { worker: late, seat: Some(Seat(1)) };
        assert_eq!(bench.tell(happening), [Action::Disconnect(late)]);
    }

    #[test]
    fn fewer_workers_are_first_those_that_do_not_serve() {
        let mut bench = Bench::new(policy(3));
        bench.tell(Happening::Start);
        let [first, second, third] = [0, 1, 2].map(|seat| bench.fork(seat));
        bench.ready(first);
        bench.ready(third);
        assert_eq!(bench.tell(Happening::Scale(2)), [Action::Disconnect(second)]);
    }

    #[test]
    fn what_there_was_no_room_for_is_asked_for_again_and_holds_no_stop_up() {
        let mut bench = Bench::new(policy(1));
        assert_eq!(bench.tell(Happening::Start), [fork(0)]);
        assert_eq!(bench.tell(Happening::NotForked { seat: Seat(0) }), []);
        assert_eq!(bench.pass(1_000), [fork(0)]);
        bench.tell(Happening::Stop);
        assert!(!bench.supervisor.over(), "it may still come");
        bench.tell(Happening::NotForked { seat: Seat(0) });
        assert!(bench.supervisor.over());
    }
}
