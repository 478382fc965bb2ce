//! A thread of a pool, from its first instruction to its last.
//!
//! It runs one task after the other. Whatever a task does but end the process, the thread goes on: panics of
//! the task are caught where it is called, those of destructors and wakers here.

use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::Arc,
    task::Waker,
};

use super::{
    cell,
    core::{Call, Core, Entry},
    line::Left,
};
use crate::{clock, sys::thread};

thread_local! {
    /// The pool that this thread belongs to.
    static POOL: Cell<*const Core> = const { Cell::new(ptr::null()) };
}

/// Whether the calling thread belongs to this pool.
pub(super) fn is_of(core: &Core) -> bool {
    // A destructor of the thread may ask when the thread-local is gone.
    POOL.try_with(Cell::get).is_ok_and(|pool| ptr::eq(pool, core))
}

/// Starts a thread, whose number is taken, with its first task.
pub(super) fn start(core: Arc<Core>, number: usize, first: Entry) -> io::Result<()> {
    let name = format!("{}-{}", core.settings.name, number + 1);
    // Nobody joins it: a task that never ends would hold up whoever did.
    std::thread::Builder::new().name(name).spawn(move || live(&core, number, first)).map(drop)
}

fn live(core: &Arc<Core>, number: usize, first: Entry) {
    POOL.set(Arc::as_ptr(core));
    thread::leave_signals_to_others();
    use_own_cores(core);
    let mut next = Some(first);
    while let Some(job) = next {
        let waiter = guard(|| serve(job)).flatten();
        // Decided before the waiter is woken: if that submits again at once, it finds this thread idle.
        let turn = core.turn(number);
        guard(|| cell::wake(waiter));
        next = core.take(turn, number);
    }
}

/// Runs a task. A result that nobody will take is dropped here.
fn serve(job: Entry) -> Option<Waker> {
    job.run()
}

/// Keeps a panic of a waker, or of a destructor of what a task left behind, from the thread.
fn guard<T>(run: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(run));
    outcome
        .inspect_err(|_| log::error!("what a task left behind panicked, or its waker did"))
        .map_err(cell::forget)
        .ok()
}

/// Whoever started this thread may have been pinned to a core, and threads inherit that.
fn use_own_cores(core: &Core) {
    if let Some(cores) = core.cores
        && thread::Cores::current() != Some(cores)
        && let Err(error) = cores.use_here()
    {
        log::warn!(
            "a thread of the pool {} cannot use the cores {cores:?}: {error}",
            core.settings.name
        );
    }
}

/// What a thread does next.
enum Turn {
    Run(Left<Entry>),
    Look,
    Sleep,
    End,
}

impl Core {
    /// Decides what a thread does next, and counts it as that.
    fn turn(&self, number: usize) -> Turn {
        let mut floor = self.floor.lock();
        if let Some(left) = floor.take() {
            Turn::Run(left)
        } else if floor.closed {
            floor.leave(number);
            self.thread_left.notify_all();
            Turn::End
        } else if floor.looking {
            floor.idle += 1;
            Turn::Sleep
        } else {
            floor.looking = true;
            Turn::Look
        }
    }

    /// The next task for a thread; waits for one. `None`: the thread is to end, and counts as gone.
    fn take(&self, turn: Turn, number: usize) -> Option<Entry> {
        let looked = match turn {
            Turn::Run(Left { item, admitted }) => {
                guard(|| admitted.into_iter().for_each(|job| job.admitted()));
                return Some(item);
            }
            Turn::End => return None,
            Turn::Look => self.look(),
            Turn::Sleep => None,
        };
        let call = looked.or_else(|| self.sleep(number))?;
        if call.is_none() {
            self.leave(number);
        }
        call
    }

    fn leave(&self, number: usize) {
        self.floor.lock().leave(number);
        self.thread_left.notify_all();
    }

    /// Looks for a call for a moment; without one the thread counts as one that sleeps.
    fn look(&self) -> Option<Call> {
        let end = clock::now() + super::LOOK_AGAIN;
        while clock::now() < end {
            if let Ok(call) = self.near.called.try_recv() {
                return Some(call);
            }
            std::thread::yield_now();
        }
        let mut floor = self.floor.lock();
        if std::mem::take(&mut floor.looking) {
            floor.idle += 1;
            return None;
        }
        drop(floor);
        // It was called, and the call is on its way.
        self.near.called.recv().ok()
    }

    /// Sleeps until it is called; `None` if it was idle for too long, and counts as gone.
    fn sleep(&self, number: usize) -> Option<Call> {
        loop {
            if let Ok(call) = self.far.called.recv_timeout(self.settings.keep_alive) {
                return Some(call);
            }
            let mut floor = self.floor.lock();
            if floor.idle == 0 {
                drop(floor);
                // It was called, and the call is on its way.
                return self.far.called.recv().ok();
            }
            if floor.threads() > self.stay {
                floor.idle -= 1;
                floor.leave(number);
                self.thread_left.notify_all();
                return None;
            }
        }
    }
}
