//! A load on a server, and what the server used for it.

use std::{collections::BTreeMap, time::Duration};

use bimodal::load::{Arrival, Failures, Histogram, Load, Outcome, Request, Until, usage};
use serde::{Deserialize, Serialize};

use crate::{Result, section::time, server::Server};

/// How many points of a distribution's tail are kept.
const TAIL: usize = 60;

/// What came of a load, in seconds, requests and microseconds of CPU time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) completed: u64,
    /// Completed per second.
    pub(crate) per_second: f64,
    /// Failures by kind; kinds without any are left out.
    pub(crate) failures: BTreeMap<String, u64>,
    /// The server's CPU time per completed request; 0 when it was not looked at.
    pub(crate) cpu_us: f64,
    /// Latency, from when a request was due.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// 99 % of the times that the driver itself was late.
    pub(crate) lag: f64,
    /// How much of the time the driver computed: near 1 it is what limits the result.
    pub(crate) driver: f64,
}

impl Measured {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Those of the failures that were not even sent: they waited for a free connection when the time was over.
    pub(crate) fn unsent(&self) -> u64 {
        self.failures.get("unsent").copied().unwrap_or(0)
    }

    /// What came of one class, or of all.
    pub(crate) fn new(outcome: &Outcome, class: Option<usize>) -> Self {
        let class = class.and_then(|class| outcome.classes.get(class));
        let (completed, failures, latency) = match class {
            Some(class) => (class.completed, class.failures, class.latency.clone()),
            None => (outcome.completed(), outcome.failures(), outcome.latency()),
        };
        let seconds = outcome.elapsed.as_secs_f64();
        let at = |quantile| at_quantile(&latency, quantile);
        Self {
            seconds,
            completed,
            per_second: completed as f64 / seconds.max(f64::MIN_POSITIVE),
            failures: by_kind(&failures),
            cpu_us: 0.0,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            lag: at_quantile(&outcome.lag, 0.99),
            driver: outcome.driver_share(1),
        }
    }
}

/// In seconds; 0 of nothing.
fn at_quantile(histogram: &Histogram, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e9
}

/// The kinds of failures that happened.
pub(crate) fn by_kind(failures: &Failures) -> BTreeMap<String, u64> {
    let Failures { connect, reset, closed, timed_out, status, answer, unsent, .. } = *failures;
    let all = [
        ("connect", connect),
        ("reset", reset),
        ("closed", closed),
        ("timed out", timed_out),
        ("status", status),
        ("answer", answer),
        ("unsent", unsent),
    ];
    let happened = all.into_iter().filter(|(_, count)| *count > 0);
    happened.map(|(kind, count)| (kind.to_owned(), count)).collect()
}

/// A load as fast as the server answers.
pub(crate) fn closed(url: &str, connections: usize, time: Duration) -> Result<Load> {
    Ok(Load::new(url)?.connections(connections).until(Until::Elapsed(time)))
}

/// A load at random times, so many per second on average, on so many connections at most.
pub(crate) fn poisson(
    url: &str,
    per_second: f64,
    connections: usize,
    time: Duration,
) -> Result<Load> {
    Ok(closed(url, connections, time)?.arrival(Arrival::Poisson { per_second }))
}

/// A class of requests, by its name.
pub(crate) fn class(name: &str, path: &str) -> Request {
    Request { name: name.to_owned(), ..Request::get(path) }
}

/// Runs a load after a short one that does not count, and reads what the server used for it.
pub(crate) fn with_cpu(server: &Server, load: &Load, warmup: Duration) -> Result<Measured> {
    load.clone().until(Until::Elapsed(warmup)).run()?;
    let before = usage::cpu(server.pid())?;
    let outcome = load.run()?;
    let used = usage::cpu(server.pid())?.since(&before);
    let measured = Measured::new(&outcome, None);
    let cpu_us = used.as_secs_f64() * 1e6 / measured.completed.max(1) as f64;
    Ok(Measured { cpu_us, ..measured })
}

/// A driver that is later than this, in seconds, sees its own lateness in the tails.
const LATE: f64 = 1e-3;

/// What has to be said when the driver of an open loop was late itself, or was what limits the rate.
pub(crate) fn doubt<'a>(all: impl Iterator<Item = &'a Measured>) -> Option<String> {
    let (lag, driver) = all.fold((0.0_f64, 0.0_f64), |(lag, driver), measured| {
        (lag.max(measured.lag), driver.max(measured.driver))
    });
    let lag =
        (lag > LATE).then(|| format!("was up to {} late itself (99 % of the times)", time(lag)));
    let driver =
        (driver > 0.9).then(|| format!("computed for {:.0} % of the time", driver * 100.0));
    let reasons: Vec<_> = lag.into_iter().chain(driver).collect();
    (!reasons.is_empty()).then(|| {
        let reasons = reasons.join(" and ");
        format!("**Doubt:** in at least one cell the driver {reasons}: tails are bounds from above, not the server's alone.")
    })
}

/// The tail of a distribution: a time in seconds, and the part of all that took longer.
pub(crate) fn tail(histogram: &Histogram) -> Vec<(f64, f64)> {
    let count = histogram.len().max(1) as f64;
    let all: Vec<_> = histogram
        .iter_recorded()
        .map(|step| {
            let longer = count - histogram.count_between(0, step.value_iterated_to()) as f64;
            (step.value_iterated_to() as f64 / 1e9, longer / count)
        })
        .filter(|(_, part)| *part > 0.0)
        .collect();
    thinned(&all)
}

/// About as many points, evenly spread over the logarithm of the part that took longer.
fn thinned(all: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let least = all.last().map_or(1.0, |(_, part)| *part);
    let step = least.powf(1.0 / TAIL as f64);
    let (mut kept, mut next) = (Vec::new(), f64::MAX);
    for point in all {
        if point.1 <= next {
            kept.push(*point);
            next = point.1 * step;
        }
    }
    kept
}

/// What happened in a piece of a load's time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// When it began, in seconds from the load's begin.
    pub(crate) at: f64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// The longest latency in it, in seconds.
    pub(crate) slowest: f64,
}

/// A load's timeline in pieces of this length, a multiple of 10 ms.
pub(crate) fn beats(outcome: &Outcome, length: Duration) -> Vec<Beat> {
    let pieces = outcome.timeline.chunks((length.as_millis() as usize / 10).max(1));
    let beat = |ticks: &[bimodal::load::Tick]| Beat {
        at: ticks[0].at.as_secs_f64(),
        completed: ticks.iter().map(|tick| tick.completed).sum(),
        failed: ticks.iter().map(|tick| tick.failed).sum(),
        slowest: ticks.iter().map(|tick| tick.slowest).max().unwrap_or_default().as_secs_f64(),
    };
    pieces.map(beat).collect()
}
