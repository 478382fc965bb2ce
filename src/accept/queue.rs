//! The shared accept queue: accepted connections that whichever loop is free takes next.
//!
//! The primary's thread pushes; every worker loop takes. The connections travel through a bounded
//! channel; who has to be woken is kept beside it under one lock. A loop registers only on its way
//! into the kernel's sleep, so a push never spends its one wake-up on a loop that is stuck in a
//! handler. `README.md` in this folder argues why no wake-up is lost.

#[cfg(all(test, loom))]
use loom::sync::Mutex;
#[cfg(not(all(test, loom)))]
use parking_lot::Mutex;
use std::{collections::VecDeque, fmt};

/// What a sleeper left behind to be woken with.
pub(crate) trait Wake: Clone {
    fn wake(&self);
}

impl Wake for std::task::Waker {
    fn wake(&self) {
        self.wake_by_ref();
    }
}

/// A bounded queue of connections (or of anything) that wakes one idle taker per item.
pub(crate) struct AcceptQueue<T, W> {
    items: channel::Channel<T>,
    waiting: Mutex<Waiting<W>>,
}

struct Waiting<W> {
    /// Takers asleep with nothing to take, longest asleep first.
    takers: VecDeque<(u64, W)>,
    /// A producer that found the queue full.
    producer: Option<W>,
    /// Nothing more will be pushed.
    closed: bool,
}

impl<T, W> fmt::Debug for AcceptQueue<T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptQueue").finish_non_exhaustive()
    }
}

impl<T, W: Wake> AcceptQueue<T, W> {
    /// An empty queue for at most `bound` items, at least 1.
    pub(crate) fn new(bound: usize) -> Self {
        let waiting = Waiting { takers: VecDeque::new(), producer: None, closed: false };
        Self { items: channel::Channel::new(bound.max(1)), waiting: Mutex::new(waiting) }
    }

    /// Appends an item and wakes one sleeping taker; on a full queue gives the item back and will
    /// wake `producer` when there is room.
    pub(crate) fn push(&self, item: T, producer: &W) -> Result<(), T> {
        let mut item = item;
        loop {
            match self.items.push(item) {
                Ok(()) => {
                    self.wake_a_taker();
                    return Ok(());
                }
                Err(refused) => item = refused,
            }
            let mut waiting = self.lock();
            // Looked at under the lock: a taker that made room before will not come back for us.
            if self.items.is_full() {
                waiting.producer = Some(producer.clone());
                return Err(item);
            }
        }
    }

    /// Takes the oldest item. While more are left, the next sleeping taker is woken for them.
    pub(crate) fn take(&self) -> Option<T> {
        let item = self.items.pop()?;
        let mut waiting = self.lock();
        let producer = waiting.producer.take();
        let next = if self.items.is_empty() { None } else { waiting.takers.pop_front() };
        drop(waiting);
        if let Some(producer) = producer {
            producer.wake();
        }
        if let Some((_, taker)) = next {
            taker.wake();
        }
        Some(item)
    }

    /// Registers a taker that is about to sleep; false when it must not, because there is work.
    pub(crate) fn sleep(&self, taker: u64, waker: &W) -> bool {
        let mut waiting = self.lock();
        // Looked at under the lock: a push that came before it would not wake us.
        if !self.items.is_empty() {
            return false;
        }
        waiting.takers.push_back((taker, waker.clone()));
        true
    }

    /// Takes back the registration of a taker that is awake again.
    pub(crate) fn awake(&self, taker: u64) {
        self.lock().takers.retain(|(id, _)| *id != taker);
    }

    /// Called by a taker that will take nothing more: if it was the one woken, another must be.
    pub(crate) fn pass_on(&self) {
        if !self.items.is_empty() {
            self.wake_a_taker();
        }
    }

    /// Says that nothing more will be pushed: whoever leaves now takes the rest along.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Whether nothing more will be pushed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn wake_a_taker(&self) {
        let taker = self.lock().takers.pop_front();
        if let Some((_, taker)) = taker {
            taker.wake();
        }
    }

    #[cfg(not(all(test, loom)))]
    fn lock(&self) -> parking_lot::MutexGuard<'_, Waiting<W>> {
        self.waiting.lock()
    }

    #[cfg(all(test, loom))]
    fn lock(&self) -> loom::sync::MutexGuard<'_, Waiting<W>> {
        // A panic ends the model, so the lock is never found poisoned.
        self.waiting.lock().unwrap()
    }
}

#[cfg(not(all(test, loom)))]
mod channel {
    //! The items' way from the producer to the takers.

    use crossbeam_channel::{Receiver, Sender, bounded};

    pub(super) struct Channel<T> {
        sender: Sender<T>,
        receiver: Receiver<T>,
    }

    impl<T> Channel<T> {
        pub(super) fn new(bound: usize) -> Self {
            let (sender, receiver) = bounded(bound);
            Self { sender, receiver }
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            self.sender.try_send(item).map_err(|refused| refused.into_inner())
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.receiver.try_recv().ok()
        }

        pub(super) fn len(&self) -> usize {
            self.receiver.len()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.receiver.is_empty()
        }

        pub(super) fn is_full(&self) -> bool {
            self.receiver.is_full()
        }
    }
}

#[cfg(all(test, loom))]
mod channel {
    //! A channel that loom can explore: as weakly ordered as the wake-up protocol may assume.

    use loom::sync::Mutex;
    use std::collections::VecDeque;

    pub(super) struct Channel<T> {
        items: Mutex<VecDeque<T>>,
        bound: usize,
    }

