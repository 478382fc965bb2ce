//! A queue whose reader takes all there is at once, and then item by item from a place of its own.
//!
//! Two cores that share a queue pay for every cache line that goes from one to the other, and that is most of what an
//! item costs. Here the lines of the queue itself go once per batch, and a reader who found several items at once gives
//! the writers a moment for the next batch.
//!
//! Any thread may write and any thread may read. Two locks, always taken in this order:
//!
//! * `at_hand`: what readers take from. A reader holds it to take an item, and while it fetches more.
//! * `arriving`: what writers append to, and what readers sleep on.
//!
//! # Why no reader oversleeps
//!
//! A reader falls asleep only after it has seen both places empty while it held both locks, and it lets go of
//! `arriving` by sleeping. Whatever comes after that comes through `arriving`, and every item that does wakes a sleeper,
//! who looks in both places.

use std::{
    collections::VecDeque,
    fmt, hint,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock;

/// An empty place keeps memory for so many items, however few the batch before had.
const KEPT: usize = 256;

/// How long a reader who found several items at once lets more arrive. Shorter than a wake-up by far, and time for
/// about ten items.
const GATHER: Duration = Duration::from_micros(1);

pub(super) struct Queue<T> {
    arriving: CachePadded<Mutex<Arriving<T>>>,
    at_hand: CachePadded<Mutex<AtHand<T>>>,
    /// Whether a reader who has nothing at hand should look at what is arriving: one that looks again and again leaves
    /// the lock to the writers. It is a hint, what it says is only true under the lock.
    news: CachePadded<AtomicBool>,
    sleepers: Condvar,
}

struct Arriving<T> {
    items: VecDeque<T>,
    closed: bool,
}

struct AtHand<T> {
    items: VecDeque<T>,
    /// How many the last batch had.
    last_batch: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let arriving = Arriving { items: VecDeque::new(), closed: false };
        let at_hand = AtHand { items: VecDeque::new(), last_batch: 0 };
        Self {
            arriving: Mutex::new(arriving).into(),
            at_hand: Mutex::new(at_hand).into(),
            news: CachePadded::default(),
            sleepers: Condvar::new(),
        }
    }

    /// Appends an item; gives it back when the queue is closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut arriving = self.arriving.lock();
        if arriving.closed {
            return Err(item);
        }
        arriving.items.push_back(item);
        let is_first = arriving.items.len() == 1;
        drop(arriving);
        if is_first {
            self.news.store(true, Relaxed);
        }
        self.sleepers.notify_one();
        Ok(())
    }

    /// The next item, if there is one.
    pub(super) fn try_next(&self) -> Option<T> {
        let mut at_hand = self.at_hand.lock();
        if at_hand.items.is_empty() && self.news.load(Relaxed) {
            if at_hand.last_batch > 1 {
                gather();
            }
            drop(self.fetch(&mut at_hand));
        }
        at_hand.items.pop_front()
    }

    /// The next item; sleeps until the deadline, or for as long as it takes. `None` when the time is over, when the
    /// queue is closed and empty, or when it is empty and `is_over`, which is asked before each sleep.
    pub(super) fn next(&self, deadline: Option<Instant>, is_over: impl Fn() -> bool) -> Option<T> {
        let mut in_time = true;
        loop {
            if let Some(item) = self.try_next() {
                return Some(item);
            }
            let mut at_hand = self.at_hand.lock();
            if !at_hand.items.is_empty() {
                continue;
            }
            let mut arriving = self.fetch(&mut at_hand);
            let item = at_hand.items.pop_front();
            if item.is_some() || arriving.closed || !in_time || is_over() {
                return item;
            }
            drop(at_hand);
            in_time = self.sleep(&mut arriving, deadline);
        }
    }

    /// Has whoever sleeps ask again whether it is over.
    pub(super) fn ask_again(&self) {
        // Whoever has just been told that it is not sleeps by the time the lock is free.
        drop(self.arriving.lock());
        self.sleepers.notify_all();
    }

    /// Nothing comes any more: what is there can still be taken, and whoever sleeps learns that it is all.
    pub(super) fn close(&self) {
        self.arriving.lock().closed = true;
        self.sleepers.notify_all();
    }

    /// Moves all that has arrived to where readers take from, which is empty. Memory that a large batch needed goes
    /// when the batches are small again.
    fn fetch(&self, at_hand: &mut AtHand<T>) -> MutexGuard<'_, Arriving<T>> {
        at_hand.items.shrink_to(KEPT.max(4 * at_hand.last_batch));
        let mut arriving = self.arriving.lock();
        std::mem::swap(&mut at_hand.items, &mut arriving.items);
        self.news.store(false, Relaxed);
        at_hand.last_batch = at_hand.items.len();
        arriving
    }

    /// Sleeps until an item comes, or the end, or the deadline; `false` for the last.
    fn sleep(&self, arriving: &mut MutexGuard<'_, Arriving<T>>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.sleepers.wait(arriving);
            return true;
        };
        !self.sleepers.wait_until(arriving, deadline).timed_out()
    }
}

