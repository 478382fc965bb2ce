//! The entries of one shard, in the order of their keys, with an index of those that expire. It holds no
//! clock: whoever calls says what time it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Instant,
};

use super::super::operation::{Change, Life, Operation};
use crate::error::Result;

/// What an entry is counted for beside its key and its value: the key again in the index, and the nodes.
const OVERHEAD: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: BTreeMap<Vec<u8>, Entry>,
    expiries: BTreeSet<(Instant, Vec<u8>)>,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    expires: Option<Instant>,
}

impl Entry {
    fn lives(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Shelf {
    pub(super) fn get(&self, key: &[u8], now: Instant) -> Option<&[u8]> {
        self.living(key, now).map(|entry| entry.value.as_slice())
    }

    /// Does what the operation decides; `room` says whether an entry may take so many bytes instead of so
    /// many before.
    pub(super) fn change<O: Operation>(
        &mut self,
        key: &[u8],
        operation: &O,
        now: Instant,
        room: impl FnOnce(usize, usize) -> Result<()>,
    ) -> Result<O::Done> {
        let living = self.living(key, now);
        let before = living.and_then(|entry| entry.expires);
        let (change, done) = operation.decide(living.map(|entry| entry.value.as_slice()))?;
        let size = self.entries.get(key).map_or(0, |entry| size(key, &entry.value));
        match change {
            Change::Keep => {}
            Change::Remove => {
                room(size, 0)?;
                self.remove(key);
            }
            Change::Put { value, life } => {
                room(size, self::size(key, &value))?;
                let expires = match life {
                    Life::AsBefore => before,
                    Life::For(life) => life.and_then(|life| now.checked_add(life)),
                };
                self.put(key, Entry { value: value.into_owned(), expires });
            }
        }
        Ok(done)
    }

    /// Removes at most so many entries that have expired, and says how many bytes they took.
    pub(super) fn sweep(&mut self, now: Instant, most: usize) -> usize {
        let mut freed = 0;
        for _ in 0..most {
            match self.expiries.first() {
                Some((expires, _)) if *expires <= now => {}
                _ => break,
            }
            let Some((_, key)) = self.expiries.pop_first() else { break };
            freed += self.entries.remove(&key).map_or(0, |entry| size(&key, &entry.value));
        }
        freed
    }

    /// The keys that begin with a prefix, in order.
    pub(super) fn keys<'a>(
        &'a self,
        prefix: &'a [u8],
        now: Instant,
    ) -> impl Iterator<Item = &'a [u8]> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let range = self.entries.range::<[u8], _>(from);
        range
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter(move |(_, entry)| entry.lives(now))
            .map(|(key, _)| key.as_slice())
    }

    fn living(&self, key: &[u8], now: Instant) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.lives(now))
    }

    fn put(&mut self, key: &[u8], entry: Entry) {
        self.remove(key);
        if let Some(expires) = entry.expires {
            self.expiries.insert((expires, key.into()));
        }
        self.entries.insert(key.into(), entry);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(Entry { expires: Some(expires), .. }) = self.entries.remove(key) {
            self.expiries.remove(&(expires, key.into()));
        }
    }
}

fn size(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::{
        super::super::operation::{Add, CompareAndSet, Delete, Set},
        *,
    };
    use crate::clock;

    fn change<O: Operation>(shelf: &mut Shelf, key: &str, operation: &O, now: Instant) -> O::Done {
        shelf.change(key.as_bytes(), operation, now, |_, _| Ok(())).unwrap()
    }

    fn set(value: &str, seconds: u64) -> Set {
        Set { value: value.into(), life: Some(Duration::from_secs(seconds)) }
    }

    #[test]
    fn an_entry_lives_exactly_as_long_as_it_was_given() {
        let (start, mut shelf) = (clock::now(), Shelf::default());
        let at = |ms: u64| start + Duration::from_millis(ms);
        change(&mut shelf, "a", &set("1", 10), start);
        change(&mut shelf, "a", &Add { amount: 4 }, at(9_000));
        assert_eq!(shelf.get(b"a", at(9_999)), Some(b"5".as_slice()));
        assert_eq!(shelf.get(b"a", at(10_000)), None);
        // Whoever reads out of order, as threads do, sees no ghost either.
        assert_eq!(shelf.get(b"a", at(9_999)), Some(b"5".as_slice()));
        assert_eq!(shelf.keys(b"", at(10_000)).count(), 0);
        assert!(!change(&mut shelf, "a", &Delete, at(10_001)));
    }

    #[test]
    fn what_has_expired_counts_as_absent_for_writes() {
        let (start, mut shelf) = (clock::now(), Shelf::default());
        let late = start + Duration::from_secs(11);
        change(&mut shelf, "a", &set("1", 10), start);
        assert_eq!(change(&mut shelf, "a", &Add { amount: 4 }, late), 4);
        // And the sum is a new entry, which has no end.
        assert_eq!(shelf.get(b"a", late + Duration::from_secs(99)), Some(b"4".as_slice()));
        change(&mut shelf, "b", &set("1", 10), start);
        let absent = CompareAndSet::new(None, Some(b"2"), None);
        assert!(change(&mut shelf, "b", &absent, late));
    }

    #[test]
    fn sweeping_takes_a_few_and_only_what_has_expired() {
        let (start, mut shelf) = (clock::now(), Shelf::default());
        for n in 0..10 {
            change(&mut shelf, &format!("k{n}"), &set("v", n + 1), start);
        }
        change(&mut shelf, "k0", &set("v", 60), start);
        let now = start + Duration::from_secs(5);
        assert_eq!(shelf.sweep(now, 3), 3 * size(b"k1", b"v"));
        assert_eq!(shelf.entries.len(), 7);
        shelf.sweep(now, usize::MAX);
        let left: Vec<_> = shelf.keys(b"k", now).collect();
        assert_eq!(left, [b"k0", b"k5", b"k6", b"k7", b"k8", b"k9"]);
        assert_eq!((shelf.entries.len(), shelf.expiries.len()), (6, 6));
    }

    #[test]
    fn what_finds_no_room_changes_nothing() {
        let (now, mut shelf) = (clock::now(), Shelf::default());
        change(&mut shelf, "a", &set("1", 10), now);
        let full = |_, _| Err(crate::error::Error::new(crate::error::ErrorKind::Full, "full"));
        assert!(shelf.change(b"a", &set("2", 10), now, full).is_err());
        assert_eq!(shelf.get(b"a", now), Some(b"1".as_slice()));
    }
}
