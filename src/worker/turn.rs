//! Taking from a socket that several loops take from: how much per turn.

use std::{future::Future as _, pin::pin, task::Context, time::Instant};

use crate::event_loop;

/// How much was taken in the current turn of the loop.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    at: Option<Instant>,
    taken: u32,
}

impl Turn {
    /// Whether one more may be taken in this turn, of so many. A turn is known by its cached time.
    pub(super) fn take_one(&mut self, most: u32) -> bool {
        let now = event_loop::now();
        if self.at != Some(now) {
            *self = Self { at: Some(now), taken: 0 };
        }
        if self.taken == most {
            return false;
        }
        self.taken += 1;
        true
    }

    pub(super) fn give_back(&mut self) {
        self.taken -= 1;
    }
}

/// Comes back by itself: a socket that was left before it said `EAGAIN` makes no new edge.
pub(super) fn wake_next_turn(cx: &mut Context<'_>) {
    // Its first poll is always pending and leaves the waker with the loop.
    let _ = pin!(event_loop::yield_now()).poll(cx);
}
