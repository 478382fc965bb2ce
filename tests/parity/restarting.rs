//! How failed workers are replaced: how soon, how often, and when no more.

use std::time::Duration;

use bimodal::{
    Cluster, Decision, Error, ErrorKind, Event, Exhausted, Intensity, Restart, Result, Worker,
    WorkerId, event_loop,
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    bodies::{ANYWHERE, idle},
    supervising::decision,
    support::{
        Scenario, Scene, both,
        events::{to_the_end, until, until_named},
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("the_delay_before_a_replacement_grows_up_to_the_longest", delays),
    both("a_worker_that_was_healthy_starts_the_row_anew", healthy),
    both("a_place_that_failed_too_often_stays_empty", too_many_of_one),
    both("a_place_that_failed_too_often_stops_the_cluster_if_that_was_chosen", stop_by_one),
    both("a_cluster_that_failed_too_often_loses_one_place_at_a_time", too_many_of_all),
    both("a_cluster_that_failed_too_often_stops_if_that_was_chosen", stop_by_all),
    both("a_final_code_is_not_restarted", final_code),
    both("a_cluster_that_only_ends_for_good_is_over", final_code_of_all),
    both("another_code_can_be_the_final_one", other_final_code),
    both("so_many_attempts_are_made_to_start", attempts),
    both("a_body_that_panics_before_it_is_ready_ends_the_cluster_with_its_words", panics_at_once),
    both("a_worker_that_is_not_ready_in_time_is_replaced", boot_timeout),
    both("a_body_that_never_listens_says_itself_that_it_is_ready", ready_without_listening),
];

const MINUTE: Duration = Duration::from_secs(60);

/// Delays without chance.
fn restart() -> Restart {
    let first_delay = Duration::from_millis(20);
    let longest_delay = Duration::from_millis(80);
    Restart { first_delay, longest_delay, jitter: 0.0, ..Restart::default() }
}

/// The next failure's answer: who, how, and after which delay; `None` for never.
#[track_caller]
fn next_answer(cluster: &Cluster) -> (WorkerId, String, Option<Duration>) {
    let wanted =
        |made: &Decision| matches!(made, Decision::Restart { .. } | Decision::NoRestart { .. });
    match decision(cluster, "an answer to a failure", wanted) {
        Decision::Restart { worker, cause, delay } => (worker, cause, Some(delay)),
        Decision::NoRestart { worker, cause } => (worker, cause, None),
        other => panic!("{other:?}"),
    }
}

/// Nanoseconds that all processes count from the same moment.
fn clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

const LIVES: u64 = 7;

fn delays(scene: &Scene) {
    let builder = scene.builder().workers(1).restart(restart()).region("lives", 64 * 16);
    let cluster = builder.supervise(live_shortly).unwrap();
    let delays: Vec<_> = (0..LIVES).map(|_| next_answer(&cluster).2.unwrap()).collect();
    assert_eq!(delays, [0, 20, 40, 80, 80, 80, 80].map(Duration::from_millis));
    let lives = cluster.region("lives").unwrap();
    let at = |index: u64| Duration::from_nanos(lives.load(index as usize).unwrap());
    wait_until("the last replacement", || !at(2 * LIVES).is_zero());
    for (life, delay) in (0..LIVES).zip(&delays) {
        let pause = at(2 * (life + 1)) - at(2 * life + 1);
        assert!(pause >= *delay, "{life}: replaced after {pause:?} instead of {delay:?}");
    }
    let report = end(cluster);
    assert!(report.restarts >= LIVES, "{report}");
}

/// Says when it began and when it was over.
async fn live_shortly(worker: Worker) -> Result<()> {
    let lives = worker.region("lives")?;
    let number = 2 * lives.add(2 * LIVES as usize + 2, 1)?.min(LIVES) as usize;
    lives.store(number, clock())?;
    worker.ready();
    lives.store(number + 1, clock())?;
    panic!("a short life");
}

#[track_caller]
fn end(cluster: Cluster) -> bimodal::Report {
    cluster.shutdown().unwrap()
}

fn healthy(scene: &Scene) {
    let restart = Restart { healthy: HEALTHY, ..restart() };
    let cluster = scene.builder().workers(1).restart(restart).supervise(live_healthily).unwrap();
    for _ in 0..3 {
        assert_eq!(next_answer(&cluster).2, Some(Duration::ZERO));
    }
    end(cluster);
}

const HEALTHY: Duration = Duration::from_millis(30);

async fn live_healthily(worker: Worker) {
    worker.ready();
    event_loop::sleep(HEALTHY * 2).await;
    panic!("a long life");
}

/// The first worker stays, all others panic.
async fn only_the_first_stays(worker: Worker) -> Result<()> {
    let first = worker.region("started")?.add(0, 1)? == 0;
    let _listener = worker.listen(ANYWHERE).await?;
    assert!(first, "only the first stays");
    worker.draining().await;
    Ok(())
}

/// Two workers, one of which always fails; a third failure is one too many.
fn one_fails(scene: &Scene, exhausted: Exhausted) -> Cluster {
    let per_worker = Some(Intensity { failures: 2, within: MINUTE });
    let restart = Restart { per_worker, exhausted, ..restart() };
    let builder = scene.builder().workers(2).region("started", 8).restart(restart);
    let cluster = builder.supervise(only_the_first_stays).unwrap();
    assert_eq!(next_answer(&cluster).2, Some(Duration::ZERO));
    assert_eq!(next_answer(&cluster).2, Some(Duration::from_millis(20)));
    let (_, cause, never) = next_answer(&cluster);
    assert_eq!(never, None);
    assert!(cause.contains("only the first stays"), "{cause}");
    cluster
}

fn too_many_of_one(scene: &Scene) {
    let cluster = one_fails(scene, Exhausted::KeepRest);
    wait_until("one place to be kept", || cluster.status().target == 1);
    wait_until("the other to be ready", || cluster.status().ready() == 1);
    // A person may know better.
    cluster.scale(2).unwrap();
    assert_eq!(next_answer(&cluster).2, Some(Duration::ZERO), "a new place has no past");
    let report = end(cluster);
    assert_eq!(report.exits["code 0"], 1, "{report}");
}

fn stop_by_one(scene: &Scene) {
    let cluster = one_fails(scene, Exhausted::Stop);
    let seen = to_the_end(&cluster);
    assert!(seen.exits().any(|(_, status)| status.success()), "the other drains");
    assert_exhausted(cluster.wait().unwrap_err(), "only the first stays");
}

#[track_caller]
fn assert_exhausted(error: Error, cause: &str) {
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    let text = error.to_string();
    assert!(text.contains("too many workers failed") && text.contains(cause), "{text}");
}

fn each_fails(scene: &Scene, exhausted: Exhausted) -> Cluster {
    let per_cluster = Some(Intensity { failures: 2, within: MINUTE });
    let restart = Restart { per_cluster, exhausted, ..restart() };
    let cluster = scene.builder().workers(3).restart(restart).supervise(fail_when_told).unwrap();
    let workers = until_named(&cluster, "listening", 3);
    for event in &workers.0 {
        if let Event::Listening { worker, .. } = event {
            let _ = worker.send(()).unwrap();
        }
    }
    cluster
}

/// Those that come later stay.
async fn fail_when_told(worker: Worker) -> Result<(), String> {
    let _listener = worker.listen(ANYWHERE).await.map_err(|error| error.to_string())?;
    let told = worker.recv().await;
    if told.is_some() { Err("told to fail".into()) } else { Ok(()) }
}

fn too_many_of_all(scene: &Scene) {
    let cluster = each_fails(scene, Exhausted::KeepRest);
    let answers = [(); 3].map(|()| next_answer(&cluster).2);
    assert_eq!(answers, [Some(Duration::ZERO), Some(Duration::ZERO), None]);
    wait_until("two places to be kept and ready", || {
        let status = cluster.status();
        (status.target, status.ready(), status.workers.len()) == (2, 2, 2)
    });
    end(cluster);
}

fn stop_by_all(scene: &Scene) {
    let cluster = each_fails(scene, Exhausted::Stop);
    assert_exhausted(cluster.wait().unwrap_err(), "told to fail");
}

/// The first stays; the next ends with the final code. Told a code, ends with it.
async fn second_is_misconfigured(worker: Worker) -> Result<()> {
    let second = worker.region("started")?.add(0, 1)? == 1;
    let _listener = worker.listen(ANYWHERE).await?;
    if second {
        worker.exit(78).await;
    }
    idle(worker).await;
    Ok(())
}

fn final_code(scene: &Scene) {
    let builder = scene.builder().workers(2).region("started", 8);
    let cluster = builder.supervise(second_is_misconfigured).unwrap();
    let (worker, cause, delay) = next_answer(&cluster);
    assert_eq!((cause.as_str(), delay), ("code 78", None));
    let status = cluster.status();
    assert_eq!(status.target, 1);
    assert!(status.workers.iter().all(|other| other.worker != worker));
    let report = end(cluster);
    assert_eq!((report.started, report.restarts, report.exits["code 78"]), (2, 0, 1), "{report}");
}

fn final_code_of_all(scene: &Scene) {
    let cluster = scene.builder().workers(2).supervise(exit_with::<78>).unwrap();
    let error = cluster.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(error.to_string().contains("code 78"), "{error}");
    assert_eq!(error.exit_code(), 78);
}

async fn exit_with<const CODE: i32>(worker: Worker) -> i32 {
    worker.ready();
    worker.exit(CODE).await
}

fn other_final_code(scene: &Scene) {
    let restart = Restart { final_code: Some(9), ..restart() };
    let builder = |suffix| scene.another(scene.mode, suffix).workers(1).restart(restart.clone());
    let usual = builder("usual").supervise(exit_with::<78>).unwrap();
    let chosen = builder("chosen").supervise(exit_with::<9>).unwrap();
    assert_eq!(next_answer(&usual).2, Some(Duration::ZERO));
    end(usual);
    assert_eq!(next_answer(&chosen).2, None);
    assert_eq!(chosen.wait().unwrap_err().kind(), ErrorKind::Start);
}

fn attempts(scene: &Scene) {
    let restart = Restart { attempts: 5, ..restart() };
    let cluster = scene.builder().workers(1).restart(restart).supervise(fail_at_once).unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(None).iter().filter(|name| **name == "fork").count(), 5);
    let error = cluster.wait().unwrap_err();
    assert!(error.kind() == ErrorKind::Start && error.to_string().contains("no luck"), "{error}");
}

