//! What all handles and threads of a pool share: the line, the threads, and how a task gets to one of them.
//!
//! A thread that finds nothing in the line is idle. One idle thread at a time **looks** for a moment before it
//! sleeps, so that a task that comes meanwhile costs no wake-up. Under the one lock whoever submits
//! either finds an idle thread, which from then on is called and not idle, and sends it the task through a channel; or
//! puts the task into the line. So nothing waits in the line while a thread is idle, and each call finds a thread that
//! waits for it. The lock is never held while a task, a destructor of the user's or a waker runs.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::{
    cell::{Job, Unbegun},
    line::{Left, Line, Place},
    settings::{PoolSettings, WhenFull},
    stats::{Counters, PoolStats, count},
    thread, watch,
};
use crate::{
    error::{Error, ErrorKind},
    sys::thread::Cores,
};

/// A task of any type.
pub(super) type Entry = Arc<dyn Job>;

/// What an idle thread is called for: a task, or its end.
pub(super) type Call = Option<Entry>;

pub(super) struct Core {
    pub(super) settings: PoolSettings,
    /// How many threads stay.
    pub(super) stay: usize,
    pub(super) cores: Option<Cores>,
    pub(super) counters: Counters,
    pub(super) floor: Mutex<Floor>,
    /// To the thread that looks.
    pub(super) near: Door,
    /// To those that sleep.
    pub(super) far: Door,
    /// Notified when a thread has left.
    pub(super) thread_left: Condvar,
    /// Notified when a deadline comes before all others.
    pub(super) sooner: Condvar,
    closing: AtomicBool,
    keys: AtomicU64,
}

/// Never full: each call has a thread that waits for it.
pub(super) struct Door {
    pub(super) calls: Sender<Call>,
    pub(super) called: Receiver<Call>,
}

/// What is under the lock.
pub(super) struct Floor {
    pub(super) line: Line<Entry>,
    /// Which numbers of threads are in use.
    threads: Vec<bool>,
    /// Threads that sleep and that nobody has called.
    pub(super) idle: usize,
    /// A thread looks, and nobody has called it.
    pub(super) looking: bool,
    pub(super) closed: bool,
    /// When the thread that watches the deadlines wakes by itself, if there is one.
    pub(super) watch_wakes: Option<Instant>,
}

/// What became of a task that was submitted.
pub(super) enum Submitted {
    Accepted,
    /// It is in the line, and its caller has to wait for a place.
    Outside,
    /// There is no room for it.
    Full,
    /// There is no thread for it.
    Failed(Error),
}

/// What is to be done when the lock is released.
enum Step {
    CallNear,
    CallFar,
    Start(usize),
    Queued,
    Outside,
    InsteadOf(Entry),
    Full,
    NoThread,
}

impl Core {
    pub(super) fn new(
        settings: PoolSettings,
        stay: usize,
        most: usize,
        cores: Option<Cores>,
    ) -> Arc<Self> {
        let floor = Floor {
            line: Line::new(settings.queue),
            threads: vec![false; most],
            idle: 0,
            looking: false,
            closed: false,
            watch_wakes: None,
        };
        let door = || {
            let (calls, called) = bounded(most);
            Door { calls, called }
        };
        Arc::new(Self {
            settings,
            stay,
            cores,
            counters: Counters::new(),
            floor: Mutex::new(floor),
            near: door(),
            far: door(),
            thread_left: Condvar::new(),
            sooner: Condvar::new(),
            closing: AtomicBool::new(false),
            keys: AtomicU64::new(0),
        })
    }

