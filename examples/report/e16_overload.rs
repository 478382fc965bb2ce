//! E16: twice as many requests as can be answered.

use std::{thread, time::Duration};

use bimodal::load::{Load, Outcome, Reuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series},
    choice,
    e1_throughput::style,
    experiment::{Bench, Cell, Experiment},
    machine,
    measure::{self, Beat, by_kind},
    plan::{POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Chart, Decision, Section, Table, count, time},
    server::Server,
    statistics::median,
};

const WORKERS: usize = 2;

/// What a request computes, and how many of them the workers can answer per second at the very most.
const PATH: &str = "/burn?ms=1";
const CAPACITY: f64 = 2_000.0;

/// The load that is there all the time, and what comes on top for a while, as parts of the capacity.
const BASE: f64 = 0.5;
const SURGE: f64 = 1.5;

/// A user who waits for longer has gone.
const TIMEOUT: Duration = Duration::from_secs(1);

/// More connections than can wait within the timeout, for each of the two loads.
const CONNECTIONS: usize = 4_000;

/// A tick of the timelines that are kept.
const BEAT: Duration = Duration::from_millis(50);

pub(crate) struct Overload;

#[derive(Serialize, Deserialize)]
struct Found {
    /// Answers in time per second, before the surge and while it lasted.
    before: f64,
    during: f64,
    /// Seconds from its end until the base load was answered as quickly as before; `None` is not in the time there was.
    recovery: Option<f64>,
    failures: std::collections::BTreeMap<String, u64>,
    base: Vec<Beat>,
    surge: Vec<Beat>,
}

struct Times {
    before: Duration,
    surge: Duration,
    after: Duration,
}

impl Times {
    fn of(plan: &Plan) -> Self {
        Self {
            before: plan.millis(1_500, 500),
            surge: plan.millis(3_000, 800),
            after: plan.millis(2_500, 1_000),
        }
    }
}

impl Experiment for Overload {
    fn id(&self) -> &'static str {
        "E16"
    }

    fn title(&self) -> &'static str {
        "Overload"
    }

    fn question(&self) -> &'static str {
        "How much is still answered in time when twice as many requests come as can be answered, and how long does it last?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let Times { before, surge, after } = Times::of(plan);
        let expected = before + surge + after + Duration::from_millis(300);
        interleaved(&crossed(&POLICIES), plan.either(1, 1), expected)
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let Times { before, surge, after } = Times::of(&bench.plan);
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &[])?;
        let base = load(&server, BASE, before + surge + after)?.start()?;
        thread::sleep(before);
        let surge = load(&server, SURGE, surge)?.seed(2).run()?;
        let base = base.wait()?;
        server.stop();
        Ok(serde_json::to_value(Found::new(&base, &surge, &Times::of(&bench.plan)))?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = All::of(results)?;
        Ok(Section {
            setup: format!(
                "Open loop, random times (Poisson), {WORKERS} workers, `GET {PATH}` on a connection each: {:.0} % of the {CAPACITY} per \
                 second that the workers could compute all the time, and {:.0} % more for a while in the middle. Answers count when they came \
                 within {}; recovery is the time until the slowest answer of every 50 ms is as quick as before again.",
                BASE * 100.0,
                SURGE * 100.0,
                time(TIMEOUT.as_secs_f64())
            ),
            tables: vec![found.table()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "A longer backlog (`ListenOptions::backlog`): more wait, and what waits for longer than its user is computed for nobody.".into(),
                "Clients that come again when they are not answered: the load then does not fall when the surge ends.".into(),
            ],
            bars: Vec::new(),
            decisions: vec![found.decision()],
            notes: "",
        })
    }
}

fn load(server: &Server, part: f64, length: Duration) -> Result<Load> {
    // There are two loads, and each connection has two ends.
    let connections = CONNECTIONS.min(machine::open_files() / 4);
    let load = measure::poisson(&server.url(PATH), CAPACITY * part, connections, length)?;
    Ok(load.reuse(Reuse::Close).timeout(TIMEOUT))
}

