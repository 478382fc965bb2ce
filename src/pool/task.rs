//! What a caller holds of its task.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use super::{cell::Fate, lanes::Lane};
use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};

/// How a task is to be run. The default: in the normal lane, without a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "options run nothing"]
pub struct TaskOptions {
    pub(super) lane: Lane,
    pub(super) deadline: Option<Duration>,
}

impl TaskOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lane in which it waits for a thread. Default [`Lane::Normal`].
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// How long after it was submitted the result is of no more use. A task that has not begun by then never
    /// does, and its caller gets [`ErrorKind::Expired`]; one that runs is told so by its
    /// [`Token`](super::Token), and its caller gets what it returns. Default: none.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Some(time);
        self
    }
}

/// A task that a pool has accepted: a future of its result, for any executor; or [`wait`](Self::wait) for it.
///
/// Dropping it cancels the task: one that has not begun never does, one that runs is told so by its
/// [`Token`](super::Token). [`detach`](Self::detach) lets it run on.
///
/// # Errors
///
/// The result is an error of kind [`Panic`](ErrorKind::Panic) when the task panicked, with the panic's text;
/// when it never began, [`Expired`](ErrorKind::Expired), [`Cancelled`](ErrorKind::Cancelled) (also when the
/// pool was closed), [`Full`](ErrorKind::Full) (it was dropped for a newer one) or
/// [`Start`](ErrorKind::Start) (the pool got no thread).
#[must_use = "a task is cancelled when it is dropped: await it, `wait` for it, or `detach` it"]
pub struct Task<T> {
    fate: Arc<dyn Fate<T>>,
    detached: bool,
}

impl<T> Task<T> {
    pub(super) fn new(fate: Arc<dyn Fate<T>>) -> Self {
        Self { fate, detached: false }
    }

    /// Whether it has ended: the result is there.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.fate.has_ended()
    }

    /// Cancels it: one that has not begun ends now, with [`ErrorKind::Cancelled`]; one that runs is told so by
    /// its [`Token`](super::Token), and its result still comes.
    pub fn cancel(&self) {
        self.fate.cancel();
    }

    /// Lets it run, whoever waits for it. Its result is dropped.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Waits for the result, and blocks this thread. On a thread of the pool itself a task that has not begun is run
    /// at once, so that tasks which wait for tasks get on.
    ///
    /// # Errors
    ///
    /// As the type says.
    pub fn wait(self) -> Result<T> {
        self.fate.help();
        match block(None, |waker| self.fate.poll_end(waker)) {
            Some(result) => result,
            // Without a deadline the wait ends with a result.
            None => Err(Error::new(ErrorKind::Closed, "the task has no result")),
        }
    }

    /// Waits for the result as [`wait`](Self::wait), but no longer than this: then the task is given back, and
    /// goes on.
    ///
    /// # Errors
    ///
    /// The outer one is the task, whose result has not come.
    pub fn wait_timeout(self, time: Duration) -> Result<Result<T>, Self> {
        self.fate.help();
        let deadline = clock::now().checked_add(time);
        block(deadline, |waker| self.fate.poll_end(waker)).ok_or(self)
    }

    /// Blocks this thread until the task has its place in the queue.
    pub(super) fn wait_for_a_place(&self) {
        block(None, |waker| self.fate.poll_place(waker));
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.fate.poll_end(cx.waker())
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if !self.detached {
            self.fate.cancel();
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Polls until it is ready, or the deadline; this thread sleeps meanwhile.
fn block<T>(deadline: Option<Instant>, poll: impl Fn(&Waker) -> Poll<T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let looks_until = clock::now() + super::LOOK_AGAIN;
    loop {
        if let Poll::Ready(ready) = poll(&waker) {
            return Some(ready);
        }
        let now = clock::now();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        match left {
            Some(Duration::ZERO) => return None,
            _ if now < looks_until => thread::yield_now(),
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A task on its way ([`Pool::run`](super::Pool::run)): the future of its result.
///
/// Dropping it cancels the task, as dropping a [`Task`] does.
#[must_use = "a task is cancelled when its future is dropped"]
pub struct Run<F, T> {
    /// What became of the task at once.
    begun: Result<Task<T>, Option<TaskError<F>>>,
}

impl<F, T> Run<F, T> {
    pub(super) fn new(submitted: Result<Task<T>, TaskError<F>>) -> Self {
        Self { begun: submitted.map_err(Some) }
    }
}

// Nothing in it is ever pinned.
impl<F, T> Unpin for Run<F, T> {}

impl<F, T> Future for Run<F, T> {
    type Output = Result<T, TaskError<F>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.begun {
            Ok(task) => Pin::new(task).poll(cx).map_err(TaskError::without_task),
            Err(refused) => refused.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl<F, T> fmt::Debug for Run<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Run").field(&self.begun).finish()
    }
}

/// Why a task has no result, and the task itself if it was not accepted.
pub struct TaskError<F> {
    inner: Box<(Error, Option<F>)>,
}

impl<F> TaskError<F> {
    pub(super) fn new(error: Error, task: Option<F>) -> Self {
        Self { inner: Box::new((error, task)) }
    }

    fn without_task(error: Error) -> Self {
        Self::new(error, None)
    }

    /// What went wrong: [`ErrorKind::Full`] or [`ErrorKind::Start`] when the task was not accepted, else what
    /// [`Task`] says.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.0.kind()
    }

    /// The error itself.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.inner.0
    }

    /// The closure, if it was not accepted: it can be called, or submitted again.
    #[must_use]
    pub fn into_task(self) -> Option<F> {
        self.inner.1
    }
}

impl<F> From<TaskError<F>> for Error {
    fn from(error: TaskError<F>) -> Self {
        error.into_error()
    }
}

impl<F> fmt::Display for TaskError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.0.fmt(f)
    }
}

impl<F> fmt::Debug for TaskError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (error, task) = &*self.inner;
        f.debug_struct("TaskError")
            .field("error", error)
            .field("handed_back", &task.is_some())
            .finish()
    }
}

impl<F> StdError for TaskError<F> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.0.source()
    }
}
