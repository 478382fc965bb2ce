//! Broadcasts: a message to every other member of a name, in all workers and in the primary.
//!
//! Each place (the primary's program, or one worker) has its [`Members`] and hands a post to its own
//! ones; the primary passes it on to every other place that has joined the name. Values are encoded in
//! both modes: one value cannot be moved to many.
//!
//! A member keeps what it has not received within bounds and loses the oldest beyond, so that one who
//! does not receive holds up nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::{Attached, Message, Packing, Payload};
use crate::{
    channel::Load,
    clock,
    config::Memory,
    error::{Error, ErrorKind, Result},
};

/// What one member keeps at most.
const KEPT: Load = Load { messages: 4096, bytes: 16 << 20 };

/// The longest name, in bytes.
const NAME_BYTES: usize = 256;

/// The most names that one place can have joined.
pub(crate) const MAX_NAMES: usize = 1024;

/// The members in one place, by name. Any thread.
#[derive(Default)]
pub(crate) struct Members {
    by_name: Mutex<BTreeMap<String, Vec<Arc<Member>>>>,
}

/// One member's queue.
#[derive(Default)]
struct Member {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    missed: u64,
    waker: Option<Waker>,
}

/// How a member reaches the other places.
pub(crate) trait Relay {
    /// Says that this place has joined a name.
    fn join(&self, name: &str) -> Result<()>;
    /// Says that nobody here is a member of it any more.
    fn leave(&self, name: &str);
    /// Passes a message on to all other places.
    fn pass(&self, message: Message) -> Result<()>;
}

impl Members {
    /// Hands a message to the members of its name, but to the one who posted it.
    fn deliver_beside(&self, message: &Message, poster: Option<&Arc<Member>>) {
        let Some(name) = message.topic() else { return };
        let members = self.by_name.lock().get(name).cloned().unwrap_or_default();
        for member in members {
            if !poster.is_some_and(|poster| Arc::ptr_eq(poster, &member)) {
                message.duplicate().into_iter().for_each(|copy| member.put(copy));
            }
        }
    }

    /// Hands a message from another place to the members of its name.
    pub(crate) fn deliver(&self, message: &Message) {
        self.deliver_beside(message, None);
    }

    /// Adds a member. Whether it is the first of its name.
    fn add(&self, name: &str, member: Arc<Member>) -> Result<bool> {
        let mut by_name = self.by_name.lock();
        if !by_name.contains_key(name) && by_name.len() >= MAX_NAMES {
            let text = format!("{MAX_NAMES} broadcast names are in use here; close some first");
            return Err(Error::new(ErrorKind::Full, text));
        }
        let members = by_name.entry(name.into()).or_default();
        members.push(member);
        Ok(members.len() == 1)
    }

    /// Removes a member. Whether it was the last of its name.
    fn remove(&self, name: &str, member: &Arc<Member>) -> bool {
        let mut by_name = self.by_name.lock();
        let Some(members) = by_name.get_mut(name) else { return false };
        members.retain(|other| !Arc::ptr_eq(other, member));
        let last = members.is_empty();
        if last {
            by_name.remove(name);
        }
        last
    }
}

