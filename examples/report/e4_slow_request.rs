//! E4: what one slow request in 200 does to the fast ones.

use std::time::Duration;

use bimodal::{Scheduling, load::Reuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, BarRow, Bars, Charts, Lines, Series},
    choice,
    e1_throughput::style,
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    model::{Model, quantile},
    plan::{MODES, POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
    server::Server,
    statistics::{interval, median},
};

const WORKERS: usize = 2;
const CONNECTIONS: usize = 512;

/// Requests per second, and how many of them are fast for one that is slow.
const PER_SECOND: f64 = 800.0;
const FAST: u32 = 199;

/// What a slow request computes. The slow ones take 4 % of each worker's time, more than the 1 % above a p99.
const SLOW: f64 = 20e-3;
const SLOW_PATH: &str = "/burn?ms=20";

/// What a fast request takes in the model: about what it costs here, connection included.
const QUICK: f64 = 60e-6;

/// What the published figures have between chance and one queue, at least.
const AIM: f64 = 10.0;

pub(crate) struct SlowRequest;

#[derive(Serialize, Deserialize)]
struct Found {
    fast: Measured,
    slow: Measured,
    /// The tail of the fast ones.
    tail: Vec<(f64, f64)>,
}

impl Experiment for SlowRequest {
    fn id(&self) -> &'static str {
        "E4"
    }

    fn title(&self) -> &'static str {
        "One slow request in 200"
    }

    fn question(&self) -> &'static str {
        "How many fast requests wait behind a slow one that keeps its worker busy?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let expected = length(plan) + Duration::from_millis(250);
        interleaved(&crossed(&POLICIES), plan.either(3, 1), expected)
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &[])?;
        let url = server.url("/plaintext");
        let outcome = measure::poisson(&url, PER_SECOND, CONNECTIONS, length(&bench.plan))?
            .request(FAST, measure::class("fast", "/plaintext"))
            .request(1, measure::class("slow", SLOW_PATH))
            .reuse(Reuse::Close)
            .seed(u64::from(cell.round) + 1)
            .run()?;
        server.stop();
        let tail = measure::tail(&outcome.classes[0].latency);
        let (fast, slow) = (Measured::new(&outcome, Some(0)), Measured::new(&outcome, Some(1)));
        Ok(serde_json::to_value(Found { fast, slow, tail })?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = All::of(results)?;
        Ok(Section {
            setup: format!(
                "Open loop, random times (Poisson), {PER_SECOND} requests per second, a connection each, {WORKERS} workers. One in {} \
                 is `GET {SLOW_PATH}` and keeps its worker's loop busy for 20 ms; the others are `GET /plaintext`, and only they count. \
                 The rounds have different seeds, the arms of a round the same. The model has the same arrivals and policy, \
                 and {} for a fast request.",
                FAST + 1,
                time(QUICK)
            ),
            tables: vec![found.table()],
            charts: found.charts(charts)?,
            meaning: found.meaning(),
            overturn: vec![
                "Slow requests that wait instead of computing: then the loop goes on, and no policy matters.".into(),
                "A slow handler that computes in the pool (E13).".into(),
                "Connections that stay open: the choice is made once per connection, and who shares a worker with a slow request waits \
                 under every policy."
                    .into(),
            ],
            bars: found.bars(),
            decisions: vec![found.decision()],
            notes: "",
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(4_000, 800)
}

/// Latencies of the fast ones in the model, sorted.
fn model(policy: Scheduling) -> Vec<f64> {
    let service = |random: &mut crate::statistics::Random| {
        let is_slow = random.below(FAST as usize + 1) == 0;
        if is_slow { (1, SLOW) } else { (0, QUICK) }
    };
    Model { policy, workers: WORKERS, per_second: PER_SECOND, service: &service }.latencies(0)
}

struct All {
    arms: Vec<(String, Vec<Found>)>,
}

impl All {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        Ok(Self { arms: results.arms().into_iter().map(arm).collect::<Result<_>>()? })
    }

    fn values(&self, arm: &str, of: fn(&Found) -> f64) -> Vec<f64> {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        rounds.map(of).collect()
    }

    fn p99(&self, arm: &str) -> f64 {
        median(&self.values(arm, |found| found.fast.p99))
    }

    fn table(&self) -> Table {
        let head =
            ["fast requests", "p50", "p99", "p99.9", "model p99", "failed", "driver late (p99)"];
        let mut table = Table::new("", &head);
        for (arm, rounds) in &self.arms {
            let at = |of| time(median(&self.values(arm, of)));
            let policy = mode_and_policy(arm).map(|(_, policy)| policy);
            let expected = policy.map(|policy| time(quantile(&model(policy), 0.99)));
            let failed = rounds.iter().map(|found| found.fast.failed() + found.slow.failed());
            table.row([
                arm.clone(),
                at(|found| found.fast.p50),
                at(|found| found.fast.p99),
                at(|found| found.fast.p999),
                expected.unwrap_or_default(),
                failed.sum::<u64>().to_string(),
                at(|found| found.fast.lag),
            ]);
        }
        table
    }

    fn charts(&self, charts: &Charts) -> Result<Vec<Chart>> {
        let row = |(arm, _): &(String, Vec<Found>)| {
            let value = interval(&self.values(arm, |found| found.fast.p99 * 1e3));
            BarRow { name: arm.clone(), style: style(arm), value }
        };
        let bars = Bars {
            title: "Fast requests beside one slow one in 200",
            label: "p99 of the fast ones from the intended time, ms",
            rows: self.arms.iter().map(row).collect(),
        };
        let series = |(arm, rounds): &(String, Vec<Found>)| {
            let tail = &rounds.last()?.tail;
            let points = tail.iter().map(|(time, part)| (time * 1e3, *part)).collect();
            Some(Series { name: arm.clone(), style: style(arm), points })
        };
        let lines = Lines {
            title: "The tail of the fast requests",
            x: Axis::log("time from the intended time, ms"),
            y: Axis::log("part of all fast requests that take longer"),
            series: self.arms.iter().filter_map(series).collect(),
            marks: Vec::new(),
        };
        Ok(vec![
            charts.bars("e4-p99.svg", "p99 of fast requests under each policy", &bars)?,
            charts.lines(
                "e4-tail.svg",
                "how many fast requests take longer than a time",
                &lines,
            )?,
        ])
    }

    /// How many times the p99 under `shared` that under `reuse-port` is, by mode.
    fn chance(&self) -> Vec<(String, f64)> {
        let ratio = |mode| {
            let p99 = |policy| self.p99(&format!("{mode}/{policy}"));
            (format!("{mode}"), p99("reuse-port") / p99("shared"))
        };
        MODES.into_iter().map(ratio).filter(|(_, ratio)| ratio.is_finite()).collect()
    }

    fn best(&self) -> (f64, &str) {
        let all = self.arms.iter().map(|(arm, _)| (self.p99(arm), arm.as_str()));
        all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::NAN, "-/-"))
    }

    fn meaning(&self) -> Vec<String> {
        let expected = quantile(&model(Scheduling::ReusePort), 0.99)
            / quantile(&model(Scheduling::Shared), 0.99);
        let line = |(mode, ratio): (String, f64)| {
            format!(
                "{mode}: under `reuse-port` the p99 of the fast ones is {ratio:.1} times that under `shared`; in the model {expected:.1} times."
            )
        };
        let mut lines: Vec<_> = self.chance().into_iter().map(line).collect();
        let (p99, arm) = self.best();
        lines.push(format!("The shortest p99 has `{arm}`: {}.", time(p99)));
        let all = self.arms.iter().flat_map(|(_, rounds)| rounds);
        lines.extend(measure::doubt(all.map(|found| &found.fast)));
        lines
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |(mode, ratio): (String, f64)| Bar {
            aim: format!(
                "{mode}: p99 of the fast ones under `reuse-port` at least {AIM} times that under `shared`, the published order"
            ),
            measured: format!("{ratio:.1} times"),
            met: Some(ratio >= AIM),
        };
        self.chance().into_iter().map(bar).collect()
    }

    fn decision(&self) -> Decision {
        let best = choice::least(self.arms.iter().map(|(arm, _)| (self.p99(arm), arm.as_str())));
        let why =
            format!("p99 of the others {}, the shortest; or the pool (E13)", time(best.value));
        best.decision("now and then a handler that computes for long", &why)
    }
}