impl Found {
    fn new(base: &Outcome, surge: &Outcome, times: &Times) -> Self {
        let mut failures = base.failures();
        failures += surge.failures();
        let (base, surge) = (measure::beats(base, BEAT), measure::beats(surge, BEAT));
        let (from, to) = (times.before.as_secs_f64(), (times.before + times.surge).as_secs_f64());
        let within = |beats: &[Beat], from: f64, to: f64| {
            let of = beats.iter().filter(|beat| beat.at >= from && beat.at < to);
            of.map(|beat| beat.completed).sum::<u64>() as f64 / (to - from)
        };
        Self {
            before: within(&base, 0.0, from),
            during: within(&base, from, to) + within(&surge, 0.0, to - from),
            recovery: recovery(&base, from, to),
            failures: by_kind(&failures),
            base,
            surge,
        }
    }
}

/// Until answers were as quick as before the surge, at least until the end of the load.
fn recovery(base: &[Beat], from: f64, to: f64) -> Option<f64> {
    let before = base.iter().filter(|beat| beat.at < from).map(|beat| beat.slowest);
    let usual = before.fold(0.0, f64::max).max(0.01) * 1.5;
    let is_slow = |beat: &&Beat| beat.at >= to && (beat.slowest > usual || beat.failed > 0);
    let last = base.iter().rfind(is_slow).map_or(to, |beat| beat.at + BEAT.as_secs_f64());
    let end = base.last().map_or(to, |beat| beat.at);
    (last < end).then_some(last - to)
}

struct All {
    quick: bool,
    arms: Vec<(String, Vec<Found>)>,
}

impl All {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        let arms = results.arms().into_iter().map(arm).collect::<Result<_>>()?;
        Ok(Self { quick: results.run.quick, arms })
    }

    fn at(&self, arm: &str, of: fn(&Found) -> f64) -> f64 {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        median(&rounds.map(of).collect::<Vec<_>>())
    }

    fn table(&self) -> Table {
        let head = ["arm", "in time per second, before", "during", "recovery", "failures"];
        let mut table = Table::new("", &head);
        for (arm, rounds) in &self.arms {
            let mut failures = std::collections::BTreeMap::<&str, u64>::new();
            for (kind, number) in rounds.iter().flat_map(|found| &found.failures) {
                *failures.entry(kind).or_default() += number;
            }
            let failures: Vec<_> =
                failures.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
            let recovery = self.at(arm, |found| found.recovery.unwrap_or(f64::NAN));
            table.row([
                arm.clone(),
                count(self.at(arm, |found| found.before)),
                count(self.at(arm, |found| found.during)),
                if recovery.is_nan() { "not seen".to_owned() } else { time(recovery) },
                failures.join(", "),
            ]);
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let series = |(arm, rounds): &(String, Vec<Found>)| {
            let points = rounds.last()?.base.iter().map(|beat| (beat.at, beat.slowest * 1e3));
            Some(Series { name: arm.clone(), style: style(arm), points: points.collect() })
        };
        let Times { before, surge, .. } = Times::of(&Plan { quick: self.quick, mode: None });
        let marks = vec![
            (before.as_secs_f64(), "too many".to_owned()),
            ((before + surge).as_secs_f64(), "over".to_owned()),
        ];
        let lines = Lines {
            title: "Twice the capacity for a while: the slowest answer of each 50 ms",
            x: Axis::linear("time, s"),
            y: Axis::log("latency of the base load from the intended time, ms"),
            series: self.arms.iter().filter_map(series).collect(),
            marks,
        };
        charts.lines(
            "e16-overload.svg",
            "the slowest answers before, during and after an overload",
            &lines,
        )
    }

    fn meaning(&self) -> Vec<String> {
        let line = |(arm, _): &(String, Vec<Found>)| {
            let part = self.at(arm, |found| found.during) / CAPACITY * 100.0;
            format!(
                "`{arm}`: while twice the capacity came, {part:.0} % of the capacity was answered in time."
            )
        };
        self.arms.iter().map(line).collect()
    }

    fn decision(&self) -> Decision {
        let all = self.arms.iter();
        let during = all.map(|(arm, _)| (self.at(arm, |found| found.during), arm.as_str()));
        let best = choice::most(during);
        let why = format!("{} per second in time, the most", count(best.value));
        best.decision("to answer as many as possible when too many come", &why)
    }
}
