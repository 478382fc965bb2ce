//! E10: what it costs when all workers count together.

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

/// The arm of the store's backends.
const STORE: &str = "store";

/// Ways to count, with the name in tables; those in an `Arc` have no process.
const WAYS: [(&str, &str); 6] = [
    ("per_worker", "a number of each worker's own (`SharedCounter`)"),
    ("atomic_in_region", "one atomic number in a region"),
    ("atomic_in_arc", "one atomic number in an `Arc`"),
    ("mutex_in_region", "`SharedMutex` in a region"),
    ("mutex_in_arc", "`std::sync::Mutex` in an `Arc`"),
    ("message", "a message to the primary"),
];

const STORES: [(&str, &str); 3] = [
    ("memory", "the store in memory"),
    ("lmdb", "the store in LMDB"),
    ("redis", "the store in Redis on the same machine"),
];

/// By how much the region between processes may cost more than the `Arc` between threads.
const AIM: f64 = 1.10;

pub(crate) struct Counter;

impl Experiment for Counter {
    fn id(&self) -> &'static str {
        "E10"
    }

    fn title(&self) -> &'static str {
        "One counter"
    }

    fn question(&self) -> &'static str {
        "What does one increment cost when all workers count together, by where the number is?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let arms = MODES.map(|mode| (mode.to_string(), Some(mode)));
        let mut cells = interleaved(&arms, plan.either(3, 1), plan.millis(18_000, 3_000));
        cells.push(Cell::single(STORE, plan.millis(10_000, 2_000)));
        cells
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let run = match cell.mode {
            Some(mode) => criterion::run("shared_memory", &format!("/{mode}/"), bench)?,
            None => criterion::run("store", "/one_counter$", bench)?,
        };
        Ok(serde_json::to_value(run)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found(Run::of(results, &results.arms())?);
        Ok(Section {
            setup: "`cargo bench --bench shared_memory`, and `--bench store` for the store: one worker per core, at \
                    least two, begin together and count as fast as they can; the time of all is divided by the \
                    increments of all. Between processes a region is a memfd that all have mapped, between threads \
                    plain memory. The store is asked by threads of one process. In brackets Criterion's 95 % interval of \
                    the median, the widest of all rounds."
                .to_owned(),
            tables: vec![found.table()],
            charts: found.chart(charts)?.into_iter().collect(),
            meaning: found.meaning(),
            overturn: vec![
                "More cores: one word that all write is passed from core to core and costs more with each, a number \
                 per worker does not."
                    .to_owned(),
                "Rare increments: what costs here is the contention; without it an atomic number costs as little as \
                 one's own."
                    .to_owned(),
                "Redis over a network, or with a pipeline: the first makes it slower, the second quicker.".to_owned(),
            ],
            bars: vec![found.bar()],
            decisions: found.decision().into_iter().collect(),
            notes: include_str!("notes/e10.md"),
        })
    }
}

/// Three digits that say something, of a ratio.
fn short(ratio: f64) -> String {
    let decimals = if ratio < 1.0 { 3 } else { 2_usize.saturating_sub(ratio.log10() as usize) };
    format!("{ratio:.decimals$}")
}

fn name(mode: Mode, way: &str) -> String {
    format!("one_counter/{mode}/{way}")
}

fn store(backend: &str) -> String {
    format!("store/{backend}/one_counter")
}

struct Found(Run);

impl Found {
    fn get(&self, mode: Mode, way: &str) -> Option<Figure> {
        self.0.get(&name(mode, way))
    }

    fn table(&self) -> Table {
        let mut table = Table::new("Per increment:", &["the number is", "process", "thread"]);
        for (way, words) in WAYS {
            let cells = MODES.map(|mode| self.0.cell(&name(mode, way)));
            table.row([words.to_owned()].into_iter().chain(cells));
        }
        for (backend, words) in STORES {
            // Memory is only one process's; the others are the same from anywhere.
            let cell = self.0.cell(&store(backend));
            let process = if backend == "memory" { "-".to_owned() } else { cell.clone() };
            table.row([words.to_owned(), process, cell]);
        }
        table
    }

    /// Without messages and stores: beside them the others would not be seen.
    fn chart(&self, charts: &Charts) -> Result<Option<Chart>> {
        let quick = || WAYS.iter().filter(|(way, _)| *way != "message");
        let bar = |(way, _): &(&str, &str), mode: Mode| {
            let value = self.get(mode, way)?.per(1.0);
            let name = format!("{mode}, {}", way.replace('_', " "));
            Some(BarRow { name, style: Style::mode(mode), value })
        };
        let rows: Vec<_> =
            quick().flat_map(|way| MODES.map(|mode| bar(way, mode))).flatten().collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let bars = Bars {
            title: "One counter, by all workers",
            label: "ns per increment, median with its interval",
            rows,
        };
        charts
            .bars("e10-counter.svg", "nanoseconds per increment by where the number is", &bars)
            .map(Some)
    }

    /// How many times the `Arc` between threads the memfd between processes costs.
    fn memfd_to_arc(&self) -> Option<Interval> {
        let memfd = self.get(Mode::Process, "atomic_in_region")?;
        Some(memfd.times(self.get(Mode::Thread, "atomic_in_arc")?))
    }

    fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ratio) = self.memfd_to_arc() {
            lines.push(format!(
                "An atomic number in a memfd between processes costs {} against one in an `Arc` between threads.",
                ratio.change()
            ));
        }
        let base = self.get(Mode::Process, "atomic_in_region");
        let others = [
            ("one's own number", self.get(Mode::Process, "per_worker")),
            ("a lock in the region", self.get(Mode::Process, "mutex_in_region")),
            ("a message", self.get(Mode::Process, "message")),
            ("LMDB", self.0.get(&store("lmdb"))),
            ("Redis", self.0.get(&store("redis"))),
        ];
        for (what, other) in others {
            if let (Some(base), Some(other)) = (base, other) {
                let Interval { value, low, high } = other.times(base);
                lines.push(format!(
                    "Between processes {what} costs {} times [{}, {}] what the atomic number costs.",
                    short(value), short(low), short(high)
                ));
            }
        }
        lines
    }

    fn bar(&self) -> Bar {
        let ratio = self.memfd_to_arc();
        Bar {
            aim: "E10: an atomic number in a memfd between processes at most 10 % over one in an `Arc` between threads"
                .to_owned(),
            measured: ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.change()),
            met: ratio.and_then(|ratio| ratio.at_most(AIM)),
        }
    }

    fn decision(&self) -> Option<Decision> {
        let (process, thread) =
            (self.get(Mode::Process, "per_worker")?, self.get(Mode::Thread, "per_worker")?);
        Some(Decision {
            need: "counters that all workers write".to_owned(),
            mode: "either, with a `SharedCounter`".to_owned(),
            scheduling: "any".to_owned(),
            why: format!(
                "{} between processes, {} between threads",
                time(process.median / 1e9),
                time(thread.median / 1e9)
            ),
        })
    }
}
