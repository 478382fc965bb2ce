//! Least connections: the worker with the fewest open ones.

use super::{Candidate, Schedule, rotation};
use crate::id::WorkerId;

/// Offers each connection to the least loaded worker with room; equals take turns.
#[derive(Debug, Default)]
pub(crate) struct LeastConnections {
    last: Option<WorkerId>,
}

impl Schedule for LeastConnections {
    fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let index = rotation(candidates, self.last).min_by_key(|&index| candidates[index].load)?;
        self.last = Some(candidates[index].worker);
        Some(index)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn candidate(worker: u64, load: u64, room: usize) -> Candidate {
        Candidate { worker: WorkerId::new(worker), load, room }
    }

    #[test]
    fn the_least_loaded_with_room_is_picked() {
        let mut policy = LeastConnections::default();
        assert_eq!(
            policy.pick(&[candidate(1, 9, 1), candidate(2, 3, 1), candidate(3, 1, 0)]),
            Some(1)
        );
    }

    #[test]
    fn equals_take_turns() {
        let mut policy = LeastConnections::default();
        let equals = [candidate(1, 5, 1), candidate(2, 5, 1)];
        let picks: Vec<_> = (0..4).filter_map(|_| policy.pick(&equals)).collect();
        assert_eq!(picks, [0, 1, 0, 1]);
    }
}
