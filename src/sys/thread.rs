//! The calling thread: its name, its signals; and CPU clocks, which also processes have.

#![allow(unsafe_code)]

use std::{ffi::CString, fmt, io, mem::MaybeUninit, time::Duration};

use rustix::thread::CpuSet;

/// The signals that stay deliverable to a worker thread: those that its own faults raise, and the
/// profiler's.
const OWN_SIGNALS: [libc::c_int; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGPROF,
];

/// Names the calling thread for the system's tools, which keep 15 bytes.
pub(crate) fn show_as(name: &str) {
    let shown = CString::new(name).ok().map(|name| rustix::thread::set_name(&name));
    if !matches!(shown, Some(Ok(()))) {
        log::debug!("the thread cannot be shown as {name:?}");
    }
}

/// Blocks the process's signals for the calling thread and those it starts: other threads get them.
/// Programs that it starts begin with none blocked, as the standard library sees to.
pub(crate) fn leave_signals_to_others() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set it is given; the calls after it get an initialised set and
    // valid signal numbers. The mask is the calling thread's alone.
    let failed = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        OWN_SIGNALS.iter().for_each(|signal| {
            libc::sigdelset(set.as_mut_ptr(), *signal);
        });
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())
    };
    if failed != 0 {
        log::warn!("signals cannot be blocked for a worker thread: error {failed}");
    }
}

/// Asks for waits of the calling thread that end when they should, and not up to 50 us later
/// (`PR_SET_TIMERSLACK` in prctl(2)).
#[cfg(feature = "compare")]
pub(crate) fn wake_on_time() {
    if let Err(error) = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)) {
        log::debug!("the slack of a thread's timers cannot be set: {error}");
    }
}

/// A set of cores.
#[derive(Clone, Copy)]
pub(crate) struct Cores(CpuSet);

impl Cores {
    /// Ids from here on cannot be in a set.
    pub(crate) const MAX: usize = CpuSet::MAX_CPU;

    /// These cores; `None` if there are none, or one cannot be in a set.
    pub(crate) fn of(ids: &[usize]) -> Option<Self> {
        if ids.is_empty() || ids.iter().any(|id| *id >= Self::MAX) {
            return None;
        }
        let mut set = CpuSet::new();
        ids.iter().for_each(|id| set.set(*id));
        Some(Self(set))
    }

    /// Those that the calling thread may use, if the system says.
    pub(crate) fn current() -> Option<Self> {
        rustix::thread::sched_getaffinity(None).ok().map(Self)
    }

    /// Lets the calling thread use these, and no others.
    pub(crate) fn use_here(&self) -> io::Result<()> {
        Ok(rustix::thread::sched_setaffinity(None, &self.0)?)
    }

    fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        (0..Self::MAX).filter(|id| self.0.is_set(*id))
    }
}

impl PartialEq for Cores {
    fn eq(&self, other: &Self) -> bool {
        self.ids().eq(other.ids())
    }
}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids()).finish()
    }
}

/// The kernel's number of the calling thread.
pub(crate) fn own_thread() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into()
}

/// The clock of the CPU time that the calling thread has used, for any thread of this process to
/// read; `None` if the system has none.
pub(crate) fn own_clock() -> Option<CpuClock> {
    let mut clock = 0;
    // SAFETY: the calling thread is alive, and the place for the answer is valid.
    let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
    (failed == 0).then_some(CpuClock(clock))
}

/// The clock of the CPU time that this process has used, for any process to read.
pub(crate) fn process_clock() -> Option<CpuClock> {
    let mut clock = 0;
    let own = super::process::own_pid();
    // SAFETY: the place for the answer is valid.
    let failed = unsafe { libc::clock_getcpuclockid(own, &mut clock) };
    (failed == 0).then_some(CpuClock(clock))
}

/// The number of a CPU clock. Whoever it measured may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// A clock by the number that another process wrote; `None` if it cannot be a CPU clock: those are
    /// negative, and their lowest bits say whose they are (2: a process, 6: a thread).
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok()?.cast_signed();
        (number < 0 && matches!(number & 7, 2 | 6)).then_some(Self(number))
    }

    /// Its number, never 0.
    pub(crate) fn number(self) -> u64 {
        self.0.cast_unsigned().into()
    }

    /// The time it shows; `None` when what it measured has ended.
    pub(crate) fn read(self) -> Option<Duration> {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: any clock number may be asked for, and the place for the answer is valid.
        let failed = unsafe { libc::clock_gettime(self.0, time.as_mut_ptr()) };
        if failed != 0 {
            return None;
        }
        // SAFETY: the call succeeded, so it has written the time.
        let time = unsafe { time.assume_init() };
        let (seconds, nanos) =
            (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        Some(Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_while_its_owner_works_and_is_gone_with_it() {
        let (thread, process) = std::thread::spawn(|| {
            let thread = own_clock().unwrap();
            while thread.read().unwrap() < Duration::from_millis(5) {}
            (thread, process_clock().unwrap().read().unwrap())
        })
        .join()
        .unwrap();
        assert!(process >= Duration::from_millis(5), "{process:?}");
        // A thread can be joined once its memory is let go, and loses its clock shortly after.
        let own = own_clock().unwrap();
        let give_up = own.read().unwrap() + Duration::from_secs(10);
        while thread.read().is_some() {
            assert!(own.read().unwrap() < give_up, "the clock of a thread that has ended runs on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_numbers_of_cpu_clocks_are_taken() {
        let own = own_clock().unwrap();
        assert_eq!(CpuClock::from_number(own.number()), Some(own));
        // Real time, monotonic time, a descriptor's clock, none at all.
        for number in [0, 1, 7, u64::from((!5_u32 << 3) | 3), u64::MAX] {
            assert_eq!(CpuClock::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn a_threads_name_and_mask_are_its_own() {
        let status = std::thread::spawn(|| {
            show_as("bimodal-w-7");
            leave_signals_to_others();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        })
        .join()
        .unwrap();
        assert!(status.starts_with("Name:\tbimodal-w-7\n"), "{status}");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        let blocked = |signal: libc::c_int| mask >> (signal - 1) & 1 == 1;
        assert!(blocked(libc::SIGTERM) && blocked(libc::SIGINT) && blocked(libc::SIGUSR1));
        assert!(!blocked(libc::SIGSEGV) && !blocked(libc::SIGABRT));
    }
}
