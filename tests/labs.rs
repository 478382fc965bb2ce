//! The exercises of `examples/labs` as programs, in both modes: what happens, not how fast.
//!
//! Each is judged by its last line, which `--json` adds.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
mod support;

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use bimodal::Mode;
use serde_json::{Value, json};
use support::{Scenario, Scene, both, program::Program, wait_until};

const SCENARIOS: &[Scenario] = &[
    both("catalogue", catalogue),
    both("question", question),
    both("killed", killed),
    both("blast_radius", blast_radius),
    both("endless_loop", endless_loop),
    both("memory_leak", memory_leak),
    both("descriptors", descriptors),
    both("herd", herd),
    both("head_of_line", head_of_line),
    both("reload", reload),
    both("false_sharing", false_sharing),
    both("messages", messages),
    both("coordinated_omission", coordinated_omission),
];

fn main() -> ExitCode {
    support::run(SCENARIOS, &[])
}

/// Every exercise is listed, here and in the index; what is none is refused.
fn catalogue(scene: &Scene) {
    let told = Program::spawn(Command::new(program()).arg("list")).succeed();
    let names: Vec<_> =
        told.iter().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 8, "{told:#?}");
    let index = include_str!("../examples/labs/README.md");
    for name in names {
        assert!(
            index.contains(&format!("--example labs -- {name}`")),
            "{name} is not in the index"
        );
    }
    let mut nothing = labs(scene, &["nothing"]);
    assert!(!nothing.wait().success());
    assert!(nothing.errors().contains("no such exercise"));
}

/// The question and its choices come first, then the table, what it is, and why.
fn question(scene: &Scene) {
    let told = labs(scene, &["blast-radius"]).succeed();
    let at = |text: &str| {
        let found = told.iter().position(|line| line.starts_with(text));
        found.unwrap_or_else(|| panic!("no {text:?} in {told:#?}"))
    };
    let parts =
        ["blast-radius", "Which of the", "  a) ", "  b) ", "It runs ...", "  fault", "It is "];
    assert!(parts.map(at).is_sorted(), "{told:#?}");
    assert!(at("It is ") < at("To try next: "), "{told:#?}");
}

/// Whenever it is killed, its server and their workers go with it.
fn killed(scene: &Scene) {
    const SIGINT: i32 = 2;
    const SIGKILL: i32 = 9;
    for signal in [SIGINT, SIGKILL] {
        let program = labs(scene, &["endless-loop"]);
        let group = program.pid();
        let least = if scene.is_process() { 4 } else { 2 };
        wait_until("the exercise's server", || serve::group(group).len() >= least);
        program.signal(signal);
        serve::assert_nobody_left(group);
    }
}

fn blast_radius(scene: &Scene) {
    let figures = as_expected(scene, "blast-radius");
    let damages = figures["damages"].as_array().unwrap();
    let ends = ["101", "6 (SIGABRT)", "3"];
    for (damage, end) in damages.iter().zip(ends) {
        assert!(damage["status"].as_str().unwrap().contains(end), "{damage}");
        let all = !scene.is_process() && damage["fault"] != "panic";
        assert_eq!((&damage["own"], &damage["lost_of_own"]), (&json!(3), &json!(3)), "{damage}");
        assert_eq!(damage["lost_of_others"], json!(if all { 9 } else { 0 }), "{damage}");
        assert_eq!(damage["program_ended"], json!(all), "{damage}");
        assert_eq!(damage["new_client_answered"], json!(!all), "{damage}");
    }
    assert_eq!(damages.len(), ends.len(), "{figures}");
}

fn endless_loop(scene: &Scene) {
    let figures = as_expected(scene, "endless-loop");
    let (status, abandoned, own) = match scene.mode {
        Mode::Process => ("signal 6 (SIGABRT)", 0, json!({ "answered": 0, "cut": 3, "silent": 0 })),
        Mode::Thread => ("abandoned", 1, json!({ "answered": 0, "cut": 0, "silent": 3 })),
    };
    assert_eq!(figures["status"], status, "{figures}");
    assert_eq!(figures["abandoned"], abandoned, "{figures}");
    assert_eq!(figures["own"], own, "{figures}");
    assert_eq!(figures["others"]["cut"], 0, "{figures}");
    assert_eq!(figures["new_clients_answered"], true, "{figures}");
}

fn memory_leak(scene: &Scene) {
    let figures = as_expected(scene, "memory-leak");
    assert_eq!(
        (&figures["replaced"], &figures["leaked_mib"]),
        (&json!(4), &json!(128)),
        "{figures}"
    );
    assert!(figures["recycled"].as_u64() >= Some(4), "{figures}");
    let grown = figures["grown_mib"].as_u64().unwrap();
    assert!(if scene.is_process() { grown < 32 } else { grown > 96 }, "{figures}");
}

