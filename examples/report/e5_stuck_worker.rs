//! E5: a worker that is stuck, for a while and for ever.

use std::{
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Mode,
    load::{Histogram, Load, Outcome, Reuse},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series},
    e1_throughput::style,
    experiment::{Bench, Cell, Experiment},
    http::Client,
    measure::{self, Beat, Measured},
    plan::{MODES, POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
    server::Server,
    statistics::median,
};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 512;
const PER_SECOND: f64 = 400.0;

/// The default window: how many connections a worker may have been offered that it has not taken.
const WINDOW: f64 = 8.0;

pub(crate) struct StuckWorker;

/// How long each part is, in milliseconds.
struct Times {
    /// Load before the worker is stuck.
    before: u64,
    /// How long it is stuck the first time; less than the deadline.
    stuck: u64,
    deadline: u64,
    /// How long each step against a worker that hangs may take.
    patience: u64,
    /// Load after it was stuck, the second time.
    after: u64,
}

impl Times {
    fn of(plan: &Plan) -> Self {
        plan.either(
            Self { before: 300, stuck: 700, deadline: 1_000, patience: 300, after: 2_200 },
            Self { before: 100, stuck: 250, deadline: 400, patience: 150, after: 900 },
        )
    }
}

#[derive(Serialize, Deserialize)]
struct Found {
    /// While a worker was stuck for a while.
    stuck: Part,
    /// While one was stuck for ever.
    forever: Part,
    /// Seconds from the request to the decision that the worker hangs; to its end, if that came; to the first
    /// worker that listened since.
    detected: Option<f64>,
    ended: Option<f64>,
    replaced: Option<f64>,
    timeline: Vec<Beat>,
}

/// What the others' requests met.
#[derive(Serialize, Deserialize)]
struct Part {
    measured: Measured,
    p95: f64,
    /// Requests that failed, or took more than half of the time for which the worker was stuck at least.
    captured: u64,
}

impl Part {
    fn new(outcome: &Outcome, stuck: Duration) -> Self {
        let latency = outcome.latency();
        let measured = Measured::new(outcome, None);
        let captured = longer(&latency, stuck / 2) + measured.failed();
        Self { measured, p95: latency.value_at_quantile(0.95) as f64 / 1e9, captured }
    }
}

/// How many took longer than this.
fn longer(latency: &Histogram, time: Duration) -> u64 {
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    latency.len() - latency.count_between(0, time)
}

impl Experiment for StuckWorker {
    fn id(&self) -> &'static str {
        "E5"
    }

    fn title(&self) -> &'static str {
        "A stuck worker"
    }

    fn question(&self) -> &'static str {
        "What do the others' requests meet while one worker's loop stands still, for a while or for ever, and who notices?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let times = Times::of(plan);
        let sum = 2 * times.before + 2 * times.stuck + times.after + 400;
        interleaved(&crossed(&POLICIES), plan.either(2, 1), Duration::from_millis(sum))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let times = Times::of(&bench.plan);
        let (deadline, patience) = (times.deadline.to_string(), times.patience.to_string());
        let health = ["--health-deadline-ms", &deadline, "--health-patience-ms", &patience];
        let more = [&health[..], &["--events", "json"]].concat();
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &more)?;
        let stuck = stuck_for_a_while(&server, &times)?;
        let found = stuck_for_ever(&server, &times, stuck)?;
        // A thread that spins keeps the lab from ending by itself.
        drop(server);
        Ok(serde_json::to_value(found)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = All::of(results)?;
        Ok(Section {
            setup: format!(
                "Open loop, random times (Poisson), {PER_SECOND} requests per second `GET /plaintext`, a connection each, {WORKERS} workers. \
                 First one worker computes for less than the health deadline (`/burn`), then one computes for ever (`/fault/spin`). \
                 *Captured* are requests that failed, or took more than half of the time for which the worker was stuck; \
                 the window of offers is {WINDOW}. The health deadline is {} ms.",
                found.times().deadline
            ),
            tables: vec![found.table()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "A machine without a core to spare: a thread that spins for ever keeps its core, and threads are pinned.".into(),
                "A larger window (`Builder::window`): as many more requests wait.".into(),
                "Connections that stay open: those that the stuck worker has wait under every policy.".into(),
            ],
            bars: found.bars(),
            decisions: vec![found.decision()],
            notes: "",
        })
    }
}

fn load(server: &Server, length: Duration) -> Result<Load> {
    let load = measure::poisson(&server.url("/plaintext"), PER_SECOND, CONNECTIONS, length)?;
    Ok(load.reuse(Reuse::Close).timeout(length * 2))
}

fn stuck_for_a_while(server: &Server, times: &Times) -> Result<Part> {
    let (before, stuck) = (Duration::from_millis(times.before), Duration::from_millis(times.stuck));
    let running = load(server, before + stuck)?.start()?;
    thread::sleep(before);
    let mut client = Client::connect(server.address())?;
    client.send(&format!("/burn?ms={}", times.stuck))?;
    let outcome = running.wait()?;
    client.answer()?;
    Ok(Part::new(&outcome, stuck))
}

fn stuck_for_ever(server: &Server, times: &Times, stuck: Part) -> Result<Found> {
    let before = Duration::from_millis(times.before);
    let length = before + Duration::from_millis(times.after);
    let running = load(server, length)?.start()?;
    thread::sleep(before);
    let asked = Instant::now();
    let mut client = Client::connect(server.address())?;
    client.send("/fault/spin")?;
    let news = News::until(server, asked + Duration::from_millis(times.after));
    let outcome = running.wait()?;
    let since = |at: Option<Instant>| at.map(|at| (at - asked).as_secs_f64());
    Ok(Found {
        stuck,
        forever: Part::new(&outcome, Duration::from_millis(times.deadline)),
        detected: since(news.detected),
        ended: since(news.ended),
        replaced: since(news.replaced),
        timeline: measure::beats(&outcome, Duration::from_millis(50)),
    })
}

/// What the lab said of the worker that hangs.
#[derive(Default)]
struct News {
    detected: Option<Instant>,
    ended: Option<Instant>,
    replaced: Option<Instant>,
}

impl News {
    fn until(server: &Server, end: Instant) -> Self {
        let mut news = Self::default();
        while let Some((at, line)) = server.line_by(end) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            match (event["event"].as_str(), event["decision"].as_str()) {
                (_, Some("hung")) => news.detected = news.detected.or(Some(at)),
                (Some("exit"), _) => news.ended = news.ended.or(Some(at)),
                (Some("listening"), _) if news.detected.is_some() => {
                    news.replaced = news.replaced.or(Some(at));
                }
                _ => {}
            }
        }
        news
    }
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

    fn times(&self) -> Times {
        Times::of(&Plan { quick: self.quick, mode: None })
    }

    fn at(&self, arm: &str, of: impl Fn(&Found) -> f64) -> f64 {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        median(&rounds.map(of).collect::<Vec<_>>())
    }

    fn table(&self) -> Table {
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
    fn chart(&self, charts: &Charts) -> Result<Chart> {
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

    fn meaning(&self) -> Vec<String> {
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

    fn bars(&self) -> Vec<Bar> {
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

    fn decision(&self) -> Decision {
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
