//! The line in which tasks wait for a thread: a bounded part inside, and outside of it the tasks of callers
//! who wait for a place. Pure: no thread, no clock of its own.
//!
//! A place that becomes free inside is taken at once by the outside task whose turn it is. While anything
//! waits outside, the inside is full.

use std::{collections::BTreeSet, time::Instant};

use super::lanes::{Lane, Lanes};

/// Where a task belongs in the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) lane: Lane,
    /// Its number among all tasks of the pool.
    pub(super) key: u64,
    pub(super) deadline: Option<Instant>,
}

/// What left the line, and what came in from outside for it.
pub(super) struct Left<T> {
    pub(super) item: T,
    pub(super) admitted: Option<T>,
}

pub(super) struct Line<T> {
    bound: usize,
    inside: Lanes<T>,
    outside: Lanes<T>,
    /// Of those inside and outside that have one.
    deadlines: BTreeSet<(Instant, u64, Lane)>,
}

impl<T: Clone> Line<T> {
    pub(super) fn new(bound: usize) -> Self {
        let (inside, outside) = (Lanes::new(), Lanes::new());
        Self { bound, inside, outside, deadlines: BTreeSet::new() }
    }

    /// How many wait inside and outside.
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.inside.len(), self.outside.len())
    }

    pub(super) fn is_full(&self) -> bool {
        self.inside.len() >= self.bound
    }

    /// Adds a task inside, where there must be room.
    pub(super) fn put(&mut self, place: Place, item: T) {
        self.note_deadline(place);
        self.inside.put(place.lane, place.key, item);
    }

    /// Adds a task outside.
    pub(super) fn put_outside(&mut self, place: Place, item: T) {
        self.note_deadline(place);
        self.outside.put(place.lane, place.key, item);
    }

    fn note_deadline(&mut self, place: Place) {
        if let Some(deadline) = place.deadline {
            self.deadlines.insert((deadline, place.key, place.lane));
        }
    }

    /// Takes the task whose turn it is, with its place; `deadline_of` says when it had to begin.
    pub(super) fn take(&mut self, deadline_of: impl Fn(&T) -> Option<Instant>) -> Option<Left<T>> {
        let (lane, key, item) = self.inside.take()?;
        self.forget_deadline(lane, key, deadline_of(&item));
        Some(Left { item, admitted: self.admit() })
    }

    /// Takes the oldest task of the lowest lane, unless that lane is above this one. Its place stays free.
    pub(super) fn take_oldest_up_to(
        &mut self,
        lane: Lane,
        deadline_of: impl Fn(&T) -> Option<Instant>,
    ) -> Option<T> {
        let (lane, key, item) = self.inside.take_oldest_up_to(lane)?;
        self.forget_deadline(lane, key, deadline_of(&item));
        Some(item)
    }

    /// Takes this task out, wherever it is.
    pub(super) fn remove(&mut self, place: Place) -> Option<Left<T>> {
        self.forget_deadline(place.lane, place.key, place.deadline);
        if let Some(item) = self.outside.remove(place.lane, place.key) {
            return Some(Left { item, admitted: None });
        }
        let item = self.inside.remove(place.lane, place.key)?;
        Some(Left { item, admitted: self.admit() })
    }

    /// Takes out one task that should have begun by now.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Left<T>> {
        let (deadline, key, lane) = self.deadlines.first().copied()?;
        if deadline > now {
            return None;
        }
        self.remove(Place { lane, key, deadline: Some(deadline) })
    }

    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.deadlines.clear();
        self.inside.drain().chain(self.outside.drain()).collect()
    }

    fn forget_deadline(&mut self, lane: Lane, key: u64, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, key, lane));
        }
    }

    fn admit(&mut self) -> Option<T> {
        let (lane, key, item) = self.outside.take()?;
        self.inside.put(lane, key, item.clone());
        Some(item)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(key: u64) -> Place {
        Place { lane: Lane::Normal, key, deadline: None }
    }

    fn never(_: &u64) -> Option<Instant> {
        None
    }

    #[test]
    fn whoever_leaves_makes_room_for_one_from_outside() {
        let mut line = Line::new(2);
        (0..2).for_each(|key| line.put(place(key), key));
        assert!(line.is_full());
        (2..5).for_each(|key| line.put_outside(place(key), key));
        let left = line.take(never).unwrap();
        assert_eq!((left.item, left.admitted), (0, Some(2)));
        assert_eq!(line.lengths(), (2, 2));
        let cancelled = line.remove(place(1)).unwrap();
        assert_eq!((cancelled.item, cancelled.admitted), (1, Some(3)));
        let outside = line.remove(place(4)).unwrap();
        assert_eq!((outside.item, outside.admitted), (4, None));
        assert!(line.remove(place(4)).is_none());
        assert_eq!(line.lengths(), (2, 0));
    }

    #[test]
    fn deadlines_leave_with_their_tasks_and_expire_in_order() {
        let start = crate::clock::now();
        let after = |key| start + Duration::from_secs(key);
        let timed = |key| Place { deadline: Some(after(key)), ..place(key) };
        let mut line = Line::new(9);
        [3, 1, 2].into_iter().for_each(|key| line.put(timed(key), key));
        line.put_outside(timed(4), 4);
        assert_eq!(line.first_deadline(), Some(after(1)));
        assert_eq!(line.take(|key| Some(after(*key))).unwrap().item, 1);
        assert!(line.take_expired(after(2) - Duration::from_nanos(1)).is_none());
        let expired = std::iter::from_fn(|| line.take_expired(after(9)).map(|left| left.item));
        assert_eq!(expired.collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((line.first_deadline(), line.lengths()), (None, (0, 0)));
    }
}