    pub(super) fn next_key(&self) -> u64 {
        self.keys.fetch_add(1, Relaxed)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Whether the calling thread is one of the pool's.
    pub(super) fn is_here(&self) -> bool {
        thread::is_of(self)
    }

    pub(super) fn stats(&self) -> PoolStats {
        let (lengths, threads) = {
            let floor = self.floor.lock();
            (floor.line.lengths(), floor.threads())
        };
        self.counters.read(lengths, threads)
    }

    /// Gets a task to a thread, or into the line.
    pub(super) fn submit(self: &Arc<Self>, job: &Entry, policy: WhenFull) -> Submitted {
        let step = self.floor.lock().admit(job, policy, true);
        match self.go(step, job) {
            Ok(submitted) => submitted,
            // There are other threads, or the task fails with the reason.
            Err(error) => {
                let step = self.floor.lock().admit(job, policy, false);
                self.go(step, job).unwrap_or_else(|_| Submitted::Failed(error))
            }
        }
    }

    fn go(self: &Arc<Self>, step: Step, job: &Entry) -> Result<Submitted, Error> {
        match step {
            Step::CallNear => call(&self.near, Some(job.clone())),
            Step::CallFar => call(&self.far, Some(job.clone())),
            Step::Start(number) => self.start(number, job)?,
            Step::Queued => watch::note(self, job.place().deadline),
            Step::Outside => {
                watch::note(self, job.place().deadline);
                return Ok(Submitted::Outside);
            }
            Step::InsteadOf(oldest) => {
                oldest.end_unbegun(Unbegun::Dropped);
                watch::note(self, job.place().deadline);
            }
            Step::Full => return Ok(Submitted::Full),
            Step::NoThread => return Err(Error::new(ErrorKind::Start, "the pool has no thread")),
        }
        Ok(Submitted::Accepted)
    }

    fn start(self: &Arc<Self>, number: usize, first: &Entry) -> Result<(), Error> {
        thread::start(self.clone(), number, first.clone()).map_err(|error| {
            for job in self.floor.lock().failed_to_start(number) {
                job.end_unbegun(Unbegun::NoThread);
            }
            Error::caused(ErrorKind::Start, "cannot start a thread for the pool", error)
        })
    }

    /// Takes a task out of the line, if it is in there.
    pub(super) fn leave_line(&self, place: Place) {
        let left = self.floor.lock().line.remove(place);
        if let Some(Left { admitted: Some(admitted), .. }) = left {
            admitted.admitted();
        }
    }

    /// Cancels what has not begun, lets the threads end, and waits for them, no longer than the
    /// `stop_timeout`. A thread of the pool does not wait for itself.
    pub(super) fn close(&self) {
        self.closing.store(true, SeqCst);
        let (jobs, near, far) = self.floor.lock().close();
        if near {
            call(&self.near, None);
        }
        (0..far).for_each(|_| call(&self.far, None));
        self.sooner.notify_all();
        jobs.into_iter().for_each(|job| job.end_unbegun(Unbegun::Cancelled));
        let own = usize::from(self.is_here());
        let someone = |floor: &mut Floor| floor.threads() > own || floor.watch_wakes.is_some();
        let mut floor = self.floor.lock();
        self.thread_left.wait_while_for(&mut floor, someone, self.settings.stop_timeout);
    }

    /// A task was not accepted.
    pub(super) fn count_rejected(&self) {
        count(&self.counters.rejected);
    }
}

fn call(door: &Door, call: Call) {
    // The pool itself holds the other end.
    let _ = door.calls.send(call);
}

impl Floor {
    pub(super) fn threads(&self) -> usize {
        self.threads.iter().filter(|in_use| **in_use).count()
    }

    fn admit(&mut self, job: &Entry, policy: WhenFull, may_start: bool) -> Step {
        if self.looking {
            self.looking = false;
            return Step::CallNear;
        }
        if self.idle > 0 {
            self.idle -= 1;
            return Step::CallFar;
        }
        let free = self.threads.iter().position(|in_use| !in_use);
        match free.filter(|_| may_start) {
            Some(number) => {
                self.threads[number] = true;
                Step::Start(number)
            }
            None if self.threads() == 0 => Step::NoThread,
            None => self.queue(job, policy),
        }
    }

    fn queue(&mut self, job: &Entry, policy: WhenFull) -> Step {
        let place = job.place();
        if !self.line.is_full() {
            self.line.put(place, job.clone());
            return Step::Queued;
        }
        match policy {
            WhenFull::Wait => {
                job.stay_outside();
                self.line.put_outside(place, job.clone());
                Step::Outside
            }
            WhenFull::Reject | WhenFull::RunInCaller => Step::Full,
            WhenFull::DropOldest => {
                let deadline = |oldest: &Entry| oldest.place().deadline;
                let Some(oldest) = self.line.take_oldest_up_to(place.lane, deadline) else {
                    return Step::Full;
                };
                self.line.put(place, job.clone());
                Step::InsteadOf(oldest)
            }
        }
    }

    /// The task whose turn it is, and the one that got its place.
    pub(super) fn take(&mut self) -> Option<Left<Entry>> {
        self.line.take(|job| job.place().deadline)
    }

    /// A thread is no more.
    pub(super) fn leave(&mut self, number: usize) {
        self.threads[number] = false;
    }

    /// A thread did not come to be; what waits for it alone.
    fn failed_to_start(&mut self, number: usize) -> Vec<Entry> {
        self.leave(number);
        if self.threads() == 0 { self.line.drain() } else { Vec::new() }
    }

    /// What has not begun, whether a thread looks, and how many sleep: from now on all are called.
    fn close(&mut self) -> (Vec<Entry>, bool, usize) {
        self.closed = true;
        (self.line.drain(), std::mem::take(&mut self.looking), std::mem::take(&mut self.idle))
    }
}