async fn fail_at_once(_worker: Worker) -> Result<(), String> {
    Err("no luck".into())
}

fn panics_at_once(scene: &Scene) {
    let cluster = scene.builder().workers(2).restart(restart()).supervise(panic_at_once).unwrap();
    let error = cluster.wait().unwrap_err();
    let text = error.to_string();
    assert!(error.kind() == ErrorKind::Start && text.contains("not even a start"), "{text}");
}

async fn panic_at_once(_worker: Worker) {
    panic!("not even a start");
}

const BOOT: Duration = Duration::from_millis(500);

fn boot_timeout(scene: &Scene) {
    let builder = scene.builder().workers(2).restart(restart()).region("started", 8);
    let cluster = builder.boot_timeout(BOOT).supervise(second_never_listens).unwrap();
    let is_late = |made: &Decision| matches!(made, Decision::NotReady { .. });
    let Decision::NotReady { worker, within } = decision(&cluster, "not ready", is_late) else {
        unreachable!()
    };
    assert!(within >= BOOT, "{within:?}");
    let (failed, cause, delay) = next_answer(&cluster);
    assert_eq!((failed, delay), (worker, Some(Duration::ZERO)));
    assert!(cause.contains("not ready after"), "{cause}");
    until(&cluster, "the replacement listens", |event| event.name() == "listening");
    let report = end(cluster);
    // Whoever was ready in time was not touched.
    assert_eq!((report.started, report.restarts, report.forced_kills), (3, 1, 1), "{report}");
    assert_eq!(report.exits["code 0"], 2, "{report}");
}

