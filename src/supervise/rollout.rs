//! Replacing all workers, a few at a time.

use std::collections::VecDeque;

use super::Seat;

/// How a reload goes through the workers (Kubernetes: `maxSurge`, `maxUnavailable`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Workers that may run beyond the number asked for; recycling goes by it, too. Default 1.
    pub surge: usize,
    /// Workers that may be missing. Default 0: an old worker leaves only when a new one is ready.
    pub unavailable: usize,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { surge: 1, unavailable: 0 }
    }
}

/// A reload under way.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Whose turn has not come.
    waiting: VecDeque<Seat>,
    /// Whose replacement is on its way.
    busy: Vec<Seat>,
    /// A first new worker got ready: the new generation works.
    proven: bool,
    /// Another reload was asked for meanwhile.
    again: bool,
}

impl Progress {
    pub(super) fn new(seats: impl Iterator<Item = Seat>) -> Self {
        Self { waiting: seats.collect(), busy: Vec::new(), proven: false, again: false }
    }

    /// Another reload was asked for: everybody starts anew when this one is through.
    pub(super) fn ask_again(&mut self) {
        self.again = true;
    }

    pub(super) fn asked_again(&self) -> bool {
        self.again
    }

    /// The next seat whose turn it is: the first one alone, then as many at a time as may be.
    pub(super) fn next(&mut self, at_once: usize) -> Option<Seat> {
        let allowed = if self.proven { at_once } else { 1 };
        if self.busy.len() >= allowed {
            return None;
        }
        let seat = self.waiting.pop_front()?;
        self.busy.push(seat);
        Some(seat)
    }

    /// Somebody was started in this seat before its turn: that one is new, and has to prove it as well.
    pub(super) fn started(&mut self, seat: Seat) {
        if self.waiting.contains(&seat) {
            self.forget(seat);
            self.busy.push(seat);
        }
    }

    /// The turn that was just given has to wait.
    pub(super) fn postpone(&mut self, seat: Seat) {
        self.forget(seat);
        self.waiting.push_front(seat);
    }

    /// Whether this seat's replacement is part of the reload and on its way.
    pub(super) fn concerns(&self, seat: Seat) -> bool {
        self.busy.contains(&seat)
    }

    /// How many seats have their turn now.
    pub(super) fn under_way(&self) -> usize {
        self.busy.len()
    }

    /// The seat has its new worker.
    pub(super) fn done(&mut self, seat: Seat) {
        self.proven |= self.concerns(seat);
        self.forget(seat);
    }

    /// The seat does not need a new worker any more.
    pub(super) fn forget(&mut self, seat: Seat) {
        self.waiting.retain(|other| *other != seat);
        self.busy.retain(|other| *other != seat);
    }

    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.busy.is_empty()
    }
}
