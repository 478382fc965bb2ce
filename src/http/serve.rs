//! The server: its settings, and the task that accepts.
//!
//! 1. The accepting task takes connections from the listener and starts a task for each. Another sends what waits
//!    in the outbox.
//! 2. At the bound it asks the listener for no more, until a connection ends.
//! 3. The listener is withdrawn: every connection is told to finish, `serve` waits for the last.
//!
//! Dropping the future of `serve`, at any step, drops the tasks of all its connections.

use std::{error::Error as StdError, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{server::conn::http1, service::Service};

use super::{
    body::Incoming,
    hub::Hub,
    limits::{Limits, PanicPolicy},
    session,
};
use crate::{
    Error, ErrorKind, Result,
    accept::{Accept, Connection},
    event_loop,
};

/// Serves HTTP/1.1 on connections of `listener` with the default settings of [`Server`].
///
/// Returns when the listener is withdrawn and the last connection has ended.
///
/// # Errors
///
/// When the listener fails.
///
/// # Panics
///
/// When the thread has no current event loop.
pub async fn serve<A, S, B>(listener: A, service: S) -> Result<()>
where
    A: Accept + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    Server::new().serve(listener, service).await
}

/// An HTTP/1.1 server's settings, each with a default that is safe on the open internet.
#[derive(Clone, Debug, Default)]
#[must_use = "a server does nothing until `serve` is called and awaited"]
pub struct Server {
    limits: Limits,
}

impl Server {
    /// A server with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most connections open at once; at the bound no more are accepted until one ends.
    /// Default: no bound of its own, the process's descriptors are one.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = Some(connections);
        self
    }

    /// How long a request's head may take from its first byte, and a new connection from its
    /// accept, to be complete (Node: `headersTimeout`). Answered with 408 if a part came.
    /// Default: 10 s.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.limits.header_timeout = timeout;
        self
    }

    /// How long a connection may be idle between requests (Node: `keepAliveTimeout`), and a peer
    /// may take without accepting a byte of an answer. Default: 75 s.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.limits.keep_alive_timeout = timeout;
        self
    }

    /// How long a whole request, body included, may take from its first byte (Node:
    /// `requestTimeout`). Answered with 408 unless an answer was begun. Default: 300 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.limits.request_timeout = timeout;
        self
    }

    /// The longest head of a request, its last empty line included; a longer one is answered with
    /// 431. Default: 64 KiB.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_head_bytes = bytes;
        self
    }

    /// The longest body of a request, `None` for any; a longer one is answered with 413.
    /// Default: 10 MiB.
    pub fn max_body_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.limits.max_body_bytes = bytes.into();
        self
    }

    /// What becomes of a panic in the service. Default: [`PanicPolicy::Worker`].
    pub fn panic_policy(mut self, policy: PanicPolicy) -> Self {
        self.limits.panic_policy = policy;
        self
    }

    /// Serves connections of `listener` until it is withdrawn and the last of them has ended.
    /// Dropping the future closes them.
    ///
    /// # Errors
    ///
    /// A setting cannot hold ([`ErrorKind::Setting`]), or the listener failed.
    ///
    /// # Panics
    ///
    /// When the thread has no current event loop.
    pub async fn serve<A, S, B>(self, listener: A, service: S) -> Result<()>
    where
        A: Accept + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + 'static,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        B: Body + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.limits.check()?;
        let hub = Cancelling(Rc::new(Hub::new(self.limits)));
        let sender = Rc::clone(&hub.0);
        let _sending = event_loop::spawn(async move { sender.outbox.run().await });
        let accepting = Accepting {
            listener,
            protocol: hub.0.limits.protocol(),
            service: Rc::new(service),
            hub: Rc::clone(&hub.0),
        };
        event_loop::spawn_urgent(accepting.run()).await.map_err(|_| {
            Error::new(ErrorKind::Closed, "the event loop ended under the server")
        })??;
        hub.0.drain();
        hub.0.emptied().await;
        Ok(())
    }
}

/// Cancels the connections' tasks with the server.
struct Cancelling(Rc<Hub>);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

struct Accepting<A, S> {
    listener: A,
    protocol: http1::Builder,
    service: Rc<S>,
    hub: Rc<Hub>,
}

impl<A, S, B> Accepting<A, S>
where
    A: Accept,
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    async fn run(mut self) -> Result<()> {
        let mut accepting = true;
        while let Some(connection) = self.next(&mut accepting).await? {
            self.start(connection);
        }
        Ok(())
    }

    /// The next connection; keeps the listener told whether there is room for one.
    async fn next(&mut self, accepting: &mut bool) -> Result<Option<Connection>> {
        poll_fn(|cx| {
            let room = !self.hub.is_full();
            if *accepting != room {
                *accepting = room;
                self.listener.set_accepting(room);
            }
            if !room {
                self.hub.watch(cx);
            }
            match self.listener.poll_accept(cx) {
                Poll::Ready(next) => Poll::Ready(next),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn start(&self, connection: Connection) {
        let seat = self.hub.enter();
        let key = seat.key;
        let task = event_loop::spawn(session::serve(
            connection,
            self.protocol.clone(),
            Rc::clone(&self.service),
            Rc::clone(&self.hub),
            seat,
        ));
        self.hub.keep(key, task);
    }
}
