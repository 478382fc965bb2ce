//! One accepted stream on the loop that serves it.
//!
//! Owns the socket and its registration. Belongs to the thread that made it. Dropping it closes it,
//! and if another process or thread may still hold a duplicate, ends its writing side first: the
//! FIN must not wait for the duplicate.
//!
//! A read or write that moved fewer bytes than it could have has emptied (or filled) the kernel's
//! buffer, so readiness is cleared at once: the next byte makes a new edge, and the call that would
//! only say `EAGAIN` is saved. The end of the stream makes an edge of its own when it comes after
//! that read; when it came before, its event had the peer's close in it, and a source keeps a
//! readiness that says so.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    task::{Context, Poll, ready},
};

use mio::Interest;
use rustix::net::{RecvFlags, SendFlags};
use socket2::Socket;

use super::Count;
use crate::event_loop::Source;

/// An accepted stream, TCP or Unix, on the current event loop.
pub struct Connection {
    /// Absent only while its socket is taken out, which consumes the connection.
    source: Option<Source<Socket>>,
    meter: Option<Rc<dyn Count>>,
    handed: bool,
}

impl Connection {
    /// Adopts an accepted socket: it becomes non-blocking, and a TCP one sends without delay
    /// (`TCP_NODELAY`). `handed` says that a duplicate
    /// may live elsewhere; without it there must be none.
    ///
    /// # Errors
    ///
    /// The socket could not be configured, or the loop has too many sources.
    ///
    /// # Panics
    ///
    /// When the thread has no current event loop.
    pub fn new(stream: Socket, meter: Option<Rc<dyn Count>>, handed: bool) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        send_without_delay(&stream)?;
        Self::adopt(stream, meter, handed)
    }

    /// As [`new`](Self::new), for a socket that is non-blocking already and has the options of its
    /// listening socket.
    pub(crate) fn adopt(
        stream: Socket,
        meter: Option<Rc<dyn Count>>,
        handed: bool,
    ) -> io::Result<Self> {
        let source = source(stream)?;
        let source = if handed { source } else { source.sole() };
        if let Some(meter) = &meter {
            meter.opened();
        }
        Ok(Self { source: Some(source), meter, handed })
    }

    /// Serves a stream that came with a message, or from anywhere else: it becomes non-blocking, and
    /// a TCP one sends without delay. It may have duplicates; dropping the connection closes this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// When the thread has no current event loop.
    pub fn from_stream(stream: impl Into<Socket>) -> io::Result<Self> {
        Self::from_counted_stream(stream.into(), None)
    }

    /// As [`from_stream`](Self::from_stream), counted.
    pub(crate) fn from_counted_stream(
        stream: Socket,
        meter: Option<Rc<dyn Count>>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        send_without_delay(&stream)?;
        let source = source(stream)?;
        if let Some(meter) = &meter {
            meter.opened();
        }
        Ok(Self { source: Some(source), meter, handed: false })
    }

    /// The socket, off this loop and no longer counted here.
    pub(crate) fn into_socket(mut self) -> Socket {
        self.handed = false;
        #[expect(clippy::expect_used, reason = "this takes it, once")]
        let source = self.source.take().expect("a connection has its socket");
        source.into_inner()
    }

    /// The other side's address; `None` for a Unix socket or a peer that has gone.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()?.as_socket()
    }

    /// This side's address; `None` for a Unix socket.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket().local_addr().ok()?.as_socket()
    }

    /// Who counts this connection's requests.
    #[must_use]
    pub fn meter(&self) -> Option<&Rc<dyn Count>> {
        self.meter.as_ref()
    }

    /// Reads what is there, at most `buf`. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    ///
    /// What the operating system reports, except that there is nothing to read yet.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.source().poll_read_io(cx, |socket| receive(socket, buf)));
        if matches!(read, Ok(n) if n > 0 && n < buf.len()) {
            self.source().clear_readable();
        }
        Poll::Ready(read)
    }

    /// Writes as much of `buf` as the kernel takes.
    ///
    /// # Errors
    ///
    /// What the operating system reports, except that its buffer is full.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.source().poll_write_io(cx, |socket| send(socket, buf)));
        self.note_written(&written, buf.len());
        Poll::Ready(written)
    }

    /// Writes as much of `buf` as the kernel takes now, whatever the loop knows of it.
    #[cfg(feature = "http")]
    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        let written = send(self.socket(), buf);
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if written.as_ref().map_or_else(is_full, |n| *n < buf.len()) {
            self.source().clear_writable();
        }
        written
    }

    /// Has the next write tried, although the kernel has not told of room: it does when much of what is under way was
    /// read.
    #[cfg(feature = "http")]
    pub(crate) fn expect_room(&self) {
        self.source().expect_writable();
    }

    /// Writes as much of `bufs`, in order, as the kernel takes.
    ///
    /// # Errors
    ///
    /// As [`poll_write`](Self::poll_write).
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written =
            ready!(self.source().poll_write_io(cx, |mut socket| socket.write_vectored(bufs)));
        self.note_written(&written, bufs.iter().map(|buf| buf.len()).sum());
        Poll::Ready(written)
    }

    fn note_written(&self, written: &io::Result<usize>, wanted: usize) {
        if matches!(written, Ok(n) if *n < wanted) {
            self.source().clear_writable();
        }
    }

    /// Ends this side's stream: the peer reads to its end.
    ///
    /// # Errors
    ///
    /// What the operating system reports, as when the peer has gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Write)
    }

    /// Reads what is there, at most `buf`, waiting for the first byte.
    ///
    /// # Errors
    ///
    /// As [`poll_read`](Self::poll_read).
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    ///
    /// As [`poll_write`](Self::poll_write); some of it may have been written.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let n = poll_fn(|cx| self.poll_write(cx, buf)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buf = &buf[n..];
        }
        Ok(())
    }

    /// Whether bytes are there that nobody has read, whatever the loop knows of it.
    #[cfg(feature = "http")]
    pub(crate) fn has_input(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(self.socket(), &mut [0_u8; 1], flags).is_ok_and(|(_, there)| there > 0)
    }

    fn socket(&self) -> &Socket {
        self.source().get_ref()
    }

    fn source(&self) -> &Source<Socket> {
        #[expect(clippy::expect_used, reason = "only taking the socket out takes it")]
        self.source.as_ref().expect("a connection has its socket")
    }
}

