//! One connection's task: hyper, the clock, the drain, and a close that lets the peer read.
//!
//! The task ends when the connection does. Its one timer is armed for a deadline that may have
//! moved later since; only when it fires is the true deadline looked at, so a request on a kept
//! connection costs no timer operation.
//!
//! A drain ends a connection that was without a request for a moment. One that is in use goes on until
//! its next answer, which says that it is the last: closing between two requests would lose the one
//! that is on its way. One in the middle of a head is let finish it, as hyper would drop it.

use std::{
    error::Error as StdError,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body::Body;
use hyper::{server::conn::http1, service::Service};

use super::{
    answer::Guarded,
    body::Incoming,
    exchange::{Exchange, Phase},
    hub::{Hub, Seat},
    io::Io,
    outbox::Outgoing,
};
use crate::{
    accept::Connection,
    event_loop::{self, Sleep},
};

/// How long, and for how many bytes, a closing connection reads on so that its peer can read the
/// last answer: closing with unread bytes would reset it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves `connection` until it ends.
pub(super) async fn serve<S, B>(
    connection: Connection,
    protocol: http1::Builder,
    service: Rc<S>,
    hub: Rc<Hub>,
    seat: Seat,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let exchange = Rc::new(Exchange::new(Rc::clone(&hub), connection.meter().cloned()));
    let connection = Rc::new(connection);
    let outgoing = Outgoing::new(Rc::clone(&connection), Rc::clone(&exchange));
    let io = Io::new(Rc::clone(&outgoing));
    let http = protocol.serve_connection(io, Guarded { service, exchange: Rc::clone(&exchange) });
    let session = Session {
        http,
        connection: &connection,
        exchange: &exchange,
        seat: &seat,
        timer: None,
        armed: None,
        tried: None,
    };
    let outcome = session.await;
    outgoing.hurry();
    if matches!(outcome, Outcome::Silent) {
        // Best effort: the peer may be gone.
        let _ = event_loop::timeout(LINGER, connection.write_all(TIMED_OUT)).await;
    }
    if exchange.must_linger() {
        linger(&connection, &hub).await;
    }
}

/// Ends the writing side and reads until the peer has ended its own, within bounds.
async fn linger(connection: &Connection, hub: &Hub) {
    if connection.shutdown_write().is_err() {
        return;
    }
    let discard = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read =
                std::future::poll_fn(|cx| connection.poll_read(cx, &mut hub.scratch.borrow_mut()));
            match read.await {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => break,
            }
        }
    };
    let _ = event_loop::timeout(LINGER, discard).await;
}

enum Outcome {
    /// hyper has finished, or there is nothing to say.
    Ended,
    /// Part of a request came, and every answer before it is sent.
    Silent,
}

struct Session<'a, C> {
    http: C,
    connection: &'a Connection,
    exchange: &'a Exchange,
    seat: &'a Seat,
    timer: Option<Sleep>,
    /// What the timer waits for.
    armed: Option<Instant>,
    /// The last stall at whose end sending was tried once more, by when it began.
    tried: Option<Instant>,
}

/// What a session needs of hyper's connection.
trait Http: Unpin {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>>;
    fn finish(&mut self);
}

impl<S, B> Http for http1::Connection<Io, Guarded<S>>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Future::poll(Pin::new(self), cx)
    }

    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl<C: Http> Future for Session<'_, C> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(result) = this.http.poll(cx) {
                if let Err(error) = result {
                    log::debug!("http: a connection ended: {error}");
                }
                return Poll::Ready(Outcome::Ended);
            }
            if !this.expired(cx) || this.next_has_come() {
                return Poll::Pending;
            }
            if this.may_have_room() {
                continue;
            }
            if this.exchange.finishes() {
                this.http.finish();
                continue;
            }
            // Only a service that has not answered can still be made to answer.
            if this.exchange.expire() {
                continue;
            }
            let is_silent = this.exchange.phase() == Phase::Head && !this.exchange.is_stalled();
            return Poll::Ready(if is_silent { Outcome::Silent } else { Outcome::Ended });
        }
    }
}

impl<C: Http> Session<'_, C> {
    /// Whether there is a next request although its time is over: the loop is about to tell of it. A peer that does not
    /// read is not waited for, whatever it sends.
    fn next_has_come(&self) -> bool {
        let awaited = self.exchange.phase() == Phase::Idle && !self.exchange.is_stalled();
        awaited && self.connection.has_input()
    }

    /// Whether it is unknown if a peer that takes nothing has taken a little meanwhile; has sending tried if so.
    fn may_have_room(&mut self) -> bool {
        let stalled = self.exchange.stalled();
        let is_unknown = stalled.is_some() && stalled != self.tried;
        if is_unknown {
            self.tried = stalled;
            self.connection.expect_room();
        }
        is_unknown
    }

    /// Whether the current deadline has passed; sees to being woken when it does.
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.exchange.deadline() else { return false };
        let now = event_loop::now();
        if deadline <= now {
            return true;
        }
        if self.armed.is_none_or(|armed| armed <= now || deadline < armed) {
            self.arm(deadline, cx);
        }
        false
    }

    fn arm(&mut self, deadline: Instant, cx: &mut Context<'_>) {
        if self.timer.is_none() {
            self.seat.set_waker(cx.waker().clone());
        }
        let timer = self.timer.get_or_insert_with(|| event_loop::sleep_until(deadline));
        timer.reset(deadline);
        self.armed = Some(deadline);
        // The deadline is ahead, so this only parks the task.
        let _ = Pin::new(timer).poll(cx);
    }
}
