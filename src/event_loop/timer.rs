//! The timers of a loop: a heap of deadlines with lazy cancellation and lazy postponement.
//!
//! A timer has at most one valid heap entry, the one whose number it remembers. Cancelling or advancing a timer leaves
//! its old entry behind as stale; the heap is rebuilt when more than half of it is stale. Postponing touches only the
//! timer: the entry that comes up too early is put back with the new deadline.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use super::waker::Parking;

/// Below this many stale entries a rebuild is not worth it.
const STALE_ALLOWED: usize = 64;

/// The number of no entry.
const UNQUEUED: u64 = 0;

/// One deadline and who waits for it.
pub(super) struct Timer {
    deadline: Cell<Instant>,
    sleeper: Parking,
    /// The number of the valid heap entry.
    entry: Cell<u64>,
    /// When that entry comes up: at or before the deadline.
    comes_up: Cell<Instant>,
}

impl Timer {
    pub(super) fn new(deadline: Instant) -> Rc<Timer> {
        Rc::new(Timer {
            deadline: Cell::new(deadline),
            sleeper: Parking::default(),
            entry: Cell::new(UNQUEUED),
            comes_up: Cell::new(deadline),
        })
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    pub(super) fn is_queued(&self) -> bool {
        self.entry.get() != UNQUEUED
    }

    /// Moves the deadline. `true`: the heap would notice too late, so the timer has to be queued again.
    pub(super) fn set_deadline(&self, deadline: Instant) -> bool {
        self.deadline.set(deadline);
        self.is_queued() && deadline < self.comes_up.get()
    }

    pub(super) fn park(&self, waker: &Waker) {
        self.sleeper.park(waker);
    }

    pub(super) fn leave(&self) {
        self.sleeper.leave();
    }

    pub(super) fn clear(&self) {
        self.sleeper.clear();
    }

    pub(super) fn fire(&self) {
        self.sleeper.unpark();
    }
}

/// A heap entry, ordered by time and then by age.
struct Entry {
    at: Instant,
    number: u64,
    timer: Rc<Timer>,
}

impl Entry {
    fn is_stale(&self) -> bool {
        self.timer.entry.get() != self.number
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The heap.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    last_number: u64,
    stale: usize,
}

impl Timers {
    /// Queues the timer at its deadline; an older entry of it becomes stale.
    pub(super) fn queue(&mut self, timer: &Rc<Timer>) {
        self.dequeue(timer);
        self.last_number += 1;
        let (at, number) = (timer.deadline.get(), self.last_number);
        timer.entry.set(number);
        timer.comes_up.set(at);
        self.heap.push(Reverse(Entry { at, number, timer: Rc::clone(timer) }));
    }

    pub(super) fn dequeue(&mut self, timer: &Timer) {
        if timer.entry.replace(UNQUEUED) != UNQUEUED {
            self.stale += 1;
            self.compact();
        }
    }

    /// When to look again: no timer is due before.
    pub(super) fn first(&mut self) -> Option<Instant> {
        while let Some(top) = self.heap.peek_mut() {
            if !top.0.is_stale() {
                return Some(top.0.at);
            }
            PeekMut::pop(top);
            self.stale -= 1;
        }
        None
    }

    /// Takes the next timer out that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Rc<Timer>> {
        while self.first()? <= now {
            let mut top = self.heap.peek_mut()?;
            let deadline = top.0.timer.deadline.get();
            if deadline > now {
                top.0.timer.comes_up.set(deadline);
                top.0.at = deadline;
                continue;
            }
            let Reverse(entry) = PeekMut::pop(top);
            entry.timer.entry.set(UNQUEUED);
            return Some(entry.timer);
        }
        None
    }

    pub(super) fn clear(&mut self) {
        for Reverse(entry) in self.heap.drain() {
            entry.timer.entry.set(UNQUEUED);
        }
        self.stale = 0;
    }

    fn compact(&mut self) {
        if self.stale > STALE_ALLOWED && self.stale > self.heap.len() / 2 {
            self.heap.retain(|entry| !entry.0.is_stale());
            self.stale = 0;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn deadlines_due(timers: &mut Timers, now: Instant) -> Vec<Instant> {
        std::iter::from_fn(|| timers.pop_due(now)).map(|timer| timer.deadline()).collect()
    }

    #[test]
    fn timers_come_up_in_order_and_never_early() {
        let start = crate::clock::now();
        let mut timers = Timers::default();
        for ms in [5, 1, 4, 2, 3] {
            timers.queue(&Timer::new(start + MS * ms));
        }
        assert!(deadlines_due(&mut timers, start + MS - Duration::from_nanos(1)).is_empty());
        assert_eq!(
            deadlines_due(&mut timers, start + MS * 3),
            [start + MS, start + MS * 2, start + MS * 3]
        );
        assert_eq!(timers.first(), Some(start + MS * 4));
    }

    #[test]
    fn equal_deadlines_come_up_in_the_order_of_queueing() {
        let start = crate::clock::now();
        let mut timers = Timers::default();
        let queued: Vec<_> = (0..10).map(|_| Timer::new(start)).collect();
        queued.iter().for_each(|timer| timers.queue(timer));
        for timer in &queued {
            let due = timers.pop_due(start).unwrap();
            assert!(Rc::ptr_eq(timer, &due));
        }
    }

    #[test]
    fn postponing_does_not_touch_the_heap_and_advancing_does() {
        let start = crate::clock::now();
        let mut timers = Timers::default();
        let timer = Timer::new(start + MS * 10);
        timers.queue(&timer);
        for ms in 11..1000 {
            assert!(!timer.set_deadline(start + MS * ms));
        }
        assert_eq!(timers.heap.len(), 1);
        assert!(timers.pop_due(start + MS * 998).is_none());
        assert_eq!(timers.first(), Some(start + MS * 999));

        assert!(timer.set_deadline(start + MS * 5));
        timers.queue(&timer);
        assert_eq!(deadlines_due(&mut timers, start + MS * 5), [start + MS * 5]);
        assert_eq!(timers.first(), None);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let start = crate::clock::now();
        let mut timers = Timers::default();
        let lasting = Timer::new(start);
        timers.queue(&lasting);
        for ms in 0..10_000 {
            let timer = Timer::new(start + MS * ms);
            timers.queue(&timer);
            timers.dequeue(&timer);
            assert!(timers.heap.len() <= 2 * STALE_ALLOWED + 2);
        }
        assert_eq!(deadlines_due(&mut timers, start + MS * 10_000), [start]);
        assert_eq!((timers.heap.len(), timers.stale), (0, 0));
    }
}
