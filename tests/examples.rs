//! The small examples as programs, in both modes.
//!
//! Servers listen on port 3000, as their readers want them to: one at a time, once that port is free. The others end
//! by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
#[cfg(feature = "store-lmdb")]
#[path = "examples/stores.rs"]
mod stores;
mod support;

use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Mutex,
};

use bimodal::{Address, Mode};
use support::{
    Scenario, Scene, both,
    client::{Client, get},
    program::Program,
    wait_until,
};

const SCENARIOS: &[Scenario] = &[
    both("hello", hello),
    both("axum_router", axum_router),
    both("express_like", express_like),
    both("events", events),
    both("messaging", messaging),
    both("load_balancing", load_balancing),
    both("crash_restart", crash_restart),
    both("crash_restart_by_hand", crash_restart_by_hand),
    both("crash_restart_that_never_succeeds", crash_restart_broken),
    both("graceful_shutdown", graceful_shutdown),
    both("graceful_shutdown_by_hand", graceful_shutdown_by_hand),
    both("health_monitoring", health_monitoring),
    both("health_monitoring_by_hand", health_monitoring_by_hand),
    both("recycling", recycling),
    both("autoscale", autoscale),
    both("memory_monitoring", memory_monitoring),
    both("rolling_reload", rolling_reload),
    both("heavy", heavy),
    #[cfg(feature = "store-lmdb")]
    both("sessions", stores::sessions),
    #[cfg(feature = "store-lmdb")]
    both("counter", stores::counter),
];

/// To let the program decide, as in Node, and not the cluster.
const BY_HAND: &[&str] = &["--by-hand"];

fn main() -> ExitCode {
    support::run(SCENARIOS, &[])
}

const PORT: &str = "127.0.0.1:3000";

fn hello(scene: &Scene) {
    let answers = |address: &Address| {
        let answer = get(address, "/").unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().starts_with("hello from worker "), "{}", answer.text());
    };
    run("hello", scene, answers);
}

