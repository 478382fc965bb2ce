//! The tasks of a loop and the order in which they run.
//!
//! A task lives in a slot until it is done or cancelled; while it is polled its future is out of the slot, so a task
//! may spawn, cancel (itself too) and wake freely. Keys carry a generation: one that outlives its task means nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use slab::Slab;

use super::core::Core;
use super::waker::TaskWaker;

/// After so many urgent polls in a row an ordinary task gets one, so that urgent tasks cannot starve the others.
const URGENT_STREAK: u32 = 16;

/// Names a task. Slots are reused, generations are not (before 2^32 tasks have passed).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TaskKey {
    index: usize,
    pub(super) generation: u32,
}

impl TaskKey {
    /// The key of the future of a `block_on`, which has no slot.
    pub(super) fn root(generation: u32) -> TaskKey {
        TaskKey { index: usize::MAX, generation }
    }

    pub(super) fn is_root(self) -> bool {
        self.index == usize::MAX
    }
}

/// The tasks that are runnable. A task is in here at most once.
#[derive(Default)]
pub(super) struct RunQueue {
    urgent: VecDeque<TaskKey>,
    ordinary: VecDeque<TaskKey>,
    urgent_in_a_row: u32,
}

impl RunQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.ordinary.is_empty()
    }

    pub(super) fn push(&mut self, key: TaskKey, urgent: bool) {
        let queue = if urgent { &mut self.urgent } else { &mut self.ordinary };
        queue.push_back(key);
    }

    pub(super) fn pop(&mut self) -> Option<TaskKey> {
        let urgent_first = self.urgent_in_a_row < URGENT_STREAK || self.ordinary.is_empty();
        if urgent_first && let Some(key) = self.urgent.pop_front() {
            self.urgent_in_a_row = self.urgent_in_a_row.saturating_add(1);
            return Some(key);
        }
        self.urgent_in_a_row = 0;
        self.ordinary.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.urgent.clear();
        self.ordinary.clear();
    }
}

/// The slots.
#[derive(Default)]
pub(super) struct Tasks {
    slots: Slab<Slot>,
    generation: u32,
}

struct Slot {
    generation: u32,
    task: Arc<TaskWaker>,
    /// Out while the task is polled.
    body: Option<Body>,
    /// Cancelled while it was polled.
    cancelled: bool,
}

/// What a task runs with.
pub(super) struct Body {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

impl Tasks {
    fn insert(
        &mut self,
        core: &Core,
        urgent: bool,
        future: Pin<Box<dyn Future<Output = ()>>>,
    ) -> TaskKey {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let key = TaskKey { index: entry.key(), generation: self.generation };
        let task = TaskWaker::new(Arc::clone(&core.shared), key, urgent);
        let body = Some(Body { future, waker: Waker::from(Arc::clone(&task)) });
        entry.insert(Slot { generation: key.generation, task, body, cancelled: false });
        key
    }

    fn slot(&mut self, key: TaskKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.index).filter(|slot| slot.generation == key.generation)
    }

    /// Takes the body out to be polled. `None`: the task is gone.
    fn take_body(&mut self, key: TaskKey) -> Option<Body> {
        let slot = self.slot(key)?;
        slot.task.dequeue_local();
        slot.body.take()
    }

    /// Puts the body back; a cancelled task's body comes back for the caller to drop.
    fn put_body(&mut self, key: TaskKey, body: Body) -> Option<Body> {
        match self.slot(key) {
            Some(slot) if !slot.cancelled => slot.body.replace(body),
            _ => Some(body),
        }
    }

    fn remove(&mut self, key: TaskKey) -> Option<Body> {
        self.slot(key)?;
        let slot = self.slots.remove(key.index);
        slot.task.retire();
        slot.body
    }

    /// Removes the task, or marks it if it is being polled.
    fn cancel(&mut self, key: TaskKey) -> Option<Body> {
        let slot = self.slot(key)?;
        if slot.body.is_none() {
            slot.cancelled = true;
            return None;
        }
        self.remove(key)
    }
}

impl Core {
    /// Adds a runnable task; a loop that is closing has no tasks any more and drops it at once.
    pub(super) fn add_task(
        &self,
        urgent: bool,
        future: Pin<Box<dyn Future<Output = ()>>>,
    ) -> Option<TaskKey> {
        if self.is_closed() {
            return None;
        }
        let key = self.tasks.borrow_mut().insert(self, urgent, future);
        self.make_runnable(key, urgent);
        Some(key)
    }

    pub(super) fn run_task(&self, key: TaskKey) {
        let body = self.tasks.borrow_mut().take_body(key);
        let Some(mut body) = body else { return };
        let removal = RemoveTask { core: self, key };
        if body.future.as_mut().poll(&mut Context::from_waker(&body.waker)).is_ready() {
            return;
        }
        let cancelled = self.tasks.borrow_mut().put_body(key, body);
        if cancelled.is_none() {
            std::mem::forget(removal);
        }
    }

    /// Drops the future of a task, now or, if it is being polled, as soon as the poll returns.
    pub(super) fn cancel_task(self: &Rc<Self>, key: TaskKey) {
        let body = self.tasks.borrow_mut().cancel(key);
        if body.is_some() {
            let _entered = self.enter();
            drop(body);
        }
    }
}

/// Frees the slot of a task that is done, cancelled or unwinding.
struct RemoveTask<'a> {
    core: &'a Core,
    key: TaskKey,
}

impl Drop for RemoveTask<'_> {
    fn drop(&mut self) {
        let body = self.core.tasks.borrow_mut().remove(self.key);
        drop(body);
    }
}
