//! The two copies of a value, and the version whose lowest bit says which of them counts.
//!
//! A writer writes the copy that does not count and then raises the version: until that one step readers
//! see the old value, so a writer that dies on the way leaves nothing half done. Readers copy, and begin
//! anew if the version was raised meanwhile: only then may the next writer have been at what they
//! copied. So a reader waits for nobody, and goes round only when somebody has finished.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::shared::word::{Word, fence};

/// The version, and two copies of `len` words one behind the other.
pub(super) struct Copies<'a, W, F> {
    version: &'a W,
    word: F,
    len: usize,
}

impl<'a, W: Word, F: Fn(usize) -> &'a W> Copies<'a, W, F> {
    pub(super) fn new(version: &'a W, word: F, len: usize) -> Self {
        Self { version, word, len }
    }

    /// Tells every word of the value. If the value has changed meanwhile it begins anew: what was told last
    /// counts.
    pub(super) fn read(&self, mut tell: impl FnMut(usize, u64)) {
        loop {
            let version = self.version.load(Acquire);
            (0..self.len).for_each(|word| tell(word, self.word(version, word).load(Relaxed)));
            // Whoever read a word of a later writer sees now that the version was raised before it.
            fence(Acquire);
            if self.version.load(Relaxed) == version {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Writes a value. Whoever calls this is the only one.
    pub(super) fn write(&self, value: impl Iterator<Item = u64>) {
        let following = self.version.load(Relaxed).wrapping_add(1);
        // Behind the version as it is: see `read`.
        fence(Release);
        for (word, value) in value.take(self.len).enumerate() {
            self.word(following, word).store(value, Relaxed);
        }
        self.version.store(following, Release);
    }

    fn word(&self, version: u64, word: usize) -> &'a W {
        let copy = if version.is_multiple_of(2) { 0 } else { self.len };
        (self.word)(copy + word)
    }
}

#[cfg(all(test, loom))]
#[allow(clippy::unwrap_used)]
mod tests {
    use loom::{sync::Arc, sync::atomic::AtomicU64, thread};

    use super::*;

    /// A version and two copies of two words.
    struct Model([AtomicU64; 5]);

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self(std::array::from_fn(|_| AtomicU64::new(0))))
        }

        fn copies<'a>(&'a self) -> Copies<'a, AtomicU64, impl Fn(usize) -> &'a AtomicU64> {
            Copies::new(&self.0[0], |at| &self.0[1 + at], 2)
        }

        fn read(&self) -> [u64; 2] {
            let mut found = [0; 2];
            self.copies().read(|word, value| found[word] = value);
            found
        }
    }

    fn model(run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(run);
    }

    #[test]
    fn loom_a_reader_sees_one_value_whole_while_two_are_written() {
        model(|| {
            let cell = Model::new();
            let writer = cell.clone();
            let writer = thread::spawn(move || {
                writer.copies().write([1, 1].into_iter());
                writer.copies().write([2, 2].into_iter());
            });
            let [first, second] = cell.read();
            assert_eq!(first, second);
            writer.join().unwrap();
            assert_eq!(cell.read(), [2, 2]);
        });
    }

    /// It dies after any of its steps; the next writer begins where it was.
    #[test]
    fn loom_a_writer_that_dies_leaves_the_old_value() {
        for steps in 0..2 {
            model(move || {
                let cell = Model::new();
                let writer = cell.clone();
                let writer = thread::spawn(move || {
                    writer.copies().write([1, 1].into_iter());
                    // The first words of a write that never ends.
                    let copies = writer.copies();
                    fence(Release);
                    (0..=steps).for_each(|word| Word::store(copies.word(2, word), 9, Relaxed));
                    writer.copies().write([3, 3].into_iter());
                });
                let [first, second] = cell.read();
                assert!(first == second && first != 9, "{first} {second}");
                writer.join().unwrap();
                assert_eq!(cell.read(), [3, 3]);
            });
        }
    }
}
