//! Taking from what several loops take from: how much per turn, and a loop's place at the shared queue.

use std::{
    cell::RefCell,
    future::Future as _,
    pin::pin,
    rc::Rc,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Instant,
};

use socket2::Socket;

use crate::{
    accept::SharedQueue,
    event_loop::{self, HookGuard, SleepHook, on_sleep},
};

/// How much was taken in the current turn of the loop.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    at: Option<Instant>,
    taken: u32,
}

impl Turn {
    /// Whether one more may be taken in this turn, of so many. A turn is known by its cached time.
    pub(super) fn take_one(&mut self, most: u32) -> bool {
        let now = event_loop::now();
        if self.at != Some(now) {
            *self = Self { at: Some(now), taken: 0 };
        }
        if self.taken == most {
            return false;
        }
        self.taken += 1;
        true
    }

    pub(super) fn give_back(&mut self) {
        self.taken -= 1;
    }
}

/// Comes back by itself: a socket that was left before it said `EAGAIN` makes no new edge.
pub(super) fn wake_next_turn(cx: &mut Context<'_>) {
    // Its first poll is always pending and leaves the waker with the loop.
    let _ = pin!(event_loop::yield_now()).poll(cx);
}

/// This loop's place at the shared queue.
pub(super) struct Taker {
    doze: Rc<Doze>,
    _hook: HookGuard,
}

impl Taker {
    pub(super) fn new(queue: Arc<SharedQueue>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let doze =
            Rc::new(Doze { queue, id: NEXT.fetch_add(1, Relaxed), waiting: RefCell::default() });
        Self { _hook: on_sleep(doze.clone()), doze }
    }

    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Socket> {
        if let Some(socket) = self.doze.queue.take() {
            return Poll::Ready(socket);
        }
        let mut waiting = self.doze.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The queue itself.
    pub(super) fn queue(&self) -> &SharedQueue {
        &self.doze.queue
    }

    /// Takes nothing for now: if a wake-up was meant for this loop, another gets it.
    pub(super) fn rest(&self) {
        *self.doze.waiting.borrow_mut() = None;
        self.doze.queue.pass_on();
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.rest();
        self.doze.queue.awake(self.doze.id);
    }
}

/// Registers the loop at the queue while it sleeps, and only then.
struct Doze {
    queue: Arc<SharedQueue>,
    id: u64,
    /// Who waits for a connection; nobody while the listener rests.
    waiting: RefCell<Option<Waker>>,
}

impl Doze {
    fn wake(&self) {
        let waiting = self.waiting.borrow().clone();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl SleepHook for Doze {
    fn before_sleep(&self) -> bool {
        let waiting = self.waiting.borrow();
        let Some(waker) = &*waiting else { return true };
        if self.queue.sleep(self.id, waker) {
            return true;
        }
        drop(waiting);
        self.wake();
        false
    }

    fn after_sleep(&self) {
        self.queue.awake(self.id);
    }

    fn pass_by(&self) {
        if !self.queue.is_empty() {
            self.wake();
        }
    }
}
