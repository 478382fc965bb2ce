//! What runs on a worker thread, from its first instruction to its last.
//!
//! A panic of the worker's body is caught below, in [`worker::run`]; nothing of the user's runs outside
//! of it.

use std::{rc::Rc, sync::Arc};

use super::link::Far;
use crate::{
    backend::cores,
    error::{Error, ErrorKind},
    event_loop::EventLoop,
    shared::{SlotMeter, StatsPage},
    sys::thread,
    worker::{self, Body, Ended, Given, Identity, Link as _, Note},
};

pub(super) fn run(identity: Identity, given: Given, far: Far, stats: Arc<StatsPage>, body: &Body) {
    thread::show_as(&format!("bimodal-w-{}", identity.worker));
    thread::leave_signals_to_others();
    cores::pin(&identity);
    let ended = live(identity, given, &far, stats, body);
    far.ended(ended);
}

fn live(identity: Identity, given: Given, far: &Far, stats: Arc<StatsPage>, body: &Body) -> Ended {
    let mut event_loop = match EventLoop::new() {
        Ok(event_loop) => event_loop,
        Err(error) => {
            let failure = Error::caused(ErrorKind::Start, "cannot make an event loop", error);
            // If the primary is gone, nobody needs the reason.
            let _ = far.send(Note::Finished { failure: Some(failure) });
            return Ended::Code(1);
        }
    };
    let meter = SlotMeter::new(stats, identity.slot, thread::own_clock());
    worker::run(&mut event_loop, identity, given, Rc::new(far.clone()), meter, body)
}
