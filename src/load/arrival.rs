//! When requests are due, and of which class each is. Pure: times are nanoseconds of the monotonic clock.

use std::time::Duration;

use crate::dice::Dice;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// A connection sends its next request when it has an answer: as fast as the server is.
    Closed,
    /// At this many requests per second, evenly spaced.
    Constant {
        /// Requests per second, of all threads and connections together.
        per_second: f64,
    },
    /// At this many requests per second on average, independent of each other: the gaps are exponentially
    /// distributed, as those between users who do not know each other.
    Poisson {
        /// Requests per second on average, of all threads and connections together.
        per_second: f64,
    },
}

impl Arrival {
    /// Requests per second, unless the server decides.
    #[must_use]
    pub fn per_second(self) -> Option<f64> {
        match self {
            Self::Closed => None,
            Self::Constant { per_second } | Self::Poisson { per_second } => Some(per_second),
        }
    }
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this time, from the end of the warm-up.
    Elapsed(Duration),
    /// After this many requests, those of the warm-up apart.
    Requests(u64),
}

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) class: usize,
    /// When it should be sent.
    pub(super) at: u64,
    /// Whether it counts: the warm-up's do not.
    pub(super) counted: bool,
}

/// What one thread sends, and when.
pub(super) struct Source {
    gap: Gap,
    /// When the measured part begins: what is due before belongs to the warm-up.
    begin: u64,
    /// No request is due from here on.
    end: u64,
    /// Counted requests that are left.
    left: u64,
    /// Sums of the classes' weights, up to and with each class.
    weights: Vec<u32>,
    dice: Dice,
}

/// The times between requests.
enum Gap {
    /// There are none: whoever asks is given one. The time is when the first may go.
    None { start: u64 },
    /// The n-th is due `n * gap` after the first.
    Constant { first: f64, gap: f64, count: u64 },
    /// The next is due at `next`.
    Exponential { mean: f64, next: f64 },
}

/// What a thread's share of a load is.
pub(super) struct Share {
    /// Which thread this is, of how many.
    pub(super) thread: usize,
    pub(super) threads: usize,
    pub(super) start: u64,
    pub(super) begin: u64,
    pub(super) until: Until,
    pub(super) seed: u64,
}

impl Source {
    pub(super) fn new(arrival: Arrival, share: &Share, weights: &[u32]) -> Self {
        let mut dice = Dice::new(share.seed.wrapping_add(share.thread as u64));
        let (end, left) = match share.until {
            Until::Elapsed(time) => (share.begin.saturating_add(nanos(time)), u64::MAX),
            Until::Requests(count) => (u64::MAX, part(count, share)),
        };
        let sum = |sum: &mut u32, weight: &u32| {
            *sum += weight;
            Some(*sum)
        };
        let weights = weights.iter().scan(0, sum).collect();
        let gap = Gap::new(arrival, share, &mut dice);
        Self { gap, begin: share.begin, end, left, weights, dice }
    }

    /// The next request, if it is due by `now`.
    pub(super) fn take(&mut self, now: u64) -> Option<Due> {
        let at = self.next(now)?;
        if at > now {
            return None;
        }
        self.gap.advance(&mut self.dice);
        let counted = at >= self.begin;
        self.left -= u64::from(counted);
        Some(Due { class: self.class(), at, counted })
    }

    /// When the next request is due: in a closed loop, now. `None` when there is no further one.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        let at = self.gap.next(now);
        (self.left > 0 && at < self.end).then_some(at)
    }

    /// No request is due any more from `now` on. Gives those that count, were due, and were not taken, by
    /// class.
    pub(super) fn close(&mut self, now: u64) -> Vec<u64> {
        self.end = self.end.min(now);
        let mut rest = vec![0; self.weights.len()];
        if !matches!(self.gap, Gap::None { .. }) {
            let waiting = std::iter::from_fn(|| self.take(now));
            waiting.for_each(|due| rest[due.class] += u64::from(due.counted));
        }
        self.left = 0;
        rest
    }

    fn class(&mut self) -> usize {
        let [before @ .., total] = self.weights.as_slice() else { return 0 };
        if before.is_empty() {
            return 0;
        }
        let drawn = (self.dice.roll() * f64::from(*total)) as u32;
        self.weights.partition_point(|sum| *sum <= drawn).min(before.len())
    }
}

impl Gap {
    fn new(arrival: Arrival, share: &Share, dice: &mut Dice) -> Self {
        let Some(per_second) = arrival.per_second() else {
            return Self::None { start: share.start };
        };
        let (gap, start) = (1e9 / per_second, share.start as f64);
        let own = gap * share.threads as f64;
        match arrival {
            Arrival::Poisson { .. } => {
                Self::Exponential { mean: own, next: start + exponential(own, dice) }
            }
            // The threads take turns.
            _ => Self::Constant { first: start + gap * share.thread as f64, gap: own, count: 0 },
        }
    }

