//! Numbers of one width in a region, at numbered places, each changed as one.
//!
//! Used from any thread of the primary and of the workers. All access is atomic and sequentially
//! consistent; no place outside of the view can be reached.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use super::{
    Region, Waited, Waiting,
    atom::{Atom, Lane, Waitable},
};
use crate::error::{Error, ErrorKind, Result};

/// A row of numbers in a [`SharedBuffer`](super::SharedBuffer) (Node: a typed array on a
/// `SharedArrayBuffer`, with the `Atomics` on it). Cheap to clone.
///
/// What a call does to a number, it does as one, and all agree on one order of all calls (`SeqCst`, as in
/// Node), whatever the width. Two numbers are never read or written together. They lie in memory as the
/// processor has them, so views of different widths see each other's bytes.
///
/// Numbers of 64 bits are the fastest under contention: one instruction changes them. A smaller one is
/// changed within its word of 64 bits, and an `add`, `sub`, `store`, `swap` or `compare_exchange` of it
/// begins anew when its neighbour was changed meanwhile.
pub struct SharedView<T> {
    region: Arc<Region>,
    /// In numbers of `T`, from the start of the region.
    start: usize,
    len: usize,
    numbers: PhantomData<fn() -> T>,
}

impl<T: Atom> SharedView<T> {
    const SIZE: usize = size_of::<T>();

    /// All of a region.
    pub(super) fn whole(region: Arc<Region>) -> Self {
        let len = region.byte_len() / Self::SIZE;
        Self { region, start: 0, len, numbers: PhantomData }
    }

    /// `len` numbers from a byte on.
    pub(super) fn part(region: Arc<Region>, byte_offset: usize, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(Self::SIZE);
        region.check("a view", byte_offset, bytes, Self::SIZE)?;
        Ok(Self { region, start: byte_offset / Self::SIZE, len, numbers: PhantomData })
    }

    /// How many numbers it has (Node: `length`): they are numbered from 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks: what is declared has a length")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Its size in bytes (Node: `byteLength`).
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.len * Self::SIZE
    }

    /// The number at `index` (Node: `Atomics.load`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`], here and below, when there is no such number: nothing has changed then.
    pub fn load(&self, index: usize) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.load()))
    }

    /// Writes the number at `index` (Node: `Atomics.store`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn store(&self, index: usize, value: T) -> Result<()> {
        self.lane(index)?.store(value.to_bits());
        Ok(())
    }

    /// Adds to the number at `index`, without its carry, and says what it was before (Node: `Atomics.add`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn add(&self, index: usize, value: T) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.add(value.to_bits())))
    }

    /// Subtracts from the number at `index`, wrapping below the least, and says what it was before (Node:
    /// `Atomics.sub`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn sub(&self, index: usize, value: T) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.sub(value.to_bits())))
    }

    /// Keeps the bits of the number at `index` that `value` has, and says what it was before (Node:
    /// `Atomics.and`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn and(&self, index: usize, value: T) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.and(value.to_bits())))
    }

    /// Sets the bits of `value` in the number at `index`, and says what it was before (Node: `Atomics.or`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn or(&self, index: usize, value: T) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.or(value.to_bits())))
    }

    /// Inverts the bits of `value` in the number at `index`, and says what it was before (Node:
    /// `Atomics.xor`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn xor(&self, index: usize, value: T) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.xor(value.to_bits())))
    }

    /// Writes the number at `index` and says what it was before (Node: `Atomics.exchange`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn swap(&self, index: usize, value: T) -> Result<T> {
        Ok(T::from_bits(self.lane(index)?.swap(value.to_bits())))
    }

    /// Writes the number at `index` if it is `expected`, and says what it was before: it was written if
    /// that is `expected` (Node: `Atomics.compareExchange`).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn compare_exchange(&self, index: usize, expected: T, value: T) -> Result<T> {
        let before = self.lane(index)?.compare_exchange(expected.to_bits(), value.to_bits());
        Ok(T::from_bits(before))
    }

    #[inline]
    fn lane(&self, index: usize) -> Result<Lane<'_>> {
        if index >= self.len {
            return Err(self.outside(index));
        }
        let (at, lanes) = (self.start + index, size_of::<u64>() / Self::SIZE);
        Ok(Lane::new::<T>(self.region.words().get(at / lanes), at % lanes))
    }

    #[cold]
    fn outside(&self, index: usize) -> Error {
        let text = format!(
            "a region has no word {index}: it has {} of {} bytes, from 0; declare it larger in `Builder::region`",
            self.len,
            Self::SIZE
        );
        Error::new(ErrorKind::Range, text)
    }
}

impl<T: Waitable> SharedView<T> {
    /// Blocks the thread while the number at `index` is `expected`, until somebody
    /// [notifies](Self::notify) or the time is over (Node: `Atomics.wait`).
    ///
    /// On the thread of an event loop nothing else goes on meanwhile: a task rather awaits
    /// [`wait_async`](Self::wait_async).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`ErrorKind::Io`] when the kernel refuses.
    pub fn wait(&self, index: usize, expected: T, timeout: Option<Duration>) -> Result<Waited> {
        self.lane(index)?;
        self.region.wait(self.start + index, bits(expected), timeout)
    }

    /// [`wait`](Self::wait) for a task: the loop goes on (Node: `Atomics.waitAsync`). Dropping the future
    /// ends the wait.
    ///
    /// The wait begins on another thread, soon: whoever notifies changes the number first, else it may come
    /// too early. Each costs a thread for as long as it waits.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); [`ErrorKind::Full`] when 128 futures of this process wait;
    /// [`ErrorKind::Io`] when no thread can be started.
    pub fn wait_async(
        &self,
        index: usize,
        expected: T,
        timeout: Option<Duration>,
    ) -> Result<Waiting> {
        self.lane(index)?;
        Waiting::begin(&self.region, self.start + index, bits(expected), timeout)
    }

    /// Wakes at most `count` of those that wait for the number at `index`, in whatever worker, and says how
    /// many that were (Node: `Atomics.notify`).
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn notify(&self, index: usize, count: usize) -> Result<usize> {
        self.lane(index)?;
        self.region.notify(self.start + index, count)
    }
}

/// A waitable number has 32 bits.
fn bits<T: Waitable>(value: T) -> u32 {
    value.to_bits() as u32
}

impl<T> Clone for SharedView<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), ..*self }
    }
}

impl<T> fmt::Debug for SharedView<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedView").field("len", &self.len).finish_non_exhaustive()
    }
}
