//! `run`: workers are replaced, and the report says what was done.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bimodal::{ErrorKind, Event, Outcome, Report, Worker};

use crate::support::{DEADLINE, Scenario, Scene, both, program, wait_until};

pub const SCENARIOS: &[Scenario] = &[
    both("a_worker_that_panics_is_replaced", panics),
    both("a_replacement_listens_where_the_first_did", same_place),
    both("a_worker_that_fails_is_replaced", fails),
    both("a_worker_that_disconnects_itself_is_not_replaced", leaves),
    both("a_start_that_never_succeeds_ends_with_the_cause", never),
    both("a_cluster_whose_bodies_return_is_over", returns),
    both("what_one_worker_cannot_do_does_not_end_the_cluster", one_fails),
    both("sigterm_drains_and_the_program_succeeds", |scene| by_signal(scene, 15))
        .proves(&["SHUT-12"]),
    both("sigint_drains_and_the_program_succeeds", |scene| by_signal(scene, 2))
        .proves(&["SHUT-12"]),
    both("a_second_signal_ends_the_cluster_at_once", second_signal),
];

/// Started again by the tests above, to be signalled.
pub const PROGRAMS: &[Scenario] =
    &[both("greet_until_told", serve), both("never_drain", never_drain)];

/// Runs the scenario's cluster, and keeps the names of its events with the ids of the workers.
fn observe<F, Fut>(
    scene: &Scene,
    workers: usize,
    body: F,
) -> (Result<Report, bimodal::Error>, Vec<String>)
where
    F: Fn(Worker) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + 'static,
{
    let names = Rc::new(RefCell::new(Vec::new()));
    let seen = names.clone();
    let observer = move |event: &Event| seen.borrow_mut().push(event.name().to_owned());
    let report = scene.builder().workers(workers).on_event(observer).run(body);
    (report, names.take())
}

fn panics(scene: &Scene) {
    let (report, names) = observe(scene, 1, panic_once);
    let report = report.unwrap();
    assert_eq!((report.started, report.restarts, report.forced_kills), (2, 1, 0), "{report}");
    assert_eq!(report.exits["code 101 (panic)"], 1, "{report}");
    assert_eq!(report.exits["code 0"], 1, "{report}");
    let panicked = ["fork", "online", "listening", "error", "disconnect", "exit", "decision"];
    let life = ["fork", "online", "listening", "disconnect", "exit"];
    let expected = ["setup"].into_iter().chain(panicked).chain(life);
    assert!(names.iter().map(String::as_str).eq(expected), "{names:?}");
}

async fn panic_once(worker: Worker) -> bimodal::Result<()> {
    let _listener = worker.listen("127.0.0.1:0").await?;
    assert!(worker.generation() > 1, "the first of each slot was to panic");
    Ok(())
}

fn same_place(scene: &Scene) {
    let addresses = Rc::new(RefCell::new(Vec::new()));
    let seen = addresses.clone();
    let observer = move |event: &Event| {
        if let Event::Listening { address, .. } = event {
            seen.borrow_mut().push(address.clone());
        }
    };
    scene.builder().workers(1).on_event(observer).run(panic_once).unwrap();
    let addresses = addresses.take();
    assert_eq!(addresses.len(), 2);
    assert_eq!(addresses[0], addresses[1], "the port was kept while nobody listened");
}

fn fails(scene: &Scene) {
    let (report, _) = observe(scene, 2, fail_once);
    let report = report.unwrap();
    assert_eq!((report.started, report.restarts), (4, 2), "{report}");
    assert_eq!((report.exits["code 1"], report.exits["code 0"]), (2, 2), "{report}");
}

async fn fail_once(worker: Worker) -> Result<(), String> {
    match worker.generation() {
        1 => Err("the first of each slot was to fail".into()),
        _ => Ok(()),
    }
}

