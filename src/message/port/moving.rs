//! A port where memory is shared: half of a pair of mailboxes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use super::Message;
use crate::{
    channel::{Load, Pressure},
    error::{Error, ErrorKind},
    event_loop::{Mailbox, Postbox, mailbox},
    patience::Patience,
};

pub(super) struct Moving {
    out: Postbox<Message>,
    inbox: Mailbox<Message>,
    /// What the other end has not taken.
    sent: Arc<Pressure>,
    /// What this end has not taken.
    waiting: Arc<Pressure>,
    patience: Patience,
    /// This end is closed.
    gone: Arc<AtomicBool>,
    /// The other one is.
    other_gone: Arc<AtomicBool>,
}

impl Moving {
    pub(super) fn pair() -> (Self, Self) {
        let (to_one, one) = mailbox();
        let (to_other, other) = mailbox();
        let pressures = [Arc::<Pressure>::default(), Arc::default()];
        let flags = [Arc::<AtomicBool>::default(), Arc::default()];
        let end = |out, inbox, at: usize| Self {
            out,
            inbox,
            sent: pressures[at].clone(),
            waiting: pressures[1 - at].clone(),
            patience: Patience::default(),
            gone: flags[at].clone(),
            other_gone: flags[1 - at].clone(),
        };
        (end(to_other, one, 0), end(to_one, other, 1))
    }

    pub(super) fn load(&self) -> Load {
        self.sent.load()
    }

    pub(super) fn send(&self, message: Message) -> Result<(), (Error, Message)> {
        let closed = |message| {
            (Error::new(ErrorKind::Closed, "the other end of the channel is closed"), message)
        };
        if self.is_closed() {
            return Err(closed(message));
        }
        let bytes = message.bytes();
        self.sent.add(bytes);
        self.out.post(message).map_err(closed)
    }

    pub(super) fn try_next(&self) -> Option<Message> {
        self.inbox.try_next().inspect(|message| self.took(message))
    }

    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let next = match self.inbox.poll_next(cx) {
            // All that was sent was there before the other end said that it is closed.
            Poll::Pending if self.is_closed() => Poll::Ready(self.inbox.try_next()),
            next => next,
        };
        let next = ready!(next);
        Poll::Ready(next.inspect(|message| self.took(message)))
    }

    pub(super) fn wait_next(&self, deadline: Option<Instant>) -> Option<Message> {
        let at_hand = || self.inbox.try_next();
        let wait = || self.patience.wait(deadline, at_hand, || self.inbox.wait_next(deadline));
        at_hand().or_else(wait).inspect(|message| self.took(message))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.other_gone.load(SeqCst)
    }

    fn took(&self, message: &Message) {
        self.waiting.subtract(1, message.bytes());
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.gone.store(true, SeqCst);
        self.out.wake();
    }
}
