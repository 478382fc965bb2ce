//! A worker's UDP socket.
//!
//! One that is shared is a duplicate of the primary's: whoever looks first gets a datagram, and the
//! primary has nothing to do with it. How many a worker takes per turn is bounded, so that its other
//! tasks, and the other workers, have their turn.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    task::{Context, Poll},
};

use mio::Interest;
use rustix::net::{RecvFlags, SendFlags};
use socket2::Socket;

use super::{
    State,
    desk::{Desk, Limit},
    turn::{Turn, wake_next_turn},
};
use crate::{
    accept::{Grant, Intake, ListeningSocket},
    config::Address,
    error::{Context as _, Error, ErrorKind, Result},
    event_loop::Source,
    id::ListenerId,
};

/// Datagrams taken per turn.
const TAKEN_PER_TURN: u32 = 32;

/// A UDP socket on a worker's loop, shared with other workers or the worker's own (Node: a
/// `dgram.Socket` in a worker).
///
/// Dropping it withdraws this worker; with the last one the address is closed. The descriptor
/// ([`AsFd`]) is for options such as buffer sizes; a shared socket has them once for all workers, and
/// can join a multicast group only once: the second worker that tries gets `EADDRINUSE`.
pub struct UdpSocket {
    state: Rc<State>,
    desk: Rc<Desk>,
    source: Source<Socket>,
    turn: Cell<Turn>,
}

impl UdpSocket {
    /// What the primary granted.
    pub(super) fn open(state: Rc<State>, grant: Grant) -> Result<Self> {
        let desk = Rc::new(Desk::new(Some(grant.listener), grant.address, Limit::default()));
        let Intake::Socket(socket) = grant.intake else {
            desk.set_up(&state);
            desk.take_down(&state);
            let text = format!("the primary granted {} without a socket", desk.address());
            return Err(Error::new(ErrorKind::Protocol, text));
        };
        Self::new(state, desk, socket)
    }

    /// A socket that the primary does not know of.
    pub(super) fn own(state: Rc<State>, socket: ListeningSocket) -> Result<Self> {
        let failed = || "cannot use a UDP socket of the worker's own".into();
        let address = socket.address().context(ErrorKind::Listen, failed)?;
        let socket = socket.share().context(ErrorKind::Listen, failed)?;
        Self::new(state, Rc::new(Desk::new(None, address, Limit::default())), socket)
    }

    fn new(state: Rc<State>, desk: Rc<Desk>, socket: Socket) -> Result<Self> {
        desk.set_up(&state);
        let source = Source::new(socket, Interest::READABLE | Interest::WRITABLE);
        let source = source.inspect_err(|_| desk.take_down(&state));
        let waiting = || format!("cannot wait for datagrams on {}", desk.address());
        let source = source.context(ErrorKind::Listen, waiting)?;
        Ok(Self { state, desk, source, turn: Cell::default() })
    }

    /// Its number in the cluster, if the cluster knows of it.
    pub(super) fn id(&self) -> Option<ListenerId> {
        self.desk.id()
    }

    /// Where it receives: an [`Address::Udp`], never port 0.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.desk.address()
    }

    /// The next datagram: its length and its sender; what does not fit into `buf` is lost. `None`
    /// when this worker is to leave and the socket is shared: the others get what comes.
    ///
    /// # Errors
    ///
    /// What the operating system reports, except that nothing has come.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        poll_fn(|cx| self.poll_recv_from(cx, buf)).await
    }

    /// Sends one datagram and says how many bytes it has.
    ///
    /// # Errors
    ///
    /// What the operating system reports, except that its buffer is full.
    pub async fn send_to(&self, buf: &[u8], target: SocketAddr) -> io::Result<usize> {
        let send =
            |socket: &Socket| Ok(rustix::net::sendto(socket, buf, SendFlags::NOSIGNAL, &target)?);
        self.source.write_io(send).await
    }

    /// Withdraws this worker from the address; the others go on.
    pub fn close(self) {}

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<Option<(usize, SocketAddr)>>> {
        if self.desk.is_withdrawn() {
            return Poll::Ready(Ok(None));
        }
        self.desk.park(cx.waker());
        let mut turn = self.turn.get();
        if !turn.take_one(TAKEN_PER_TURN) {
            wake_next_turn(cx);
            return Poll::Pending;
        }
        let polled = self.source.poll_read_io(cx, |socket| receive(socket, buf));
        if polled.is_pending() {
            turn.give_back();
        }
        self.turn.set(turn);
        polled.map_ok(Some)
    }
}

fn receive(socket: &Socket, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (length, _, sender) = rustix::net::recvfrom(socket, buf, RecvFlags::empty())?;
    let sender = sender.and_then(|sender| SocketAddr::try_from(sender).ok());
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "a datagram without a sender");
    Ok((length, sender.ok_or_else(unknown)?))
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get_ref().as_fd()
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.desk.take_down(&self.state);
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("address", self.address()).finish_non_exhaustive()
    }
}
