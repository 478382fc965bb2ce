//! The bare loop: N threads, each a mio loop with a SO_REUSEPORT listener of its own.
//!
//! No lock, no herd, no hand-over, the least work the kernel offers. The price is the kernel's choice by hash, which
//! spreads few connections unevenly; CPU per request does not feel it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::{Options, announce};

const LISTENER: Token = Token(usize::MAX - 1);
const BACKLOG: i32 = 1024;

/// What a server makes of one connection.
pub trait Serve {
    /// Goes on with the connection after an event; false when it is over.
    fn serve(&mut self, event: &Event) -> bool;
}

/// Runs the loops. Each calls `prepare` once, and what that returns for every connection.
///
/// # Errors
///
/// When the address cannot be listened on, or a loop fails.
pub fn run<S: Serve, A: FnMut(TcpStream) -> S>(
    mut options: Options,
    prepare: impl Fn() -> A + Clone + Send + 'static,
) -> io::Result<()> {
    let mut listeners = Vec::new();
    for _ in 0..options.workers {
        let listener = bind(options.listen)?;
        // The first listener turns port 0 into the port that the others share.
        options.listen = listener.local_addr()?;
        listeners.push(listener);
    }
    let cores = if options.pin { core_affinity::get_core_ids() } else { None };
    let mut cores = cores.unwrap_or_default().into_iter();
    announce(options.listen);
    let start = |listener| {
        let (prepare, core) = (prepare.clone(), cores.next());
        thread::spawn(move || {
            if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
                return Err(io::Error::other("--pin: a core cannot be had"));
            }
            run_one(listener, prepare())
        })
    };
    let loops: Vec<_> = listeners.into_iter().map(start).collect();
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

fn run_one<S: Serve>(
    mut listener: TcpListener,
    mut adopt: impl FnMut(TcpStream) -> S,
) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut connections = Slab::new();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let key = event.token().0;
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections, &mut adopt)?;
            } else if connections
                .get_mut(key)
                .is_some_and(|connection: &mut S| !connection.serve(event))
            {
                // Closing the descriptor takes it out of epoll: it has no duplicate.
                connections.remove(key);
            }
        }
    }
}

fn accept<S>(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Slab<S>,
    adopt: &mut impl FnMut(TcpStream) -> S,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        // A connection that is already gone refuses the option; reading from it will tell.
        let _ = stream.set_nodelay(true);
        let entry = connections.vacant_entry();
        let token = Token(entry.key());
        poll.registry().register(&mut stream, token, Interest::READABLE)?;
        entry.insert(adopt(stream));
    }
}
