//! The worker's sign of life: each turn of its loop leaves its counters on the stats page. What the loop
//! is doing since, readers work out from whether it sleeps.
//!
//! A timer sees to it that a loop without work turns often enough: a process that was stopped cannot be
//! told otherwise from one that has nothing to do.

use std::{rc::Rc, time::Duration};

use crate::{
    event_loop::{self, HookGuard, JoinHandle, SleepHook},
    shared::SlotMeter,
};

/// Beats on the current loop, at least as often as was asked for, until it is dropped.
pub(super) struct Beating {
    _hook: HookGuard,
    _timer: Option<JoinHandle<()>>,
}

pub(super) fn start(meter: &SlotMeter, at_least: Option<Duration>) -> Beating {
    let beat = Beat { meter: meter.clone() };
    let (busy_ns, idle_ns) = beat.times();
    meter.begin(busy_ns, idle_ns);
    let timer = at_least.map(|time| event_loop::spawn(wake_every(time)));
    Beating { _hook: event_loop::on_sleep(Rc::new(beat)), _timer: timer }
}

/// To wake is enough: the turn beats by itself.
async fn wake_every(time: Duration) {
    loop {
        event_loop::sleep(time).await;
    }
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
        self.meter.clock_seen(event_loop::clock_seen());
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
