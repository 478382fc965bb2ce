//! What came of a load.

use std::{collections::BTreeMap, fmt, ops::AddAssign, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// Times in nanoseconds, from 1 us to 1 h, kept to three significant digits. A longer time counts as 1 h.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// What came of a load.
///
/// As JSON, durations are seconds. A histogram is an object of nanoseconds (`count`, `min`, `mean`, `p50`, `p90`, `p99`,
/// `p99.9`, `max`) and `cumulative`, a list of pairs: a time, and how many took no longer.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The measured time, without the warm-up and without the wait for the last answers; up to the last answer if
    /// the load was a number of requests.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    /// The classes of requests, in the order in which they were given.
    pub classes: Vec<Class>,
    /// Connections that were opened, with those that the warm-up left open.
    pub connections: u64,
    /// Completed requests by the field that [`count_by`](super::Load::count_by) named: per worker, for one. Answers
    /// without it are under `(none)`, and what comes after 4096 different values under `(more)`.
    pub workers: BTreeMap<String, u64>,
    /// What happened in each 10 ms.
    pub timeline: Vec<Tick>,
    /// How late the driver itself was. In an open loop: how long after its time a request was taken up, when there was
    /// a free connection. In a closed loop: how long the driver dealt with the events that were there at once, the last
    /// of which waited for that long.
    #[serde(serialize_with = "histogram")]
    pub lag: Histogram,
    /// The CPU time that the driver's threads used themselves.
    #[serde(serialize_with = "seconds")]
    pub cpu: Duration,
}

/// What came of the requests of one class.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Requests that were due: `completed` and all `failures`.
    pub scheduled: u64,
    /// Requests with the expected answer.
    pub completed: u64,
    /// All others, by kind.
    pub failures: Failures,
    /// From when a request was due to the end of its answer, of those that were completed. In a closed loop a
    /// request is due when its connection is free, so the time includes connecting, where there is no connection.
    #[serde(serialize_with = "histogram")]
    pub latency: Histogram,
    /// From when a request was sent to the end of its answer, of those that were completed.
    #[serde(serialize_with = "histogram")]
    pub service: Histogram,
}

/// Requests that failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failures {
    /// There was no connection for it: refused, unreachable, no descriptor or port left.
    pub connect: u64,
    /// The connection broke before the answer was complete (`ECONNRESET` and the like).
    pub reset: u64,
    /// The connection was closed before the answer was complete: by the server, or by the driver since a request
    /// before this one (see [`pipeline`](super::Load::pipeline)) failed.
    pub closed: u64,
    /// There was no complete answer in time, counted from when the request was due.
    pub timed_out: u64,
    /// The answer had another status than the expected one.
    pub status: u64,
    /// The answer had another body than the expected one, or was none that can be understood.
    pub answer: u64,
    /// It was due before the end, but there was no free connection up to then.
    pub unsent: u64,
}

/// What happened in 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tick {
    /// When it began, from the end of the warm-up.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// Requests that were completed in it.
    pub completed: u64,
    /// Requests that failed in it; those that were never sent are in none.
    pub failed: u64,
    /// The longest latency of those that were completed in it.
    #[serde(serialize_with = "seconds")]
    pub slowest: Duration,
}

impl Outcome {
    /// Requests that were due, of all classes.
    #[must_use]
    pub fn scheduled(&self) -> u64 {
        self.classes.iter().map(|class| class.scheduled).sum()
    }

