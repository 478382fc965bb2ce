//! One mio event loop per thread: `!Send` tasks, timers, readiness of descriptors, wake-ups from other threads.
//!
//! An [`EventLoop`] belongs to the thread that made it and everything in this module runs on that thread; only
//! [`Remote`] and the [`Waker`]s of tasks may travel. The free functions ([`spawn`], [`sleep`],
//! [`now`], ...) act on the *current* loop of the calling thread, which is the one inside [`EventLoop::block_on`],
//! [`EventLoop::turn`] or [`EventLoop::enter`]; they panic when there is none.
//!
//! # The order of a turn
//!
//! 1. Decide how long to sleep: not at all when a task is runnable, else until the first timer or the caller's limit.
//!    Only a loop that would really sleep asks its [`SleepHook`]s, and any of them can keep it awake.
//! 2. Look at the kernel (`epoll_wait`), sleeping for that long, unless another thread rings first. EINTR is a turn
//!    without events.
//! 3. Tell the hooks that were asked that the sleep is over.
//! 4. Clear the bell, then take over the wake-ups from other threads.
//! 5. Mark descriptors ready and wake who waits for them.
//! 6. Poll the future of [`EventLoop::block_on`] if it was woken: what it wakes waits for no other look at the kernel.
//! 7. Wake the tasks that yielded, and fire the timers that are due.
//! 8. Poll tasks, urgent ones first, at most [`TASK_POLLS_PER_TURN`] times. The rest waits for the next turn.
//!
//! # Invariants
//!
//! * No `RefCell` of the loop is borrowed while code of a user runs: no future, destructor, waker or hook.
//! * A task that always wakes itself cannot keep the loop from steps 1 to 7. A single `poll` that never returns can:
//!   scheduling is cooperative.
//! * A loop that is awake is woken without a system call.
//! * A wake-up from the loop's own thread takes no lock, writes no descriptor and allocates nothing.
//! * The clock is read at most twice per turn, but by a loop that looks again before it sleeps. Timers have a resolution of
//!   1 ms (what `epoll_wait` offers) and never fire before their deadline.
//! * Dropping the loop drops all its tasks, with the loop entered, also after a task has panicked.

mod bell;
mod core;
mod hook;
mod join;
mod mailbox;
mod signal;
mod sleep;
mod source;
mod stats;
mod task;
mod timer;
mod waker;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mio::Events;

#[cfg(feature = "compare")]
use self::core::with_entered;
use self::core::{Core, current, with_current};
use self::waker::WAKER_TOKEN;
use crate::clock;

pub use self::hook::{HookGuard, SleepHook, on_sleep};
pub use self::join::{Cancelled, JoinHandle, spawn, spawn_urgent};
pub(crate) use self::mailbox::{Mailbox, Postbox, mailbox};
pub(crate) use self::signal::Signals;
pub use self::sleep::{Elapsed, Interval, Sleep, interval, sleep, sleep_until, timeout};
pub use self::source::Source;
pub use self::stats::LoopStats;
pub use self::waker::Remote;

/// How many times one turn polls tasks before it looks at descriptors, timers and other threads again.
pub const TASK_POLLS_PER_TURN: usize = 256;

/// How many events one turn takes from the kernel; what is left is delivered by the next.
const EVENTS_PER_TURN: usize = 256;

/// An event loop: one `mio::Poll` and the tasks, timers and sources that live on it. Neither `Send` nor `Sync`.
pub struct EventLoop {
    core: Rc<Core>,
    events: Events,
}

impl EventLoop {
    /// Makes a loop for the calling thread.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the epoll or eventfd descriptor.
    pub fn new() -> io::Result<EventLoop> {
        Ok(EventLoop { core: Core::new()?, events: Events::with_capacity(EVENTS_PER_TURN) })
    }

