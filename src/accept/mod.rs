//! Connections and where they come from.
//!
//! Runs on the event loop of the thread that serves. Owns the type of an accepted stream and the two
//! narrow traits around it: where connections come from ([`Accept`]) and who counts them ([`Count`]).
//! It does not know how a connection reached this loop, nor what is spoken on it.

mod acceptor;
mod connection;
mod dispatch;
mod handed;
mod listening;
mod options;
mod socket;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use socket2::Socket;

pub(crate) use acceptor::Acceptor;
pub use connection::Connection;
pub(crate) use dispatch::{Dispatcher, Rules};
pub(crate) use handed::Handed;
pub use options::{ListenOptions, UdpOptions};
pub(crate) use options::{SocketOptions, StreamOptions, Wanted};
pub(crate) use socket::{ListeningSocket, is_abstract};

use crate::{
    config::Address,
    id::{ConnectionId, ListenerId},
};

/// A source of connections, on the current loop.
pub trait Accept {
    /// The next connection. Whoever polls takes all there are, until it is pending, before it lets
    /// anything happen on them: that is when they become this worker's for good. `None` when the listener is withdrawn: nothing will come any more and
    /// whoever serves it should drain.
    ///
    /// # Errors
    ///
    /// The listener cannot go on. What costs one connection only is not an error here.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<crate::Result<Option<Connection>>>;

    /// `false` asks for no new connection until it is called with `true` again. Connections that
    /// were already on their way may still come, and so may the withdrawal.
    fn set_accepting(&mut self, accepting: bool);
}

/// Counts what happens on connections.
pub trait Count {
    /// A connection is open on this loop.
    fn opened(&self);
    /// A connection counted by `opened` is gone.
    fn closed(&self);
    /// A request was answered.
    fn request(&self);
    /// In this turn of the loop the answer to a request was complete that came in the turn of this time. Does
    /// nothing unless overridden.
    fn answered(&self, asked: Instant) {
        let _ = asked;
    }
}

/// A connection on its way to a worker. It stays the primary's until the worker adopts it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) listener: ListenerId,
    pub(crate) id: ConnectionId,
    pub(crate) socket: Socket,
}

/// How a worker gets the connections of a listener.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) listener: ListenerId,
    /// Where it listens in fact.
    pub(crate) address: Address,
    pub(crate) intake: Intake,
    /// What the first worker that brought any left for all.
    pub(crate) data: Option<Arc<[u8]>>,
}

/// Where connections come from beside those that are offered.
#[derive(Debug)]
pub(crate) enum Intake {
    /// From nowhere else.
    Offers,
    /// The worker accepts, or receives datagrams, from this socket.
    Socket(Socket),
}
