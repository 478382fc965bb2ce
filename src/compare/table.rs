//! A comparison as text, 90 columns wide.

use std::fmt;

use serde::Serialize;

use super::{
    comparison::{Comparison, Side},
    fault::Fault,
    measure::list,
    verdict::{Finding, Range, chance, ratio},
};

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// So many a second.
    #[serde(rename = "per_second")]
    PerSecond,
}

impl Unit {
    /// A value in the unit that suits its size.
    pub(super) fn show(self, value: f64) -> String {
        let (scale, unit) = self.scale(value);
        format!("{}{unit}", digits(value / scale))
    }

    /// A range in the unit that suits its median.
    fn show_range(self, Range { least, median, most }: Range) -> String {
        let (scale, unit) = self.scale(median);
        let [least, median, most] = [least, median, most].map(|value| digits(value / scale));
        format!("{median} ({least}..{most}){unit}")
    }

    fn scale(self, value: f64) -> (f64, &'static str) {
        match self {
            Self::Microseconds if value < 1e3 => (1.0, " us"),
            Self::Microseconds if value < 1e6 => (1e3, " ms"),
            Self::Microseconds => (1e6, " s"),
            Self::Milliseconds if value < 1e3 => (1.0, " ms"),
            Self::Milliseconds => (1e3, " s"),
            Self::Bytes => ((1 << 20) as f64, " MiB"),
            Self::PerSecond => (1.0, "/s"),
        }
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "nothing was compared: this process is part of something else");
        }
        let Self { workers, connections, rounds, time_s, what, .. } = self;
        writeln!(
            f,
            "{what}: {workers} workers, {connections} connections, {rounds} rounds of {time_s} s a load"
        )?;
        writeln!(
            f,
            "latency and CPU at {:.0} requests/s, from when each was due\n",
            self.rate_per_second
        )?;
        row(f, ["", "process", "thread", "better"].map(String::from))?;
        self.findings.iter().try_for_each(|finding| row(f, finding_cells(finding)))?;
        Fault::ALL.into_iter().try_for_each(|fault| self.blast_rows(f, fault))?;
        let failures = |side: &Side| side.measured(|side| list(&side.failures()));
        row(
            f,
            [
                "failed without a fault".into(),
                failures(&self.process),
                failures(&self.thread),
                String::new(),
            ],
        )?;
        self.notes().iter().try_for_each(|note| write!(f, "\n{note}"))?;
        write!(f, "\n\n{}", self.recommendation)
    }
}

impl Comparison {
    fn blast_rows(&self, f: &mut fmt::Formatter<'_>, fault: Fault) -> fmt::Result {
        let cell = |side: &Side, of: fn(&super::Blast) -> String| {
            let blast = side.blasts.iter().find(|blast| blast.fault == fault);
            blast.map_or_else(|| "not measured".to_owned(), of)
        };
        let mut line = |name: String, of: fn(&super::Blast) -> String| {
            row(f, [name, cell(&self.process, of), cell(&self.thread, of), String::new()])
        };
        line(format!("{fault}: failed"), |blast| format!("{} of {}", blast.failed, blast.due))?;
        line("  full strength after".into(), |blast| {
            blast.full_strength_ms.map_or("never".into(), |time| Unit::Milliseconds.show(time))
        })?;
        line(
            "  the program".into(),
            |blast| {
                if blast.survived { "goes on".into() } else { "ends".into() }
            },
        )
    }

    fn notes(&self) -> Vec<String> {
        let chance = chance(self.rounds) * 100.0;
        let mut notes = vec![format!(
            "Each cell: median (least..most) of the rounds. `better` where these ranges lie apart, which happens by\nchance in {chance:.1} % of figures that do not differ."
        )];
        for (mode, side) in [("process", &self.process), ("thread", &self.thread)] {
            notes.extend(side.failed.iter().map(|cause| format!("{mode}: {cause}")));
            notes.extend(side.broken.iter().map(|cause| format!("{mode}: {cause}")));
            notes.extend(late(mode, side));
            if side.addresses.len() > 1 {
                let all = side.addresses.join(", ");
                notes.push(format!("{mode}: it listens on {all}; the first of TCP was asked"));
            }
        }
        notes
    }
}

/// A warning about latencies that are the load driver's own.
fn late(mode: &str, side: &Side) -> Option<String> {
    let rounds = side.rounds.iter().filter(|round| round.driver_late_us > round.p50_us);
    let most = rounds.map(|round| round.driver_late_us).max_by(f64::total_cmp)?;
    let most = Unit::Microseconds.show(most);
    Some(format!(
        "{mode}: the load driver itself was late by up to {most} in 99 % of its sends, which is in the latencies"
    ))
}

fn finding_cells(finding: &Finding) -> [String; 4] {
    let cell = |range: Option<Range>| {
        range.map_or_else(|| "not measured".into(), |range| finding.unit.show_range(range))
    };
    let better = match (finding.better, finding.process.zip(finding.thread)) {
        (Some(mode), Some((process, thread))) => {
            format!("{mode}, {:.2}x", ratio(process.median, thread.median))
        }
        (None, Some(_)) => "-".into(),
        _ => String::new(),
    };
    [finding.name.into(), cell(finding.process), cell(finding.thread), better]
}

fn row(f: &mut fmt::Formatter<'_>, [name, process, thread, better]: [String; 4]) -> fmt::Result {
    let line = format!("{name:<22} {process:<24} {thread:<24} {better}");
    writeln!(f, "{}", line.trim_end())
}