fn descriptors(scene: &Scene) {
    let figures = as_expected(scene, "descriptors");
    assert!(figures["leaked"].as_str().unwrap().ends_with("(os error 24)"), "{figures}");
    assert_eq!(figures["known"], json!({ "answered": 8, "waiting": 0, "failed": 0 }), "{figures}");
    let new = match scene.mode {
        Mode::Process => json!({ "answered": 8, "waiting": 0, "failed": 0 }),
        Mode::Thread => json!({ "answered": 0, "waiting": 8, "failed": 0 }),
    };
    assert_eq!(figures["new"], new, "{figures}");
}

fn herd(scene: &Scene) {
    let figures = as_expected(scene, "herd");
    // One more asked for the counts.
    for (when, connections) in [("plain", 200), ("idle", 201), ("busy", 209)] {
        let counts = figures[when].as_array().unwrap();
        let taken = counts.iter().map(|count| count["connections"].as_u64().unwrap());
        assert_eq!((counts.len(), taken.sum::<u64>()), (4, connections), "{figures}");
    }
    let [plain, cluster] = [0, 1].map(|at| figures["woken_by_one"][at].as_f64().unwrap());
    assert!(plain > cluster + 1.0, "the cluster wakes a herd, too: {figures}");
}

fn head_of_line(scene: &Scene) {
    let figures = as_expected(scene, "head-of-line");
    let policies = [&figures["round_robin"], &figures["shared"]];
    let names = policies.map(|fast| (fast["policy"].as_str(), fast["requests"].as_u64()));
    assert_eq!(names, [(Some("round-robin"), Some(32)), (Some("shared"), Some(32))], "{figures}");
    assert!(policies[0]["waited"].as_u64() > policies[1]["waited"].as_u64(), "{figures}");
}

fn reload(scene: &Scene) {
    let figures = as_expected(scene, "reload");
    for run in ["reloaded", "restarted"] {
        let [requests, answered, failed] =
            ["requests", "answered", "failed"].map(|column| figures[run][column].as_u64().unwrap());
        assert!(requests == answered + failed && answered > 0, "{figures}");
    }
    assert_eq!(figures["reloaded"]["failed"], 0, "{figures}");
    let started = ["reloaded", "restarted"].map(|run| figures[run]["workers"].as_u64().unwrap());
    assert_eq!(started, [6, 4], "{figures}");
}

fn false_sharing(scene: &Scene) {
    let figures = figures(scene, "false-sharing").1;
    assert!(figures["workers"].as_u64() >= Some(2), "{figures}");
    assert_eq!(figures["additions"]["counted"], figures["additions"]["due"], "{figures}");
    for way in ["adjacent", "apart", "together"] {
        assert!(figures["ns"][way].as_f64() > Some(0.0), "{figures}");
    }
}

fn messages(scene: &Scene) {
    let figures = figures(scene, "messages").1;
    assert_eq!(figures["counted"], figures["due"], "{figures}");
    let workers = figures["workers"].as_u64().unwrap();
    assert_eq!(figures["due"][0], json!(3 * workers * 5_000), "{figures}");
    assert!(figures["ns"]["message"].as_f64() > Some(0.0), "{figures}");
}

fn coordinated_omission(scene: &Scene) {
    let figures = as_expected(scene, "coordinated-omission");
    let [closed, open] = [&figures["closed"], &figures["open"]];
    assert_eq!((&closed["failed"], &open["failed"]), (&json!(0), &json!(0)), "{figures}");
    assert_eq!(open["requests"], 700, "{figures}");
    let long = [closed, open].map(|report| report["long"].as_u64().unwrap());
    assert!(long[0] >= 1 && long[1] > 10 * long[0], "{figures}");
}

/// Runs an exercise whose outcome no machine can change; returns its figures.
#[track_caller]
fn as_expected(scene: &Scene, exercise: &str) -> Value {
    let (expected, figures) = figures(scene, exercise);
    assert!(expected, "{figures}");
    figures
}

/// Runs an exercise; whether it came out as expected, and its figures.
#[track_caller]
fn figures(scene: &Scene, exercise: &str) -> (bool, Value) {
    let program = labs(scene, &[exercise, "--yes", "--json"]);
    let group = program.pid();
    let told = program.succeed();
    serve::assert_nobody_left(group);
    let last: Value = serde_json::from_str(told.last().unwrap()).unwrap();
    assert_eq!(last["exercise"], exercise);
    assert_eq!(last["mode"], scene.mode.to_string());
    let known = last["as_expected"] == json!(last["seen"] == last["expected"]);
    assert!(known, "{last}");
    (last["as_expected"] == true, last["figures"].clone())
}

fn labs(scene: &Scene, args: &[&str]) -> Program {
    let mut command = Command::new(program());
    command.args(args).args(["--mode", &scene.mode.to_string()]);
    Program::spawn(command.process_group(0))
}

/// Where the example is. A plain `cargo test` builds it; one of `--test labs` alone does not.
fn program() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.ancestors().nth(2).unwrap().join("examples/labs")
}
