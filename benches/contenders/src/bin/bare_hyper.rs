//! The floor of a server that speaks HTTP with hyper: the bare loop, which calls hyper and nothing else.
//!
//! No tasks and wakers, no timeouts, no limits but hyper's, no check of the request's host.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use contenders::bare::{self, Serve};
use contenders::{BODY, Options};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use mio::event::Event;
use mio::net::TcpStream;

/// The most that one read moves.
const SCRATCH_BYTES: usize = 4096;

fn main() -> io::Result<()> {
    bare::run(Options::from_args(&["--pin"]), || {
        let mut http = http1::Builder::new();
        // Copying a short body behind its head is cheaper than a gathering write.
        http.writev(false);
        let scratch = Rc::new(RefCell::new([0; SCRATCH_BYTES]));
        move |stream| {
            // What came before the registration counts as an event, so nothing is lost by waiting for it.
            let readable = Rc::new(Cell::new(false));
            let (scratch, flag) = (Rc::clone(&scratch), Rc::clone(&readable));
            let io = Io { stream, readable: flag, scratch };
            Session { http: http.serve_connection(io, Hello), readable }
        }
    })
}

struct Session {
    http: http1::Connection<Io, Hello>,
    readable: Rc<Cell<bool>>,
}

impl Serve for Session {
    fn serve(&mut self, _: &Event) -> bool {
        self.readable.set(true);
        Pin::new(&mut self.http).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

struct Hello;

impl Service<Request<Incoming>> for Hello {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        let mut answer = Response::new(Full::new(Bytes::from_static(BODY.as_bytes())));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        ready(Ok(answer))
    }
}

struct Io {
    stream: TcpStream,
    readable: Rc<Cell<bool>>,
    scratch: Rc<RefCell<[u8; SCRATCH_BYTES]>>,
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.readable.get() {
            return Poll::Pending;
        }
        let mut scratch = this.scratch.borrow_mut();
        let room = buf.remaining().min(SCRATCH_BYTES);
        match this.stream.read(&mut scratch[..room]) {
            Ok(n) => {
                // A read that leaves room has emptied the queue; the end is told again.
                this.readable.set(n == 0 || n == room);
                buf.put_slice(&scratch[..n]);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                this.readable.set(false);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut().stream.write(buf) {
            // The loop waits for readers alone: a peer that does not read its few bytes is none to measure with.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
