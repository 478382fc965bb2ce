//! Sleeping in the kernel until somebody, in whatever process, says that a shared word has changed.
//!
//! A futex is 32 bits, half a shared word: the kernel compares and falls asleep as one step, so no wake-up
//! that comes after the change is missed.

use std::{io, sync::atomic::AtomicU32};

use rustix::{
    io::Errno,
    thread::futex::{self, ClockId, Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags},
};

use super::memory::SharedWords;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was woken.
    Woken,
    /// It did not begin: the value was another one.
    Unequal,
    /// The deadline has passed.
    Late,
}

/// Sleeps while the half at `index` is `expected`, until it is woken or, on the clock that all processes
/// share, the deadline in nanoseconds has passed.
pub(crate) fn wait(
    words: &SharedWords,
    index: usize,
    expected: u32,
    deadline_ns: Option<u64>,
) -> io::Result<Ended> {
    let deadline = deadline_ns.map(time);
    loop {
        // Any bit: the kernel has deadlines, not durations, only for waits with bits.
        let any = std::num::NonZeroU32::MAX;
        let half = words.half(index);
        let waited = futex::wait_bitset(half, Flags::empty(), expected, deadline.as_ref(), any);
        if let Some(ended) = ended(waited) {
            return ended;
        }
    }
}

/// [`wait`] that also ends, with `None`, when `stop` is no longer 0 and its sleeper was woken.
///
/// An error of [`io::ErrorKind::Unsupported`]: the kernel is older than 5.16.
pub(crate) fn wait_unless(
    stop: &AtomicU32,
    words: &SharedWords,
    index: usize,
    expected: u32,
    deadline_ns: Option<u64>,
) -> io::Result<Option<Ended>> {
    let deadline = deadline_ns.map(time);
    // In this order: of two that were woken the kernel names the last.
    let both = [
        entry(stop, 0, WaitFlags::PRIVATE),
        entry(words.half(index), expected, WaitFlags::empty()),
    ];
    loop {
        let flags = WaitvFlags::empty();
        let waited = futex::waitv(&both, flags, deadline.as_ref(), ClockId::Monotonic);
        if waited == Ok(0) {
            return Ok(None);
        }
        if let Some(ended) = ended(waited.map(drop)) {
            return ended.map(Some);
        }
    }
}

fn entry(half: &AtomicU32, expected: u32, flags: WaitFlags) -> Wait {
    let mut entry = Wait::new();
    entry.val = expected.into();
    entry.uaddr = WaitPtr::new(half.as_ptr().cast());
    entry.flags = flags | WaitFlags::SIZE_U32;
    entry
}

/// Wakes at most `count` of those that sleep at the half at `index`, and says how many it were.
pub(crate) fn wake(words: &SharedWords, index: usize, count: usize) -> io::Result<usize> {
    Ok(futex::wake(words.half(index), Flags::empty(), most(count))?)
}

/// Wakes the one thread of this process that sleeps at `stop`.
pub(crate) fn wake_stopped(stop: &AtomicU32) {
    // It cannot fail: the word is there and aligned.
    let _ = futex::wake(stop, Flags::PRIVATE, 1);
}

/// How many sleep at the half at `index`: nobody is woken, all are moved to where they are.
#[cfg(test)]
pub(crate) fn sleepers(words: &SharedWords, index: usize) -> io::Result<usize> {
    let half = words.half(index);
    let value = half.load(std::sync::atomic::Ordering::SeqCst);
    Ok(futex::cmp_requeue(half, Flags::empty(), 0, most(usize::MAX), half, value)?)
}

/// The kernel counts with a signed number.
fn most(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs())
}

/// `None`: a signal came between.
fn ended(waited: Result<(), Errno>) -> Option<io::Result<Ended>> {
    match waited {
        Ok(()) => Some(Ok(Ended::Woken)),
        Err(Errno::AGAIN) => Some(Ok(Ended::Unequal)),
        Err(Errno::TIMEDOUT) => Some(Ok(Ended::Late)),
        Err(Errno::INTR) => None,
        Err(error) => Some(Err(error.into())),
    }
}

fn time(ns: u64) -> Timespec {
    let (seconds, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
    Timespec { tv_sec: seconds.cast_signed(), tv_nsec: ns.cast_signed() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, atomic::Ordering::SeqCst};

    use super::*;

    fn words() -> Arc<SharedWords> {
        Arc::new(SharedWords::anonymous(2).unwrap())
    }

    /// Wakes the one who is, or soon will be, asleep.
    fn wake_one(words: &SharedWords, index: usize) {
        while sleepers(words, index).unwrap() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(wake(words, index, usize::MAX).unwrap(), 1);
    }

    #[test]
    fn a_wait_has_three_ends() {
        let words = words();
        assert_eq!(wait(&words, 3, 1, None).unwrap(), Ended::Unequal);
        assert_eq!(wait(&words, 3, 0, Some(1)).unwrap(), Ended::Late);
        let sleeper = words.clone();
        let sleeper = std::thread::spawn(move || wait(&sleeper, 3, 0, None).unwrap());
        wake_one(&words, 3);
        assert_eq!(sleeper.join().unwrap(), Ended::Woken);
        assert_eq!(wake(&words, 3, usize::MAX).unwrap(), 0);
    }

    #[test]
    fn halves_are_in_the_order_of_their_addresses() {
        let words = words();
        words.get(1).store(u64::from_ne_bytes([1, 0, 0, 0, 2, 0, 0, 0]), SeqCst);
        for (half, value) in
            [(2, u32::from_ne_bytes([1, 0, 0, 0])), (3, u32::from_ne_bytes([2, 0, 0, 0]))]
        {
            assert_eq!(wait(&words, half, value, Some(1)).unwrap(), Ended::Late, "{half}");
        }
    }

    #[test]
    fn a_wait_can_be_stopped() {
        let (words, stop) = (words(), Arc::new(AtomicU32::new(0)));
        let wait = |deadline, expected| wait_unless(&stop, &words, 0, expected, deadline);
        match wait(Some(1), 0) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            late => assert_eq!(late.unwrap(), Some(Ended::Late)),
        }
        assert_eq!(wait(None, 7).unwrap(), Some(Ended::Unequal));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait(None, 0).unwrap());
            wake_one(&words, 0);
            assert_eq!(sleeper.join().unwrap(), Some(Ended::Woken));
            let sleeper = scope.spawn(|| wait(None, 0).unwrap());
            stop.store(1, SeqCst);
            wake_stopped(&stop);
            // The second: it had not begun.
            assert!(matches!(sleeper.join().unwrap(), None | Some(Ended::Unequal)));
        });
        assert_eq!(wait(None, 0).unwrap(), Some(Ended::Unequal));
    }
}
