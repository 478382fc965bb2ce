//! Who is offered the next connection: pure decisions over a list of candidates.
//!
//! The primary runs these when it accepts for the workers (round robin, least connections, and
//! whatever has to be dispatched again). They hold no socket and read no clock.

mod least_connections;
mod round_robin;

pub(crate) use least_connections::LeastConnections;
pub(crate) use round_robin::RoundRobin;

use crate::id::WorkerId;

/// A worker that could be offered a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The worker.
    pub(crate) worker: WorkerId,
    /// Connections it has open, plus those offered and not yet acknowledged.
    pub(crate) load: u64,
    /// Connections it may still be offered before it acknowledges one.
    pub(crate) room: usize,
}

/// A policy.
pub(crate) trait Schedule {
    /// The index of the candidate that gets the next connection; none when nobody has room.
    /// Candidates come in the order in which they became ready.
    fn pick(&mut self, candidates: &[Candidate]) -> Option<usize>;
}

/// The indices with room, beginning behind `last` and going round once.
fn rotation(candidates: &[Candidate], last: Option<WorkerId>) -> impl Iterator<Item = usize> + '_ {
    let behind = candidates.iter().position(|candidate| Some(candidate.worker) == last);
    let first = behind.map_or(0, |index| index + 1);
    let count = candidates.len();
    (0..count).map(move |step| (first + step) % count).filter(|&index| candidates[index].room > 0)
}
