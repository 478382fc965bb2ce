//! What the kernel tells of a listening socket, and what it is told.

#![allow(unsafe_code)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd},
};

/// How many connections wait to be accepted from a listening TCP socket; `None` for any other. For a
/// listening socket the kernel's `tcpi_unacked` is the length of its accept queue (`tcp_get_info` in Linux).
pub(crate) fn backlog(socket: impl AsFd) -> Option<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call, `info` has room for `length` bytes, of which the
    // kernel writes as many as it knows, and `length` is writable.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // SAFETY: it is numbers only, which were all zero before the kernel wrote some of them.
    let info = unsafe { info.assume_init() };
    (answer == 0 && info.tcpi_state == LISTEN).then_some(info.tcpi_unacked)
}

/// Has the kernel keep connections to a listening TCP socket back until they bring bytes, or for a second: one
/// retransmission of its SYN-ACK, the least there is (`TCP_DEFER_ACCEPT`, tcp(7)).
pub(crate) fn defer_accept(socket: impl AsFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the call, and `seconds` has the size that is given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether connections may wait to be accepted: only TCP says.
pub(crate) fn may_have_waiting(socket: impl AsFd) -> bool {
    backlog(socket).is_none_or(|connections| connections > 0)
}

/// `TCP_LISTEN` of the kernel's list of states.
const LISTEN: u8 = 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_that_nobody_accepts_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(backlog(&listener), Some(0));
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(backlog(&listener), Some(3));
        listener.accept().unwrap();
        assert_eq!(backlog(&listener), Some(2));
        assert_eq!(backlog(&clients[0]), None);
    }
}
