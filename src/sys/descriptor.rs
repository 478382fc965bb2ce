//! Descriptors that the program knows by their number only.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
};

use rustix::io::Errno;

/// A duplicate of the descriptor with this number, close-on-exec. The number itself stays with whoever
/// owns it.
///
/// `EBADF` means that no such descriptor is open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the number is not -1. It is used for nothing but this one call, which fails if it is not
    // open; if its owner closes it meanwhile, the duplicate is of whatever took its place, which is
    // memory-safe, and the caller checks what it got.
    let unchecked = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(unchecked, 3)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_duplicate_leaves_the_original_open() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let copy = duplicate(file.as_raw_fd()).unwrap();
        assert_ne!(copy.as_raw_fd(), file.as_raw_fd());
        drop(copy);
        assert!(file.metadata().is_ok());
    }

    #[test]
    fn numbers_that_are_not_open_are_refused() {
        for number in [-1, i32::MIN, i32::MAX] {
            let error = duplicate(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()), "{number}");
        }
    }
}
