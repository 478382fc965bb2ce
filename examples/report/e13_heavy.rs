//! E13: work that needs the processor, beside requests that do not.

use std::time::Duration;

use bimodal::{
    Mode, Scheduling,
    load::{Load, Until},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series, Style},
    child,
    criterion::{self, Run},
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    plan::{MODES, Plan, interleaved},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
    server::Server,
    statistics::median,
};

const WORKERS: usize = 2;

/// Light requests per second, and their connections.
const LIGHT: (f64, usize) = (200.0, 16);

/// Connections that ask for one task after the other, and how long a task computes, in ms.
const ASKING: usize = 2;
const TASK_MS: u64 = 20;

/// The arms of each mode: what stands beside the light requests.
const NOTHING: &str = "nothing";
const INLINE: &str = "inline";
const POOL: &str = "pool";

/// The arm of Node's server, whose pool is one of `worker_threads`.
const NODE: &str = "node worker_threads/pool";
const NODE_SCRIPT: &str = "node_worker_threads.js";

/// The arm of the pool's own bench.
const BENCH: &str = "bench";

/// What the bench has for one and for two threads, with the aim for one: ns per round trip or task.
const BENCHED: [(&str, &str, Option<f64>); 3] = [
    ("round_trip_from_a_loop", "round trip from a loop", Some(6_000.0)),
    ("round_trip_from_a_thread", "round trip from a thread", None),
    ("tasks_from_one_thread", "empty tasks from one thread, each", Some(2_500.0)),
];

pub(crate) struct Heavy;

#[derive(Serialize, Deserialize)]
struct Found {
    light: Measured,
    /// Time in seconds and the part of light requests that took longer.
    tail: Vec<(f64, f64)>,
    tasks: Option<Measured>,
}

