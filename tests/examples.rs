//! The small examples as programs, in both modes.
//!
//! Servers listen on port 3000, as their readers want them to: one at a time, once that port is free. The others end
//! by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
mod support;

use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Mutex,
};

use bimodal::Address;
use support::{
    Scenario, Scene, both,
    client::{Client, get},
    program::Program,
    wait_until,
};

const SCENARIOS: &[Scenario] = &[
    both("hello", hello),
    both("axum_router", axum_router),
    both("events", events),
    both("messaging", messaging),
    both("load_balancing", load_balancing),
];

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

/// Runs an example that ends by itself and can explain itself; returns what it told.
fn ends(example: &str, scene: &Scene) -> Vec<String> {
    let help = Program::spawn(Command::new(program(example)).arg("--help")).succeed();
    assert!(help.iter().any(|line| line.contains("--mode <process|thread>")), "{help:#?}");
    let mut command = Command::new(program(example));
    let program =
        Program::spawn(command.args(["--mode", &scene.mode.to_string()]).process_group(0));
    let pid = program.pid();
    let told = program.succeed();
    serve::assert_nobody_left(pid);
    told
}

/// Runs an example, and stops it in good order.
fn run(example: &str, scene: &Scene, answers: impl Fn(&Address)) {
    static PORT_IN_USE: Mutex<()> = Mutex::new(());
    let _guard = PORT_IN_USE.lock();
    wait_until("port 3000 to be free", || TcpListener::bind(PORT).is_ok());
    let mut command = Command::new(program(example));
    let mut program =
        Program::spawn(command.args(["--mode", &scene.mode.to_string()]).process_group(0));
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
