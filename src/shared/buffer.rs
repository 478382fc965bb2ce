//! A region as whoever uses it sees it, and what can be laid into it.

use std::{fmt, ops::Deref, sync::Arc};

use super::{Atom, Region, SharedCell, SharedCounter, SharedMutex, SharedView};
use crate::error::Result;

/// Memory that the primary and all workers share, in both modes (Node: a `SharedArrayBuffer`).
///
/// [`Builder::region`](crate::Builder::region) declares it, [`Worker::region`](crate::Worker::region) and
/// [`Cluster::region`](crate::Cluster::region) give it. Cheap to clone; all clones are the same memory,
/// which is zero at first and stays as it is when a worker ends or crashes.
///
/// As it is, it is a [`SharedView`] of 64-bit words; [`view`](Self::view) shows it as numbers of another
/// width. [`counter`](Self::counter), [`mutex`](Self::mutex) and [`cell`](Self::cell) lay something larger
/// into it, at a place that all workers name in the same way.
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
    words: SharedView<u64>,
    region: Arc<Region>,
}

impl SharedBuffer {
    pub(super) fn new(region: Region) -> Self {
        let region = Arc::new(region);
        Self { words: SharedView::whole(region.clone()), region }
    }

    /// All of it as numbers of one width (Node: `new Int32Array(buffer)`).
    #[must_use]
    pub fn view<T: Atom>(&self) -> SharedView<T> {
        SharedView::whole(self.region.clone())
    }

    /// `len` numbers of one width from a byte on (Node: `new Int32Array(buffer, byteOffset, length)`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`](crate::ErrorKind::Range) when the offset is no multiple of the width, or when
    /// that many are not there.
    pub fn view_at<T: Atom>(&self, byte_offset: usize, len: usize) -> Result<SharedView<T>> {
        SharedView::part(self.region.clone(), byte_offset, len)
    }

    /// A counter in [`SharedCounter::bytes`] bytes from a byte on, with so many shards: best one for each
    /// slot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`](crate::ErrorKind::Range) when the offset is no multiple of 128, when there is no
    /// shard, or when they do not fit.
    pub fn counter(&self, byte_offset: usize, shards: usize) -> Result<SharedCounter> {
        SharedCounter::new(self.region.clone(), byte_offset, shards)
    }

    /// A lock in [`SharedMutex::BYTES`] bytes from a byte on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`](crate::ErrorKind::Range) when the offset is no multiple of 8, or too large.
    pub fn mutex(&self, byte_offset: usize) -> Result<SharedMutex> {
        SharedMutex::new(self.region.clone(), byte_offset)
    }

    /// A value of so many bytes, in [`SharedCell::bytes`] bytes from a byte on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Range`](crate::ErrorKind::Range) when the offset is no multiple of 8, when the size is 0,
    /// or when it does not fit.
    pub fn cell(&self, byte_offset: usize, size: usize) -> Result<SharedCell> {
        SharedCell::new(self.region.clone(), byte_offset, size)
    }
}

impl Deref for SharedBuffer {
    type Target = SharedView<u64>;

    fn deref(&self) -> &SharedView<u64> {
        &self.words
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").field("byte_len", &self.byte_len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn buffer(words: usize) -> SharedBuffer {
        SharedBuffer::new(Region::anonymous(words).unwrap())
    }

    /// What every call says was there before, where nothing but 0 was written.
    fn changes<T: Atom>(view: &SharedView<T>, of: impl Fn(u64) -> T) -> Vec<T> {
        let of = |value| of(value);
        vec![
            view.add(1, of(7)).unwrap(),
            view.sub(1, of(8)).unwrap(),
            view.add(1, of(13)).unwrap(),
            view.and(1, of(0b0110)).unwrap(),
            view.or(1, of(0b0001)).unwrap(),
            view.xor(1, of(0b1111)).unwrap(),
            view.swap(1, of(40)).unwrap(),
            view.compare_exchange(1, of(41), of(50)).unwrap(),
            view.compare_exchange(1, of(40), of(50)).unwrap(),
            view.load(1).unwrap(),
        ]
    }

    fn every_change_tells<T: Atom>(buffer: &SharedBuffer, of: fn(u64) -> T) {
        let view = buffer.view_at::<T>(8, 3).unwrap();
        let expected = [0, 7, u64::MAX, 12, 0b0100, 0b0101, 0b1010, 40, 40, 50].map(of);
        assert_eq!(changes(&view, of), expected);
        assert_eq!([view.load(0).unwrap(), view.load(2).unwrap()], [of(0), of(0)]);
        view.store(1, of(0)).unwrap();
        assert_eq!(buffer.load(1).unwrap(), 0);
    }