    impl<T> Channel<T> {
        pub(super) fn new(bound: usize) -> Self {
            Self { items: Mutex::new(VecDeque::new()), bound }
        }

        fn lock(&self) -> loom::sync::MutexGuard<'_, VecDeque<T>> {
            // A panic ends the model, so the lock is never found poisoned.
            self.items.lock().unwrap()
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.lock();
            if items.len() == self.bound {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.lock().pop_front()
        }

        pub(super) fn len(&self) -> usize {
            self.lock().len()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.lock().is_empty()
        }

        pub(super) fn is_full(&self) -> bool {
            self.lock().len() == self.bound
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst};

    #[derive(Clone, Default)]
    struct Bell(Arc<AtomicUsize>);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn one_push_wakes_one_sleeper_and_a_taker_wakes_the_next() {
        let queue = AcceptQueue::new(8);
        let (first, second, producer) = (Bell::default(), Bell::default(), Bell::default());
        assert!(queue.sleep(1, &first) && queue.sleep(2, &second));
        queue.push('a', &producer).unwrap();
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (1, 0));
        queue.push('b', &producer).unwrap();
        queue.push('c', &producer).unwrap();
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (1, 1));
        assert!(!queue.sleep(3, &Bell::default()), "there is work");
        assert_eq!(
            (queue.take(), queue.take(), queue.take(), queue.take()),
            (Some('a'), Some('b'), Some('c'), None)
        );
    }

    #[test]
    fn a_full_queue_gives_back_and_calls_the_producer_when_there_is_room() {
        let queue = AcceptQueue::new(1);
        let producer = Bell::default();
        queue.push(1, &producer).unwrap();
        assert_eq!(queue.push(2, &producer), Err(2));
        assert_eq!(producer.0.load(SeqCst), 0);
        assert_eq!(queue.take(), Some(1));
        assert_eq!(producer.0.load(SeqCst), 1);
    }

    #[test]
    fn a_leaving_taker_passes_its_wake_up_on() {
        let queue = AcceptQueue::new(8);
        let (leaver, other) = (Bell::default(), Bell::default());
        assert!(queue.sleep(1, &leaver) && queue.sleep(2, &other));
        queue.push((), &Bell::default()).unwrap();
        queue.awake(1);
        queue.pass_on();
        assert_eq!(other.0.load(SeqCst), 1);
    }
}

#[cfg(all(test, loom))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use loom::{
        sync::Arc, sync::Notify, sync::atomic::AtomicBool, sync::atomic::Ordering::SeqCst, thread,
    };

    /// A loop's doorbell: a sleeper blocks on it, a wake rings it.
    #[derive(Clone)]
    struct Bell(Arc<Notify>);

    impl Bell {
        fn new() -> Self {
            Self(Arc::new(Notify::new()))
        }
    }

    impl Wake for Bell {
        fn wake(&self) {
            self.0.notify();
        }
    }

    /// Explores every interleaving with up to three preemptions; more take hours and, in models of
    /// this size, find nothing new.
    fn model(run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(run);
    }

    /// Takes until `wanted` items are gone, sleeping whenever there is nothing: if a wake-up could
    /// be lost, loom finds the interleaving in which this blocks for ever.
    fn take_all(queue: &AcceptQueue<u32, Bell>, id: u64, wanted: usize) {
        let bell = Bell::new();
        for _ in 0..wanted {
            while queue.take().is_none() {
                if queue.sleep(id, &bell) {
                    bell.0.wait();
                    queue.awake(id);
                }
            }
        }
    }

    #[test]
    fn loom_a_sleeping_taker_is_always_woken() {
        model(|| {
            let queue = Arc::new(AcceptQueue::new(2));
            let taker = thread::spawn({
                let queue = queue.clone();
                move || take_all(&queue, 1, 2)
            });
            queue.push(1, &Bell::new()).unwrap();
            queue.push(2, &Bell::new()).unwrap();
            taker.join().unwrap();
        });
    }

    #[test]
    fn loom_two_takers_share_two_items() {
        model(|| {
            let queue = Arc::new(AcceptQueue::new(2));
            let takers = [1, 2].map(|id| {
                let queue = queue.clone();
                thread::spawn(move || take_all(&queue, id, 1))
            });
            queue.push(1, &Bell::new()).unwrap();
            queue.push(2, &Bell::new()).unwrap();
            for taker in takers {
                taker.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_a_producer_that_found_the_queue_full_is_called_back() {
        model(|| {
            let queue = Arc::new(AcceptQueue::new(1));
            let taker = thread::spawn({
                let queue = queue.clone();
                move || take_all(&queue, 1, 2)
            });
            let bell = Bell::new();
            for item in 1..=2 {
                let mut item = item;
                while let Err(refused) = queue.push(item, &bell) {
                    item = refused;
                    bell.0.wait();
                }
            }
            taker.join().unwrap();
        });
    }

    #[test]
    fn loom_a_leaver_that_was_chosen_passes_on() {
        model(|| {
            let queue = Arc::new(AcceptQueue::new(1));
            let left = Arc::new(AtomicBool::new(false));
            let bell = Bell::new();
            let registered = queue.sleep(1, &bell);
            let leaver = thread::spawn({
                let (queue, left) = (queue.clone(), left.clone());
                move || {
                    if registered {
                        queue.awake(1);
                    }
                    left.store(true, SeqCst);
                    queue.pass_on();
                }
            });
            let taker = thread::spawn({
                let queue = queue.clone();
                move || take_all(&queue, 2, 1)
            });
            queue.push(7, &Bell::new()).unwrap();
            leaver.join().unwrap();
            taker.join().unwrap();
        });
    }
}
