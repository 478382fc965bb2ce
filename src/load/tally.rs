//! Counts what comes of requests, on the driver's thread. Nothing here allocates once every tick and worker was seen,
//! but for a tick's place every 10 ms.

use std::{collections::BTreeMap, time::Duration};

use super::{
    answer::Verdict,
    arrival::Due,
    outcome::{Class, Failures, Histogram, Outcome, Tick, new_histogram},
};

const TICK: u64 = 10_000_000;

/// Ticks of one hour; what happens later is in the last one.
const MAX_TICKS: usize = 360_000;

/// Values beyond are counted together.
const MAX_WORKERS: usize = 4096;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Connect,
    Reset,
    Closed,
    TimedOut,
    Malformed,
}

/// What one thread has seen so far.
pub(super) struct Tally {
    begin: u64,
    pub(super) classes: Vec<Class>,
    pub(super) connections: u64,
    pub(super) lag: Histogram,
    workers: BTreeMap<String, u64>,
    timeline: Vec<Tick>,
    pub(super) completed: u64,
    pub(super) failed: u64,
    /// When the last request ended.
    last: u64,
}

impl Tally {
    pub(super) fn new<'a>(begin: u64, classes: impl Iterator<Item = &'a str>) -> Self {
        Self {
            begin,
            classes: classes.map(Class::new).collect(),
            connections: 0,
            lag: new_histogram(),
            workers: BTreeMap::new(),
            timeline: Vec::new(),
            completed: 0,
            failed: 0,
            last: begin,
        }
    }

    pub(super) fn scheduled(&mut self, due: Due) {
        self.classes[due.class].scheduled += u64::from(due.counted);
    }

    /// A request is not to count any more.
    pub(super) fn forgotten(&mut self, due: Due) {
        self.classes[due.class].scheduled -= u64::from(due.counted);
    }

    /// An answer is complete at `now`; the request was sent at `sent`. Whether it is the expected one, and counts.
    pub(super) fn answered(&mut self, due: Due, sent: u64, verdict: Verdict, now: u64) -> bool {
        if !due.counted {
            return false;
        }
        let failures = &mut self.classes[due.class].failures;
        match verdict {
            Verdict::Right => {
                self.completed(due, sent, now);
                return true;
            }
            Verdict::WrongStatus => failures.status += 1,
            Verdict::WrongBody => failures.answer += 1,
        }
        self.failed(now);
        false
    }

    /// There will be no answer.
    pub(super) fn lost(&mut self, due: Due, loss: Loss, now: u64) {
        if !due.counted {
            return;
        }
        let Failures { connect, reset, closed, timed_out, answer, .. } =
            &mut self.classes[due.class].failures;
        *match loss {
            Loss::Connect => connect,
            Loss::Reset => reset,
            Loss::Closed => closed,
            Loss::TimedOut => timed_out,
            Loss::Malformed => answer,
        } += 1;
        self.failed(now);
    }

    /// These requests were due, by class, and never sent.
    pub(super) fn unsent(&mut self, counts: &[u64]) {
        for (class, count) in self.classes.iter_mut().zip(counts) {
            class.scheduled += count;
            class.failures.unsent += count;
            self.failed += count;
        }
    }

    /// Who gave a completed answer.
    pub(super) fn worker(&mut self, value: Option<&str>) {
        let value = value.unwrap_or("(none)");
        if let Some(count) = self.workers.get_mut(value) {
            *count += 1;
        } else {
            let value = if self.workers.len() < MAX_WORKERS { value } else { "(more)" };
            *self.workers.entry(value.to_owned()).or_default() += 1;
        }
    }

    /// The outcome, of a load that was over at `end`, or `None` with its last request.
    pub(super) fn outcome(mut self, end: Option<u64>, cpu: Duration) -> Outcome {
        let end = end.unwrap_or(self.last);
        if end > self.begin {
            self.tick(end - 1);
        }
        Outcome {
            elapsed: Duration::from_nanos(end.saturating_sub(self.begin)),
            classes: self.classes,
            connections: self.connections,
            workers: self.workers,
            timeline: self.timeline,
            lag: self.lag,
            cpu,
        }
    }

    fn completed(&mut self, due: Due, sent: u64, now: u64) {
        let (class, latency) = (&mut self.classes[due.class], now.saturating_sub(due.at));
        class.completed += 1;
        class.latency.saturating_record(latency);
        class.service.saturating_record(now.saturating_sub(sent));
        self.completed += 1;
        self.last = now;
        let tick = self.tick(now);
        tick.completed += 1;
        tick.slowest = tick.slowest.max(Duration::from_nanos(latency));
    }

    fn failed(&mut self, now: u64) {
        self.failed += 1;
        self.last = now;
        self.tick(now).failed += 1;
    }

    fn tick(&mut self, now: u64) -> &mut Tick {
        let index = usize::try_from(now.saturating_sub(self.begin) / TICK).unwrap_or(MAX_TICKS);
        let index = index.min(MAX_TICKS - 1);
        for next in self.timeline.len()..=index {
            let at = Duration::from_nanos(next as u64 * TICK);
            self.timeline.push(Tick { at, ..Tick::default() });
        }
        &mut self.timeline[index]
    }
}
