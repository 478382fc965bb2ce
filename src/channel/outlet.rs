//! The way out of one end of a channel, for any thread.
//!
//! One lock holds the outbox and covers the sending itself, so order is the order of the calls. A
//! thread that sends tries the kernel at once while little is under way, which is what makes a single
//! message quick; once the other side is behind, messages gather and leave many to a packet. What is
//! left then is the flusher's, which is woken.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    task::Waker,
};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{
    Descriptor, Fault, Load, Receipt, courier,
    outbox::{Outbox, Sealed},
    receipt::receipt,
};
use crate::{
    sys::channel::send_packet,
    wire::{Frame, HandleKind, Letter, WireError},
};

/// Messages that are under way while each is still sent at once.
const EAGER: usize = 64;

/// Bytes that have gathered after which whoever sends empties the outbox itself.
const GATHERED: usize = 32 << 10;

/// The way out. Cheap to clone; all clones are the same way.
#[derive(Clone, Default)]
pub(crate) struct Outlet {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    /// Absent before the outlet is opened.
    end: Option<Arc<OwnedFd>>,
    /// Nothing can be sent any more.
    closed: bool,
    /// The kernel takes nothing now; the flusher waits until it does.
    blocked: bool,
    flusher: Option<Waker>,
    /// What is left goes to the courier.
    carried: bool,
}

/// How far the sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing waits: it has left, or never can.
    All,
    /// The kernel will say when it takes more.
    Blocked,
    /// The kernel is short of something and will not say when that is over.
    Short,
}

/// A message that was not taken: the other side is gone.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) handle: Option<(HandleKind, OwnedFd)>,
}

impl Outlet {
    /// The way out of this end.
    pub(crate) fn new(end: Arc<OwnedFd>) -> Self {
        let state = State { end: Some(end), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The way out of an end that is on no event loop. Each message is a packet of its own, so that
    /// whoever has received one has nothing else in hand.
    pub(crate) fn carried(end: Arc<OwnedFd>) -> Self {
        let outbox = Outbox::unmerged();
        let state = State { end: Some(end), outbox, carried: true, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets the end go, if everything has left. Whether that is so.
    pub(crate) fn let_go(&self) -> bool {
        let mut state = self.state.lock();
        let idle = state.outbox.is_empty();
        if idle {
            drop(state.close());
        }
        idle
    }

    /// The courier has nothing to do here any more, if everything has left. Whether that is so.
    pub(super) fn unwatch(&self) -> bool {
        let mut state = self.state.lock();
        let idle = state.outbox.is_empty();
        if idle {
            state.flusher = None;
        }
        idle
    }

    /// Gives the outlet its end. `first` leaves before everything that was sent already.
    pub(crate) fn open(
        &self,
        end: Arc<OwnedFd>,
        first: Vec<(Frame, Vec<Descriptor>)>,
    ) -> Result<(), WireError> {
        let mut state = self.state.lock();
        for (frame, descriptors) in first.into_iter().rev() {
            state.outbox.push_first(frame, descriptors)?;
        }
        state.end = Some(end);
        Ok(())
    }

    /// Puts a frame behind all others, for the flusher, which is not woken.
    ///
    /// # Errors
    ///
    /// A name or a path in it is over its limit. A closed outlet swallows it.
    pub(crate) fn push(&self, frame: Frame, descriptors: Vec<Descriptor>) -> Result<(), WireError> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        state.outbox.push(frame, descriptors)
    }

    /// Sends a small frame without descriptors from any thread.
    pub(crate) fn send(&self, frame: Frame) {
        let mut state = self.state.lock();
        // Such a frame is within every limit.
        if !state.closed && state.outbox.push(frame, Vec::new()).is_ok() {
            let flusher = state.hurry(0);
            drop(state);
            flusher.into_iter().for_each(Waker::wake);
        }
    }

    /// Sends a message from any thread; `under_way` counts those that the other side has not taken.
    /// The letter's type name is within its limit.
    ///
    /// # Errors
    ///
    /// The other side is gone; the handle is given back.
    pub(crate) fn send_message(
        &self,
        letter: Letter,
        handle: Option<(HandleKind, OwnedFd)>,
        topic: Option<Box<str>>,
        under_way: usize,
    ) -> Result<(), Unsent> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Unsent { handle });
        }
        let (kind, descriptor) = handle.map(|(kind, fd)| (kind, Arc::new(fd))).unzip();
        let beside = descriptor.iter().map(|fd: &Arc<OwnedFd>| fd.clone() as Descriptor);
        let frame = Frame::Message { letter, handle: kind, topic };
        if state.outbox.push(frame, beside.collect()).is_err() {
            return Ok(());
        }
        let flusher = state.hurry(under_way);
        if state.closed {
            // The outbox is empty by now, so this is the last owner.
            return Err(Unsent { handle: kind.zip(descriptor.and_then(Arc::into_inner)) });
        }
        let stranded = state.stranded();
        drop(state);
        flusher.into_iter().for_each(Waker::wake);
        if let Some(end) = stranded {
            courier::carry(self.clone(), end);
        }
        Ok(())
    }

