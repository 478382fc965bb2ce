//! A region as whoever uses it sees it: words at numbered places, changed as one.
//!
//! Used from any thread of the primary and of the workers. All access is atomic and sequentially
//! consistent; no place outside of the region can be reached.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use crate::{
    error::{Error, ErrorKind, Result},
    sys::memory::SharedWords,
};

/// Memory that the primary and all workers share, in both modes (Node: a `SharedArrayBuffer` with the
/// `Atomics` on it).
///
/// [`Builder::region`](crate::Builder::region) declares it, [`Worker::region`](crate::Worker::region) and
/// [`Cluster::region`](crate::Cluster::region) give it. Cheap to clone; all clones are the same memory,
/// which is zero at first and stays as it is when a worker ends or crashes.
///
/// It is a row of 64-bit words. What a call does to a word, it does as one, and all agree on one order of
/// all calls (`SeqCst`, as in Node). Two words are never read or written together.
///
/// ```no_run
/// use bimodal::{Cluster, Mode, Result, Worker};
///
/// async fn hit(worker: Worker) -> Result<()> {
///     worker.region("hits")?.add(0, 1)?;
///     Ok(())
/// }
///
/// fn main() -> Result<()> {
///     let cluster = Cluster::builder(Mode::Process).region("hits", 8).launch(hit)?;
///     cluster.fork()?;
///     cluster.events().for_each(drop);
///     println!("{} hits", cluster.region("hits")?.load(0)?);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct SharedBuffer {
    words: Arc<SharedWords>,
}

impl SharedBuffer {
    pub(super) fn new(words: SharedWords) -> Self {
        Self { words: Arc::new(words) }
    }

    /// How many words it has, at least one: they are numbered from 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Its size in bytes (Node: `byteLength`): 8 for each word.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.len() * size_of::<u64>()
    }

    /// The word at `index` (Node: `Atomics.load`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`], here and below, when there is no such word: nothing has changed then.
    pub fn load(&self, index: usize) -> Result<u64> {
        Ok(self.word(index)?.load(SeqCst))
    }

    /// Writes the word at `index` (Node: `Atomics.store`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn store(&self, index: usize, value: u64) -> Result<()> {
        self.word(index)?.store(value, SeqCst);
        Ok(())
    }

    /// Adds to the word at `index`, without its carry, and says what it was before (Node: `Atomics.add`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn add(&self, index: usize, value: u64) -> Result<u64> {
        Ok(self.word(index)?.fetch_add(value, SeqCst))
    }

    /// Subtracts from the word at `index`, wrapping below 0, and says what it was before (Node:
    /// `Atomics.sub`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn sub(&self, index: usize, value: u64) -> Result<u64> {
        Ok(self.word(index)?.fetch_sub(value, SeqCst))
    }

    /// Keeps the bits of the word at `index` that `value` has, and says what it was before (Node:
    /// `Atomics.and`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn and(&self, index: usize, value: u64) -> Result<u64> {
        Ok(self.word(index)?.fetch_and(value, SeqCst))
    }

    /// Sets the bits of `value` in the word at `index`, and says what it was before (Node: `Atomics.or`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn or(&self, index: usize, value: u64) -> Result<u64> {
        Ok(self.word(index)?.fetch_or(value, SeqCst))
    }

    /// Inverts the bits of `value` in the word at `index`, and says what it was before (Node:
    /// `Atomics.xor`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn xor(&self, index: usize, value: u64) -> Result<u64> {
        Ok(self.word(index)?.fetch_xor(value, SeqCst))
    }

    /// Writes the word at `index` and says what it was before (Node: `Atomics.exchange`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn swap(&self, index: usize, value: u64) -> Result<u64> {
        Ok(self.word(index)?.swap(value, SeqCst))
    }

    /// Writes the word at `index` if it is `expected`, and says what it was before: it was written if
    /// that is `expected` (Node: `Atomics.compareExchange`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn compare_exchange(&self, index: usize, expected: u64, value: u64) -> Result<u64> {
        let before = self.word(index)?.compare_exchange(expected, value, SeqCst, SeqCst);
        Ok(before.unwrap_or_else(|found| found))
    }

    #[inline]
    fn word(&self, index: usize) -> Result<&AtomicU64> {
        if index < self.len() { Ok(self.words.get(index)) } else { Err(self.outside(index)) }
    }

    #[cold]
    fn outside(&self, index: usize) -> Error {
        let text = format!(
            "a region has no word {index}: it has {} of 8 bytes, from 0; declare it larger in `Builder::region`",
            self.len()
        );
        Error::new(ErrorKind::Range, text)
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn buffer(words: usize) -> SharedBuffer {
        SharedBuffer::new(SharedWords::anonymous(words).unwrap())
    }

    #[test]
    fn every_change_tells_what_was_before() {
        let buffer = buffer(2);
        let before = [
            buffer.add(1, 7).unwrap(),
            buffer.sub(1, 8).unwrap(),
            buffer.add(1, 13).unwrap(),
            buffer.and(1, 0b0110).unwrap(),
            buffer.or(1, 0b0001).unwrap(),
            buffer.xor(1, 0b1111).unwrap(),
            buffer.swap(1, 40).unwrap(),
            buffer.compare_exchange(1, 41, 50).unwrap(),
            buffer.compare_exchange(1, 40, 50).unwrap(),
        ];
        assert_eq!(before, [0, 7, u64::MAX, 12, 0b0100, 0b0101, 0b1010, 40, 40]);
        buffer.store(0, 9).unwrap();
        assert_eq!([buffer.load(0).unwrap(), buffer.load(1).unwrap()], [9, 50]);
    }

    #[test]
    fn no_call_reaches_beyond_the_end() {
        let buffer = buffer(3);
        type Call = fn(&SharedBuffer, usize) -> Result<u64>;
        let calls: [Call; 9] = [
            |buffer, index| buffer.load(index),
            |buffer, index| buffer.store(index, 1).map(|()| 0),
            |buffer, index| buffer.add(index, 1),
            |buffer, index| buffer.sub(index, 1),
            |buffer, index| buffer.and(index, 1),
            |buffer, index| buffer.or(index, 1),
            |buffer, index| buffer.xor(index, 1),
            |buffer, index| buffer.swap(index, 1),
            |buffer, index| buffer.compare_exchange(index, 0, 1),
        ];
        // The memory itself has 16 words: whole lines.
        for (call, index) in calls.iter().flat_map(|call| [3, 15, usize::MAX].map(|at| (call, at)))
        {
            let error = call(&buffer, index).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Range);
            assert!(error.to_string().contains(&format!("no word {index}: it has 3 ")), "{error}");
        }
        assert_eq!((buffer.len(), buffer.byte_len()), (3, 24));
    }
}
