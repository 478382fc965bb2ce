//! What one loop owns, and which loop is current on a thread.
//!
//! [`Core`] is shared (`Rc`) by the [`EventLoop`](super::EventLoop) and by the sleeps, sources, join handles and hook
//! guards that refer to it; only the `EventLoop` drives it. Cells are borrowed for a few instructions at a time and
//! never while code of a user runs.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::TASK_POLLS_PER_TURN;
use super::hook::{AskedHooks, Hooks};
use super::source::Sources;
use super::stats::{LoopStats, Meter};
use super::task::{RunQueue, TaskKey, Tasks};
use super::timer::Timers;
use super::waker::{Remote, Shared, TaskWaker};
use crate::clock;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The state of one loop.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) poll: RefCell<Poll>,
    pub(super) tasks: RefCell<Tasks>,
    pub(super) timers: RefCell<Timers>,
    pub(super) sources: RefCell<Sources>,
    pub(super) hooks: RefCell<Hooks>,
    runnable: RefCell<RunQueue>,
    yielded: RefCell<Vec<Waker>>,
    root: Cell<RootState>,
    meter: Meter,
    now: Cell<Instant>,
    /// How long to look again before a sleep.
    idle_poll: Cell<Duration>,
    closed: Cell<bool>,
}

/// Whether a `block_on` runs (`generation` of its future, 0: none) and whether its future was woken.
#[derive(Clone, Copy, Default)]
struct RootState {
    generation: u32,
    last_generation: u32,
    woken: bool,
}

impl Core {
    pub(super) fn new() -> io::Result<Rc<Core>> {
        let poll = Poll::new()?;
        let shared = Shared::new(poll.registry())?;
        let now = clock::now();
        Ok(Rc::new(Core {
            shared,
            poll: RefCell::new(poll),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            sources: RefCell::default(),
            hooks: RefCell::default(),
            runnable: RefCell::default(),
            yielded: RefCell::default(),
            root: Cell::default(),
            meter: Meter::starting_at(now),
            now: Cell::new(now),
            idle_poll: Cell::default(),
            closed: Cell::new(false),
        }))
    }

