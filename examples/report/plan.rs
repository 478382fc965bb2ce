//! What a run does: how long its cells are, and which arms it has.

use std::time::Duration;

use bimodal::{Mode, Scheduling};

use crate::experiment::Cell;

/// Both modes, in the order in which tables have them.
pub(crate) const MODES: [Mode; 2] = [Mode::Process, Mode::Thread];

/// Every policy, in the order in which tables have them.
pub(crate) const POLICIES: [Scheduling; 4] = [
    Scheduling::RoundRobin,
    Scheduling::LeastConnections,
    Scheduling::Shared,
    Scheduling::ReusePort,
];

/// What was asked for on the command line.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// Only the arms of this mode.
    pub(crate) mode: Option<Mode>,
}

impl Plan {
    /// The first in a full run, the second in a quick one.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Milliseconds, as [`Plan::either`].
    pub(crate) fn millis(&self, full: u64, quick: u64) -> Duration {
        Duration::from_millis(self.either(full, quick))
    }

    pub(crate) fn wants(&self, cell: &Cell) -> bool {
        self.mode.is_none_or(|only| cell.mode.is_none_or(|mode| mode == only))
    }
}

/// One arm per round, in turn forwards and backwards (A B B A), so that what changes slowly on the machine hits all alike.
pub(crate) fn interleaved(
    arms: &[(String, Option<Mode>)],
    rounds: u32,
    expected: Duration,
) -> Vec<Cell> {
    let round = |round: u32| {
        let mut cells: Vec<_> = arms
            .iter()
            .map(|(arm, mode)| Cell { arm: arm.clone(), mode: *mode, round, expected })
            .collect();
        if round % 2 == 1 {
            cells.reverse();
        }
        cells
    };
    (0..rounds).flat_map(round).collect()
}

/// The arms of every mode under every policy, called `process/shared` and so on.
pub(crate) fn crossed(policies: &[Scheduling]) -> Vec<(String, Option<Mode>)> {
    let arm =
        |mode: Mode| policies.iter().map(move |policy| (format!("{mode}/{policy}"), Some(mode)));
    MODES.into_iter().flat_map(arm).collect()
}

/// Mode and policy of an arm that [`crossed`] made; whatever follows a further `/` is the experiment's.
pub(crate) fn mode_and_policy(arm: &str) -> Option<(Mode, Scheduling)> {
    let mut parts = arm.split('/');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
