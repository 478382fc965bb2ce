//! The answers that are ready in one turn of the loop, sent one after the other.
//!
//! Sending is the longest way through the kernel, and between two requests it drives the code and the data of both
//! out of the processor's caches. So a short answer waits here while other tasks are runnable, and a task of its own,
//! which runs behind them, sends what has come together. Nothing waits when nothing else is to run.
//!
//! Runs on the loop's thread. Invariants:
//!
//! * A connection's bytes leave in the order in which they were written: what is written past the outbox goes after
//!   what waits in it.
//! * What the kernel does not take of an answer goes back to its connection, whose task is woken to go on.
//! * While an answer waits its connection stays open, so that it is sent also when the connection's task has ended.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use super::exchange::Exchange;
use crate::{accept::Connection, event_loop};

/// Up to here copying the pieces of an answer together costs less than a gathering write.
const SHORT_BYTES: usize = 4 * 1024;

/// How many answers wait for each other at most: the first of them waits for all.
const TOGETHER: usize = 16;

/// What waits to be sent, of all connections of a server.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: RefCell<Waiting>,
    /// Wakes the task that sends.
    sender: Cell<Option<Waker>>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whose bytes, and where they end.
    answers: Vec<(Rc<Outgoing>, usize)>,
}

impl Outbox {
    /// The task that sends, for as long as there is a server.
    pub(super) async fn run(&self) {
        poll_fn(|cx| {
            self.send();
            self.sender.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Sends what waits.
    pub(super) fn send(&self) {
        let mut waiting = mem::take(&mut *self.waiting.borrow_mut());
        let mut start = 0;
        for (outgoing, end) in waiting.answers.drain(..) {
            outgoing.send(&waiting.bytes[start..end]);
            start = end;
        }
        waiting.bytes.clear();
        // Keeps the allocations.
        *self.waiting.borrow_mut() = waiting;
    }

    fn is_empty(&self) -> bool {
        self.waiting.borrow().answers.is_empty()
    }

    fn put(&self, outgoing: &Rc<Outgoing>, pieces: &[IoSlice<'_>]) {
        let mut waiting = self.waiting.borrow_mut();
        pieces.iter().for_each(|piece| waiting.bytes.extend_from_slice(piece));
        let end = waiting.bytes.len();
        waiting.answers.push((Rc::clone(outgoing), end));
        let (is_first, is_full) = (waiting.answers.len() == 1, waiting.answers.len() >= TOGETHER);
        drop(waiting);
        if is_full {
            self.send();
        } else if is_first && let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}

/// One connection's way out.
pub(super) struct Outgoing {
    pub(super) connection: Rc<Connection>,
    pub(super) exchange: Rc<Exchange>,
    /// Something of it is in the outbox.
    waits: Cell<bool>,
    /// What the kernel did not take when the outbox was sent.
    unsent: RefCell<Vec<u8>>,
    /// The connection's task, once something of it has waited.
    task: RefCell<Option<Waker>>,
}

impl Outgoing {
    pub(super) fn new(connection: Rc<Connection>, exchange: Rc<Exchange>) -> Rc<Self> {
        Rc::new(Self {
            connection,
            exchange,
            waits: Cell::new(false),
            unsent: RefCell::default(),
            task: RefCell::default(),
        })
    }

    fn outbox(&self) -> &Outbox {
        &self.exchange.hub.outbox
    }

    /// Takes as much of `pieces` as goes out now or may wait.
    pub(super) fn poll_write(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let total = pieces.iter().map(|piece| piece.len()).sum();
        if total <= SHORT_BYTES {
            if event_loop::has_runnable_tasks() || !self.outbox().is_empty() {
                self.wait(cx, pieces);
                return Poll::Ready(Ok(total));
            }
            return self.noted(self.poll_write_flat(cx, pieces));
        }
        ready!(self.poll_flush(cx))?;
        self.noted(self.connection.poll_write_vectored(cx, pieces))
    }

    fn poll_write_flat(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.exchange.hub.scratch.borrow_mut();
        let mut end = 0;
        for piece in pieces {
            scratch[end..end + piece.len()].copy_from_slice(piece);
            end += piece.len();
        }
        self.connection.poll_write(cx, &scratch[..end])
    }

    fn wait(self: &Rc<Self>, cx: &Context<'_>, pieces: &[IoSlice<'_>]) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        drop(task);
        self.waits.set(true);
        self.exchange.write_moved();
        self.outbox().put(self, pieces);
    }

    /// Ready when the kernel has all that was written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hurry();
        self.poll_unsent(cx)
    }

    /// Has what waits sent at once.
    pub(super) fn hurry(&self) {
        if self.waits.get() {
            self.outbox().send();
        }
    }

    /// Ready when nothing was left by an earlier attempt.
    pub(super) fn poll_unsent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unsent = self.unsent.borrow_mut();
        while !unsent.is_empty() {
            let n = ready!(self.noted(self.connection.poll_write(cx, &unsent)))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            unsent.drain(..n);
            if unsent.is_empty() {
                // It is seldom needed again.
                *unsent = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// An answer's turn has come: what cannot be sent now is left to the connection's task, an error too.
    fn send(&self, bytes: &[u8]) {
        self.waits.set(false);
        let mut unsent = self.unsent.borrow_mut();
        let sent =
            if unsent.is_empty() { self.connection.try_write(bytes).unwrap_or(0) } else { 0 };
        if sent == bytes.len() {
            return;
        }
        unsent.extend_from_slice(&bytes[sent..]);
        drop(unsent);
        self.exchange.write_stalled();
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.exchange.write_stalled(),
            Poll::Ready(_) => self.exchange.write_moved(),
        }
        written
    }
}
