//! Whether a loop is awake, and whether somebody wants it to look: the word between a loop and whoever wakes it from
//! another thread. A system call is made only for a loop that sleeps.
//!
//! # Why no wake-up is lost
//!
//! A ringer leaves its task in a queue (P) and then swaps `RUNG` in (R). The loop swaps `AWAKE` in after every look at
//! the kernel (C), and empties the queue if it found `RUNG`; before it sleeps it turns `AWAKE`, and only that, into
//! `ASLEEP`. All changes of the word have one order.
//!
//! * R found `ASLEEP`: the ringer writes the eventfd, so the present or next look at the kernel returns. The C that
//!   follows finds `RUNG` and acquires R, hence P.
//! * R found `AWAKE`: the loop cannot turn `RUNG` into `ASLEEP`, so there is a C before its next sleep, and it finds
//!   `RUNG`.
//! * R found `RUNG`: another ringer was first, and no C lies between the two. The next C finds `RUNG` for that one's
//!   sake, and acquires R through the chain of swaps.
//! * A C that finds no `RUNG` may skip the queue: whoever has pushed has not rung yet.
//!
//! Clearing by a plain store instead of a swap would acquire nothing; emptying the queue before clearing would lose a
//! task pushed in between.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const RUNG: u8 = 1;
const ASLEEP: u8 = 2;

#[derive(Debug)]
pub(super) struct Bell(AtomicU8);

impl Bell {
    /// The bell of a loop that is awake.
    pub(super) fn new() -> Bell {
        Bell(AtomicU8::new(AWAKE))
    }

    /// Asks the loop to look. Whether it sleeps, so that the caller must wake it.
    pub(super) fn ring(&self) -> bool {
        self.0.swap(RUNG, Ordering::AcqRel) == ASLEEP
    }

    /// The caller could not wake the loop: the next one is to try.
    pub(super) fn unring(&self) {
        let _ = self.0.compare_exchange(RUNG, ASLEEP, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Whether somebody has rung, for a loop that is awake.
    pub(super) fn is_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed) == RUNG
    }

    /// The loop is about to sleep. `false`: somebody has rung, it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.0.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The loop has looked at the kernel. Whether somebody has rung since it did last.
    pub(super) fn wake_up(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == RUNG
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::Bell;

    /// A loop's bell, its queue, and the eventfd that its sleep ends with.
    struct Loop {
        bell: Bell,
        queue: Mutex<u32>,
        eventfd: Mutex<bool>,
        written: Condvar,
    }

    impl Loop {
        fn new() -> Arc<Loop> {
            Arc::new(Loop {
                bell: Bell::new(),
                queue: Mutex::new(0),
                eventfd: Mutex::new(false),
                written: Condvar::new(),
            })
        }

        fn send(&self) {
            *self.queue.lock().unwrap() += 1;
            if self.bell.ring() {
                *self.eventfd.lock().unwrap() = true;
                self.written.notify_one();
            }
        }

        /// Turns until so many were taken. Were a wake-up lost, loom would find the order in which this never ends.
        fn run(&self, wanted: u32) {
            let mut taken = 0;
            while taken < wanted {
                if self.bell.fall_asleep() {
                    let mut written = self.eventfd.lock().unwrap();
                    while !*written {
                        written = self.written.wait(written).unwrap();
                    }
                    *written = false;
                }
                if self.bell.wake_up() {
                    taken += std::mem::take(&mut *self.queue.lock().unwrap());
                }
            }
        }
    }

    #[test]
    fn loom_a_loop_hears_every_ring() {
        loom::model(|| {
            let looped = Loop::new();
            let senders = [(); 2].map(|()| {
                let looped = looped.clone();
                thread::spawn(move || looped.send())
            });
            looped.run(2);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }

    #[test]
    fn loom_a_second_ring_of_one_thread_is_heard() {
        loom::model(|| {
            let looped = Loop::new();
            let sender = thread::spawn({
                let looped = looped.clone();
                move || (0..2).for_each(|_| looped.send())
            });
            looped.run(2);
            sender.join().unwrap();
        });
    }
}
