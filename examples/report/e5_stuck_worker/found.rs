//! What the cells of E5 found together: its table, its chart, and what follows.

use bimodal::Mode;

use super::{Found, Times, WINDOW};
use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series},
    e1_throughput::style,
    measure,
    plan::{MODES, Plan},
    results::Results,
    section::{Bar, Chart, Decision, Table, time},
    statistics::median,
};

pub(super) struct All {
    quick: bool,
    arms: Vec<(String, Vec<Found>)>,
}

impl All {
    pub(super) fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        let arms = results.arms().into_iter().map(arm).collect::<Result<_>>()?;
        Ok(Self { quick: results.run.quick, arms })
    }

    pub(super) fn times(&self) -> Times {
        Times::of(&Plan { quick: self.quick, mode: None })
    }

    fn at(&self, arm: &str, of: impl Fn(&Found) -> f64) -> f64 {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        median(&rounds.map(of).collect::<Vec<_>>())
    }

    pub(super) fn table(&self) -> Table {
        let head = [
            "arm",
            "stuck: p95 of the others",
            "captured",
            "failed",
            "for ever: p95 of the others",
            "captured",
            "failed",
            "noticed after",
            "replaced after",
        ];
        let mut table = Table::new("", &head);
        for (arm, _) in &self.arms {
            let at = |of: fn(&Found) -> f64| self.at(arm, of);
            let seconds =
                |value: f64| if value.is_nan() { "never".to_owned() } else { time(value) };
            table.row([
                arm.clone(),
                time(at(|found| found.stuck.p95)),
                format!("{:.0}", at(|found| found.stuck.captured as f64)),
                format!("{:.0}", at(|found| found.stuck.measured.failed() as f64)),
                time(at(|found| found.forever.p95)),
                format!("{:.0}", at(|found| found.forever.captured as f64)),
                format!("{:.0}", at(|found| found.forever.measured.failed() as f64)),
                seconds(at(|found| found.detected.unwrap_or(f64::NAN))),
                seconds(at(|found| found.replaced.unwrap_or(f64::NAN))),
            ]);
        }
        table
    }

    /// The slowest request of each 50 ms, under the default policy of each mode and under the hash.
    pub(super) fn chart(&self, charts: &Charts) -> Result<Chart> {
        let wanted =
            ["process/round-robin", "process/reuse-port", "thread/shared", "thread/reuse-port"];
        let series = |(arm, rounds): &(String, Vec<Found>)| {
            wanted.contains(&arm.as_str()).then_some(())?;
            let points = rounds.last()?.timeline.iter();
            let points = points.map(|beat| (beat.at, beat.slowest * 1e3)).collect();
            Some(Series { name: arm.clone(), style: style(arm), points })
        };
        let before = self.times().before as f64 / 1e3;
        let lines = Lines {
            title: "A worker computes for ever: the slowest answer of each 50 ms",
            x: Axis::linear("time, s"),
            y: Axis::log("latency from the intended time, ms"),
            series: self.arms.iter().filter_map(series).collect(),
            marks: vec![(before, "stuck".to_owned())],
        };
        charts.lines("e5-stuck.svg", "the slowest answers while a worker is stuck for ever", &lines)
    }

    /// The most that was captured under the policies by which the primary hands over, in a mode.
    fn captured(&self, mode: Mode) -> Option<f64> {
        let all = ["round-robin", "least-connections", "shared"].map(|policy| {
            let arm = format!("{mode}/{policy}");
            self.at(&arm, |found| found.stuck.captured.max(found.forever.captured) as f64)
        });
        all.into_iter().filter(|captured| !captured.is_nan()).reduce(f64::max)
    }

    /// How many times as many were captured under the hash as under one queue.
    fn hashed(&self, mode: Mode) -> Option<(f64, f64)> {
        let at = |policy| self.at(&format!("{mode}/{policy}"), |found| found.stuck.captured as f64);
        let (hash, queue) = (at("reuse-port"), at("shared"));
        (!hash.is_nan() && !queue.is_nan()).then_some((hash, queue))
    }

    pub(super) fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for mode in MODES {
            if let Some((hash, queue)) = self.hashed(mode) {
                lines.push(format!("{mode}: a worker that is stuck for a while captures {hash:.0} requests under `reuse-port` and {queue:.0} under `shared`."));
            }
            let of_mode = self.arms.iter().filter(|(arm, _)| arm.starts_with(&format!("{mode}/")));
            let rounds: Vec<_> = of_mode.flat_map(|(_, rounds)| rounds).collect();
            if !rounds.is_empty() {
                let of = |of: fn(&Found) -> Option<f64>| {
                    rounds.iter().filter(|found| of(found).is_some()).count()
                };
                lines.push(format!(
                    "{mode}: of {} workers stuck for ever {} were noticed, {} replaced and {} ended; one that did not end goes on computing.",
                    rounds.len(), of(|found| found.detected), of(|found| found.replaced), of(|found| found.ended)
                ));
            }
        }
        let all = self.arms.iter().flat_map(|(_, rounds)| rounds);
        let parts = all.flat_map(|found| [&found.stuck, &found.forever]);
        lines.extend(measure::doubt(parts.map(|part| &part.measured)));
        lines
    }

    pub(super) fn bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for mode in MODES {
            if let Some(captured) = self.captured(mode) {
                bars.push(Bar {
                    aim: format!("{mode}: a stuck worker captures at most its window of {WINDOW} under all policies but `reuse-port`"),
                    measured: format!("{captured:.0}"),
                    met: Some(captured <= WINDOW),
                });
            }
            if let Some((hash, queue)) = self.hashed(mode) {
                bars.push(Bar {
                    aim: format!("{mode}: it captures more under `reuse-port` than under `shared`, the published order"),
                    measured: format!("{hash:.0} against {queue:.0}"),
                    met: Some(hash > queue),
                });
            }
        }
        bars
    }

    pub(super) fn decision(&self) -> Decision {
        let ended = |found: &Found| found.ended.is_some();
        let all_ended = |mode: Mode| {
            let of_mode = self.arms.iter().filter(|(arm, _)| arm.starts_with(&format!("{mode}/")));
            let mut rounds = of_mode.flat_map(|(_, rounds)| rounds).peekable();
            rounds.peek().is_some() && rounds.all(ended)
        };
        let modes: Vec<_> = MODES
            .into_iter()
            .filter(|mode| all_ended(*mode))
            .map(|mode| mode.to_string())
            .collect();
        Decision {
            need: "handlers that may hang for ever".into(),
            mode: if modes.is_empty() { "-".into() } else { modes.join(" or ") },
            scheduling: "any but `reuse-port`".into(),
            why: "where every worker that hung was ended, and its core is free again".into(),
        }
    }
}
