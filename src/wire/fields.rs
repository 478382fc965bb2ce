//! What frames are made of, with the bytes of each.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use super::{
    DATA_LIMIT, NAME_LIMIT, PATH_LIMIT, SMALL, VERSION, WireError,
    bytes::{Reader, Writer, within},
};
use crate::config::MAX_REGIONS;

/// A region that the cluster shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Its name.
    pub(crate) name: String,
    /// How many words of 8 bytes it has.
    pub(crate) words: u64,
}

/// A message of the user's in encoded form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    /// The type that was sent, for the error text when another one is asked for.
    pub(crate) type_name: Cow<'static, str>,
    /// The serialized value.
    pub(crate) payload: Vec<u8>,
}

impl Letter {
    /// How many bytes it takes in a `Messages` frame.
    pub(crate) fn length(&self) -> usize {
        2 * size_of::<u32>() + self.type_name.len() + self.payload.len()
    }

    pub(super) fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        to.counted("a type name", self.type_name.as_bytes(), NAME_LIMIT)?;
        to.counted("a message among others", &self.payload, SMALL)
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let type_name = from.text("a type name", NAME_LIMIT)?.into();
        let payload = from.counted("a message among others", SMALL)?.to_vec();
        Ok(Self { type_name, payload })
    }
}

/// What can be sent with a message besides its value (Node: the types of a `sendHandle`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandleKind {
    /// A [`std::net::TcpStream`] (Node: `net.Socket`).
    TcpStream,
    /// A [`std::net::TcpListener`] (Node: `net.Server`).
    TcpListener,
    /// A [`std::os::unix::net::UnixStream`].
    UnixStream,
    /// A [`std::os::unix::net::UnixListener`].
    UnixListener,
    /// A [`std::net::UdpSocket`] (Node: `dgram.Socket`).
    UdpSocket,
    /// One end of a channel (Node: `MessagePort`).
    Port,
}

impl HandleKind {
    /// All, in the order of their numbers on the wire, which begin with 1.
    pub(super) const ALL: [Self; 6] = [
        Self::TcpStream,
        Self::TcpListener,
        Self::UnixStream,
        Self::UnixListener,
        Self::UdpSocket,
        Self::Port,
    ];

    pub(super) fn number(self) -> u8 {
        self as u8 + 1
    }
}

impl fmt::Display for HandleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TcpStream => "TcpStream",
            Self::TcpListener => "TcpListener",
            Self::UnixStream => "UnixStream",
            Self::UnixListener => "UnixListener",
            Self::UdpSocket => "UdpSocket",
            Self::Port => "Port",
        })
    }
}

/// Why a worker's body failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// It panicked; else it returned an error.
    pub(crate) panicked: bool,
    /// The cause; cut to [`TEXT_LIMIT`].
    pub(crate) text: String,
}

/// How a worker gets the connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The primary accepts and hands them over.
    Handed {
        /// The listener's id.
        listener: u32,
        /// Where it listens in fact.
        address: Address,
    },
    /// The worker accepts, or receives datagrams, from the socket whose descriptor comes with the
    /// frame.
    Socket {
        /// The listener's id.
        listener: u32,
        /// Where it listens in fact.
        address: Address,
    },
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// The path of a Unix socket, at most [`PATH_LIMIT`] bytes; not checked any further here.
    Unix(Vec<u8>),
    /// UDP over IPv4 or IPv6.
    Udp(SocketAddr),
    /// A descriptor of the primary's; not checked here.
    Fd(i32),
}

/// How to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenOptions {
    /// How many connections the kernel queues.
    pub(crate) backlog: u32,
    /// A socket for datagrams instead of connections.
    pub(crate) datagram: bool,
    /// Whether a connection comes with its first bytes.
    pub(crate) defer_accept: bool,
    /// Whether an IPv6 socket leaves IPv4 alone.
    pub(crate) ipv6_only: bool,
    /// Whether several sockets may have the address.
    pub(crate) reuse_address: bool,
    /// Whether all users may read from a Unix socket's file.
    pub(crate) readable_all: bool,
    /// Whether all users may write to it.
    pub(crate) writable_all: bool,
}

pub(super) fn write_regions(to: &mut Writer, regions: &[Region]) -> Result<(), WireError> {
    to.u32(within("a list of regions", regions.len(), MAX_REGIONS)?);
    regions.iter().try_for_each(|Region { name, words }| {
        to.counted("a region's name", name.as_bytes(), NAME_LIMIT)?;
        to.u64(*words);
        Ok(())
    })
}

pub(super) fn read_regions(from: &mut Reader<'_>) -> Result<Vec<Region>, WireError> {
    let count = from.u32("a number of regions")? as usize;
    within("a list of regions", count, MAX_REGIONS)?;
    let region = |_| {
        let name = from.text("a region's name", NAME_LIMIT)?;
        Ok(Region { name, words: from.u64("a region's words")? })
    };
    (0..count).map(region).collect()
}

/// At least one; how many follows from the packet's length.
pub(super) fn read_letters(from: &mut Reader<'_>) -> Result<Vec<Letter>, WireError> {
    let mut letters = vec![Letter::read(from)?];
    while !from.is_empty() {
        letters.push(Letter::read(from)?);
    }
    Ok(letters)
}

