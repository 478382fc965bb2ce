//! What a process finds when it starts: the variables that mark it as a worker and the descriptor they name.
//!
//! Runs once, on the main thread of a worker process, before user code.

#![allow(unsafe_code)]

use std::{
    ffi::OsString,
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::process::threads_running;

/// Reads the variable `name` and removes it, so that neither user code nor grandchildren see it.
///
/// It is removed only while the caller's is the only thread of the process, since another one could be
/// reading the environment; otherwise it stays and that is logged.
pub(crate) fn take_env(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    match threads_running() {
        // SAFETY: this is the only thread, so nobody reads the environment while it changes.
        Some(1) => unsafe { std::env::remove_var(name) },
        Some(count) => log::warn!("{name} stays in the environment: {count} threads are running"),
        None => log::warn!("{name} stays in the environment: the threads cannot be counted"),
    }
    Some(value)
}

/// Takes ownership of the descriptor that was inherited under this number, and makes it close-on-exec.
///
/// Refused with `InvalidInput`: stdio (0 to 2), a number that is not open, and a descriptor that is
/// close-on-exec already. The last one cannot have come through exec: it was opened by this process, or it
/// was adopted before. So adopt each number at most once; a second time is an error, not a double close.
pub(crate) fn adopt_descriptor(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(refusal(number, "cannot be a channel"));
    }
    // SAFETY: the number is not -1 and is used for nothing but asking whether it is open.
    let unchecked = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(unchecked).map_err(|_| refusal(number, "is not open"))?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(refusal(number, "was not inherited"));
    }
    fcntl_setfd(unchecked, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and it has no other owner: it came through exec, so no code of this process opened
    // it, and from here on its flag keeps it from being adopted again.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn refusal(number: i32, cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {number} {cause}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_variable_stays_while_other_threads_run() {
        assert!(take_env("BIMODAL_UNIT_TEST_NEVER_SET").is_none());
        let path = take_env("PATH").unwrap();
        assert_eq!(std::env::var_os("PATH"), Some(path));
    }

    #[test]
    fn an_inherited_descriptor_is_adopted_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        let number = file.into_raw_fd();
        let adopted = adopt_descriptor(number).unwrap();
        assert!(fcntl_getfd(adopted.as_fd()).unwrap().contains(FdFlags::CLOEXEC));
        assert!(adopt_descriptor(number).is_err());
    }

    #[test]
    fn other_numbers_are_refused() {
        let own = std::fs::File::open("/dev/null").unwrap();
        for number in [-1, i32::MIN, 0, 1, 2, i32::MAX, own.as_raw_fd()] {
            let error = adopt_descriptor(number).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{number}");
        }
    }
}
