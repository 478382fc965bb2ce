//! One arm's figures, and what a fault does to one.
//!
//! Runs in the comparing program. Each function starts an arm, loads it and ends it: nothing of an arm is left for the
//! next.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{
    Fault, Options,
    arm::{Arm, Place},
    child::Purpose,
};
use crate::{
    clock,
    config::Mode,
    error::{Error, ErrorKind, Result},
    load::{Arrival, Load, Outcome, Progress, Until, usage},
};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A fault is watched for this long at least, however short the measurements are.
const LEAST_WATCH: Duration = Duration::from_secs(1);

/// How long an arm whose requests failed is given to end, if that is why.
const SETTLE: Duration = Duration::from_millis(500);

/// What one arm showed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Round {
    /// Requests per second at full load.
    pub capacity_per_second: f64,
    /// Half of the requests at the rate took no longer than this, in microseconds from when each was due.
    pub p50_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p999_us: f64,
    /// CPU time of all processes of the arm per answered request at the rate, in microseconds.
    pub cpu_us_per_request: f64,
    /// Memory of all processes of the arm after the load, what they share counted once, in bytes (PSS, proc(5)).
    pub pss_bytes: f64,
    /// Of that, memory that belongs to one process alone, in bytes.
    pub private_bytes: f64,
    /// From the start of the cluster until all its workers listened, in milliseconds. What the program did before is
    /// not in it.
    pub start_ms: f64,
    /// Requests at the rate that were answered as they should.
    pub answered: u64,
    /// Requests that failed, warm-up excluded, by kind; kinds that did not occur are left out.
    pub failures: BTreeMap<String, u64>,
    /// How late the load driver itself was in 99 % of its sends at the rate, in microseconds.
    pub driver_late_us: f64,
    /// Workers that ended meanwhile, and how.
    pub ended: Vec<String>,
}

/// What a fault did to an arm under load.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Blast {
    /// The fault.
    pub fault: Fault,
    /// Whether the program was still there when the load ended.
    pub survived: bool,
    /// How the program ended, if it did.
    pub exit: Option<String>,
    /// Requests that were due from the order of the fault on, which a worker follows within 20 ms.
    pub due: u64,
    /// Of those, requests that failed.
    pub failed: u64,
    /// The failures of the whole load, by kind.
    pub failures: BTreeMap<String, u64>,
    /// From the fault until every worker listened again, in milliseconds; absent if that did not happen.
    pub full_strength_ms: Option<f64>,
}

/// Requests per second at full load.
pub(super) fn capacity(options: &Options, mode: Mode, workers: usize) -> Result<f64> {
    let mut arm = Arm::start(options, mode, workers, Purpose::Measure)?;
    let outcome = closed(options, &mut arm)?;
    arm.finish();
    Ok(outcome.per_second())
}

/// An arm of its own, at full load and then at the rate.
pub(super) fn round(
    options: &Options,
    mode: Mode,
    workers: usize,
    rate: f64,
) -> Result<(Round, Place)> {
    let mut arm = Arm::start(options, mode, workers, Purpose::Measure)?;
    let full = closed(options, &mut arm)?;
    let before = usage::cpu(arm.pid())?;
    let load = open(options, arm.place.address, rate)?.until(Until::Elapsed(options.time));
    let open = answered(load.run()?, &mut arm)?;
    let cpu = usage::cpu(arm.pid())?.since(&before);
    let memory = usage::memory(arm.pid())?;
    let round = Round {
        start_ms: arm.place.start.as_secs_f64() * 1e3,
        pss_bytes: memory.pss as f64,
        private_bytes: memory.private as f64,
        ended: std::mem::take(&mut arm.ended),
        ..Round::of(&full, &open, cpu)
    };
    let place = arm.place.clone();
    arm.finish();
    Ok((round, place))
}

