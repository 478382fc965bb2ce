//! What the cells of E13 found together: its tables, its chart, and what follows.

use bimodal::Mode;

use super::{BENCH, Found, INLINE, NOTHING, POOL};
use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series, Style},
    criterion::Run,
    measure::{self, Measured},
    plan::MODES,
    results::Results,
    section::{Bar, Chart, Decision, Table, time},
    statistics::median,
};

/// What the bench has for one and for two threads, with the aim for one: ns per round trip or task.
const BENCHED: [(&str, &str, Option<f64>); 3] = [
    ("round_trip_from_a_loop", "round trip from a loop", Some(6_000.0)),
    ("round_trip_from_a_thread", "round trip from a thread", None),
    ("tasks_from_one_thread", "empty tasks from one thread, each", Some(2_500.0)),
];

/// All rounds by arm, and the bench.
pub(super) struct All {
    arms: Vec<(String, Vec<Found>)>,
    bench: Run,
}

impl All {
    pub(super) fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        let arms = results.arms().into_iter().filter(|arm| *arm != BENCH);
        let arms = arms.map(arm).collect::<Result<_>>()?;
        Ok(Self { arms, bench: Run::of(results, &[BENCH])? })
    }

    pub(super) fn bench_table(&self) -> Table {
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

    pub(super) fn bars(&self) -> Vec<Bar> {
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

    pub(super) fn table(&self) -> Table {
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

    pub(super) fn chart(&self, charts: &Charts) -> Result<Chart> {
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

    pub(super) fn meaning(&self) -> Vec<String> {
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

    pub(super) fn decision(&self) -> Option<Decision> {
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
