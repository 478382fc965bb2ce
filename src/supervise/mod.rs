//! What to do when a worker ends or hangs, when a stop, a reload or another number of workers is asked
//! for, when time passes: pure decisions.
//!
//! [`Supervisor::handle`] takes the time and what happened and appends what to do. It reads no
//! clock, starts nothing and touches no worker; the primary carries the actions out.
//!
//! A *seat* is one of the places to keep filled: it has a worker that serves and, while that one is being
//! replaced, a successor that is not ready yet. Who leaves has no seat any more. Invariants:
//!
//! * A seat's worker is retired only when its successor is ready, unless a reload may leave seats empty.
//! * Every worker is known from its fork to its end; one that was killed and does not end is abandoned.
//! * A stop ends: each of its phases has a deadline, and after the last one everybody is abandoned.

mod changes;
mod ends;
mod health;
mod recycle;
mod restart;
mod rollout;
mod scale;
mod seats;
mod supervisor;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{fmt, time::Duration};

pub(crate) use self::supervisor::Supervisor;
pub use self::{
    health::Health,
    recycle::Recycle,
    restart::{Exhausted, Intensity, Restart},
    rollout::Rollout,
    scale::Autoscale,
};
use crate::id::WorkerId;

/// How long a successor, a worker's or the whole program's, may take to get ready when no time was chosen.
pub(crate) const BOOT: Duration = Duration::from_secs(60);

/// How a supervised cluster behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// How many seats to keep filled.
    pub(crate) workers: usize,
    /// When to start a replacement; never if absent.
    pub(crate) restart: Option<Restart>,
    /// How long a worker may take to get ready.
    pub(crate) boot_timeout: Option<Duration>,
    pub(crate) health: Option<Health>,
    pub(crate) recycle: Recycle,
    pub(crate) scale: Option<Autoscale>,
    pub(crate) rollout: Rollout,
    pub(crate) shutdown: Shutdown,
    /// Where jitter starts from.
    pub(crate) seed: u64,
}

/// The phases of a stop, and of every worker that is retired: announced, drain, close, kill. It is over as soon
/// as nobody is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long to go on serving, but unready, so that load balancers look away (Kubernetes: a `preStop`
    /// sleep). Default 0.
    pub delay: Duration,
    /// How long workers may drain (gunicorn: `graceful_timeout`; PM2: `kill_timeout`; Node: a timer of the
    /// program's). Default 10 s.
    pub drain: Duration,
    /// How long a worker that was told to close its connections may take. Default 1 s.
    pub close: Duration,
    /// How long a killed worker may take to be gone before it is left behind. Default 1 s.
    pub kill: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            drain: Duration::from_secs(10),
            close: Duration::from_secs(1),
            kill: Duration::from_secs(1),
        }
    }
}

/// One of the places to keep filled, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seat(pub(crate) usize);

/// How a worker came to its end, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its body returned without an error, or it was asked to leave.
    Done,
    /// Its body returned an error, or it could not be started: trying again may not help.
    Refused(String),
    /// With this exit code.
    Code(i32),
    /// Anything else.
    Crashed(String),
}

/// What is seen of a worker from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    pub(crate) beats: u64,
    pub(crate) requests: u64,
    /// Bytes of its own, where a worker has memory of its own.
    pub(crate) memory: Option<u64>,
    /// Nanoseconds its loop has worked so far.
    pub(crate) busy_ns: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// The cluster starts.
    Start,
    /// A worker was started, for this seat if it was asked for here.
    Forked { worker: WorkerId, seat: Option<Seat> },
    /// There was no room for the worker that was to be started for this seat.
    NotForked { seat: Seat },
    /// A worker is ready.
    Ready { worker: WorkerId },
    /// A worker drains without having been told to here.
    Leaving { worker: WorkerId },
    /// A worker is gone.
    Ended { worker: WorkerId, ending: Ending },
    /// A worker was told to end at once.
    Killed { worker: WorkerId },
    /// The answer to [`Action::Look`]: every worker, and whether connections wait for one.
    Seen { workers: Vec<(WorkerId, Sight)>, waiting: bool },
    /// This many workers are wanted.
    Scale(usize),
    /// Every worker is to be replaced.
    Reload,
    /// A graceful stop was asked for; the second time means at once.
    Stop,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a worker for this seat.
    Fork(Seat),
    /// Look at every worker, and tell what was seen.
    Look,
    /// Ask this worker to drain and leave.
    Disconnect(WorkerId),
    /// Tell this worker to end now, in good order.
    Close(WorkerId),
    /// End this worker so that it leaves a trace.
    Abort(WorkerId),
    /// End this worker now.
    Kill(WorkerId),
    /// Leave this worker behind: it did not react to being killed.
    Abandon(WorkerId),
    /// The cluster is about to stop: say that it is not ready any more.
    Unready,
    /// Listen no more.
    StopAccepting,
    /// Nobody can serve: end the cluster with this cause.
    GiveUp(String),
    /// Nobody is left; this is the exit code of the last: end the cluster with it.
    NobodyLeft(i32),
    /// Too many workers failed: end the cluster with the cause of the last.
    Exhausted(String),
    /// Tell the program what was decided.
    Tell(Decision),
}

