//! The word of a lock: who holds it, whether somebody waits, whether a holder died.
//!
//! Every step is one atomic change of this word, so it is never half changed, wherever a holder is killed.

use std::sync::atomic::Ordering::SeqCst;

use crate::shared::{region::Party, word::Word};

/// Somebody sleeps, or is about to, until the lock is released.
const AWAITED: u64 = 1;

/// A holder died or panicked since this was last cleared.
const POISONED: u64 = 2;

const FLAGS: u32 = 2;

/// Who holds the lock by this word.
fn holder(word: u64) -> Option<Party> {
    let party = word >> FLAGS;
    (party != 0).then_some(Party(party))
}

fn held_by(party: Party) -> u64 {
    party.0 << FLAGS
}

/// Takes the lock if it is free, or if its holder does not live: then it is poisoned. Says whether it is.
///
/// Who waited before and was woken took the one wake-up there was: it says so by `waited`, and wakes the
/// next in its turn.
pub(super) fn take(
    word: &impl Word,
    own: Party,
    waited: bool,
    lives: impl Fn(Party) -> bool,
) -> Option<bool> {
    let awaited = if waited { AWAITED } else { 0 };
    let mut after = 0;
    word.change(|before| {
        after = match holder(before) {
            None => before | held_by(own) | awaited,
            Some(holder) if lives(holder) => return None,
            Some(_) => held_by(own) | AWAITED | POISONED,
        };
        Some(after)
    })?;
    Some(after & POISONED != 0)
}

/// Makes whoever holds the lock wake somebody when it is released: says at which value to fall asleep, or
/// `None` if it is free by now.
pub(super) fn await_release(word: &impl Word) -> Option<u64> {
    let before = word.change(|before| holder(before).map(|_| before | AWAITED))?;
    Some(before | AWAITED)
}

/// Releases the lock, if it is its own still. Says whether somebody is to be woken.
pub(super) fn release(word: &impl Word, own: Party, poison: bool) -> bool {
    let poison = if poison { POISONED } else { 0 };
    let before =
        word.change(|before| (holder(before) == Some(own)).then_some((before & POISONED) | poison));
    before.is_some_and(|before| before & AWAITED != 0)
}

pub(super) fn is_poisoned(word: &impl Word) -> bool {
    word.load(SeqCst) & POISONED != 0
}

pub(super) fn clear_poison(word: &impl Word) {
    word.change(|before| Some(before & !POISONED));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const ONE: Party = Party(1025);
    const OTHER: Party = Party(2048);

    #[test]
    fn a_lock_has_one_holder_who_is_told_of_those_who_wait() {
        let word = AtomicU64::new(0);
        assert_eq!(await_release(&word), None, "it is free");
        assert_eq!(take(&word, ONE, false, |_| true), Some(false));
        assert_eq!(take(&word, OTHER, false, |_| true), None);
        assert!(!release(&word, OTHER, false), "it is not his");
        assert_eq!(await_release(&word), Some(word.load(SeqCst)));
        assert!(release(&word, ONE, false));
        assert!(!release(&word, ONE, false), "once");
        assert_eq!(take(&word, OTHER, true, |_| true), Some(false));
        assert!(release(&word, OTHER, false), "there may be more who wait");
        assert_eq!(word.load(SeqCst), 0);
    }

    #[test]
    fn a_lock_of_the_dead_is_taken_and_stays_poisoned_until_it_is_cleared() {
        let word = AtomicU64::new(0);
        assert_eq!(take(&word, ONE, false, |_| true), Some(false));
        assert_eq!(take(&word, OTHER, false, |party| party != ONE), Some(true));
        assert!(!release(&word, ONE, false), "who was thought dead has lost it");
        assert!(release(&word, OTHER, false));
        assert_eq!(take(&word, ONE, false, |_| true), Some(true));
        clear_poison(&word);
        assert!(!is_poisoned(&word));
        release(&word, ONE, true);
        assert!(is_poisoned(&word), "it was poisoned by its holder");
    }

    #[test]
    fn whatever_is_written_over_the_word_it_can_be_taken() {
        for scribble in [u64::MAX, u64::MAX - 1, 1 << 63, 4, 3] {
            let word = AtomicU64::new(scribble);
            assert!(take(&word, ONE, false, |_| false).is_some(), "{scribble}");
            release(&word, ONE, false);
            assert!(take(&word, OTHER, false, |_| true).is_some(), "{scribble}");
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::{
        cell::Cell,
        sync::{Arc, Condvar, Mutex, atomic::AtomicBool, atomic::AtomicU64},
        thread,
    };

    use super::*;

    const PARTIES: [Party; 3] = [Party(1), Party(1025), Party(2050)];

    /// A lock, what it protects, the kernel's queue of sleepers, and whether the first party is dead.
    struct Model {
        word: AtomicU64,
        protected: Cell<u32>,
        kernel: Mutex<()>,
        sleepers: Condvar,
        dead: AtomicBool,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                word: AtomicU64::new(0),
                protected: Cell::new(0),
                kernel: Mutex::new(()),
                sleepers: Condvar::new(),
                dead: AtomicBool::new(false),
            })
        }

        /// As the real one does, but without a deadline after which it would look again.
        fn lock(&self, own: Party) -> bool {
            let mut waited = false;
            loop {
                let lives = |party| party != PARTIES[0] || !self.dead.load(SeqCst);
                if let Some(poisoned) = take(&self.word, own, waited, lives) {
                    return poisoned;
                }
                let Some(seen) = await_release(&self.word) else { continue };
                waited = true;
                let queue = self.kernel.lock().unwrap();
                if Word::load(&self.word, SeqCst) as u32 == seen as u32 {
                    drop(self.sleepers.wait(queue).unwrap());
                }
            }
        }

        fn unlock(&self, own: Party) {
            if release(&self.word, own, false) {
                drop(self.kernel.lock().unwrap());
                self.sleepers.notify_one();
            }
        }

        /// Says whether it was poisoned.
        fn use_once(&self, own: Party) -> bool {
            let poisoned = self.lock(own);
            self.count();
            self.unlock(own);
            poisoned
        }

        /// Loom fails the model if two do this at once, or if one does not see what the one before did.
        fn count(&self) -> u32 {
            let before = self.protected.get();
            self.protected.set(before + 1);
            before
        }
    }

    fn model(run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(run);
    }

    /// If a wake-up could be lost, loom finds where somebody sleeps for ever.
    #[test]
    fn loom_a_lock_has_one_holder_and_everybody_gets_it() {
        model(|| {
            let lock = Model::new();
            let others = [1, 2].map(|party| {
                let lock = lock.clone();
                thread::spawn(move || lock.use_once(PARTIES[party]))
            });
            assert!(!lock.use_once(PARTIES[0]));
            others.into_iter().for_each(|other| assert!(!other.join().unwrap()));
            assert_eq!(lock.count(), 3);
        });
    }

    /// The first is killed with the lock in hand, while the second may wait for it already; the third
    /// comes later.
    #[test]
    fn loom_a_lock_of_the_dead_goes_to_those_who_see_all_that_the_dead_did() {
        model(|| {
            let lock = Model::new();
            let (killed, waiting) = (lock.clone(), lock.clone());
            let killed = thread::spawn(move || {
                killed.lock(PARTIES[0]);
                killed.count();
                killed.dead.store(true, SeqCst);
            });
            let waiting = thread::spawn(move || waiting.use_once(PARTIES[1]));
            killed.join().unwrap();
            assert!(lock.use_once(PARTIES[2]), "poisoned, whoever took it first");
            waiting.join().unwrap();
            assert_eq!(lock.count(), 3);
        });
    }
}
