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

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::Command;
use crate::{
    channel::{Credit, Load, Outlet, Pressure, Receipt},
    config::Memory,
    error::{Error, ErrorKind, Result},
    event_loop::{Mailbox, Postbox, mailbox},
    message::{self, Message, Packing},
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
    /// What the program took since the worker could last see it.
    credit: Arc<CachePadded<Mutex<Credit>>>,
    program: Arc<CachePadded<Mutex<Option<Program>>>>,
}

/// Gives a message to the program, or gives it back when the cluster has ended.
pub(crate) type Program = Box<dyn FnMut(Message) -> Result<(), Message> + Send>;

#[derive(Clone)]
enum Way {
    /// Straight into the worker's mailbox.
    Moving(Arc<Moving>),
    Coded(Outlet),
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
            Memory::Separate => Way::Coded(Outlet::default()),
        };
        let (pressure, upward, credit, program) = Default::default();
        Self { way, packing, pressure, upward, credit, program }
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
            Way::Coded(outlet) => message::post(message, outlet, self.packing, under_way),
        };
        sent.inspect_err(|_| self.pressure.subtract(1, bytes))
    }

    /// A receipt for everything that was sent so far.
    pub(crate) fn track(&self) -> Receipt {
        match &self.way {
            Way::Moving(_) => Receipt::sent(),
            Way::Coded(outlet) => outlet.track(),
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
        let due = self.credit.lock().take(bytes);
        let Some(due) = due else { return };
        self.upward.subtract(due.messages, due.bytes);
        if let Way::Coded(outlet) = &self.way {
            outlet.send(due.taken());
        }
    }

    /// The worker is gone: nothing is sent any more, in neither direction, and what it did not take is
    /// dropped.
    pub(crate) fn close(&self) {
        let program = self.program.lock().take();
        drop(program);
        match &self.way {
            Way::Moving(moving) => moving.close(),
            Way::Coded(outlet) => outlet.close(),
        }
    }

    /// Says how the program is given messages without the primary's thread.
    pub(crate) fn open_to(&self, program: Program) {
        *self.program.lock() = Some(program);
    }

    /// Gives a message to the program from the worker's own thread. The worker's order is the caller's
    /// affair; after [`close`](Self::close) nothing gets through.
    pub(crate) fn deliver(&self, message: Message) -> Result<(), Message> {
        let bytes = message.bytes();
        self.upward.add(bytes);
        let delivered = match &mut *self.program.lock() {
            Some(program) => program(message),
            None => Err(message),
        };
        delivered.inspect_err(|_| self.upward.subtract(1, bytes))
    }

    /// For a backend whose workers share this memory: both ends of the worker's mailbox.
    ///
    /// # Errors
    ///
    /// The line was made for another one.
    pub(crate) fn mailbox(&self) -> Result<(Postbox<Command>, Mailbox<Command>)> {
        match &self.way {
            Way::Moving(moving) => Ok((moving.post.clone(), moving.inbox.clone())),
            Way::Coded(_) => Err(foreign()),
        }
    }

    /// For a backend whose workers do not: the outlet, which it opens.
    ///
    /// # Errors
    ///
    /// The line was made for another one.
    pub(crate) fn outlet(&self) -> Result<Outlet> {
        match &self.way {
            Way::Coded(outlet) => Ok(outlet.clone()),
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