impl AsFd for Connection {
    /// For options of the socket; reading and writing beside the connection would confuse it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.handed {
            // The peer may have gone already; the close below is all that is left then.
            let _ = self.shutdown_write();
        }
        if let Some(meter) = &self.meter {
            meter.closed();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.source.as_ref().map(Source::get_ref))
            .finish_non_exhaustive()
    }
}

/// Most connections have a request waiting already, and some end with its answer: those are never registered.
fn source(stream: Socket) -> io::Result<Source<Socket>> {
    Source::new_lazy(stream, Interest::READABLE | Interest::WRITABLE)
}

// Straight to the kernel: in a program with threads, libc's own `recv` and `send` pay for being
// points of cancellation.

fn receive(socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(socket, buf, RecvFlags::empty())?;
    Ok(received)
}

fn send(socket: &Socket, buf: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, buf, SendFlags::NOSIGNAL)?)
}

/// Only TCP has the option; a Unix socket says so and needs nothing.
fn send_without_delay(stream: &Socket) -> io::Result<()> {
    match stream.set_tcp_nodelay(true) {
        Err(error)
            if matches!(
                rustix::io::Errno::from_io_error(&error),
                Some(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOPROTOOPT)
            ) =>
        {
            Ok(())
        }
        // A peer that reset before it was adopted is found by the first read.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        cell::Cell,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        time::Duration,
    };

    use super::*;
    use crate::event_loop::{self, EventLoop};

    #[derive(Default)]
    struct Counted {
        opened: Cell<u32>,
        closed: Cell<u32>,
    }

    impl Count for Counted {
        fn opened(&self) {
            self.opened.set(self.opened.get() + 1);
        }
        fn closed(&self) {
            self.closed.set(self.closed.get() + 1);
        }
        fn request(&self) {}
    }

    fn on_a_loop<T>(run: impl AsyncFnOnce() -> T) -> T {
        let limited = async { event_loop::timeout(Duration::from_secs(10), run()).await };
        EventLoop::new().unwrap().block_on(limited).unwrap().unwrap()
    }

    #[test]
    fn an_end_that_came_with_the_data_is_not_missed() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        on_a_loop(async || {
            let connection = Connection::new(ours.into(), None, false).unwrap();
            theirs.write_all(b"ab").unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            // The one event for both is dispatched before the first read.
            event_loop::sleep(Duration::from_millis(2)).await;
            let mut buf = [0; 16];
            assert_eq!(connection.read(&mut buf).await.unwrap(), 2);
            assert_eq!(connection.read(&mut buf).await.unwrap(), 0);
        });
    }

    #[test]
    fn data_after_a_short_read_is_seen() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        on_a_loop(async || {
            let connection = Connection::new(ours.into(), None, false).unwrap();
            let mut buf = [0; 16];
            for _ in 0..3 {
                theirs.write_all(b"ab").unwrap();
                assert_eq!(connection.read(&mut buf).await.unwrap(), 2);
            }
        });
    }

    #[test]
    fn the_kernel_learns_of_a_connection_when_it_first_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        on_a_loop(async || {
            let connection = Connection::new(ours.into(), None, false).unwrap();
            let mut buf = [0; 16];
            theirs.write_all(b"ab").unwrap();
            assert_eq!(connection.read(&mut buf).await.unwrap(), 2);
            connection.write_all(b"ab").await.unwrap();
            assert!(!connection.source().is_registered());
            // Between the short read and the wait.
            theirs.write_all(b"cd").unwrap();
            assert_eq!(connection.read(&mut buf).await.unwrap(), 2);
            assert!(connection.source().is_registered());
            theirs.shutdown(Shutdown::Write).unwrap();
            assert_eq!(connection.read(&mut buf).await.unwrap(), 0);
        });
    }

    #[test]
    fn more_than_the_kernel_takes_at_once_is_written() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || io::copy(&mut &theirs, &mut io::sink()).unwrap());
        on_a_loop(async || {
            let connection = Connection::new(ours.into(), None, false).unwrap();
            connection.write_all(&vec![7; 4 << 20]).await.unwrap();
        });
        assert_eq!(reader.join().unwrap(), 4 << 20);
    }

    #[test]
    fn a_duplicate_does_not_delay_the_end_of_a_handed_connection() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let duplicate = ours.try_clone().unwrap();
        let counted = Rc::new(Counted::default());
        on_a_loop(async || {
            let meter: Rc<dyn Count> = Rc::clone(&counted) as _;
            let connection = Connection::new(ours.into(), Some(meter), true).unwrap();
            assert_eq!((counted.opened.get(), counted.closed.get()), (1, 0));
            drop(connection);
        });
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert_eq!(counted.closed.get(), 1);
        drop(duplicate);
    }
}
