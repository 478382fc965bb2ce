//! One task: its closure until it begins, its result when it has ended, and who waits for that.
//!
//! Shared by the caller's [`Task`](super::Task) and by whoever is to run it. Whoever takes the closure out
//! decides how the task ends: a thread that runs it, or a caller, a deadline or a newer task that ends it before.
//! The cell's lock is held for a few instructions and never while the task, a destructor of the user's or a
//! waker runs; the pool's own lock is never taken under it.

use std::{
    any::Any,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Poll, Waker},
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    core::Core,
    line::Place,
    stats::{Counters, count},
};
use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};

/// A task as the pool sees it.
pub(super) trait Job: Send + Sync {
    fn place(&self) -> Place;

    /// Runs it here, unless it has begun or ended, or is too late. Whoever calls wakes who waits for the result.
    fn run(&self) -> Option<Waker>;

    /// Ends it for this reason, unless it has begun.
    fn end_unbegun(&self, reason: Unbegun);

    /// Its caller has to wait for a place. Called under the pool's lock: nobody can admit it before.
    fn stay_outside(&self);

    /// It has got its place inside.
    fn admitted(&self);
}

/// A task as its caller sees it.
pub(super) trait Fate<T>: Send + Sync {
    /// The result, once; until there is one the waker is kept.
    fn poll_end(&self, waker: &Waker) -> Poll<Result<T>>;

    /// Ready when it waits for a place no longer; until then the waker is kept.
    fn poll_place(&self, waker: &Waker) -> Poll<()>;

    fn has_ended(&self) -> bool;

    /// Ends it if it has not begun, and tells its token otherwise.
    fn cancel(&self);

    /// Runs it here if it has not begun and this is a thread of its pool.
    fn help(&self);
}

/// Why a task ends that never began.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unbegun {
    Cancelled,
    Expired,
    Dropped,
    NoThread,
}

impl Unbegun {
    fn error(self) -> Error {
        let (kind, text) = match self {
            Self::Cancelled => (ErrorKind::Cancelled, "the task was cancelled before it began"),
            Self::Expired => (ErrorKind::Expired, "the task had not begun by its deadline"),
            Self::Dropped => (
                ErrorKind::Full,
                "the pool's queue was full, and the task was dropped for a newer one",
            ),
            Self::NoThread => (ErrorKind::Start, "the pool cannot start a thread"),
        };
        Error::new(kind, text)
    }

    fn count(self, counters: &Counters) {
        count(match self {
            Self::Cancelled => &counters.cancelled,
            Self::Expired => &counters.expired,
            Self::Dropped | Self::NoThread => &counters.dropped,
        });
    }
}

/// What a running task looks at to learn that nobody wants its result any more.
pub struct Token {
    cancelled: AtomicBool,
    deadline: Option<Instant>,
    core: Arc<Core>,
}

impl Token {
    /// Whether the task should end: its future was dropped, it was [cancelled](super::Task::cancel), its
    /// deadline has passed, or the pool is being closed.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
            || self.core.is_closing()
            || self.deadline.is_some_and(|deadline| clock::now() >= deadline)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

pub(super) struct Cell<F, T> {
    call: fn(F, &Token) -> T,
    token: Token,
    place: Place,
    submitted: Instant,
    state: Mutex<State<F, T>>,
}

struct State<F, T> {
    stage: Stage<F, T>,
    /// Its caller waits for a place in the queue.
    outside: bool,
    waker: Option<Waker>,
}

enum Stage<F, T> {
    Ready(F),
    Begun,
    Ended(Result<T>),
    /// The caller has the result, or the pool has handed the closure back.
    Taken,
}

impl<F, T> Cell<F, T> {
    pub(super) fn new(
        core: Arc<Core>,
        place: Place,
        submitted: Instant,
        call: fn(F, &Token) -> T,
        work: F,
    ) -> Arc<Self> {
        let token = Token { cancelled: AtomicBool::new(false), deadline: place.deadline, core };
        let state = State { stage: Stage::Ready(work), outside: false, waker: None };
        Arc::new(Self { call, token, place, submitted, state: Mutex::new(state) })
    }