    /// The handle by which other threads wake this loop.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.core.remote()
    }

    /// Busy and idle time until the last look at the clock (Node: `performance.eventLoopUtilization`).
    #[must_use]
    pub fn stats(&self) -> LoopStats {
        self.core.stats()
    }

    /// How long an idle loop looks at the kernel again and again before it sleeps. Default 0: not at all. It saves
    /// whoever wakes the loop, and the loop, the microseconds that a sleep and a wake-up cost, and it uses the core
    /// meanwhile.
    pub fn set_idle_poll(&mut self, time: Duration) {
        self.core.set_idle_poll(time);
    }

    /// Runs `f` with this loop as the thread's current one, so that [`spawn`], [`Source::new`] and the like work.
    ///
    /// Called from outside the loop it refreshes [`now`] first.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        if !self.core.is_current() {
            self.core.set_now(clock::now());
        }
        let _entered = self.core.enter();
        f()
    }

    /// Runs the loop until `future` is done and returns its output. Tasks that are not done stay, asleep, until the
    /// loop runs again.
    ///
    /// `future` is polled at most twice per turn: before it, and before its tasks. The time since the loop last ran is not
    /// counted as busy.
    ///
    /// # Errors
    ///
    /// When the kernel fails the wait for events; `future` is dropped then.
    ///
    /// # Panics
    ///
    /// A panic in `future` or in any task of the loop unwinds out of this call.
    pub fn block_on<F: Future>(&mut self, future: F) -> io::Result<F::Output> {
        let core = Rc::clone(&self.core);
        let _entered = core.enter();
        core.start_counting(clock::now());
        let root = core.begin_root();
        let mut future = pin!(future);
        let mut poll_if_woken = || match root.take_wake() {
            true => future.as_mut().poll(&mut Context::from_waker(root.waker())),
            false => Poll::Pending,
        };
        loop {
            if let Poll::Ready(output) = poll_if_woken() {
                return Ok(output);
            }
            self.take_in(None)?;
            if let Poll::Ready(output) = poll_if_woken() {
                return Ok(output);
            }
            core.run();
        }
    }

    /// Runs one turn. It sleeps at most until `until`; `None` sleeps until something happens.
    ///
    /// Time between two turns counts as busy: it is the caller's work.
    ///
    /// # Errors
    ///
    /// When the kernel fails the wait for events.
    ///
    /// # Panics
    ///
    /// A panic in a task unwinds out of this call.
    pub fn turn(&mut self, until: Option<Instant>) -> io::Result<()> {
        let core = Rc::clone(&self.core);
        let _entered = core.enter();
        self.take_in(until)?;
        core.run();
        Ok(())
    }

    /// Drops all tasks that were spawned; the loop itself can go on.
    pub(crate) fn cancel_tasks(&mut self) {
        let core = Rc::clone(&self.core);
        let _entered = core.enter();
        core.cancel_tasks();
    }

    /// Steps 1 to 5.
    fn take_in(&mut self, until: Option<Instant>) -> io::Result<()> {
        self.look_at_kernel(until)?;
        self.core.take_remote_wakes();
        self.dispatch_events();
        Ok(())
    }

    /// Steps 1 to 3.
    fn look_at_kernel(&mut self, until: Option<Instant>) -> io::Result<()> {
        let timeout = self.core.sleep_time(until);
        if timeout == Some(Duration::ZERO) {
            self.core.pass_by_hooks();
            return self.poll_kernel(timeout, false);
        }
        let asked = self.core.ask_hooks();
        let polled = if asked.all_agree() && !self.core.has_work() {
            self.wait(timeout)
        } else {
            self.poll_kernel(Some(Duration::ZERO), false)
        };
        asked.after_sleep();
        polled
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let awake = self.core.idle_poll();
        if !awake.is_zero()
            && self.look_again(timeout.map_or(awake, |timeout| timeout.min(awake)))?
        {
            return Ok(());
        }
        self.sleep(timeout.map(|timeout| timeout.saturating_sub(awake)))
    }

    /// Looks at the kernel without sleeping, for so long. Whether there is something to do.
    fn look_again(&mut self, time: Duration) -> io::Result<bool> {
        let end = clock::now() + time;
        loop {
            self.core.poll_kernel(&mut self.events, Some(Duration::ZERO))?;
            let now = clock::now();
            if !self.events.is_empty() || self.core.shared.bell().is_rung() {
                self.core.count_turn(now, true);
                return Ok(true);
            }
            if now >= end {
                return Ok(false);
            }
            std::thread::yield_now();
        }
    }

    /// Sleeps, unless somebody rings at the last moment.
    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let sleeps = self.core.shared.bell().fall_asleep();
        self.poll_kernel(if sleeps { timeout } else { Some(Duration::ZERO) }, true)
    }

    fn poll_kernel(&mut self, timeout: Option<Duration>, sleeps: bool) -> io::Result<()> {
        let polled = self.core.poll_kernel(&mut self.events, timeout);
        self.core.count_turn(clock::now(), sleeps);
        polled
    }

    fn dispatch_events(&self) {
        for event in &self.events {
            if event.token() != WAKER_TOKEN {
                self.core.dispatch(event);
            }
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        let _entered = self.core.enter();
        self.core.close();
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Runs a test on a fresh loop.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn on_loop(test: impl AsyncFnOnce()) {
    EventLoop::new().unwrap().block_on(test()).unwrap();
}

/// The time of the current turn: read once after each look at the kernel, so it costs no system call.
///
/// It lags behind the clock by as long as the tasks of this turn have run.
///
/// # Panics
///
/// Without a current loop on this thread.
#[must_use]
#[track_caller]
pub fn now() -> Instant {
    with_current(Core::now)
}

/// Whether other tasks of the current loop are to be polled in this turn.
#[cfg(feature = "http")]
#[track_caller]
pub(crate) fn has_runnable_tasks() -> bool {
    with_current(Core::has_runnable_tasks)
}

/// Whether this thread has a current loop, which whoever blocks would hold up.
#[cfg(feature = "compare")]
pub(crate) fn is_entered() -> bool {
    with_entered(|_| ()).is_some()
}

/// When the current loop last looked at the clock: [`now`], or later when it is about to sleep.
#[track_caller]
pub(crate) fn clock_seen() -> Instant {
    with_current(Core::clock_seen)
}

/// [`EventLoop::stats`] of the current loop.
///
/// # Panics
///
/// Without a current loop on this thread.
#[must_use]
#[track_caller]
pub fn current_stats() -> LoopStats {
    with_current(Core::stats)
}

/// Lets everything else on the loop go first: continues in the next turn, after descriptors and timers were looked at.
///
/// # Panics
///
/// When polled without a current loop on this thread.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        current().wake_next_turn(Waker::clone(cx.waker()));
        Poll::Pending
    })
}
