//! `compare`: an app in both modes under the same load, and apps that cannot be compared. Each comparison is a program
//! of its own, started again for its arms and their workers.
//!
//! A comparison is of both modes, so that each scenario runs once.

use std::time::Duration;

use bimodal::{ErrorKind, Mode, Outcome, Worker, compare, compare::Options, http, load::Request};
use serde_json::Value;

use crate::support::{
    Scenario, Scene, both,
    events::{next_message, to_the_end},
    only,
    program::{self, Program},
    system, wait_until,
};

const ONCE: &[Mode] = &[Mode::Process];

pub const SCENARIOS: &[Scenario] = &[
    only(ONCE, "a_comparison_measures_both_modes_and_breaks_them", measures),
    only(ONCE, "a_comparison_says_which_mode_an_app_fails_in", fails_in_one_mode),
    only(ONCE, "a_comparison_outlives_an_arm_that_aborts_under_load", aborts),
    only(ONCE, "a_comparison_asks_the_first_tcp_address", addresses),
    only(ONCE, "apps_that_cannot_be_compared_are_told_why", told_why),
    only(ONCE, "a_comparison_leads_to_nothing_in_a_worker_of_another_cluster", passes_by),
    both("no_comparison_begins_inside_a_worker", inside),
    only(ONCE, "a_marker_that_is_not_for_this_process_makes_it_no_arm", foreign_marker),
    only(ONCE, "a_comparison_that_is_killed_leaves_no_process", killed),
];

/// Started again by the tests above.
pub const PROGRAMS: &[Scenario] = &[
    only(ONCE, "compare_hello", |scene| print(scene, hello, small())),
    only(ONCE, "compare_no_processes", |scene| print(scene, no_processes, small())),
    only(ONCE, "compare_aborts", |scene| print(scene, aborts_as_thread, small())),
    only(ONCE, "compare_addresses", |scene| print(scene, several_addresses, small())),
    only(ONCE, "compare_broken", broken),
    only(ONCE, "compare_and_serve", compare_and_serve),
    only(ONCE, "compare_for_long", |scene| {
        print(scene, hello, small().time(Duration::from_secs(60)));
    }),
];

/// As little as shows something. The rate is far below what a busy machine can do.
fn small() -> Options {
    let options = Options::new().workers(2).connections(4).rounds(2).rate(200.0);
    options.time(Duration::from_millis(200)).warmup(Duration::from_millis(20))
}

/// Compares, and prints how far it is and what came of it. What arms and workers print must not be seen.
fn print<F, Fut>(scene: &Scene, app: F, options: Options)
where
    F: Fn(Worker) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + 'static,
{
    println!("begun");
    let before = system::descriptors();
    let options = options.name(scene.name).on_progress(|progress| println!("{progress:?}"));
    let comparison = compare(app, options).unwrap();
    assert!(!comparison.is_empty());
    assert_eq!(system::descriptors(), before, "descriptors");
    assert_eq!(system::children_of(std::process::id()), [0_u32; 0], "children");
    let text = comparison.to_string();
    assert!(text.contains("Recommended: ") && text.contains("Not measured:"), "{text}");
    println!("{}", serde_json::to_string(&comparison).unwrap());
}

/// The comparison that a program makes.
fn comparison_of(name: &str) -> Value {
    let mut program = program::start(name, Mode::Process);
    // Each line has a deadline of its own.
    let mut json = None;
    while json.is_none() {
        let line = program.line(|_| true);
        json = serde_json::from_str::<Value>(&line).ok().filter(Value::is_object);
    }
    let output = program.succeed();
    assert_eq!(output.iter().filter(|line| *line == "begun").count(), 1, "{output:#?}");
    json.unwrap()
}

async fn hello(worker: Worker) -> bimodal::Result<()> {
    println!("a worker");
    let listener = worker.listen("127.0.0.1:0").await?;
    serve(listener).await
}

async fn serve(listener: bimodal::Listener) -> bimodal::Result<()> {
    let answer = |request: http::Request<http::Incoming>| {
        let text = if request.uri().path() == "/" { "hello\n" } else { "nothing\n" };
        let mut answer = http::text(text);
        if text == "nothing\n" {
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
        }
        std::future::ready(answer)
    };
    http::serve(listener, http::service_fn(answer)).await
}

