//! The only place that reads the monotonic clock.
//!
//! Everything that decides by time takes an [`Instant`] as an argument, so it can be simulated.

use std::time::Instant;

/// The current time of the monotonic clock.
#[inline]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The same clock as a number that all processes of the machine agree on: nanoseconds since it was
/// started, at the last boot.
pub(crate) fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}
