//! The worker's sign of life: each turn of its loop leaves its counters on the stats page. What the loop
//! is doing since, readers work out from whether it sleeps.

use std::rc::Rc;

use crate::{
    event_loop::{self, HookGuard, SleepHook},
    shared::SlotMeter,
};

/// Beats on the current loop until the guard is dropped.
pub(super) fn start(meter: &SlotMeter) -> HookGuard {
    let beat = Beat { meter: meter.clone() };
    let (busy_ns, idle_ns) = beat.times();
    meter.begin(busy_ns, idle_ns);
    event_loop::on_sleep(Rc::new(beat))
}

struct Beat {
    meter: SlotMeter,
}

impl Beat {
    fn times(&self) -> (u64, u64) {
        let stats = event_loop::current_stats();
        (stats.busy.as_nanos() as u64, stats.idle.as_nanos() as u64)
    }

    fn beat(&self) {
        let (busy_ns, idle_ns) = self.times();
        self.meter.beat(busy_ns, idle_ns);
    }
}

impl SleepHook for Beat {
    fn before_sleep(&self) -> bool {
        self.beat();
        self.meter.falls_asleep();
        true
    }

    fn after_sleep(&self) {
        self.meter.wakes_up(self.times().1);
    }

    fn pass_by(&self) {
        self.beat();
    }
}
