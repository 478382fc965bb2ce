//! What a pool counts: relaxed atomics, written by whoever a thing happens to, read by anybody.

use std::{
    array, fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The classes of a [`Histogram`]: the last holds everything from 39 hours on.
const BUCKETS: usize = 48;

/// What a pool did and has to do ([`Pool::stats`](super::Pool::stats)).
///
/// Each task that a pool accepted ends as exactly one of `completed`, `panicked`, `cancelled`, `expired` and
/// `dropped`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Tasks that wait for a thread, within the queue's bound.
    pub queued: usize,
    /// Tasks whose callers wait for a place in the queue ([`WhenFull::Wait`](super::WhenFull::Wait)).
    pub waiting: usize,
    /// Tasks that run, in the pool's threads or in their callers.
    pub running: usize,
    /// The pool's threads.
    pub threads: usize,
    /// Tasks that returned.
    pub completed: u64,
    /// Tasks that panicked.
    pub panicked: u64,
    /// Tasks that were cancelled before they began.
    pub cancelled: u64,
    /// Tasks that had not begun by their deadline.
    pub expired: u64,
    /// Tasks that were dropped for newer ones ([`WhenFull::DropOldest`](super::WhenFull::DropOldest)).
    pub dropped: u64,
    /// Tasks that were handed back; these were never accepted.
    pub rejected: u64,
    /// Tasks that ran in their callers ([`WhenFull::RunInCaller`](super::WhenFull::RunInCaller)). They are
    /// among the completed or panicked, too.
    pub in_caller: u64,
    /// How long tasks waited before they began.
    pub wait_time: Histogram,
    /// How long tasks ran.
    pub run_time: Histogram,
}

/// How often something took how long, in classes that double from 1 ns on.
#[derive(Clone)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The classes from short to long: the time below which its members lie, and how many they are.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let end = |class: usize| Duration::from_nanos(2 << class);
        self.counts.iter().enumerate().map(move |(class, count)| (end(class), *count))
    }

    /// The time below which this part of all lies, from 0.0 to 1.0, rounded up to the end of its class: up to
    /// twice as long as it was. `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = ((part.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(end, count)| {
            seen += count;
            (seen >= wanted).then_some(end)
        })
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets().filter(|(_, count)| *count > 0)).finish()
    }
}

/// A histogram that is written to.
#[derive(Debug)]
pub(super) struct Times([AtomicU64; BUCKETS]);

impl Times {
    pub(super) fn note(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.0[(ns.ilog2() as usize).min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    fn read(&self) -> Histogram {
        Histogram { counts: array::from_fn(|class| self.0[class].load(Relaxed)) }
    }
}

/// The counters of a pool.
#[derive(Debug)]
pub(super) struct Counters {
    /// Begun, and not ended.
    pub(super) running: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) panicked: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) in_caller: AtomicU64,
    pub(super) wait_time: Times,
    pub(super) run_time: Times,
}

impl Counters {
    pub(super) fn new() -> Self {
        let times = || Times(array::from_fn(|_| AtomicU64::new(0)));
        let [running, completed, panicked, cancelled, expired, dropped, rejected, in_caller] =
            array::from_fn(|_| AtomicU64::new(0));
        let (wait_time, run_time) = (times(), times());
        Self {
            running,
            completed,
            panicked,
            cancelled,
            expired,
            dropped,
            rejected,
            in_caller,
            wait_time,
            run_time,
        }
    }

    /// What the counters say; the rest is as given.
    pub(super) fn read(&self, (queued, waiting): (usize, usize), threads: usize) -> PoolStats {
        PoolStats {
            queued,
            waiting,
            running: usize::try_from(self.running.load(Relaxed)).unwrap_or(usize::MAX),
            threads,
            completed: self.completed.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            expired: self.expired.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            in_caller: self.in_caller.load(Relaxed),
            wait_time: self.wait_time.read(),
            run_time: self.run_time.read(),
        }
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_classes_that_double() {
        let counters = Counters::new();
        for ns in [0, 1, 2, 3, 4, 1_000, 1_000_000, u64::MAX] {
            counters.run_time.note(Duration::from_nanos(ns));
        }
        counters.run_time.note(Duration::MAX);
        let read = counters.read((0, 0), 0).run_time;
        let found: Vec<_> = read.buckets().filter(|(_, count)| *count > 0).collect();
        let ns = Duration::from_nanos;
        let last = ns(1 << 48);
        assert_eq!(
            found,
            [(ns(2), 2), (ns(4), 2), (ns(8), 1), (ns(1_024), 1), (ns(1 << 20), 1), (last, 2)]
        );
        assert_eq!(read.count(), 9);
        assert_eq!(read.quantile(0.5), Some(ns(8)));
        assert_eq!(read.quantile(1.0), Some(last));
        assert_eq!(read.quantile(0.0), Some(ns(2)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
