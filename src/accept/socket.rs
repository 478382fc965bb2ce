//! Sockets that receive connections or datagrams: made by the primary, in both modes, or by a worker
//! that wants one of its own.

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::options::SocketOptions;
use crate::{config::Address, sys::descriptor};

/// The longest path that a Unix socket's address holds, without its end (unix(7)).
const MAX_PATH: usize = 107;

/// A bound, non-blocking socket that listens or receives datagrams. The file of a Unix socket goes
/// with it.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    socket: Socket,
    /// The file that is removed with the socket.
    file: Option<PathBuf>,
    /// The next program has it, too.
    bequeathed: Cell<bool>,
    /// It listens because this program made it so: no other one has it.
    ours: bool,
}

impl ListeningSocket {
    fn new(socket: Socket) -> Self {
        Self { socket, file: None, bequeathed: Cell::new(false), ours: false }
    }

    /// Binds `address`, which is not a name, and listens if it is for connections.
    pub(crate) fn bind(
        address: &Address,
        options: SocketOptions,
        reuse_port: bool,
    ) -> io::Result<Self> {
        let mut made = match address {
            Address::Tcp(address) | Address::Udp(address) => {
                bind_ip(*address, options, reuse_port)?
            }
            Address::Unix(path) => bind_unix(path, options)?,
            Address::Fd(number) => duplicate(*number, options)?,
            Address::Host(..) => return Err(Errno::INVAL.into()),
        };
        if !options.datagram {
            made.listen(options)?;
            made.ours = !matches!(address, Address::Fd(_));
        }
        Ok(made)
    }

    /// Takes over a socket that somebody else made, if it is bound, of the right type and no connection. Any other one
    /// stays as it is: its flags are those of every duplicate.
    pub(crate) fn adopt(fd: OwnedFd, datagram: bool) -> io::Result<Self> {
        let socket = Socket::from(fd);
        let wanted = if datagram { Type::DGRAM } else { Type::STREAM };
        let is_wanted = socket.r#type().is_ok_and(|found| found == wanted);
        if !is_wanted || !is_bound(&socket, datagram) || is_connection(&socket, datagram) {
            return Err(Errno::INVAL.into());
        }
        socket.set_nonblocking(true)?;
        Ok(Self::new(socket))
    }

    /// A duplicate of whatever socket this is, to look at.
    pub(crate) fn of_copy(fd: &OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd.try_clone()?);
        socket.r#type()?;
        Ok(Self::new(socket))
    }

    /// Another descriptor of the same socket, without its file.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self::new(self.share()?))
    }

    /// Whether it is for datagrams.
    pub(crate) fn is_datagram(&self) -> bool {
        self.socket.r#type().is_ok_and(|kind| kind == Type::DGRAM)
    }

    /// Whether connections can come.
    pub(crate) fn listens(&self) -> bool {
        let is_stream = self.socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
        is_stream && self.socket.is_listener().unwrap_or(false)
    }

    /// Removes this file with the socket.
    pub(crate) fn own_file(&mut self, path: PathBuf) {
        self.file = Some(path);
    }

    /// Leaves the file to somebody else.
    pub(crate) fn disown_file(&mut self) {
        self.file = None;
    }

    /// Notes that the next program has it, or that it does not come; whether that was known.
    pub(crate) fn bequeath(&self, bequeathed: bool) -> bool {
        self.bequeathed.replace(bequeathed) == bequeathed
    }

    /// Whether a file goes with it.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Lets connections come; again, to change how many wait in the kernel.
    pub(crate) fn listen(&self, options: SocketOptions) -> io::Result<()> {
        self.socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
        if options.defer_accept && self.socket.domain()? != Domain::UNIX {
            crate::sys::socket::defer_accept(&self.socket)?;
        }
        Ok(())
    }

    /// Where it really is: the port is never 0.
    pub(crate) fn address(&self) -> io::Result<Address> {
        if let Some(path) = &self.file {
            return Ok(Address::Unix(path.clone()));
        }
        let address = self.socket.local_addr()?;
        match address.as_socket() {
            Some(address) if self.socket.r#type()? == Type::DGRAM => Ok(Address::Udp(address)),
            Some(address) => Ok(Address::Tcp(address)),
            None => unix_path(&address)
                .map(Address::Unix)
                .ok_or_else(|| io::ErrorKind::Unsupported.into()),
        }
    }

    /// Connections that the kernel has made and nobody has accepted; 0 where it does not say, as for Unix
    /// sockets.
    pub(crate) fn waiting(&self) -> usize {
        crate::sys::socket::backlog(&self.socket).map_or(0, |connections| connections as usize)
    }

    /// Whether connections may wait.
    pub(crate) fn may_have_waiting(&self) -> bool {
        crate::sys::socket::may_have_waiting(&self.socket)
    }

    /// Ends it for all who have a duplicate: nobody can connect, and who waits is cut. Does nothing to a socket that
    /// another program may have.
    pub(crate) fn shut(&self) {
        if self.ours && !self.bequeathed.get() {
            // What cannot be ended now ends with the last duplicate.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Another descriptor of the same socket, for a worker.
    pub(crate) fn share(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // It may be gone already; there is nothing else to do about it.
            let _ = std::fs::remove_file(file);
        }
    }
}

