//! What can be sent with a message besides its value.
//!
//! Where memory is shared it is moved. Between processes its descriptor travels beside the message's
//! first packet and is checked against its kind where it arrives: it may be anything.

use std::{
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use socket2::{Domain, SockRef, Type};

use super::{Packing, Port};
use crate::{
    accept::Connection,
    error::{Error, ErrorKind, Result},
    wire::HandleKind,
};

/// A socket, a listener or a port, sent with a message (Node: `sendHandle`).
///
/// Sending moves it: the sender has it no more. To keep it (Node: `keepOpen`), send what `try_clone`
/// gives; then both sides have the same socket, and what one does to it (a shutdown, an option, whether
/// it blocks) the other sees.
///
/// A socket arrives as it was sent: whether it blocks is as the sender left it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Handle {
    /// A TCP connection.
    TcpStream(TcpStream),
    /// A TCP listener.
    TcpListener(TcpListener),
    /// A Unix connection.
    UnixStream(UnixStream),
    /// A Unix listener.
    UnixListener(UnixListener),
    /// A UDP socket.
    UdpSocket(UdpSocket),
    /// One end of a channel.
    Port(Port),
}

impl Handle {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> HandleKind {
        match self {
            Self::TcpStream(_) => HandleKind::TcpStream,
            Self::TcpListener(_) => HandleKind::TcpListener,
            Self::UnixStream(_) => HandleKind::UnixStream,
            Self::UnixListener(_) => HandleKind::UnixListener,
            Self::UdpSocket(_) => HandleKind::UdpSocket,
            Self::Port(_) => HandleKind::Port,
        }
    }

    /// Its descriptor, to travel beside a message.
    pub(crate) fn into_descriptor(self) -> Result<(HandleKind, OwnedFd), (Error, Self)> {
        Ok(match self {
            Self::TcpStream(socket) => (HandleKind::TcpStream, socket.into()),
            Self::TcpListener(socket) => (HandleKind::TcpListener, socket.into()),
            Self::UnixStream(socket) => (HandleKind::UnixStream, socket.into()),
            Self::UnixListener(socket) => (HandleKind::UnixListener, socket.into()),
            Self::UdpSocket(socket) => (HandleKind::UdpSocket, socket.into()),
            Self::Port(port) => match port.into_descriptor() {
                Ok(descriptor) => (HandleKind::Port, descriptor),
                Err((error, port)) => return Err((error, Self::Port(port))),
            },
        })
    }

    /// The handle of a descriptor that came from another process.
    ///
    /// # Errors
    ///
    /// The descriptor is something else.
    pub(crate) fn received(
        kind: HandleKind,
        descriptor: OwnedFd,
        packing: Packing,
    ) -> Result<Self> {
        if !is_of(kind, &descriptor).unwrap_or(false) {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("a descriptor came as a {kind} and is something else"),
            ));
        }
        Ok(Self::of(kind, descriptor, packing))
    }

    /// The handle of a descriptor that is known to be of this kind.
    pub(crate) fn of(kind: HandleKind, descriptor: OwnedFd, packing: Packing) -> Self {
        match kind {
            HandleKind::TcpStream => Self::TcpStream(descriptor.into()),
            HandleKind::TcpListener => Self::TcpListener(descriptor.into()),
            HandleKind::UnixStream => Self::UnixStream(descriptor.into()),
            HandleKind::UnixListener => Self::UnixListener(descriptor.into()),
            HandleKind::UdpSocket => Self::UdpSocket(descriptor.into()),
            HandleKind::Port => Self::Port(Port::of(descriptor, packing)),
        }
    }
}

/// Whether a descriptor is what it came as.
fn is_of(kind: HandleKind, descriptor: &OwnedFd) -> io::Result<bool> {
    let socket = SockRef::from(descriptor);
    let domain = socket.domain()?;
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let is_unix = domain == Domain::UNIX;
    let is = |wanted: Type| socket.r#type().map(|actual| actual == wanted);
    Ok(match kind {
        HandleKind::TcpStream => is_ip && is(Type::STREAM)? && !socket.is_listener()?,
        HandleKind::TcpListener => is_ip && is(Type::STREAM)? && socket.is_listener()?,
        HandleKind::UnixStream => is_unix && is(Type::STREAM)? && !socket.is_listener()?,
        HandleKind::UnixListener => is_unix && is(Type::STREAM)? && socket.is_listener()?,
        HandleKind::UdpSocket => is_ip && is(Type::DGRAM)?,
        HandleKind::Port => crate::sys::channel::is_seqpacket(descriptor.as_fd()),
    })
}

/// A handle from and to each of its kinds.
macro_rules! kinds {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Handle {
            fn from(handle: $kind) -> Self {
                Self::$kind(handle)
            }
        }

        impl TryFrom<Handle> for $kind {
            type Error = Error;

            /// [`ErrorKind::Type`] when it is of another kind, naming both.
            fn try_from(handle: Handle) -> Result<Self> {
                match handle {
                    Handle::$kind(handle) => Ok(handle),
                    other => Err(mismatch(other.kind(), HandleKind::$kind)),
                }
            }
        }
    )*};
}

kinds!(TcpStream, TcpListener, UnixStream, UnixListener, UdpSocket, Port);

fn mismatch(sent: HandleKind, asked: HandleKind) -> Error {
    Error::new(ErrorKind::Type, format!("the handle is a `{sent}`; a `{asked}` was asked for"))
}

impl From<Connection> for Handle {
    /// The connection's socket, which does not block. It leaves this loop and is not counted here any
    /// more.
    fn from(connection: Connection) -> Self {
        let socket = connection.into_socket();
        match socket.domain() {
            Ok(Domain::UNIX) => Self::UnixStream(socket.into()),
            _ => Self::TcpStream(socket.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PACKING: Packing = Packing {
        memory: crate::config::Memory::Separate,
        codec: crate::message::Codec::MessagePack,
        max_bytes: 100,
    };

    fn every() -> Vec<Handle> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (one, _) = UnixStream::pair().unwrap();
        let path = std::env::temp_dir().join(format!("bimodal-handle-{}", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (port, _) = Port::pair(PACKING).unwrap();
        vec![listener.into(), stream.into(), one.into(), unix.into(), udp.into(), port.into()]
    }

    #[test]
    fn a_descriptor_is_taken_for_what_it_is_alone() {
        let kinds: Vec<_> = every().iter().map(Handle::kind).collect();
        for claimed in kinds {
            for handle in every() {
                let (actual, descriptor) = handle.into_descriptor().unwrap();
                let received = Handle::received(claimed, descriptor, PACKING);
                assert_eq!(received.is_ok(), claimed == actual, "{actual} as {claimed}");
            }
            let file = std::fs::File::open("/dev/null").unwrap();
            assert!(Handle::received(claimed, file.into(), PACKING).is_err());
        }
    }

    #[test]
    fn a_wrong_kind_is_an_error_that_names_both() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = TcpStream::try_from(Handle::from(socket)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Type);
        let text = error.to_string();
        assert!(text.contains("`UdpSocket`") && text.contains("`TcpStream`"), "{text}");
    }
}
