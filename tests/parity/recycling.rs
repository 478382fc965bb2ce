//! Workers that have done enough: another takes over first, and nobody notices.

use std::time::Duration;

use bimodal::{
    Cluster, Decision, ErrorKind, Event, ExitStatus, Health, Mode, Recycle, Restart, Result,
    Worker, WorkerId,
};

use crate::{
    bodies::{ANYWHERE, idle},
    supervising::{decision, served, who},
    support::{
        Scenario, Scene, both,
        client::Client,
        events::{Seen, until},
        only, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_worker_that_answered_so_many_requests_is_recycled", requests),
    both("workers_of_an_age_are_recycled_one_after_the_other", age),
    both("who_cannot_be_succeeded_goes_on_and_is_not_tried_without_end", no_successor),
    both("a_successor_that_fails_is_tried_again_as_slowly_as_a_restart", slow_successor),
    // Threads share their memory.
    only(&[Mode::Process], "a_worker_that_leaks_is_recycled", memory),
    only(&[Mode::Thread], "memory_of_one_thread_is_no_bound", memory_of_threads),
];

/// Looks often: that is how soon a bound is noticed.
fn health() -> Health {
    Health { deadline: Duration::from_secs(2), ..Health::default() }
}

#[track_caller]
fn until_recycled(cluster: &Cluster) -> (WorkerId, String) {
    let made = decision(cluster, "a recycling", |made| matches!(made, Decision::Recycle { .. }));
    let Decision::Recycle { worker, cause } = made else { unreachable!() };
    (worker, cause)
}

#[track_caller]
fn until_gone(cluster: &Cluster, worker: WorkerId) -> Seen {
    until(
        cluster,
        "the end of the worker",
        |event| matches!(event, Event::Exit { worker: gone, .. } if gone.id() == worker),
    )
}

/// What was seen from the decision to the end of the old worker: the new one was ready first.
#[track_caller]
fn assert_new_one_first(seen: &Seen, old: WorkerId) {
    assert_eq!(seen.names(None), ["fork", "online", "listening", "disconnect", "exit"]);
    assert_eq!(seen.exit(old), ExitStatus::Code(0));
}

fn requests(scene: &Scene) {
    let recycle = Recycle { requests: Some(20), ..Recycle::default() };
    let (cluster, address) = served(scene.builder().health(health()).recycle(recycle), 1);
    let mut client = Client::connect(&address).unwrap();
    for _ in 0..19 {
        assert_eq!(client.get("/").unwrap().text(), "1");
    }
    let beats = || cluster.status().workers[0].stats.beats;
    let before = beats();
    wait_until("a look or two", || beats() > before + 2);
    assert_eq!(client.get("/").unwrap().text(), "1", "one request is missing");
    let (worker, cause) = until_recycled(&cluster);
    assert_eq!((worker.get(), cause.as_str()), (1, "it answered 20 requests"));
    assert_new_one_first(&until_gone(&cluster, worker), worker);
    assert_eq!(who(&address), 2);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.recycled, report.restarts, report.started), (1, 0, 2), "{report}");
    assert_eq!((report.closed, report.forced_kills), (0, 0), "{report}");
}

fn age(scene: &Scene) {
    let recycle =
        Recycle { age: Some(Duration::from_millis(600)), jitter: 0.5, ..Recycle::default() };
    let (cluster, _) = served(scene.builder().health(health()).recycle(recycle), 2);
    let mut recycled = 0;
    until(&cluster, "everybody to be recycled twice", |event| {
        let status = cluster.status();
        assert!(status.ready() >= 2, "{status}: {event:?}");
        let stay = status.workers.iter().filter(|it| it.state < bimodal::State::Draining).count();
        assert!(stay <= 3, "more than one at a time: {status:#?}");
        recycled += usize::from(event.name() == "exit");
        recycled == 4
    });
    let report = cluster.shutdown().unwrap();
    assert!(report.recycled >= 4 && report.restarts == 0, "{report}");
}

fn memory(scene: &Scene) {
    let recycle = Recycle { memory: Some(96 << 20), ..Recycle::default() };
    let (cluster, address) = served(scene.builder().health(health()).recycle(recycle), 2);
    let mut client = Client::connect(&address).unwrap();
    let leaker = client.get("/leak/128").unwrap().text().to_owned();
    let (worker, cause) = until_recycled(&cluster);
    assert_eq!(worker.to_string(), leaker);
    assert!(cause.contains("KiB of memory"), "{cause}");
    assert_new_one_first(&until_gone(&cluster, worker), worker);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.recycled, report.started), (1, 3), "only the one that leaked: {report}");
}

fn memory_of_threads(scene: &Scene) {
    let recycle = Recycle { memory: Some(96 << 20), ..Recycle::default() };
    let error = scene.builder().recycle(recycle).build().unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Setting);
    assert!(text.contains("recycle.memory") && text.contains("share its memory"), "{text}");
    assert!(text.contains("process mode"), "the remedy: {text}");
}

const FAILURES: u64 = 3;

/// The first works, the next ones fail, then they work again.
async fn some_fail(worker: Worker) -> Result<()> {
    let number = worker.region("started")?.add(0, 1)?;
    assert!(number == 0 || number > FAILURES, "no successor");
    let _listener = worker.listen(ANYWHERE).await?;
    idle(worker).await;
    Ok(())
}

fn old_one(scene: &Scene, restart: Restart) -> Cluster {
    let recycle = Recycle { age: Some(Duration::from_millis(100)), ..Recycle::default() };
    let builder = scene.builder().workers(1).region("started", 8).health(health());
    let cluster = builder.recycle(recycle).restart(restart).supervise(some_fail).unwrap();
    assert_eq!(until_recycled(&cluster).0.get(), 1);
    cluster
}

fn slow_successor(scene: &Scene) {
    let first_delay = Duration::from_millis(50);
    let restart = Restart { first_delay, jitter: 0.0, ..Restart::default() };
    let cluster = old_one(scene, restart);
    let mut delays = Vec::new();
    let seen = until(&cluster, "the old one to leave", |event| {
        if let Event::Decision { decision: Decision::Restart { delay, .. } } = event {
            delays.push(*delay);
        }
        event.name() == "exit" && event.worker().is_some_and(|worker| worker.id().get() == 1)
    });
    assert_eq!(delays, [0, 1, 2].map(|times| times * first_delay));
    assert_eq!(seen.addresses().len(), 1, "the old one served until then");
    let report = cluster.shutdown().unwrap();
    assert!(report.restarts == FAILURES && report.recycled >= 1, "{report}");
}

fn no_successor(scene: &Scene) {
    let within = Duration::from_secs(60);
    let per_worker = Some(bimodal::Intensity { failures: 1, within });
    let restart = Restart { per_worker, ..Restart::default() };
    let cluster = old_one(scene, restart);
    let made =
        decision(&cluster, "the end of trying", |made| matches!(made, Decision::NoRestart { .. }));
    assert!(made.to_string().contains("no successor"), "{made}");
    let beats = || cluster.status().workers[0].stats.beats;
    let before = beats();
    wait_until("some more looks", || beats() > before + 3);
    let status = cluster.status();
    assert_eq!((status.target, status.ready(), status.report.started), (1, 1, 3), "{status:?}");
    assert_eq!(status.workers[0].worker.get(), 1);
    cluster.shutdown().unwrap();
}