fn bind_ip(
    address: SocketAddr,
    options: SocketOptions,
    reuse_port: bool,
) -> io::Result<ListeningSocket> {
    match bind_to(address, options, reuse_port) {
        // "All addresses" on a machine without IPv6.
        Err(error) if is_any(address) && !options.ipv6_only && is_without_ipv6(&error) => {
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            bind_to(address, options, reuse_port)
        }
        bound => bound,
    }
}

fn is_any(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind_to(
    address: SocketAddr,
    options: SocketOptions,
    reuse_port: bool,
) -> io::Result<ListeningSocket> {
    let (kind, protocol) = match options.datagram {
        true => (Type::DGRAM, Protocol::UDP),
        false => (Type::STREAM, Protocol::TCP),
    };
    let socket = new_socket(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6_only)?;
    }
    // For connections it only means that old ones do not hinder; datagrams would be taken away.
    socket.set_reuse_address(options.reuse_address || !options.datagram)?;
    socket.set_reuse_port(reuse_port)?;
    if !options.datagram {
        // Accepted sockets inherit it, which saves a system call for each.
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&address.into())?;
    Ok(ListeningSocket::new(socket))
}

fn bind_unix(path: &Path, options: SocketOptions) -> io::Result<ListeningSocket> {
    if options.datagram {
        return Err(Errno::OPNOTSUPP.into());
    }
    let socket = new_socket(Domain::UNIX, Type::STREAM, None)?;
    if let Some(name) = abstract_name(path) {
        if options.readable_all || options.writable_all {
            return Err(Errno::INVAL.into());
        }
        socket.bind(&abstract_address(name)?)?;
        return Ok(ListeningSocket::new(socket));
    }
    let path = std::path::absolute(path)?;
    let short = ShortPath::of(&path)?;
    let address = SockAddr::unix(&short.path)?;
    match socket.bind(&address) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse && is_stale(&short.path, &address) =>
        {
            std::fs::remove_file(&path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    // From here on the file goes with the socket, also if what follows fails.
    let mut bound = ListeningSocket::new(socket);
    bound.own_file(path);
    open_to_all(&short.path, options)?;
    Ok(bound)
}

/// A path that a socket's address can hold: the file's own, or through its open directory.
struct ShortPath {
    path: PathBuf,
    /// What `path` leads through.
    _directory: Option<OwnedFd>,
}

impl ShortPath {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= MAX_PATH {
            return Ok(Self { path: path.into(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NAMETOOLONG.into());
        };
        // A directory and no other file: opening a FIFO would wait for its other end.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        if path.as_os_str().len() > MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(Self { path, _directory: Some(directory) })
    }
}

fn open_to_all(path: &Path, options: SocketOptions) -> io::Result<()> {
    let more = if options.readable_all { 0o444 } else { 0 };
    let more = more | if options.writable_all { 0o222 } else { 0 };
    if more == 0 {
        return Ok(());
    }
    // Not by its path: whoever may write to the directory could put a link to anything there.
    let file =
        rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?.st_mode;
    if !FileType::from_raw_mode(found).is_socket() {
        return Err(Errno::INVAL.into());
    }
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::set_permissions(opened, std::fs::Permissions::from_mode((found & 0o7777) | more))
}

/// Whether `path` is a socket that nobody listens on, as a killed program leaves it behind.
fn is_stale(path: &Path, address: &SockAddr) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // It does not wait: somebody whose queue is full is there.
    let connected = || new_socket(Domain::UNIX, Type::STREAM, None)?.connect(address);
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && connected().is_err_and(refused)
}

/// The name of an abstract socket, which is written with a leading `@`.
fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

/// Whether a worker's directory has nothing to do with where this is.
pub(crate) fn is_abstract(path: &Path) -> bool {
    abstract_name(path).is_some()
}

fn abstract_address(name: &[u8]) -> io::Result<SockAddr> {
    if name.is_empty() || name.len() > MAX_PATH {
        return Err(Errno::INVAL.into());
    }
    // socket2 takes a leading zero for what it is to the kernel.
    let name = [b"\0", name].concat();
    SockAddr::unix(std::ffi::OsStr::from_bytes(&name))
}

/// The path of a Unix socket, as it is written here; `None` if it is bound to none.
fn unix_path(address: &SockAddr) -> Option<PathBuf> {
    if let Some(name) = address.as_abstract_namespace() {
        let text = [b"@", name].concat();
        return Some(std::ffi::OsStr::from_bytes(&text).into());
    }
    address.as_pathname().map(Path::to_path_buf)
}

/// Whether a socket has been given an address, without which it could receive nothing on purpose.
fn is_bound(socket: &Socket, datagram: bool) -> bool {
    let Ok(address) = socket.local_addr() else { return false };
    match address.as_socket() {
        Some(address) => address.port() != 0,
        None => !datagram && unix_path(&address).is_some(),
    }
}

/// Whether a socket has a peer, so that it cannot listen. One for datagrams that has a peer receives what that one sends.
fn is_connection(socket: &Socket, datagram: bool) -> bool {
    !datagram && socket.peer_addr().is_ok()
}

fn duplicate(number: i32, options: SocketOptions) -> io::Result<ListeningSocket> {
    ListeningSocket::adopt(descriptor::duplicate(number)?, options.datagram)
}

/// socket2 sets close-on-exec.
fn new_socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{
        os::unix::net::{UnixListener, UnixStream},
        sync::mpsc,
        time::Duration,
    };

    const OPTIONS: SocketOptions = SocketOptions {
        datagram: false,
        backlog: 16,
        defer_accept: false,
        ipv6_only: false,
        reuse_address: false,
        readable_all: false,
        writable_all: false,
    };

    fn bind(address: &Address) -> io::Result<ListeningSocket> {
        ListeningSocket::bind(address, OPTIONS, false)
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

    /// What listening on this path says, if it says so at all.
    #[track_caller]
    fn refusal(path: PathBuf) -> Option<i32> {
        let (answer, answered) = mpsc::channel();
        std::thread::spawn(move || answer.send(bind(&Address::Unix(path)).map(drop)));
        let limit = Duration::from_secs(20);
        let bound = answered.recv_timeout(limit);
        assert!(bound.is_ok(), "listening waits for somebody");
        bound.unwrap().unwrap_err().raw_os_error()
    }

    #[test]
    fn a_socket_whose_queue_is_full_is_in_use() {
        let path = scratch("full");
        let busy = new_socket(Domain::UNIX, Type::STREAM, None).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        busy.bind(&address).unwrap();
        busy.listen(0).unwrap();
        let connect = || {
            let client = new_socket(Domain::UNIX, Type::STREAM, None).unwrap();
            client.connect(&address).map(|()| client)
        };
        let mut clients = Vec::new();
        let full = loop {
            match connect() {
                Ok(client) => clients.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(refusal(path.clone()), Some(Errno::ADDRINUSE.raw_os_error()));
        busy.accept().unwrap();
        assert!(UnixStream::connect(&path).is_ok(), "it listens as before");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_long_path_that_leads_through_a_fifo_is_an_error() {
        let top = scratch("fifo");
        std::fs::create_dir(&top).unwrap();
        let fifo = top.join("f".repeat(120));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(refusal(fifo.join("s")), Some(Errno::NOTDIR.raw_os_error()));
        std::fs::remove_dir_all(top).unwrap();
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
    fn a_long_directory_is_no_obstacle_and_a_long_name_is_an_error() {
        let top = scratch("long");
        let directory = top.join("d".repeat(200));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let listening = bind(&Address::Unix(path.clone())).unwrap();
        assert_eq!(listening.address().unwrap(), Address::Unix(path.clone()));
        assert_eq!(
            bind(&Address::Unix(path.clone())).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listening);
        assert!(!path.exists());
        let long = Address::Unix(directory.join("n".repeat(120)));
        let errno = bind(&long).unwrap_err().raw_os_error();
        assert_eq!(errno, Some(Errno::NAMETOOLONG.raw_os_error()));
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn an_abstract_name_has_no_file() {
        let name = format!("@bimodal-{}-abstract", std::process::id());
        let address = Address::Unix(name.into());
        let listening = bind(&address).unwrap();
        assert_eq!(listening.address().unwrap(), address);
        assert_eq!(bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let open = SocketOptions { readable_all: true, ..OPTIONS };
        let refused = ListeningSocket::bind(&Address::Unix("@other".into()), open, false);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    }

    #[test]
    fn a_descriptor_must_be_a_bound_socket_of_the_right_type() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let listening = bind(&Address::Fd(listener.as_raw_fd())).unwrap();
        assert_eq!(listening.address().unwrap(), Address::Tcp(at));
        drop(listening);
        let client = std::net::TcpStream::connect(at).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for number in [client.as_raw_fd(), file.as_raw_fd(), udp.as_raw_fd(), unbound.as_raw_fd()] {
            let errno = bind(&Address::Fd(number)).unwrap_err().raw_os_error();
            assert_eq!(errno, Some(Errno::INVAL.raw_os_error()));
        }
        let errno = bind(&Address::Fd(i32::MAX)).unwrap_err().raw_os_error();
        assert_eq!(errno, Some(Errno::BADF.raw_os_error()));
    }

    #[test]
    fn a_connection_that_is_not_listened_on_stays_as_it_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let path = scratch("connection");
        let unix = UnixListener::bind(&path).unwrap();
        let _peer = UnixStream::connect(&path).unwrap();
        let (accepted, _) = unix.accept().unwrap();
        std::fs::remove_file(path).unwrap();
        for connection in [OwnedFd::from(client), accepted.into()] {
            let refused = bind(&Address::Fd(connection.as_raw_fd())).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
            let flags = rustix::fs::fcntl_getfl(&connection).unwrap();
            assert!(!flags.contains(OFlags::NONBLOCK), "it would not wait any more");
        }
    }
}
