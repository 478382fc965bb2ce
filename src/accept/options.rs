//! How to listen: what a program chooses, and what of it the maker of a socket has to know.

use std::{io, sync::Arc, time::Duration};

use socket2::{Domain, Socket, TcpKeepalive};

use crate::{
    config::Address,
    error::{Error, ErrorKind, Result},
};

/// The most bytes that [`ListenOptions::data`] takes.
const MAX_DATA: usize = 16 << 10;

/// How a worker listens, beside where (Node: the options of `server.listen`).
///
/// ```
/// let options = bimodal::ListenOptions::new().backlog(128).max_connections(100);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until `Worker::listen_with` has them"]
pub struct ListenOptions {
    pub(crate) socket: SocketOptions,
    pub(crate) exclusive: bool,
    pub(crate) reuse_port: bool,
    pub(crate) max_connections: Option<usize>,
    pub(crate) drop_excess: bool,
    pub(crate) data: Option<Arc<[u8]>>,
    pub(crate) stream: StreamOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            socket: SocketOptions { backlog: 1024, ..SocketOptions::default() },
            exclusive: false,
            reuse_port: false,
            max_connections: None,
            drop_excess: false,
            data: None,
            stream: StreamOptions::default(),
        }
    }
}

impl ListenOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections the kernel keeps before they are accepted. Default 1024; the kernel caps it at
    /// `net.core.somaxconn` (listen(2)). If workers that share an address differ, the largest counts.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.socket.backlog = connections;
        self
    }

    /// Whether a socket on `[::]` refuses IPv4 clients (Node: `ipv6Only`). Default false. If workers
    /// that share an address differ, the first counts.
    pub fn ipv6_only(mut self, ipv6_only: bool) -> Self {
        self.socket.ipv6_only = ipv6_only;
        self
    }

    /// Whether the worker binds for itself instead of sharing (Node: `exclusive`). Default false.
    ///
    /// The cluster does not know of such a listener: there is no `listening` event, port 0 is a port
    /// of this worker's own, and [`disconnect`](crate::Worker::disconnect) neither closes it nor waits
    /// for it: it goes on until the body drops it or returns.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Whether the worker binds for itself with `SO_REUSEPORT`, so that several such listeners, also
    /// in one worker, have one port, and the kernel spreads connections over them (Node:
    /// `reusePort`). Default false. Otherwise as [`exclusive`](Self::exclusive).
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Lets every user of the machine read from a Unix socket's file (Node: `readableAll`). Default
    /// false: the directory and the umask decide. An abstract socket has no file and refuses it.
    pub fn readable_all(mut self, readable: bool) -> Self {
        self.socket.readable_all = readable;
        self
    }

    /// Lets every user of the machine write to a Unix socket's file, which connecting needs (Node:
    /// `writableAll`). Otherwise as [`readable_all`](Self::readable_all).
    pub fn writable_all(mut self, writable: bool) -> Self {
        self.socket.writable_all = writable;
        self
    }

    /// The most connections of this listener that are open in this worker at a time (Node:
    /// `server.maxConnections`). Default: any number; 0 takes none.
    ///
    /// A worker that has as many gets no more until one ends; others go on. When all are full,
    /// connections wait in the kernel's backlog.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Whether a full worker takes connections all the same and closes them at once, counted in
    /// [`Listener::dropped`](crate::Listener::dropped) (Node: `dropMaxConnection`). Default false.
    pub fn drop_excess(mut self, drop_excess: bool) -> Self {
        self.drop_excess = drop_excess;
        self
    }

    /// Bytes for all workers that listen here, such as the keys of TLS tickets: what the first worker
    /// that brings any supplies, every later one finds in
    /// [`Listener::data`](crate::Listener::data), also those that bring others. At most 16 KiB.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = Some(data.into().into());
        self
    }

    /// Whether the kernel keeps a connection to itself until the client has sent something
    /// (`TCP_DEFER_ACCEPT`, tcp(7); nginx: `deferred`). Default false. A Unix socket has no such thing.
    ///
    /// It comes together with its first bytes then, which saves a wake-up and three system calls. Whoever
    /// says nothing comes after about a second. Not for a server that speaks first: its clients would wait for
    /// that second. If workers that share an address differ, the first counts; a socket that was bound
    /// before the program was started has what it had, if none asks for this.
    pub fn defer_accept(mut self, defer_accept: bool) -> Self {
        self.socket.defer_accept = defer_accept;
        self
    }

    /// Whether small writes leave at once (`TCP_NODELAY`; Node: `noDelay`). Default true.
    pub fn no_delay(mut self, no_delay: bool) -> Self {
        self.stream.no_delay = no_delay;
        self
    }

    /// Asks a peer that has been silent for this long, at least a second, whether it is still there
    /// (`SO_KEEPALIVE`; Node: `keepAlive`, `keepAliveInitialDelay`). Default: never.
    pub fn keep_alive(mut self, silence: Duration) -> Self {
        self.stream.keep_alive = Some(silence.max(Duration::from_secs(1)));
        self
    }

    /// Whether the worker makes the socket itself.
    pub(crate) fn is_own(&self) -> bool {
        self.exclusive || self.reuse_port
    }

    /// What cannot hold, whoever binds.
    pub(crate) fn check(&self, address: &Address) -> Result<()> {
        let data = self.data.as_ref().map_or(0, |data| data.len());
        if data > MAX_DATA {
            let text = format!("data is {data} bytes; a listener keeps at most {MAX_DATA}");
            return Err(Error::new(ErrorKind::Setting, text));
        }
        if self.is_own() && self.data.is_some() {
            let text = "data cannot be given with exclusive or reuse_port: nobody shares the socket; leave one out";
            return Err(Error::new(ErrorKind::Setting, text));
        }
        if matches!(address, Address::Udp(_)) {
            let text = format!("{address} receives datagrams; use bind_udp for it");
            return Err(Error::new(ErrorKind::Setting, text));
        }
        check_own(address, self.is_own())
    }
}

