//! Ports: two ends of a channel of their own, for any two threads or processes of a cluster.
//!
//! A port belongs to one thread at a time and may move, also into a message, with what is queued in
//! it. Where memory is shared it is half of a pair of mailboxes; between processes it is one end of a
//! packet socket pair, and what nobody has read travels in the kernel's buffer.

mod coded;
mod moving;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{cell::Cell, fmt, os::fd::OwnedFd, time::Duration};

use serde::Serialize;

use self::{coded::Coded, moving::Moving};
use super::{Handle, Message, Packing, SendError, send};
use crate::{
    channel::Flow,
    clock,
    config::Memory,
    error::{Error, ErrorKind, Result},
    event_loop,
};

/// Messages received without a pause before everything else on the loop has its turn.
const MESSAGES_PER_TURN: u32 = 128;

/// One end of a channel (Node: `MessagePort`). [`Cluster::channel`](crate::Cluster::channel) and
/// [`Worker::channel`](crate::Worker::channel) make two.
///
/// It can be sent with a message to any worker, to the primary, or through another port, and takes
/// along what was sent to it and not received. Dropping it closes it: the other end receives what was
/// sent before, and then the end.
///
/// Between processes what the kernel does not take at once is carried on by a thread of this process;
/// if the process ends first, that is lost.
pub struct Port {
    way: Way,
    packing: Packing,
    /// Messages received since the loop had a turn.
    streak: Cell<u32>,
}

enum Way {
    Moving(Box<Moving>),
    Coded(Box<Coded>),
}

impl Port {
    /// The two ends of a new channel.
    pub(crate) fn pair(packing: Packing) -> Result<(Self, Self)> {
        let (one, other) = match packing.memory {
            Memory::Shared => {
                let (one, other) = Moving::pair();
                (Way::Moving(Box::new(one)), Way::Moving(Box::new(other)))
            }
            Memory::Separate => {
                let (one, other) = Coded::pair(packing)?;
                (Way::Coded(Box::new(one)), Way::Coded(Box::new(other)))
            }
        };
        let port = |way| Self { way, packing, streak: Cell::new(0) };
        Ok((port(one), port(other)))
    }

    /// A port that came from another process.
    pub(super) fn of(end: OwnedFd, packing: Packing) -> Self {
        Self { way: Way::Coded(Box::new(Coded::new(end, packing))), packing, streak: Cell::new(0) }
    }

    /// The descriptor by which the port travels.
    pub(super) fn into_descriptor(self) -> Result<OwnedFd, (Error, Self)> {
        let Self { way, packing, streak } = self;
        let (error, way) = match way {
            Way::Coded(coded) => match coded.into_descriptor() {
                Ok(descriptor) => return Ok(descriptor),
                Err((error, coded)) => (error, Way::Coded(coded)),
            },
            way @ Way::Moving(_) => {
                let text = "a port between threads cannot be sent to a process; make the channel in the cluster of processes";
                (Error::new(ErrorKind::Protocol, text), way)
            }
        };
        Err((error, Self { way, packing, streak }))
    }

    /// Sends a message to the other end (Node: `port.postMessage`): behind all that were sent before.
    /// The value is what it is now; later changes do not show.
    ///
    /// [`Flow::Slow`] says that much is under way; the message was queued all the same.
    ///
    /// # Errors
    ///
    /// The value comes back in the error: [`ErrorKind::Closed`] when the other end is closed (Node
    /// drops the message silently), [`ErrorKind::Full`] when too much is under way,
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Codec`] when the value cannot be sent to a process.
    pub fn send<T: Serialize + Send + 'static>(&self, value: T) -> Result<Flow, SendError<T>> {
        self.post(value, None)
    }

    /// [`send`](Self::send) with a socket, a listener or another port (Node: the transfer list).
    ///
    /// # Errors
    ///
    /// As `send`; the handle comes back, too. [`ErrorKind::Io`] for a port that cannot travel now: it
    /// has sent what has not left, or received part of a message.
    pub fn send_with<T: Serialize + Send + 'static>(
        &self,
        value: T,
        handle: impl Into<Handle>,
    ) -> Result<Flow, SendError<T>> {
        self.post(value, Some(handle.into()))
    }

    fn post<T: Serialize + Send + 'static>(
        &self,
        value: T,
        handle: Option<Handle>,
    ) -> Result<Flow, SendError<T>> {
        match &self.way {
            Way::Moving(moving) => {
                send(value, handle, self.packing, moving.load(), |message| moving.send(message))
            }
            Way::Coded(coded) => {
                send(value, handle, self.packing, coded.load(), |message| coded.send(message))
            }
        }
    }

    /// The next message; `None` once the other end is closed and everything was received. At most one
    /// task waits: the last.
    ///
    /// # Panics
    ///
    /// Between processes, when the thread has no current event loop; there, use
    /// [`recv_timeout`](Self::recv_timeout).
    pub async fn recv(&self) -> Option<Message> {
        if self.streak.get() >= MESSAGES_PER_TURN {
            self.streak.set(0);
            event_loop::yield_now().await;
        }
        if let Some(message) = self.try_recv() {
            self.streak.set(self.streak.get() + 1);
            return Some(message);
        }
        self.streak.set(0);
        match &self.way {
            Way::Moving(moving) => std::future::poll_fn(|cx| moving.poll_next(cx)).await,
            Way::Coded(coded) => coded.next().await,
        }
    }

    /// The next message, if one is there (Node: `receiveMessageOnPort`).
    #[must_use]
    pub fn try_recv(&self) -> Option<Message> {
        match &self.way {
            Way::Moving(moving) => moving.try_next(),
            Way::Coded(coded) => coded.try_next(),
        }
    }

    /// The next message, if it comes within this time; blocks this thread. `None` also when the other
    /// end is closed and everything was received. Not on an event loop: there, await
    /// [`recv`](Self::recv).
    #[must_use]
    pub fn recv_timeout(&self, limit: Duration) -> Option<Message> {
        let deadline = clock::now().checked_add(limit);
        match &self.way {
            Way::Moving(moving) => moving.wait_next(deadline),
            Way::Coded(coded) => coded.wait_next(deadline),
        }
    }

    /// Whether the other end is closed. What it had sent before may still be waiting.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.way {
            Way::Moving(moving) => moving.is_closed(),
            Way::Coded(coded) => coded.is_closed(),
        }
    }

    /// Closes this end, as dropping it does (Node: `port.close`).
    pub fn close(self) {}
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}
