//! Words that several threads or several processes share: the backing of the stats page and of regions.
//!
//! Every word is an atomic, so any thread of any process that has the words mapped may use any of them at
//! any time. A mapped page is never smaller than it was when it was checked: its size is sealed first.

#![allow(unsafe_code)]

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU32, AtomicU64},
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create},
    io::Errno,
};

/// What makes it safe to map memory that somebody else holds, too: nobody can change its size any more.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

const WORDS_PER_LINE: usize = 16;

/// Two cache lines: processors fetch them in pairs.
#[repr(C, align(128))]
#[derive(Default)]
struct Line([AtomicU64; WORDS_PER_LINE]);

/// A fixed number of shared words, zero at first, the first one aligned to 128 bytes.
pub(crate) struct SharedWords {
    backing: Backing,
    words: usize,
}

enum Backing {
    Heap(Box<[Line]>),
    Mapped(MmapRaw),
}

impl SharedWords {
    /// Words of this process, for its threads.
    pub(crate) fn heap(words: usize) -> Self {
        let lines = (0..words.div_ceil(WORDS_PER_LINE)).map(|_| Line::default()).collect();
        Self { backing: Backing::Heap(lines), words }
    }

    /// Words of this process, for its threads; memory is used for what is touched.
    pub(crate) fn anonymous(words: usize) -> io::Result<Self> {
        let mapping = MmapOptions::new().len(size_in_bytes(words)?).map_anon()?;
        Ok(Self { backing: Backing::Mapped(mapping.into()), words })
    }

    /// Words that another process can [`map`](Self::map), and the descriptor to hand to it.
    pub(crate) fn memfd(name: &str, words: usize) -> io::Result<(Self, OwnedFd)> {
        let size = size_in_bytes(words)?;
        let fd = create(name)?;
        ftruncate(&fd, size as u64)?;
        fcntl_add_seals(&fd, SEALS)?;
        Ok((Self::map(fd.try_clone()?, words)?, fd))
    }

    /// Maps the words behind a descriptor that came from another process.
    ///
    /// Refused with `InvalidData` unless it is memory of exactly this size and sealed against any other.
    pub(crate) fn map(fd: OwnedFd, words: usize) -> io::Result<Self> {
        let size = size_in_bytes(words)?;
        let seals = fcntl_get_seals(&fd).map_err(|_| invalid("not sealable memory".into()))?;
        if !seals.contains(SEALS) {
            return Err(invalid(format!("sealed with {seals:?}, not with {SEALS:?}")));
        }
        // In this order: a size that is read before the seals are could still change.
        let found = fstat(fd.as_fd())?.st_size;
        if usize::try_from(found) != Ok(size) {
            return Err(invalid(format!("{found} bytes, not {size}")));
        }
        let mapping = MmapOptions::new().len(size).map_raw(&fd)?;
        Ok(Self { backing: Backing::Mapped(mapping), words })
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.words
    }

    /// The word at `index`.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        &self.lines()[index / WORDS_PER_LINE].0[index % WORDS_PER_LINE]
    }

    /// Half of a word, for the kernel to look at: `index` counts halves, in the order of their addresses.
    ///
    /// # Panics
    ///
    /// If there is no such half.
    pub(super) fn half(&self, index: usize) -> &AtomicU32 {
        let word: *mut u32 = self.get(index / 2).as_ptr().cast();
        // SAFETY: a half lies within its word, is aligned to its own size and lives as long as the word.
        // Only the kernel reads through the reference: this program changes and reads whole words.
        unsafe { AtomicU32::from_ptr(word.add(index % 2)) }
    }

    #[inline]
    fn lines(&self) -> &[Line] {
        match &self.backing {
            Backing::Heap(lines) => lines,
            // SAFETY: the mapping starts at a page, is at least this long (`anonymous` made it so; `map`
            // checked the size, and it is sealed), lives as long as `self`, and any bytes are valid atomics,
            // whoever else writes.
            Backing::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts(
                    mapping.as_ptr().cast::<Line>(),
                    self.words.div_ceil(WORDS_PER_LINE),
                )
            },
        }
    }
}

impl fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords").field("words", &self.words).finish_non_exhaustive()
    }
}

/// The bytes of that many words, in whole lines.
fn size_in_bytes(words: usize) -> io::Result<usize> {
    let lines = words.div_ceil(WORDS_PER_LINE);
    lines
        .checked_mul(size_of::<Line>())
        .filter(|&size| size > 0 && i64::try_from(size).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{words} words")))
}

/// Kernels since 6.3 can be told to refuse memory that might be executed; older ones do not know the flag.
fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

fn invalid(cause: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a shared page was refused: {cause}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn memory(size: usize, seals: SealFlags) -> OwnedFd {
        let fd = create("bimodal-test").unwrap();
        ftruncate(&fd, size as u64).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    fn assert_refused(fd: OwnedFd, words: usize) {
        assert_eq!(SharedWords::map(fd, words).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn words_start_at_zero_aligned_and_apart() {
        let (mapped, _fd) = SharedWords::memfd("bimodal-test", 40).unwrap();
        let anonymous = SharedWords::anonymous(40).unwrap();
        for page in [SharedWords::heap(40), mapped, anonymous] {
            assert_eq!(page.len(), 40);
            assert_eq!(std::ptr::from_ref(page.get(0)).addr() % 128, 0);
            for index in 0..40 {
                assert_eq!(page.get(index).fetch_add(index as u64, Relaxed), 0);
            }
            assert!((0..40).all(|index| page.get(index).load(Relaxed) == index as u64));
        }
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let (ours, fd) = SharedWords::memfd("bimodal-test", 33).unwrap();
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        let theirs = SharedWords::map(fd, 33).unwrap();
        theirs.get(32).store(7, Relaxed);
        assert_eq!(ours.get(32).load(Relaxed), 7);
    }

    #[test]
    fn the_size_is_sealed() {
        let (_page, fd) = SharedWords::memfd("bimodal-test", 16).unwrap();
        assert!(ftruncate(&fd, 0).is_err());
        assert!(ftruncate(&fd, 4096).is_err());
    }

    #[test]
    fn hostile_descriptors_are_refused() {
        assert_refused(memory(128, SealFlags::empty()), 16);
        assert_refused(memory(128, SealFlags::SHRINK | SealFlags::GROW), 16);
        assert_refused(memory(128, SealFlags::GROW | SealFlags::SEAL), 16);
        assert_refused(memory(0, SEALS), 16);
        assert_refused(memory(127, SEALS), 16);
        assert_refused(memory(256, SEALS), 16);
        assert_refused(memory(128, SEALS), 17);
        assert_refused(std::fs::File::open("/dev/null").unwrap().into(), 16);
        assert!(SharedWords::map(memory(128, SEALS | SealFlags::WRITE), 16).is_err());
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for words in [0, usize::MAX, usize::MAX / 8] {
            let memfd = SharedWords::memfd("bimodal-test", words).unwrap_err();
            let anonymous = SharedWords::anonymous(words).unwrap_err();
            for error in [memfd, anonymous] {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{words}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "word 5 of 5")]
    fn a_word_past_the_end_is_a_panic() {
        SharedWords::heap(5).get(5);
    }
}
