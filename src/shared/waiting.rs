//! Waiting for a shared number without blocking the thread: somebody else's thread does.
//!
//! The kernel wakes threads, not tasks, and no descriptor becomes ready with a futex. So each future has a
//! thread that sleeps for it, taken from a few idle ones or started, at most [`MOST`] per process; an
//! idle thread ends after [`IDLE`]. A future that is dropped stops its thread's sleep by a word of its own,
//! and a notification that came at the same moment is passed on: it was meant for somebody.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::{
    Waited,
    region::{Region, deadline_ns},
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    sys::{
        futex::{self, Ended},
        thread,
    },
};

/// The most threads of a process that sleep for futures.
const MOST: usize = 128;

/// How long a thread waits for something to sleep for.
const IDLE: Duration = Duration::from_secs(1);

/// How long a sleep takes that cannot be stopped, on kernels older than 5.16.
const SLICE: Duration = Duration::from_millis(20);

/// A wait for a shared number, from [`SharedView::wait_async`](super::SharedView::wait_async) (Node: the
/// promise of `Atomics.waitAsync`).
///
/// # Errors
///
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the kernel refuses.
#[must_use = "dropping it ends the wait"]
#[derive(Debug)]
pub struct Waiting {
    wait: Arc<Wait>,
}

/// What the future and the thread that sleeps for it share.
#[derive(Debug)]
struct Wait {
    region: Arc<Region>,
    index: usize,
    expected: u32,
    deadline_ns: Option<u64>,
    /// 1 once the future is gone. A futex.
    stop: AtomicU32,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
enum Progress {
    Sleeps(Option<Waker>),
    Ended(Result<Waited>),
    /// The future is gone, or has its answer.
    Over,
}

impl Waiting {
    /// Waits while the half at `index` is `expected`.
    pub(super) fn begin(
        region: &Arc<Region>,
        index: usize,
        expected: u32,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let wait = Arc::new(Wait {
            region: region.clone(),
            index,
            expected,
            deadline_ns: timeout.map(deadline_ns),
            stop: AtomicU32::new(0),
            progress: Mutex::new(Progress::Sleeps(None)),
        });
        hand_over(wait.clone())?;
        Ok(Self { wait })
    }
}

impl Future for Waiting {
    type Output = Result<Waited>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut progress = self.wait.progress.lock();
        match std::mem::replace(&mut *progress, Progress::Over) {
            Progress::Ended(answer) => Poll::Ready(answer),
            Progress::Sleeps(_) => {
                *progress = Progress::Sleeps(Some(cx.waker().clone()));
                Poll::Pending
            }
            Progress::Over => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let progress = std::mem::replace(&mut *self.wait.progress.lock(), Progress::Over);
        match progress {
            Progress::Sleeps(_) => {
                self.wait.stop.store(1, SeqCst);
                futex::wake_stopped(&self.wait.stop);
            }
            Progress::Ended(answer) => self.wait.pass_on(&answer),
            Progress::Over => {}
        }
    }
}

impl Wait {
    /// On a thread that has nothing else to do.
    fn sleep(&self) {
        let answer = match self.sleep_unless_stopped() {
            Ok(Some(ended)) => Ok(ended.into()),
            Ok(None) => return,
            Err(error) => Err(error).context(ErrorKind::Io, || "wait for a shared number".into()),
        };
        let mut progress = self.progress.lock();
        match &mut *progress {
            Progress::Sleeps(waker) => {
                let waker = waker.take();
                *progress = Progress::Ended(answer);
                drop(progress);
                waker.into_iter().for_each(Waker::wake);
            }
            Progress::Ended(_) | Progress::Over => self.pass_on(&answer),
        }
    }

    /// `None`: the future is gone.
    fn sleep_unless_stopped(&self) -> io::Result<Option<Ended>> {
        let (words, stop) = (self.region.words(), &self.stop);
        let slept = futex::wait_unless(stop, words, self.index, self.expected, self.deadline_ns);
        // Whatever keeps this call away, a policy among it, does not keep away the older one.
        slept.or_else(|_| self.sleep_in_slices())
    }

    fn sleep_in_slices(&self) -> io::Result<Option<Ended>> {
        while self.stop.load(SeqCst) == 0 {
            let (slice, deadline) = (deadline_ns(SLICE), self.deadline_ns.unwrap_or(u64::MAX));
            let words = self.region.words();
            let slept = futex::wait(words, self.index, self.expected, Some(slice.min(deadline)))?;
            if slept != Ended::Late || deadline <= slice {
                return Ok(Some(slept));
            }
        }
        Ok(None)
    }

    /// Nobody takes this answer: if it was a notification, the next one who waits gets it.
    fn pass_on(&self, answer: &Result<Waited>) {
        if matches!(answer, Ok(Waited::Notified)) {
            // An error was one of the wait, too, and is told there.
            let _ = self.region.notify(self.index, 1);
        }
    }
}

/// The threads that sleep for futures.
struct Sleepers {
    /// Without a place in it: a wait goes to a thread that is idle now, or to none.
    waits: (Sender<Arc<Wait>>, Receiver<Arc<Wait>>),
    threads: AtomicUsize,
}

fn sleepers() -> &'static Sleepers {
    static SLEEPERS: OnceLock<Sleepers> = OnceLock::new();
    SLEEPERS.get_or_init(|| Sleepers { waits: bounded(0), threads: AtomicUsize::new(0) })
}

