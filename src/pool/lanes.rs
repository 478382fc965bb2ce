//! Three lanes, and the rule by which the next item is chosen. Pure: no thread, no clock.
//!
//! A lane is in the order of its keys. Every operation takes logarithmic time, also the removal of an
//! item from the middle, so nothing is left behind of what was cancelled.

use std::{collections::BTreeMap, mem};

/// How soon a task's turn comes.
///
/// Threads take from the highest lane that has something, but a lane that was passed over often enough
/// goes first: after 4 tasks from above it [`Normal`](Self::Normal) gets one turn, after 16
/// [`Background`](Self::Background). So none starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Before all others.
    Urgent,
    /// The default.
    #[default]
    Normal,
    /// When there is nothing better to do, and now and then.
    Background,
}

impl Lane {
    pub(super) const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Background];

    /// How often it is passed over in a row, at most: the highest never is by this rule.
    fn patience(self) -> u32 {
        match self {
            Self::Urgent => u32::MAX,
            Self::Normal => 4,
            Self::Background => 16,
        }
    }
}

/// Items in lanes.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: [Waiting<T>; 3],
}

#[derive(Debug)]
struct Waiting<T> {
    items: BTreeMap<u64, T>,
    /// Items that were taken from above since this lane had its last turn, or was empty.
    passed: u32,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        let empty = || Waiting { items: BTreeMap::new(), passed: 0 };
        Self { lanes: [empty(), empty(), empty()] }
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.items.len()).sum()
    }

    /// Adds an item; its key is its place among those of its lane.
    pub(super) fn put(&mut self, lane: Lane, key: u64, item: T) {
        let waiting = &mut self.lanes[lane as usize];
        if waiting.items.is_empty() {
            waiting.passed = 0;
        }
        waiting.items.insert(key, item);
    }

    /// Takes the item whose turn it is.
    pub(super) fn take(&mut self) -> Option<(Lane, u64, T)> {
        let lane = self.next_lane()?;
        let (key, item) = self.lanes[lane as usize].items.pop_first()?;
        self.lanes[lane as usize].passed = 0;
        for below in self.lanes[lane as usize + 1..].iter_mut() {
            below.passed = below.passed.saturating_add(1);
        }
        Some((lane, key, item))
    }

    fn next_lane(&self) -> Option<Lane> {
        let waits = |lane: &Lane| !self.lanes[*lane as usize].items.is_empty();
        let due = |lane: &Lane| self.lanes[*lane as usize].passed >= lane.patience();
        let waiting = || Lane::ALL.into_iter().filter(waits);
        waiting().find(due).or_else(|| waiting().next())
    }

    /// Takes this item out of the middle.
    pub(super) fn remove(&mut self, lane: Lane, key: u64) -> Option<T> {
        self.lanes[lane as usize].items.remove(&key)
    }

    /// Takes the oldest item of the lowest lane that has one, unless that lane is above this one.
    pub(super) fn take_oldest_up_to(&mut self, lane: Lane) -> Option<(Lane, u64, T)> {
        let waits = |lane: &Lane| !self.lanes[*lane as usize].items.is_empty();
        let lowest = Lane::ALL.into_iter().rev().find(waits).filter(|lowest| *lowest >= lane)?;
        let (key, item) = self.lanes[lowest as usize].items.pop_first()?;
        Some((lowest, key, item))
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        mem::replace(self, Self::new()).lanes.into_iter().flat_map(|lane| lane.items.into_values())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use Lane::{Background, Normal, Urgent};

    /// Lanes that hold so many items each, with keys from 0.
    fn lanes(counts: [u64; 3]) -> Lanes<()> {
        let mut lanes = Lanes::new();
        for (lane, count) in Lane::ALL.into_iter().zip(counts) {
            (0..count).for_each(|key| lanes.put(lane, key, ()));
        }
        lanes
    }

    fn turns(lanes: &mut Lanes<()>, count: usize) -> Vec<(Lane, u64)> {
        let taken = (0..count).map_while(|_| lanes.take());
        taken.map(|(lane, key, ())| (lane, key)).collect()
    }

    #[test]
    fn a_lower_lane_gets_every_fifth_turn_and_the_lowest_waits_for_16() {
        let turns: Vec<_> =
            turns(&mut lanes([100; 3]), 40).into_iter().map(|turn| turn.0).collect();
        let at = |wanted: Lane| {
            let all = turns.iter().enumerate();
            all.filter(|(_, lane)| **lane == wanted).map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(at(Normal), [4, 9, 14, 20, 25, 30, 36]);
        assert_eq!(at(Background), [16, 33]);
    }

    #[test]
    fn each_lane_keeps_its_order_and_all_are_emptied() {
        let mut lanes = lanes([3, 3, 3]);
        let turns = turns(&mut lanes, 99);
        for lane in Lane::ALL {
            let keys = turns.iter().filter(|turn| turn.0 == lane).map(|turn| turn.1);
            assert_eq!(keys.collect::<Vec<_>>(), [0, 1, 2]);
        }
        assert_eq!(lanes.len(), 0);
    }

    /// A lane that was empty has not been passed over.
    #[test]
    fn patience_begins_with_the_first_item() {
        let mut lanes = lanes([100, 0, 0]);
        turns(&mut lanes, 50);
        lanes.put(Background, 0, ());
        let turns = turns(&mut lanes, 17);
        assert_eq!(turns.iter().position(|turn| turn.0 == Background), Some(16));
    }

    /// Whatever comes, no lane waits for longer than its patience and one turn of another that is due.
    #[test]
    fn nothing_starves_however_much_comes_above() {
        let mut lanes = lanes([0, 1, 1]);
        for round in 0..17 {
            lanes.put(Urgent, round, ());
            lanes.put(Normal, round + 1, ());
            if lanes.take().unwrap().0 == Background {
                assert_eq!(round, 16);
                return;
            }
        }
        panic!("the lowest lane starved");
    }

    #[test]
    fn the_oldest_goes_first_but_never_for_something_lower() {
        let mut lanes = lanes([1, 2, 0]);
        assert!(lanes.take_oldest_up_to(Background).is_none());
        assert_eq!(lanes.take_oldest_up_to(Normal), Some((Normal, 0, ())));
        assert_eq!(lanes.take_oldest_up_to(Urgent), Some((Normal, 1, ())));
        assert_eq!(lanes.take_oldest_up_to(Urgent), Some((Urgent, 0, ())));
        assert_eq!(lanes.take_oldest_up_to(Urgent), None);
    }
}
