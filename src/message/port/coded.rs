//! A port between processes: one end of a packet socket pair.
//!
//! Whoever waits for a message registers the descriptor with its event loop for as long as it waits:
//! a port belongs to no loop and may move to another one, or to another process, at any other time.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::Interest;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

use super::{Message, Packing};
use crate::{
    channel::{Fault, Inbox, Incoming, Load, Outlet, RETRY},
    clock,
    error::{Context as _, Error, ErrorKind, Result},
    event_loop::{Source, sleep},
    message::{post, receive},
    patience::Patience,
    sys::channel::seqpacket_pair,
};

/// Packets of one message received before a blocked thread looks at its deadline.
const PACKETS: usize = 1024;

pub(super) struct Coded {
    end: Arc<OwnedFd>,
    outlet: Outlet,
    /// Made when it is first needed: it has a buffer for the largest packet.
    inbox: RefCell<Option<Inbox>>,
    /// Received in one packet with the last.
    arrived: RefCell<VecDeque<Message>>,
    /// Nothing can come any more.
    ended: Cell<bool>,
    packing: Packing,
    patience: Patience,
}

impl Coded {
    pub(super) fn pair(packing: Packing) -> Result<(Self, Self)> {
        let (one, other) = seqpacket_pair().context(ErrorKind::Io, || "make a channel".into())?;
        Ok((Self::new(one, packing), Self::new(other, packing)))
    }

    pub(super) fn new(end: OwnedFd, packing: Packing) -> Self {
        let end = Arc::new(end);
        Self {
            outlet: Outlet::carried(end.clone()),
            end,
            inbox: RefCell::default(),
            arrived: RefCell::default(),
            ended: Cell::new(false),
            packing,
            patience: Patience::default(),
        }
    }

    /// The end itself, if nothing of what was sent or received is in this process's hands.
    pub(super) fn into_descriptor(self: Box<Self>) -> Result<OwnedFd, (Error, Box<Self>)> {
        let partial = self.inbox.borrow().as_ref().is_some_and(Inbox::is_partial);
        let cause = if partial || !self.arrived.borrow().is_empty() {
            "it has received a message in part; receive it first"
        } else if self.ended.get() {
            "it is closed"
        } else if !self.outlet.let_go() {
            "what was sent through it has not left yet; the other end has to receive first"
        } else {
            return self.into_end();
        };
        Err((Error::new(ErrorKind::Io, format!("the port cannot be sent: {cause}")), self))
    }

    fn into_end(self) -> Result<OwnedFd, (Error, Box<Self>)> {
        match Arc::try_unwrap(self.end) {
            Ok(end) => Ok(end),
            // The courier is about to let go of it.
            Err(end) => match end.as_fd().try_clone_to_owned() {
                Ok(duplicate) => Ok(duplicate),
                Err(error) => {
                    let port = Self { outlet: Outlet::carried(end.clone()), end, ..self };
                    let text = "the port cannot be sent";
                    Err((Error::caused(ErrorKind::Io, text, error), Box::new(port)))
                }
            },
        }
    }

    pub(super) fn load(&self) -> Load {
        self.outlet.load()
    }

    pub(super) fn send(&self, message: Message) -> Result<(), (Error, Message)> {
        // Each is a packet of its own, so there is nothing to gather for.
        post(message, &self.outlet, self.packing, 0)
    }

    pub(super) fn try_next(&self) -> Option<Message> {
        loop {
            if let Some(message) = self.arrived.borrow_mut().pop_front() {
                return Some(message);
            }
            if self.ended.get() {
                return None;
            }
            let received = {
                let mut inbox = self.inbox.borrow_mut();
                let limit = self.packing.max_bytes as u64;
                let inbox = inbox.get_or_insert_with(|| Inbox::new(limit));
                inbox.receive_now(&self.end, &mut { PACKETS })
            };
            if !self.take_in(received) {
                return None;
            }
        }
    }

    /// Whether there was something to take in.
    fn take_in(&self, received: Result<Option<Incoming>, Fault>) -> bool {
        let messages = match received {
            Ok(None) => return false,
            Ok(Some(Incoming::End)) => Ok(Vec::new()),
            Ok(Some(Incoming::Frame(frame, sent))) => receive(frame, sent, false, self.packing),
            Ok(Some(Incoming::Stripped(frame))) => receive(frame, Vec::new(), true, self.packing),
            Err(fault) => Err(Error::caused(ErrorKind::Protocol, "a port failed", fault)),
        };
        let messages = messages.unwrap_or_else(|error| {
            log::warn!("a port is closed: {error}");
            Vec::new()
        });
        self.ended.set(messages.is_empty());
        self.arrived.borrow_mut().extend(messages);
        true
    }

    /// The next message, for whoever has just found none.
    pub(super) async fn next(&self) -> Option<Message> {
        let mut next = None;
        while next.is_none() && !self.ended.get() {
            match self.source() {
                Ok(source) => {
                    // What is there by now makes an edge: it was not when it was looked for.
                    source.clear_readable();
                    source.readable().await;
                }
                Err(error) => {
                    log::warn!(
                        "a port cannot be waited for, it is looked at now and then: {error}"
                    );
                    sleep(RETRY).await;
                }
            }
            next = self.try_next();
        }
        next
    }

    /// The end on the current loop; a duplicate where another task waits for it there already.
    fn source(&self) -> io::Result<Source<Arc<OwnedFd>>> {
        Source::new(self.end.clone(), Interest::READABLE).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Source::new(Arc::new(self.end.try_clone()?), Interest::READABLE)
            }
            _ => Err(error),
        })
    }

    pub(super) fn wait_next(&self, deadline: Option<Instant>) -> Option<Message> {
        let wait =
            || self.patience.wait(deadline, || self.try_next(), || self.sleep_until_next(deadline));
        self.try_next().or_else(wait)
    }

    fn sleep_until_next(&self, deadline: Option<Instant>) -> Option<Message> {
        while !self.ended.get() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            self.wait(left);
            if let Some(message) = self.try_next() {
                return Some(message);
            }
        }
        None
    }

    /// Blocks until something can be received, or for this long.
    fn wait(&self, limit: Option<Duration>) -> PollFlags {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut end = [PollFd::new(&*self.end, PollFlags::IN)];
        match retry_on_intr(|| poll(&mut end, limit.as_ref())) {
            Ok(_) => end[0].revents(),
            Err(_) => PollFlags::HUP,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ended.get() || self.wait(Some(Duration::ZERO)).contains(PollFlags::HUP)
    }
}
