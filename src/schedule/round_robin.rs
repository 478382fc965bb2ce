//! Round robin: each in turn (Node: `SCHED_RR`).

use super::{Candidate, Schedule, rotation};
use crate::id::WorkerId;

/// Deals connections out in turn, in the order in which workers became ready; a worker without room
/// is passed over.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    last: Option<WorkerId>,
}

impl Schedule for RoundRobin {
    fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let index = rotation(candidates, self.last).next()?;
        self.last = Some(candidates[index].worker);
        Some(index)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn candidate(worker: u64, room: usize) -> Candidate {
        Candidate { worker: WorkerId::new(worker), load: 0, room }
    }

    #[test]
    fn idle_workers_take_exact_turns() {
        let candidates = [candidate(1, 1), candidate(2, 1), candidate(3, 1)];
        let mut policy = RoundRobin::default();
        let picks: Vec<_> = (0..6).filter_map(|_| policy.pick(&candidates)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_full_worker_is_passed_over_and_a_full_cluster_picks_nobody() {
        let mut policy = RoundRobin::default();
        let candidates = [candidate(1, 1), candidate(2, 0), candidate(3, 1)];
        assert_eq!(policy.pick(&candidates), Some(0));
        assert_eq!(policy.pick(&candidates), Some(2));
        assert_eq!(policy.pick(&[candidate(1, 0)]), None);
        assert_eq!(policy.pick(&[]), None);
    }
}
