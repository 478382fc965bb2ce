//! E5: a worker that is stuck, for a while and for ever.

mod found;

use std::{
    thread,
    time::{Duration, Instant},
};

use bimodal::load::{Histogram, Load, Outcome, Reuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::Charts,
    experiment::{Bench, Cell, Experiment},
    http::Client,
    measure::{self, Beat, Measured},
    plan::{POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::Section,
    server::Server,
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
        let found = found::All::of(results)?;
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
