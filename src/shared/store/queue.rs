//! The bounded queue in front of a backend's thread: many callers push, one thread takes what there is.

use std::{collections::VecDeque, mem, time::Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};

/// The most jobs that wait.
const MAX_JOBS: usize = 16_384;

/// The most bytes that wait: a few of the largest values.
const MAX_BYTES: usize = 128 << 20;

pub(super) struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    changed: Condvar,
}

struct Waiting<J> {
    jobs: VecDeque<J>,
    bytes: usize,
    closed: bool,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Self {
        let waiting = Waiting { jobs: VecDeque::new(), bytes: 0, closed: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// Adds a job of so many bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`]: nothing was added.
    pub(super) fn push(&self, job: J, bytes: usize) -> Result<()> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.len() >= MAX_JOBS || waiting.bytes.saturating_add(bytes) > MAX_BYTES {
            // The lock is free again before the job is dropped, which may be anybody's code.
            drop(waiting);
            return Err(full());
        }
        waiting.jobs.push_back(job);
        waiting.bytes += bytes;
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// All jobs that wait, at least one; waits for it until `until`. `None` once the queue is closed.
    pub(super) fn take(&self, until: Option<Instant>) -> Option<VecDeque<J>> {
        let mut waiting = self.waiting.lock();
        while waiting.jobs.is_empty() && !waiting.closed {
            match until {
                None => self.changed.wait(&mut waiting),
                Some(until) => {
                    if self.changed.wait_until(&mut waiting, until).timed_out() {
                        break;
                    }
                }
            }
        }
        if waiting.closed {
            return None;
        }
        waiting.bytes = 0;
        Some(mem::take(&mut waiting.jobs))
    }

    /// Ends the thread that takes.
    #[cfg(feature = "redis")]
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.changed.notify_all();
    }
}

fn full() -> Error {
    let text = format!(
        "the store's queue is full: it has {MAX_JOBS} calls or {MAX_BYTES} bytes that the backend has not taken; wait for answers before asking for more"
    );
    Error::new(ErrorKind::Full, text)
}
