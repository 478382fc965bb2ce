//! What the figures of two modes say about each other, and what follows from it.
//!
//! Pure: figures in, words out. Two modes differ in a figure when the ranges of their rounds do not overlap; how often
//! that happens by chance is [`chance`].

use std::fmt;

use serde::Serialize;

use super::{
    comparison::Side,
    measure::{Blast, Round, list},
    table::Unit,
};
use crate::config::Mode;

/// From this ratio of medians on, a difference in latency, CPU time or capacity counts for a recommendation.
const COUNTS: f64 = 1.1;

/// From this ratio on, and from so many bytes on, a difference in memory does.
const MEMORY_COUNTS: (f64, f64) = (2.0, (64 << 20) as f64);

/// A figure that is measured in each round.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    of: fn(&Round) -> f64,
    more_is_better: bool,
    weight: Weight,
}

/// Whether a difference counts for a recommendation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Ratio,
    Memory,
    /// It is shown only.
    None,
}

const fn less(name: &'static str, unit: Unit, of: fn(&Round) -> f64, weight: Weight) -> Measure {
    Measure { name, unit, of, more_is_better: false, weight }
}

pub(super) const MEASURES: [Measure; 8] = [
    less("p50", Unit::Microseconds, |round| round.p50_us, Weight::Ratio),
    less("p99", Unit::Microseconds, |round| round.p99_us, Weight::Ratio),
    less("p99.9", Unit::Microseconds, |round| round.p999_us, Weight::Ratio),
    less("CPU per request", Unit::Microseconds, |round| round.cpu_us_per_request, Weight::Ratio),
    Measure {
        name: "capacity",
        unit: Unit::PerSecond,
        of: |round| round.capacity_per_second,
        more_is_better: true,
        weight: Weight::Ratio,
    },
    less("memory (PSS)", Unit::Bytes, |round| round.pss_bytes, Weight::Memory),
    less("memory (private)", Unit::Bytes, |round| round.private_bytes, Weight::None),
    less("start to listening", Unit::Milliseconds, |round| round.start_ms, Weight::None),
];

/// One figure in both modes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was measured.
    pub name: &'static str,
    /// `us`, `ms`, `bytes` or `per_second`.
    pub unit: Unit,
    /// With processes; absent if they could not be measured.
    pub process: Option<Range>,
    /// With threads.
    pub thread: Option<Range>,
    /// Which mode is better beyond the noise: the ranges do not overlap. Absent if none is.
    #[serde(serialize_with = "mode_by_name")]
    pub better: Option<Mode>,
    /// Whether the difference counts for the recommendation.
    pub counts: bool,
}

/// The values of a figure in the rounds of one mode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Range {
    /// The smallest.
    pub least: f64,
    /// The one in the middle; of an even number, the mean of the two.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

/// Which mode to choose, and why.
///
/// Processes, unless threads are better at something that counts: a latency, CPU time or capacity whose medians are 1.1
/// times apart or more, or memory that is twice as much and 64 MiB more; each beyond the noise. Where each mode is better
/// at something that counts, neither; where the app runs in one mode only, that one.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Recommendation {
    /// The mode; absent where each is better at something that counts.
    #[serde(serialize_with = "mode_by_name")]
    pub mode: Option<Mode>,
    /// Why, each with its figures.
    pub reasons: Vec<String>,
    /// What else could decide and was not looked at.
    pub not_measured: Vec<String>,
}

impl Range {
    /// The range of so many values; `None` of none.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { least, median, most })
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.least <= other.most && other.least <= self.most
    }
}

/// Every figure in both modes.
pub(super) fn findings(process: &Side, thread: &Side) -> Vec<Finding> {
    MEASURES.iter().map(|measure| measure.compare(process, thread)).collect()
}

impl Measure {
    fn compare(&self, process: &Side, thread: &Side) -> Finding {
        let range = |side: &Side| Range::of(side.rounds.iter().map(self.of).collect());
        let (process, thread) = (range(process), range(thread));
        let better = process.zip(thread).and_then(|(process, thread)| self.better(process, thread));
        let counts = better.is_some() && process.zip(thread).is_some_and(|both| self.counts(both));
        Finding { name: self.name, unit: self.unit, process, thread, better, counts }
    }

    fn better(&self, process: Range, thread: Range) -> Option<Mode> {
        let process_wins = (process.median < thread.median) != self.more_is_better;
        let winner = if process_wins { Mode::Process } else { Mode::Thread };
        (!process.overlaps(&thread)).then_some(winner)
    }

    fn counts(&self, (process, thread): (Range, Range)) -> bool {
        let ratio = ratio(process.median, thread.median);
        match self.weight {
            Weight::None => false,
            Weight::Ratio => ratio >= COUNTS,
            Weight::Memory => {
                let difference = (process.median - thread.median).abs();
                ratio >= MEMORY_COUNTS.0 && difference >= MEMORY_COUNTS.1
            }
        }
    }
}

/// The larger over the smaller.
pub(super) fn ratio(one: f64, other: f64) -> f64 {
    one.max(other) / one.min(other).max(f64::MIN_POSITIVE)
}

/// How often the ranges of so many rounds of two modes that do not differ lie apart: all values of one are below
/// those of the other, in two of the ways in which the values can be ordered.
pub(super) fn chance(rounds: usize) -> f64 {
    let orders = (1..=rounds).fold(1.0, |orders, n| orders * (rounds + n) as f64 / n as f64);
    2.0 / orders
}

