//! Whether a worker still lives, judged by its beats, and what is done to one that does not.

use std::time::{Duration, Instant};

/// When a worker counts as hung, and how it is ended (gunicorn: `timeout`; puma: `worker_timeout`; systemd:
/// `WatchdogSec`; Node and PM2 have nothing like it).
///
/// A worker beats by itself, several times within the deadline, whenever its loop turns: a handler that
/// never returns, a lock that is never released and a stopped process all end the beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// How long a worker may not beat, at least [`SHORTEST`](Self::SHORTEST). Default 30 s. What a handler computes
    /// or waits for without giving its loop a turn must stay below it.
    pub deadline: Duration,
    /// How long each step against a hung worker may take before the next: it is asked to leave, told to
    /// end, aborted (a process, by SIGABRT), killed. Default 1 s. A thread that reacts to none of it is left
    /// behind: its [`ExitStatus`](crate::ExitStatus) is `Abandoned`.
    pub patience: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), patience: Duration::from_secs(1) }
    }
}

impl Health {
    /// The shortest deadline: a busy machine holds a loop up for some milliseconds.
    pub const SHORTEST: Duration = Duration::from_millis(50);

    /// How often a worker beats at least.
    pub(crate) fn beat(&self) -> Duration {
        (self.deadline / 4).max(Duration::from_millis(5))
    }

    /// How often the beats are looked at: a hang is seen at most one beat after the deadline.
    pub(crate) fn interval(&self) -> Duration {
        self.beat() / 2
    }
}

/// What was last seen of a worker's beats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    beats: u64,
    since: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { beats: 0, since: now }
    }

    /// Whoever looks was late itself: the silence so far says nothing.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.since = now;
    }

    /// Takes in the count of beats and says for how long it has not changed.
    pub(super) fn silence(&mut self, now: Instant, beats: u64) -> Duration {
        if beats != self.beats {
            *self = Self { beats, since: now };
        }
        now.duration_since(self.since)
    }
}

/// The steps against a hung worker, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rung {
    Asked,
    Told,
    Aborted,
    Killed,
}

impl Rung {
    /// The next one; only a hung worker is aborted.
    pub(super) fn next(self, hung: bool) -> Self {
        match self {
            Self::Asked => Self::Told,
            Self::Told if hung => Self::Aborted,
            Self::Told | Self::Aborted | Self::Killed => Self::Killed,
        }
    }
}