impl Round {
    /// What the loads say; the rest is zero.
    fn of(full: &Outcome, open: &Outcome, cpu: Duration) -> Self {
        let latency = open.latency();
        let quantile = |at| microseconds(latency.value_at_quantile(at));
        Self {
            capacity_per_second: full.per_second(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / open.completed() as f64,
            pss_bytes: 0.0,
            private_bytes: 0.0,
            start_ms: 0.0,
            answered: open.completed(),
            failures: by_kind([full, open]),
            driver_late_us: microseconds(open.lag.value_at_quantile(0.99)),
            ended: Vec::new(),
        }
    }
}

/// An arm at the rate, one of whose workers commits a fault after a third of the time.
pub(super) fn blast(
    options: &Options,
    mode: Mode,
    workers: usize,
    rate: f64,
    fault: Fault,
) -> Result<Blast> {
    let mut arm = Arm::start(options, mode, workers, Purpose::Break)?;
    let time = options.time.max(LEAST_WATCH);
    let load = open(options, arm.place.address, rate)?.until(Until::Elapsed(time));
    let running = load.start()?;
    if !arm.listen_until(clock::now() + time / 3)? {
        return Err(arm.lost("before a fault was ordered"));
    }
    let before = running.progress();
    arm.commit(fault)?;
    let outcome = running.wait()?;
    let restored = arm.restored_until(clock::now() + options.listen_within)?;
    let blast = Blast::of(fault, arm.exit(), restored, &outcome, &before);
    arm.finish();
    Ok(blast)
}

impl Blast {
    /// What a load says of a fault before which so much had happened.
    fn of(
        fault: Fault,
        exit: Option<String>,
        restored: Option<Duration>,
        outcome: &Outcome,
        before: &Progress,
    ) -> Self {
        let (due, failed) = (outcome.scheduled(), outcome.failures().total());
        Self {
            fault,
            survived: exit.is_none(),
            exit,
            due: due.saturating_sub(before.completed + before.failed),
            failed: failed.saturating_sub(before.failed),
            failures: by_kind([outcome]),
            full_strength_ms: restored.map(|restored| restored.as_secs_f64() * 1e3),
        }
    }
}

fn closed(options: &Options, arm: &mut Arm) -> Result<Outcome> {
    let load = load(options, arm.place.address)?.warmup(options.warmup);
    answered(load.until(Until::Elapsed(options.time)).run()?, arm)
}

fn open(options: &Options, address: SocketAddr, per_second: f64) -> Result<Load> {
    Ok(load(options, address)?.arrival(Arrival::Poisson { per_second }))
}

fn load(options: &Options, address: SocketAddr) -> Result<Load> {
    let load = Load::new(&format!("http://{address}{}", options.path))?;
    let requests = options.requests.iter().cloned();
    let load = requests.fold(load, |load, (weight, request)| load.request(weight, request));
    Ok(load.connections(options.connections).timeout(PATIENCE))
}

/// The outcome, if the arm is still there and has answered.
fn answered(outcome: Outcome, arm: &mut Arm) -> Result<Outcome> {
    let settle = if outcome.failures().total() > 0 { SETTLE } else { Duration::ZERO };
    if !arm.listen_until(clock::now() + settle)? {
        return Err(arm.lost("under load"));
    }
    if outcome.completed() > 0 {
        return Ok(outcome);
    }
    let text = format!(
        "no request was answered as it should: {}; choose requests that the app answers, with `path` or `request`",
        list(&by_kind([&outcome]))
    );
    Err(Error::new(ErrorKind::Start, text))
}

/// Failures by kind, without those that did not occur.
fn by_kind<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (kind, count) in outcomes.into_iter().flat_map(|outcome| outcome.failures().by_kind()) {
        *all.entry(kind.to_owned()).or_default() += count;
    }
    all.retain(|_, count| *count > 0);
    all
}

/// Counts by kind, for a person.
pub(super) fn list(kinds: &BTreeMap<String, u64>) -> String {
    let each: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if each.is_empty() { "none".into() } else { each.join(", ") }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}
