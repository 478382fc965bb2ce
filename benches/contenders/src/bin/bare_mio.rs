//! The floor: N threads, each a mio loop that answers every read with one fixed response and parses nothing.
//!
//! Every thread has its own SO_REUSEPORT listener: no lock, no herd, no hand-over, the least work the kernel offers. The
//! price is the kernel's choice by hash, which spreads few connections unevenly; CPU per request does not feel it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;

use contenders::{BODY, Options, announce};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

const LISTENER: Token = Token(usize::MAX - 1);
const BACKLOG: i32 = 1024;

fn main() -> io::Result<()> {
    let mut options = Options::from_args();
    let mut listeners = Vec::new();
    for _ in 0..options.workers {
        let listener = bind(options.listen)?;
        // The first listener turns port 0 into the port that the others share.
        options.listen = listener.local_addr()?;
        listeners.push(listener);
    }
    announce(options.listen);
    let close = options.close;
    let loops: Vec<_> =
        listeners.into_iter().map(|listener| thread::spawn(move || run(listener, close))).collect();
    for each in loops {
        each.join().map_err(|_| io::Error::other("a loop panicked"))??;
    }
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn run(mut listener: TcpListener, close: bool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server { poll: &mut poll, streams: Slab::new(), answer: answer(close), close };
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener)?,
                _ => server.serve(event),
            }
        }
    }
}

fn answer(close: bool) -> Vec<u8> {
    let connection = if close { "connection: close\r\n" } else { "" };
    let length = BODY.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n{connection}\r\n{BODY}")
        .into_bytes()
}

/// One loop's connections, and what it tells them.
struct Server<'a> {
    poll: &'a mut Poll,
    streams: Slab<TcpStream>,
    answer: Vec<u8>,
    close: bool,
}

impl Server<'_> {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            // A connection that is already gone refuses the option; reading from it will tell.
            let _ = stream.set_nodelay(true);
            let entry = self.streams.vacant_entry();
            let token = Token(entry.key());
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            entry.insert(stream);
        }
    }

    fn serve(&mut self, event: &Event) {
        let key = event.token().0;
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !respond(stream, &self.answer) || self.close || event.is_read_closed() {
            // Closing the descriptor takes it out of epoll: it has no duplicate.
            self.streams.remove(key);
        }
    }
}

/// Answers one read; false when the connection is over.
///
/// One read is enough under edge triggering: it takes less than the buffer, so the queue was empty, and what comes later
/// is a new edge.
fn respond(stream: &mut TcpStream, answer: &[u8]) -> bool {
    let mut request = [0; 4096];
    match stream.read(&mut request) {
        Ok(0) => false,
        Ok(_) => matches!(stream.write(answer), Ok(written) if written == answer.len()),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