fn hand_over(wait: Arc<Wait>) -> Result<()> {
    let sleepers = sleepers();
    match sleepers.waits.0.try_send(wait) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(wait) | TrySendError::Disconnected(wait)) => start(sleepers, wait),
    }
}

fn start(sleepers: &'static Sleepers, wait: Arc<Wait>) -> Result<()> {
    if sleepers.threads.fetch_add(1, SeqCst) >= MOST {
        sleepers.threads.fetch_sub(1, SeqCst);
        let text = format!("{MOST} futures of this process wait for shared numbers already");
        return Err(Error::new(ErrorKind::Full, text));
    }
    let thread = std::thread::Builder::new().name("bimodal-sleeper".into());
    let started = thread.spawn(move || {
        thread::leave_signals_to_others();
        work(sleepers, wait);
        sleepers.threads.fetch_sub(1, SeqCst);
    });
    started.map(drop).map_err(|error| {
        sleepers.threads.fetch_sub(1, SeqCst);
        Error::caused(ErrorKind::Io, "start a thread that waits for a shared number", error)
    })
}

fn work(sleepers: &Sleepers, first: Arc<Wait>) {
    let mut next = Some(first);
    while let Some(wait) = next {
        wait.sleep();
        // Not kept alive by an idle thread.
        drop(wait);
        next = sleepers.waits.1.recv_timeout(IDLE).ok();
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::mpsc, task::Wake};

    use super::*;

    /// Longer than anything here takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn region() -> Arc<Region> {
        Arc::new(Region::anonymous(16).unwrap())
    }

    fn begin(region: &Arc<Region>, timeout: Option<Duration>) -> Waiting {
        Waiting::begin(region, 3, 0, timeout).unwrap()
    }

    fn until(mut condition: impl FnMut() -> bool) {
        let end = deadline_ns(DEADLINE);
        while !condition() {
            assert!(crate::clock::monotonic_ns() < end, "waited in vain");
            std::thread::yield_now();
        }
    }

    fn until_asleep(region: &Region, count: usize) {
        until(|| futex::sleepers(region.words(), 3).unwrap() == count);
    }

    struct Bell(mpsc::Sender<()>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    /// What a task gets that awaits it.
    fn outcome(mut waiting: Waiting) -> Waited {
        let (bell, rings) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(bell)));
        loop {
            match Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer.unwrap(),
                Poll::Pending => rings.recv_timeout(DEADLINE).unwrap(),
            }
        }
    }

    #[test]
    fn a_wait_of_a_task_has_three_ends() {
        let region = region();
        assert_eq!(outcome(Waiting::begin(&region, 3, 1, None).unwrap()), Waited::NotEqual);
        assert_eq!(outcome(begin(&region, Some(Duration::from_millis(1)))), Waited::TimedOut);
        let waiting = begin(&region, Some(Duration::MAX));
        until_asleep(&region, 1);
        assert_eq!(region.notify(3, usize::MAX).unwrap(), 1);
        assert_eq!(outcome(waiting), Waited::Notified);
    }

    #[test]
    fn a_wait_that_nobody_awaits_any_more_ends() {
        let region = region();
        let waiting = begin(&region, None);
        until_asleep(&region, 1);
        drop(waiting);
        until_asleep(&region, 0);
        // Also the memory: nothing else holds it.
        until(|| Arc::strong_count(&region) == 1);
    }

    #[test]
    fn a_notification_that_nobody_takes_goes_to_the_next_one() {
        let region = region();
        let mut waits = vec![begin(&region, None), begin(&region, None)];
        until_asleep(&region, 2);
        assert_eq!(region.notify(3, 1).unwrap(), 1);
        let has_ended =
            |waiting: &Waiting| matches!(*waiting.wait.progress.lock(), Progress::Ended(_));
        until(|| waits.iter().any(has_ended));
        let ended = waits.iter().position(has_ended).unwrap();
        drop(waits.remove(ended));
        assert_eq!(outcome(waits.remove(0)), Waited::Notified);
    }

    #[test]
    fn without_the_newer_call_it_sleeps_in_slices() {
        let region = region();
        let wait = |deadline_ns| Wait {
            region: region.clone(),
            index: 3,
            expected: 0,
            deadline_ns,
            stop: AtomicU32::new(0),
            progress: Mutex::new(Progress::Sleeps(None)),
        };
        let late = wait(Some(deadline_ns(SLICE * 2)));
        assert_eq!(late.sleep_in_slices().unwrap(), Some(Ended::Late));
        let wait = wait(None);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait.sleep_in_slices().unwrap());
            until_asleep(&region, 1);
            until(|| region.notify(3, 1).unwrap() == 1);
            assert_eq!(sleeper.join().unwrap(), Some(Ended::Woken));
            let sleeper = scope.spawn(|| wait.sleep_in_slices().unwrap());
            until_asleep(&region, 1);
            wait.stop.store(1, SeqCst);
            assert_eq!(sleeper.join().unwrap(), None);
        });
    }
}
