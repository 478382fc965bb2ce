//! Waiting for what may come at any moment: a thread looks again and again for a while before it sleeps.
//!
//! A sleep and the wake-up after it cost the sleeper and whoever wakes it several microseconds each; looking costs the
//! core as long as it lasts. How long it pays is learnt from the waits before, in the way of KVM's halt polling
//! (Documentation/virt/kvm/halt-polling.rst in Linux): longer after a wait that more looking would have covered, shorter
//! after one that no looking would have.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::clock;

/// How long a place looks at least: what comes back at once is found, and then it learns.
const LEAST: Duration = Duration::from_micros(5);

/// How long a place looks before it has learnt anything.
const FIRST: Duration = Duration::from_micros(20);

/// How long a place looks at most. An answer of another process that has to be woken for it is there by then.
const MOST: Duration = Duration::from_micros(50);

/// How long the threads that wait in one place look again. Any of them may learn.
#[derive(Debug)]
pub(crate) struct Patience {
    nanoseconds: AtomicU64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { nanoseconds: AtomicU64::new(nanoseconds(FIRST)) }
    }
}

impl Patience {
    /// What `look` finds in time, or else what `sleep` brings. Nothing is looked for past the deadline.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        look: impl Fn() -> Option<T>,
        sleep: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let begun = clock::now();
        let time = Duration::from_nanos(self.nanoseconds.load(Relaxed));
        let end = deadline.map_or(begun + time, |deadline| deadline.min(begun + time));
        while clock::now() < end {
            thread::yield_now();
            if let Some(found) = look() {
                return Some(found);
            }
        }
        let found = sleep()?;
        let next = after(time, clock::now().saturating_duration_since(begun));
        self.nanoseconds.store(nanoseconds(next), Relaxed);
        Some(found)
    }
}

/// How long to look after a wait that looking for `time` did not cover.
fn after(time: Duration, waited: Duration) -> Duration {
    if waited <= MOST { (time * 2).min(MOST) } else { (time / 2).max(LEAST) }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn looking_lasts_as_long_as_it_pays() {
        let short = |time| after(time, MOST);
        assert_eq!(short(LEAST), 2 * LEAST);
        assert_eq!(short(FIRST), 2 * FIRST);
        assert_eq!(short(short(FIRST)), MOST);
        let long = |time| after(time, MOST + Duration::from_nanos(1));
        assert_eq!(long(MOST), MOST / 2);
        assert_eq!((0..9).fold(MOST, |time, _| long(time)), LEAST);
    }

    #[test]
    fn what_is_found_in_time_is_not_slept_for() {
        let (patience, looks) = (Patience::default(), Cell::new(0));
        let third = || {
            looks.set(looks.get() + 1);
            (looks.get() == 3).then_some("found")
        };
        let endless = Patience { nanoseconds: AtomicU64::new(nanoseconds(60 * LONG)) };
        assert_eq!(endless.wait(None, third, || panic!("it slept")), Some("found"));
        assert_eq!(patience.wait(None, || None, || Some("brought")), Some("brought"));
    }

    #[test]
    fn whoever_waits_long_looks_less() {
        let patience = Patience::default();
        let slept = || {
            let end = clock::now() + 2 * MOST;
            while clock::now() < end {}
            Some(())
        };
        for _ in 0..9 {
            patience.wait(None, || None, slept).unwrap();
        }
        assert_eq!(patience.nanoseconds.load(Relaxed), nanoseconds(LEAST));
        assert_eq!(patience.wait(None, || None, || None::<()>), None);
        assert_eq!(patience.nanoseconds.load(Relaxed), nanoseconds(LEAST));
    }

    #[test]
    fn nothing_is_looked_for_past_the_deadline() {
        let patience = Patience { nanoseconds: AtomicU64::new(nanoseconds(60 * LONG)) };
        let found = patience.wait(Some(clock::now()), || panic!("it looked"), || Some(1));
        assert_eq!(found, Some(1));
    }
}