impl Member {
    fn put(&self, message: Message) {
        let mut queue = self.queue.lock();
        queue.bytes += message.bytes();
        queue.messages.push_back(message);
        while queue.is_over() {
            queue.pop();
            queue.missed += 1;
        }
        let waker = queue.waker.take();
        drop(queue);
        self.arrived.notify_one();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Queue {
    /// One message stays, whatever its size.
    fn is_over(&self) -> bool {
        let count = self.messages.len();
        count > KEPT.messages || self.bytes > KEPT.bytes && count > 1
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes();
        Some(message)
    }
}

/// A member of a broadcast (Node: `BroadcastChannel`): what it posts reaches every other open member of
/// the same name in the cluster, wherever it is, and not itself.
///
/// [`Worker::broadcast`](crate::Worker::broadcast) and
/// [`Cluster::broadcast`](crate::Cluster::broadcast) make one. Dropping it closes it. It keeps at most
/// 4096 messages and 16 MiB that were not received; beyond, the oldest are lost and
/// [counted](Self::missed). Posts of one member keep their order.
pub struct Broadcast {
    name: String,
    member: Arc<Member>,
    members: Arc<Members>,
    relay: Box<dyn Relay>,
    packing: Packing,
}

impl Broadcast {
    pub(crate) fn join(
        name: String,
        members: Arc<Members>,
        packing: Packing,
        relay: Box<dyn Relay>,
    ) -> Result<Self> {
        if name.is_empty() || name.len() > NAME_BYTES {
            let text = format!(
                "a broadcast's name has {} bytes; it must have from 1 to {NAME_BYTES}",
                name.len()
            );
            return Err(Error::new(ErrorKind::Setting, text));
        }
        let member = Arc::<Member>::default();
        let first = members.add(&name, member.clone())?;
        let packing = Packing { memory: Memory::Separate, ..packing };
        let broadcast = Self { name, member, members, relay, packing };
        if first {
            // Dropping it on an error takes the member out again.
            broadcast.relay.join(&broadcast.name)?;
        }
        Ok(broadcast)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a value to every other member (Node: `postMessage`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::Codec`] when the value cannot be encoded: it reached
    /// nobody. [`ErrorKind::Closed`] when the cluster has ended, [`ErrorKind::Full`] when too much is
    /// under way: it reached the members in this place alone.
    pub fn post<T: Serialize + Send + 'static>(&self, value: T) -> Result<()> {
        let packed = Message::pack(value, self.packing);
        let (message, _) = packed.map_err(|(error, _)| error)?;
        let message = message.under(Some(self.name.as_str().into()));
        self.members.deliver_beside(&message, Some(&self.member));
        self.relay.pass(message)
    }

    /// The next message from another member. At most one task waits: the last.
    pub async fn recv(&self) -> Message {
        poll_fn(|cx| {
            let mut queue = self.member.queue.lock();
            match queue.pop() {
                Some(message) => Poll::Ready(message),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next message, if one is there.
    #[must_use]
    pub fn try_recv(&self) -> Option<Message> {
        self.member.queue.lock().pop()
    }

    /// The next message, if it comes within this time; blocks this thread. Not on an event loop:
    /// there, await [`recv`](Self::recv).
    #[must_use]
    pub fn recv_timeout(&self, limit: Duration) -> Option<Message> {
        let deadline = clock::now().checked_add(limit);
        let mut queue = self.member.queue.lock();
        loop {
            if let Some(message) = queue.pop() {
                return Some(message);
            }
            match deadline {
                None => self.member.arrived.wait(&mut queue),
                Some(deadline) => {
                    if self.member.arrived.wait_until(&mut queue, deadline).timed_out() {
                        return queue.pop();
                    }
                }
            }
        }
    }

    /// How many messages were lost because this member did not receive them in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.member.queue.lock().missed
    }

    /// Closes this member, as dropping it does.
    pub fn close(self) {}
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        if self.members.remove(&self.name, &self.member) {
            self.relay.leave(&self.name);
        }
    }
}

impl Message {
    /// The name it was broadcast under, if it was.
    pub(crate) fn topic(&self) -> Option<&str> {
        match &self.attached {
            Attached::Topic(topic) => Some(&topic.name),
            _ => None,
        }
    }

    pub(super) fn take_topic(&mut self) -> Option<Box<str>> {
        match std::mem::replace(&mut self.attached, Attached::Nothing) {
            Attached::Topic(topic) => Some(topic.name),
            other => {
                self.attached = other;
                None
            }
        }
    }

    /// A copy of an encoded message, without what came beside it.
    pub(crate) fn duplicate(&self) -> Option<Self> {
        let Payload::Encoded { bytes, codec } = &self.payload else { return None };
        let payload = Payload::Encoded { bytes: bytes.clone(), codec: *codec };
        let copy = Self { type_name: self.type_name.clone(), payload, attached: Attached::Nothing };
        Some(copy.under(self.topic().map(Into::into)))
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("name", &self.name).finish_non_exhaustive()
    }
}