fn measures(_: &Scene) {
    let comparison = comparison_of("compare_hello");
    assert_eq!((&comparison["workers"], &comparison["rounds"]), (&2.into(), &2.into()));
    for mode in ["process", "thread"] {
        let side = &comparison[mode];
        assert!(side["failed"].is_null() && side["broken"] == Value::Array(vec![]), "{side:#}");
        let rounds = side["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            assert_round(round);
        }
        assert_eq!(side["blasts"].as_array().unwrap().len(), 2);
    }
    let ends = |mode: &str, fault: usize| {
        let blast = &comparison[mode]["blasts"][fault];
        (blast["survived"].as_bool().unwrap(), blast["full_strength_ms"].as_f64().is_some())
    };
    assert_eq!((ends("process", 0), ends("thread", 0)), ((true, true), (true, true)), "panic");
    assert_eq!((ends("process", 1), ends("thread", 1)), ((true, true), (false, false)), "abort");
    let aborted = &comparison["thread"]["blasts"][1];
    assert_eq!((&aborted["fault"], &aborted["exit"]), (&"abort".into(), &"signal 6".into()));
    assert!(aborted["failed"].as_u64().unwrap() > 0, "{aborted:#}");
}

fn assert_round(round: &Value) {
    for figure in [
        "capacity_per_second",
        "p50_us",
        "p99_us",
        "p999_us",
        "cpu_us_per_request",
        "pss_bytes",
        "private_bytes",
        "start_ms",
        "answered",
    ] {
        assert!(round[figure].as_f64().unwrap() > 0.0, "{figure}: {round:#}");
    }
    let quantiles = ["p50_us", "p99_us", "p999_us"].map(|name| round[name].as_f64().unwrap());
    assert!(quantiles.is_sorted(), "{quantiles:?}");
    assert!(round["private_bytes"].as_f64() <= round["pss_bytes"].as_f64(), "{round:#}");
    assert_eq!(round["ended"], Value::Array(vec![]));
}

/// An app finds out its mode, as this one does, but need not.
async fn no_processes(worker: Worker) -> bimodal::Result<(), String> {
    if bimodal::worker_of().is_some() {
        return Err("this app wants threads".into());
    }
    hello(worker).await.map_err(|error| error.to_string())
}

