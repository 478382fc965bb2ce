//! What the primary and a worker say to each other, and the worker's end of it.
//!
//! Both directions are ordered. A backend carries these values to its workers: by moving them, or as
//! frames and descriptors.

use std::task::{Context, Poll};

use crate::{
    accept::{Grant, Offer, Wanted},
    channel::{Load, Receipt},
    config::Memory,
    error::{Error, Result},
    id::{ConnectionId, ListenerId},
    message::Message,
};

/// From the primary to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// A message of the user's.
    Message(Message),
    /// A connection to adopt or refuse.
    Offer(Offer),
    /// A listen that worked.
    Granted { request: u32, grant: Grant },
    /// A listen that did not.
    Denied { request: u32, denial: Denial },
    /// Drain and leave. Nothing is offered afterwards.
    Disconnect,
    /// End now, in good order: what is open is cut.
    Close,
    /// The cluster is about to stop: nobody should send new clients here.
    Unready,
    /// A connection may wait in the kernel that no worker was woken for.
    Look { listener: ListenerId },
}

/// Why an address cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The operating system's error number, if it refused.
    pub(crate) errno: Option<i32>,
    pub(crate) text: String,
}

/// From a worker to the primary.
#[derive(Debug)]
pub(crate) enum Note {
    /// The worker's body is about to run.
    Online,
    /// The worker says itself that it is ready.
    Ready,
    /// Please open this for me; the answer repeats `request`.
    Listen { request: u32, wanted: Wanted },
    /// The worker is ready for connections of this listener.
    Listening { listener: ListenerId },
    /// The worker wants no more connections of this listener.
    Unlisten { listener: ListenerId },
    /// The worker waits no more for now, and a connection may wait that it was woken for. With a number, because
    /// accepting fails with that error.
    Left { listener: ListenerId, errno: Option<i32> },
    /// The worker can adopt so many connections now, those under way to it included; without a
    /// number, any number.
    Room { listener: ListenerId, connections: Option<u32> },
    /// These connections are the worker's now.
    Adopted { listener: ListenerId, ids: Vec<ConnectionId> },
    /// This connection was not touched; give it to somebody else.
    Refused(Offer),
    /// The worker starts to drain by itself: by its own wish if `voluntary`, else because a signal
    /// told it to.
    Leaving { voluntary: bool },
    /// A message of the user's.
    Message(Message),
    /// The worker has members of this broadcast name from now on.
    Join { topic: String },
    /// It has none any more.
    Leave { topic: String },
    /// The worker's body has ended; the error is why it failed, if it did.
    Finished { failure: Option<Error> },
}

/// What a worker's link brings.
#[derive(Debug)]
pub(crate) enum Arrival {
    Command(Command),
    /// End now, whatever is open.
    Kill,
    /// A signal asked this worker to drain.
    Terminate,
    /// The primary is gone.
    Gone,
}

/// A worker's end of the channel to its primary.
pub(crate) trait Link {
    /// Whether it shares its memory with the primary.
    fn memory(&self) -> Memory;
    /// Queues a note behind those before it. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed): the primary is gone.
    fn send(&self, note: Note) -> Result<()>;
    /// Queues a message behind everything that was sent before. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed): the primary is gone; or the handle cannot be sent. The
    /// message is given back.
    fn send_message(&self, message: Message) -> Result<(), (Error, Message)>;
    /// What comes next from the primary. Kill overtakes everything.
    fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<Arrival>;
    /// The body took a message of this many bytes: the sender may send more.
    fn taken(&self, bytes: usize);
    /// What was sent and the program has not taken yet, as far as is known.
    fn load(&self) -> Load;
    /// A receipt for everything that was sent so far.
    fn track(&self) -> Receipt;
    /// Ready when everything that was sent has left this worker, or never can.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()>;
}
