//! hyper's `Read` and `Write` over a connection, one request at a time.
//!
//! What arrives is read into the server's scratch buffer and copied to hyper up to the end of the
//! current request; the rest is held back until that request was answered. So the phase of the
//! exchange is exact: a byte of the next request is never mistaken for one of this. What is written goes by
//! the server's outbox.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::{
    exchange::{Exchange, Phase},
    framing::HeadScan,
    outbox::Outgoing,
};

pub(super) struct Io {
    inbound: Inbound,
    outgoing: Rc<Outgoing>,
}

/// What was received, and where its requests end.
struct Inbound {
    exchange: Rc<Exchange>,
    scan: HeadScan,
    /// The head so far, when it came in more than one piece.
    head: Vec<u8>,
    /// Received after the end of the current request.
    held: Bytes,
}

impl Io {
    pub(super) fn new(outgoing: Rc<Outgoing>) -> Self {
        let exchange = Rc::clone(&outgoing.exchange);
        let inbound =
            Inbound { exchange, scan: HeadScan::default(), head: Vec::new(), held: Bytes::new() };
        Self { inbound, outgoing }
    }
}

impl Inbound {
    /// Gives hyper what it may see of the bytes held back.
    fn release(&mut self, buf: &mut ReadBufCursor<'_>) {
        let held = self.held.slice(..self.held.len().min(buf.remaining()));
        let n = self.admit(&held);
        buf.put_slice(&held[..n]);
        self.held.advance(n);
        self.exchange.set_surplus(!self.held.is_empty());
    }

    /// Gives hyper what it may see of `bytes` and holds the rest back.
    fn receive(&mut self, bytes: &[u8], buf: &mut ReadBufCursor<'_>) {
        let n = self.admit(bytes);
        buf.put_slice(&bytes[..n]);
        if n < bytes.len() {
            self.held = Bytes::copy_from_slice(&bytes[n..]);
            self.exchange.set_surplus(true);
        }
    }

    /// How many of `bytes`, which has some, belong to the current request: at least one.
    fn admit(&mut self, bytes: &[u8]) -> usize {
        match self.exchange.phase() {
            Phase::Idle | Phase::Head => self.admit_head(bytes),
            Phase::Body => self.exchange.body_takes(bytes).max(1),
            // hyper asks for more than the request has: it disagrees and will say so.
            Phase::Answering => bytes.len(),
        }
    }

    fn admit_head(&mut self, bytes: &[u8]) -> usize {
        let before = self.head.len();
        let end = if before == 0 {
            self.scan.end(bytes)
        } else {
            self.head.extend_from_slice(bytes);
            self.scan.end(&self.head)
        };
        let Some(end) = end else {
            if before == 0 {
                self.head.extend_from_slice(bytes);
            }
            if self.scan.begun() {
                self.exchange.head_begins();
            }
            return bytes.len();
        };
        self.exchange.head_ends(self.scan.head());
        self.scan = HeadScan::default();
        self.head.clear();
        end - before
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inbound, outgoing } = &mut *self;
        if !inbound.held.is_empty() {
            inbound.release(&mut buf);
            return Poll::Ready(Ok(()));
        }
        let exchange = Rc::clone(&inbound.exchange);
        let mut scratch = exchange.hub.scratch.borrow_mut();
        let room = buf.remaining().min(scratch.len());
        let n = ready!(outgoing.connection.poll_read(cx, &mut scratch[..room]))?;
        if n == 0 {
            exchange.peer_ended();
        } else {
            inbound.receive(&scratch[..n], &mut buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What waits in the outbox is as good as sent: its turn comes by itself.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_unsent(cx)
    }

    /// How the connection ends is decided by its task, which knows what is still unread.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_flush(cx)
    }
}
