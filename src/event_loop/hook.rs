//! Hooks around the sleep of a loop: how a queue outside the loop learns that the loop is idle.

use std::fmt;
use std::rc::Rc;

use super::core::{Core, current};

/// Called on the loop's thread around each sleep in the kernel; a turn that has work anyway only passes by.
///
/// The protocol for a queue that other threads fill: `before_sleep` announces "idle" and *then* looks at the queue
/// once more; who fills the queue looks for idle loops *after* filling and calls [`Remote::wake`](super::Remote::wake).
pub trait SleepHook {
    /// The loop is about to sleep. `false`: there is work, do not sleep.
    ///
    /// A hook that returns `false` has to make its work runnable (wake a task), at the latest in `after_sleep`.
    fn before_sleep(&self) -> bool;

    /// Back from the kernel, before any task runs. Follows every `before_sleep`, also one that returned `false`.
    fn after_sleep(&self);

    /// A turn does not sleep, because it has work. Does nothing unless overridden.
    fn pass_by(&self) {}
}

/// Adds a hook to the current loop until the guard is dropped. Hooks are called in the order they were added.
///
/// # Panics
///
/// Without a current loop on this thread.
#[track_caller]
pub fn on_sleep(hook: Rc<dyn SleepHook>) -> HookGuard {
    let core = current();
    let old = core.hooks.borrow_mut().add(Rc::clone(&hook));
    drop(old);
    HookGuard { core, hook }
}

/// Removes its hook when dropped. A sleep that has begun is still completed by `after_sleep`.
#[must_use = "dropping the guard removes the hook"]
pub struct HookGuard {
    core: Rc<Core>,
    hook: Rc<dyn SleepHook>,
}

impl Drop for HookGuard {
    fn drop(&mut self) {
        let old = self.core.hooks.borrow_mut().remove(&self.hook);
        drop(old);
    }
}

impl fmt::Debug for HookGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookGuard").finish_non_exhaustive()
    }
}

type HookList = Rc<[Rc<dyn SleepHook>]>;

/// The hooks of a loop: replaced as a whole, so that a sleep can walk its own copy of the list without allocating.
pub(super) struct Hooks {
    list: HookList,
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks { list: Rc::new([]) }
    }
}

impl Hooks {
    pub(super) fn snapshot(&self) -> HookList {
        Rc::clone(&self.list)
    }

    /// Returns the old list, for the caller to drop when nothing is borrowed.
    fn add(&mut self, hook: Rc<dyn SleepHook>) -> HookList {
        let list = self.list.iter().cloned().chain([hook]).collect();
        std::mem::replace(&mut self.list, list)
    }

    fn remove(&mut self, hook: &Rc<dyn SleepHook>) -> HookList {
        let Some(at) = self.list.iter().position(|other| Rc::ptr_eq(other, hook)) else {
            return Rc::new([]);
        };
        let (before, after) = (&self.list[..at], &self.list[at + 1..]);
        let list = before.iter().chain(after).cloned().collect();
        std::mem::replace(&mut self.list, list)
    }
}

/// The hooks whose `before_sleep` has run in this turn.
pub(super) struct AskedHooks {
    hooks: HookList,
    asked: usize,
    agreed: bool,
}

impl AskedHooks {
    /// Asks in order, until one keeps the loop awake.
    pub(super) fn ask(hooks: HookList) -> AskedHooks {
        let refused_at = hooks.iter().position(|hook| !hook.before_sleep());
        let asked = refused_at.map_or(hooks.len(), |at| at + 1);
        AskedHooks { hooks, asked, agreed: refused_at.is_none() }
    }

    pub(super) fn all_agree(&self) -> bool {
        self.agreed
    }

    pub(super) fn after_sleep(self) {
        self.hooks[..self.asked].iter().for_each(|hook| hook.after_sleep());
    }
}
