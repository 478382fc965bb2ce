//! Where one connection stands: which part of which request it is in, and since when.
//!
//! Shared by the four parts of a connection that see only their own side of it: the I/O (what was
//! received), the service (what was asked and answered), the answer's body (when it ended) and the
//! task that watches the clock. All of them run on the loop's thread.
//!
//! ```text
//! Idle -> Head -> Body -> Answering -> Idle        a request without a body skips Body; an answer
//!                    \_________________^           that ends before the request's body skips Answering
//! ```

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    framing::{Chunks, Head},
    hub::Hub,
    limits::Limits,
};
use crate::{accept::Count, event_loop};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of a request was received.
    Idle,
    /// Part of a head, or a whole one that the service was not yet called with.
    Head,
    /// The service has the request; its body is still coming.
    Body,
    /// The request was received in full; the answer was not given in full.
    Answering,
}

/// How old a connection without a request must be for a drain to end it: its first request may be on its
/// way, and nobody would send it again.
const FRESH: Duration = Duration::from_secs(1);

/// The same for a connection that was used, since its last answer: in use, it goes on until the next one.
const QUIET: Duration = Duration::from_millis(250);

/// How the rest of a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked(Chunks),
    /// The request is refused: where it ends does not matter any more.
    Refused,
}

pub(super) struct Exchange {
    pub(super) hub: Rc<Hub>,
    meter: Option<Rc<dyn Count>>,
    phase: Cell<Phase>,
    /// In `Idle`, when that began or the last answer moved; after it, when the request began.
    since: Cell<Instant>,
    /// When the first byte of the request came.
    asked: Cell<Instant>,
    /// No request was received on this connection yet.
    fresh: Cell<bool>,
    framing: Cell<Framing>,
    /// What the head says that was received and not yet taken.
    head: Cell<Head>,
    /// The answer's head is given to hyper; the answer's body has ended.
    answer_begun: Cell<bool>,
    answer_ended: Cell<bool>,
    /// The kernel takes no more of the answer since then.
    stalled: Cell<Option<Instant>>,
    timed_out: Cell<bool>,
    /// Bytes were received that no request has taken.
    surplus: Cell<bool>,
    peer_ended: Cell<bool>,
    /// A drain ends the connection as soon as what was answered is sent.
    finishing: Cell<bool>,
}

impl Exchange {
    pub(super) fn new(hub: Rc<Hub>, meter: Option<Rc<dyn Count>>) -> Self {
        Self {
            hub,
            meter,
            phase: Cell::new(Phase::Idle),
            since: Cell::new(event_loop::now()),
            asked: Cell::new(event_loop::now()),
            fresh: Cell::new(true),
            framing: Cell::new(Framing::Refused),
            head: Cell::default(),
            answer_begun: Cell::new(false),
            answer_ended: Cell::new(false),
            stalled: Cell::new(None),
            timed_out: Cell::new(false),
            surplus: Cell::new(false),
            peer_ended: Cell::new(false),
            finishing: Cell::new(false),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.hub.limits
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    // What the I/O tells.

    /// The first byte of a request came.
    pub(super) fn head_begins(&self) {
        if self.phase.replace(Phase::Head) != Phase::Idle {
            return;
        }
        self.asked.set(event_loop::now());
        if !self.fresh.replace(false) {
            self.since.set(self.asked.get());
        }
    }

    /// The last byte of its head came.
    pub(super) fn head_ends(&self, head: Head) {
        self.head_begins();
        self.head.set(head);
    }

    /// How many of `bytes` belong to the request's body.
    pub(super) fn body_takes(&self, bytes: &[u8]) -> usize {
        let mut framing = self.framing.get();
        let (taken, ended) = match &mut framing {
            Framing::Length(left) => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                (taken as usize, *left == 0)
            }
            Framing::Chunked(chunks) => (chunks.take(bytes), *chunks == Chunks::Done),
            Framing::Refused => (bytes.len(), false),
        };
        self.framing.set(framing);
        if ended {
            self.phase.set(Phase::Answering);
            self.settle();
        }
        taken
    }

    pub(super) fn set_surplus(&self, surplus: bool) {
        self.surplus.set(surplus);
    }

    pub(super) fn peer_ended(&self) {
        self.peer_ended.set(true);
    }

    pub(super) fn write_moved(&self) {
        self.stalled.set(None);
        if self.phase.get() == Phase::Idle {
            self.since.set(event_loop::now());
        }
    }

    pub(super) fn write_stalled(&self) {
        if self.stalled.get().is_none() {
            self.stalled.set(Some(event_loop::now()));
        }
    }

    // What the service and the answer tell.

    /// What the head says that hyper just parsed. Once: a head that was not seen here says nothing.
    pub(super) fn take_head(&self) -> Head {
        self.head.take()
    }

    /// The service is called, or the request is refused.
    pub(super) fn request_begins(&self, framing: Framing) {
        self.answer_begun.set(false);
        self.answer_ended.set(false);
        self.framing.set(framing);
        self.phase.set(if framing == Framing::Length(0) { Phase::Answering } else { Phase::Body });
    }

    pub(super) fn answer_begins(&self) {
        self.answer_begun.set(true);
        if let Some(meter) = &self.meter {
            meter.request();
        }
    }

    pub(super) fn answer_ends(&self) {
        let was_ended = self.answer_ended.replace(true);
        if let Some(meter) = self.meter.as_ref().filter(|_| !was_ended) {
            meter.answered(self.asked.get());
        }
        self.settle();
    }

    fn settle(&self) {
        if self.phase.get() == Phase::Answering && self.answer_ended.get() {
            self.phase.set(Phase::Idle);
            self.since.set(event_loop::now());
        }
    }

    // What the connection's task asks.

    /// Patience ended between two requests of a connection that a drain is to end. Whether that is news.
    pub(super) fn finishes(&self) -> bool {
        let is_between_requests = self.phase.get() == Phase::Idle && !self.fresh.get();
        self.hub.is_draining() && is_between_requests && !self.finishing.replace(true)
    }

    /// Since when the kernel takes no more of an answer: the rest of it is still here.
    pub(super) fn stalled(&self) -> Option<Instant> {
        self.stalled.get()
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled().is_some()
    }

    /// When patience ends, if the other side is what we wait for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limits = self.limits();
        let since = self.since.get();
        match self.phase.get() {
            Phase::Idle => since.checked_add(self.idle_time()),
            Phase::Head => since.checked_add(limits.header_timeout),
            Phase::Body => since.checked_add(limits.request_timeout),
            Phase::Answering => self.stalled.get()?.checked_add(limits.keep_alive_timeout),
        }
    }

    fn idle_time(&self) -> Duration {
        let Limits { header_timeout, keep_alive_timeout, .. } = *self.limits();
        let (time, when_draining) =
            if self.fresh.get() { (header_timeout, FRESH) } else { (keep_alive_timeout, QUIET) };
        let is_leaving = self.hub.is_draining() && !self.finishing.get();
        if is_leaving { time.min(when_draining) } else { time }
    }

    /// Patience ended; whether the service's future can still answer 408.
    pub(super) fn expire(&self) -> bool {
        let first = !self.timed_out.replace(true);
        first && self.phase.get() == Phase::Body && !self.answer_begun.get()
    }

    pub(super) fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// Whether closing now could reset the connection under an answer: bytes are, or may be,
    /// underway that nobody will read.
    pub(super) fn must_linger(&self) -> bool {
        let unread = self.surplus.get() || matches!(self.phase.get(), Phase::Head | Phase::Body);
        unread && !self.peer_ended.get()
    }
}
