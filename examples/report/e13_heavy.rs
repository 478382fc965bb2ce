//! E13: work that needs the processor, beside requests that do not.

mod found;

use std::time::Duration;

use bimodal::{
    Mode, Scheduling,
    load::{Load, Until},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::Charts,
    child, criterion,
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    plan::{MODES, Plan, interleaved},
    programs::Programs,
    results::Results,
    section::Section,
    server::Server,
};

use found::All;

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
        cells.push(Cell::single(BENCH, plan.millis(46_000, 8_000)));
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