    /// Takes the closure of a task that was not accepted.
    pub(super) fn hand_back(&self) -> Option<F> {
        self.take_work()
    }

    /// Takes the closure: whoever gets it has to end the task.
    fn take_work(&self) -> Option<F> {
        let mut state = self.state.lock();
        match mem::replace(&mut state.stage, Stage::Begun) {
            Stage::Ready(work) => Some(work),
            other => {
                state.stage = other;
                None
            }
        }
    }

    /// Leaves the result; who waits for it is to be woken.
    fn end(&self, result: Result<T>) -> Option<Waker> {
        let mut state = self.state.lock();
        state.stage = Stage::Ended(result);
        state.waker.take()
    }

    /// Runs the closure, and turns a panic into an error.
    fn call(&self, work: F, begun: Instant) -> Result<T> {
        let counters = &self.token.core.counters;
        counters.wait_time.note(begun.saturating_duration_since(self.submitted));
        counters.running.fetch_add(1, Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.call)(work, &self.token)));
        counters.run_time.note(clock::now().saturating_duration_since(begun));
        counters.running.fetch_sub(1, Relaxed);
        count(if outcome.is_ok() { &counters.completed } else { &counters.panicked });
        outcome.map_err(|panic| {
            let error = Error::panicked(&*panic);
            drop_quietly(panic);
            error
        })
    }
}

impl<F: Send, T: Send> Job for Cell<F, T> {
    fn place(&self) -> Place {
        self.place
    }

    fn run(&self) -> Option<Waker> {
        let begun = clock::now();
        if self.place.deadline.is_some_and(|deadline| begun >= deadline) {
            self.end_unbegun(Unbegun::Expired);
            return None;
        }
        let work = self.take_work()?;
        let result = self.call(work, begun);
        self.end(result)
    }

    fn end_unbegun(&self, reason: Unbegun) {
        let Some(work) = self.take_work() else { return };
        reason.count(&self.token.core.counters);
        wake(self.end(Err(reason.error())));
        drop_quietly(work);
    }

    fn stay_outside(&self) {
        self.state.lock().outside = true;
    }

    fn admitted(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.outside = false;
            state.waker.take()
        };
        wake(waker);
    }
}

impl<F: Send, T: Send> Fate<T> for Cell<F, T> {
    fn poll_end(&self, waker: &Waker) -> Poll<Result<T>> {
        let mut state = self.state.lock();
        if let Stage::Ended(_) = state.stage
            && let Stage::Ended(result) = mem::replace(&mut state.stage, Stage::Taken)
        {
            return Poll::Ready(result);
        }
        state.keep(waker);
        Poll::Pending
    }

    fn poll_place(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.outside || !matches!(state.stage, Stage::Ready(_)) {
            return Poll::Ready(());
        }
        state.keep(waker);
        Poll::Pending
    }

    fn has_ended(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Ended(_) | Stage::Taken)
    }

    fn cancel(&self) {
        self.token.cancelled.store(true, SeqCst);
        let Some(work) = self.take_work() else { return };
        self.token.core.leave_line(self.place);
        Unbegun::Cancelled.count(&self.token.core.counters);
        wake(self.end(Err(Unbegun::Cancelled.error())));
        drop_quietly(work);
    }

    fn help(&self) {
        if !self.token.core.is_here() {
            return;
        }
        self.token.core.leave_line(self.place);
        wake(self.run());
    }
}

impl<F, T> State<F, T> {
    fn keep(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// Wakes who waits, if somebody does.
pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Drops what is the user's where nobody expects its destructor to panic. The panic was shown when it came.
pub(super) fn drop_quietly(value: impl Sized) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        forget(panic);
    }
}

/// What a panic carries may panic again when it is dropped: it is not.
pub(super) fn forget(panic: Box<dyn Any + Send>) {
    mem::forget(panic);
}
