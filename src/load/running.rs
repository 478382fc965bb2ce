//! A load that is under way, in threads of its own, and what the program sees of it.

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use mio::Waker;

use super::{
    arrival::{Share, Until, nanos},
    driver::{Driver, Gauge},
    outcome::Outcome,
    plan::Plan,
};
use crate::{
    clock,
    error::{Error, ErrorKind, Result},
    sys::thread,
};

/// From the start of the threads to the first request: so long that all of them are there.
const LEAD: Duration = Duration::from_millis(5);

/// A load that is under way. Dropping it stops it and waits for its threads.
pub struct Running {
    threads: Vec<Thread>,
    begin: Instant,
    until: Until,
}

struct Thread {
    handle: JoinHandle<io::Result<Outcome>>,
    gauge: Arc<Gauge>,
    waker: Waker,
}

/// How far a load is. Figures of the measured part only, a few milliseconds old at most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The time since the end of the warm-up; 0 before.
    pub elapsed: Duration,
    /// How much of the load is done, from 0 to 1.
    pub part: f64,
    /// Requests with the expected answer.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Whether it has ended, so that [`Running::wait`] does not wait.
    pub is_over: bool,
}

impl Running {
    pub(super) fn start(plan: Plan) -> Result<Self> {
        let lead = nanos(LEAD) + plan.warmup;
        let begin = clock::now() + Duration::from_nanos(lead);
        let begin_ns = clock::monotonic_ns().saturating_add(lead);
        let mut running = Self { threads: Vec::new(), begin, until: plan.until };
        let plan = Arc::new(plan);
        for thread in 0..plan.threads {
            let share = Share {
                thread,
                threads: plan.threads,
                start: begin_ns - plan.warmup,
                begin: begin_ns,
                until: plan.until,
                seed: plan.seed,
            };
            // What has been started ends when `running` is dropped.
            running.threads.push(Thread::start(&plan, &share)?);
        }
        Ok(running)
    }

    /// When the measured part begins, at the end of the warm-up: what an outcome's timeline counts from.
    #[must_use]
    pub fn begins(&self) -> Instant {
        self.begin
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let gauges = || self.threads.iter().map(|thread| &thread.gauge);
        let elapsed = clock::now().saturating_duration_since(self.begin);
        let completed = gauges().map(|gauge| gauge.completed.load(Relaxed)).sum::<u64>();
        let failed = gauges().map(|gauge| gauge.failed.load(Relaxed)).sum::<u64>();
        let part = match self.until {
            Until::Elapsed(time) => elapsed.as_secs_f64() / time.as_secs_f64(),
            Until::Requests(count) => (completed + failed) as f64 / count as f64,
        };
        let is_over = self.threads.iter().all(|thread| thread.handle.is_finished());
        Progress { elapsed, part: part.min(1.0), completed, failed, is_over }
    }

    /// Ends it now. What is under way does not count; in an open loop, what was due and not sent is `unsent`.
    pub fn stop(&self) {
        self.threads.iter().for_each(Thread::stop);
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// `Io` if a driver's event loop failed, `Panic` if its thread panicked.
    pub fn wait(mut self) -> Result<Outcome> {
        let threads = std::mem::take(&mut self.threads);
        let mut outcomes = threads.into_iter().map(Thread::join);
        let none = || Err(Error::new(ErrorKind::Closed, "a load without threads has no outcome"));
        let first = outcomes.next().unwrap_or_else(none);
        // Each thread is waited for, whatever became of the others.
        outcomes.fold(first, |all, outcome| {
            let (mut all, outcome) = (all?, outcome?);
            all.add(outcome);
            Ok(all)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            if let Err(error) = thread.join() {
                log::warn!("{error}");
            }
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Thread {
    fn start(plan: &Arc<Plan>, share: &Share) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::caused(
                ErrorKind::Io,
                format!("the load driver cannot be started: {error}"),
                error,
            )
        };
        let gauge = Arc::new(Gauge::default());
        let (driver, waker) =
            Driver::new(Arc::clone(plan), Arc::clone(&gauge), share).map_err(failed)?;
        let builder = Builder::new().name(format!("load-{}", share.thread));
        let run = move || {
            thread::leave_signals_to_others();
            driver.run()
        };
        Ok(Self { handle: builder.spawn(run).map_err(failed)?, gauge, waker })
    }

    fn stop(&self) {
        self.gauge.is_stopped.store(true, Relaxed);
        if let Err(error) = self.waker.wake() {
            log::debug!("the load driver sees only at its next turn that it is stopped: {error}");
        }
    }

    fn join(self) -> Result<Outcome> {
        let outcome = self.handle.join().map_err(|panic| Error::panicked(&*panic))?;
        outcome.map_err(|error| {
            Error::caused(
                ErrorKind::Io,
                format!("the load driver's event loop failed: {error}"),
                error,
            )
        })
    }
}
