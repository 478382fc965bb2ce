//! What the cells of E7 found together: its table, its charts, and what follows.

use std::collections::BTreeMap;

use bimodal::Mode;

use super::{BEAT, CONNECTIONS, FAULTS, FRESH, Found, LEAKED_MIB, Times, WORKERS};
use crate::{
    Result,
    chart::{Axis, Charts, Grid, GridCell, Lines, Series, Shade, Style},
    measure::Beat,
    plan::MODES,
    results::Results,
    section::{Bar, Chart, Decision, Table, time},
    statistics::median,
};

/// All rounds by arm.
pub(super) struct All(BTreeMap<String, Vec<Found>>);

impl All {
    pub(super) fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        Ok(Self(results.arms().into_iter().map(arm).collect::<Result<_>>()?))
    }

    fn rounds(&self, mode: Mode, fault: &str) -> &[Found] {
        self.0.get(&format!("{mode}/{fault}")).map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds; NaN without any.
    fn at(&self, mode: Mode, fault: &str, of: impl Fn(&Found) -> f64) -> f64 {
        median(&self.rounds(mode, fault).iter().map(of).collect::<Vec<_>>())
    }

    /// The rounds' worst.
    fn most(&self, mode: Mode, fault: &str, of: impl Fn(&Found) -> u64) -> Option<u64> {
        self.rounds(mode, fault).iter().map(of).max()
    }

    /// Whether the program ended in any round.
    fn ends(&self, mode: Mode, fault: &str) -> bool {
        self.rounds(mode, fault).iter().any(|found| found.ended)
    }

    fn restored(&self, mode: Mode, fault: &str) -> String {
        match self.at(mode, fault, |found| found.restored.unwrap_or(f64::NAN)) {
            _ if self.ends(mode, fault) => "never".to_owned(),
            seconds if seconds.is_nan() => "nobody replaced".to_owned(),
            seconds => time(seconds),
        }
    }

    /// MiB.
    fn grown(&self, mode: Mode, fault: &str) -> f64 {
        let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
        self.at(mode, fault, |found| found.grown.map_or(f64::NAN, mib))
    }

    pub(super) fn table(&self) -> Table {
        let head = [
            "fault",
            "mode",
            "survivors",
            "failed",
            "of",
            "failures by kind",
            "connections lost",
            "full strength after",
            "new answered",
            "memory grown, MiB",
        ];
        let mut table =
            Table::new("Medians over the rounds; the kinds are those of the last:", &head);
        for (fault, _) in FAULTS {
            for mode in MODES {
                if let Some(last) = self.rounds(mode, fault).last() {
                    table.row(self.row(mode, fault, last));
                }
            }
        }
        table
    }

    fn row(&self, mode: Mode, fault: &str, last: &Found) -> Vec<String> {
        let at = |of: fn(&Found) -> f64| format!("{:.0}", self.at(mode, fault, of));
        let kinds = last.failures.iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let grown = self.grown(mode, fault);
        vec![
            fault.to_owned(),
            mode.to_string(),
            format!("{} of {WORKERS}", at(|found| found.survivors() as f64)),
            at(|found| found.failed() as f64),
            at(|found| found.scheduled as f64),
            if kinds.is_empty() { "none".to_owned() } else { kinds },
            at(|found| found.lost_connections as f64),
            self.restored(mode, fault),
            format!("{} of {FRESH}", at(|found| found.fresh as f64)),
            if grown.is_nan() { "-".to_owned() } else { format!("{grown:.0}") },
        ]
    }

    pub(super) fn matrix(&self, charts: &Charts) -> Result<Chart> {
        let row = |(fault, _): &(&str, &str)| {
            ((*fault).to_owned(), MODES.map(|mode| self.grid_cell(mode, fault)).into())
        };
        let grid = Grid {
            title: "Who survives, and what clients lose",
            columns: MODES.map(|mode| mode.to_string()).to_vec(),
            rows: FAULTS.iter().map(row).collect(),
        };
        charts.grid(
            "e7-isolation.svg",
            "survivors and failed requests of each fault in both modes",
            &grid,
        )
    }

    fn grid_cell(&self, mode: Mode, fault: &str) -> GridCell {
        let [survivors, failed, fresh] =
            [Found::survivors, Found::failed, |found: &Found| found.fresh]
                .map(|of| self.at(mode, fault, |found| of(found) as f64));
        let grown = self.grown(mode, fault);
        let left = format!("{survivors:.0} of {WORKERS} left");
        let (words, shade) = match () {
            () if survivors.is_nan() => ("not run".to_owned(), Shade::Unknown),
            () if self.ends(mode, fault) => {
                (format!("all end, {failed:.0} requests lost"), Shade::Bad)
            }
            () if fresh < FRESH as f64 => (format!("{left}, no new connections"), Shade::Bad),
            () if grown > LEAKED_MIB / 2.0 => (format!("{left}, {grown:.0} MiB kept"), Shade::Some),
            () if failed > 0.0 => (format!("{left}, {failed:.0} requests lost"), Shade::Some),
            () => (format!("{left}, no request lost"), Shade::Good),
        };
        GridCell { words, shade }
    }

    pub(super) fn timeline(&self, charts: &Charts, quick: bool) -> Result<Chart> {
        let series = MODES.map(|mode| {
            let beats = self.rounds(mode, "abort").last().map_or(&[][..], |found| &found.timeline);
            let rate = |beat: &Beat| (beat.at, beat.completed as f64 / BEAT.as_secs_f64());
            // The last one is not whole.
            let whole = beats.iter().take(beats.len().saturating_sub(1));
            let points = whole.map(rate).collect();
            Series { name: mode.to_string(), style: Style::mode(mode), points }
        });
        let lines = Lines {
            title: "One worker of four aborts under load",
            x: Axis::linear("time, s"),
            y: Axis::linear("answers per second"),
            series: series.into(),
            marks: vec![(Times::of(quick).before as f64 / 1e3, "abort".to_owned())],
        };
        charts.lines(
            "e7-crash.svg",
            "answers per second before and after an abort, in both modes",
            &lines,
        )
    }

    pub(super) fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for mode in MODES {
            let run = FAULTS.iter().filter(|(fault, _)| !self.rounds(mode, fault).is_empty());
            let run: Vec<_> = run.map(|(fault, _)| *fault).collect();
            let ends = run.iter().filter(|fault| self.ends(mode, fault)).copied();
            let ends: Vec<_> = ends.collect();
            if !run.is_empty() {
                let which =
                    if ends.is_empty() { String::new() } else { format!(" ({})", ends.join(", ")) };
                lines.push(format!(
                    "{mode}: {} of {} faults end the whole program{which}.",
                    ends.len(),
                    run.len()
                ));
            }
        }
        lines.extend(["panic", "abort", "spin"].iter().filter_map(|fault| self.compare(fault)));
        for mode in MODES {
            let fresh = self.at(mode, "leak-fd", |found| found.fresh as f64);
            if !fresh.is_nan() {
                lines.push(format!(
                    "{mode}: when one worker has taken all descriptors that it can, {fresh:.0} of {FRESH} new connections are answered."
                ));
            }
            let grown = self.grown(mode, "leak-memory");
            if !grown.is_nan() {
                lines.push(format!("{mode}: of {LEAKED_MIB} MiB that leak {grown:.0} MiB are still taken in the end."));
            }
        }
        lines
    }

    /// What both modes lose by a fault.
    fn compare(&self, fault: &str) -> Option<String> {
        let lost = |mode| {
            let failed = self.at(mode, fault, |found| found.failed() as f64);
            let share =
                self.at(mode, fault, |found| found.failed() as f64 / found.scheduled as f64);
            (!failed.is_nan()).then(|| format!("{failed:.0} requests ({:.1} %)", share * 100.0))
        };
        let [process, thread] =
            MODES.map(|mode| lost(mode).map(|lost| (lost, self.restored(mode, fault))));
        let ((process, process_back), (thread, thread_back)) = (process?, thread?);
        Some(format!(
            "{fault}: processes lose {process}, back at full strength: {process_back}; threads lose {thread}, back: {thread_back}."
        ))
    }

    pub(super) fn bars(&self) -> Vec<Bar> {
        let crashes = ["abort", "segfault", "stack-overflow", "exit"];
        let lost = crashes
            .iter()
            .filter_map(|fault| self.most(Mode::Process, fault, |found| found.lost_connections));
        let lost = lost.max();
        let panics = self.most(Mode::Thread, "panic", |found| found.lost_connections);
        let ended = crashes.iter().chain(&["panic"]).any(|fault| self.ends(Mode::Process, fault));
        let share = (CONNECTIONS / WORKERS) as u64;
        let bar = |what: &str, lost: Option<u64>, ended: bool| Bar {
            aim: format!(
                "E7: {what} costs no more than its worker's share of {share} connections, and nobody else ends"
            ),
            measured: lost.map_or("-".into(), |lost| {
                format!("{lost} connections{}", if ended { ", the program ended" } else { "" })
            }),
            met: lost.map(|lost| lost <= share && !ended),
        };
        vec![
            bar("the crash of a worker process", lost, ended),
            bar("the panic of a worker thread", panics, self.ends(Mode::Thread, "panic")),
        ]
    }

    pub(super) fn decision(&self) -> Option<Decision> {
        let held =
            |mode: &Mode| !self.rounds(*mode, "abort").is_empty() && !self.ends(*mode, "abort");
        let modes: Vec<_> = MODES.iter().filter(|mode| held(mode)).map(Mode::to_string).collect();
        let mode = (!modes.is_empty()).then(|| modes.join(" or "))?;
        Some(Decision {
            need: "handlers that may crash: native code, deep recursion, `abort` on failure"
                .to_owned(),
            mode,
            scheduling: "any".to_owned(),
            why: "an abort ends one worker, and the others serve on".to_owned(),
        })
    }
}
