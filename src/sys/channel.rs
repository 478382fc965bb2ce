//! The packet channel between a primary and one worker process: send and receive whole packets, with the
//! descriptors that belong to them.
//!
//! Either side may use its end from any thread, one at a time. A packet is sent completely or not at all,
//! and is never empty: an empty one could not be told from the end of the channel.

#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::{
    cmsg_space,
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair, sockopt,
    },
};

/// The most descriptors one packet carries. Linux allows 253; a smaller bound keeps the buffers on the
/// stack small and one batch of connections short.
pub(crate) const MAX_DESCRIPTORS: usize = 64;

const CONTROL_BYTES: usize = cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// What comes besides, if somebody has asked for it, takes no room from descriptors: credentials and a pidfd.
const RECEIVED_CONTROL_BYTES: usize = CONTROL_BYTES + cmsg_space!(ScmCredentials(1), ScmRights(1));

/// A descriptor of the sender's process (unix(7), Linux 6.5).
const SCM_PIDFD: i32 = 4;

/// Room for control messages, aligned as they are.
#[repr(align(8))]
struct Control([MaybeUninit<u8>; RECEIVED_CONTROL_BYTES]);

/// A connected pair of packet sockets: both close-on-exec, both non-blocking, default buffers.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends one packet made of `parts`, and `descriptors` with it. The receiver gets duplicates.
///
/// `BrokenPipe` means the peer is gone. `WouldBlock` means its queue is full and nothing was sent.
/// `ETOOMANYREFS` means that more descriptors are under way, unreceived, than this process may have open:
/// try again later, too.
///
/// An empty packet and more than [`MAX_DESCRIPTORS`] are refused with `InvalidInput`.
pub(crate) fn send_packet(
    fd: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet cannot be empty"));
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors.len() > MAX_DESCRIPTORS
        || (!descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)))
    {
        let text = format!("{} descriptors, the limit is {MAX_DESCRIPTORS}", descriptors.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = match retry_on_intr(|| sendmsg(fd, parts, &mut control, flags)) {
        Err(Errno::CONNRESET) => Err(Errno::PIPE),
        other => other,
    }?;
    if sent != length {
        let text = format!("{sent} of {length} bytes of a packet were sent");
        return Err(io::Error::new(io::ErrorKind::WriteZero, text));
    }
    Ok(())
}

/// What one call of [`receive_packet`] brought.
#[derive(Debug)]
pub(crate) struct Received {
    /// How many bytes of the buffer were filled.
    pub(crate) length: usize,
    /// The descriptors that came with the packet, all close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The packet was larger than the buffer; its end is gone.
    pub(crate) truncated: bool,
    /// Descriptors were sent that did not arrive: there were too many, or this process can open no more.
    pub(crate) descriptors_lost: bool,
}

/// Receives one packet into `buffer`. `None` is the end of the channel: the peer has closed its end.
///
/// Allocates only when descriptors came. `WouldBlock` means that nothing has arrived.
pub(crate) fn receive_packet(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<Received>> {
    let mut space = Control([MaybeUninit::uninit(); RECEIVED_CONTROL_BYTES]);
    let mut part = IoSliceMut::new(buffer);
    // SAFETY: all fields of a `msghdr` are numbers and pointers, of which zeros are values.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = (&raw mut part).cast();
    header.msg_iovlen = 1;
    header.msg_control = space.0.as_mut_ptr().cast();
    let length = loop {
        header.msg_controllen = RECEIVED_CONTROL_BYTES as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        // SAFETY: `header` names live buffers with their lengths: an `IoSliceMut` has the layout of an `iovec`, and
        // `space` is aligned as control messages must be.
        let received = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
        if let Ok(length) = usize::try_from(received) {
            break length;
        }
        let error = io::Error::last_os_error();
        // A peer that closes with packets unread leaves a reset, reported once and ahead of what the
        // peer has sent. That must not be lost: it is received by the next call, then comes the end.
        if !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted) {
            return Err(error);
        }
    };
    // SAFETY: the kernel has just filled `header` and what it names.
    let descriptors = unsafe { take_descriptors(&header) };
    let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    if length == 0 && !truncated {
        return Ok(None);
    }
    Ok(Some(Received {
        length,
        descriptors,
        truncated,
        descriptors_lost: header.msg_flags & libc::MSG_CTRUNC != 0,
    }))
}

/// The descriptors that came with a packet. Whoever has a duplicate of this end may have asked for the sender's
/// credentials and for a descriptor of its process as well: the former are passed over, the latter is closed.
///
/// Not rustix: it leaves such a descriptor open, and gives the process as a non-zero number, which it need not be.
///
/// # Safety
///
/// `recvmsg` has filled the header, and nobody else has taken the descriptors.
unsafe fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: `header` names its control messages; the macros of cmsg(3) stay within them.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: as above; a message that is not null is whole.
    while let Some(control) = unsafe { next.as_ref() } {
        // SAFETY: the data of this message, of which `CMSG_LEN(0)` is the head.
        let data = unsafe { libc::CMSG_DATA(control) }.cast::<RawFd>();
        // SAFETY: it computes a length.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let count = control.cmsg_len.saturating_sub(head) / size_of::<RawFd>();
        // SAFETY: the data of such a message are that many descriptors, and they are this process's alone.
        let owned = |at| unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) };
        match (control.cmsg_level, control.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => descriptors.extend((0..count).map(owned)),
            (libc::SOL_SOCKET, SCM_PIDFD) => (0..count).map(owned).for_each(drop),
            _ => {}
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    descriptors
}

