//! The file of a status socket: mode 0600 from its first moment on, and removed with the socket.
//!
//! A file that is there already is replaced only if it is a socket of this user that nobody answers on, as a killed
//! program leaves it behind, or that of the program which this one takes over from. Any other is left alone.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, MetadataExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{fs::Mode, io::Errno};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    error::{Error, ErrorKind, Result},
    sys::channel::peer_pid,
};

/// The longest path that a Unix socket's address holds, without its end (unix(7)).
const MAX_PATH: usize = 107;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 16;

/// The absolute form of a path for a status socket.
///
/// # Errors
///
/// [`ErrorKind::Setting`] when no socket can have it.
pub(crate) fn check(path: &Path) -> Result<PathBuf> {
    let setting = |what: String| {
        let text =
            format!("`status_socket` is {path:?}, {what}; choose a path of 1 to {MAX_PATH} bytes");
        Error::new(ErrorKind::Setting, text)
    };
    let absolute = std::path::absolute(path).map_err(|error| setting(error.to_string()))?;
    let length = absolute.as_os_str().len();
    if length > MAX_PATH {
        return Err(setting(format!("which has {length} bytes in full")));
    }
    if absolute.as_os_str().as_bytes().contains(&0) {
        return Err(setting("which has a zero byte".into()));
    }
    Ok(absolute)
}

pub(super) type Bound = (UnixListener, SocketFile);

/// Binds a listening, non-blocking socket to `path`; the program before may have it now.
pub(super) fn bind(path: &Path, predecessor: Option<i32>) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the mode of the socket, without what the umask takes away.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_ours(path, predecessor) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let file = SocketFile::found(path)?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

/// Whether what is at `path` may be replaced.
fn is_ours(path: &Path, predecessor: Option<i32>) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let found = std::fs::symlink_metadata(path);
    let is_socket = found.is_ok_and(|file| file.file_type().is_socket() && file.uid() == own);
    is_socket && is_stale_or_of(path, predecessor).unwrap_or(false)
}

fn is_stale_or_of(path: &Path, predecessor: Option<i32>) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full is somebody's, and is not waited for.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(predecessor.is_some() && peer_pid(probe.as_fd()).ok() == predecessor),
        Err(error) => Ok(Errno::from_io_error(&error) == Some(Errno::CONNREFUSED)),
    }
}

/// A socket's file, removed when this is dropped, if it is there still.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode; absent when it is somebody else's now.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn found(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: Some(identity(path)?) })
    }

    /// Leaves the file to the next program.
    pub(super) fn disown(&mut self) {
        self.identity = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path).ok() == self.identity {
            // It may be gone by now; there is nothing else to do about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("bimodal-status-{}-{name}", std::process::id()))
    }

    #[test]
    fn the_file_is_the_users_alone_and_goes_with_the_socket() {
        let path = scratch("own");
        let (listener, file) = bind(&path, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(bind(&path, None).map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn one_that_nobody_answers_on_is_replaced_by_a_file_that_is_then_ours() {
        let path = scratch("stale");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop((listener, file));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious", "it had been exchanged");
        assert!(bind(&path, None).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_socket_of_the_program_before_is_taken_over_and_of_no_other() {
        let path = scratch("before");
        let own = std::process::id() as i32;
        let (old, mut old_file) = bind(&path, None).unwrap();
        assert!(bind(&path, Some(own + 1)).is_err());
        old_file.disown();
        let (new, new_file) = bind(&path, Some(own)).unwrap();
        drop((old, old_file));
        assert!(path.exists(), "the old one took the file along");
        drop((new, new_file));
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        assert!(check(Path::new("relative")).unwrap().is_absolute());
        for bad in ["", "/a\0b", &format!("/{}", "n".repeat(107))] {
            let text = check(Path::new(bad)).unwrap_err().to_string();
            assert!(text.contains("`status_socket`") && text.contains("1 to 107"), "{text}");
        }
    }
}
