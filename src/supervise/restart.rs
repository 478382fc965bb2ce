//! When a failed worker is replaced, and when trying again is over.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::dice::Dice;

/// How workers that failed are replaced (PM2: `exp_backoff_restart_delay`, `max_restarts`; systemd: `RestartSec`,
/// `StartLimitBurst`; Erlang: the restart intensity of a supervisor).
///
/// The first replacement comes at once; the delay before the next ones in a row doubles from
/// `first_delay` up to `longest_delay`.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// The delay before the second replacement in a row. Default 100 ms.
    pub first_delay: Duration,
    /// The longest delay. Default 10 s.
    pub longest_delay: Duration,
    /// By which share of itself a delay may be longer, at random, so that workers which failed
    /// together do not start together: 0 to 1. Default 0.1.
    pub jitter: f64,
    /// A worker that lived this long starts the row anew (PM2: `min_uptime`). Default 10 s.
    pub healthy: Duration,
    /// Failures in a row before any worker was ever ready, or with a worker's own error, after which a
    /// cluster that nobody serves gives up. Default 3.
    pub attempts: u32,
    /// Workers that may be starting at the same time. Default 8.
    pub starts_at_once: usize,
    /// How many failures of one worker's place are too many. Default: none are.
    pub per_worker: Option<Intensity>,
    /// How many failures of the whole cluster are too many. Default: none are.
    pub per_cluster: Option<Intensity>,
    /// What happens when there were too many. Default [`Exhausted::KeepRest`].
    pub exhausted: Exhausted,
    /// The exit code by which a worker says that it is not to be restarted (PM2: `stop_exit_codes`; systemd:
    /// `RestartPreventExitStatus`). Default 78, which is `EX_CONFIG` of sysexits.h: a configuration that will
    /// not get better by itself. `None`: there is no such code.
    pub final_code: Option<i32>,
}

/// More than this many failures within this time are too many (Erlang: `MaxR` in `MaxT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Failures that are still bearable.
    pub failures: u32,
    /// The time in which they are counted.
    pub within: Duration,
}

/// What happens when too many workers failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exhausted {
    /// Who runs goes on; who failed is not replaced any more. When nobody is left, the cluster ends with
    /// [`ErrorKind::Start`](crate::ErrorKind::Start).
    #[default]
    KeepRest,
    /// The cluster stops, and [`run`](crate::Builder::run) returns
    /// [`ErrorKind::Exhausted`](crate::ErrorKind::Exhausted): whoever started the program can decide.
    Stop,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(10),
            jitter: 0.1,
            healthy: Duration::from_secs(10),
            attempts: 3,
            starts_at_once: 8,
            per_worker: None,
            per_cluster: None,
            exhausted: Exhausted::KeepRest,
            final_code: Some(78),
        }
    }
}

impl Restart {
    /// The delay after this many failures in a row, jitter included.
    pub(super) fn delay(&self, failures: u32, dice: &mut Dice) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let delay = self.first_delay.saturating_mul(factor).min(self.longest_delay);
        dice.stretch(delay, self.jitter)
    }
}

/// Failures that are not long ago.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    failures: VecDeque<Instant>,
}

impl Window {
    /// Counts a failure. Whether that is one too many.
    pub(super) fn overflows(&mut self, now: Instant, bound: Option<Intensity>) -> bool {
        let Some(bound) = bound else { return false };
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.duration_since(*at) > bound.within) {
            self.failures.pop_front();
        }
        self.failures.len() > bound.failures as usize
    }
}
