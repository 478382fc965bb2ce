//! What runs on a worker thread, from its first instruction to its last.
//!
//! A panic of the worker's body is caught below, in [`worker::run`]; nothing of the user's runs outside
//! of it.

use std::{rc::Rc, sync::Arc};

use core_affinity::CoreId;

use super::link::Far;
use crate::{
    event_loop::EventLoop,
    shared::{SlotMeter, StatsPage},
    worker::{self, Body, Ended, Identity, Link as _, Note},
};

pub(super) fn run(
    identity: Identity,
    far: Far,
    core: Option<CoreId>,
    stats: Arc<StatsPage>,
    body: &Body,
) {
    if let Some(core) = core
        && !core_affinity::set_for_current(core)
    {
        log::warn!("worker {} is not pinned: core {} is not available", identity.worker, core.id);
    }
    let ended = live(identity, &far, stats, body);
    far.ended(ended);
}

fn live(identity: Identity, far: &Far, stats: Arc<StatsPage>, body: &Body) -> Ended {
    let mut event_loop = match EventLoop::new() {
        Ok(event_loop) => event_loop,
        Err(error) => {
            let failure = Some(format!("cannot make an event loop: {error}"));
            // If the primary is gone, nobody needs the reason.
            let _ = far.send(Note::Finished { failure });
            return Ended::Code(1);
        }
    };
    let meter = SlotMeter::new(stats, identity.slot);
    worker::run(&mut event_loop, identity, Rc::new(far.clone()), meter, body)
}