    pub(super) fn remote(&self) -> Remote {
        Remote::new(Arc::clone(&self.shared))
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn clock_seen(&self) -> Instant {
        self.meter.counted_until()
    }

    pub(super) fn idle_poll(&self) -> Duration {
        self.idle_poll.get()
    }

    pub(super) fn set_idle_poll(&self, time: Duration) {
        self.idle_poll.set(time);
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(now);
    }

    pub(super) fn stats(&self) -> LoopStats {
        self.meter.stats()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Makes this the thread's current loop until the guard is dropped; guards nest.
    pub(super) fn enter(self: &Rc<Self>) -> Entered {
        Entered { previous: replace_current(Some(Rc::clone(self))) }
    }

    pub(super) fn is_current(&self) -> bool {
        with_entered(|core| std::ptr::eq(core, self)).unwrap_or(false)
    }

    /// Starts to count busy time at `now`, forgetting what passed since the loop last ran.
    pub(super) fn start_counting(&self, now: Instant) {
        self.meter.restart(now);
        self.now.set(now);
    }

    pub(super) fn count_turn(&self, now: Instant, slept: bool) {
        self.meter.end_poll(now, slept);
        self.now.set(now);
    }

    /// Whether something can run without waiting for the kernel.
    pub(super) fn has_work(&self) -> bool {
        self.root.get().woken
            || !self.runnable.borrow().is_empty()
            || !self.yielded.borrow().is_empty()
    }

    #[cfg(feature = "http")]
    pub(super) fn has_runnable_tasks(&self) -> bool {
        !self.runnable.borrow().is_empty()
    }

    /// How long this turn may sleep; `Some(0)`: not at all, `None`: without a limit.
    pub(super) fn sleep_time(&self, until: Option<Instant>) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let now = clock::now();
        self.meter.begin_poll(now);
        let first_timer = self.timers.borrow_mut().first();
        let wake_at = match (until, first_timer) {
            (Some(until), Some(timer)) => Some(until.min(timer)),
            (until, timer) => until.or(timer),
        };
        wake_at.map(|at| at.saturating_duration_since(now))
    }

    pub(super) fn ask_hooks(&self) -> AskedHooks {
        let hooks = self.hooks.borrow().snapshot();
        AskedHooks::ask(hooks)
    }

    pub(super) fn pass_by_hooks(&self) {
        let hooks = self.hooks.borrow().snapshot();
        hooks.iter().for_each(|hook| hook.pass_by());
    }

    pub(super) fn poll_kernel(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        match self.poll.borrow_mut().poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    pub(super) fn take_remote_wakes(&self) {
        self.shared.drain(|task| self.wake_local(task));
    }

    /// A wake-up from the loop's own thread.
    pub(super) fn wake_local(&self, task: &TaskWaker) {
        if !task.enqueue_local() {
            return;
        }
        let key = task.key();
        if !key.is_root() {
            self.make_runnable(key, task.is_urgent());
            return;
        }
        let mut root = self.root.get();
        if root.generation == key.generation {
            root.woken = true;
            self.root.set(root);
        }
    }

    pub(super) fn make_runnable(&self, key: TaskKey, urgent: bool) {
        self.runnable.borrow_mut().push(key, urgent);
    }

    pub(super) fn wake_next_turn(&self, waker: Waker) {
        self.yielded.borrow_mut().push(waker);
    }

    /// What a turn does with what it has taken in.
    pub(super) fn run(&self) {
        self.wake_yielded();
        self.expire_timers();
        self.run_tasks();
    }

    fn wake_yielded(&self) {
        if self.yielded.borrow().is_empty() {
            return;
        }
        let mut wakers = std::mem::take(&mut *self.yielded.borrow_mut());
        wakers.drain(..).for_each(Waker::wake);
        let mut yielded = self.yielded.borrow_mut();
        // Keep the allocation, unless a waker has yielded by itself.
        if yielded.is_empty() {
            *yielded = wakers;
        }
    }

    fn expire_timers(&self) {
        let now = self.now.get();
        loop {
            let due = self.timers.borrow_mut().pop_due(now);
            match due {
                Some(timer) => timer.fire(),
                None => return,
            }
        }
    }

    fn run_tasks(&self) {
        for _ in 0..TASK_POLLS_PER_TURN {
            let next = self.runnable.borrow_mut().pop();
            match next {
                Some(key) => self.run_task(key),
                None => return,
            }
        }
    }

    /// Announces the future of a `block_on`, woken so that it is polled at once.
    pub(super) fn begin_root(self: &Rc<Self>) -> Root {
        let outer = self.root.get();
        let generation = outer.last_generation.wrapping_add(1).max(1);
        self.root.set(RootState { generation, last_generation: generation, woken: true });
        let task = TaskWaker::new(Arc::clone(&self.shared), TaskKey::root(generation), false);
        Root { core: Rc::clone(self), waker: Waker::from(Arc::clone(&task)), task }
    }

    /// Drops everything that runs on the loop. What survives outside (sleeps, sources, wakers) does nothing from now on.
    pub(super) fn cancel_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let yielded = std::mem::take(&mut *self.yielded.borrow_mut());
        drop(yielded);
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.shared.close();
        self.cancel_tasks();
        let hooks = std::mem::take(&mut *self.hooks.borrow_mut());
        drop(hooks);
        self.timers.borrow_mut().clear();
        self.runnable.borrow_mut().clear();
    }
}

/// The future of the running `block_on`, seen by the loop.
pub(super) struct Root {
    core: Rc<Core>,
    task: Arc<TaskWaker>,
    waker: Waker,
}

impl Root {
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether the future must be polled; wake-ups from now on ask for another poll.
    pub(super) fn take_wake(&self) -> bool {
        let mut root = self.core.root.get();
        let woken = std::mem::take(&mut root.woken);
        if woken {
            self.core.root.set(root);
            self.task.dequeue_local();
        }
        woken
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut root = self.core.root.get();
        root.generation = 0;
        root.woken = false;
        self.core.root.set(root);
    }
}

/// Restores the loop that was current before.
pub(super) struct Entered {
    previous: Option<Rc<Core>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(replace_current(self.previous.take()));
    }
}

/// Destructors of the thread may come here when the thread-local is gone; nothing is current then.
fn replace_current(core: Option<Rc<Core>>) -> Option<Rc<Core>> {
    CURRENT.try_with(|current| current.replace(core)).ok().flatten()
}

/// Calls `f` with the current loop, if there is one. `f` must not run code of a user: the cell is borrowed.
pub(super) fn with_entered<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
    // A waker may be called by a destructor of the thread, when the thread-local is gone.
    CURRENT.try_with(|current| current.borrow().as_deref().map(f)).ok().flatten()
}

/// Like [`with_entered`], but a missing loop is the caller's mistake.
#[track_caller]
pub(super) fn with_current<R>(f: impl FnOnce(&Core) -> R) -> R {
    match with_entered(f) {
        Some(result) => result,
        None => no_loop(),
    }
}

/// The current loop, owned, for callers that go on to run code of a user.
#[track_caller]
pub(super) fn current() -> Rc<Core> {
    match CURRENT.with_borrow(Option::clone) {
        Some(core) => core,
        None => no_loop(),
    }
}

#[track_caller]
fn no_loop() -> ! {
    panic!(
        "no event loop on this thread: call this inside EventLoop::block_on, EventLoop::turn or EventLoop::enter"
    )
}