fn axum_router(scene: &Scene) {
    let answers = |address: &Address| {
        let greeting = get(address, "/greet/world").unwrap();
        assert!(greeting.text().starts_with("hello world, from worker "), "{}", greeting.text());
        let who = get(address, "/worker").unwrap();
        assert_eq!(who.header("content-type"), Some("application/json"));
        let who: serde_json::Value = serde_json::from_slice(&who.body).unwrap();
        assert!(who["worker"].as_u64().is_some() && who["served"].as_u64() > Some(0), "{who}");
        let mut client = Client::connect(address).unwrap();
        client
            .send(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\nany text")
            .unwrap();
        assert_eq!(client.answer().unwrap().text(), "8 bytes\n");
        assert_eq!(get(address, "/nowhere").unwrap().status, 404);
    };
    run("axum_router", scene, answers);
}

fn express_like(scene: &Scene) {
    let answers = |address: &Address| {
        let ask = |path: &str| {
            let answer = get(address, path).unwrap();
            assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
            let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            (answer.status, json)
        };
        let hour = || {
            let said = Command::new("date").args(["-u", "+%Y-%m-%dT%H:"]).output().unwrap().stdout;
            String::from_utf8(said).unwrap().trim_end().to_owned()
        };
        let before = hour();
        let (status, hello) = ask("/");
        assert_eq!(
            (status, hello["message"].as_str()),
            (200, Some("Hello from cluster!")),
            "{hello}"
        );
        assert!(hello["worker"].as_u64().is_some() && hello["pid"].as_u64().is_some(), "{hello}");
        let timestamp = hello["timestamp"].as_str().unwrap();
        let is_now = [before, hour()].iter().any(|hour| timestamp.starts_with(hour.as_str()));
        assert!(is_now, "{timestamp} is not now");
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
        let (inline, pool) = (ask("/heavy").1, ask("/heavy?pool=1").1);
        assert_eq!(inline["result"], pool["result"]);
        assert!(inline["result"].as_f64() > Some(2.3e11), "{inline}");
        let (status, error) = ask("/error");
        assert!(
            status == 500 && error["error"].as_str().unwrap().contains("No such file"),
            "{error}"
        );
        assert!(get(address, "/crash").is_err(), "an answer from a worker that has ended");
        wait_until("a worker to serve", || get(address, "/").is_ok());
    };
    run("express_like", scene, answers);
}

fn events(scene: &Scene) {
    let told = ends("events", scene);
    let at = |text: &str| {
        let found = told.iter().position(|line| line.starts_with(text));
        found.unwrap_or_else(|| panic!("no {text:?} in {told:#?}"))
    };
    for worker in ["worker 1", "worker 2", "worker 3"] {
        let life = ["fork", "online", "listening", "disconnect", "exit"];
        assert!(life.map(|event| at(&format!("{event}: {worker}"))).is_sorted(), "{told:#?}");
    }
    assert_eq!(told[at("error:")], "error: worker 1 panicked: a bug, on demand");
    assert_eq!(told[at("listening: worker 1") - 1], "    its own observer: listening");
    assert_eq!(told[at("exit: worker 1")], "exit: worker 1 with code 101 (panic), unasked");
    assert_eq!(told[at("exit: worker 3")], "exit: worker 3 with code 0, as asked");
    assert!(at("exit: worker 1") < at("fork: worker 3"), "{told:#?}");
}

fn messaging(scene: &Scene) {
    let told = ends("messaging", scene);
    let sum: u64 = (0..1_000_000).map(|n: u64| n * n).sum();
    let sum = format!("the sum of all squares below 1000000 is {sum}");
    for line in [
        r#"over the connection came "hello from worker 1""#,
        "worker 1 met worker 2",
        "worker 2 met worker 1",
        "worker 1 is healthy and was asked 4 times",
        "worker 4 is healthy and was asked 2 times",
        &sum,
    ] {
        assert!(told.iter().any(|told| told == line), "no {line:?} in {told:#?}");
    }
}

fn load_balancing(scene: &Scene) {
    let told = ends("load_balancing", scene);
    assert_eq!(told.len(), 5, "a header, and a line per policy: {told:#?}");
    for (line, policy) in
        told[1..].iter().zip(["round-robin", "least-connections", "shared", "reuse-port"])
    {
        assert!(line.starts_with(policy), "{line}");
        let counts = &line[line.find('[').unwrap() + 1..line.find(']').unwrap()];
        let served = counts.split(", ").map(|count| count.parse::<u32>().unwrap());
        assert_eq!(served.sum::<u32>(), 400, "{line}");
    }
}

fn crash_restart(scene: &Scene) {
    let told = ends("crash_restart", scene);
    let decisions: Vec<_> =
        told.iter().filter_map(|line| line.split_once("decision: worker ")).collect();
    let delays = ["now", "in 50 ms", "in 100 ms", "in 150 ms"];
    assert_eq!(decisions.len(), delays.len(), "{told:#?}");
    for ((_, decision), delay) in decisions.iter().zip(delays) {
        let replaced = format!("is replaced {delay}: panicked: a bug, on demand");
        assert!(decision.ends_with(&replaced), "{decision}: not {replaced}");
    }
    has(&told, "workers started: 6 (4 for one that failed)");
}

fn crash_restart_by_hand(scene: &Scene) {
    let told = ends_with("crash_restart", scene, BY_HAND);
    let count = |text: &str| told.iter().filter(|line| line.ends_with(text)).count();
    assert_eq!((count("code 101 (panic)"), count("code 0")), (4, 2), "{told:#?}");
    assert_eq!((count("listens, slot 0"), count("listens, slot 1")), (5, 1), "{told:#?}");
}

fn crash_restart_broken(scene: &Scene) {
    let mut program = start("crash_restart", scene, &["--broken"]);
    let status = program.wait();
    assert_eq!(status.code(), Some(69), "{:#?}", program.output);
    let last = program.output.last().map(String::as_str);
    assert_eq!(last, Some("no worker got ready and stayed: no database today"));
    serve::assert_nobody_left(program.pid());
}

fn graceful_shutdown(scene: &Scene) {
    let told = ends("graceful_shutdown", scene);
    for line in [
        "GET /ready: HTTP/1.1 200 OK",
        "GET /ready: HTTP/1.1 503 Service Unavailable",
        "GET /wait: HTTP/1.1 200 OK",
        "GET /slow: HTTP/1.1 200 OK",
        "GET /late: Connection refused (os error 111)",
        "GET /stuck: closed without an answer",
        "workers closed: 1, killed: 0, abandoned: 0",
    ] {
        has(&told, line);
    }
}

fn graceful_shutdown_by_hand(scene: &Scene) {
    let told = ends_with("graceful_shutdown", scene, BY_HAND);
    for line in [
        "GET /wait: HTTP/1.1 200 OK",
        "GET /slow: HTTP/1.1 200 OK",
        "time is over: who is left is killed",
        "GET /stuck: closed without an answer",
    ] {
        has(&told, line);
    }
}

fn health_monitoring(scene: &Scene) {
    let told = ends("health_monitoring", scene);
    let ended = match scene.mode {
        Mode::Process => "ended with signal 6 (SIGABRT)",
        Mode::Thread => "ended with abandoned",
    };
    has(&told, ended);
    has(&told, "workers recycled: 0, hung: 1");
    let answered = told.iter().filter(|line| line.contains("GET /: worker")).count();
    assert!(answered > 0, "the other worker went on: {told:#?}");
}

fn health_monitoring_by_hand(scene: &Scene) {
    let told = ends_with("health_monitoring", scene, BY_HAND);
    let ended = match scene.mode {
        Mode::Process => "ended with signal 9 (SIGKILL)",
        Mode::Thread => "ended with abandoned",
    };
    has(&told, "has not answered for 1s: it is killed");
    has(&told, ended);
    has(&told, "worker 3 listens");
}

fn recycling(scene: &Scene) {
    for args in [&[][..], BY_HAND] {
        let told = ends_with("recycling", scene, args);
        has(&told, " requests answered, 0 failed");
        let at = |text: &str| told.iter().position(|line| line == text);
        assert!(
            at("worker 3 listens").is_some_and(|new| Some(new) < first_end(&told)),
            "{told:#?}"
        );
    }
}

fn autoscale(scene: &Scene) {
    let told = ends("autoscale", scene);
    for change in ["from 1 to 2", "from 2 to 3", "from 3 to 2", "from 2 to 1"] {
        has(&told, &format!("the number of workers goes {change}"));
    }
    let told = ends_with("autoscale", scene, BY_HAND);
    has(&told, "worker 3 listens");
    has(&told, "requests per worker, 1 workers");
}

fn memory_monitoring(scene: &Scene) {
    let told = ends("memory_monitoring", scene);
    match scene.mode {
        Mode::Process => has(&told, " KiB of memory"),
        Mode::Thread => has(&told, "`recycle.memory` cannot be set in thread mode"),
    }
    has(&told, "workers recycled: 2, hung: 0");
    let told = ends_with("memory_monitoring", scene, BY_HAND);
    assert!(first_end(&told).is_some(), "{told:#?}");
}

fn rolling_reload(scene: &Scene) {
    for args in [&[][..], BY_HAND] {
        let told = ends_with("rolling_reload", scene, args);
        let answers: Vec<_> = told.iter().filter(|line| line.contains(" requests: ")).collect();
        assert_eq!(answers.len(), 2, "no request failed: {told:#?}");
        has(&told, " requests: bonjour, world");
        has(&told, " requests: hello, world");
        has(
            &told,
            if args.is_empty() { "broken off, the old workers go on" } else { "the others stay" },
        );
    }
}

/// Where the first worker ended.
fn first_end(told: &[String]) -> Option<usize> {
    told.iter().position(|line| line.contains(" ended with "))
}

#[track_caller]
fn has(told: &[String], text: &str) {
    assert!(told.iter().any(|line| line.contains(text)), "no {text:?} in {told:#?}");
}

fn heavy(scene: &Scene) {
    let told = ends("heavy", scene);
    assert_eq!(told.len(), 3, "a header, and a line per way: {told:#?}");
    let answered = |path: &str, line: &str| {
        let numbers = line.strip_prefix(path).unwrap().split_whitespace();
        let [took, answers, longest] =
            numbers.filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        assert!(took > 0 && answers > 0 && longest > 0, "{line}");
        answers
    };
    let (inline, pool) = (answered("/heavy ", &told[1]), answered("/heavy?pool=1 ", &told[2]));
    assert!(inline < pool, "the loop was held up in the pool's case: {told:#?}");
}

/// Runs an example that ends by itself and can explain itself; returns what it told.
fn ends(example: &str, scene: &Scene) -> Vec<String> {
    let help = Program::spawn(Command::new(program(example)).arg("--help")).succeed();
    assert!(help.iter().any(|line| line.contains("--mode <process|thread>")), "{help:#?}");
    ends_with(example, scene, &[])
}

/// [`ends`] with arguments.
fn ends_with(example: &str, scene: &Scene, args: &[&str]) -> Vec<String> {
    let program = start(example, scene, args);
    let pid = program.pid();
    let told = program.succeed();
    serve::assert_nobody_left(pid);
    told
}

fn start(example: &str, scene: &Scene, args: &[&str]) -> Program {
    let mut command = Command::new(program(example));
    command.args(["--mode", &scene.mode.to_string()]).args(args);
    Program::spawn(command.process_group(0))
}

/// Runs an example, and stops it in good order.
fn run(example: &str, scene: &Scene, answers: impl Fn(&Address)) {
    run_with(example, scene, &[], answers);
}

/// [`run`] with arguments.
fn run_with(example: &str, scene: &Scene, args: &[&str], answers: impl Fn(&Address)) {
    static PORT_IN_USE: Mutex<()> = Mutex::new(());
    let _guard = PORT_IN_USE.lock();
    wait_until("port 3000 to be free", || TcpListener::bind(PORT).is_ok());
    let mut program = start(example, scene, args);
    program.line(|line| line.contains(" listens on http://127.0.0.1:3000"));
    answers(&PORT.parse().unwrap());
    program.signal(15);
    let pid = program.pid();
    let output = program.succeed();
    assert!(output.iter().any(|line| line.starts_with("workers started: ")), "{output:#?}");
    serve::assert_nobody_left(pid);
}

/// Where the example is. A plain `cargo test` builds it; one of `--test examples` alone does not.
fn program(example: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.ancestors().nth(2).unwrap().join("examples").join(example)
}
