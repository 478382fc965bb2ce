//! A value of any fixed size in a region, read and written as a whole.
//!
//! Used from any thread of the primary and of the workers. Writers take turns by a [`SharedMutex`]; readers take
//! no lock. See [`copies`] for why nobody sees half a value, also when a writer dies.

mod copies;

use std::{
    fmt,
    sync::{Arc, PoisonError, atomic::AtomicU64},
};

use self::copies::Copies;
use super::{Region, SharedGuard, SharedMutex};
use crate::error::{Error, ErrorKind, Result};

const WORD: usize = size_of::<u64>();

/// Words before the first copy: the lock, the version.
const HEAD: usize = 2;

/// A value of a fixed number of bytes that all workers read and write as a whole: nobody ever sees half of
/// one value and half of another. Cheap to clone. All bytes are 0 at first.
///
/// Readers take no lock and hold up nobody; a writer waits for other writers, which takes as long as
/// copying does. When a writer is killed on the way the old value stays, and the next writer goes on.
///
/// ```no_run
/// # use bimodal::{Result, SharedCell, Worker};
/// # fn main() { let _ = |worker: Worker| -> Result<()> {
/// // Declared with `.region("config", SharedCell::bytes(100))`.
/// let config = worker.region("config")?.cell(0, 100)?;
/// config.update(|bytes| bytes[..5].copy_from_slice(b"hello"));
/// assert!(config.read().starts_with(b"hello"));
/// # Ok(()) }; }
/// ```
#[derive(Clone)]
pub struct SharedCell {
    region: Arc<Region>,
    lock: SharedMutex,
    start: usize,
    size: usize,
}

impl SharedCell {
    /// How many bytes a cell takes for a value of so many: 16, and twice the size in whole words.
    #[must_use]
    pub const fn bytes(size: usize) -> usize {
        size.div_ceil(WORD).saturating_mul(2 * WORD).saturating_add(HEAD * WORD)
    }

    pub(super) fn new(region: Arc<Region>, byte_offset: usize, size: usize) -> Result<Self> {
        if size == 0 {
            return Err(Error::new(ErrorKind::Range, "a cell of 0 bytes holds nothing"));
        }
        let bytes = Some(Self::bytes(size)).filter(|bytes| *bytes < usize::MAX);
        region.check("a cell", byte_offset, bytes, WORD)?;
        let lock = SharedMutex::new(region.clone(), byte_offset)?;
        Ok(Self { region, lock, start: byte_offset / WORD, size })
    }

    /// The size of the value in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The value.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let mut value = vec![0; self.size];
        self.copy_out(&mut value);
        value
    }

    /// The value, into memory that is there already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`] when that has another size.
    pub fn read_into(&self, value: &mut [u8]) -> Result<()> {
        self.check(value.len())?;
        self.copy_out(value);
        Ok(())
    }

    /// Writes the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`] when it has another size; nothing is written then.
    pub fn write(&self, value: &[u8]) -> Result<()> {
        self.check(value.len())?;
        let _guard = self.lock();
        self.copy_in(value);
        Ok(())
    }

    /// Changes the value; no other writer comes between. A panic in `change` leaves it as it was.
    ///
    /// Other writers wait meanwhile, blocking their threads.
    pub fn update<R>(&self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let _guard = self.lock();
        let mut value = self.read();
        let result = change(&mut value);
        self.copy_in(&value);
        result
    }

    /// What a writer left half done is the copy that does not count: there is nothing to repair.
    fn lock(&self) -> SharedGuard<'_> {
        self.lock.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            self.lock.clear_poison();
            poisoned.into_inner()
        })
    }

    fn check(&self, size: usize) -> Result<()> {
        if size == self.size {
            return Ok(());
        }
        let text = format!("a cell has {} bytes, not {size}", self.size);
        Err(Error::new(ErrorKind::Range, text))
    }

    fn copy_out(&self, value: &mut [u8]) {
        self.copies().read(|word, found| {
            let bytes = &mut value[word * WORD..];
            let len = bytes.len().min(WORD);
            bytes[..len].copy_from_slice(&found.to_ne_bytes()[..len]);
        });
    }

    fn copy_in(&self, value: &[u8]) {
        self.copies().write(value.chunks(WORD).map(|chunk| {
            let mut word = [0; WORD];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        }));
    }

    fn copies<'a>(&'a self) -> Copies<'a, AtomicU64, impl Fn(usize) -> &'a AtomicU64> {
        let (words, version) = (self.region.words(), self.start + 1);
        let copies = version + 1;
        Copies::new(words.get(version), move |at| words.get(copies + at), self.size.div_ceil(WORD))
    }
}

