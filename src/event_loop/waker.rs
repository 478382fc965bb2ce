//! Waking tasks: from the loop's own thread, and from any other through its [`Bell`].
//!
//! Other threads leave tasks in a locked queue and then ring; why none is lost is told in `bell`. The flag
//! `TaskWaker::sent` that keeps a task from being pushed twice follows the same rule: it is cleared by a swap before the
//! task is made runnable, so a waker that found it set has its data seen by the poll that follows.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::{fmt, io, mem};

use mio::{Registry, Token};
use parking_lot::Mutex;

use super::bell::Bell;
use super::core::with_entered;
use super::task::TaskKey;

/// The token of the eventfd; sources never get it.
pub(super) const WAKER_TOKEN: Token = Token(usize::MAX);

/// Wakes a loop from any thread. Cheap to clone; does nothing once the loop is gone.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>) -> Remote {
        Remote { shared }
    }

    /// Rings: the loop's present or next [`turn`](super::EventLoop::turn) does not sleep on.
    ///
    /// Rings that come before the loop has looked are one ring. Everything written before this call is seen by the
    /// tasks and hooks that run after the loop has woken.
    pub fn wake(&self) {
        self.shared.ring();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// What a loop shares with other threads.
pub(super) struct Shared {
    bell: Bell,
    eventfd: mio::Waker,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    woken: Vec<Arc<TaskWaker>>,
    /// The other buffer of the pair that draining swaps, so that no turn allocates.
    spare: Vec<Arc<TaskWaker>>,
    closed: bool,
}

impl Shared {
    pub(super) fn new(registry: &Registry) -> io::Result<Arc<Shared>> {
        let eventfd = mio::Waker::new(registry, WAKER_TOKEN)?;
        Ok(Arc::new(Shared { bell: Bell::new(), eventfd, inbox: Mutex::default() }))
    }

    fn ring(&self) {
        if self.bell.ring()
            && let Err(error) = self.eventfd.wake()
        {
            self.bell.unring();
            log::error!("an event loop cannot be woken: {error}");
        }
    }

    fn send(&self, task: Arc<TaskWaker>) {
        let mut inbox = self.inbox.lock();
        if inbox.closed {
            return;
        }
        inbox.woken.push(task);
        drop(inbox);
        self.ring();
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Hands out what other threads have woken.
    pub(super) fn drain(&self, wake: impl Fn(&TaskWaker)) {
        if !self.bell.wake_up() {
            return;
        }
        let mut inbox = self.inbox.lock();
        let spare = mem::take(&mut inbox.spare);
        let mut woken = mem::replace(&mut inbox.woken, spare);
        drop(inbox);
        for task in woken.drain(..) {
            task.sent.swap(false, Ordering::AcqRel);
            wake(&task);
        }
        self.inbox.lock().spare = woken;
    }

    /// From now on wakers do nothing.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        let woken = mem::take(&mut inbox.woken);
        drop(inbox);
        drop(woken);
    }
}

/// Behind the one cached [`Waker`] of a task.
pub(super) struct TaskWaker {
    shared: Arc<Shared>,
    key: TaskKey,
    urgent: bool,
    /// In the run queue. Touched by the loop's thread alone, hence relaxed and without read-modify-write.
    queued: AtomicBool,
    /// In the inbox.
    sent: AtomicBool,
}

impl TaskWaker {
    /// A waker whose task is taken to be queued already.
    pub(super) fn new(shared: Arc<Shared>, key: TaskKey, urgent: bool) -> Arc<TaskWaker> {
        let (queued, sent) = (AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(TaskWaker { shared, key, urgent, queued, sent })
    }

    pub(super) fn key(&self) -> TaskKey {
        self.key
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether the caller has to put the task into the run queue.
    pub(super) fn enqueue_local(&self) -> bool {
        if self.queued.load(Ordering::Relaxed) {
            return false;
        }
        self.queued.store(true, Ordering::Relaxed);
        true
    }

    /// The task has left the run queue.
    pub(super) fn dequeue_local(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }

    /// The task is no more: looking queued for ever makes later wake-ups cheap no-ops.
    pub(super) fn retire(&self) {
        self.queued.store(true, Ordering::Relaxed);
        self.sent.store(true, Ordering::Relaxed);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let local = with_entered(|core| {
            let local = Arc::ptr_eq(&core.shared, &self.shared);
            if local {
                core.wake_local(self);
            }
            local
        });
        if local != Some(true) && !self.sent.swap(true, Ordering::AcqRel) {
            self.shared.send(Arc::clone(self));
        }
    }
}

/// One place to wait: keeps the last waker between waits, so that parking the same task again clones nothing.
#[derive(Default)]
pub(super) struct Parking {
    waker: Cell<Option<Waker>>,
    parked: Cell<bool>,
}

impl Parking {
    pub(super) fn park(&self, waker: &Waker) {
        let kept = self.waker.take().filter(|kept| kept.will_wake(waker));
        self.waker.set(Some(kept.unwrap_or_else(|| waker.clone())));
        self.parked.set(true);
    }

    /// Wakes who is parked, once.
    pub(super) fn unpark(&self) {
        if !self.parked.replace(false) {
            return;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            // The wake-up may have run code that parked again.
            let newer = self.waker.take();
            self.waker.set(newer.or(Some(waker)));
        }
    }

    /// Nobody waits any more.
    pub(super) fn leave(&self) {
        self.parked.set(false);
    }

    /// [`leave`](Parking::leave), and drop the waker.
    pub(super) fn clear(&self) {
        self.parked.set(false);
        drop(self.waker.take());
    }
}
