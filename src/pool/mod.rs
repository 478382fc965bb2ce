//! A pool of threads for work that would hold up an event loop (Node: what `worker_threads` are for).
//!
//! ```
//! use bimodal::pool::{Pool, TaskOptions, Lane};
//!
//! # fn main() -> bimodal::Result<()> {
//! let pool = Pool::builder().threads(1..=4).build()?;
//! let sum = pool.submit(|| (1..=1_000_000_u64).sum::<u64>())?; // from any thread
//! assert_eq!(sum.wait()?, 500_000_500_000);
//!
//! let urgent = TaskOptions::new().lane(Lane::Urgent);
//! let mut rounds = 0_u32;
//! let counted = pool.submit_with(urgent, move |token| {
//!     while !token.is_cancelled() && rounds < 1_000 {
//!         rounds += 1;
//!     }
//!     rounds
//! })?;
//! assert_eq!(counted.wait()?, 1_000);
//! # Ok(())
//! # }
//! ```
//!
//! On an event loop, or any executor, `pool.run(|| heavy()).await` gives the result, and the loop goes on meanwhile.
//! A worker has a pool already: [`Worker::pool`](crate::Worker::pool).
//!
//! Tasks run on the pool's own threads, which are started when they are needed. `README.md` in this folder tells the
//! life of a task, and what holds when one panics.
//!
//! # Invariants
//!
//! * A task ends exactly once: with its value, a panic's text, or the reason why it never began.
//! * While a thread is idle nothing waits for one. Nothing waits outside of the queue while there is room in it.
//! * No panic of a task costs a thread, and no lock is held while anything of the user's runs.

mod cell;
mod core;
mod lanes;
mod line;
mod settings;
mod stats;
mod task;
mod thread;
mod watch;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use self::cell::{Cell, Job as _};
use self::core::{Core, Entry, Submitted};
use self::line::Place;
use crate::{
    clock,
    error::{Error, ErrorKind},
    sys::thread::Cores,
};

/// How long a thread that waits for a task, or for what comes of one, looks again before it sleeps: what comes meanwhile
/// costs no wake-up.
const LOOK_AGAIN: Duration = Duration::from_micros(20);

pub use self::cell::Token;
pub use self::lanes::Lane;
pub use self::settings::{PoolSettings, WhenFull};
pub use self::stats::{Histogram, PoolStats};
pub use self::task::{Run, Task, TaskError, TaskOptions};

/// A pool of threads. Cheap to clone: all clones are the same pool.
///
/// When the last one is dropped, tasks that have not begun are cancelled, those that run are told so by their
/// [`Token`]s, and dropping waits for them, but no longer than
/// [`stop_timeout`](PoolSettings::stop_timeout). Tasks that run for longer hold nobody up: they go on by themselves, and
/// end with the program at the latest.
#[derive(Clone)]
pub struct Pool {
    handle: Arc<PoolHandle>,
}

/// Closes the pool when the last of its users goes.
struct PoolHandle {
    core: Arc<Core>,
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl Pool {
    /// Begins to choose the settings of a pool.
    pub fn builder() -> PoolSettings {
        PoolSettings::new()
    }

    fn new(settings: PoolSettings, threads: RangeInclusive<usize>, cores: Option<Cores>) -> Self {
        let core = Core::new(settings, *threads.start(), *threads.end(), cores);
        Self { handle: Arc::new(PoolHandle { core }) }
    }

    /// Runs a task on a thread of the pool: await the result, on any executor. The task is submitted by this call.
    ///
    /// Dropping the future cancels it. A full queue does what [`WhenFull`] says; no policy but
    /// [`RunInCaller`](WhenFull::RunInCaller) ever blocks the caller.
    ///
    /// # Errors
    ///
    /// The future's result is what [`Task`] says; [`ErrorKind::Full`], with the closure, when it was not accepted, and
    /// [`ErrorKind::Start`] when the pool has no thread and cannot start one.
    pub fn run<T, F>(&self, task: F) -> Run<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Run::new(self.begin(TaskOptions::new(), |task: F, _| task(), task, false))
    }

