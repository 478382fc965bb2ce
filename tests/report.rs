//! The report's program: what it writes, and that it goes on where it was ended, with nothing left behind.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use support::{system, wait_until};

/// SIGINT and SIGKILL, by their numbers on Linux.
const INTERRUPT: i32 = 2;
const KILL: i32 = 9;

/// Four cells, which take a second or two.
const CELLS: usize = 4;

#[test]
fn a_run_leaves_results_a_chart_and_a_section() {
    let place = Place::new("whole");
    let status = place.start("thread").wait().unwrap();
    assert!(status.success(), "{status}");
    let records = place.records();
    assert_eq!(records.len(), CELLS);
    for record in &records {
        assert_eq!((&record["run"]["quick"], &record["round"]), (&Value::Bool(true), &0.into()));
        let stolen = record["stolen"].as_f64().unwrap();
        assert!((0.0..1.0).contains(&stolen), "{stolen} of all time");
        let columns = record["value"].as_array().unwrap();
        for column in columns {
            let workers = column["workers"].as_array().unwrap().iter();
            let sum: u64 = workers.map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(sum, column["connections"].as_u64().unwrap(), "{column}");
        }
    }
    let report = fs::read_to_string(place.folder.join("REPORT.md")).unwrap();
    let all = [
        "## E6. ",
        "machine's host took",
        "| thread/least-connections |",
        "](e6-balance.svg)",
        "## Threats",
    ];
    for wanted in all {
        assert!(report.contains(wanted), "no {wanted:?} in {report}");
    }
    let chart = fs::read_to_string(place.folder.join("e6-balance.svg")).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("thread/reuse-port"), "{chart}");
}

#[test]
fn a_killed_run_leaves_nothing_and_goes_on() {
    let place = Place::new("killed");
    let mut child = place.start("process");
    wait_until("the first cell", || !place.lines().is_empty());
    system::signal(child.id(), KILL);
    child.wait().unwrap();
    wait_until("the end of all that it started", || place.processes() == 0);

    let kept = place.lines();
    assert!(kept.len() < CELLS, "it was too late to interrupt it");
    let torn = place.lines().concat() + r#"{"arm":"process/sha"#;
    fs::write(place.results(), torn).unwrap();
    let status = place.start("process").wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(place.lines()[..kept.len()], kept, "a cell was run again");
    let mut arms: Vec<_> =
        place.records().iter().map(|record| record["arm"].as_str().unwrap().to_owned()).collect();
    arms.sort();
    arms.dedup();
    assert_eq!((arms.len(), place.lines().len()), (CELLS, CELLS));
}

#[test]
fn an_interrupted_run_ends_at_once_with_all_that_it_started() {
    let place = Place::new("interrupted");
    let mut child = place.start("process");
    wait_until("a server that runs", || place.processes() > 2);
    system::signal(child.id(), INTERRUPT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait_until("the end of all that it started", || place.processes() == 0);
}

/// What is measured must add up: data that is shared is there once, private data once per worker, and each idle connection
/// takes something.
#[test]
fn memory_adds_up_and_fresh_forgets_what_cannot_be_read() {
    let place = Place::new("memory");
    fs::create_dir(&place.folder).unwrap();
    fs::write(place.folder.join("E14.jsonl"), "no record\n").unwrap();
    assert!(!place.start_only("E14", "thread", &[]).wait().unwrap().success());
    assert!(place.start_only("E14", "thread", &["--fresh"]).wait().unwrap().success());
    let mib = |arm: &str| place.value("E14", arm)["pss"].as_u64().unwrap() >> 20;
    let none = mib("thread/4/none");
    assert!((60..100).contains(&(mib("thread/4/shared") - none)), "shared data");
    assert!((4 * 60..4 * 80).contains(&(mib("thread/4/private") - none)), "data of each");
    let idle = place.value("E14", "thread/idle");
    assert!(idle["pss"].as_u64() > idle["before"].as_u64(), "{idle}");
    let report = fs::read_to_string(place.folder.join("REPORT.md")).unwrap();
    for wanted in ["## E14. ", "a worker more takes", "](e14-memory.svg)"] {
        assert!(report.contains(wanted), "no {wanted:?} in {report}");
    }
}

/// An abort ends all threads, a panic one.
#[test]
fn faults_end_whom_they_should() {
    let place = Place::new("faults");
    assert!(place.start_only("E7", "thread", &[]).wait().unwrap().success());
    let [abort, panic] = ["thread/abort", "thread/panic"].map(|arm| place.value("E7", arm));
    assert_eq!(abort["ended"], Value::Bool(true), "{abort}");
    assert_eq!((&panic["ended"], &panic["gone"]), (&Value::Bool(false), &1.into()), "{panic}");
    assert!(panic["restored"].as_f64() > Some(0.0), "{panic}");
    let matrix = fs::read_to_string(place.folder.join("e7-isolation.svg")).unwrap();
    assert!(matrix.contains("all end") && matrix.contains("3 of 4 left"), "{matrix}");
}

#[test]
fn the_readme_has_the_decisions_of_the_report() {
    let read = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (readme, report) = (read("README.md"), read("REPORT.md"));
    let table = between(&readme, "<!-- decision-table -->\n", "<!-- /decision-table -->");
    let decisions = between(&report, "## Which mode, which scheduling\n", "\n<a id");
    let (table, decisions) = (choices(table), choices(decisions));
    assert!(table.len() > 10, "{table:?}");
    assert_eq!(table, decisions, "`cargo run --release --example report -- --render` writes both");
    assert!(!report.contains("not to be quoted"), "the figures are of a quick run");
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin).unwrap().1.split_once(end).unwrap().0
}

/// Need, mode and scheduling of each row of a table.
fn choices(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split(" | ").take(3).collect()).collect()
}

/// A folder for results, which goes away with this.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let folder = format!("bimodal-report-{name}-{}", std::process::id());
        Self { folder: std::env::temp_dir().join(folder) }
    }

    /// Starts the cheapest experiment in one mode, with what was built last.
    fn start(&self, mode: &str) -> Child {
        self.start_only("E6", mode, &[])
    }

    fn start_only(&self, id: &str, mode: &str, more: &[&str]) -> Child {
        let program = std::env::current_exe().unwrap();
        let program = program.ancestors().nth(2).unwrap().join("examples/report");
        let mut command = Command::new(program);
        command
            .args(["--quick", "--only", id, "--no-build", "--mode", mode])
            .args(more)
            .arg("--out");
        command.arg(&self.folder).env(MARK, &self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// The value of an arm of this experiment, which has one round.
    fn value(&self, id: &str, arm: &str) -> Value {
        let text = fs::read_to_string(self.folder.join(format!("{id}.jsonl"))).unwrap();
        let mut records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.find(|record| record["arm"] == arm).unwrap()["value"].clone()
    }

    fn results(&self) -> PathBuf {
        self.folder.join("E6.jsonl")
    }

    /// The whole lines of the results, with their ends.
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.results()).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(str::to_owned).collect()
    }

    fn records(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many processes there are that a run for this folder has started, itself included.
    fn processes(&self) -> usize {
        let mark = format!("{MARK}={}", self.folder.display());
        let has_mark = |folder: &Path| {
            let variables = fs::read(folder.join("environ")).unwrap_or_default();
            variables.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| has_mark(&entry.path())).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A variable by which the processes of a run are found.
const MARK: &str = "BIMODAL_TEST_REPORT";
