//! A counter that many workers add to at once, without getting in each other's way.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use super::Region;
use crate::error::{Error, ErrorKind, Result};

/// Two cache lines: processors fetch them in pairs.
const SHARD: usize = 128;

/// A counter in a region, of several numbers that lie apart: its shards. Cheap to clone.
///
/// Whoever adds to a shard of its own waits for nobody. A worker takes that of its slot, and its replacement,
/// which has the same slot, goes on with it: what was counted before a crash stays counted.
///
/// ```no_run
/// # use bimodal::{Result, SharedCounter, Worker};
/// # const SLOTS: usize = 4;
/// # fn main() { let _ = |worker: Worker| -> Result<()> {
/// // Declared with `.region("hits", SharedCounter::bytes(SLOTS))`.
/// let hits = worker.region("hits")?.counter(0, SLOTS)?;
/// hits.at(worker.slot().get()).add(1);
/// println!("{} hits", hits.sum());
/// # Ok(()) }; }
/// ```
#[derive(Clone)]
pub struct SharedCounter {
    region: Arc<Region>,
    start: usize,
    shards: usize,
}

impl SharedCounter {
    /// How many bytes a counter of so many shards takes: 128 for each.
    #[must_use]
    pub const fn bytes(shards: usize) -> usize {
        shards.saturating_mul(SHARD)
    }

    pub(super) fn new(region: Arc<Region>, byte_offset: usize, shards: usize) -> Result<Self> {
        if shards == 0 {
            let text = "a counter has no shard: give it one for each slot";
            return Err(Error::new(ErrorKind::Range, text));
        }
        region.check("a counter", byte_offset, shards.checked_mul(SHARD), SHARD)?;
        Ok(Self { region, start: byte_offset / size_of::<u64>(), shards })
    }

    /// How many shards it has, at least one.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The shard of a slot. Slots beyond the last share those of the first.
    #[must_use]
    pub fn at(&self, slot: usize) -> CounterShard {
        let shard = slot % self.shards;
        CounterShard { word: self.word(shard), region: self.region.clone() }
    }

    /// All that was added, to any shard. What is added meanwhile is in it, or not.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let numbers = (0..self.shards).map(|shard| self.region.words().get(self.word(shard)));
        numbers.fold(0, |sum, number| sum.wrapping_add(number.load(SeqCst)))
    }

    fn word(&self, shard: usize) -> usize {
        self.start + shard * (SHARD / size_of::<u64>())
    }
}

impl fmt::Debug for SharedCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCounter").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// One shard of a [`SharedCounter`], to add to. Cheap to clone; any thread may add to any shard.
#[derive(Clone)]
pub struct CounterShard {
    region: Arc<Region>,
    word: usize,
}

impl CounterShard {
    /// Adds to the counter. The sum begins again at 0 behind `u64::MAX`.
    pub fn add(&self, amount: u64) {
        self.region.words().get(self.word).fetch_add(amount, SeqCst);
    }
}

impl fmt::Debug for CounterShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterShard").field("word", &self.word).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn region(bytes: usize) -> Arc<Region> {
        Arc::new(Region::anonymous(bytes / 8).unwrap())
    }

    #[test]
    fn the_sum_is_all_that_was_added() {
        let region = region(SharedCounter::bytes(4));
        let counter = SharedCounter::new(region.clone(), 128, 3).unwrap();
        std::thread::scope(|scope| {
            for slot in 0..6 {
                let shard = counter.at(slot);
                scope.spawn(move || (0..1000).for_each(|_| shard.add(2)));
            }
        });
        assert_eq!((counter.sum(), counter.shards()), (12_000, 3));
        let words: Vec<_> = (0..64).map(|word| region.words().get(word).load(SeqCst)).collect();
        let used = words.iter().enumerate().filter(|(_, number)| **number != 0);
        assert_eq!(used.map(|(word, _)| word).collect::<Vec<_>>(), [16, 32, 48]);
    }

    #[test]
    fn a_counter_that_does_not_fit_is_refused() {
        let region = region(512);
        for (offset, shards, cause) in [
            (0, 5, "640 bytes at byte 0 does not fit into 512"),
            (128, 4, "512 bytes at byte 128"),
            (512, 1, "at byte 512"),
            (64, 1, "multiple of 128"),
            (0, 0, "no shard"),
            (128, usize::MAX, "too many bytes"),
            (usize::MAX - 127, 1, "does not fit"),
        ] {
            let error = SharedCounter::new(region.clone(), offset, shards).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Range);
            assert!(error.to_string().contains(cause), "{error}");
        }
        assert_eq!(SharedCounter::bytes(usize::MAX), usize::MAX);
    }
}
