//! One region: its words, who uses them in this process, and sleeping until another process wakes.

use std::{io, sync::Arc, time::Duration};

use super::StatsPage;
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
    id::{Slot, WorkerId},
    sys::{
        futex::{self, Ended},
        memory::SharedWords,
    },
};

const WORD: usize = size_of::<u64>();

/// Which half of a word has its lowest bits.
const LOW_HALF: usize = if cfg!(target_endian = "little") { 0 } else { 1 };

/// How a wait for a shared number ended (Node: what `Atomics.wait` returns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Somebody notified (Node: `"ok"`).
    Notified,
    /// It was another number than the expected one (Node: `"not-equal"`).
    NotEqual,
    /// The time was over (Node: `"timed-out"`).
    TimedOut,
}

impl From<Ended> for Waited {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Woken => Self::Notified,
            Ended::Unequal => Self::NotEqual,
            Ended::Late => Self::TimedOut,
        }
    }
}

/// Who holds a lock, as a number that fits into a word beside two flags; never 0.
///
/// One for each process: the threads of one release what they hold, or end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party(pub(super) u64);

impl Party {
    /// The process of the primary, with its worker threads.
    pub(super) const PRIMARY: Self = Self(1);

    const SLOTS: u64 = StatsPage::ROWS as u64;

    fn worker(worker: WorkerId, slot: Slot) -> Self {
        // Below the number of rows, as whoever made the slot has checked.
        Self(worker.get() * Self::SLOTS + slot.get() as u64)
    }
}

/// Who this process is, and the page that tells who lives.
#[derive(Clone, Debug)]
pub(crate) struct Parties {
    own: Party,
    page: Arc<StatsPage>,
}

impl Parties {
    /// Of the primary's process, and of its threads.
    pub(crate) fn of_primary(page: Arc<StatsPage>) -> Self {
        Self { own: Party::PRIMARY, page }
    }

    /// Of a worker process.
    pub(crate) fn of_worker(page: Arc<StatsPage>, worker: WorkerId, slot: Slot) -> Self {
        Self { own: Party::worker(worker, slot), page }
    }

    pub(super) fn own(&self) -> Party {
        self.own
    }

    /// Whether a party may still release what it holds. What nobody ever was does not live.
    pub(super) fn lives(&self, party: Party) -> bool {
        let (worker, slot) = (party.0 / Party::SLOTS, party.0 % Party::SLOTS);
        party == Party::PRIMARY
            || party == self.own
            || (worker != 0 && self.page.lives(Slot(slot as usize), worker))
    }
}

/// The memory of a region, in this process.
#[derive(Debug)]
pub(super) struct Region {
    words: SharedWords,
    parties: Parties,
}

impl Region {
    pub(super) fn new(words: SharedWords, parties: Parties) -> Self {
        Self { words, parties }
    }

    pub(super) fn words(&self) -> &SharedWords {
        &self.words
    }

    pub(super) fn parties(&self) -> &Parties {
        &self.parties
    }

    pub(super) fn byte_len(&self) -> usize {
        self.words.len() * WORD
    }

    /// Whether `what`, of so many bytes (`None`: more than can be counted), can lie at an offset.
    pub(super) fn check(
        &self,
        what: &str,
        offset: usize,
        bytes: Option<usize>,
        align: usize,
    ) -> Result<()> {
        if !offset.is_multiple_of(align) {
            let text = format!("{what} cannot begin at byte {offset}: give a multiple of {align}");
            return Err(Error::new(ErrorKind::Range, text));
        }
        let all = self.byte_len();
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        if end.is_some_and(|end| end <= all) {
            return Ok(());
        }
        let bytes = bytes.map_or_else(|| "too many".into(), |bytes| bytes.to_string());
        let text =
            format!("{what} of {bytes} bytes at byte {offset} does not fit into {all} bytes");
        Err(Error::new(ErrorKind::Range, format!("{text}: declare more in `Builder::region`")))
    }

    /// Blocks while the half at `index` is `expected`.
    pub(super) fn wait(
        &self,
        index: usize,
        expected: u32,
        timeout: Option<Duration>,
    ) -> Result<Waited> {
        self.wait_until(index, expected, timeout.map(deadline_ns))
    }

    pub(super) fn wait_until(
        &self,
        index: usize,
        expected: u32,
        deadline_ns: Option<u64>,
    ) -> Result<Waited> {
        refused(futex::wait(&self.words, index, expected, deadline_ns)).map(Waited::from)
    }

    pub(super) fn notify(&self, index: usize, count: usize) -> Result<usize> {
        refused(futex::wake(&self.words, index, count))
    }

    /// The half of a word that has its lowest bits.
    pub(super) fn low_half(word: usize) -> usize {
        2 * word + LOW_HALF
    }
}

#[cfg(test)]
impl Region {
    pub(super) fn anonymous(words: usize) -> io::Result<Self> {
        let parties = Parties::of_primary(StatsPage::heap());
        Ok(Self::new(SharedWords::anonymous(words)?, parties))
    }
}

/// The time in so long, on the clock that all processes share.
pub(super) fn deadline_ns(timeout: Duration) -> u64 {
    let ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    clock::monotonic_ns().saturating_add(ns)
}

fn refused<T>(result: io::Result<T>) -> Result<T> {
    result.context(ErrorKind::Io, || "wait for, or wake, whoever shares a region".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_lives_from_its_start_to_its_end_and_is_not_its_replacement() {
        let page = StatsPage::heap();
        let [first, second] = [7, 8].map(|id| Party::worker(WorkerId::new(id), Slot(3)));
        let other = Party::worker(WorkerId::new(7), Slot(4));
        let parties = Parties::of_primary(page.clone());
        let living = || [first, second, other].map(|party| parties.lives(party));
        assert_eq!(living(), [false; 3]);
        page.reset(Slot(3), 7, 1);
        assert_eq!(living(), [true, false, false]);
        page.end(Slot(3));
        assert_eq!(living(), [false; 3]);
        page.reset(Slot(3), 8, 2);
        assert_eq!(living(), [false, true, false]);
    }

    #[test]
    fn the_primary_and_oneself_live_and_nobody_else_who_is_not_on_the_page() {
        let own = Parties::of_worker(StatsPage::heap(), WorkerId::new(1), Slot(1023));
        assert!(own.lives(own.own()) && own.lives(Party::PRIMARY));
        for scribble in [2, 1023, 1024, 5000, u64::MAX >> 2, u64::MAX] {
            assert!(!own.lives(Party(scribble)), "{scribble}");
        }
    }
}