/// How a worker receives datagrams, beside where (Node: the options of `dgram.createSocket` and
/// `socket.bind`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "options do nothing until `Worker::bind_udp_with` has them"]
pub struct UdpOptions {
    pub(crate) socket: SocketOptions,
    pub(crate) exclusive: bool,
    pub(crate) reuse_port: bool,
}

impl UdpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a socket on `[::]` leaves IPv4 alone (Node: `ipv6Only`). Default false.
    pub fn ipv6_only(mut self, ipv6_only: bool) -> Self {
        self.socket.ipv6_only = ipv6_only;
        self
    }

    /// Lets several sockets with this option have one port (`SO_REUSEADDR`, of which the last one
    /// bound gets the datagrams; Node: `reuseAddr`). Default false. The n-th such bind of every
    /// worker to one address is the same socket.
    pub fn reuse_address(mut self, reuse_address: bool) -> Self {
        self.socket.reuse_address = reuse_address;
        self
    }

    /// Whether the worker binds for itself instead of sharing (Node: `exclusive`), as
    /// [`ListenOptions::exclusive`]. Default false.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Whether the worker binds for itself with `SO_REUSEPORT`: the kernel spreads datagrams over
    /// such sockets by their sender, far more evenly than it does over workers that share one socket
    /// (Node: `reusePort`). Default false. Otherwise as [`exclusive`](Self::exclusive).
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    pub(crate) fn is_own(&self) -> bool {
        self.exclusive || self.reuse_port
    }

    /// What cannot hold, whoever binds.
    pub(crate) fn check(&self, address: &Address) -> Result<()> {
        if !matches!(address, Address::Udp(_) | Address::Fd(_)) {
            let text = format!("{address} is no address for datagrams; it must be udp:IP:PORT");
            return Err(Error::new(ErrorKind::Setting, text));
        }
        check_own(address, self.is_own())
    }
}

/// A descriptor is the primary's, so the primary must be asked.
fn check_own(address: &Address, own: bool) -> Result<()> {
    if own && matches!(address, Address::Fd(_)) {
        let text = format!(
            "{address} is a descriptor of the primary's and cannot be exclusive; leave that out, or use listen_on for a socket of the worker's own"
        );
        return Err(Error::new(ErrorKind::Setting, text));
    }
    Ok(())
}

/// What whoever makes a socket has to know beside the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// A socket for datagrams instead of connections.
    pub(crate) datagram: bool,
    pub(crate) backlog: u32,
    pub(crate) defer_accept: bool,
    pub(crate) ipv6_only: bool,
    pub(crate) reuse_address: bool,
    pub(crate) readable_all: bool,
    pub(crate) writable_all: bool,
}

/// The options of an accepted connection. They are set by the worker that gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    pub(crate) no_delay: bool,
    pub(crate) keep_alive: Option<Duration>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { no_delay: true, keep_alive: None }
    }
}

impl StreamOptions {
    /// Sets them on a connection whose listening socket has the defaults. A Unix socket has none.
    pub(crate) fn set_on(self, stream: &Socket) -> io::Result<()> {
        if self == Self::default() || stream.domain()? == Domain::UNIX {
            return Ok(());
        }
        if let Some(silence) = self.keep_alive {
            stream.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence))?;
        }
        stream.set_tcp_nodelay(self.no_delay)
    }
}

/// What a worker asks the primary to open for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Resolved: not a name; a path is absolute.
    pub(crate) address: Address,
    pub(crate) options: SocketOptions,
    /// For whoever else comes.
    pub(crate) data: Option<Arc<[u8]>>,
}
