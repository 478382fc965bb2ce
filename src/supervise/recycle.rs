//! When a worker that works is replaced all the same.

use std::time::Duration;

use super::Sight;
use crate::dice::Dice;

/// Replaces workers that have done enough (gunicorn: `max_requests`; PM2: `max_memory_restart`). The new
/// worker starts first; the old one drains when it is ready. Workers are looked at once in a second, and
/// at most [`Rollout::surge`](crate::Rollout::surge) of them, but at least one, are replaced at a time.
///
/// Default: nothing is enough.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recycle {
    /// After this many requests (gunicorn: `max_requests`).
    pub requests: Option<u64>,
    /// At this age (systemd: `RuntimeMaxSec`).
    pub age: Option<Duration>,
    /// At this many bytes of memory of its own, as [`WorkerHandle::memory`](crate::WorkerHandle::memory) has
    /// them (PM2: `max_memory_restart`). [`Mode::Process`](crate::Mode::Process) only: threads share theirs.
    pub memory: Option<u64>,
    /// By which share a bound on requests or age may be higher, at random, so that workers which
    /// started together are not replaced together: 0 to 1. Default 0 (gunicorn: `max_requests_jitter`).
    pub jitter: f64,
}

impl Recycle {
    /// Whether there is anything to look at.
    pub(super) fn is_on(&self) -> bool {
        self.requests.is_some() || self.age.is_some() || self.memory.is_some()
    }

    /// The bounds of one worker.
    pub(super) fn draw(&self, dice: &mut Dice) -> Bounds {
        Bounds {
            requests: self.requests.map(|count| dice.stretch_count(count, self.jitter)),
            age: self.age.map(|age| dice.stretch(age, self.jitter)),
            memory: self.memory,
        }
    }
}

/// What one worker may reach; by default anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    requests: Option<u64>,
    age: Option<Duration>,
    memory: Option<u64>,
}

impl Bounds {
    /// Which bound was reached, if one was.
    pub(super) fn reached(&self, age: Duration, sight: &Sight) -> Option<String> {
        if self.requests.is_some_and(|bound| sight.requests >= bound) {
            return Some(format!("it answered {} requests", sight.requests));
        }
        if self.age.is_some_and(|bound| age >= bound) {
            return Some(format!("it is {} s old", age.as_secs()));
        }
        let memory = sight.memory?;
        let reached = self.memory.is_some_and(|bound| memory >= bound);
        reached.then(|| format!("it takes {} KiB of memory", memory / 1024))
    }
}
