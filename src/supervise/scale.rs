//! How many workers there should be, by how busy they are.

use std::time::{Duration, Instant};

/// Adds workers when they are busy and takes them away when they are not.
///
/// A worker more is started when the loops were busier than `target` on average for `up_after`, or when
/// connections waited all that time; one less is kept when, for `down_after`, one less would still have
/// been below four fifths of `target`. So a constant load leads to a constant number.
///
/// [`between`](Self::between) has the defaults of what it is not given.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscale {
    /// The fewest workers, at least 1.
    pub min: usize,
    /// The most workers, at most [`Workers::MAX`](crate::Workers::MAX).
    pub max: usize,
    /// The share of time loops should be busy: above 0, at most 1. Default 0.7.
    pub target: f64,
    /// How long it must have been too busy before a worker is added. Default 3 s.
    pub up_after: Duration,
    /// How long it must have been too idle before one is taken away. Default 30 s.
    pub down_after: Duration,
}

impl Autoscale {
    /// Between `min` and `max` workers; a target of 0.7, up after 3 s, down after 30 s. The bounds are checked
    /// when the cluster is built.
    #[must_use]
    pub fn between(min: usize, max: usize) -> Self {
        Self {
            min,
            max,
            target: 0.7,
            up_after: Duration::from_secs(3),
            down_after: Duration::from_secs(30),
        }
    }

    /// The number of workers nearest to this one that the bounds allow.
    pub(crate) fn clamp(&self, workers: usize) -> usize {
        workers.clamp(self.min, self.max.max(self.min))
    }

    /// How often to look.
    pub(crate) fn interval(&self) -> Duration {
        (self.up_after.min(self.down_after) / 3).max(Duration::from_millis(10))
    }
}

/// One worker less must be this far below the target, so that it does not come back at once.
const SLACK: f64 = 0.8;

/// Since when it has been too busy, or too idle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trend {
    busy: Option<Instant>,
    idle: Option<Instant>,
}

impl Trend {
    /// How many workers there should be, given how many there are and the share of time they were busy.
    pub(super) fn advise(
        &mut self,
        now: Instant,
        rule: &Autoscale,
        workers: usize,
        utilization: f64,
        waiting: bool,
    ) -> usize {
        let too_busy = workers < rule.max && (waiting || utilization > rule.target);
        let with_one_less = utilization * workers as f64 / workers.saturating_sub(1).max(1) as f64;
        let too_idle = workers > rule.min && !waiting && with_one_less < rule.target * SLACK;
        let lasts = |since: &mut Option<Instant>, holds: bool, time: Duration| {
            *since = if holds { Some(since.unwrap_or(now)) } else { None };
            since.is_some_and(|since| now.duration_since(since) >= time)
        };
        let up = lasts(&mut self.busy, too_busy, rule.up_after);
        let down = lasts(&mut self.idle, too_idle, rule.down_after);
        if up || down {
            *self = Self::default();
        }
        let advised = if up { workers + 1 } else { workers - usize::from(down) };
        rule.clamp(advised)
    }
}
