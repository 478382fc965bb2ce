//! Deadlines: a thread that ends tasks which have not begun in time. It is there only while tasks with a
//! deadline wait in the line, or did a moment ago.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::MutexGuard;

use super::{
    cell::{Unbegun, forget},
    core::{Core, Entry},
    line::Left,
};
use crate::{clock, sys::thread};

/// How long the thread stays when no deadline is left.
const LINGER: Duration = Duration::from_secs(1);

/// A task with this deadline was put into the line.
pub(super) fn note(core: &Arc<Core>, deadline: Option<Instant>) {
    let Some(deadline) = deadline else { return };
    let mut floor = core.floor.lock();
    let starts = match floor.watch_wakes {
        Some(wakes) if wakes <= deadline => return,
        wakes => wakes.is_none(),
    };
    floor.watch_wakes = Some(deadline);
    drop(floor);
    if !starts {
        core.sooner.notify_all();
    } else if let Err(error) = start(core.clone()) {
        // Who gets to such a task sees that it is too late, but nobody does before.
        log::warn!("no thread can be started to watch the deadlines of tasks: {error}");
        core.floor.lock().watch_wakes = None;
    }
}

fn start(core: Arc<Core>) -> std::io::Result<()> {
    let name = format!("{}-watch", core.settings.name);
    std::thread::Builder::new().name(name).spawn(move || watch(&core)).map(drop)
}

fn watch(core: &Core) {
    thread::leave_signals_to_others();
    let mut floor = core.floor.lock();
    while !floor.closed {
        if let Some(expired) = floor.line.take_expired(clock::now()) {
            MutexGuard::unlocked(&mut floor, || expire(expired));
            continue;
        }
        let wakes = floor.line.first_deadline().unwrap_or_else(|| clock::now() + LINGER);
        floor.watch_wakes = Some(wakes);
        let waited = core.sooner.wait_until(&mut floor, wakes).timed_out();
        if waited && floor.line.first_deadline().is_none() {
            break;
        }
    }
    floor.watch_wakes = None;
    core.thread_left.notify_all();
}

fn expire(left: Left<Entry>) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        left.item.end_unbegun(Unbegun::Expired);
        if let Some(admitted) = left.admitted {
            admitted.admitted();
        }
    }));
    if let Err(panic) = ended {
        log::error!("the waker of a task panicked");
        forget(panic);
    }
}
