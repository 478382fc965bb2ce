//! A lock in a region. Its holder may die: the next one is told.
//!
//! Used from any thread of the primary and of the workers. The lock is one word, see [`state`]; who waits
//! sleeps at its lower half. Nobody tells a sleeper that a holder has died, so sleepers look again every
//! [`LOOK_AGAIN`]: that bounds also how long anything else that was lost with a dead worker is missed.

mod line;
mod state;

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult, atomic::AtomicU64},
    task::Poll,
    time::Duration,
};

use self::line::Line;
use super::{
    Waiting,
    region::{Region, deadline_ns},
};
use crate::{clock, error::Result};

/// How long a sleeper does not ask whether the holder still lives.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A lock that the primary and all workers share (Node has none; in spirit `navigator.locks`). Cheap to
/// clone.
///
/// It guards whatever the program says it guards: elsewhere in the region, or outside.
///
/// When a holder ends without having released it (killed, aborted), or panics, the lock is **poisoned**:
/// whoever has it next gets the guard in a [`PoisonError`], as with [`std::sync::Mutex`], until somebody
/// calls [`clear_poison`](Self::clear_poison). A dead worker process is noticed when the primary has reaped
/// it, within some 20 ms.
///
/// What does not end does not release: a thread that is [abandoned](crate::ExitStatus::Abandoned), or a
/// guard that is forgotten, keeps the lock. [`lock_timeout`](Self::lock_timeout) gives up.
///
/// The lock is not fair, and who holds it and locks it again waits for ever.
///
/// ```no_run
/// # use std::sync::PoisonError;
/// # use bimodal::{Result, Worker};
/// # async fn f(worker: Worker) -> Result<()> {
/// let region = worker.region("accounts")?;
/// let (lock, accounts) = (region.mutex(0)?, region.view_at::<u64>(8, 2)?);
/// let guard = lock.lock_async().await.unwrap_or_else(|poisoned| {
///     // Repair what somebody left half done, then:
///     lock.clear_poison();
///     poisoned.into_inner()
/// });
/// accounts.sub(0, 10)?;
/// accounts.add(1, 10)?;
/// drop(guard);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedMutex {
    region: Arc<Region>,
    word: usize,
    /// The tasks that wait for this handle and its clones.
    line: Arc<Line>,
}

impl SharedMutex {
    /// How many bytes a lock takes.
    pub const BYTES: usize = size_of::<u64>();

    pub(super) fn new(region: Arc<Region>, byte_offset: usize) -> Result<Self> {
        region.check("a lock", byte_offset, Some(Self::BYTES), Self::BYTES)?;
        Ok(Self { region, word: byte_offset / Self::BYTES, line: Arc::default() })
    }

    /// Takes the lock; blocks the thread until it can.
    ///
    /// On the thread of an event loop nothing else goes on meanwhile: a task rather awaits
    /// [`lock_async`](Self::lock_async).
    ///
    /// # Errors
    ///
    /// The lock is taken, but poisoned.
    pub fn lock(&self) -> LockResult<SharedGuard<'_>> {
        let mut waited = false;
        loop {
            if let Some(taken) = self.take(waited) {
                return taken;
            }
            waited |= self.sleep(u64::MAX);
        }
    }

    /// Takes the lock if that is possible at once.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] when somebody holds it; the lock is taken, but poisoned.
    pub fn try_lock(&self) -> TryLockResult<SharedGuard<'_>> {
        self.take(false).map_or(Err(TryLockError::WouldBlock), |taken| Ok(taken?))
    }

    /// Takes the lock if that is possible within this time, for which it blocks the thread.
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock).
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<SharedGuard<'_>> {
        let (deadline_ns, mut waited) = (deadline_ns(timeout), false);
        loop {
            if let Some(taken) = self.take(waited) {
                return Ok(taken?);
            }
            // Even past the deadline: who was woken tells the holder that there may be others.
            waited |= self.sleep(deadline_ns);
            if deadline_ns <= clock::monotonic_ns() {
                return self.try_lock();
            }
        }
    }

    /// Takes the lock; the event loop goes on meanwhile. Cancel safe.
    ///
    /// Of the tasks that wait for this handle and its clones one at a time sleeps in the kernel, as a
    /// [`SharedView::wait_async`](super::SharedView::wait_async) does; the others stand in line behind it.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub async fn lock_async(&self) -> LockResult<SharedGuard<'_>> {
        if let Some(taken) = self.take(false) {
            return taken;
        }
        let _place = self.line.reach_the_front().await;
        let mut waited = false;
        loop {
            if let Some(taken) = self.take(waited) {
                return taken;
            }
            let Some(seen) = state::await_release(self.at()) else { continue };
            waited = true;
            let half = Region::low_half(self.word);
            match Waiting::begin(&self.region, half, seen as u32, Some(LOOK_AGAIN)) {
                // However it ended, the word tells.
                Ok(waiting) => drop(waiting.await),
                // Without a thread to sleep for it, the task looks at the word in every turn.
                Err(_) => pass_a_turn().await,
            }
        }
    }

    /// Whether a holder died or panicked since the last [`clear_poison`](Self::clear_poison). One that has
    /// died just now is noticed by who takes the lock next.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        state::is_poisoned(self.at())
    }

    /// What the lock guards is in order again.
    pub fn clear_poison(&self) {
        state::clear_poison(self.at());
    }

    fn take(&self, waited: bool) -> Option<LockResult<SharedGuard<'_>>> {
        let parties = self.region.parties();
        let lives = |party| parties.lives(party);
        let poisoned = state::take(self.at(), parties.own(), waited, lives)?;
        let guard = SharedGuard { mutex: self, panicking: std::thread::panicking() };
        Some(if poisoned { Err(PoisonError::new(guard)) } else { Ok(guard) })
    }

    /// Sleeps for a moment while somebody holds the lock; says whether somebody did.
    fn sleep(&self, deadline_ns: u64) -> bool {
        let Some(seen) = state::await_release(self.at()) else { return false };
        let until = self::deadline_ns(LOOK_AGAIN).min(deadline_ns);
        let half = Region::low_half(self.word);
        if let Err(error) = self.region.wait_until(half, seen as u32, Some(until)) {
            log::error!("{error}");
            std::thread::yield_now();
        }
        true
    }

    fn release(&self, poison: bool) {
        if state::release(self.at(), self.region.parties().own(), poison) {
            // An error was one of the sleeper, too, and is told there.
            let _ = self.region.notify(Region::low_half(self.word), 1);
        }
    }

    fn at(&self) -> &AtomicU64 {
        self.region.words().get(self.word)
    }
}

impl fmt::Debug for SharedMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMutex").field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// A [`SharedMutex`] that is held: dropping this releases it, and poisons it if that happens in a panic.
#[must_use = "the lock is released when this is dropped"]
pub struct SharedGuard<'a> {
    mutex: &'a SharedMutex,
    /// The lock was taken in a panic: that is not one of what it guards.
    panicking: bool,
}

impl Drop for SharedGuard<'_> {
    fn drop(&mut self) {
        self.mutex.release(!self.panicking && std::thread::panicking());
    }
}

impl fmt::Debug for SharedGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedGuard").finish_non_exhaustive()
    }
}

async fn pass_a_turn() {
    let mut passed = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut passed, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
