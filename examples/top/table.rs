//! What is shown: lines of text, made for a size. 80 columns are enough for all of it.

use std::collections::VecDeque;

use crate::feed::{Event, Snapshot, Told, Worker};

const HEADER: &str =
    "WORKER STATE      GEN  PID/TID  CONN   REQ/S     P99  LOOP     MEM RESTARTS  AGE";

/// Lines for events that workers leave, if there are so many events.
const EVENT_LINES: usize = 6;

/// The last snapshot, and the last events.
pub(crate) struct Table {
    snapshot: Option<Snapshot>,
    events: VecDeque<String>,
    bound: usize,
}

impl Table {
    /// Keeps at most so many events.
    pub(crate) fn new(bound: usize) -> Self {
        Self { snapshot: None, events: VecDeque::new(), bound }
    }

    pub(crate) fn take(&mut self, told: Told) {
        match told {
            Told::Snapshot(snapshot) => self.snapshot = Some(snapshot),
            Told::Event(event) => self.remember(describe(&event)),
            Told::Missed(count) => self.remember(format!("{count} events were missed")),
            Told::Error(cause) => self.remember(cause),
        }
    }

    pub(crate) fn forget_events(&mut self) {
        self.events.clear();
    }

    fn remember(&mut self, event: String) {
        self.events.push_back(event);
        let surplus = self.events.len().saturating_sub(self.bound);
        self.events.drain(..surplus);
    }

    /// At most so many lines of at most so many characters.
    pub(crate) fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        let mut lines = self.snapshot.as_ref().map_or_else(Vec::new, summary);
        lines.push(HEADER.into());
        let left = rows.saturating_sub(lines.len() + 1);
        let workers = self.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.workers);
        let room = left.saturating_sub(self.events.len().min(EVENT_LINES)).max(1);
        let shown = if workers.len() > room { room - 1 } else { workers.len() };
        lines.extend(workers[..shown].iter().map(row));
        if shown < workers.len() {
            lines.push(format!("       and {} more", workers.len() - shown));
        }
        let left = rows.saturating_sub(lines.len() + 1).min(self.events.len());
        if left > 0 {
            lines.push(String::new());
            lines.extend(self.events.range(self.events.len() - left..).cloned());
        }
        lines.truncate(rows);
        lines.iter().map(|line| fit(line, columns)).collect()
    }
}

fn summary(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { name, pid, mode, scheduling, ready, target, report, .. } = snapshot;
    let doing = [(snapshot.stopping, ", stopping"), (snapshot.reloading, ", reloading")];
    let doing: String = doing.iter().filter(|(holds, _)| *holds).map(|(_, text)| *text).collect();
    vec![
        format!(
            "{name}: {ready} of {} ready{doing}   mode {mode}, {scheduling}   pid {pid}   up {}",
            (*target).max(snapshot.workers.len()),
            age(snapshot.uptime_ms)
        ),
        format!(
            "{:.0} requests/s   p99 {}   program {}",
            snapshot.requests_per_second,
            time(snapshot.p99_us),
            bytes(snapshot.memory_bytes)
        ),
        format!(
            "started {}   restarts {}   recycled {}   hung {}   reloads {}",
            report.started, report.restarts, report.recycled, report.hung, report.reloads
        ),
        String::new(),
    ]
}

fn row(worker: &Worker) -> String {
    format!(
        "{:>6} {:<9} {:>4} {:>8} {:>5} {:>7.0} {:>7} {:>4.0}% {:>7} {:>8} {:>4}",
        worker.worker,
        worker.state.replace("disconnected", "closed"),
        worker.generation,
        worker.thread,
        worker.connections_open,
        worker.requests_per_second,
        time(worker.p99_us),
        worker.utilization * 100.0,
        bytes(worker.memory_bytes),
        worker.restarts,
        age(worker.age_ms),
    )
}

fn describe(event: &Event) -> String {
    let who = event.worker.map_or_else(String::new, |worker| format!("worker {worker}"));
    let gap = if who.is_empty() || event.text.is_empty() { "" } else { ": " };
    format!("{:>9} {:<10} {who}{gap}{}", age(event.uptime_ms), event.name, event.text)
}

fn fit(line: &str, columns: usize) -> String {
    plain(line).chars().take(columns).collect()
}

/// A text without control characters: what a worker said in a panic is not to move the cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn time(micros: Option<u64>) -> String {
    match micros {
        None => "-".into(),
        Some(us @ ..1000) => format!("{us}us"),
        Some(us @ ..100_000) => format!("{:.1}ms", us as f64 / 1e3),
        Some(us @ ..1_000_000) => format!("{}ms", us / 1000),
        Some(us) => format!("{:.1}s", us as f64 / 1e6),
    }
}

fn bytes(count: Option<u64>) -> String {
    match count {
        None => "-".into(),
        Some(bytes @ ..1_048_576) => format!("{}KiB", bytes >> 10),
        Some(bytes @ ..1_073_741_824) => format!("{:.1}MiB", bytes as f64 / 1_048_576.0),
        Some(bytes) => format!("{:.1}GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ ..100 => format!("{seconds}s"),
        seconds @ ..6000 => format!("{}m", seconds / 60),
        seconds @ ..360_000 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
