//! Wakes futures at their deadlines, without an event loop.
//!
//! One thread per process, `bimodal-alarms`, which is there only while answers are awaited as futures. It
//! reads the clock and calls wakers, nothing else, so that no backend that is stuck can hold it up.

use std::{
    collections::BTreeMap,
    io, mem,
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::clock;

/// How long the thread stays when nothing is awaited.
const IDLE: Duration = Duration::from_secs(10);

static ALARMS: Alarms = Alarms { board: Mutex::new(Board::new()), changed: Condvar::new() };

struct Alarms {
    board: Mutex<Board>,
    changed: Condvar,
}

struct Board {
    /// Tells alarms of the same instant apart.
    next: u64,
    due: BTreeMap<(Instant, u64), Waker>,
    /// When the thread looks again, if it runs.
    looks_at: Option<Instant>,
}

impl Board {
    const fn new() -> Self {
        Self { next: 0, due: BTreeMap::new(), looks_at: None }
    }
}

/// A waker that is called at a deadline, unless this is dropped before.
#[derive(Debug)]
pub(super) struct Alarm {
    key: (Instant, u64),
}

impl Alarm {
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn set(deadline: Instant, waker: Waker) -> io::Result<Self> {
        let mut board = ALARMS.board.lock();
        match board.looks_at {
            None => start(&mut board, deadline)?,
            Some(at) if deadline < at => {
                ALARMS.changed.notify_one();
            }
            Some(_) => {}
        }
        let key = (deadline, board.next);
        board.next += 1;
        board.due.insert(key, waker);
        Ok(Self { key })
    }

    /// Wakes somebody else.
    pub(super) fn change(&self, waker: Waker) {
        let before = ALARMS.board.lock().due.get_mut(&self.key).map(|old| mem::replace(old, waker));
        drop(before);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // The lock is free again before the waker is dropped: that may be anybody's code.
        let waker = ALARMS.board.lock().due.remove(&self.key);
        drop(waker);
    }
}

fn start(board: &mut Board, deadline: Instant) -> io::Result<()> {
    thread::Builder::new().name("bimodal-alarms".into()).spawn(run)?;
    board.looks_at = Some(deadline);
    Ok(())
}

fn run() {
    let mut board = ALARMS.board.lock();
    loop {
        let now = clock::now();
        let later = board.due.split_off(&(now, u64::MAX));
        let due = mem::replace(&mut board.due, later);
        if !due.is_empty() {
            parking_lot::MutexGuard::unlocked(&mut board, || {
                due.into_values().for_each(Waker::wake)
            });
            continue;
        }
        let first = board.due.keys().next().map(|(deadline, _)| *deadline);
        let until = first.unwrap_or(now + IDLE);
        board.looks_at = Some(until);
        let timed_out = ALARMS.changed.wait_until(&mut board, until).timed_out();
        if timed_out && first.is_none() && board.due.is_empty() {
            board.looks_at = None;
            return;
        }
    }
}
