//! What clients of the status socket ask for and are told, as lines of JSON.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    builder::Settings,
    cluster::{Crew, Report},
    events::Event,
    handle::WorkerHandle,
    id::WorkerId,
    shared::{Latency, SlotStats},
    status::WorkerStatus,
    sys::process::private_memory,
};

/// The shortest and the longest time between two snapshots, in ms.
const INTERVALS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// The longest text of an event, in characters: what a panic said may be any length.
const TEXT: usize = 1000;

/// What a client asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Request {
    /// The time between two snapshots; 0 asks for one only.
    interval_ms: u64,
    pub(super) events: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self { interval_ms: 1000, events: false }
    }
}

impl Request {
    /// `None` when nothing was asked for.
    pub(super) fn parse(line: Vec<u8>) -> Result<Option<Self>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        let expected = r#"; expected was {"interval_ms":1000,"events":true}"#;
        let request: Self =
            serde_json::from_slice(&line).map_err(|error| format!("{error}{expected}"))?;
        if request.interval_ms == 0 || INTERVALS.contains(&request.interval_ms) {
            return Ok(Some(request));
        }
        let (least, most) = (INTERVALS.start(), INTERVALS.end());
        Err(format!("interval_ms is {}; it must be 0, or {least} to {most}", request.interval_ms))
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        (self.interval_ms > 0).then(|| Duration::from_millis(self.interval_ms))
    }
}

/// Why a client is told nothing else.
pub(super) fn error(cause: &str) -> String {
    line(&json!({ "error": cause }))
}

/// A client was so far behind that so many events were dropped.
pub(super) fn missed(count: u64) -> String {
    line(&json!({ "missed": count }))
}

/// Something that happened.
pub(super) fn event(uptime: Duration, event: &Event) -> String {
    let text: String = remark(event).unwrap_or_default().chars().take(TEXT).collect();
    let worker = event.worker();
    line(&json!({ "event": {
        "name": event.name(),
        "uptime_ms": millis(uptime),
        "worker": worker.map(|worker| worker.id().get()),
        "slot": worker.map(|worker| worker.slot().get()),
        "generation": worker.map(WorkerHandle::generation),
        "pid": worker.and_then(WorkerHandle::pid),
        "text": text,
    }}))
}

fn remark(event: &Event) -> Option<String> {
    Some(match event {
        Event::Setup { settings } => {
            let Settings { mode, workers, scheduling, .. } = &**settings;
            format!("mode={mode} workers={workers} scheduling={scheduling}")
        }
        Event::Listening { address, .. } => address.to_string(),
        Event::Exit { worker, status } if worker.was_asked_to_leave() => {
            format!("{status}, as asked")
        }
        Event::Exit { status, .. } => status.to_string(),
        Event::Error { error, .. } => error.to_string(),
        Event::Decision { decision } => decision.to_string(),
        Event::Missed { count } => format!("{count} events"),
        _ => return None,
    })
}

fn line(value: &impl Serialize) -> String {
    // Texts, numbers and lists of them always have a JSON form.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is looked at for a snapshot.
pub(super) struct View {
    crew: Arc<Crew>,
    /// As they were at the start: what is shown of them does not change.
    settings: Arc<Settings>,
}

/// The counters of a snapshot, for the next one of the same client to say what was added.
#[derive(Default)]
pub(super) struct Past {
    uptime: Duration,
    workers: HashMap<WorkerId, Seen>,
}

struct Seen {
    stats: SlotStats,
    latency: Latency,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    uptime_ms: u64,
    pid: u32,
    name: &'a str,
    mode: String,
    scheduling: String,
    target: usize,
    ready: usize,
    reloading: bool,
    stopping: bool,
    memory_bytes: Option<u64>,
    requests_per_second: f64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    report: Counts<'a>,
    workers: Vec<Row>,
}

#[derive(Serialize)]
struct Counts<'a> {
    started: u64,
    restarts: u64,
    recycled: u64,
    hung: u64,
    reloads: u64,
    failed_reloads: u64,
    exits: &'a std::collections::BTreeMap<String, u64>,
    closed: u64,
    forced_kills: u64,
    abandoned: u64,
}

#[derive(Serialize)]
struct Row {
    worker: u64,
    slot: usize,
    generation: u32,
    pid: Option<u32>,
    thread: u64,
    state: String,
    ready: bool,
    age_ms: u64,
    restarts: u64,
    last_exit: Option<String>,
    memory_bytes: Option<u64>,
    connections_open: u64,
    connections_accepted: u64,
    requests: u64,
    busy_ns: u64,
    idle_ns: u64,
    cpu_ns: u64,
    requests_per_second: f64,
    utilization: f64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

impl View {
    pub(super) fn new(crew: Arc<Crew>, settings: Arc<Settings>) -> Self {
        Self { crew, settings }
    }

