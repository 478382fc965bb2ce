//! E7: what a fault in one worker costs the others, and how long.

mod found;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Mode, Scheduling,
    load::{Arrival, Load, Outcome, Reuse, Until, usage},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::Charts,
    experiment::{Bench, Cell, Experiment},
    http::Client,
    measure::{self, Beat},
    plan::{MODES, Plan, interleaved},
    programs::Programs,
    results::Results,
    section::Section,
    server::Server,
};

use found::All;

const WORKERS: usize = 4;
const CONNECTIONS: usize = 64;
const PER_SECOND: f64 = 1_000.0;

/// Each fault, with the route that commits it.
const FAULTS: [(&str, &str); 8] = [
    ("panic", "/fault/panic"),
    ("abort", "/fault/abort"),
    ("segfault", "/fault/segfault"),
    ("stack-overflow", "/fault/stack-overflow"),
    ("exit", "/fault/exit"),
    ("spin", "/fault/spin"),
    ("leak-fd", "/fault/leak-fd?n=10000"),
    ("leak-memory", "/fault/leak-memory?mib=80"),
];

/// What the last one leaks.
const LEAKED_MIB: f64 = 80.0;

/// Descriptors that each process of the lab may have when its worker leaks them.
const DESCRIPTORS: u64 = 256;

/// Bytes of memory from which a worker process is replaced, in MiB as an argument.
const RECYCLE_MIB: &str = "64";

/// Connections that are opened after the fault, to see whether they are answered; how long that may take; and how long
/// before the end of the load, whose connections keep their descriptors.
const FRESH: u64 = 16;
const FRESH_TIMEOUT: Duration = Duration::from_millis(200);
const FRESH_BEFORE_END: Duration = Duration::from_millis(300);

/// A piece of the timeline.
const BEAT: Duration = Duration::from_millis(50);

pub(crate) struct Faults;

/// How long each part is, in milliseconds.
struct Times {
    before: u64,
    after: u64,
    deadline: u64,
    patience: u64,
}

impl Times {
    fn of(quick: bool) -> Self {
        match quick {
            false => Self { before: 500, after: 2_000, deadline: 500, patience: 200 },
            true => Self { before: 200, after: 1_100, deadline: 300, patience: 100 },
        }
    }
}

/// What one fault came to.
#[derive(Serialize, Deserialize)]
struct Found {
    scheduled: u64,
    failures: BTreeMap<String, u64>,
    /// Connections that broke.
    lost_connections: u64,
    /// The whole program has ended.
    ended: bool,
    /// Workers that ended, or were given up.
    gone: u64,
    /// Seconds from the fault to the last worker that listened anew.
    restored: Option<f64>,
    /// Of [`FRESH`] connections after it, those that were answered.
    fresh: u64,
    /// Bytes that the lab occupies in the end beyond those before the fault; of a lab that has ended nothing.
    grown: Option<i64>,
    timeline: Vec<Beat>,
}

impl Found {
    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn survivors(&self) -> u64 {
        if self.ended { 0 } else { (WORKERS as u64).saturating_sub(self.gone) }
    }
}

impl Experiment for Faults {
    fn id(&self) -> &'static str {
        "E7"
    }

    fn title(&self) -> &'static str {
        "What a fault costs"
    }

    fn question(&self) -> &'static str {
        "A handler of one worker goes wrong under load: what do clients lose, who survives, and when is all as before?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let arm = |mode: Mode| FAULTS.map(|(fault, _)| (format!("{mode}/{fault}"), Some(mode)));
        let arms = MODES.map(arm).concat();
        let Times { before, after, .. } = Times::of(plan.quick);
        interleaved(&arms, plan.either(2, 1), Duration::from_millis(before + after + 400))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, fault) = cell.arm.split_once('/').ok_or("an arm without a fault")?;
        let path = FAULTS.iter().find(|(name, _)| *name == fault).ok_or("no such fault")?.1;
        let times = Times::of(bench.plan.quick);
        let server = start(bench, mode.parse()?, fault, &times)?;
        if fault == "leak-fd" {
            limit_descriptors(&server)?;
        }
        let found = commit(&server, path, &times)?;
        // A thread that spins keeps the lab from ending by itself.
        drop(server);
        Ok(serde_json::to_value(found)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let all = All::of(results)?;
        let Times { deadline, patience, .. } = Times::of(results.run.quick);
        Ok(Section {
            setup: format!(
                "`lab --workers {WORKERS} --scheduling least-connections`, {CONNECTIONS} connections that stay open, {PER_SECOND} requests \
                 per second `GET /plaintext` in an open loop; in its midst one request to `/fault/KIND`, which is not counted. \
                 *Lost* are connections that broke. For `spin` and `leak-memory` the health deadline is {deadline} ms \
                 instead of 30 s, and the patience of each step against a worker that hangs {patience} ms. `leak-fd` takes all of the {DESCRIPTORS} descriptors that each \
                 process may have; `leak-memory` takes {LEAKED_MIB} MiB, and worker processes are recycled from {RECYCLE_MIB} MiB \
                 (threads share theirs, so none can be recycled by it). *New* are {FRESH} connections at the end of the load."
            ),
            tables: vec![all.table()],
            charts: vec![all.matrix(charts)?, all.timeline(charts, results.run.quick)?],
            meaning: all.meaning(),
            overturn: vec![
                "A service manager that starts the program again: the end of all threads is then an outage of as long as a \
                 start takes, and of every connection."
                    .to_owned(),
                "State that workers share in memory: what a thread leaves half-written when it panics, the others find; a \
                 crash of a process leaves only what is in a region or a store."
                    .to_owned(),
            ],
            bars: all.bars(),
            decisions: all.decision().into_iter().collect(),
            notes: include_str!("notes/e7.md"),
        })
    }
}

