//! The store in this process's memory: for threads.
//!
//! Runs on the callers' threads and has none of its own. Keys are spread over shards, each behind a lock
//! that is held for one lookup or one change and never while anybody else's code runs.

mod shelf;

use std::{
    array, fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Answer, Store, Subscription, check,
    operation::{Add, CompareAndSet, Delete, Operation, Set},
    topics::Topics,
};
use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};
use shelf::Shelf;

/// Enough that threads of a large machine seldom meet.
const SHARDS: usize = 64;

/// Expired entries that a write removes: more than it adds.
const SWEPT_PER_WRITE: usize = 4;

/// A [`Store`] in this process's memory, for worker threads: gone when the process ends.
///
/// A clone is the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    shards: [Mutex<Shelf>; SHARDS],
    hasher: RandomState,
    /// What all entries take, in bytes.
    used: AtomicUsize,
    capacity: usize,
    topics: Arc<Topics>,
}

impl MemoryStore {
    /// An empty store for 1 GiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(1 << 30)
    }

    /// An empty store for so many bytes: those of keys and values, and 128 for each entry. A write beyond
    /// that is refused with [`ErrorKind::Full`]; nothing is ever evicted.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let shared = Shared {
            shards: array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            used: AtomicUsize::new(0),
            capacity: bytes,
            topics: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn write<O: Operation>(&self, key: &[u8], operation: &O) -> Result<O::Done> {
        let now = clock::now();
        let first = self.shared.change(key, operation, now);
        match first {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.shared.sweep_all(now);
                self.shared.change(key, operation, now)
            }
            done => done,
        }
    }
}

impl Shared {
    fn shard(&self, key: &[u8]) -> &Mutex<Shelf> {
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % SHARDS]
    }

    fn change<O: Operation>(&self, key: &[u8], operation: &O, now: Instant) -> Result<O::Done> {
        let mut shelf = self.shard(key).lock();
        self.used.fetch_sub(shelf.sweep(now, SWEPT_PER_WRITE), Relaxed);
        shelf.change(key, operation, now, |before, after| self.make_room(before, after))
    }

    /// Counts an entry that takes `after` bytes instead of `before`, if there is room for it.
    fn make_room(&self, before: usize, after: usize) -> Result<()> {
        let grown = |used: usize| {
            let used = used - before + after;
            (after <= before || used <= self.capacity).then_some(used)
        };
        if self.used.fetch_update(Relaxed, Relaxed, grown).is_ok() {
            return Ok(());
        }
        let text = format!(
            "the store is full: its entries may take {} bytes; delete some, let them expire, or give it more with `MemoryStore::with_capacity`",
            self.capacity
        );
        Err(Error::new(ErrorKind::Full, text))
    }

    fn sweep_all(&self, now: Instant) {
        for shard in &self.shards {
            self.used.fetch_sub(shard.lock().sweep(now, usize::MAX), Relaxed);
        }
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let now = clock::now();
        let mut keys = Vec::new();
        for shard in &self.shards {
            keys.extend(shard.lock().keys(prefix, now).take(limit).map(<[u8]>::to_vec));
            // Here, so that no more than twice the limit is ever held.
            keys.sort_unstable();
            keys.truncate(limit);
        }
        keys
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { used, capacity, .. } = &*self.shared;
        f.debug_struct("MemoryStore").field("used", used).field("capacity", capacity).finish()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        let get = |()| self.shared.shard(key).lock().get(key, clock::now()).map(<[u8]>::to_vec);
        Answer::ready(check::key(key).map(get))
    }

    fn set(&self, key: &[u8], value: &[u8], life: Option<Duration>) -> Answer<()> {
        let set = |()| self.write(key, &Set { value: value.into(), life });
        Answer::ready(check::set(key, value, life).and_then(set))
    }

    fn delete(&self, key: &[u8]) -> Answer<bool> {
        Answer::ready(check::key(key).and_then(|()| self.write(key, &Delete)))
    }

    fn add(&self, key: &[u8], amount: i64) -> Answer<i64> {
        Answer::ready(check::key(key).and_then(|()| self.write(key, &Add { amount })))
    }

    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        life: Option<Duration>,
    ) -> Answer<bool> {
        let write = |()| self.write(key, &CompareAndSet::new(expected, value, life));
        Answer::ready(check::compare_and_set(key, expected, value, life).and_then(write))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Answer<Vec<Vec<u8>>> {
        Answer::ready(check::scan(prefix, limit).map(|()| self.shared.scan(prefix, limit)))
    }

    fn publish(&self, topic: &[u8], value: &[u8]) -> Answer<()> {
        let publish = |()| self.shared.topics.deliver(topic, value, 0);
        Answer::ready(check::publish(topic, value).map(publish))
    }

    fn subscribe(&self, topic: &[u8]) -> Answer<Subscription> {
        Answer::ready(check::topic(topic).map(|()| self.shared.topics.subscribe(topic)))
    }
}
