//! Accepting from one listening socket, whatever accept(2) says.
//!
//! Runs on the loop of whoever accepts: the primary, or a worker that has the socket itself. An error
//! costs at most its own connection: one that belongs to a single connection is passed over at once,
//! a shortage of descriptors or memory pauses this socket (not the loop) for [`PAUSE`].

use std::{
    future::Future as _,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use mio::Interest;
use rustix::{io::Errno, net::SocketFlags};
use socket2::Socket;

use crate::{
    event_loop::{Sleep, Source, sleep},
    sys,
};

/// How long a socket rests when descriptors or memory have run out. No edge will come for the
/// connections that wait meanwhile, so accepting comes back by itself.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket on the current loop.
#[derive(Debug)]
pub(crate) struct Acceptor {
    source: Source<Socket>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Nothing was accepted since it first paused.
    failing: bool,
    /// The first error of a shortage, until somebody asks.
    failure: Option<io::Error>,
    /// It rests although it may have been woken for a connection, as nobody else was, until somebody asks.
    left_behind: bool,
    /// Other loops accept from duplicates, too: those that wait stand in line, and the kernel wakes one.
    shared: bool,
    /// Connections that waited when somebody looked, less those that were accepted since: others may have taken them.
    waiting: u32,
}

impl Acceptor {
    /// Registers a listening, non-blocking socket.
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self::of(Source::new(socket, Interest::READABLE)?, false))
    }

    /// Accepts from a duplicate of a socket from which other loops accept in this way, too: the kernel wakes one of
    /// those that wait.
    pub(crate) fn shared(socket: Socket) -> io::Result<Self> {
        Ok(Self::of(Source::shared(socket)?, true))
    }

    fn of(source: Source<Socket>, shared: bool) -> Self {
        Self {
            source,
            pause: None,
            failing: false,
            failure: None,
            left_behind: false,
            shared,
            waiting: 0,
        }
    }

    /// Does not wait until it is polled again. Whether the kernel may have woken this loop, and no other, for a connection
    /// that is not accepted yet.
    pub(crate) fn stop_waiting(&mut self) -> bool {
        self.leave_line() && sys::socket::may_have_waiting(self.source.get_ref())
    }

    /// Waits no more, and takes the connection that the kernel may have woken this loop for.
    pub(crate) fn last(&mut self, cx: &mut Context<'_>) -> Option<Socket> {
        if !self.stop_waiting() {
            return None;
        }
        self.look();
        match self.poll_source(cx) {
            Poll::Ready(accepted) => accepted.ok().map(Socket::from),
            Poll::Pending => None,
        }
    }

    /// Has the next poll look for connections, woken or not.
    pub(crate) fn look(&self) {
        self.source.expect_readable();
    }

    /// Why accepting began to fail, said once for each shortage.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Whether a connection may wait since accepting failed for which no other loop was woken. Said once for each.
    pub(crate) fn take_left_behind(&mut self) -> bool {
        std::mem::take(&mut self.left_behind)
    }

    /// The next connection, non-blocking and close-on-exec. An error means that this socket will
    /// never accept again.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if !self.source.is_registered() {
                self.look();
            }
            let error = match self.poll_source(cx) {
                Poll::Ready(Ok(socket)) => {
                    self.failing = false;
                    self.leave_line();
                    return Poll::Ready(Ok(socket.into()));
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => match self.join_line() {
                    Ok(()) => return Poll::Pending,
                    Err(error) => error,
                },
            };
            match Trouble::of(&error) {
                Trouble::Connection => {}
                Trouble::Shortage => self.rest(error),
                Trouble::Socket => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let waiting = &mut self.waiting;
        self.source.poll_read_io(cx, |socket| accept(socket, waiting))
    }

    /// At its end, since the kernel asks from its beginning: of loops that are idle each gets its turn.
    fn join_line(&self) -> io::Result<()> {
        if self.shared { self.source.join_line() } else { Ok(()) }
    }

    /// Who has taken a connection may be busy for long. Whether this loop was in line.
    fn leave_line(&self) -> bool {
        self.shared && self.source.leave_line()
    }

    fn rest(&mut self, error: io::Error) {
        log::warn!("cannot accept for {} ms: {error}", PAUSE.as_millis());
        self.pause = Some(Box::pin(sleep(PAUSE)));
        // Another process may have descriptors left.
        self.left_behind |= self.stop_waiting();
        if !std::mem::replace(&mut self.failing, true) {
            self.failure = Some(error);
        }
    }
}

/// Asks first whether a connection waits, unless that is known: accept(2) makes a descriptor and its file before it looks
/// (`do_accept` in Linux), so that its `EAGAIN` costs eight times as much. Of a Unix socket only trying tells.
fn accept(socket: &Socket, waiting: &mut u32) -> io::Result<OwnedFd> {
    if *waiting == 0 {
        *waiting = sys::socket::backlog(socket).unwrap_or(1);
    }
    *waiting = waiting.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
    let accepted = rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    Ok(accepted.inspect_err(|_| *waiting = 0)?)
}

/// What an error of accept(2) is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// One connection that was gone before it was accepted; the next may be fine.
    Connection,
    /// Descriptors or memory, here or in the whole system.
    Shortage,
    /// The listening socket itself.
    Socket,
}

impl Trouble {
    /// Sorted as accept(2) describes them; an unknown error rests, which at worst costs time.
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(
                Errno::CONNABORTED
                | Errno::PROTO
                | Errno::PERM
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::TIMEDOUT,
            ) => Self::Connection,
            Some(Errno::BADF | Errno::NOTSOCK | Errno::INVAL | Errno::OPNOTSUPP | Errno::FAULT) => {
                Self::Socket
            }
            _ => Self::Shortage,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{future::poll_fn, net::TcpListener, os::fd::AsFd};

    use crate::event_loop::EventLoop;

    #[test]
    fn errors_are_sorted_as_the_manual_describes_them() {
        for (errno, trouble) in [
            (Errno::CONNABORTED, Trouble::Connection),
            (Errno::PROTO, Trouble::Connection),
            (Errno::INTR, Trouble::Connection),
            (Errno::MFILE, Trouble::Shortage),
            (Errno::NFILE, Trouble::Shortage),
            (Errno::NOMEM, Trouble::Shortage),
            (Errno::NOBUFS, Trouble::Shortage),
            (Errno::BADF, Trouble::Socket),
        ] {
            assert_eq!(Trouble::of(&errno.into()), trouble, "{errno}");
        }
    }

    #[test]
    fn what_is_accepted_does_not_block_and_is_not_inherited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut event_loop = EventLoop::new().unwrap();
        let accepted = event_loop.block_on(async {
            let mut acceptor = Acceptor::new(listener.into()).unwrap();
            poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap()
        });
        let accepted = accepted.unwrap();
        assert!(
            rustix::io::fcntl_getfd(accepted.as_fd())
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        assert!(
            rustix::fs::fcntl_getfl(accepted.as_fd())
                .unwrap()
                .contains(rustix::fs::OFlags::NONBLOCK)
        );
    }
}
