//! The example `load`, as people and scripts use it.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    Case,
    server::{OK, Server, answer, path},
    support::{program::Program, wait_until},
};

pub const CASES: &[Case] = &[
    ("the_program_tells_people", people),
    ("the_program_tells_scripts", scripts),
    ("the_program_ends_early_with_a_result", interrupted),
    ("the_program_refuses", refusals),
];

/// The example's command; cargo builds examples beside the tests.
fn command(arguments: &[&str]) -> Command {
    let deps = std::env::current_exe().unwrap();
    let target: PathBuf = deps.ancestors().nth(2).unwrap().into();
    let load = target.join("examples/load");
    assert!(load.exists(), "{} is missing: cargo build --example load", load.display());
    let mut command = Command::new(load);
    command.args(arguments);
    command
}

fn start(arguments: &[&str]) -> Program {
    Program::spawn(&mut command(arguments))
}

fn echo() -> Server {
    Server::new(|mut peer, _| {
        while let Some(request) = peer.request()? {
            peer.send(&answer(&format!(r#"{{"worker":{:?}}}"#, path(&request))))?;
        }
        Ok(())
    })
}

fn people() {
    let server = echo();
    let mix = ["--mix", "1 /a", "--mix", "1 /b", "--count-by", "worker"];
    let size = ["--requests", "200", "--rate", "2000", "--poisson", "--threads", "2"];
    let lines = start(&[&[&*server.url()], &mix[..], &size[..]].concat()).succeed();
    let text = lines.join("\n");
    for part in [
        "open loop, Poisson, 2000 requests/s",
        "completed 200 of 200 requests",
        "failed    0: none",
        "p99.9",
        "answers by worker (max/mean ",
        "driver    late by p50 ",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    for class in ["/a", "/b"] {
        assert_eq!(lines.iter().filter(|line| line.trim().starts_with(class)).count(), 2, "{text}");
    }
}

fn scripts() {
    let server = Server::answering(OK);
    let expect = ["--json", "--requests", "50", "--reuse", "10", "--connections", "1"];
    let lines = start(&[&[&*server.url()], &expect[..]].concat()).succeed();
    let value: Value = serde_json::from_str(&lines.join("\n")).unwrap();
    assert_eq!((&value["completed"], &value["connections"]), (&50.into(), &5.into()), "{value}");
    // Requests that fail are a result, not an error of the program.
    let wrong = ["--json", "--requests", "50", "--expect-status", "503"];
    let lines = start(&[&[&*server.url()], &wrong[..]].concat()).succeed();
    let value: Value = serde_json::from_str(&lines.join("\n")).unwrap();
    assert_eq!(value["classes"][0]["failures"]["status"], 50, "{value}");
}

fn interrupted() {
    let server = echo();
    let mut program = start(&[&server.url(), "--duration", "60m", "--json"]);
    wait_until("connections", || server.accepted() > 0);
    program.signal(2);
    let status = program.wait();
    assert!(status.success(), "{status}: {}", program.errors());
    let value: Value = serde_json::from_str(&program.output.join("\n")).unwrap();
    assert_eq!(value["scheduled"], value["completed"], "{value}");
}

fn refusals() {
    for (arguments, code, word) in [
        (&["https://localhost/"][..], 1, "TLS"),
        (&["http://localhost/", "--connections", "0"], 1, "connections"),
        (&["http://localhost/", "--duration", "5"], 2, "unit"),
        (&["http://localhost/", "--poisson"], 2, "--rate"),
        (&["http://localhost/", "--mix", "/a"], 2, "blank"),
        (&["http://localhost/", "--body", "@/nowhere/at/all"], 2, "/nowhere"),
        (&[], 2, "URL"),
    ] {
        let output = command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(word) && output.stdout.is_empty(), "{arguments:?}: {errors}");
    }
}