/// Only where it has to notice something is the lab in a hurry: on a busy machine a short deadline would condemn others, too.
fn start(bench: &Bench<'_>, mode: Mode, fault: &str, times: &Times) -> Result<Server> {
    let (deadline, patience) = (times.deadline.to_string(), times.patience.to_string());
    let mut more = vec!["--events", "json", "--restart-delay-ms", "0"];
    if ["spin", "leak-memory"].contains(&fault) {
        more.extend(["--health-deadline-ms", &deadline, "--health-patience-ms", &patience]);
    }
    if mode == Mode::Process {
        more.extend(["--recycle-memory", RECYCLE_MIB]);
    }
    Server::lab(bench.programs, mode, Scheduling::LeastConnections, WORKERS, &more)
}

/// The lab's processes get by with few descriptors, and cannot raise the limit.
fn limit_descriptors(server: &Server) -> Result<()> {
    let limit = || Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    let mut pids = vec![server.pid()];
    // A child is listed at the thread that forked it.
    for entry in std::fs::read_dir(format!("/proc/{}/task", server.pid()))? {
        let text = std::fs::read_to_string(entry?.path().join("children")).unwrap_or_default();
        pids.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        prlimit(Some(pid), Resource::Nofile, limit())?;
    }
    Ok(())
}

/// Lets one worker go wrong in the midst of a load.
fn commit(server: &Server, path: &str, times: &Times) -> Result<Found> {
    let (before, after) = (Duration::from_millis(times.before), Duration::from_millis(times.after));
    let memory = usage::memory(server.pid())?.pss;
    let running = load(server, before + after)?.start()?;
    thread::sleep(before);
    let mut client = Client::connect(server.address())?;
    let asked = Instant::now();
    client.send(path)?;
    let news = News::until(server, asked + after - FRESH_BEFORE_END);
    let fresh = if server.has_ended() { 0 } else { fresh(server)? };
    let outcome = running.wait()?;
    drop(client);
    let ended = server.has_ended();
    let grown = usage::memory(server.pid()).ok().filter(|_| !ended);
    Ok(Found {
        scheduled: outcome.scheduled(),
        failures: measure::by_kind(&outcome.failures()),
        lost_connections: if ended { CONNECTIONS as u64 } else { lost(&outcome) },
        ended,
        gone: news.gone,
        restored: news.restored.filter(|_| !ended).map(|at| (at - asked).as_secs_f64()),
        fresh,
        grown: grown.map(|now| now.pss as i64 - memory as i64),
        timeline: measure::beats(&outcome, BEAT),
    })
}

/// Connections that broke: those that were opened in place of others, or as many as had a request under way.
fn lost(outcome: &Outcome) -> u64 {
    let failures = outcome.failures();
    let broken = failures.reset + failures.closed + failures.timed_out;
    outcome.connections.saturating_sub(CONNECTIONS as u64).max(broken)
}

fn load(server: &Server, length: Duration) -> Result<Load> {
    let load = measure::closed(&server.url("/plaintext"), CONNECTIONS, length)?;
    let arrival = Arrival::Constant { per_second: PER_SECOND };
    Ok(load.arrival(arrival).timeout(Duration::from_secs(1)))
}

/// How many new connections are answered.
fn fresh(server: &Server) -> Result<u64> {
    let load = Load::new(&server.url("/plaintext"))?.connections(FRESH as usize);
    let load = load.reuse(Reuse::Close);
    let outcome = load.until(Until::Requests(FRESH)).timeout(FRESH_TIMEOUT).run()?;
    Ok(outcome.completed())
}

/// What the lab said of its workers.
#[derive(Default)]
struct News {
    /// Workers that hung or ended, by id, each once.
    gone: u64,
    /// When the last one listened.
    restored: Option<Instant>,
}

impl News {
    fn until(server: &Server, end: Instant) -> Self {
        let (mut news, mut gone) = (Self::default(), Vec::new());
        while let Some((at, line)) = server.line_by(end) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let left = match (event["event"].as_str(), event["decision"].as_str()) {
                (Some("exit"), _) => event["worker"].as_u64(),
                (_, Some("hung")) => event["of"].as_u64(),
                (Some("listening"), _) => {
                    news.restored = Some(at);
                    None
                }
                _ => None,
            };
            gone.extend(left.filter(|worker| !gone.contains(worker)));
        }
        news.gone = gone.len() as u64;
        news
    }
}
