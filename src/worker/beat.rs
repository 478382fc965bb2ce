//! The worker's sign of life: each turn of its loop leaves its counters on the stats page.

use std::rc::Rc;

use crate::{
    event_loop::{self, HookGuard, SleepHook},
    shared::SlotMeter,
};

/// Beats on the current loop until the guard is dropped.
pub(super) fn start(meter: &SlotMeter) -> HookGuard {
    event_loop::on_sleep(Rc::new(Beat { meter: meter.clone() }))
}

struct Beat {
    meter: SlotMeter,
}

impl Beat {
    fn beat(&self) {
        let stats = event_loop::current_stats();
        self.meter.beat(stats.busy.as_nanos() as u64, stats.idle.as_nanos() as u64);
    }
}

impl SleepHook for Beat {
    fn before_sleep(&self) -> bool {
        self.beat();
        true
    }

    fn after_sleep(&self) {}

    fn pass_by(&self) {
        self.beat();
    }
}
