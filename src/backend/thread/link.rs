//! The channel between the primary and a worker thread: both ends move values, none copies.
//!
//! [`Near`] stays on the primary's thread, [`Far`] goes to the worker's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use crate::{
    accept::Offer,
    config::Memory,
    error::{Error, ErrorKind, Result},
    event_loop::{Mailbox, Postbox, mailbox},
    id::WorkerId,
    worker::{Arrival, Command, Ended, Link, Load, Note, Pressure},
};

/// From a worker thread to the primary; all workers share one mailbox.
pub(super) enum Up {
    Note {
        worker: WorkerId,
        note: Note,
    },
    /// The worker's thread is about to return.
    Ended {
        worker: WorkerId,
        ended: Ended,
    },
}

/// Makes the two ends for a worker.
pub(super) fn pair(worker: WorkerId, pressure: Arc<Pressure>, up: Postbox<Up>) -> (Near, Far) {
    let (post, inbox) = mailbox();
    let (upward, killed) = (Arc::new(Pressure::default()), Arc::new(AtomicBool::new(false)));
    let near = Near { post, inbox: inbox.clone(), upward: upward.clone(), killed: killed.clone() };
    (near, Far { worker, inbox, up, pressure, upward, killed })
}

/// The primary's end.
pub(super) struct Near {
    post: Postbox<Command>,
    /// To get back what the worker never took, also from a thread that is stuck.
    inbox: Mailbox<Command>,
    upward: Arc<Pressure>,
    killed: Arc<AtomicBool>,
}

impl Near {
    pub(super) fn post(&self, command: Command) {
        // This end holds the mailbox too, so it is never gone.
        let _ = self.post.post(command);
    }

    pub(super) fn kill(&self) {
        self.killed.store(true, Relaxed);
        self.post.wake();
    }

    /// A message of the worker's arrived.
    pub(super) fn took(&self, bytes: usize) {
        self.upward.subtract(1, bytes);
    }

    /// The offers that the worker did not take. Only for a worker that will take nothing any more.
    pub(super) fn unseen_offers(&self) -> Vec<Offer> {
        let commands = std::iter::from_fn(|| self.inbox.try_next());
        let offers = commands.filter_map(|command| match command {
            Command::Offer(offer) => Some(offer),
            _ => None,
        });
        offers.collect()
    }
}

/// The worker's end.
#[derive(Clone)]
pub(super) struct Far {
    worker: WorkerId,
    inbox: Mailbox<Command>,
    up: Postbox<Up>,
    pressure: Arc<Pressure>,
    upward: Arc<Pressure>,
    killed: Arc<AtomicBool>,
}

impl Far {
    /// Says the last word. If the primary is gone, nobody needs it.
    pub(super) fn ended(&self, ended: Ended) {
        let _ = self.up.post(Up::Ended { worker: self.worker, ended });
    }
}

impl Link for Far {
    fn memory(&self) -> Memory {
        Memory::Shared
    }

    fn send(&self, note: Note) -> Result<()> {
        if let Note::Message(message) = &note {
            self.upward.add(message.bytes());
        }
        let posted = self.up.post(Up::Note { worker: self.worker, note });
        posted.map_err(|_| Error::new(ErrorKind::Closed, "the primary is gone"))
    }

    fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<Arrival> {
        if self.killed.load(Relaxed) {
            return Poll::Ready(Arrival::Kill);
        }
        let next = self.inbox.poll_next(cx);
        // The mailbox has the waker now, and a kill that came before would not use it.
        if next.is_pending() && self.killed.load(Relaxed) {
            return Poll::Ready(Arrival::Kill);
        }
        next.map(|command| command.map_or(Arrival::Gone, Arrival::Command))
    }

    fn taken(&self, bytes: usize) {
        self.pressure.subtract(1, bytes);
    }

    fn load(&self) -> Load {
        self.upward.load()
    }

    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
