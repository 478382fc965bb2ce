//! The lab example as a program: its routes, its faults and who survives them, how it starts and ends.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
mod support;

#[path = "lab/data.rs"]
mod data;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/program.rs"]
mod program;
#[path = "lab/routes.rs"]
mod routes;
#[path = "lab/stored.rs"]
mod stored;
#[path = "lab/supervision.rs"]
mod supervision;

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use bimodal::{Address, Mode};
use serde_json::Value;
use support::{
    Scenario, both,
    client::{Answer, get},
    only,
    program::Program,
};

const SCENARIOS: &[Scenario] = &[
    both("routes", routes::routes),
    both("refusals", routes::refusals),
    both("stored", stored::stored),
    both("echo_streams_8_mib", routes::echo_streams_8_mib),
    both("several_addresses", routes::several_addresses),
    both("a_silent_client_is_met_late_unless_told_otherwise", routes::silent_clients),
    both("panic", faults::panic),
    both("crashes", faults::crashes),
    both("spin", faults::spin),
    both("leaks", faults::leaks),
    both("shared_data_is_there_once", data::shared_data_is_there_once),
    both("private_data_is_there_in_each", data::private_data_is_there_in_each),
    both("first_line_and_last", program::first_line_and_last),
    both("all_policies", program::all_policies),
    both("sigterm_under_load", program::sigterm_under_load),
    both("bad_arguments", program::bad_arguments),
    both("spin_is_noticed", supervision::spin_is_noticed),
    both("a_crash_loop_is_slowed", supervision::a_crash_loop_is_slowed),
    both("requests_and_age_recycle", supervision::requests_and_age_recycle),
    both("load_scales", supervision::load_scales),
    both("a_stop_is_announced", supervision::a_stop_is_announced),
    both("a_drain_has_an_end", supervision::a_drain_has_an_end),
    both("reload_by_signal", supervision::reload_by_signal),
    // A thread cannot be stopped alone, and shares its memory.
    only(&[Mode::Process], "a_stopped_process_hangs", supervision::a_stopped_process_hangs),
    only(&[Mode::Process], "a_leak_is_recycled", supervision::a_leak_is_recycled),
];

fn main() -> ExitCode {
    support::run(SCENARIOS, &[])
}

/// A running lab, in a process group of its own.
struct Lab {
    program: Program,
    address: Address,
    /// The line that says that it is ready.
    ready: String,
}

/// The lab's command; cargo builds examples beside the tests.
fn command(arguments: &[&str]) -> Command {
    let deps = std::env::current_exe().unwrap();
    let target: PathBuf = deps.ancestors().nth(2).unwrap().into();
    let lab = target.join("examples/lab");
    assert!(lab.exists(), "{} is missing: cargo build --example lab", lab.display());
    let mut command = Command::new(lab);
    command.args(arguments).process_group(0);
    command
}

/// Starts a lab with two workers, if no other number is given, its events as JSON.
#[track_caller]
fn start(mode: Mode, further: &[&str]) -> Lab {
    let mode = mode.to_string();
    let own = ["--mode", &mode, "--events", "json", "--listen", "127.0.0.1:0"];
    let workers: &[&str] = if further.contains(&"--workers") { &[] } else { &["--workers", "2"] };
    let mut program = Program::spawn(command(&own).args(workers).args(further));
    let ready = program.line(|line| line.starts_with("listening on "));
    let url = ready.split(' ').nth(2).unwrap().split(',').next().unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    Lab { program, address, ready }
}

impl Lab {
    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        get(&self.address, path).unwrap()
    }

    #[track_caller]
    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The next event of this name.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        let start = format!("{{\"event\":{name:?},");
        serde_json::from_str(&self.program.line(|line| line.starts_with(&start))).unwrap()
    }

    /// Ends it in good order: exit status 0, no process left. Returns the report.
    #[track_caller]
    fn stop(self) -> Value {
        self.program.signal(15);
        self.succeed()
    }

    #[track_caller]
    fn succeed(mut self) -> Value {
        let pid = self.program.pid();
        let status = self.program.wait();
        let errors = self.program.errors();
        assert_eq!(status.code(), Some(0), "{:#?}\n{errors}", self.program.output);
        serve::assert_nobody_left(pid);
        serde_json::from_str(self.program.output.last().unwrap()).unwrap()
    }
}

impl Drop for Lab {
    /// Whatever a failed test leaves.
    fn drop(&mut self) {
        for pid in serve::group(self.program.pid()) {
            support::system::signal(pid, 9);
        }
    }
}