    /// [`run`](Self::run), with options, for a task that looks at its token.
    ///
    /// # Errors
    ///
    /// As `run`.
    pub fn run_with<T, F>(&self, options: TaskOptions, task: F) -> Run<F, T>
    where
        F: FnOnce(&Token) -> T + Send + 'static,
        T: Send + 'static,
    {
        Run::new(self.begin(options, |task: F, token| task(token), task, false))
    }

    /// Runs a task on a thread of the pool, from any thread.
    ///
    /// A full queue does what [`WhenFull`] says; [`Wait`](WhenFull::Wait) blocks this thread until there is room.
    ///
    /// # Errors
    ///
    /// With the closure, which was not accepted: [`ErrorKind::Full`]; [`ErrorKind::Start`] when the pool has no
    /// thread and cannot start one.
    pub fn submit<T, F>(&self, task: F) -> Result<Task<T>, TaskError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.begin(TaskOptions::new(), |task: F, _| task(), task, true)
    }

    /// [`submit`](Self::submit), with options, for a task that looks at its token.
    ///
    /// # Errors
    ///
    /// As `submit`.
    pub fn submit_with<T, F>(&self, options: TaskOptions, task: F) -> Result<Task<T>, TaskError<F>>
    where
        F: FnOnce(&Token) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.begin(options, |task: F, token| task(token), task, true)
    }

    /// What the pool did, and has to do now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.handle.core.stats()
    }

    /// Submits a task; `may_block` says whether the caller may be blocked until there is room.
    fn begin<F: Send + 'static, T: Send + 'static>(
        &self,
        options: TaskOptions,
        call: fn(F, &Token) -> T,
        work: F,
        may_block: bool,
    ) -> Result<Task<T>, TaskError<F>> {
        let core = &self.handle.core;
        let submitted = clock::now();
        let deadline = options.deadline.and_then(|time| submitted.checked_add(time));
        let place = Place { lane: options.lane, key: core.next_key(), deadline };
        let cell = Cell::new(core.clone(), place, submitted, call, work);
        let job: Entry = cell.clone();
        let policy = self.policy(may_block);
        let submitted = core.submit(&job, policy);
        self.settle(cell, submitted, policy, may_block)
    }

    /// What a caller gets.
    fn settle<F: Send + 'static, T: Send + 'static>(
        &self,
        cell: Arc<Cell<F, T>>,
        submitted: Submitted,
        policy: WhenFull,
        may_block: bool,
    ) -> Result<Task<T>, TaskError<F>> {
        match submitted {
            Submitted::Accepted => Ok(Task::new(cell)),
            Submitted::Outside => {
                let task = Task::new(cell);
                if may_block {
                    task.wait_for_a_place();
                }
                Ok(task)
            }
            Submitted::Full if policy == WhenFull::RunInCaller => {
                stats::count(&self.handle.core.counters.in_caller);
                cell::wake(cell.run());
                Ok(Task::new(cell))
            }
            Submitted::Full => Err(self.reject(&cell)),
            Submitted::Failed(error) => Err(TaskError::new(error, cell.hand_back())),
        }
    }

    /// A thread of the pool must not wait for the others, which may be waiting, too.
    fn policy(&self, may_block: bool) -> WhenFull {
        let core = &self.handle.core;
        match core.settings.when_full {
            WhenFull::Wait if may_block && core.is_here() => WhenFull::RunInCaller,
            policy => policy,
        }
    }

    fn reject<F, T>(&self, cell: &Cell<F, T>) -> TaskError<F> {
        let core = &self.handle.core;
        core.count_rejected();
        let queue = core.settings.queue;
        let text = format!(
            "the pool's threads are busy and its queue of {queue} tasks is full: try again later, or choose another policy with `when_full`"
        );
        TaskError::new(Error::new(ErrorKind::Full, text), cell.hand_back())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
