//! The sockets in a store's directory: made for this user only, found by name, removed when nobody reads them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

/// The longest path of a Unix socket, without its end (unix(7)).
const MAX_PATH: usize = 107;

/// The store's directory, where the sockets are.
pub(super) struct Directory {
    path: PathBuf,
    /// A way to it that is short enough for a socket's address.
    file: File,
}

impl Directory {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), file: File::open(path)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn address(&self, name: &str) -> io::Result<SockAddr> {
        let path = self.path.join(name);
        if path.as_os_str().len() <= MAX_PATH {
            return SockAddr::unix(path);
        }
        SockAddr::unix(format!("/proc/self/fd/{}/{name}", self.file.as_raw_fd()))
    }

    /// A socket that only this user can send to.
    pub(super) fn bind(&self, name: &str) -> io::Result<UnixDatagram> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        // Before it has a name: Linux gives the file the socket's own permissions.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&self.address(name)?)?;
        Ok(UnixDatagram::from(OwnedFd::from(socket)))
    }

    pub(super) fn remove(&self, name: &str) {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{name} stays in the store's directory: {error}");
            }
            _ => {}
        }
    }

    /// Removes the sockets of processes that have ended without doing so.
    pub(super) fn remove_the_dead(&self) -> io::Result<()> {
        let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().filter(|name| is_socket(name)) else { continue };
            let connected = probe.connect(&self.address(name)?);
            if connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                self.remove(name);
            }
        }
        Ok(())
    }
}

fn is_socket(name: &str) -> bool {
    name.starts_with("sub-") && Path::new(name).extension() == Some(OsStr::new("sock"))
}