/// The process that made the other end: for a pair, the one that called [`seqpacket_pair`], whoever holds
/// that end now. 0 when there is no such process or it lives in a process namespace not visible from here.
pub(crate) fn peer_pid(fd: BorrowedFd<'_>) -> io::Result<i32> {
    peer_credentials(fd).map(|peer| peer.pid)
}

/// The user that connected the other end of a Unix socket, or made the pair, as its number is known here.
pub(crate) fn peer_user(fd: BorrowedFd<'_>) -> io::Result<u32> {
    peer_credentials(fd).map(|peer| peer.uid)
}

fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // Not rustix: it gives the process as a non-zero number, and the kernel may well answer 0.
    // SAFETY: both pointers are to live locals, and `length` is the size of the one written to.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if answer == 0 { Ok(credentials) } else { Err(io::Error::last_os_error()) }
}

/// Whether `fd` is a packet socket of the Unix family, as [`seqpacket_pair`] makes them.
pub(crate) fn is_seqpacket(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET)
        && sockopt::socket_domain(fd).is_ok_and(|family| family == AddressFamily::UNIX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        fs::{OFlags, fcntl_getfl},
        io::{FdFlags, fcntl_getfd},
    };

    use super::*;

    fn send(fd: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_packet(fd.as_fd(), &[IoSlice::new(bytes)], descriptors)
    }

    /// Waits until something can be received: a child of another test may hold a closed end for a moment.
    fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Option<Received> {
        let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&deadline)).unwrap();
        assert_eq!(ready, 1, "nothing arrived within 10 s");
        receive_packet(fd.as_fd(), buffer).unwrap()
    }

    fn is_cloexec(fd: &OwnedFd) -> bool {
        fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC)
    }

    #[test]
    fn a_pair_is_close_on_exec_and_non_blocking() {
        let (a, b) = seqpacket_pair().unwrap();
        for end in [&a, &b] {
            assert!(is_cloexec(end));
            assert!(fcntl_getfl(end).unwrap().contains(OFlags::NONBLOCK));
            assert!(is_seqpacket(end.as_fd()));
            assert_eq!(peer_pid(end.as_fd()).unwrap(), std::process::id() as i32);
            assert_eq!(peer_user(end.as_fd()).unwrap(), rustix::process::geteuid().as_raw());
        }
    }

    #[test]
    fn other_descriptors_are_not_channels() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_seqpacket(file.as_fd()));
        assert!(!is_seqpacket(stream.as_fd()));
        assert!(peer_pid(file.as_fd()).is_err());
    }

    #[test]
    fn an_unseen_peer_is_process_zero() {
        let unconnected = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
        assert_eq!(peer_pid(unconnected.unwrap().as_fd()).unwrap(), 0);
    }

    #[test]
    fn packets_keep_order_bounds_and_descriptors() {
        let (a, b) = seqpacket_pair().unwrap();
        for count in [0, 1, MAX_DESCRIPTORS] {
            let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
            send_packet(a.as_fd(), &parts, &vec![a.as_fd(); count]).unwrap();
        }
        for count in [0, 1, MAX_DESCRIPTORS] {
            let mut buffer = [0; 64];
            let received = receive(&b, &mut buffer).unwrap();
            assert_eq!(&buffer[..received.length], b"headbody");
            assert_eq!(received.descriptors.len(), count);
            assert!(received.descriptors.iter().all(is_cloexec));
            assert!(!received.truncated && !received.descriptors_lost);
        }
        let nothing = receive_packet(b.as_fd(), &mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let (a, b) = seqpacket_pair().unwrap();
        let many = vec![a.as_fd(); MAX_DESCRIPTORS + 1];
        assert_eq!(send(&a, b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(&a, b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(send(&a, &vec![0; 1 << 20], &[]).is_err());
        assert!(receive_packet(b.as_fd(), &mut [0; 8]).is_err(), "nothing was sent");
    }

    #[test]
    fn a_full_queue_would_block() {
        let (a, _b) = seqpacket_pair().unwrap();
        let error = (0..100_000).find_map(|_| send(&a, &[7; 4096], &[]).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    /// Whoever has a duplicate of an end can set its options.
    #[test]
    fn what_was_not_asked_for_here_is_passed_over_and_not_kept() {
        const SO_PASSPIDFD: i32 = 76;
        let (a, b) = seqpacket_pair().unwrap();
        for option in [libc::SO_PASSCRED, SO_PASSPIDFD] {
            let (on, length) = (1, size_of::<i32>() as libc::socklen_t);
            // SAFETY: the pointer is to a live number of this length. A kernel without the option refuses.
            unsafe {
                libc::setsockopt(
                    b.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const on).cast(),
                    length,
                )
            };
        }
        send(&a, b"x", &vec![a.as_fd(); MAX_DESCRIPTORS]).unwrap();
        let received = receive(&b, &mut [0; 8]).unwrap();
        assert_eq!(
            (received.descriptors.len(), received.descriptors_lost),
            (MAX_DESCRIPTORS, false)
        );
        let own = format!("Pid:\t{}\n", std::process::id());
        let open = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        let mut texts = open.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        assert!(!texts.any(|text| text.contains(&own)), "a pidfd of the sender's is open");
    }

    #[test]
    fn a_truncated_packet_is_reported() {
        let (a, b) = seqpacket_pair().unwrap();
        send(&a, b"0123456789", &[]).unwrap();
        send(&a, b"next", &[]).unwrap();
        let mut buffer = [0; 4];
        let received = receive(&b, &mut buffer).unwrap();
        assert!(received.truncated);
        assert_eq!((received.length, &buffer), (4, b"0123"));
        assert!(!receive(&b, &mut buffer).unwrap().truncated);
    }

    #[test]
    fn lost_descriptors_are_reported() {
        let (a, b) = seqpacket_pair().unwrap();
        let many = vec![a.as_fd(); 100];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        sendmsg(&a, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        let received = receive(&b, &mut [0; 8]).unwrap();
        assert!(received.descriptors_lost);
        assert!(received.descriptors.iter().all(is_cloexec));
    }

    #[test]
    fn the_end_of_the_channel_comes_after_what_was_sent() {
        let (a, b) = seqpacket_pair().unwrap();
        send(&a, b"last", &[]).unwrap();
        drop(a);
        assert_eq!(receive(&b, &mut [0; 8]).unwrap().length, 4);
        assert!(receive(&b, &mut [0; 8]).is_none());
    }

    #[test]
    fn what_a_peer_sent_survives_what_it_never_read() {
        let (a, b) = seqpacket_pair().unwrap();
        send(&b, b"never read", &[]).unwrap();
        send(&a, b"last words", &[]).unwrap();
        drop(a);
        assert_eq!(receive(&b, &mut [0; 16]).unwrap().length, 10);
        assert!(receive(&b, &mut [0; 16]).is_none());
        assert_eq!(send(&b, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn sending_to_a_closed_end_is_a_broken_pipe() {
        let (a, b) = seqpacket_pair().unwrap();
        drop(b);
        let deadline = crate::clock::now() + std::time::Duration::from_secs(10);
        while send(&a, b"x", &[]).is_ok() {
            assert!(crate::clock::now() < deadline, "the other end is still open");
            std::thread::yield_now();
        }
        assert_eq!(send(&a, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
