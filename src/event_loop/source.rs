//! Readiness of descriptors.
//!
//! Registration is edge-triggered: the kernel tells once that a descriptor *became* ready, and a flag here remembers it
//! until an operation says WouldBlock. Flags start as ready, so the first operation is tried without waiting.
//! A token carries the slot's generation: an event that was already fetched for a source that is gone finds nobody.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use slab::Slab;

use super::core::{Core, current};
use super::waker::Parking;
use crate::sys::epoll;

/// Half of a token is the slot's index, half its generation.
const INDEX_BITS: u32 = usize::BITS / 2;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

/// Any descriptor (socket, pipe, pidfd, eventfd, ...) registered with the loop that was current when it was made.
///
/// The descriptor must be non-blocking and must stay the same for the life of `T`. It is deregistered by drop and by
/// [`into_inner`](Source::into_inner). At most one task may wait per direction: the last one to wait is woken.
/// A direction that is not in the interest given to [`Source::new`] is never reported ready again once cleared.
#[derive(Debug)]
pub struct Source<T> {
    // Before `io`: the descriptor is still open when it is deregistered.
    registration: Registration,
    io: T,
}

impl<T: AsFd> Source<T> {
    /// Registers `io` with the current loop.
    ///
    /// # Errors
    ///
    /// When the kernel refuses (EPERM: a regular file has no readiness; EEXIST: registered already; ENOSPC).
    ///
    /// # Panics
    ///
    /// Without a current loop on this thread.
    #[track_caller]
    pub fn new(io: T, interest: Interest) -> io::Result<Self> {
        let source = Self::new_lazy(io, interest)?;
        source.registration.register_if_due()?;
        Ok(source)
    }

    /// As [`new`](Self::new), but the kernel learns of it when a task first waits in [`poll_read_io`](Self::poll_read_io)
    /// or [`poll_write_io`](Self::poll_write_io), which then fail if it refuses: what is done before that costs it
    /// nothing.
    #[track_caller]
    pub(crate) fn new_lazy(io: T, interest: Interest) -> io::Result<Self> {
        Self::unregistered(io, Some(interest))
    }

    /// For a descriptor that has no duplicate anywhere: closing it ends its registration (epoll(7)), so dropping the
    /// source saves the system call that would.
    pub(crate) fn sole(mut self) -> Self {
        self.registration.sole = true;
        self
    }

    /// A source that waits for nothing until it [joins](Self::join_line) the loops that read from duplicates of the same
    /// descriptor.
    #[track_caller]
    pub(crate) fn shared(io: T) -> io::Result<Self> {
        Self::unregistered(io, None)
    }

    #[track_caller]
    fn unregistered(io: T, due: Option<Interest>) -> io::Result<Self> {
        let registration = Registration::new(current(), io.as_fd().as_raw_fd(), due)?;
        Ok(Source { registration, io })
    }

    /// Waits for reading at the end of the line of these loops, unless it does already: the kernel wakes the first of
    /// them that sleeps, and no other. What can be read already counts as an event.
    pub(crate) fn join_line(&self) -> io::Result<()> {
        let Registration { core, token, registered, .. } = &self.registration;
        if registered.get() {
            return Ok(());
        }
        epoll::add_exclusive(&core.poll.borrow(), self.io.as_fd(), *token)?;
        registered.set(true);
        Ok(())
    }

    /// Waits no more. Whether it did.
    pub(crate) fn leave_line(&self) -> bool {
        let waited = self.registration.registered.replace(false);
        if waited {
            self.registration.deregister();
        }
        waited
    }

    /// Whether the kernel tells it of events.
    pub(crate) fn is_registered(&self) -> bool {
        self.registration.registered.get()
    }

    /// Has the kernel tell of room for writing, too, from now on; room that is there by now counts as an event. For a
    /// source that was made for reading alone: a Unix socket makes an event of each packet that its peer takes, and who
    /// does not wait for room should not be woken by them.
    pub(crate) fn watch_room(&self) -> io::Result<()> {
        let interest = self.registration.due.get();
        let both = interest.map_or(Interest::WRITABLE, |interest| interest | Interest::WRITABLE);
        self.registration.set_interest(both)
    }

