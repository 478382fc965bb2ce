//! What a subscriber holds, and the bounded queue behind it.
//!
//! A backend's thread or a publisher pushes; the subscriber takes. Who does not take loses the oldest and
//! is told how many: nobody who publishes ever waits for a subscriber.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};

/// The most values that wait for a subscriber.
const MAX_WAITING: usize = 1024;

/// The most bytes that wait for a subscriber.
const MAX_BYTES: usize = 8 << 20;

/// What is published under one topic, from [`Store::subscribe`](super::Store::subscribe) until this is dropped.
///
/// Up to 1024 values and 8 MiB wait to be taken; beyond that the oldest are dropped, and
/// [`missed`](Self::missed) counts them.
pub struct Subscription {
    feed: Arc<Feed>,
    /// Ends the subscription where it is known.
    _membership: Box<dyn Any + Send + Sync>,
}

impl Subscription {
    /// Ends with `membership`.
    pub(super) fn new(feed: Arc<Feed>, membership: impl Any + Send + Sync) -> Self {
        Self { feed, _membership: Box::new(membership) }
    }

    /// The next value, in the order in which its publisher sent it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when no more will come: the backend has given up.
    pub async fn recv(&self) -> Result<Vec<u8>> {
        poll_fn(|cx| self.feed.poll_take(cx)).await
    }

    /// Waits for the next value on this thread, at most so long; `None` if none came.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn wait(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.feed.wait(timeout)
    }

    /// How many values were missed so far, as far as it is known: dropped because nobody took them, or
    /// lost on their way. A connection that broke counts as one, however many it cost.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.feed.queue.lock().missed
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.feed.queue.lock();
        f.debug_struct("Subscription")
            .field("waiting", &queue.values.len())
            .field("missed", &queue.missed)
            .finish_non_exhaustive()
    }
}

/// The queue of one subscription.
#[derive(Debug, Default)]
pub(super) struct Feed {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    values: VecDeque<Vec<u8>>,
    bytes: usize,
    missed: u64,
    closed: bool,
    wakers: Vec<Waker>,
}

impl Feed {
    /// Adds a value; so many before it were lost.
    pub(super) fn push(&self, value: Vec<u8>, lost: u64) {
        self.change(|queue| queue.push(value, lost));
    }

    /// Counts what was lost.
    pub(super) fn lose(&self, lost: u64) {
        self.queue.lock().missed += lost;
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.change(|queue| queue.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        let wakers = std::mem::take(&mut queue.wakers);
        drop(queue);
        self.filled.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
        let mut queue = self.queue.lock();
        match queue.take() {
            Some(taken) => Poll::Ready(taken),
            None => {
                if !queue.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    queue.wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn wait(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = clock::now().checked_add(timeout);
        let mut queue = self.queue.lock();
        loop {
            if let Some(taken) = queue.take() {
                return taken.map(Some);
            }
            let timed_out = match deadline {
                Some(deadline) => self.filled.wait_until(&mut queue, deadline).timed_out(),
                None => {
                    self.filled.wait(&mut queue);
                    false
                }
            };
            if timed_out {
                return queue.take().transpose();
            }
        }
    }
}

impl Queue {
    fn push(&mut self, value: Vec<u8>, lost: u64) {
        self.missed += lost;
        self.bytes += value.len();
        self.values.push_back(value);
        while self.values.len() > MAX_WAITING || self.bytes > MAX_BYTES {
            let oldest = self.values.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.len());
            self.missed += 1;
        }
    }

    /// The next value, or the end.
    fn take(&mut self) -> Option<Result<Vec<u8>>> {
        match self.values.pop_front() {
            Some(value) => {
                self.bytes -= value.len();
                Some(Ok(value))
            }
            None if self.closed => {
                let text = "the subscription has ended: its store has given up; subscribe again";
                Some(Err(Error::new(ErrorKind::Closed, text)))
            }
            None => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_take_loses_the_oldest_and_is_told() {
        let feed = Arc::new(Feed::default());
        let subscription = Subscription::new(feed.clone(), ());
        (0..1030_u32).for_each(|n| feed.push(n.to_be_bytes().into(), 0));
        let first = subscription.wait(Duration::ZERO).unwrap().unwrap();
        assert_eq!((first, subscription.missed()), (6_u32.to_be_bytes().into(), 6));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let feed = Arc::new(Feed::default());
        let subscription = Subscription::new(feed.clone(), ());
        (0..3).for_each(|n| feed.push(vec![n; 4 << 20], 0));
        assert_eq!(subscription.wait(Duration::ZERO).unwrap().unwrap()[0], 1);
        assert_eq!(subscription.missed(), 1);
    }

    #[test]
    fn the_end_comes_behind_the_last_value() {
        let feed = Arc::new(Feed::default());
        let subscription = Subscription::new(feed.clone(), ());
        feed.push(vec![1], 2);
        feed.close();
        assert_eq!(subscription.wait(Duration::MAX).unwrap(), Some(vec![1]));
        assert_eq!(subscription.missed(), 2);
        assert_eq!(subscription.wait(Duration::MAX).unwrap_err().kind(), ErrorKind::Closed);
    }
}