async fn second_never_listens(worker: Worker) -> Result<()> {
    if worker.region("started")?.add(0, 1)? == 1 {
        std::future::pending::<()>().await;
    }
    let _listener = worker.listen(ANYWHERE).await?;
    idle(worker).await;
    Ok(())
}

fn ready_without_listening(scene: &Scene) {
    let builder = scene.builder().workers(2).boot_timeout(10 * BOOT).region("said", 8);
    let cluster = builder.supervise(say_ready).unwrap();
    until_named(&cluster, "online", 2);
    let status = cluster.status();
    assert!(status.ready() == 0 && !status.is_ready(), "online is not ready: {status}");
    cluster.region("said").unwrap().store(0, 1).unwrap();
    wait_until("both to be ready", || cluster.status().ready() == 2);
    let ready = cluster.workers();
    assert!(ready.iter().all(bimodal::WorkerHandle::is_ready));
    cluster.reload().unwrap();
    decision(&cluster, "a reload", |made| matches!(made, Decision::Reloaded));
    let report = end(cluster);
    assert_eq!((report.started, report.restarts, report.reloads), (4, 0, 1), "{report}");
}

/// Says that it is ready, twice, when the region says so.
async fn say_ready(worker: Worker) -> Result<()> {
    let said = worker.region("said")?;
    while said.load(0)? == 0 {
        event_loop::sleep(Duration::from_millis(1)).await;
    }
    worker.ready();
    worker.ready();
    assert!(worker.is_ready());
    idle(worker).await;
    Ok(())
}
