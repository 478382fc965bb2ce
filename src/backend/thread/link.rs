//! The channel between the primary and a worker thread: both ends move values, none copies.
//!
//! [`Near`] stays on the primary's thread, [`Far`] goes to the worker's.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
};

use crossbeam_utils::CachePadded;

use crate::{
    accept::Offer,
    channel::{Credit, Load, Receipt},
    config::Memory,
    error::{Error, ErrorKind, Result},
    event_loop::{Mailbox, Postbox},
    id::WorkerId,
    message::Message,
    worker::{Arrival, Command, Ended, Line, Link, Note},
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

/// Makes the two ends for a worker, whose mailbox is its line's.
pub(super) fn pair(worker: WorkerId, line: &Line, up: Postbox<Up>) -> Result<(Near, Far)> {
    let (post, inbox) = line.mailbox()?;
    let killed = Arc::new(AtomicBool::new(false));
    let under_way = Arc::<CachePadded<AtomicUsize>>::default();
    let near =
        Near { post, inbox: inbox.clone(), killed: killed.clone(), under_way: under_way.clone() };
    Ok((
        near,
        Far {
            worker,
            inbox,
            up,
            line: line.clone(),
            credit: RefCell::default(),
            killed,
            under_way,
        },
    ))
}

/// The primary's end.
pub(super) struct Near {
    post: Postbox<Command>,
    /// To get back what the worker never took, also from a thread that is stuck.
    inbox: Mailbox<Command>,
    killed: Arc<AtomicBool>,
    under_way: Arc<CachePadded<AtomicUsize>>,
}

impl Near {
    /// The primary has acted on a note of the worker's.
    pub(super) fn acted(&self) {
        self.under_way.fetch_sub(1, SeqCst);
    }

    pub(super) fn post(&self, command: Command) {
        // This end holds the mailbox too, so it is never gone.
        let _ = self.post.post(command);
    }

    pub(super) fn kill(&self) {
        self.killed.store(true, Relaxed);
        self.post.wake();
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
    line: Line,
    credit: RefCell<Credit>,
    killed: Arc<AtomicBool>,
    /// Notes on which the primary has not acted. While there are none, a message that goes straight to
    /// the program overtakes nothing.
    under_way: Arc<CachePadded<AtomicUsize>>,
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
        self.under_way.fetch_add(1, SeqCst);
        self.up.post(Up::Note { worker: self.worker, note }).map_err(|_| gone())
    }

    fn send_message(&self, message: Message) -> Result<(), (Error, Message)> {
        if self.under_way.load(SeqCst) == 0 && message.topic().is_none() {
            return self.line.deliver(message).map_err(|message| (gone(), message));
        }
        let bytes = message.bytes();
        self.line.upward().add(bytes);
        self.under_way.fetch_add(1, SeqCst);
        let note = Note::Message(message);
        match self.up.post(Up::Note { worker: self.worker, note }) {
            Err(Up::Note { note: Note::Message(message), .. }) => {
                self.line.upward().subtract(1, bytes);
                Err((gone(), message))
            }
            // What is refused is what was posted.
            _ => Ok(()),
        }
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
        let due = self.credit.borrow_mut().take(bytes);
        if let Some(Load { messages, bytes }) = due {
            self.line.pressure().subtract(messages, bytes);
        }
    }

    fn load(&self) -> Load {
        self.line.upward().load()
    }

    fn track(&self) -> Receipt {
        Receipt::sent()
    }

    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the primary is gone")
}
