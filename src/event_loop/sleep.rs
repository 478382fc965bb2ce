//! Waiting for time to pass: [`Sleep`], [`timeout`], [`Interval`].
//!
//! Durations count from [`now`](super::now), the time of the current turn. Resolution is 1 ms; nothing fires early.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::core::{Core, current};
use super::timer::Timer;

/// Stands for "never" where a deadline does not fit into an [`Instant`].
const FAR_FUTURE: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// The shortest period of an [`Interval`], as in Node.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// Waits for `duration` (Node: `setTimeout`).
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    let core = current();
    let deadline = after(core.now(), duration);
    Sleep::new(core, deadline)
}

/// Waits until `deadline`.
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep::new(current(), deadline)
}

fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| start + FAR_FUTURE)
}

/// A future that is ready once its deadline has passed. It can be reset and awaited again.
#[must_use = "a Sleep does nothing unless awaited"]
pub struct Sleep {
    core: Rc<Core>,
    timer: Rc<Timer>,
}

impl Sleep {
    fn new(core: Rc<Core>, deadline: Instant) -> Sleep {
        Sleep { core, timer: Timer::new(deadline) }
    }

    /// When it is ready.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.timer.deadline()
    }

    /// Moves the deadline. Postponing costs a few instructions, so a timer can be kept and moved per request.
    ///
    /// A task that waits already is woken at the new deadline.
    pub fn reset(&mut self, deadline: Instant) {
        if self.timer.set_deadline(deadline) {
            self.core.timers.borrow_mut().queue(&self.timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.deadline() <= self.core.now() {
            self.timer.leave();
            return Poll::Ready(());
        }
        self.timer.park(cx.waker());
        if !self.timer.is_queued() {
            self.core.timers.borrow_mut().queue(&self.timer);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.timer.is_queued() {
            self.core.timers.borrow_mut().dequeue(&self.timer);
        }
        // A stale entry may keep the timer for a while, but not the task.
        self.timer.clear();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline()).finish_non_exhaustive()
    }
}

/// Gives `future` the time `duration`, counted from this call; then it is dropped with the result [`Elapsed`].
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    let mut limit = sleep(duration);
    async move {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut limit).poll(cx).map(|()| Err(Elapsed(())))
        })
        .await
    }
}

/// The time of a [`timeout`] was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

/// Ticks every `period`, for the first time one period from now (Node: `setInterval`). At least 1 ms.
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    let period = period.max(MIN_PERIOD);
    Interval { sleep: sleep(period), period }
}

/// A steady beat. Ticks that were missed are skipped, not made up for; the beat stays on its grid.
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick and returns when it was due. Cancel safe.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// [`tick`](Interval::tick) for use inside a `poll` function.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let due = self.sleep.deadline();
        self.sleep.reset(next_tick(due, self.period, self.sleep.core.now()));
        Poll::Ready(due)
    }
}

/// The first point of the grid after `now`.
fn next_tick(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = after(due, period);
    if next > now {
        return next;
    }
    let late = now.saturating_duration_since(due);
    let into_period = late.as_nanos() % period.as_nanos();
    // The remainder is smaller than `late`, which fits.
    let since_tick = Duration::from_nanos(u64::try_from(into_period).unwrap_or(0));
    after(now - since_tick, period)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn late_ticks_are_skipped_on_the_grid() {
        let ms = Duration::from_millis;
        let due = crate::clock::now();
        assert_eq!(next_tick(due, ms(10), due), due + ms(10));
        assert_eq!(next_tick(due, ms(10), due + ms(9)), due + ms(10));
        assert_eq!(next_tick(due, ms(10), due + ms(10)), due + ms(20));
        assert_eq!(next_tick(due, ms(10), due + ms(57)), due + ms(60));
    }

    #[test]
    fn a_deadline_out_of_range_is_far_away() {
        let start = crate::clock::now();
        assert!(after(start, Duration::MAX) > start + Duration::from_secs(3600));
    }
}
