//! How busy a loop is.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Busy and idle time of a loop since it was made (Node: `performance.eventLoopUtilization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoopStats {
    /// Time spent awake: tasks, timers, dispatch, and the caller's work between turns.
    pub busy: Duration,
    /// Time spent asleep in the kernel.
    pub idle: Duration,
    /// Turns made.
    pub turns: u64,
}

impl LoopStats {
    /// The busy share of the time, from 0 to 1; 0 when no time has passed.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        let total = (self.busy + self.idle).as_secs_f64();
        if total > 0.0 { self.busy.as_secs_f64() / total } else { 0.0 }
    }

    /// What was added since `earlier`, a sample of the same loop.
    #[must_use]
    pub fn since(&self, earlier: &LoopStats) -> LoopStats {
        LoopStats {
            busy: self.busy.saturating_sub(earlier.busy),
            idle: self.idle.saturating_sub(earlier.idle),
            turns: self.turns.saturating_sub(earlier.turns),
        }
    }
}

/// Splits the time between looks at the clock into busy and idle.
pub(super) struct Meter {
    stats: Cell<LoopStats>,
    counted_until: Cell<Instant>,
}

impl Meter {
    pub(super) fn starting_at(now: Instant) -> Meter {
        Meter { stats: Cell::default(), counted_until: Cell::new(now) }
    }

    pub(super) fn stats(&self) -> LoopStats {
        self.stats.get()
    }

    pub(super) fn counted_until(&self) -> Instant {
        self.counted_until.get()
    }

    pub(super) fn restart(&self, now: Instant) {
        self.counted_until.set(now);
    }

    /// The loop is about to look at the kernel: what passed was busy.
    pub(super) fn begin_poll(&self, now: Instant) {
        let mut stats = self.stats.get();
        stats.busy += self.advance(now);
        self.stats.set(stats);
    }

    /// The look at the kernel is over, and with it a turn is counted.
    pub(super) fn end_poll(&self, now: Instant, slept: bool) {
        let mut stats = self.stats.get();
        let passed = self.advance(now);
        *(if slept { &mut stats.idle } else { &mut stats.busy }) += passed;
        stats.turns += 1;
        self.stats.set(stats);
    }

    fn advance(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.counted_until.replace(now))
    }
}