    /// Requests with the expected answer, of all classes.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.classes.iter().map(|class| class.completed).sum()
    }

    /// The requests that failed, of all classes.
    #[must_use]
    pub fn failures(&self) -> Failures {
        let mut all = Failures::default();
        self.classes.iter().for_each(|class| all += class.failures);
        all
    }

    /// Completed requests per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.completed() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latencies of all classes.
    #[must_use]
    pub fn latency(&self) -> Histogram {
        sum(self.classes.iter().map(|class| &class.latency))
    }

    /// The service times of all classes.
    #[must_use]
    pub fn service(&self) -> Histogram {
        sum(self.classes.iter().map(|class| &class.service))
    }

    /// How much of the time the driver's threads computed; near 1 the driver is what limits the result.
    #[must_use]
    pub fn driver_share(&self, threads: usize) -> f64 {
        let time = self.elapsed.as_secs_f64() * threads.max(1) as f64;
        self.cpu.as_secs_f64() / time.max(f64::MIN_POSITIVE)
    }

    /// Adds what another thread of the same load saw.
    pub(super) fn add(&mut self, other: Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.classes.iter_mut().zip(other.classes).for_each(|(own, other)| own.add(other));
        self.connections += other.connections;
        other.workers.into_iter().for_each(|(value, count)| {
            *self.workers.entry(value).or_default() += count;
        });
        if other.timeline.len() > self.timeline.len() {
            let longer = &other.timeline[self.timeline.len()..];
            self.timeline.extend(longer.iter().map(|tick| Tick { at: tick.at, ..Tick::default() }));
        }
        self.timeline.iter_mut().zip(&other.timeline).for_each(|(own, other)| own.add(other));
        merge(&mut self.lag, &other.lag);
        self.cpu += other.cpu;
    }
}

impl Class {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            scheduled: 0,
            completed: 0,
            failures: Failures::default(),
            latency: new_histogram(),
            service: new_histogram(),
        }
    }

    fn add(&mut self, other: Self) {
        self.scheduled += other.scheduled;
        self.completed += other.completed;
        self.failures += other.failures;
        merge(&mut self.latency, &other.latency);
        merge(&mut self.service, &other.service);
    }
}

impl Failures {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_kind().iter().map(|(_, count)| count).sum()
    }

    /// Each kind's name and count.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 7] {
        [
            ("connect", self.connect),
            ("reset", self.reset),
            ("closed", self.closed),
            ("timed out", self.timed_out),
            ("status", self.status),
            ("answer", self.answer),
            ("unsent", self.unsent),
        ]
    }
}

/// The kinds that occurred, such as `3 reset, 1 status`; `none` if none did.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occurred = self.by_kind().into_iter().filter(|(_, count)| *count > 0);
        let text = occurred.map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>();
        f.pad(&if text.is_empty() { "none".to_owned() } else { text.join(", ") })
    }
}

impl AddAssign for Failures {
    fn add_assign(&mut self, other: Self) {
        self.connect += other.connect;
        self.reset += other.reset;
        self.closed += other.closed;
        self.timed_out += other.timed_out;
        self.status += other.status;
        self.answer += other.answer;
        self.unsent += other.unsent;
    }
}

impl Tick {
    fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// An empty histogram with the bounds of all of them.
#[expect(clippy::expect_used, reason = "the bounds are constants, of a kind that is taken")]
pub(super) fn new_histogram() -> Histogram {
    Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("bounds of a histogram")
}

fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut all = new_histogram();
    histograms.for_each(|histogram| merge(&mut all, histogram));
    all
}

#[expect(clippy::expect_used, reason = "histograms of the same bounds fit into each other")]
fn merge(into: &mut Histogram, from: &Histogram) {
    into.add(from).expect("histograms of the same bounds");
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn histogram<S: Serializer>(from: &Histogram, serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_struct("Histogram", 9)?;
    object.serialize_field("count", &from.len())?;
    object.serialize_field("min", &from.min())?;
    object.serialize_field("mean", &from.mean())?;
    object.serialize_field("p50", &from.value_at_quantile(0.5))?;
    object.serialize_field("p90", &from.value_at_quantile(0.9))?;
    object.serialize_field("p99", &from.value_at_quantile(0.99))?;
    object.serialize_field("p99.9", &from.value_at_quantile(0.999))?;
    object.serialize_field("max", &from.max())?;
    let cumulative = from.iter_recorded().scan(0, |below, step| {
        *below += step.count_since_last_iteration();
        Some((step.value_iterated_to(), *below))
    });
    object.serialize_field("cumulative", &cumulative.collect::<Vec<_>>())?;
    object.end()
}