fn gather() {
    let end = clock::now() + GATHER;
    while clock::now() < end {
        hint::spin_loop();
    }
}

/// No code that can panic runs under its locks.
impl<T> UnwindSafe for Queue<T> {}
impl<T> RefUnwindSafe for Queue<T> {}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::{Arc, atomic::Ordering::SeqCst},
        thread,
    };

    use super::*;

    #[test]
    fn items_come_in_order_and_what_is_there_is_taken_after_the_end() {
        let queue = Queue::new();
        (1..=3).for_each(|item| queue.push(item).unwrap());
        assert_eq!(queue.try_next(), Some(1));
        queue.push(4).unwrap();
        queue.close();
        assert_eq!(queue.push(5), Err(5));
        let rest: Vec<_> = std::iter::from_fn(|| queue.next(None, || false)).collect();
        assert_eq!(rest, [2, 3, 4]);
        assert_eq!(queue.try_next(), None);
    }

    #[test]
    fn a_reader_waits_until_its_deadline_and_no_longer() {
        let queue = Queue::<u8>::new();
        let deadline = clock::now() + Duration::from_millis(20);
        assert_eq!(queue.next(Some(deadline), || false), None);
        assert!(clock::now() >= deadline);
        queue.push(1).unwrap();
        assert_eq!(queue.next(Some(deadline), || false), Some(1), "what is there needs no time");
    }

    #[test]
    fn memory_of_a_large_batch_is_given_back() {
        let queue = Queue::new();
        let capacity =
            || queue.at_hand.lock().items.capacity() + queue.arriving.lock().items.capacity();
        (0..100_000).for_each(|item| queue.push(item).unwrap());
        while queue.try_next().is_some() {}
        assert!(capacity() >= 100_000);
        for item in 0..4 {
            queue.push(item).unwrap();
            assert_eq!(queue.try_next(), Some(item));
        }
        assert!(capacity() <= 4 * KEPT, "{}", capacity());
    }

    /// Readers that sleep and readers that look: each item is taken once, each reader sees one writer's in order.
    #[test]
    fn many_writers_and_many_readers_lose_nothing() {
        const EACH: u64 = 20_000;
        let queue = Arc::new(Queue::new());
        let writers = [0, 1].map(|writer| {
            let queue = queue.clone();
            thread::spawn(move || (0..EACH).for_each(|item| queue.push((writer, item)).unwrap()))
        });
        let readers = [0, 1, 2].map(|reader| {
            let queue = queue.clone();
            thread::spawn(move || {
                let (mut last, mut taken) = ([None; 2], 0);
                while let Some((writer, item)) = (reader == 0)
                    .then(|| queue.try_next())
                    .flatten()
                    .or_else(|| queue.next(None, || false))
                {
                    assert!(last[writer] < Some(item), "{item} after {last:?}");
                    last[writer] = Some(item);
                    taken += 1;
                }
                taken
            })
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        queue.close();
        let taken: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert_eq!(taken, 2 * EACH);
    }

    /// A sleeper who was not woken would wait for ever.
    #[test]
    fn every_item_wakes_its_reader() {
        let (there, back) = (Arc::new(Queue::new()), Arc::new(Queue::new()));
        let echo = thread::spawn({
            let (there, back) = (there.clone(), back.clone());
            move || {
                while let Some(item) = there.next(None, || false) {
                    back.push(item).unwrap();
                }
            }
        });
        for item in 0..5_000 {
            there.push(item).unwrap();
            assert_eq!(back.next(None, || false), Some(item));
        }
        there.close();
        echo.join().unwrap();
    }

    #[test]
    fn a_sleeper_is_told_when_it_is_over() {
        let (queue, over) = (Arc::new(Queue::<u8>::new()), Arc::new(AtomicBool::new(false)));
        let sleepers = [(); 2].map(|()| {
            let (queue, over) = (queue.clone(), over.clone());
            thread::spawn(move || queue.next(None, || over.load(SeqCst)))
        });
        over.store(true, SeqCst);
        queue.ask_again();
        assert!(sleepers.into_iter().all(|sleeper| sleeper.join().unwrap().is_none()));
        queue.push(1).unwrap();
        assert_eq!(queue.next(None, || true), Some(1));
    }
}