fn leaves(scene: &Scene) {
    let (report, _) = observe(scene, 2, leave);
    let report = report.unwrap();
    assert_eq!((report.started, report.restarts, report.exits["code 0"]), (2, 0, 2), "{report}");
}

async fn leave(worker: Worker) {
    worker.disconnect();
    worker.draining().await;
}

fn never(scene: &Scene) {
    let (report, names) = observe(scene, 2, |_worker| async { Err::<(), _>("no luck today") });
    let error = report.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(error.to_string().contains("no luck today"), "{error}");
    let count = |name: &str| names.iter().filter(|named| *named == name).count();
    assert!(count("fork") >= 3, "it was tried again: {names:?}");
    assert_eq!(count("fork"), count("exit"));
}

fn returns(scene: &Scene) {
    let (report, names) = observe(scene, 3, |_worker| async {});
    let report = report.unwrap();
    assert_eq!((report.started, report.restarts, report.exits["code 0"]), (3, 0, 3));
    assert_eq!(names.iter().filter(|name| *name == "exit").count(), 3);
    let text = report.to_string();
    assert!(text.contains("workers started: 3") && text.contains("code 0: 3"), "{text}");
}

fn one_fails(scene: &Scene) {
    let (report, _) = observe(scene, 2, one_panics_thrice);
    let report = report.unwrap();
    assert_eq!((report.started, report.restarts), (5, 3), "{report}");
}

/// Slot 0 is ready at once, and ends when slot 1 has.
async fn one_panics_thrice(worker: Worker) -> bimodal::Result<()> {
    let _listener = worker.listen("127.0.0.1:0").await?;
    let fourth =
        |worker: &Worker| worker.stats().iter().any(|row| row.slot == 1 && row.generation == 4);
    if worker.slot().get() == 0 {
        while !fourth(&worker) {
            bimodal::event_loop::sleep(Duration::from_millis(1)).await;
        }
    } else {
        assert!(fourth(&worker), "it was to panic until the fourth");
    }
    Ok(())
}

/// A supervised cluster that prints its events and its report.
fn print_and_run<F, Fut>(scene: &Scene, body: F)
where
    F: Fn(Worker) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + 'static,
{
    // Longer than any test waits, so that only a signal ends a worker that does not leave.
    let cluster = scene.builder().workers(2).shutdown_timeout(2 * DEADLINE);
    let report = cluster.on_event(|event| println!("{}", event.name())).run(body).unwrap();
    println!("{report}");
}

fn serve(scene: &Scene) {
    print_and_run(scene, crate::bodies::greet);
}

fn never_drain(scene: &Scene) {
    print_and_run(scene, async |worker: Worker| {
        let _listener = worker.listen("127.0.0.1:0").await.unwrap();
        worker.draining().await;
        println!("asked to leave");
        std::future::pending::<()>().await;
    });
}

fn by_signal(scene: &Scene, signal: i32) {
    let mut program = program::start("greet_until_told", scene.mode);
    program.line(|line| line == "listening");
    program.line(|line| line == "listening");
    program.signal(signal);
    let output = program.succeed();
    assert!(output.iter().any(|line| line.contains("code 0: 2")), "{output:?}");
    assert!(output.iter().any(|line| line.contains("closed: 0, killed: 0")), "{output:?}");
}

fn second_signal(scene: &Scene) {
    let mut program = program::start("never_drain", scene.mode);
    program.line(|line| line == "listening");
    program.line(|line| line == "listening");
    program.signal(15);
    program.line(|line| line == "asked to leave");
    program.line(|line| line == "asked to leave");
    // Signals that come together are one; the next one is the second.
    let mut ended = || {
        program.signal(15);
        program.line_within(Duration::from_secs(1), |line| line == "exit").is_some()
    };
    wait_until("the second signal to be heard", &mut ended);
    let output = program.succeed();
    assert!(output.iter().any(|line| line.contains("killed: 2")), "{output:?}");
}
