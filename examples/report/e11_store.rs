//! E11: values by key that all workers share, by where they are.

use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series, Style},
    criterion::{self, Figure, Run},
    experiment::{Bench, Cell, Experiment},
    plan::Plan,
    programs::Programs,
    results::Results,
    section::{Chart, Decision, Section, Table, count},
};

const BACKENDS: [(&str, &str); 3] =
    [("memory", "memory (threads only)"), ("lmdb", "LMDB"), ("redis", "Redis on the same machine")];

/// Lengths of the values, in bytes.
const SIZES: [u32; 3] = [64, 1 << 10, 64 << 10];

pub(crate) struct Stores;

impl Experiment for Stores {
    fn id(&self) -> &'static str {
        "E11"
    }

    fn title(&self) -> &'static str {
        "Values by key"
    }

    fn question(&self) -> &'static str {
        "What does a read or a write of a shared value cost: in the memory that threads share, in LMDB, in Redis?"
    }

    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell> {
        let there = |backend: &str| backend != "redis" || programs.rival("redis-server").is_some();
        let backends = BACKENDS.iter().filter(|(backend, _)| there(backend));
        let expected = plan.millis(12_000, 2_000);
        backends.map(|(backend, _)| Cell::single(backend, expected)).collect()
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let run = criterion::run("store", &format!("^store/{}/95_5", cell.arm), bench)?;
        Ok(serde_json::to_value(run)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found(Run::of(results, &results.arms())?);
        Ok(Section {
            setup: "`cargo bench --bench store`: one thread per core, at least two, reads and writes 1000 keys, 95 to 5, \
                    each call after the answer to the one before. The figure is the time of all over the calls of all; in \
                    brackets Criterion's 95 % interval of the median. Redis runs on this machine, over a Unix socket, and \
                    writes nothing to the disk."
                .to_owned(),
            tables: vec![found.table()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "More writes: LMDB takes one writer at a time, and each write waits for a commit.".to_owned(),
                "Callers that do not wait for each answer: Redis then answers many per wake-up.".to_owned(),
                "Values that must outlive the machine's failure: then what is flushed to the disk decides, and memory \
                 is no choice."
                    .to_owned(),
            ],
            bars: Vec::new(),
            decisions: found.decision().into_iter().collect(),
            notes: "",
        })
    }
}

struct Found(Run);

impl Found {
    fn get(&self, backend: &str, size: u32) -> Option<Figure> {
        self.0.get(&format!("store/{backend}/95_5_of_{size}_bytes"))
    }

    fn table(&self) -> Table {
        let head = ["per operation; operations per second", "64 B", "1 KiB", "64 KiB"];
        let mut table = Table::new("", &head);
        for (backend, words) in BACKENDS {
            let cell = |size: u32| match self.get(backend, size) {
                Some(figure) => {
                    format!("{}; {}/s", figure.cell(), count(1e9 / figure.median))
                }
                None => "-".to_owned(),
            };
            table.row([words.to_owned()].into_iter().chain(SIZES.map(cell)));
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let series = BACKENDS.iter().enumerate().map(|(at, (backend, words))| {
            let point = |size: &u32| {
                let figure = self.get(backend, *size)?;
                Some((f64::from(*size), figure.median / 1e3))
            };
            let points = SIZES.iter().filter_map(point).collect();
            Series { name: (*words).to_owned(), style: Style::other(at), points }
        });
        let lines = Lines {
            title: "Reads and writes of values by key, 95 to 5",
            x: Axis::log("bytes of a value"),
            y: Axis::log("us per operation"),
            series: series.collect(),
            marks: Vec::new(),
        };
        charts.lines(
            "e11-store.svg",
            "microseconds per operation against the length of the value",
            &lines,
        )
    }

    fn times(&self, backend: &str, size: u32) -> Option<f64> {
        Some(self.get(backend, size)?.median / self.get("memory", size)?.median)
    }

    fn meaning(&self) -> Vec<String> {
        let [small, _, large] = SIZES;
        let line = |(backend, words): &(&str, &str)| {
            let (at_small, at_large) = (self.times(backend, small)?, self.times(backend, large)?);
            let trend = if at_large > at_small { "grows" } else { "shrinks" };
            Some(format!(
                "{words} takes {at_small:.1} times what memory takes with {small} B and {at_large:.1} times with 64 KiB: what \
                 threads gain {trend} with the length of the values."
            ))
        };
        BACKENDS.iter().skip(1).filter_map(line).collect()
    }

    fn decision(&self) -> Option<Decision> {
        let times = self.times("lmdb", SIZES[1])?;
        let (mode, why) = if times > 1.0 {
            (
                "thread; processes with LMDB",
                format!("LMDB takes {times:.1} times as long with 1 KiB"),
            )
        } else {
            ("either", format!("LMDB takes {times:.1} times what memory takes with 1 KiB"))
        };
        Some(Decision {
            need: "values that all workers read often".to_owned(),
            mode: mode.to_owned(),
            scheduling: "any".to_owned(),
            why,
        })
    }
}