fn fails_in_one_mode(_: &Scene) {
    let comparison = comparison_of("compare_no_processes");
    let cause = comparison["process"]["failed"].as_str().unwrap();
    assert!(cause.contains("this app wants threads"), "{cause}");
    assert_eq!(comparison["process"]["rounds"], Value::Array(vec![]));
    assert_eq!(comparison["thread"]["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(comparison["recommendation"]["mode"], "thread");
    let reasons = comparison["recommendation"]["reasons"].to_string();
    assert!(reasons.contains("this app wants threads"), "{reasons}");
}

/// Among threads its first answer is its last.
async fn aborts_as_thread(worker: Worker) -> bimodal::Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let answer = |_| {
        if bimodal::worker_of().is_none() {
            std::process::abort();
        }
        std::future::ready(http::text("hello\n"))
    };
    http::serve(listener, http::service_fn(answer)).await
}

fn aborts(_: &Scene) {
    let comparison = comparison_of("compare_aborts");
    let cause = comparison["thread"]["failed"].as_str().unwrap();
    assert!(cause.contains("under load") && cause.contains("signal 6"), "{cause}");
    assert_eq!(comparison["recommendation"]["mode"], "process");
    assert_eq!(comparison["process"]["blasts"].as_array().unwrap().len(), 2);
}

async fn several_addresses(worker: Worker) -> bimodal::Result<()> {
    let name = format!("unix:@{}-{}", worker.cluster(), std::process::id());
    let _unix = worker.listen(name.as_str()).await?;
    let first = worker.listen("0.0.0.0:0").await?;
    // Nobody answers here: the load would fail.
    let _second = worker.listen("127.0.0.1:0").await?;
    serve(first).await
}

fn addresses(_: &Scene) {
    let comparison = comparison_of("compare_addresses");
    for mode in ["process", "thread"] {
        let side = &comparison[mode];
        let listed = side["addresses"].as_array().unwrap();
        assert!(listed.len() >= 2, "{listed:?}");
        assert!(listed[0].as_str().unwrap().starts_with("unix:@"), "{listed:?}");
        assert!(listed.iter().any(|address| address.as_str().unwrap().starts_with("0.0.0.0:")));
        assert_eq!(side["rounds"].as_array().unwrap().len(), 2);
        assert!(side["rounds"][0]["answered"].as_u64().unwrap() > 0, "{side:#}");
    }
}

/// One comparison after the other that comes to nothing: the arms of the later ones pass by the earlier ones.
fn broken(scene: &Scene) {
    let named = |suffix: &str| small().name(format!("{}/{suffix}", scene.name));
    let soon = Duration::from_millis(300);
    tell(compare(never_listens, named("never").listen_within(soon)));
    tell(compare(unix_only, named("unix")));
    tell(compare(returns_at_once, named("returns")));
    tell(compare(panics_at_once, named("panics")));
    tell(compare(hello, named("path").path("/nothing")));
    tell(compare(hello, named("request").request(0, Request::get("/"))));
    tell(compare(hello, named("path")));
    tell(compare(hello, named("").rounds(0)));
    tell(compare(hello, named("region").cluster(|builder| builder.region("", 8))));
}

fn tell(outcome: bimodal::Result<compare::Comparison>) {
    // An arm of a later comparison, and its workers, pass by.
    if outcome.as_ref().is_ok_and(compare::Comparison::is_empty) {
        return;
    }
    let error = outcome.unwrap_err();
    println!("{:?} {error}", error.kind());
}

async fn never_listens(_: Worker) {
    std::future::pending().await
}

async fn unix_only(worker: Worker) -> bimodal::Result<()> {
    let name = format!("unix:@{}-{}", worker.cluster(), std::process::id());
    let _listener = worker.listen(name.as_str()).await?;
    worker.draining().await;
    Ok(())
}

async fn returns_at_once(_: Worker) {}

async fn panics_at_once(_: Worker) {
    panic!("on purpose");
}

fn told_why(_: &Scene) {
    let mut program = program::start("compare_broken", Mode::Process);
    for (kind, phrases) in [
        (ErrorKind::Start, &["did not listen within 300ms", "`listen_within`"][..]),
        (ErrorKind::Start, &["listens on unix:@", "let it listen on a TCP address"]),
        (ErrorKind::Start, &["neither mode", "not all workers listened", "code 0"]),
        (ErrorKind::Start, &["neither mode", "on purpose"]),
        (ErrorKind::Start, &["no request was answered as it should", "status", "`path`"]),
        (ErrorKind::Start, &["neither mode", "weight"]),
        (ErrorKind::Setting, &["`name` is", ".name(..)"]),
        (ErrorKind::Setting, &["rounds is 0", "must be from 2"]),
        (ErrorKind::Start, &["neither mode", "region"]),
    ] {
        let line = program.line(|_| true);
        assert!(line.starts_with(&format!("{kind:?} ")), "{line}");
        assert!(phrases.iter().all(|phrase| line.contains(phrase)), "{phrases:?}: {line}");
    }
    program.succeed();
}

fn compare_and_serve(scene: &Scene) {
    let options = small().name(format!("{}/compared", scene.name)).path("/nothing");
    match compare(hello, options) {
        // A worker of the cluster below; its output is the program's.
        Ok(comparison) => println!("empty: {}, {comparison}", comparison.is_empty()),
        Err(error) => println!("{:?}", error.kind()),
    }
    scene.builder().workers(1).run(|worker| async move { worker.id().get() as i32 - 1 }).unwrap();
    println!("served");
}

fn passes_by(_: &Scene) {
    let output = program::start("compare_and_serve", Mode::Process).succeed();
    let nothing = "empty: true, nothing was compared: this process is part of something else";
    assert_eq!(output, ["Start", nothing, "served"]);
}

fn inside(scene: &Scene) {
    let body = |worker: Worker| async move {
        let error = compare(hello, small()).unwrap_err();
        let _ = worker.send(error.to_string()).unwrap();
    };
    let cluster = scene.builder().launch(body).unwrap();
    cluster.fork().unwrap();
    let (_, text) = next_message::<String>(&cluster);
    assert!(text.contains("call it from `main`"), "{text}");
    to_the_end(&cluster);
}

fn foreign_marker(_: &Scene) {
    let (name, own) = ("compare_and_serve", std::process::id());
    let hex: String =
        format!("{name}/compared").bytes().map(|byte| format!("{byte:02x}")).collect();
    // Nonsense, and what a marker may look like.
    for marker in
        ["".into(), "nonsense".into(), format!("1:{hex}:1:9:1"), format!("1:{hex}:1:999:{own}")]
    {
        let mut command = program::command(name, Mode::Process);
        let output = Program::spawn(command.env("BIMODAL_COMPARE", marker)).succeed();
        assert_eq!((output.len(), output[0].as_str()), (3, "Start"), "{output:#?}");
    }
}

fn killed(_: &Scene) {
    for workers in [0, 2] {
        let mut program = program::start("compare_for_long", Mode::Process);
        program.line(|line| line.contains("round 1"));
        let mut arms = Vec::new();
        wait_until("an arm with its workers", || {
            arms = system::children_of(program.pid());
            arms.len() == 1 && system::children_of(arms[0]).len() >= workers
        });
        let all: Vec<u32> = arms.iter().copied().chain(system::children_of(arms[0])).collect();
        program.signal(9);
        let _ = program.wait_only();
        wait_until("the end of the arm and its workers", || {
            all.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
        });
    }
}