impl fmt::Debug for SharedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCell").field("size", &self.size).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn region(bytes: usize) -> Arc<Region> {
        Arc::new(Region::anonymous(bytes / WORD).unwrap())
    }

    #[test]
    fn a_value_is_read_as_it_was_written() {
        for size in [1, 7, 8, 9, 100] {
            let region = region(SharedCell::bytes(size) + 16);
            let cell = SharedCell::new(region.clone(), 8, size).unwrap();
            assert_eq!(cell.read(), vec![0; size]);
            for turn in 1..=3 {
                let value: Vec<_> = (0..size).map(|at| (at + turn) as u8).collect();
                cell.write(&value).unwrap();
                let mut found = vec![0; size];
                cell.read_into(&mut found).unwrap();
                assert_eq!(found, value);
            }
            assert_eq!(cell.update(|value| std::mem::take(&mut value[0])), 3);
            assert_eq!((cell.read()[0], cell.size()), (0, size));
            let words = region.words();
            let outside = [words.get(0), words.get(words.len() - 1)];
            assert!(outside.iter().all(|word| word.load(std::sync::atomic::Ordering::SeqCst) == 0));
        }
    }

    #[test]
    fn nobody_sees_half_a_value() {
        const ROUNDS: u64 = 20_000;
        let cell = SharedCell::new(region(SharedCell::bytes(64)), 0, 64).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        cell.update(|value| {
                            value.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1))
                        });
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let value = cell.read();
                    assert!(value.iter().all(|byte| *byte == value[0]), "{value:?}");
                }
            });
        });
        assert_eq!(cell.read(), [(2 * ROUNDS) as u8; 64]);
    }

    #[test]
    fn a_panic_on_the_way_leaves_the_value_and_holds_nobody_up() {
        let cell = SharedCell::new(region(SharedCell::bytes(8)), 0, 8).unwrap();
        cell.write(b"old one!").unwrap();
        let writer = cell.clone();
        let panicked = std::thread::spawn(move || {
            writer.update(|value| {
                value.fill(b'x');
                panic!("half done");
            })
        });
        panicked.join().unwrap_err();
        assert_eq!(cell.read(), b"old one!");
        cell.write(b"new one!").unwrap();
        assert!(!cell.lock.is_poisoned());
        assert_eq!(cell.read(), b"new one!");
    }

    #[test]
    fn a_cell_that_cannot_be_is_refused() {
        let region = region(64);
        for (offset, size, cause) in [
            (0, 25, "80 bytes at byte 0 does not fit into 64"),
            (32, 9, "48 bytes at byte 32"),
            (4, 1, "multiple of 8"),
            (0, 0, "0 bytes"),
            (0, usize::MAX, "too many"),
        ] {
            let error = SharedCell::new(region.clone(), offset, size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Range);
            assert!(error.to_string().contains(cause), "{error}");
        }
        let cell = SharedCell::new(region, 32, 8).unwrap();
        for refused in [cell.write(&[1; 9]), cell.write(&[]), cell.read_into(&mut [0; 7])] {
            assert!(refused.unwrap_err().to_string().contains("a cell has 8 bytes, not"));
        }
        assert_eq!(cell.read(), [0; 8]);
    }
}