    /// Undoes [`watch_room`](Self::watch_room).
    pub(crate) fn unwatch_room(&self) -> io::Result<()> {
        let interest = self.registration.due.get();
        match interest.and_then(|interest| interest.remove(Interest::WRITABLE)) {
            Some(interest) => self.registration.set_interest(interest),
            None => Ok(()),
        }
    }

    /// Has the next read tried without an event.
    pub(crate) fn expect_readable(&self) {
        self.registration.readiness.read.ready.set(true);
    }

    /// Has the next write tried without an event.
    #[cfg(feature = "http")]
    pub(crate) fn expect_writable(&self) {
        self.registration.readiness.write.ready.set(true);
    }

    /// The descriptor's owner.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Deregisters and gives the descriptor back.
    pub fn into_inner(mut self) -> T {
        self.registration.sole = false;
        self.io
    }

    /// Ready when reading is worth a try: data, end of file, hang-up or an error waits. Otherwise parks the task.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.readiness.read.poll(cx)
    }

    /// Ready when writing is worth a try. Otherwise parks the task.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.readiness.write.poll(cx)
    }

    /// Forgets read readiness. Right only directly after reading said WouldBlock or gave less than
    /// it had room for: no `await` in between. Readiness stays once the peer's close was seen, which
    /// makes no second edge.
    pub fn clear_readable(&self) {
        self.registration.readiness.read.clear_unless_ended();
    }

    /// Forgets write readiness. Right only directly after writing said WouldBlock or took less than
    /// it was given: no `await` in between.
    pub fn clear_writable(&self) {
        self.registration.readiness.write.clear_unless_ended();
    }

    /// Tries `f` while the source is readable; on WouldBlock forgets readiness and parks, on EINTR tries again.
    pub fn poll_read_io<R>(
        &self,
        cx: &mut Context<'_>,
        f: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_io(&self.registration.readiness.read, cx, f)
    }

    /// [`poll_read_io`](Source::poll_read_io) for writing.
    pub fn poll_write_io<R>(
        &self,
        cx: &mut Context<'_>,
        f: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_io(&self.registration.readiness.write, cx, f)
    }

    /// [`poll_read_io`](Source::poll_read_io) as a future. Cancel safe: nothing is lost between tries.
    pub async fn read_io<R>(&self, mut f: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        poll_fn(|cx| self.poll_read_io(cx, &mut f)).await
    }

    /// [`poll_write_io`](Source::poll_write_io) as a future. Cancel safe.
    pub async fn write_io<R>(&self, mut f: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        poll_fn(|cx| self.poll_write_io(cx, &mut f)).await
    }

    /// [`poll_readable`](Source::poll_readable) as a future.
    pub async fn readable(&self) {
        poll_fn(|cx| self.poll_readable(cx)).await;
    }

    /// [`poll_writable`](Source::poll_writable) as a future.
    pub async fn writable(&self) {
        poll_fn(|cx| self.poll_writable(cx)).await;
    }

    #[cfg(test)]
    pub(super) fn token(&self) -> Token {
        self.registration.token
    }

    fn poll_io<R>(
        &self,
        direction: &Direction,
        cx: &mut Context<'_>,
        mut f: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            if direction.poll(cx).is_pending() {
                self.registration.register_if_due()?;
                return Poll::Pending;
            }
            match f(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => direction.clear(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// One direction of a source: ready or not, and who waits.
struct Direction {
    ready: Cell<bool>,
    /// An event said that nothing follows what is ready now.
    ended: Cell<bool>,
    waiter: Parking,
}

impl Default for Direction {
    fn default() -> Direction {
        Direction { ready: Cell::new(true), ended: Cell::new(false), waiter: Parking::default() }
    }
}

impl Direction {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready.get() {
            return Poll::Ready(());
        }
        self.waiter.park(cx.waker());
        Poll::Pending
    }

    fn clear(&self) {
        self.ready.set(false);
    }

    fn clear_unless_ended(&self) {
        self.ready.set(self.ended.get());
    }

    fn set_ready(&self) {
        self.ready.set(true);
        self.waiter.unpark();
    }
}

/// What a source and the loop's table share.
#[derive(Default)]
struct Readiness {
    read: Direction,
    write: Direction,
}

/// Keeps a descriptor registered.
struct Registration {
    core: Rc<Core>,
    readiness: Rc<Readiness>,
    token: Token,
    /// Owned by the `io` beside it, which outlives this.
    fd: RawFd,
    /// The kernel knows of it.
    registered: Cell<bool>,
    /// What the kernel is to tell of; nothing where a source joins and leaves a line instead.
    due: Cell<Option<Interest>>,
    /// The descriptor is about to be closed when this is dropped, and has no duplicate.
    sole: bool,
}

impl Registration {
    /// With a place in the table alone.
    fn new(core: Rc<Core>, fd: RawFd, due: Option<Interest>) -> io::Result<Registration> {
        let readiness = Rc::<Readiness>::default();
        let token = core.sources.borrow_mut().insert(&readiness)?;
        let registered = Cell::new(false);
        let due = Cell::new(due);
        Ok(Registration { core, readiness, token, fd, registered, due, sole: false })
    }

    /// What is ready by now counts as an event.
    fn register_if_due(&self) -> io::Result<()> {
        let Some(interest) = self.due.get().filter(|_| !self.registered.get()) else {
            return Ok(());
        };
        let poll = self.core.poll.borrow();
        poll.registry().register(&mut SourceFd(&self.fd), self.token, interest)?;
        self.registered.set(true);
        Ok(())
    }

    /// For a source that is registered: what is ready by now counts as an event.
    fn set_interest(&self, interest: Interest) -> io::Result<()> {
        if self.due.get() == Some(interest) {
            return Ok(());
        }
        let poll = self.core.poll.borrow();
        poll.registry().reregister(&mut SourceFd(&self.fd), self.token, interest)?;
        self.due.set(Some(interest));
        Ok(())
    }

    fn deregister(&self) {
        if let Err(error) = self.core.poll.borrow().registry().deregister(&mut SourceFd(&self.fd)) {
            log::warn!("event loop: cannot deregister descriptor {}: {error}", self.fd);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.registered.get() && !self.sole {
            self.deregister();
        }
        self.core.sources.borrow_mut().remove(self.token);
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The sources of a loop, by token.
#[derive(Default)]
pub(super) struct Sources {
    slots: Slab<(usize, Rc<Readiness>)>,
    generation: usize,
}

impl Sources {
    fn insert(&mut self, readiness: &Rc<Readiness>) -> io::Result<Token> {
        let entry = self.slots.vacant_entry();
        let index = entry.key();
        if index >= INDEX_MASK {
            // The last index is left out so that no token equals the eventfd's.
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many sources on one loop"));
        }
        self.generation = self.generation.wrapping_add(1) & INDEX_MASK;
        entry.insert((self.generation, Rc::clone(readiness)));
        Ok(Token(self.generation << INDEX_BITS | index))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn get(&self, token: Token) -> Option<&Rc<Readiness>> {
        let (generation, readiness) = self.slots.get(token.0 & INDEX_MASK)?;
        (*generation == token.0 >> INDEX_BITS).then_some(readiness)
    }

    fn remove(&mut self, token: Token) {
        if self.get(token).is_some() {
            // The source holds the other reference, so no waker is dropped here.
            self.slots.remove(token.0 & INDEX_MASK);
        }
    }
}

impl Core {
    /// Marks a source ready and wakes who waits. An event for a source that is gone is ignored.
    pub(super) fn dispatch(&self, event: &Event) {
        let closed = event.is_error();
        let read = event.is_readable() || event.is_read_closed() || event.is_priority() || closed;
        let write = event.is_writable() || event.is_write_closed() || closed;
        let (read_ended, write_ended) = (event.is_read_closed(), event.is_write_closed());
        if read_ended || write_ended || closed {
            self.mark_ended(event.token(), read_ended || closed, write_ended || closed);
        }
        self.mark_ready(event.token(), read, write);
    }

    fn mark_ended(&self, token: Token, read: bool, write: bool) {
        if let Some(readiness) = self.sources.borrow().get(token) {
            readiness.read.ended.set(read);
            readiness.write.ended.set(write);
        }
    }

    pub(super) fn mark_ready(&self, token: Token, read: bool, write: bool) {
        let found = self.sources.borrow().get(token).map(Rc::clone);
        let Some(readiness) = found else { return };
        if read {
            readiness.read.set_ready();
        }
        if write {
            readiness.write.set_ready();
        }
    }
}
