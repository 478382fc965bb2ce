//! A queue from any thread to a task of one loop: items in order, the task woken when there are some.
//!
//! No wake-up is lost: the receiver leaves its waker first and looks at the queue again afterwards; a
//! sender puts its item first and takes the lock on the waker afterwards. Whichever holds the lock second
//! sees what the other one did.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use parking_lot::Mutex;

/// A mailbox: the end that may travel, and the end that stays with the loop.
pub(crate) fn mailbox<T>() -> (Postbox<T>, Mailbox<T>) {
    let (sender, receiver) = unbounded();
    let waiter = Arc::new(Mutex::new(None));
    (Postbox { sender, waiter: waiter.clone() }, Mailbox { receiver, waiter })
}

/// Where items are posted.
pub(crate) struct Postbox<T> {
    sender: Sender<T>,
    waiter: Arc<Mutex<Option<Waker>>>,
}

impl<T> Postbox<T> {
    /// Appends an item; gives it back when the receiving end is gone.
    pub(crate) fn post(&self, item: T) -> Result<(), T> {
        self.sender.send(item).map_err(|refused| refused.0)?;
        self.wake();
        Ok(())
    }

    /// Wakes the receiving task without an item.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waiter.lock() {
            waker.wake_by_ref();
        }
    }
}

impl<T> Clone for Postbox<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waiter: self.waiter.clone() }
    }
}

/// Where items arrive.
pub(crate) struct Mailbox<T> {
    receiver: Receiver<T>,
    waiter: Arc<Mutex<Option<Waker>>>,
}

/// A copy sees the same items: each item goes to whoever takes it first.
impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), waiter: self.waiter.clone() }
    }
}

impl<T> Mailbox<T> {
    /// The next item; `None` when none is left and nobody can post any more.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.try_next() {
            return Poll::Ready(Some(item));
        }
        self.leave_waker(cx.waker());
        match self.receiver.try_recv() {
            Ok(item) => Poll::Ready(Some(item)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        }
    }

    /// The next item; blocks this thread for it until the deadline, or for ever. `None` then, or when
    /// nobody can post any more.
    pub(crate) fn wait_next(&self, deadline: Option<Instant>) -> Option<T> {
        match deadline {
            Some(deadline) => self.receiver.recv_deadline(deadline).ok(),
            None => self.receiver.recv().ok(),
        }
    }

    /// The next item, if one is there.
    pub(crate) fn try_next(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    fn leave_waker(&self, waker: &Waker) {
        let mut waiter = self.waiter.lock();
        if !waiter.as_ref().is_some_and(|left| left.will_wake(waker)) {
            *waiter = Some(waker.clone());
        }
    }
}
