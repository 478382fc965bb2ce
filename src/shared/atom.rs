//! The numbers that a shared word can hold, and how a number smaller than a word is changed in it.
//!
//! This program reads and writes only whole words of 64 bits: what is smaller lies in a **lane** of its word.
//! So views of different widths on the same memory are never a data race, which accesses of different sizes
//! would be, and every change is one atomic step on one word.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

/// A number of a [`SharedView`](super::SharedView): an integer of 8, 16, 32 or 64 bits, with or without a
/// sign (Node: `Uint8Array`, `Int8Array` up to `BigUint64Array`, `BigInt64Array`).
pub trait Atom: Copy + Eq + fmt::Debug + Send + Sync + 'static + Bits {}

/// A number that can be [waited](super::SharedView::wait) for: `u32` or `i32` (Node: `Int32Array`). The
/// kernel looks at 32 bits.
pub trait Waitable: Atom {}

impl Waitable for u32 {}
impl Waitable for i32 {}

/// How a number is kept in the lowest bits of a word.
pub trait Bits: Copy {
    #[doc(hidden)]
    fn to_bits(self) -> u64;
    #[doc(hidden)]
    fn from_bits(bits: u64) -> Self;
}

macro_rules! atoms {
    ($($number:ty as $unsigned:ty),*) => {$(
        impl Atom for $number {}

        impl Bits for $number {
            #[inline]
            fn to_bits(self) -> u64 {
                (self as $unsigned).into()
            }

            /// Bits above the number's own are ignored.
            #[inline]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

atoms!(u8 as u8, i8 as u8, u16 as u16, i16 as u16, u32 as u32, i32 as u32, u64 as u64, i64 as u64);

/// The place of one number in its word. Values have no bits above the number's own.
pub(super) struct Lane<'a> {
    word: &'a AtomicU64,
    shift: usize,
    mask: u64,
}

impl<'a> Lane<'a> {
    /// The `index`-th number of `T` in the word, in the order of addresses.
    #[inline]
    pub(super) fn new<T: Atom>(word: &'a AtomicU64, index: usize) -> Self {
        let bits = 8 * size_of::<T>();
        let low = bits * index;
        let shift = if cfg!(target_endian = "little") { low } else { 64 - bits - low };
        Self { word, shift, mask: u64::MAX >> (64 - bits) }
    }

    /// Whether it is the whole word: then the processor does what a loop does otherwise.
    #[inline]
    fn is_whole(&self) -> bool {
        self.mask == u64::MAX
    }

    #[inline]
    fn read(&self, word: u64) -> u64 {
        (word >> self.shift) & self.mask
    }

    #[inline]
    fn write(&self, word: u64, value: u64) -> u64 {
        (word & !(self.mask << self.shift)) | ((value & self.mask) << self.shift)
    }

    #[inline]
    pub(super) fn load(&self) -> u64 {
        self.read(self.word.load(SeqCst))
    }

    #[inline]
    pub(super) fn store(&self, value: u64) {
        if self.is_whole() {
            self.word.store(value, SeqCst);
        } else {
            self.update(|_| value);
        }
    }

    #[inline]
    pub(super) fn add(&self, value: u64) -> u64 {
        if self.is_whole() {
            return self.word.fetch_add(value, SeqCst);
        }
        self.update(|before| before.wrapping_add(value))
    }

    #[inline]
    pub(super) fn sub(&self, value: u64) -> u64 {
        if self.is_whole() {
            return self.word.fetch_sub(value, SeqCst);
        }
        self.update(|before| before.wrapping_sub(value))
    }

    #[inline]
    pub(super) fn swap(&self, value: u64) -> u64 {
        if self.is_whole() {
            return self.word.swap(value, SeqCst);
        }
        self.update(|_| value)
    }

    /// All other lanes keep their bits.
    #[inline]
    pub(super) fn and(&self, value: u64) -> u64 {
        self.read(self.word.fetch_and(self.write(u64::MAX, value), SeqCst))
    }

    #[inline]
    pub(super) fn or(&self, value: u64) -> u64 {
        self.read(self.word.fetch_or(value << self.shift, SeqCst))
    }

    #[inline]
    pub(super) fn xor(&self, value: u64) -> u64 {
        self.read(self.word.fetch_xor(value << self.shift, SeqCst))
    }

    /// What was there before; it was changed if that is `expected`. Others may change other lanes of the
    /// word meanwhile.
    #[inline]
    pub(super) fn compare_exchange(&self, expected: u64, value: u64) -> u64 {
        let changed = self.word.fetch_update(SeqCst, SeqCst, |word| {
            (self.read(word) == expected).then(|| self.write(word, value))
        });
        self.read(changed.unwrap_or_else(|found| found))
    }

    fn update(&self, change: impl Fn(u64) -> u64) -> u64 {
        let changed = self
            .word
            .fetch_update(SeqCst, SeqCst, |word| Some(self.write(word, change(self.read(word)))));
        self.read(changed.unwrap_or_else(|found| found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane_of<T: Atom>(value: T) {
        let word = AtomicU64::new(0x1122_3344_5566_7788);
        let lanes = 8 / size_of::<T>();
        for index in 0..lanes {
            let before = word.load(SeqCst).to_ne_bytes();
            Lane::new::<T>(&word, index).store(value.to_bits());
            let after = word.load(SeqCst).to_ne_bytes();
            let own = index * size_of::<T>()..(index + 1) * size_of::<T>();
            for at in 0..8 {
                assert!(own.contains(&at) || before[at] == after[at], "{index} {at}");
            }
            assert_eq!(T::from_bits(Lane::new::<T>(&word, index).load()), value);
        }
    }

    #[test]
    fn a_number_lies_at_its_address_and_leaves_its_neighbours_alone() {
        lane_of(0xEE_u8);
        lane_of(-2_i8);
        lane_of(0xEEDD_u16);
        lane_of(-2_i16);
        lane_of(0xEEDD_CCBB_u32);
        lane_of(-2_i32);
        lane_of(u64::MAX - 1);
        lane_of(-2_i64);
    }
}