impl Experiment for Heavy {
    fn id(&self) -> &'static str {
        "E13"
    }

    fn title(&self) -> &'static str {
        "Heavy tasks beside light requests"
    }

    fn question(&self) -> &'static str {
        "What do light requests wait for while others compute: in the handler, or in the pool?"
    }

    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell> {
        let arms =
            |mode: Mode| [NOTHING, INLINE, POOL].map(|what| (format!("{mode}/{what}"), Some(mode)));
        let mut arms = MODES.map(arms).concat();
        if programs.rival("node").is_some() && programs.contenders(NODE_SCRIPT).exists() {
            arms.push((NODE.to_owned(), None));
        }
        let each = length(plan) + Duration::from_millis(300);
        let mut cells = interleaved(&arms, plan.either(3, 1), each);
        let expected = plan.millis(46_000, 8_000);
        cells.push(Cell { arm: BENCH.to_owned(), mode: None, round: 0, expected });
        cells
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        if cell.arm == BENCH {
            return Ok(serde_json::to_value(criterion::run("pool", "", bench)?)?);
        }
        let (_, what) = cell.arm.split_once('/').ok_or("an arm without a task")?;
        let server = match cell.mode {
            Some(mode) => start(bench, mode)?,
            None => start_node(bench)?,
        };
        let length = length(&bench.plan);
        let tasks = match heavy(&server, what, length)? {
            Some(load) => Some(load.start()?),
            None => None,
        };
        let url = server.url("/plaintext");
        let light = measure::poisson(&url, LIGHT.0, LIGHT.1, length)?.run()?;
        let tasks = tasks.map(|running| running.wait()).transpose()?;
        server.stop();
        Ok(serde_json::to_value(Found {
            light: Measured::new(&light, None),
            tail: measure::tail(&light.latency()),
            tasks: tasks.map(|outcome| Measured::new(&outcome, None)),
        })?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let all = All::of(results)?;
        Ok(Section {
            setup: format!(
                "`lab --workers {WORKERS} --scheduling round-robin`; light are {} requests per second `GET /plaintext` at random times \
                 in an open loop on {} connections. Beside them {ASKING} connections ask for one task after the other: `/burn?ms={TASK_MS}` \
                 computes in the handler (inline), `&pool=1` in the pool, which has {WORKERS} threads in all in both modes: one for each \
                 process, two that the threads share. A task computes for a time, not for an amount: it does less where \
                 it has to share a core. Node's server (`{NODE_SCRIPT}`) has one loop and as many threads in its pool. The second table \
                 is `cargo bench --bench pool`, which measures rayon in the same run; in brackets Criterion's 95 % interval of the median.",
                LIGHT.0, LIGHT.1
            ),
            tables: vec![all.table(), all.bench_table()],
            charts: vec![all.chart(charts)?],
            meaning: all.meaning(),
            overturn: vec![
                "Cores that nobody else needs: here loops, pool and client share all of them, so light requests also wait \
                 for the kernel's scheduler."
                    .to_owned(),
                "Tasks that are shorter than a hand-over to the pool costs: some microseconds.".to_owned(),
            ],
            bars: all.bars(),
            decisions: all.decision().into_iter().collect(),
            notes: include_str!("notes/e13.md"),
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(2_500, 800)
}

fn start(bench: &Bench<'_>, mode: Mode) -> Result<Server> {
    let threads = match mode {
        Mode::Process => "1".to_owned(),
        Mode::Thread => WORKERS.to_string(),
    };
    let more = ["--pool-threads", &threads];
    Server::lab(bench.programs, mode, Scheduling::RoundRobin, WORKERS, &more)
}

fn start_node(bench: &Bench<'_>) -> Result<Server> {
    let node = bench.programs.rival("node").ok_or("node is absent")?;
    let mut command = child::command(node);
    command.arg(bench.programs.contenders(NODE_SCRIPT));
    command.args(["--listen", "127.0.0.1:0", "--workers", &WORKERS.to_string()]);
    Server::start(&mut command)
}

/// The load of tasks, if the arm has one.
fn heavy(server: &Server, what: &str, length: Duration) -> Result<Option<Load>> {
    let path = match what {
        NOTHING => return Ok(None),
        INLINE => format!("/burn?ms={TASK_MS}"),
        POOL => format!("/burn?ms={TASK_MS}&pool=1"),
        other => return Err(format!("no arm does {other}").into()),
    };
    let load = Load::new(&server.url(&path))?.connections(ASKING);
    Ok(Some(load.until(Until::Elapsed(length))))
}

struct All {
    arms: Vec<(String, Vec<Found>)>,
    bench: Run,
}

impl All {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        let arms = results.arms().into_iter().filter(|arm| *arm != BENCH);
        let arms = arms.map(arm).collect::<Result<_>>()?;
        Ok(Self { arms, bench: Run::of(results, &[BENCH])? })
    }

    fn bench_table(&self) -> Table {
        let head = ["the pool", "1 thread", "rayon", "2 threads", "rayon"];
        let mut table = Table::new("", &head);
        for (group, words, _) in BENCHED {
            let cells = ["1/bimodal", "1/rayon", "2/bimodal", "2/rayon"];
            let cells = cells.map(|cell| self.bench.cell(&format!("{group}/{cell}")));
            table.row([words.to_owned()].into_iter().chain(cells));
        }
        for mode in MODES {
            let cell = self.bench.cell(&format!("round_trip_in_a_worker/{mode}"));
            let none = || "-".to_owned();
            table.row([format!("round trip in a worker, {mode}"), cell, none(), none(), none()]);
        }
        table
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |(group, words, aim): &(&str, &str, Option<f64>)| {
            let (name, aim) = (format!("{group}/1/bimodal"), (*aim)?);
            Some(Bar {
                aim: format!("E13: pool of one thread, {words}, {}", time(aim / 1e9)),
                measured: self.bench.cell(&name),
                met: self.bench.get(&name).and_then(|figure| figure.per(1.0).at_most(aim)),
            })
        };
        BENCHED.iter().filter_map(bar).collect()
    }

    fn rounds(&self, arm: &str) -> &[Found] {
        self.arms.iter().find(|(name, _)| name == arm).map_or(&[], |(_, rounds)| rounds)
    }

    fn at(&self, arm: &str, of: impl Fn(&Found) -> f64) -> f64 {
        median(&self.rounds(arm).iter().map(of).collect::<Vec<_>>())
    }

    fn p99(&self, mode: Mode, what: &str) -> Option<f64> {
        let p99 = self.at(&format!("{mode}/{what}"), |found| found.light.p99);
        p99.is_finite().then_some(p99)
    }

    fn tasks(&self, arm: &str) -> f64 {
        let rate = |found: &Found| found.tasks.as_ref().map_or(f64::NAN, |tasks| tasks.per_second);
        self.at(arm, rate)
    }

    fn table(&self) -> Table {
        let head = ["arm", "light: p50", "p99", "p99.9", "failed", "tasks/s", "tasks failed"];
        let mut table = Table::new("Medians over the rounds:", &head);
        for (arm, _) in &self.arms {
            let latency = |of: fn(&Measured) -> f64| time(self.at(arm, |found| of(&found.light)));
            let tasks = self.tasks(arm);
            let failed = |found: &Found| found.tasks.as_ref().map_or(0, Measured::failed) as f64;
            table.row([
                arm.clone(),
                latency(|light| light.p50),
                latency(|light| light.p99),
                latency(|light| light.p999),
                format!("{:.0}", self.at(arm, |found| found.light.failed() as f64)),
                if tasks.is_nan() { "-".to_owned() } else { format!("{tasks:.0}") },
                format!("{:.0}", self.at(arm, failed)),
            ]);
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let series = self.arms.iter().filter_map(|(arm, rounds)| {
            let (mode, what) = arm.split_once('/')?;
            let dash = match what {
                NOTHING => Some((2, 5)),
                INLINE => Some((9, 4)),
                _ => None,
            };
            let style = match mode.parse() {
                Ok(mode) => Style { dash, ..Style::mode(mode) },
                Err(_) => Style::other(0),
            };
            let points = rounds.last()?.tail.iter().map(|(time, part)| (time * 1e3, *part));
            Some(Series { name: arm.clone(), style, points: points.collect() })
        });
        let lines = Lines {
            title: "Light requests that take longer",
            x: Axis::log("latency from the intended time, ms"),
            y: Axis::log("part of all that took longer"),
            series: series.collect(),
            marks: Vec::new(),
        };
        charts.lines(
            "e13-heavy.svg",
            "tails of light requests beside tasks in the handler and in the pool",
            &lines,
        )
    }

    fn meaning(&self) -> Vec<String> {
        let line = |mode: Mode| {
            let (alone, inline, pool) =
                (self.p99(mode, NOTHING)?, self.p99(mode, INLINE)?, self.p99(mode, POOL)?);
            let tasks = [INLINE, POOL].map(|what| self.tasks(&format!("{mode}/{what}")));
            Some(format!(
                "{mode}: the p99 of light requests is {} alone, {} beside tasks in the handler and {} beside tasks in the pool, \
                 which is {:.2} times that of the handler; {:.0} and {:.0} tasks per second.",
                time(alone),
                time(inline),
                time(pool),
                pool / inline,
                tasks[0],
                tasks[1]
            ))
        };
        let mut lines: Vec<_> = MODES.into_iter().filter_map(line).collect();
        let rounds = self.arms.iter().flat_map(|(_, rounds)| rounds);
        lines.extend(measure::doubt(rounds.map(|found| &found.light)));
        lines
    }

    fn decision(&self) -> Option<Decision> {
        let gain = |mode: Mode| Some(self.p99(mode, INLINE)? / self.p99(mode, POOL)?);
        let gains = MODES.map(|mode| Some((mode, gain(mode)?)));
        let better: Vec<_> = gains.into_iter().flatten().filter(|(_, gain)| *gain > 1.0).collect();
        let why = better.iter().map(|(mode, gain)| format!("{gain:.1} times ({mode})"));
        (!better.is_empty()).then(|| Decision {
            need: "some requests compute for long".to_owned(),
            mode: better.iter().map(|(mode, _)| mode.to_string()).collect::<Vec<_>>().join(" or "),
            scheduling: "any, with `Worker::pool`".to_owned(),
            why: format!(
                "the p99 of the others is lower than with tasks in the handler: {}",
                why.collect::<Vec<_>>().join(", ")
            ),
        })
    }
}
