//! The way from any thread of the primary to one worker.
//!
//! Made with the worker's handle, before the worker is: what is sent early waits here. The backend
//! takes its own end of it when it starts the worker. Sending does not ask the primary's thread.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;

use super::Command;
use crate::{
    channel::{Credit, Load, Outlet, Pressure, Receipt},
    config::Memory,
    error::{Error, ErrorKind, Result},
    event_loop::{Mailbox, Postbox, mailbox},
    message::{self, Message, Packing},
    wire::Frame,
};

/// Cheap to clone; all clones are the same line.
#[derive(Clone)]
pub(crate) struct Line {
    way: Way,
    packing: Packing,
    /// Messages to the worker that its body has not taken.
    pressure: Arc<Pressure>,
    /// Messages from the worker that the program has not taken.
    upward: Arc<Pressure>,
}

#[derive(Clone)]
enum Way {
    /// Straight into the worker's mailbox.
    Moving(Arc<Moving>),
    Coded {
        outlet: Outlet,
        credit: Arc<Mutex<Credit>>,
    },
}

struct Moving {
    post: Postbox<Command>,
    inbox: Mailbox<Command>,
    closed: AtomicBool,
}

impl Line {
    pub(crate) fn new(packing: Packing) -> Self {
        let way = match packing.memory {
            Memory::Shared => {
                let (post, inbox) = mailbox();
                Way::Moving(Arc::new(Moving { post, inbox, closed: AtomicBool::new(false) }))
            }
            Memory::Separate => Way::Coded { outlet: Outlet::default(), credit: Arc::default() },
        };
        Self { way, packing, pressure: Arc::default(), upward: Arc::default() }
    }

    /// Sends a message behind everything that was sent before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]: the worker is gone; or the handle cannot be sent. The message is given
    /// back.
    pub(crate) fn send(&self, message: Message) -> Result<(), (Error, Message)> {
        let bytes = message.bytes();
        let under_way = self.pressure.load().messages;
        self.pressure.add(bytes);
        let sent = match &self.way {
            Way::Moving(moving) => moving.send(message),
            Way::Coded { outlet, .. } => message::post(message, outlet, self.packing, under_way),
        };
        sent.inspect_err(|_| self.pressure.subtract(1, bytes))
    }

    /// A receipt for everything that was sent so far.
    pub(crate) fn track(&self) -> Receipt {
        match &self.way {
            Way::Moving(_) => Receipt::sent(),
            Way::Coded { outlet, .. } => outlet.track(),
        }
    }

    /// Messages to the worker that its body has not taken.
    pub(crate) fn load(&self) -> Load {
        self.pressure.load()
    }

    pub(crate) fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    /// Messages from the worker that the program has not taken.
    pub(crate) fn upward(&self) -> &Arc<Pressure> {
        &self.upward
    }

    /// The program took a message of this many bytes: the worker may send more.
    pub(crate) fn took(&self, bytes: usize) {
        self.upward.subtract(1, bytes);
        let Way::Coded { outlet, credit } = &self.way else { return };
        let due = credit.lock().take(bytes);
        if let Some(Load { messages, bytes }) = due {
            let messages = u32::try_from(messages).unwrap_or(u32::MAX);
            outlet.send(Frame::Taken { messages, bytes: bytes as u64 });
        }
    }

    /// The worker is gone: nothing is sent any more, and what it did not take is dropped.
    pub(crate) fn close(&self) {
        match &self.way {
            Way::Moving(moving) => moving.close(),
            Way::Coded { outlet, .. } => outlet.close(),
        }
    }

    /// For a backend whose workers share this memory: both ends of the worker's mailbox.
    ///
    /// # Errors
    ///
    /// The line was made for another one.
    pub(crate) fn mailbox(&self) -> Result<(Postbox<Command>, Mailbox<Command>)> {
        match &self.way {
            Way::Moving(moving) => Ok((moving.post.clone(), moving.inbox.clone())),
            Way::Coded { .. } => Err(foreign()),
        }
    }

    /// For a backend whose workers do not: the outlet, which it opens.
    ///
    /// # Errors
    ///
    /// The line was made for another one.
    pub(crate) fn outlet(&self) -> Result<Outlet> {
        match &self.way {
            Way::Coded { outlet, .. } => Ok(outlet.clone()),
            Way::Moving(_) => Err(foreign()),
        }
    }
}

impl Moving {
    fn send(&self, message: Message) -> Result<(), (Error, Message)> {
        if self.closed.load(SeqCst) {
            return Err((Error::new(ErrorKind::Closed, "the worker is gone"), message));
        }
        // This end holds the mailbox too, so it is never gone.
        let _ = self.post.post(Command::Message(message));
        if self.closed.load(SeqCst) {
            self.close();
        }
        Ok(())
    }

    fn close(&self) {
        self.closed.store(true, SeqCst);
        while self.inbox.try_next().is_some() {}
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Start, "the worker's line is of another kind than its backend")
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("load", &self.load()).finish_non_exhaustive()
    }
}
