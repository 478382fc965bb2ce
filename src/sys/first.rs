//! What the first process of a namespace needs: to go on in a child and to keep nothing but its duty.

#![allow(unsafe_code)]

use std::{io, mem::MaybeUninit};

use rustix::process::Pid;

use super::process::threads_running;

/// All signals are blocked for the calling thread until this is dropped, after a fork in both processes.
#[derive(Debug)]
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(crate) fn new() -> io::Result<Self> {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: `sigfillset` initialises the set it is given; the other call gets an initialised set and
        // a valid place for the old one. The mask is the calling thread's alone.
        let failed = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr())
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: the call succeeded, so it has written the old mask.
        Ok(Self { before: unsafe { before.assume_init() } })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was written by the system. It cannot fail: the first argument is valid.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Splits this process in two, which both go on from here: in the old one with the new one's number, in
/// the new one with `None`.
///
/// Refused with `WouldBlock` while other threads run: they, and the locks they hold, would be missing.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if threads_running() != Some(1) {
        return Err(io::Error::new(io::ErrorKind::WouldBlock, "other threads are running"));
    }
    // SAFETY: this is the only thread, so the new process has every thread that the old one had, and no
    // lock is held by one that is missing.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Closes every descriptor from this number on, whoever owns it.
///
/// For a process that is done with everything it had: nothing that was made before may be used again.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: it closes descriptors and touches no memory. The caller uses none of them again, so nobody
    // finds somebody else's descriptor under a number of its own.
    match unsafe { libc::close_range(first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process with this code, now: nothing is flushed and nothing is called.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return and runs no code of this process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_split() {
        // The test's own thread and the runner's.
        assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn signals_are_blocked_for_a_while() {
        let blocked = || {
            let mut set = MaybeUninit::uninit();
            // SAFETY: the place is valid; without a new set the call only reads the mask.
            unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr());
                libc::sigismember(set.as_ptr(), libc::SIGUSR1) == 1
            }
        };
        let before = blocked();
        let guard = SignalsBlocked::new().unwrap();
        assert!(blocked());
        drop(guard);
        assert_eq!(blocked(), before);
    }
}
