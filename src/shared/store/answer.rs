//! What a call of a store gives back: there at once, or on its way from a backend's thread.
//!
//! A [`Promise`] is the backend's end. Whichever comes first counts: that it is kept, that it is dropped
//! (an error), or that the deadline passes (an error). An answer that nobody wants any more changes
//! nothing about what was asked for.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::alarm::Alarm;
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
};

/// How long a call may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The answer to a call of a [`Store`](super::Store): a future, or [`wait`](Self::wait) for it where there
/// is no event loop.
///
/// It comes within 2 seconds, as an error if the backend is stuck. What was asked for is done even if the
/// answer is dropped.
pub struct Answer<T>(State<T>);

enum State<T> {
    /// Empty once it was taken.
    Here(Option<Result<T>>),
    Awaited {
        place: Arc<Place<T>>,
        deadline: Instant,
        alarm: Option<Alarm>,
    },
}

/// Where the answer is left.
struct Place<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

struct Slot<T> {
    answer: Option<Result<T>>,
    waker: Option<Waker>,
}

/// The backend's end of an answer.
pub(super) struct Promise<T> {
    /// Absent once it is kept.
    place: Option<Arc<Place<T>>>,
    deadline: Instant,
}

impl<T> Answer<T> {
    /// An answer that is there already, such as that of a store of your own for tests.
    pub fn ready(result: Result<T>) -> Self {
        Self(State::Here(Some(result)))
    }

    /// An answer that a backend's thread will give, by the deadline from now.
    pub(super) fn promised() -> (Promise<T>, Self) {
        let slot = Mutex::new(Slot { answer: None, waker: None });
        let place = Arc::new(Place { slot, filled: Condvar::new() });
        let deadline = clock::now() + DEADLINE;
        let promise = Promise { place: Some(place.clone()), deadline };
        (promise, Self(State::Awaited { place, deadline, alarm: None }))
    }

    /// The answer, or why there is none.
    pub(super) fn of(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self::ready(Err(error)))
    }

    /// Waits for the answer on this thread, at most 2 seconds. Not for a worker's loop: nothing else runs
    /// there meanwhile.
    ///
    /// # Errors
    ///
    /// As the call that was answered.
    pub fn wait(self) -> Result<T> {
        match self.0 {
            State::Here(answer) => answer.unwrap_or_else(|| Err(taken())),
            State::Awaited { place, deadline, .. } => {
                let mut slot = place.slot.lock();
                while slot.answer.is_none() {
                    if place.filled.wait_until(&mut slot, deadline).timed_out() {
                        break;
                    }
                }
                slot.answer.take().unwrap_or_else(|| Err(overdue()))
            }
        }
    }
}

// Nothing in here is pinned: the future is polled through the lock.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let answer = match &mut self.0 {
            State::Here(answer) => answer.take().unwrap_or_else(|| Err(taken())),
            State::Awaited { place, deadline, alarm } => {
                std::task::ready!(poll_place(place, *deadline, alarm, cx.waker()))
            }
        };
        self.0 = State::Here(None);
        Poll::Ready(answer)
    }
}

fn poll_place<T>(
    place: &Place<T>,
    deadline: Instant,
    alarm: &mut Option<Alarm>,
    waker: &Waker,
) -> Poll<Result<T>> {
    let mut slot = place.slot.lock();
    if let Some(answer) = slot.answer.take() {
        return Poll::Ready(answer);
    }
    if clock::now() >= deadline {
        return Poll::Ready(Err(overdue()));
    }
    if slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
        return Poll::Pending;
    }
    let before = slot.waker.replace(waker.clone());
    drop(slot);
    drop(before);
    if let Some(alarm) = alarm {
        alarm.change(waker.clone());
        return Poll::Pending;
    }
    let set = Alarm::set(deadline, waker.clone());
    match set.context(ErrorKind::Io, || "start the thread of a store's deadlines".into()) {
        Ok(set) => *alarm = Some(set),
        Err(error) => return Poll::Ready(Err(error)),
    }
    Poll::Pending
}

impl<T> Promise<T> {
    /// Gives the answer.
    pub(super) fn keep(mut self, answer: Result<T>) {
        self.give(answer);
    }

    /// When whoever asked is told that it took too long.
    #[cfg(feature = "redis")]
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether whoever asked has been told that it took too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    fn give(&mut self, answer: Result<T>) {
        let Some(place) = self.place.take() else { return };
        let mut slot = place.slot.lock();
        slot.answer = Some(answer);
        let waker = slot.waker.take();
        drop(slot);
        place.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let ended = || Error::new(ErrorKind::Closed, "the store's thread has ended");
        self.give(Err(if self.is_overdue(clock::now()) { overdue() } else { ended() }));
    }
}

/// Nothing came in time.
pub(super) fn overdue() -> Error {
    let text = format!(
        "the store did not answer within {DEADLINE:?}, so a write may or may not have happened: look what holds, and ask again"
    );
    Error::caused(ErrorKind::Io, text, io::Error::from(io::ErrorKind::TimedOut))
}

fn taken() -> Error {
    Error::new(ErrorKind::Closed, "the answer was taken already")
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::Here(_) => "here",
            State::Awaited { .. } => "awaited",
        };
        f.debug_tuple("Answer").field(&state).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::mpsc, task::Wake, thread};

    use super::*;

    struct Note(mpsc::Sender<()>);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            // Nobody waits for it in the end.
            let _ = self.0.send(());
        }
    }

    /// Polls as a loop does: again whenever it is woken.
    fn block_on<T>(mut answer: Answer<T>) -> Result<T> {
        let (sender, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Note(sender)));
        loop {
            match Pin::new(&mut answer).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => woken.recv_timeout(Duration::from_secs(20)).unwrap(),
            }
        }
    }

    #[test]
    fn an_answer_comes_from_another_thread() {
        for ask in [Answer::wait, block_on] {
            let (promise, answer) = Answer::promised();
            let thread = thread::spawn(move || promise.keep(Ok(7)));
            assert_eq!(ask(answer).unwrap(), 7);
            thread.join().unwrap();
        }
    }

    #[test]
    fn whoever_never_answers_is_not_awaited_for_ever() {
        for ask in [Answer::wait, block_on] {
            let before = clock::now();
            let (promise, answer) = Answer::<()>::promised();
            let error = ask(answer).unwrap_err();
            assert_eq!(error.io_kind(), Some(io::ErrorKind::TimedOut));
            assert!(promise.is_overdue(clock::now()) && !promise.is_overdue(before));
        }
    }

    #[test]
    fn a_promise_that_is_broken_is_an_error_at_once() {
        for ask in [Answer::wait, block_on] {
            let (promise, answer) = Answer::<()>::promised();
            drop(promise);
            assert_eq!(ask(answer).unwrap_err().kind(), ErrorKind::Closed);
        }
    }
}
