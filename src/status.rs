//! What a running cluster looks like: asked for by the program, published by the primary.

use std::{fmt, time::Duration};

use parking_lot::Mutex;

use crate::{
    cluster::Report,
    event::{ExitStatus, State},
    handle::WorkerHandle,
    id::{Slot, WorkerId},
    shared::SlotStats,
};

/// A cluster at one moment ([`Cluster::status`](crate::Cluster::status)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How many workers are kept running; 0 where the program forks them itself.
    pub target: usize,
    /// Every worker is being replaced.
    pub reloading: bool,
    /// The cluster is about to stop, or stopping.
    pub stopping: bool,
    /// The workers that have not ended, by id.
    pub workers: Vec<WorkerStatus>,
    /// What the cluster did so far. Connections are counted at its end.
    pub report: Report,
}

/// A worker at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The worker's id.
    pub worker: WorkerId,
    /// The worker's row on the stats page.
    pub slot: Slot,
    /// How many workers have had this slot, this one included.
    pub generation: u32,
    /// The process it runs in, once it was started.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: State,
    /// Whether it is ready, and not leaving.
    pub ready: bool,
    /// Since its fork.
    pub age: Duration,
    /// How many workers in its place have failed before it.
    pub restarts: u64,
    /// How the last worker in its place ended, if there was one.
    pub last_exit: Option<ExitStatus>,
    /// Its counters: beats, connections, requests, how busy it was.
    pub stats: SlotStats,
}

impl Status {
    /// How many workers are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.workers.iter().filter(|worker| worker.ready).count()
    }

    /// Whether new clients should be sent to this cluster: some worker is ready, and none of this is
    /// about to stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.stopping && self.ready() > 0
    }
}

impl fmt::Display for Status {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.target.max(self.workers.len());
        write!(f, "{} of {workers} workers ready", self.ready())?;
        write!(f, ", {} restarts", self.report.restarts)?;
        let doing = [(self.stopping, ", stopping"), (self.reloading, ", reloading")];
        doing.iter().filter(|(holds, _)| *holds).try_for_each(|(_, text)| f.write_str(text))
    }
}

/// What came before a worker in its place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Past {
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<ExitStatus>,
}

/// Where the primary publishes what only it knows.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Published>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(crate) target: usize,
    pub(crate) reloading: bool,
    pub(crate) stopping: bool,
    pub(crate) report: Report,
}

impl Board {
    pub(crate) fn publish(&self, published: Published) {
        *self.0.lock() = published;
    }

    /// The status of a cluster with these workers.
    pub(crate) fn status(&self, workers: &[WorkerHandle]) -> Status {
        let Published { target, reloading, stopping, report } = self.0.lock().clone();
        let workers = workers.iter().map(WorkerHandle::status).collect();
        Status { target, reloading, stopping, workers, report }
    }
}
