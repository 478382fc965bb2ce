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
