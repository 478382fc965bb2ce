//! E3: latency against load, for requests that take almost nothing and for some that compute for milliseconds.

mod found;

use std::time::Duration;

use bimodal::{
    Scheduling,
    load::{Load, Reuse},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::Charts,
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    model::Model,
    plan::{POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::Section,
    server::Server,
    statistics::Random,
};

const WORKERS: usize = 2;

/// Parts of the capacity, in percent.
const SMALL: [u32; 6] = [10, 30, 50, 70, 85, 95];
const LONG: [u32; 4] = [30, 60, 80, 90];

/// Connections of the small requests, which stay open.
const KEPT: usize = 64;

/// More connections than ever wait, so that none has to wait for a free one.
const ENOUGH: usize = 512;

/// What long requests compute: of every 16 so many for so many milliseconds. Their times vary as much as if they were
/// exponentially distributed (variance over squared mean: 0.96), for which queues are best known.
const MIX: [(u32, u32); 3] = [(12, 1), (3, 3), (1, 8)];

/// The mean of [`MIX`], in seconds.
const SERVICE: f64 = 29.0 / 16.0 * 1e-3;

/// How many long requests per second the workers can compute at all.
const FULL: f64 = WORKERS as f64 / SERVICE;

/// The load at which the policies are compared, and of which the tail is drawn.
const COMPARED: u32 = 80;

pub(crate) struct Latency;

/// What was found at one rate.
#[derive(Serialize, Deserialize)]
struct Point {
    percent: u32,
    measured: Measured,
    /// Times in seconds, and the part of all requests that took longer; only of some points.
    tail: Vec<(f64, f64)>,
}

/// What a cell found: with short requests on open connections, or with long ones on connections of their own.
#[derive(Serialize, Deserialize)]
struct Sweep {
    small: Vec<Point>,
    long: Vec<Point>,
}

impl Experiment for Latency {
    fn id(&self) -> &'static str {
        "E3"
    }

    fn title(&self) -> &'static str {
        "Latency against load"
    }

    fn question(&self) -> &'static str {
        "How long do requests take that come at random times, the closer the load is to what the server can do at all?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let points = length(plan) * SMALL.len() as u32 + long_length(plan) * LONG.len() as u32;
        let expected = capacity_length(plan) + points + Duration::from_millis(200);
        interleaved(&crossed(&POLICIES), plan.either(2, 1), expected)
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &[])?;
        let most = measure::closed(&server.url("/plaintext"), KEPT, capacity_length(&bench.plan))?;
        let capacity = Measured::new(&most.run()?, None).per_second;
        let (small, long) = (length(&bench.plan), long_length(&bench.plan));
        let sweep = Sweep {
            small: sweep(&SMALL, |part| {
                measure::poisson(&server.url("/plaintext"), capacity * part, KEPT, small)
            })?,
            long: sweep(&LONG, |part| long_load(&server, part, long))?,
        };
        server.stop();
        Ok(serde_json::to_value(sweep)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = found::Found::of(results)?;
        Ok(Section {
            setup: format!(
                "Open loop, random times (Poisson), {WORKERS} workers. *Small*: `GET /plaintext` over {KEPT} connections that stay open; \
                 100 % is what the same server did in a closed loop just before. *Long*: `GET /burn?ms=N`, of 16 requests \
                 12 compute for 1 ms, 3 for 3 ms and 1 for 8 ms, each on a connection of its own, so that the policy decides about each; \
                 100 % is {FULL:.0} per second. *Unsent* are requests that still waited for a free connection when the time \
                 was over. The model has the same policy, arrivals and service, and nothing else."
            ),
            tables: vec![found.small(), found.long()],
            charts: found.charts(charts)?,
            meaning: found.meaning(),
            overturn: vec![
                "A client on another machine: the driver and two workers that compute share two cores here, so the last points \
                 show the machine as much as the policy."
                    .into(),
                "More workers: with 8, at 80 % load, the model's p99 under chance is four times that of one queue.".into(),
                "Service times that vary more: every policy but one queue gets worse.".into(),
            ],
            bars: vec![found.bar()],
            decisions: vec![found.decision()],
            notes: "",
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(600, 120)
}

fn long_length(plan: &Plan) -> Duration {
    plan.millis(1_500, 150)
}

fn capacity_length(plan: &Plan) -> Duration {
    plan.millis(400, 100)
}

/// Long requests at a part of what the workers can do.
fn long_load(server: &Server, part: f64, length: Duration) -> Result<Load> {
    let load = measure::poisson(&server.url("/"), part * FULL, ENOUGH, length)?.reuse(Reuse::Close);
    let add = |load: Load, (weight, ms): (u32, u32)| {
        load.request(weight, measure::class(&format!("{ms} ms"), &format!("/burn?ms={ms}")))
    };
    Ok(MIX.into_iter().fold(load, add))
}

/// Measures at each load, a part of the capacity.
fn sweep(percents: &[u32], load: impl Fn(f64) -> Result<Load>) -> Result<Vec<Point>> {
    let point = |percent: &u32| {
        let load = load(f64::from(*percent) / 100.0)?.timeout(Duration::from_secs(5));
        let outcome = load.run()?;
        let latency = outcome.latency();
        let tail = if *percent == COMPARED { measure::tail(&latency) } else { Vec::new() };
        Ok(Point { percent: *percent, measured: Measured::new(&outcome, None), tail })
    };
    percents.iter().map(point).collect()
}

/// The model of long requests under a policy: sorted latencies.
fn model(policy: Scheduling, percent: u32) -> Vec<f64> {
    let service = |random: &mut Random| {
        let mut drawn = random.below(MIX.iter().map(|(weight, _)| *weight as usize).sum());
        for (weight, ms) in MIX {
            match drawn.checked_sub(weight as usize) {
                Some(rest) => drawn = rest,
                None => return (0, f64::from(ms) * 1e-3),
            }
        }
        (0, SERVICE)
    };
    let per_second = FULL * f64::from(percent) / 100.0;
    Model { policy, workers: WORKERS, per_second, service: &service }.latencies(0)
}
