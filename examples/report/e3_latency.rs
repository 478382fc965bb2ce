//! E3: latency against load, for a service that is almost nothing and for one of a millisecond.

use std::time::Duration;

use bimodal::{
    Scheduling,
    load::{Load, Reuse},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series, Style},
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    model::{Model, quantile},
    plan::{MODES, POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
    server::Server,
    statistics::{Random, median},
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
        let found = Found::of(results)?;
        Ok(Section {
            setup: format!(
                "Open loop, random times (Poisson), {WORKERS} workers. *Small*: `GET /plaintext` over {KEPT} connections that stay open; \
                 100 % is what the same server did in a closed loop just before. *Long*: `GET /burn?ms=N`, of 16 requests \
                 12 compute for 1 ms, 3 for 3 ms and 1 for 8 ms, each on a connection of its own, so that the policy decides about each; \
                 100 % is {FULL:.0} per second. The model has the same policy, arrivals and service, and nothing else."
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

struct Found {
    arms: Vec<(String, Vec<Sweep>)>,
}

type Which = fn(&Sweep) -> &Vec<Point>;

impl Found {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        let arms = results.arms().into_iter();
        Ok(Self { arms: arms.map(arm).collect::<Result<_>>()? })
    }

    /// The median over the rounds of a figure at a load; NaN where there is none.
    fn at(&self, arm: &str, which: Which, percent: u32, of: fn(&Point) -> f64) -> f64 {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        let points = rounds.flat_map(which).filter(|point| point.percent == percent);
        median(&points.map(of).collect::<Vec<_>>())
    }

    fn small(&self) -> Table {
        let head: Vec<_> = SMALL.iter().map(|percent| format!("{percent} %")).collect();
        let head: Vec<_> =
            ["small: p50, p99"].into_iter().chain(head.iter().map(String::as_str)).collect();
        let mut table = Table::new("", &head);
        for (arm, _) in &self.arms {
            let cell = |percent| {
                let at = |of| self.at(arm, |sweep| &sweep.small, percent, of);
                format!(
                    "{}, {}",
                    time(at(|point| point.measured.p50)),
                    time(at(|point| point.measured.p99))
                )
            };
            table.row([arm.clone()].into_iter().chain(SMALL.map(cell)));
        }
        table
    }

    fn long(&self) -> Table {
        let head =
            ["long: p50, p99", "30 %", "60 %", "80 %", "90 %", "failed", "driver late (p99)"];
        let mut table = Table::new("", &head);
        for (arm, rounds) in &self.arms {
            let cell = |percent| {
                let at = |of| self.at(arm, |sweep| &sweep.long, percent, of);
                format!(
                    "{}, {}",
                    time(at(|point| point.measured.p50)),
                    time(at(|point| point.measured.p99))
                )
            };
            let points = rounds.iter().flat_map(|sweep| sweep.small.iter().chain(&sweep.long));
            let failed: u64 = points.map(|point| point.measured.failed()).sum();
            let lag = self.at(arm, |sweep| &sweep.long, COMPARED, |point| point.measured.lag);
            let row = [arm.clone()].into_iter().chain(LONG.map(cell));
            table.row(row.chain([failed.to_string(), time(lag)]));
        }
        for policy in POLICIES {
            let cell = |percent| {
                let all = model(policy, percent);
                format!("{}, {}", time(quantile(&all, 0.5)), time(quantile(&all, 0.99)))
            };
            let row = [format!("model, {policy}")].into_iter().chain(LONG.map(cell));
            table.row(row.chain(["".to_owned(), "".to_owned()]));
        }
        table
    }

    fn charts(&self, charts: &Charts) -> Result<Vec<Chart>> {
        Ok(vec![
            charts.lines(
                "e3-small.svg",
                "p99 of small requests against load",
                &self.small_chart(),
            )?,
            charts.lines("e3-long.svg", "p99 of long requests against load", &self.long_chart())?,
            charts.lines(
                "e3-tail.svg",
                "how many long requests take longer than a time",
                &self.tail_chart(),
            )?,
        ])
    }

    fn series(&self, which: Which, percents: &[u32]) -> Vec<Series> {
        let series = |(arm, _): &(String, Vec<Sweep>)| {
            let (mode, policy) = mode_and_policy(arm)?;
            let point = |percent: &u32| {
                (
                    f64::from(*percent),
                    self.at(arm, which, *percent, |point| point.measured.p99) * 1e3,
                )
            };
            let points = percents.iter().map(point).collect();
            Some(Series { name: arm.clone(), style: Style::policy(mode, policy), points })
        };
        self.arms.iter().filter_map(series).collect()
    }

    fn small_chart(&self) -> Lines<'static> {
        Lines {
            title: "Small requests on open connections: p99",
            x: Axis::linear("load, % of the closed loop's rate"),
            y: Axis::log("p99 from the intended time, ms"),
            series: self.series(|sweep| &sweep.small, &SMALL),
            marks: Vec::new(),
        }
    }

    fn long_chart(&self) -> Lines<'static> {
        let mut series = self.series(|sweep| &sweep.long, &LONG);
        for (number, policy) in [Scheduling::Shared, Scheduling::ReusePort].into_iter().enumerate()
        {
            let p99 = |percent| quantile(&model(policy, percent), 0.99) * 1e3;
            let points = LONG.map(|percent| (f64::from(percent), p99(percent))).to_vec();
            series.push(Series {
                name: format!("model, {policy}"),
                style: Style::other(number),
                points,
            });
        }
        Lines {
            title: "Requests that compute for 1, 3 or 8 ms, a connection each: p99",
            x: Axis::linear("load, % of two workers' time"),
            y: Axis::log("p99 from the intended time, ms"),
            series,
            marks: Vec::new(),
        }
    }

    fn tail_chart(&self) -> Lines<'static> {
        let series = |(arm, rounds): &(String, Vec<Sweep>)| {
            let (mode, policy) = mode_and_policy(arm)?;
            let last = rounds.last()?.long.iter().find(|point| point.percent == COMPARED)?;
            let points = last.tail.iter().map(|(time, part)| (time * 1e3, *part)).collect();
            Some(Series { name: arm.clone(), style: Style::policy(mode, policy), points })
        };
        Lines {
            title: "Requests that compute for 1, 3 or 8 ms, 80 % load: the tail",
            x: Axis::log("time from the intended time, ms"),
            y: Axis::log("part of all requests that take longer"),
            series: self.arms.iter().filter_map(series).collect(),
            marks: Vec::new(),
        }
    }

    /// The p99 of long requests at the load that is compared, with the arm, the best first.
    fn order(&self) -> Vec<(f64, &str)> {
        let p99 =
            |arm: &str| self.at(arm, |sweep| &sweep.long, COMPARED, |point| point.measured.p99);
        let mut order: Vec<_> = self.arms.iter().map(|(arm, _)| (p99(arm), arm.as_str())).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order
    }

    /// Whether one queue is better than chance, in every mode that was measured; the ratio of the worst.
    fn chance_over_one_queue(&self) -> Option<f64> {
        let p99 =
            |arm: String| self.at(&arm, |sweep| &sweep.long, COMPARED, |point| point.measured.p99);
        let ratio = |mode| p99(format!("{mode}/reuse-port")) / p99(format!("{mode}/shared"));
        MODES.into_iter().map(ratio).filter(|ratio| ratio.is_finite()).reduce(f64::min)
    }

    fn meaning(&self) -> Vec<String> {
        let order: Vec<_> =
            self.order().iter().map(|(p99, arm)| format!("`{arm}` {}", time(*p99))).collect();
        let mut lines = vec![format!(
            "p99 of long requests at {COMPARED} % load, the shortest first: {}.",
            order.join(", ")
        )];
        if let Some(ratio) = self.chance_over_one_queue() {
            lines.push(format!(
                "Chance (`reuse-port`) has {ratio:.1} times the p99 of one queue (`shared`) at {COMPARED} % load, in the mode where \
                 that is least; in the model {:.1} times.",
                quantile(&model(Scheduling::ReusePort, COMPARED), 0.99)
                    / quantile(&model(Scheduling::Shared, COMPARED), 0.99)
            ));
        }
        let points = self.arms.iter().flat_map(|(_, rounds)| rounds);
        let points = points.flat_map(|sweep| sweep.small.iter().chain(&sweep.long));
        lines.extend(measure::doubt(points.map(|point| &point.measured)));
        lines
    }

    fn bar(&self) -> Bar {
        let ratio = self.chance_over_one_queue();
        Bar {
            aim: format!(
                "at {COMPARED} % load the p99 under `shared` is below that under `reuse-port`, as in the model, in both modes"
            ),
            measured: ratio.map_or("-".into(), |ratio| format!("{ratio:.2} times at least")),
            met: ratio.map(|ratio| ratio > 1.0),
        }
    }

    fn decision(&self) -> Decision {
        let order = self.order();
        let (p99, arm) = order.first().copied().unwrap_or((f64::NAN, "-/-"));
        let (mode, policy) = arm.split_once('/').unwrap_or(("-", "-"));
        Decision {
            need: "even latency of requests that compute, a connection each".into(),
            mode: format!("either (best here: {mode})"),
            scheduling: format!("`{policy}`"),
            why: format!("p99 {} at {COMPARED} % load, the shortest", time(p99)),
        }
    }
}
