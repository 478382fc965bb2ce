//! Listening sockets: bound by the primary, in both modes.

use std::{
    io,
    net::SocketAddr,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::Address;

/// What a worker may ask for beside the address (Node: the options of `server.listen`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenOptions {
    /// Connections the kernel keeps for us before they are accepted. Default 1024; the kernel caps
    /// it at `net.core.somaxconn` (listen(2)).
    pub backlog: u32,
    /// Whether a socket on `[::]` refuses IPv4 clients. Default false.
    pub ipv6_only: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 1024, ipv6_only: false }
    }
}

/// A bound, listening, non-blocking socket. A Unix socket's file goes with it.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    socket: Socket,
    path: Option<PathBuf>,
}

impl ListeningSocket {
    /// Binds `address` and listens.
    pub(crate) fn bind(
        address: &Address,
        options: ListenOptions,
        reuse_port: bool,
    ) -> io::Result<Self> {
        let listening = match address {
            Address::Tcp(address) => bind_tcp(*address, options, reuse_port)?,
            Address::Unix(path) => bind_unix(path)?,
        };
        listening.socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
        Ok(listening)
    }

    /// Where it really listens: the port is never 0.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match &self.path {
            Some(path) => Ok(Address::Unix(path.clone())),
            None => {
                let address = self.socket.local_addr()?.as_socket();
                address.map(Address::Tcp).ok_or_else(|| io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// Another descriptor of the same socket, for a worker.
    pub(crate) fn share(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It may be gone already; there is nothing else to do about it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(
    address: SocketAddr,
    options: ListenOptions,
    reuse_port: bool,
) -> io::Result<ListeningSocket> {
    let socket = new_socket(Domain::for_address(address), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(ListeningSocket { socket, path: None })
}

fn bind_unix(path: &Path) -> io::Result<ListeningSocket> {
    let path = std::path::absolute(path)?;
    let address = SockAddr::unix(&path)?;
    let socket = new_socket(Domain::UNIX, None)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(&path) => {
            std::fs::remove_file(&path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    Ok(ListeningSocket { socket, path: Some(path) })
}

/// Whether `path` is a socket that nobody listens on, as a killed program leaves it behind.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

/// socket2 sets close-on-exec.
fn new_socket(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn bind(address: &Address) -> io::Result<ListeningSocket> {
        ListeningSocket::bind(address, ListenOptions::default(), false)
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("bimodal-{}-{name}.sock", std::process::id()))
    }

    #[test]
    fn port_0_becomes_a_real_port_and_a_taken_one_is_refused() {
        let first = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.address().unwrap();
        assert_ne!(address.tcp().unwrap().port(), 0);
        assert_eq!(bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_unix_socket_takes_its_file_along() {
        let path = scratch("own");
        let listening = bind(&Address::Unix(path.clone())).unwrap();
        assert!(path.exists());
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let path = scratch("stale");
        drop(UnixListener::bind(&path).unwrap());
        let listening = bind(&Address::Unix(path.clone())).unwrap();
        assert_eq!(bind(&Address::Unix(path)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listening);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let path = scratch("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&Address::Unix(path.clone())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_over_long_path_is_an_error() {
        assert!(
            bind(&Address::Unix("/tmp/".to_owned().into_boxed_str().repeat(40).into())).is_err()
        );
    }
}
