//! The faults: ordered by the arm's primary, committed by a task beside the app on one worker.
//!
//! The order is a word of shared memory, since messages are the app's. A task on each worker's loop looks at it every
//! [`LOOK`]; whoever takes it first writes down the time and commits the fault, and nobody after it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::options::REGION;
use crate::{
    clock,
    cluster::Cluster,
    error::Result,
    event_loop::{interval, spawn},
    shared::SharedBuffer,
    worker::Worker,
};

/// How often a worker looks whether a fault is ordered: 50 looks a second cost less than 0.1 % of a core.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of the region.
pub(super) const BYTES: usize = 16;

/// The word of the region that has the order; 0 for none.
const ORDER: usize = 0;

/// The word that has the time of the fault, on the clock that all processes share; 0 if there was none.
const TIME: usize = 1;

/// What is done to one worker under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// A task of the worker panics.
    Panic,
    /// The worker calls `abort(3)`; a segmentation fault and a stack overflow end it in the same way.
    Abort,
}

impl Fault {
    pub(super) const ALL: [Self; 2] = [Self::Panic, Self::Abort];

    fn word(self) -> u64 {
        match self {
            Self::Panic => 1,
            Self::Abort => 2,
        }
    }

    fn commit(self) {
        match self {
            Self::Panic => panic!("the comparison wants to know what a panic does"),
            Self::Abort => std::process::abort(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Panic => "panic",
            Self::Abort => "abort",
        })
    }
}

/// Orders one fault of whichever worker looks first.
pub(super) fn order(cluster: &Cluster, fault: Fault) -> Result<()> {
    cluster.region(REGION)?.store(ORDER, fault.word())
}

/// How long ago a fault was committed, if one was.
pub(super) fn since(cluster: &Cluster) -> Option<Duration> {
    let time = cluster.region(REGION).and_then(|region| region.load(TIME)).unwrap_or(0);
    (time > 0).then(|| Duration::from_nanos(clock::monotonic_ns().saturating_sub(time)))
}

/// Lets this worker commit what is ordered, for as long as it lives.
pub(super) fn obey(worker: &Worker) {
    match worker.region(REGION) {
        Ok(region) => spawn(look(region)).detach(),
        Err(error) => log::error!("{}: no fault can be ordered: {error}", worker.name()),
    }
}

async fn look(region: SharedBuffer) {
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        if let Some(fault) = take(&region) {
            // The region has the word.
            let _ = region.store(TIME, clock::monotonic_ns());
            fault.commit();
        }
    }
}

fn take(region: &SharedBuffer) -> Option<Fault> {
    let ordered = |fault: &Fault| {
        region.compare_exchange(ORDER, fault.word(), 0).is_ok_and(|was| was == fault.word())
    };
    Fault::ALL.into_iter().find(ordered)
}
