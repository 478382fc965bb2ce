//! Which core a worker is pinned to: the same rule in both modes.
//!
//! The primary chooses, when the cluster starts and for each worker; the worker pins itself, before anything of the
//! user's runs.

use core_affinity::CoreId;

use crate::worker::Identity;

/// Where `cpu_set_t` ends (`CPU_SET(3)`): trying to pin to a core beyond would end the process.
const LIMIT: usize = 1024;

/// The cores that workers are pinned to; none if none is.
#[derive(Clone, Debug)]
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// Those that the calling thread may use, if workers are pinned.
    pub(crate) fn usable(pinned: bool) -> Self {
        let all = if pinned { core_affinity::get_core_ids() } else { None };
        let all = all.unwrap_or_default().into_iter().map(|core| core.id);
        Self(all.filter(|core| *core < LIMIT).collect())
    }

    /// The one of the worker in this place.
    pub(crate) fn of(&self, place: usize) -> Option<usize> {
        let index = place.checked_rem(self.0.len())?;
        self.0.get(index).copied()
    }

    /// Those without a loop, of so many.
    pub(crate) fn without(&self, loops: usize) -> Vec<usize> {
        self.0.iter().skip(loops).copied().collect()
    }
}

/// Pins the calling thread, which is this worker's, and what it will start.
pub(crate) fn pin(identity: &Identity) {
    let Some(core) = identity.core else { return };
    if core >= LIMIT || !core_affinity::set_for_current(CoreId { id: core }) {
        log::warn!("worker {} is not pinned: core {core} is not available", identity.worker);
    }
}
