//! The tasks of a process that wait for one lock, in the order they came.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::Mutex;

/// Who stands in line. Whoever is at the front knows that nobody of this line is before it.
#[derive(Debug, Default)]
pub(super) struct Line {
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    tickets: u64,
    waiting: VecDeque<(u64, Waker)>,
}

/// A place in the line, left when it is dropped.
pub(super) struct Place {
    line: Arc<Line>,
    ticket: u64,
}

impl Line {
    /// Takes a place at the end and waits until nobody is before it.
    pub(super) async fn reach_the_front(self: &Arc<Self>) -> Place {
        let place = self.join();
        poll_fn(|cx| place.poll(cx.waker())).await;
        place
    }

    fn join(self: &Arc<Self>) -> Place {
        let mut standing = self.standing.lock();
        standing.tickets += 1;
        let ticket = standing.tickets;
        standing.waiting.push_back((ticket, Waker::noop().clone()));
        Place { line: self.clone(), ticket }
    }
}

impl Place {
    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut standing = self.line.standing.lock();
        let mut waiting = standing.waiting.iter_mut().enumerate();
        match waiting.find(|(_, (ticket, _))| *ticket == self.ticket) {
            Some((at, (_, left))) if at > 0 => {
                left.clone_from(waker);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut standing = self.line.standing.lock();
        standing.waiting.retain(|(ticket, _)| *ticket != self.ticket);
        let front = standing.waiting.front().map(|(_, waker)| waker.clone());
        drop(standing);
        // Also if it was there before: it looks, and waits on.
        front.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context};

    use super::*;

    #[test]
    fn one_is_at_the_front_and_who_leaves_lets_the_next_one_go() {
        let line = Arc::<Line>::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = pin!(line.reach_the_front());
        let Poll::Ready(first) = first.as_mut().poll(&mut cx) else { panic!("nobody is there") };
        let mut second = Box::pin(line.reach_the_front());
        let mut third = pin!(line.reach_the_front());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(third.as_mut().poll(&mut cx).is_ready());
        assert!(line.standing.lock().waiting.is_empty(), "the third has left");
    }
}