/// What follows from the figures.
pub(super) fn recommend(process: &Side, thread: &Side, findings: &[Finding]) -> Recommendation {
    let mut reasons = Vec::new();
    let mode = match (&process.failed, &thread.failed) {
        (Some(cause), None) => one_works(Mode::Thread, cause, &mut reasons),
        (None, Some(cause)) => one_works(Mode::Process, cause, &mut reasons),
        _ => weigh(findings, &mut reasons),
    };
    [Mode::Process, Mode::Thread].into_iter().zip([process, thread]).for_each(|(mode, side)| {
        reasons.extend(side.blasts.iter().map(|blast| tell_blast(mode, blast)));
        reasons.extend(failing(mode, side));
    });
    Recommendation { mode, reasons, not_measured: not_measured() }
}

fn one_works(mode: Mode, cause: &str, reasons: &mut Vec<String>) -> Option<Mode> {
    let other = other(mode);
    reasons.push(format!("{other}: the app could not be measured: {cause}"));
    Some(mode)
}

/// Processes keep more to themselves, so they are recommended unless threads are better at something that counts.
fn weigh(findings: &[Finding], reasons: &mut Vec<String>) -> Option<Mode> {
    let wins = |mode| findings.iter().filter(move |finding| finding.better == Some(mode));
    let counted = |mode| wins(mode).any(|finding| finding.counts);
    for mode in [Mode::Process, Mode::Thread] {
        reasons.extend(wins(mode).map(|finding| tell_finding(mode, finding)));
    }
    let equal: Vec<_> = findings.iter().filter(|finding| finding.better.is_none()).collect();
    if !equal.is_empty() {
        let names: Vec<_> = equal.iter().map(|finding| finding.name).collect();
        reasons.push(format!("no difference beyond the noise: {}", names.join(", ")));
    }
    let (choice, why) = match (counted(Mode::Process), counted(Mode::Thread)) {
        (true, true) => {
            (None, "each mode is better at something that counts: which counts more decides")
        }
        (_, false) => (
            Some(Mode::Process),
            "threads are better at nothing that counts here, and processes keep an abort, a segmentation fault and a stack overflow to one worker",
        ),
        (false, true) => (
            Some(Mode::Thread),
            "threads are better at what counts; an abort, a segmentation fault or a stack overflow in the app, or in what it links, would end the whole program: if that can happen, choose processes",
        ),
    };
    reasons.insert(0, why.into());
    choice
}

fn tell_finding(mode: Mode, finding: &Finding) -> String {
    let Finding { name, unit, counts, .. } = finding;
    let (Some(process), Some(thread)) = (finding.process, finding.thread) else {
        return format!("{mode} is better: {name}");
    };
    let (ours, theirs) = match mode {
        Mode::Process => (process.median, thread.median),
        Mode::Thread => (thread.median, process.median),
    };
    let (ours, theirs, ratio) = (unit.show(ours), unit.show(theirs), ratio(ours, theirs));
    let weight = if *counts { "" } else { "; it does not count" };
    format!("{mode} is better: {name}, {ours} against {theirs}, {ratio:.2} times{weight}")
}

fn tell_blast(mode: Mode, blast: &Blast) -> String {
    let Blast { fault, failed, due, .. } = blast;
    let kinds = list(&blast.failures);
    let program = match &blast.exit {
        Some(exit) => format!("the program ended ({exit})"),
        None => "the program went on".into(),
    };
    let strength = match blast.full_strength_ms {
        Some(time) => format!("at full strength after {}", Unit::Milliseconds.show(time)),
        None => "not at full strength again".into(),
    };
    format!(
        "{fault} in {mode} mode: {program}, {failed} of {due} requests failed (of the whole load: {kinds}), {strength}"
    )
}

/// A warning about failures in the rounds.
fn failing(mode: Mode, side: &Side) -> Option<String> {
    let failures = side.failures();
    let ended: usize = side.rounds.iter().map(|round| round.ended.len()).sum();
    if failures.is_empty() && ended == 0 {
        return None;
    }
    let text = list(&failures);
    Some(format!("{mode}: without a fault, {text} requests failed and {ended} workers ended"))
}

fn not_measured() -> Vec<String> {
    [
        "other requests, connections that come and go, more load than the app can bear",
        "a hang, a leak, memory after hours; memory and state that workers share",
        "clients on other machines: the load came from this one and took its share of the cores",
        "reloads and deployments; limits and privileges that only a process can have of its own",
    ]
    .map(String::from)
    .into()
}

fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Process => Mode::Thread,
        Mode::Thread => Mode::Process,
    }
}

fn mode_by_name<S: serde::Serializer>(mode: &Option<Mode>, to: S) -> Result<S::Ok, S::Error> {
    mode.as_ref().map(Mode::to_string).serialize(to)
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Some(mode) => writeln!(f, "Recommended: {mode}")?,
            None => writeln!(f, "Recommended: neither by itself")?,
        }
        self.reasons.iter().try_for_each(|reason| writeln!(f, "  * {reason}"))?;
        writeln!(f, "Not measured:")?;
        self.not_measured.iter().try_for_each(|what| writeln!(f, "  * {what}"))
    }
}
