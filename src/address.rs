//! Where to listen: as a program asks for it, and where it is in fact.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use crate::error::{Error, ErrorKind, Result};

/// A place to listen, or to receive datagrams.
///
/// | text | where |
/// |---|---|
/// | `127.0.0.1:3000`, `[::1]:0` | TCP; port 0 asks for any free port |
/// | `:3000`, or the number `3000_u16` | TCP on all addresses |
/// | `localhost:3000` | TCP on `127.0.0.1` |
/// | `example.org:3000` | TCP on the first address that the name resolves to |
/// | `unix:/run/app.sock` | a Unix socket; a relative path starts at the worker's directory |
/// | `unix:@name` | a Unix socket with an abstract name (unix(7)) |
/// | `udp:127.0.0.1:53`, `udp::53` | UDP |
/// | `fd:3` | a socket that the *primary* has open, such as one of a service manager's |
///
/// "All addresses" is `[::]`, which takes IPv4 clients too; a kernel without IPv6 makes it `0.0.0.0`.
///
/// The n-th port 0 of every worker is the same port (Node: `listen(0)`), counted apart for TCP and
/// UDP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// TCP: an IPv4 or IPv6 address and a port.
    Tcp(SocketAddr),
    /// TCP: a host's name and a port. The worker resolves the name when it listens, on a thread of
    /// its own, so that its loop goes on; only the first address counts.
    Host(String, u16),
    /// The path of a Unix socket. A name of at most 107 bytes can be bound in a directory of any
    /// length. One that begins with `@` is abstract; write `./@name` for a file of that name.
    Unix(PathBuf),
    /// UDP: an IPv4 or IPv6 address and a port.
    Udp(SocketAddr),
    /// The number of a descriptor of the primary's (Node: `listen({fd})`): a socket that is bound
    /// already. The primary duplicates it; its own stays open, and becomes non-blocking.
    Fd(i32),
}

/// What an address is in fact (Node: `addressType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// TCP over IPv4 (Node: 4).
    Ipv4,
    /// TCP over IPv6 (Node: 6).
    Ipv6,
    /// A Unix socket (Node: -1).
    Unix,
    /// UDP over IPv4 (Node: `udp4`).
    Udp4,
    /// UDP over IPv6 (Node: `udp6`).
    Udp6,
}

impl Address {
    /// What it is (Node: `addressType`); `None` for a name or a descriptor, which say so only when
    /// they are listened on. What a [`Listener`](crate::Listener) or an event names always has one.
    #[must_use]
    pub fn kind(&self) -> Option<AddressKind> {
        match self {
            Self::Tcp(SocketAddr::V4(_)) => Some(AddressKind::Ipv4),
            Self::Tcp(SocketAddr::V6(_)) => Some(AddressKind::Ipv6),
            Self::Udp(SocketAddr::V4(_)) => Some(AddressKind::Udp4),
            Self::Udp(SocketAddr::V6(_)) => Some(AddressKind::Udp6),
            Self::Unix(_) => Some(AddressKind::Unix),
            Self::Host(..) | Self::Fd(_) => None,
        }
    }

    /// The port; `None` for a Unix socket (Node: -1) and for a descriptor.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(address.port()),
            Self::Host(_, port) => Some(*port),
            Self::Unix(_) | Self::Fd(_) => None,
        }
    }

    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            _ => None,
        }
    }

    /// The UDP address, if it is one.
    #[must_use]
    pub fn udp(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) => Some(*address),
            _ => None,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once(':') {
            Some(("unix", path)) => (!path.is_empty()).then(|| Self::Unix(path.into())),
            Some(("fd", number)) => number.parse().ok().map(Self::Fd),
            Some(("udp", address)) => known(address).map(Self::Udp),
            _ => known(text).map(Self::Tcp).or_else(|| host(text)),
        };
        parsed.ok_or_else(|| {
            let expected = "IP:PORT (such as 127.0.0.1:3000 or [::1]:0), :PORT, HOST:PORT, \
                            udp:IP:PORT, unix:PATH or fd:NUMBER";
            Error::new(ErrorKind::Setting, format!("address is {text:?}; it must be {expected}"))
        })
    }
}

/// An address that needs no resolver.
fn known(text: &str) -> Option<SocketAddr> {
    let at = |ip: IpAddr, port: &str| Some(SocketAddr::new(ip, port.parse().ok()?));
    match text.split_once(':') {
        Some(("", port)) if !port.contains(':') => at(Ipv6Addr::UNSPECIFIED.into(), port),
        Some(("localhost", port)) => at(Ipv4Addr::LOCALHOST.into(), port),
        _ => text.parse().ok(),
    }
}

fn host(text: &str) -> Option<Address> {
    let (name, port) = text.split_once(':')?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_name = (1..=253).contains(&name.len()) && name.bytes().all(allowed);
    // What is all digits and dots was meant to be an IP address.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_name && !is_number).then_some(())?;
    Some(Address::Host(name.into(), port.parse().ok()?))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Fd(number) => write!(f, "fd:{number}"),
        }
    }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self> {
        text.parse()
    }
}

impl From<u16> for Address {
    /// TCP on all addresses (Node: `listen(port)`).
    fn from(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_a_round_trip() {
        let texts = [
            "127.0.0.1:3000",
            "[::1]:0",
            "unix:/run/app.sock",
            "unix:@name",
            "udp:127.0.0.1:53",
            "udp:[::]:0",
            "fd:3",
            "example.org:80",
        ];
        for text in texts {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_port_alone_is_all_addresses() {
        for text in [":3000", "[::]:3000"] {
            assert_eq!(text.parse::<Address>().unwrap(), Address::from(3000));
        }
        assert_eq!("udp::53".parse::<Address>().unwrap().to_string(), "udp:[::]:53");
    }

    #[test]
    fn what_is_no_address_names_the_remedy() {
        let texts = [
            "",
            "nowhere",
            "nowhere:",
            "1.2.3:80",
            "1.2.3.4:70000",
            "a b:80",
            "unix:",
            "fd:x",
            "udp:nowhere:53",
            "::1:80:x",
        ];
        for text in texts {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting, "{text}");
            assert!(error.to_string().contains("IP:PORT"), "{error}");
        }
    }

    #[test]
    fn kinds_are_nodes() {
        use AddressKind::*;
        for (text, kind, port) in [
            ("1.2.3.4:5", Some(Ipv4), Some(5)),
            ("[::1]:5", Some(Ipv6), Some(5)),
            ("udp:1.2.3.4:5", Some(Udp4), Some(5)),
            ("udp:[::1]:5", Some(Udp6), Some(5)),
            ("unix:/a", Some(Unix), None),
            ("fd:3", None, None),
            ("example.org:80", None, Some(80)),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.kind(), address.port()), (kind, port), "{text}");
        }
    }
}
