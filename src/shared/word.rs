//! What the protocols in a region need of a word, so that loom can explore them on its own words.

#[cfg(not(all(test, loom)))]
pub(super) use std::sync::atomic::fence;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
pub(super) use loom::sync::atomic::fence;

/// An atomic word.
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u64;

    fn store(&self, value: u64, order: Ordering);

    /// Writes `value` if the word is `seen`; else says what it is.
    fn replace(&self, seen: u64, value: u64) -> Result<u64, u64>;

    /// Changes the word unless `change` says no, in one step; says what was there before.
    fn change(&self, mut change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let mut seen = self.load(Ordering::SeqCst);
        loop {
            match self.replace(seen, change(seen)?) {
                Ok(before) => return Some(before),
                Err(found) => seen = found,
            }
        }
    }
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn replace(&self, seen: u64, value: u64) -> Result<u64, u64> {
        self.compare_exchange(seen, value, Ordering::SeqCst, Ordering::SeqCst)
    }
}

#[cfg(all(test, loom))]
impl Word for loom::sync::atomic::AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn replace(&self, seen: u64, value: u64) -> Result<u64, u64> {
        self.compare_exchange(seen, value, Ordering::SeqCst, Ordering::SeqCst)
    }
}
