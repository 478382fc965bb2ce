//! E8: how long a worker takes to start, and how long one that failed is missed.

use bimodal::Mode;
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts, Style},
    criterion::{self, Figure, Run},
    experiment::{Bench, Cell, Experiment},
    plan::{MODES, Plan, interleaved},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
    statistics::Interval,
};

/// The arm of Node's script.
const NODE: &str = "node";

pub(crate) struct Start;

impl Experiment for Start {
    fn id(&self) -> &'static str {
        "E8"
    }

    fn title(&self) -> &'static str {
        "Start and restart"
    }

    fn question(&self) -> &'static str {
        "How long does a worker take from `fork` to `listening`, and how long is one missed that failed?"
    }

    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell> {
        let arms = MODES.map(|mode| (mode.to_string(), Some(mode)));
        let mut cells = interleaved(&arms, plan.either(2, 1), plan.millis(8_000, 2_000));
        if programs.rival("node").is_some() {
            cells.push(Cell::single(NODE, plan.millis(12_000, 3_000)));
        }
        cells
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let run = match cell.mode {
            Some(mode) => criterion::run("startup", &format!("/{mode}$"), bench)?,
            None => {
                let node = bench.programs.rival("node").ok_or("node is absent")?;
                let script = bench.programs.contenders("startup_node.js");
                criterion::script(node, &script, &[bench.plan.either("20", "5")])?
            }
        };
        Ok(serde_json::to_value(run)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found(Run::of(results, &results.arms())?);
        Ok(Section {
            setup: "`cargo bench --bench startup`: the primary forks a worker and waits for its `listening` event; then \
                    a supervised worker is ended by SIGKILL (a process) or by a panic (a thread) and the time to \
                    the `listening` of its replacement is taken, restarts without delay. A process pays for \
                    exec, the dynamic loader and the handshake. In brackets Criterion's 95 % interval of the median, the \
                    widest of all rounds; for Node's script (`benches/contenders/startup_node.js`) the quartiles."
                .to_owned(),
            tables: vec![found.table()],
            charts: found.chart(charts)?.into_iter().collect(),
            meaning: found.meaning(),
            overturn: vec![
                "A larger program: a process loads and relocates it anew, a thread does not. So does a program that \
                 does much in `main` before the cluster starts."
                    .to_owned(),
                "Failures that repeat: then the delay of `Restart` decides, not the start.".to_owned(),
            ],
            bars: vec![
                found.bar("SIGKILL to a replacement process that listens: 10 ms", REPLACED[0], 10.0),
                found.bar("panic to a replacement thread that listens: 2 ms", REPLACED[1], 2.0),
            ],
            decisions: found.decision().into_iter().collect(),
            notes: "",
        })
    }
}

const STARTED: [&str; 2] = ["fork_to_listening/process", "fork_to_listening/thread"];
const REPLACED: [&str; 2] = ["sigkill_to_listening/process", "panic_to_listening/thread"];

const NODE_STARTED: &str = "node cluster fork_to_listening";
const NODE_REPLACED: &str = "node cluster sigkill_to_listening";
const NODE_THREAD: &str = "node worker_threads start_to_message";

/// Nanoseconds of a millisecond.
const MS: f64 = 1e6;

struct Found(Run);

impl Found {
    fn table(&self) -> Table {
        let Self(run) = self;
        let head = ["", "process", "thread", "Node `cluster`", "Node `worker_threads`"];
        let mut table = Table::new("", &head);
        let mut row = |name: &str, ours: [&str; 2], node: [&str; 2]| {
            let ours = ours.map(|name| run.cell(name));
            let node = node.map(|name| run.script_cell(name));
            table.row([name.to_owned()].into_iter().chain(ours).chain(node));
        };
        row(
            "fork to `listening` (a thread of Node: to its first message)",
            STARTED,
            [NODE_STARTED, NODE_THREAD],
        );
        row("failure to a replacement that listens", REPLACED, [NODE_REPLACED, ""]);
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Option<Chart>> {
        let ours = [STARTED, REPLACED].concat();
        let bar = |name: &&str| {
            let mode: Mode = name.rsplit_once('/')?.1.parse().ok()?;
            let value = self.0.get(name)?.per(MS);
            Some(BarRow { name: name.replace('_', " "), style: Style::mode(mode), value })
        };
        let rows: Vec<_> = ours.iter().filter_map(bar).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let bars = Bars { title: "Start and restart", label: "ms, median with its interval", rows };
        charts
            .bars("e8-start.svg", "milliseconds from fork or failure to listening", &bars)
            .map(Some)
    }

    fn get(&self, name: &str) -> Option<Figure> {
        self.0.get(name)
    }

    fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, [process, thread]) in [("To start", STARTED), ("To replace", REPLACED)] {
            if let (Some(process), Some(thread)) = (self.get(process), self.get(thread)) {
                let Interval { value, low, high } = process.times(thread);
                lines.push(format!(
                    "{what} a worker process takes {value:.1} times [{low:.1}, {high:.1}] what a worker thread takes."
                ));
            }
        }
        for (name, node, what) in [
            (STARTED[0], NODE_STARTED, "fork to `listening`"),
            (REPLACED[0], NODE_REPLACED, "SIGKILL to a replacement that listens"),
        ] {
            if let (Some(ours), Some(node)) = (self.get(name), self.0.scripts.get(node)) {
                let times = node.value / ours.per(MS).value;
                lines.push(format!(
                    "{what}: Node's `cluster` takes {times:.0} times as long as a process."
                ));
            }
        }
        lines
    }

    fn bar(&self, aim: &str, name: &str, most_ms: f64) -> Bar {
        let measured = self.get(name);
        Bar {
            aim: aim.to_owned(),
            measured: self.0.cell(name),
            met: measured.map(|figure| figure.per(MS).value <= most_ms),
        }
    }

    fn decision(&self) -> Option<Decision> {
        let [process, thread] = REPLACED.map(|name| self.get(name));
        let (process, thread) = (process?.median, thread?.median);
        let (quicker, slower) = (process.min(thread), process.max(thread));
        Some(Decision {
            need: "a worker that fails is missed as briefly as possible".to_owned(),
            mode: if thread < process { "thread" } else { "process" }.to_owned(),
            scheduling: "any".to_owned(),
            why: format!("missed for {} instead of {}", time(quicker / 1e9), time(slower / 1e9)),
        })
    }
}