    fn next(&self, now: u64) -> u64 {
        match self {
            Self::None { start } => now.max(*start),
            Self::Constant { first, gap, count } => (first + gap * *count as f64) as u64,
            Self::Exponential { next, .. } => *next as u64,
        }
    }

    fn advance(&mut self, dice: &mut Dice) {
        match self {
            Self::None { .. } => {}
            Self::Constant { count, .. } => *count += 1,
            Self::Exponential { mean, next } => *next += exponential(*mean, dice),
        }
    }
}

fn exponential(mean: f64, dice: &mut Dice) -> f64 {
    -mean * (1.0 - dice.roll()).ln()
}

/// A thread's part of what all do together: the first ones take what is over.
pub(super) fn part(count: u64, share: &Share) -> u64 {
    let threads = share.threads as u64;
    count / threads + u64::from((share.thread as u64) < count % threads)
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn source(arrival: Arrival, until: Until, threads: usize, thread: usize) -> Source {
        let share = Share { thread, threads, start: SECOND, begin: 2 * SECOND, until, seed: 7 };
        Source::new(arrival, &share, &[1])
    }

    fn all(source: &mut Source, now: u64) -> Vec<Due> {
        std::iter::from_fn(|| source.take(now)).collect()
    }

    #[test]
    fn a_constant_rate_keeps_its_times_however_late_it_is_asked() {
        let arrival = Arrival::Constant { per_second: 100.0 };
        let until = Until::Elapsed(Duration::from_secs(1));
        let mut source = source(arrival, until, 1, 0);
        assert_eq!(source.take(SECOND - 1), None);
        let due = all(&mut source, 9 * SECOND);
        let times = due.iter().map(|due| due.at);
        assert!(times.eq((0..200).map(|n| SECOND + n * SECOND / 100)));
        assert_eq!(due.iter().filter(|due| due.counted).count(), 100);
        assert_eq!(source.next(9 * SECOND), None);
    }

    #[test]
    fn threads_share_rate_and_count() {
        let arrival = Arrival::Constant { per_second: 10.0 };
        let mut sources = [0, 1, 2].map(|thread| source(arrival, Until::Requests(12), 3, thread));
        let due: Vec<_> = sources.iter_mut().map(|source| all(source, 9 * SECOND)).collect();
        let counts = due.iter().map(|due| due.iter().filter(|due| due.counted).count());
        assert_eq!(Vec::from_iter(counts), [4, 4, 4]);
        let mut times: Vec<_> = due.iter().flatten().map(|due| due.at).collect();
        times.sort_unstable();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SECOND / 10), "{times:?}");
    }

    #[test]
    fn poisson_has_the_rate_and_the_spread_and_repeats() {
        let arrival = Arrival::Poisson { per_second: 1000.0 };
        let draw = || {
            let mut source = source(arrival, Until::Elapsed(Duration::from_secs(99)), 1, 0);
            all(&mut source, 101 * SECOND)
        };
        let due = draw();
        assert_eq!(due, draw());
        assert!((98_000..102_000).contains(&due.len()), "{}", due.len());
        let gaps = due.windows(2).map(|pair| (pair[1].at - pair[0].at) as f64 / 1e6);
        let (sum, squares) =
            gaps.fold((0.0, 0.0), |(sum, squares), gap| (sum + gap, squares + gap * gap));
        let mean = sum / due.len() as f64;
        let spread = (squares / due.len() as f64 - mean * mean).sqrt();
        assert!((0.97..1.03).contains(&(spread / mean)), "{spread} {mean}");
    }

    #[test]
    fn classes_come_by_weight() {
        let until = Until::Requests(100_000);
        let share = Share { thread: 0, threads: 1, start: 0, begin: 0, until, seed: 1 };
        let mut source = Source::new(Arrival::Closed, &share, &[1, 0, 3]);
        let mut counts = [0; 3];
        all(&mut source, 5).iter().for_each(|due| counts[due.class] += 1);
        assert_eq!(counts.iter().sum::<i32>(), 100_000);
        assert_eq!(counts[1], 0);
        assert!((24_000..26_000).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn what_was_due_and_not_taken_is_told() {
        let arrival = Arrival::Constant { per_second: 100.0 };
        let mut source = source(arrival, Until::Elapsed(Duration::from_secs(9)), 1, 0);
        assert!(source.take(2 * SECOND).is_some());
        // 99 more of the warm-up do not count; due are those at 2.00 up to 2.49 s.
        assert_eq!(source.close(2 * SECOND + SECOND / 2), [50]);
        assert_eq!(source.next(9 * SECOND), None);
        let mut closed = self::source(Arrival::Closed, Until::Requests(5), 1, 0);
        assert_eq!(closed.close(9 * SECOND), [0]);
        assert_eq!(closed.next(9 * SECOND), None);
    }
}
