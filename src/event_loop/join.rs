//! Starting tasks, and the handle that waits for one or cancels it.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::core::{Core, current};
use super::task::TaskKey;
use super::waker::Parking;

/// Starts a task on the current loop. It is polled in this turn or the next, never inside this call.
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_on(current(), false, future)
}

/// Like [`spawn`], for the few tasks that must answer first (control messages, accepting): when runnable they run
/// before the ordinary ones. Ordinary tasks still get a share when urgent ones never rest.
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn spawn_urgent<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_on(current(), true, future)
}

fn spawn_on<F>(core: Rc<Core>, urgent: bool, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let shared = Rc::new(Join { outcome: Cell::new(Outcome::Running), joiner: Parking::default() });
    let report = Report { join: Rc::clone(&shared) };
    let key = core.add_task(urgent, Box::pin(Reporting { future, report }));
    JoinHandle { join: shared, task: key.map(|key| (core, key)) }
}

/// Owns a task: awaiting it gives the task's output, dropping it cancels the task.
///
/// A cancelled task's future is dropped at once, or right after the present poll when it cancels itself. Use
/// [`detach`](JoinHandle::detach) to let a task run by itself.
#[must_use = "dropping the handle cancels the task; call detach() to let it run"]
pub struct JoinHandle<T> {
    join: Rc<Join<T>>,
    task: Option<(Rc<Core>, TaskKey)>,
}

impl<T> JoinHandle<T> {
    /// Lets the task run to its end, or to the end of the loop.
    pub fn detach(mut self) {
        self.task = None;
    }

    /// Whether the task has ended, by itself or otherwise.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // Every task's future owns the other reference, and gives it back when it is dropped.
        Rc::strong_count(&self.join) == 1
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Cancelled>;

    /// [`Cancelled`] when the loop went away or the task panicked, and when polled again after the output was taken.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.join.outcome.replace(Outcome::Gone) {
            Outcome::Done(output) => Poll::Ready(Ok(output)),
            Outcome::Gone => Poll::Ready(Err(Cancelled(()))),
            Outcome::Running => {
                self.join.outcome.set(Outcome::Running);
                self.join.joiner.park(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some((core, key)) = self.task.take() {
            core.cancel_task(key);
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// The task ended without an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled(());

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task ended without an output")
    }
}

impl std::error::Error for Cancelled {}

/// What task and handle share.
struct Join<T> {
    outcome: Cell<Outcome<T>>,
    joiner: Parking,
}

enum Outcome<T> {
    Running,
    Done(T),
    /// Cancelled, or taken by the handle.
    Gone,
}

pin_project! {
    /// A task's future, reporting how it ended.
    struct Reporting<F: Future> {
        // First, so that it is dropped before the end is reported.
        #[pin]
        future: F,
        report: Report<F::Output>,
    }
}

impl<F: Future> Future for Reporting<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let output = ready!(this.future.poll(cx));
        this.report.join.outcome.set(Outcome::Done(output));
        Poll::Ready(())
    }
}

/// Tells the joiner, when it is dropped, that the task has ended.
struct Report<T> {
    join: Rc<Join<T>>,
}

impl<T> Drop for Report<T> {
    fn drop(&mut self) {
        let outcome = self.join.outcome.replace(Outcome::Gone);
        if let Outcome::Done(output) = outcome {
            self.join.outcome.set(Outcome::Done(output));
        }
        self.join.joiner.unpark();
    }
}
