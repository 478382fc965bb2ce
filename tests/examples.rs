//! The small examples as programs, in both modes.
//!
//! They listen on port 3000, as their readers want them to: one at a time, once that port is free.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
mod support;

use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
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

const SCENARIOS: &[Scenario] = &[both("hello", hello), both("axum_router", axum_router)];

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

/// Runs an example, and stops it in good order.
fn run(example: &str, scene: &Scene, answers: impl Fn(&Address)) {
    static PORT_IN_USE: Mutex<()> = Mutex::new(());
    let _guard = PORT_IN_USE.lock();
    wait_until("port 3000 to be free", || TcpListener::bind(PORT).is_ok());
    let deps = std::env::current_exe().unwrap();
    let path = deps.ancestors().nth(2).unwrap().join("examples").join(example);
    let mut command = Command::new(path);
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