/// What the descriptor beside a message is: 0 says that there is none.
pub(super) fn read_handle(from: &mut Reader<'_>) -> Result<Option<HandleKind>, WireError> {
    let what = "a kind of handle";
    match from.u8(what)? {
        0 => Ok(None),
        got => {
            let kind = HandleKind::ALL.get(usize::from(got) - 1).copied();
            kind.map(Some).ok_or(WireError::Value { what, got })
        }
    }
}

/// The version comes before everything that may differ between versions.
pub(super) fn read_version(from: &mut Reader<'_>) -> Result<u16, WireError> {
    match from.u16("a version")? {
        VERSION => Ok(VERSION),
        theirs => Err(WireError::Version { theirs, ours: VERSION }),
    }
}

pub(super) fn write_ids(to: &mut Writer, ids: &[u64], limit: usize) -> Result<(), WireError> {
    if ids.is_empty() {
        return Err(WireError::NoIds);
    }
    to.u32(within("a list of ids", ids.len(), limit)?);
    ids.iter().for_each(|id| to.u64(*id));
    Ok(())
}

pub(super) fn read_ids(from: &mut Reader<'_>, limit: usize) -> Result<Vec<u64>, WireError> {
    let count = from.u32("a number of ids")? as usize;
    within("a list of ids", count, limit)?;
    if count == 0 {
        return Err(WireError::NoIds);
    }
    // `count` is within a limit of a few thousand here, whatever the packet holds.
    (0..count).map(|_| from.u64("an id")).collect()
}

pub(super) fn write_data(to: &mut Writer, data: Option<&[u8]>) -> Result<(), WireError> {
    to.bool(data.is_some());
    data.map_or(Ok(()), |data| to.counted("a listener's data", data, DATA_LIMIT))
}

pub(super) fn read_data(from: &mut Reader<'_>) -> Result<Option<Vec<u8>>, WireError> {
    from.option("a listener's data", |from| {
        Ok(from.counted("a listener's data", DATA_LIMIT)?.to_vec())
    })
}

impl ListenOptions {
    pub(super) fn write(&self, to: &mut Writer) {
        to.u32(self.backlog);
        to.bool(self.datagram);
        to.bool(self.defer_accept);
        to.bool(self.ipv6_only);
        to.bool(self.reuse_address);
        to.bool(self.readable_all);
        to.bool(self.writable_all);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            backlog: from.u32("a backlog")?,
            datagram: from.bool("datagram")?,
            defer_accept: from.bool("defer_accept")?,
            ipv6_only: from.bool("ipv6_only")?,
            reuse_address: from.bool("reuse_address")?,
            readable_all: from.bool("readable_all")?,
            writable_all: from.bool("writable_all")?,
        })
    }
}

impl Grant {
    pub(super) fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        let (tag, listener, address) = match self {
            Self::Handed { listener, address } => (0, listener, address),
            Self::Socket { listener, address } => (1, listener, address),
        };
        to.u8(tag);
        to.u32(*listener);
        address.write(to)
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let tag = from.bool("a kind of grant")?;
        let listener = from.u32("a listener")?;
        let address = Address::read(from)?;
        Ok(match tag {
            false => Self::Handed { listener, address },
            true => Self::Socket { listener, address },
        })
    }
}

impl Address {
    pub(super) fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        match self {
            Self::Tcp(address) => {
                to.u8(if address.is_ipv4() { 4 } else { 6 });
                write_ip(to, *address);
            }
            Self::Udp(address) => {
                to.u8(if address.is_ipv4() { 14 } else { 16 });
                write_ip(to, *address);
            }
            Self::Unix(path) => {
                to.u8(1);
                to.counted("a socket's path", path, PATH_LIMIT)?;
            }
            Self::Fd(number) => {
                to.u8(2);
                to.u32(number.cast_unsigned());
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match from.u8("a kind of address")? {
            1 => Self::Unix(from.counted("a socket's path", PATH_LIMIT)?.to_vec()),
            2 => Self::Fd(from.u32("a descriptor")?.cast_signed()),
            4 => Self::Tcp(read_ipv4(from)?),
            6 => Self::Tcp(read_ipv6(from)?),
            14 => Self::Udp(read_ipv4(from)?),
            16 => Self::Udp(read_ipv6(from)?),
            got => return Err(WireError::Value { what: "a kind of address", got }),
        })
    }
}

fn write_ip(to: &mut Writer, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            to.raw(&address.ip().octets());
            to.u16(address.port());
        }
        SocketAddr::V6(address) => {
            to.raw(&address.ip().octets());
            to.u16(address.port());
            to.u32(address.flowinfo());
            to.u32(address.scope_id());
        }
    }
}

fn read_ipv4(from: &mut Reader<'_>) -> Result<SocketAddr, WireError> {
    let ip = IpAddr::V4(Ipv4Addr::from(from.array::<4>("an address")?));
    Ok(SocketAddr::new(ip, from.u16("a port")?))
}

fn read_ipv6(from: &mut Reader<'_>) -> Result<SocketAddr, WireError> {
    let ip = Ipv6Addr::from(from.array::<16>("an address")?);
    let port = from.u16("a port")?;
    let (flow, scope) = (from.u32("a flow")?, from.u32("a scope")?);
    Ok(SocketAddrV6::new(ip, port, flow, scope).into())
}
