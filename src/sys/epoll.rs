//! What mio does not offer of epoll.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::event::epoll::{self, EventData, EventFlags};

/// Registers `source` for reading, edge-triggered, with `EPOLLEXCLUSIVE` (epoll_ctl(2)): of the epoll
/// instances that wait for the same file in this way and in which somebody sleeps, the kernel wakes one, and
/// looks for it in the order in which they were registered.
///
/// mio's `deregister` takes it out.
pub(crate) fn add_exclusive(
    poll: &mio::Poll,
    source: BorrowedFd<'_>,
    token: mio::Token,
) -> io::Result<()> {
    // SAFETY: mio's `Poll` owns the descriptor and is borrowed for the whole of this call.
    let epoll = unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) };
    let flags = EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE;
    // What mio writes there itself.
    let data = EventData::new_u64(token.0 as u64);
    Ok(epoll::add(epoll, source, data, flags)?)
}
