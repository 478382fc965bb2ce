//! How long a worker's requests took, as counts in steps that grow with the time.
//!
//! Four steps to every doubling, from 10 us to 137 s: what is read from them is at most a quarter too long. The counts
//! lie on the stats page, behind all rows; a worker adds to its own with one relaxed store per request.

use std::time::Duration;

/// How many steps there are.
pub(super) const STEPS: usize = 96;

/// Times are counted in units of 2^11 ns.
const UNIT_BITS: u32 = 11;

/// The first step ends with the fifth unit; each doubling from the fourth on has as many steps.
const STEPS_PER_DOUBLING: u64 = 4;

/// How long requests took: from the first byte of a request that the worker's loop saw to the end of the turn of the
/// loop in which its answer was complete ([`WorkerHandle::latency`](crate::WorkerHandle::latency)). What the kernel
/// kept a request waiting before is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    counts: [u64; STEPS],
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: [0; STEPS] }
    }
}

impl Latency {
    pub(super) fn new(count: impl Fn(usize) -> u64) -> Self {
        Self { counts: std::array::from_fn(count) }
    }

    /// How many requests were timed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time within which this share of the requests was answered, at most a quarter too long: 0.5 is the median.
    /// `None` without requests. A share below 0 is taken for 0, one above 1 for 1.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count() as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let step = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= rank
        });
        step.map(end_of)
    }

    /// What was added since `earlier`, which was read from the same worker.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self::new(|step| self.counts[step].saturating_sub(earlier.counts[step]))
    }

    /// What was counted in either.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self::new(|step| self.counts[step].saturating_add(other.counts[step]))
    }
}

/// The step that a time is counted in. The last has all that are longer, too.
pub(super) fn step_of(time: Duration) -> usize {
    let units = (u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) >> UNIT_BITS).max(4);
    let doubling = units.ilog2() - 2;
    let within = (units >> doubling) % STEPS_PER_DOUBLING;
    (u64::from(doubling) * STEPS_PER_DOUBLING + within).min(STEPS as u64 - 1) as usize
}

/// Where a step ends.
fn end_of(step: usize) -> Duration {
    let (doubling, within) = (step as u64 / STEPS_PER_DOUBLING, step as u64 % STEPS_PER_DOUBLING);
    Duration::from_nanos((STEPS_PER_DOUBLING + within + 1) << doubling << UNIT_BITS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_never_too_short_and_at_most_a_quarter_too_long() {
        let mut nanos = 10_240_u64;
        while nanos < 137_000_000_000 {
            let time = Duration::from_nanos(nanos);
            let read = end_of(step_of(time));
            assert!(read > time && read <= time.mul_f64(1.2501), "{time:?} is read as {read:?}");
            nanos += nanos / 7;
        }
    }

    #[test]
    fn the_ends_of_the_scale_take_what_lies_beyond() {
        assert_eq!(step_of(Duration::ZERO), 0);
        assert_eq!(end_of(0), Duration::from_nanos(10_240));
        assert_eq!(step_of(Duration::MAX), STEPS - 1);
        assert_eq!(step_of(end_of(STEPS - 1)), STEPS - 1);
    }

    #[test]
    fn quantiles_count_from_the_shortest() {
        let at = |step: usize, count| move |other| if other == step { count } else { 0 };
        assert_eq!(Latency::default().quantile(0.5), None);
        let both = Latency::new(at(10, 99)).and(&Latency::new(at(20, 1)));
        assert_eq!(both.count(), 100);
        for (share, step) in [(-1.0, 10), (0.0, 10), (0.5, 10), (0.99, 10), (0.991, 20), (7.0, 20)]
        {
            assert_eq!(both.quantile(share), Some(end_of(step)), "{share}");
        }
        assert_eq!(both.since(&Latency::new(at(10, 99))), Latency::new(at(20, 1)));
    }
}