/// What a supervisor decided, and why (the `decision` event).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// A worker failed and is replaced after this delay.
    Restart {
        /// Who failed.
        worker: WorkerId,
        /// How.
        cause: String,
        /// When a new one starts, from now.
        delay: Duration,
    },
    /// A worker failed and is not replaced.
    NoRestart {
        /// Who failed.
        worker: WorkerId,
        /// Why it is not replaced.
        cause: String,
    },
    /// A worker did not get ready in time and is ended.
    NotReady {
        /// Who.
        worker: WorkerId,
        /// How long it had.
        within: Duration,
    },
    /// A worker gives no sign of life: it is being ended, and another takes its place.
    Hung {
        /// Who.
        worker: WorkerId,
        /// For how long it has been silent.
        silent: Duration,
    },
    /// A worker has done enough: another takes its place.
    Recycle {
        /// Who.
        worker: WorkerId,
        /// Which bound it has reached.
        cause: String,
    },
    /// Another number of workers is wanted.
    Scale {
        /// How many there were.
        from: usize,
        /// How many there will be.
        to: usize,
    },
    /// A reload begins.
    Reload,
    /// Every worker was replaced.
    Reloaded,
    /// A reload was broken off; who was not replaced yet serves on.
    ReloadFailed {
        /// Why the new worker failed.
        cause: String,
    },
    /// The program as it is on disk now is started to take over.
    Upgrade {
        /// Its process.
        pid: u32,
    },
    /// The new program serves: this one leaves.
    Upgraded {
        /// Its process.
        pid: u32,
    },
    /// The new program does not take over: this one goes on.
    UpgradeFailed {
        /// Why.
        cause: String,
    },
    /// A stop begins.
    Stop,
}

impl Decision {
    /// How much it matters to whoever reads the log.
    pub(crate) fn level(&self) -> log::Level {
        match self {
            Self::Restart { .. } | Self::NotReady { .. } | Self::Hung { .. } => log::Level::Warn,
            Self::NoRestart { .. } | Self::ReloadFailed { .. } | Self::UpgradeFailed { .. } => {
                log::Level::Error
            }
            _ => log::Level::Info,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart { worker, cause, delay } if delay.is_zero() => {
                write!(f, "worker {worker} is replaced now: {cause}")
            }
            Self::Restart { worker, cause, delay } => {
                write!(f, "worker {worker} is replaced in {} ms: {cause}", delay.as_millis())
            }
            Self::NoRestart { worker, cause } => {
                write!(f, "worker {worker} is not replaced: {cause}")
            }
            Self::NotReady { worker, within } => {
                write!(f, "worker {worker} was not ready after {} ms", within.as_millis())
            }
            Self::Hung { worker, silent } => {
                write!(f, "worker {worker} gave no sign of life for {} ms", silent.as_millis())
            }
            Self::Recycle { worker, cause } => write!(f, "worker {worker} is recycled: {cause}"),
            Self::Scale { from, to } => write!(f, "the number of workers goes from {from} to {to}"),
            Self::Reload => f.write_str("every worker is replaced"),
            Self::Reloaded => f.write_str("every worker was replaced"),
            Self::ReloadFailed { cause } => {
                write!(f, "the reload is broken off, the old workers go on: {cause}")
            }
            Self::Upgrade { pid } => write!(f, "process {pid} is started to take over"),
            Self::Upgraded { pid } => write!(f, "process {pid} has taken over"),
            Self::UpgradeFailed { cause } => {
                write!(f, "no new program takes over, this one goes on: {cause}")
            }
            Self::Stop => f.write_str("the cluster stops"),
        }
    }
}