    /// A receipt for everything that was sent so far.
    pub(crate) fn track(&self) -> Receipt {
        let mut state = self.state.lock();
        if state.closed {
            return Receipt::lost();
        }
        let (ticket, receipt) = receipt();
        if let Some(ticket) = state.outbox.mark(ticket) {
            ticket.sent();
        }
        receipt
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether everything has left.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().outbox.is_empty()
    }

    /// The messages that have not left yet.
    pub(crate) fn load(&self) -> Load {
        self.state.lock().outbox.load()
    }

    /// Sends nothing any more; what waits is dropped.
    pub(crate) fn close(&self) {
        let dropped = self.state.lock().close();
        // Destructors of sockets and tickets run without the lock.
        drop(dropped);
    }

    /// Returns when no other thread is in the middle of sending.
    pub(crate) fn settle(&self) {
        drop(self.state.lock());
    }

    /// Sends what waits.
    pub(super) fn flush(&self) -> Result<Written, Fault> {
        self.state.lock().write()
    }

    /// Names who is woken when something is left to be sent. Whether something waits.
    pub(super) fn watch(&self, flusher: &Waker) -> bool {
        let mut state = self.state.lock();
        state.watch(flusher);
        !state.outbox.is_empty()
    }
}

impl State {
    /// Sends at once what should not wait; gives whom to wake.
    fn hurry(&mut self, under_way: usize) -> Option<Waker> {
        if self.blocked || self.end.is_none() {
            return None;
        }
        if under_way < EAGER || self.outbox.load().bytes >= GATHERED {
            // A fault is met again by the flusher, whose affair it is.
            let _ = self.write();
        }
        if self.outbox.is_empty() { None } else { self.flusher.clone() }
    }

    /// The end, if something is left that the courier has to be given.
    fn stranded(&mut self) -> Option<Arc<OwnedFd>> {
        if !self.carried || self.outbox.is_empty() || self.flusher.is_some() {
            return None;
        }
        // The courier puts its own here.
        self.flusher = Some(Waker::noop().clone());
        self.end.clone()
    }

    fn watch(&mut self, flusher: &Waker) {
        if !self.flusher.as_ref().is_some_and(|known| known.will_wake(flusher)) {
            self.flusher = Some(flusher.clone());
        }
    }

    fn write(&mut self) -> Result<Written, Fault> {
        let Some(end) = self.end.clone() else { return Ok(Written::All) };
        self.blocked = false;
        while let Some(sealed) = self.outbox.first()? {
            match sealed.send(end.as_fd()) {
                Ok(()) => self.outbox.advance(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(Written::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    drop(self.close());
                }
                Err(error) if is_shortage(&error) => {
                    self.blocked = true;
                    return Ok(Written::Short);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Written::All)
    }

    /// The end goes as well: handles of the worker behind it may be kept for long.
    fn close(&mut self) -> (Outbox, Option<Arc<OwnedFd>>) {
        self.closed = true;
        (std::mem::take(&mut self.outbox), self.end.take())
    }
}

impl Sealed {
    fn send(&self, end: BorrowedFd<'_>) -> io::Result<()> {
        let Some(packet) = self.outgoing.packet() else { return Ok(()) };
        // Only the first packet of a frame has descriptors.
        let count = packet.descriptors.min(self.descriptors.len());
        if count == 0 {
            return send_packet(end, &packet.parts(), &[]);
        }
        let descriptors: Vec<BorrowedFd<'_>> =
            self.descriptors[..count].iter().map(|each| (**each).as_fd()).collect();
        send_packet(end, &packet.parts(), &descriptors)
    }
}

/// The kernel is short of something and will not say when that is over: descriptors in flight
/// (`ETOOMANYREFS`), or memory.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::TOOMANYREFS, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}