    /// The cluster now. Rates, shares and quantiles are those since `past`, or since a worker's start if it is not in
    /// there.
    pub(super) fn snapshot(&self, uptime: Duration, past: &mut Past) -> String {
        let handles = self.crew.all();
        let status = self.crew.board.status(&handles);
        let seen: HashMap<_, _> = handles.iter().map(|it| (it.id(), Seen::now(it))).collect();
        let since = uptime.saturating_sub(past.uptime);
        let mut all = Latency::default();
        let rows = handles.iter().zip(&status.workers).map(|(handle, worker)| {
            let now = &seen[&handle.id()];
            let added = now.since(past.workers.get(&handle.id()), since, worker.age);
            all = all.and(&added.latency);
            row(worker, handle.memory(), &now.stats, &added)
        });
        let workers: Vec<Row> = rows.collect();
        let snapshot = Snapshot {
            uptime_ms: millis(uptime),
            pid: std::process::id(),
            name: &self.settings.name,
            mode: self.settings.mode.to_string(),
            scheduling: self.settings.scheduling.to_string(),
            target: status.target,
            ready: status.ready(),
            reloading: status.reloading,
            stopping: status.stopping,
            memory_bytes: private_memory(std::process::id()),
            requests_per_second: workers.iter().map(|row| row.requests_per_second).sum(),
            p50_us: micros(&all, 0.5),
            p99_us: micros(&all, 0.99),
            report: counts(&status.report),
            workers,
        };
        *past = Past { uptime, workers: seen };
        line(&json!({ "snapshot": snapshot }))
    }
}

/// What was added to a worker's counters.
struct Added {
    latency: Latency,
    requests_per_second: f64,
    utilization: f64,
}

impl Seen {
    fn now(worker: &WorkerHandle) -> Self {
        Self { stats: worker.stats(), latency: worker.latency() }
    }

    /// What was added since `past`, which was seen so long ago, or in the worker's whole life.
    fn since(&self, past: Option<&Self>, since: Duration, age: Duration) -> Added {
        let (time, before) = past.map_or((age, SlotStats::default()), |past| (since, past.stats));
        let added = |of: fn(&SlotStats) -> u64| of(&self.stats).saturating_sub(of(&before)) as f64;
        let (busy, idle) = (added(|stats| stats.busy_ns), added(|stats| stats.idle_ns));
        Added {
            latency: past.map_or(self.latency.clone(), |past| self.latency.since(&past.latency)),
            requests_per_second: added(|stats| stats.requests) / time.as_secs_f64().max(0.001),
            utilization: if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 },
        }
    }
}

fn row(status: &WorkerStatus, memory: Option<u64>, stats: &SlotStats, added: &Added) -> Row {
    Row {
        worker: status.worker.get(),
        slot: status.slot.get(),
        generation: status.generation,
        pid: status.pid,
        thread: stats.thread,
        state: format!("{:?}", status.state).to_lowercase(),
        ready: status.ready,
        age_ms: millis(status.age),
        restarts: status.restarts,
        last_exit: status.last_exit.map(|status| status.to_string()),
        memory_bytes: memory,
        connections_open: stats.connections_open,
        connections_accepted: stats.connections_accepted,
        requests: stats.requests,
        busy_ns: stats.busy_ns,
        idle_ns: stats.idle_ns,
        cpu_ns: stats.cpu_ns,
        requests_per_second: added.requests_per_second,
        utilization: added.utilization,
        p50_us: micros(&added.latency, 0.5),
        p99_us: micros(&added.latency, 0.99),
    }
}

fn micros(latency: &Latency, share: f64) -> Option<u64> {
    latency.quantile(share).map(|time| time.as_micros() as u64)
}

fn counts(report: &Report) -> Counts<'_> {
    Counts {
        started: report.started,
        restarts: report.restarts,
        recycled: report.recycled,
        hung: report.hung,
        reloads: report.reloads,
        failed_reloads: report.failed_reloads,
        exits: &report.exits,
        closed: report.closed,
        forced_kills: report.forced_kills,
        abandoned: report.abandoned,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_checked_before_it_is_served() {
        let parse = |line: &str| Request::parse(line.as_bytes().to_vec());
        assert!(parse("").unwrap().is_none());
        let usual = parse("{}").unwrap().unwrap();
        assert_eq!((usual.interval(), usual.events), (Some(Duration::from_secs(1)), false));
        let once = parse(r#"{"interval_ms":0,"events":true}"#).unwrap().unwrap();
        assert_eq!((once.interval(), once.events), (None, true));
        for bad in ["[]x", "GET / HTTP/1.1", r#"{"interval":1}"#, r#"{"interval_ms":-1}"#, "\u{0}"]
        {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("expected was {\"interval_ms\""), "{bad:?}: {error}");
        }
        for bad in [1, 99, 60_001, u64::MAX] {
            let error = parse(&format!(r#"{{"interval_ms":{bad}}}"#)).unwrap_err();
            assert!(error.contains("100 to 60000"), "{error}");
        }
    }

    #[test]
    fn what_a_worker_did_is_counted_from_the_last_look_or_from_its_start() {
        let seen = |requests, busy_ns, idle_ns| Seen {
            stats: SlotStats { requests, busy_ns, idle_ns, ..SlotStats::default() },
            latency: Latency::default(),
        };
        let (before, now) = (seen(100, 10, 90), seen(150, 40, 160));
        let second = Duration::from_secs(1);
        let added = now.since(Some(&before), second / 2, 10 * second);
        assert!((added.requests_per_second - 100.0).abs() < 1e-9);
        assert!((added.utilization - 0.3).abs() < 1e-9);
        let whole = now.since(None, second / 2, 10 * second);
        assert!((whole.requests_per_second - 15.0).abs() < 1e-9);
        assert!((whole.utilization - 0.2).abs() < 1e-9);
    }
}