    #[test]
    fn every_change_tells_what_was_before_in_every_width() {
        let buffer = buffer(4);
        every_change_tells(&buffer, |value| value as u8);
        every_change_tells(&buffer, |value| value as i8);
        every_change_tells(&buffer, |value| value as u16);
        every_change_tells(&buffer, |value| value as i16);
        every_change_tells(&buffer, |value| value as u32);
        every_change_tells(&buffer, |value| value as i32);
        every_change_tells(&buffer, |value| value);
        every_change_tells(&buffer, |value| value as i64);
    }

    fn no_call_reaches_beyond<T: Atom>(view: &SharedView<T>, zero: T) {
        type Call<T> = fn(&SharedView<T>, usize, T) -> Result<T>;
        let calls: [Call<T>; 9] = [
            |view, index, _| view.load(index),
            |view, index, zero| view.store(index, zero).map(|()| zero),
            |view, index, zero| view.add(index, zero),
            |view, index, zero| view.sub(index, zero),
            |view, index, zero| view.and(index, zero),
            |view, index, zero| view.or(index, zero),
            |view, index, zero| view.xor(index, zero),
            |view, index, zero| view.swap(index, zero),
            |view, index, zero| view.compare_exchange(index, zero, zero),
        ];
        let len = view.len();
        for (call, index) in
            calls.iter().flat_map(|call| [len, 127, usize::MAX].map(|at| (call, at)))
        {
            let error = call(view, index, zero).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Range);
            let text = format!("no word {index}: it has {len} of {} bytes", size_of::<T>());
            assert!(error.to_string().contains(&text), "{error}");
        }
    }

    #[test]
    fn no_call_reaches_beyond_the_end() {
        // The memory itself has 16 words: whole lines.
        let buffer = buffer(3);
        assert_eq!((buffer.len(), buffer.byte_len()), (3, 24));
        no_call_reaches_beyond(&buffer, 0_u64);
        no_call_reaches_beyond(&buffer.view(), 0_u8);
        no_call_reaches_beyond(&buffer.view_at(8, 2).unwrap(), 0_u16);
        let view = buffer.view_at::<i32>(20, 1).unwrap();
        no_call_reaches_beyond(&view, 0);
        for refused in [
            view.wait(1, 0, None).map(|_| ()),
            view.wait_async(1, 0, None).map(|_| ()),
            view.notify(1, 1).map(|_| ()),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Range);
        }
    }

    #[test]
    fn no_view_reaches_beyond_the_end_or_between_two_numbers() {
        let buffer = buffer(3);
        for (offset, len) in
            [(24, 1), (0, 7), (4, 6), (usize::MAX - 3, 1), (0, usize::MAX), (28, 0)]
        {
            let error = buffer.view_at::<u32>(offset, len).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Range);
            assert!(error.to_string().contains("24 bytes"), "{error}");
        }
        let error = buffer.view_at::<u32>(6, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Range);
        assert!(error.to_string().contains("multiple of 4"), "{error}");
        assert_eq!(buffer.view_at::<u32>(24, 0).unwrap().len(), 0);
        assert_eq!(buffer.view_at::<u8>(23, 1).unwrap().byte_len(), 1);
    }

    #[test]
    fn views_of_different_widths_are_the_same_memory() {
        let buffer = buffer(2);
        buffer.store(1, u64::from_ne_bytes(*b"abcdefgh")).unwrap();
        let bytes = buffer.view_at::<u8>(8, 8).unwrap();
        assert_eq!((0..8).map(|at| bytes.load(at).unwrap()).collect::<Vec<_>>(), b"abcdefgh");
        bytes.store(3, b'X').unwrap();
        let halves = buffer.view::<u32>();
        assert_eq!(halves.load(2).unwrap().to_ne_bytes(), *b"abcX");
        assert_eq!(halves.load(3).unwrap().to_ne_bytes(), *b"efgh");
    }

    #[test]
    fn neighbours_that_change_at_once_lose_nothing() {
        const ROUNDS: usize = 100_000;
        let (buffer, start) = (buffer(1), std::sync::Barrier::new(4));
        std::thread::scope(|scope| {
            for lane in 0..4 {
                let (view, start) = (buffer.view::<u16>(), &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..ROUNDS {
                        view.add(lane, 1).unwrap();
                    }
                });
            }
        });
        let view = buffer.view::<u16>();
        assert!((0..4).all(|lane| view.load(lane).unwrap() == ROUNDS as u16));
    }
}
