//! The store in a directory: LMDB, for all processes of one machine.
//!
//! Reads run on the caller's thread, against a snapshot, and wait for nobody. Writes go through a queue to
//! one thread per process and directory (`writer`), which commits together what waits together. What is
//! published goes through Unix sockets in the directory (`notices`), sent by one thread and received by another.
//!
//! Invariants: a write is answered once its transaction is committed; no lock of this crate is held while
//! LMDB waits for another process; a directory is opened once per process and stays open until its end, as
//! LMDB wants it.

mod notices;
mod opened;
mod sockets;
mod tables;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Answer, Store, Subscription, check,
    operation::{Add, CompareAndSet, Delete, Set},
};
use crate::error::Result;
use opened::Opened;

/// Where an [`LmdbStore`] is, and how large and how safe.
///
/// A path is one with the defaults: `Lmdb::from("/var/lib/app")`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lmdb {
    pub(super) directory: PathBuf,
    pub(super) map_size: usize,
    pub(super) durable: bool,
}

impl Lmdb {
    /// A store in this directory, which is made, for this user only, if it is not there.
    ///
    /// Whoever may write there can damage the store and all processes that have it open; it must be a
    /// local directory, and all its processes must see the same process ids and the same monotonic clock (on
    /// Linux: be in the same PID and time namespaces).
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), map_size: 1 << 30, durable: false }
    }

    /// The most that the store can hold, in bytes: 1 MiB to 1 TiB, rounded up to 64 KiB. Default 1 GiB. It is
    /// an address range and takes room on the disk as it is used. The same for all processes.
    #[must_use]
    pub fn map_size(self, bytes: usize) -> Self {
        Self { map_size: bytes, ..self }
    }

    /// Whether each commit waits for the disk. Default false: what was answered survives the end of any
    /// process, and not a power failure, which may cost the store itself.
    #[must_use]
    pub fn durable(self, durable: bool) -> Self {
        Self { durable, ..self }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Lmdb {
    fn from(directory: &P) -> Self {
        Self::new(directory.as_ref())
    }
}

impl From<PathBuf> for Lmdb {
    fn from(directory: PathBuf) -> Self {
        Self::new(directory)
    }
}

/// A [`Store`] in a directory, for all processes of one machine: LMDB (feature `store-lmdb`).
///
/// Any of them may be killed at any time: what was answered stays, what was not has happened as a whole or
/// not at all. An entry with a life does not outlive the machine's boot. A clone is the same store.
#[derive(Clone)]
pub struct LmdbStore {
    opened: Arc<Opened>,
}

impl LmdbStore {
    /// Opens the store in a directory, or makes it. Opening it again in the same process is the same store.
    /// It stays open until the process ends.
    ///
    /// # Errors
    ///
    /// [`Setting`](crate::ErrorKind::Setting) when the settings cannot be, or are others than those it is
    /// open with; [`Io`](crate::ErrorKind::Io) when the directory or the store cannot be opened, or another
    /// process that holds its lock does not let go of it.
    pub fn open(place: impl Into<Lmdb>) -> Result<Self> {
        Ok(Self { opened: opened::open(&place.into())? })
    }
}

impl fmt::Debug for LmdbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LmdbStore").field("place", self.opened.place()).finish_non_exhaustive()
    }
}

impl Store for LmdbStore {
    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        Answer::ready(check::key(key).and_then(|()| self.opened.get(key)))
    }

    fn set(&self, key: &[u8], value: &[u8], life: Option<Duration>) -> Answer<()> {
        let set = |()| self.opened.write(key, Set { value: value.into(), life }, value.len());
        Answer::of(check::set(key, value, life).map(set))
    }

    fn delete(&self, key: &[u8]) -> Answer<bool> {
        Answer::of(check::key(key).map(|()| self.opened.write(key, Delete, 0)))
    }

    fn add(&self, key: &[u8], amount: i64) -> Answer<i64> {
        Answer::of(check::key(key).map(|()| self.opened.write(key, Add { amount }, 0)))
    }

    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        life: Option<Duration>,
    ) -> Answer<bool> {
        let bytes = expected.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let write = |()| self.opened.write(key, CompareAndSet::new(expected, value, life), bytes);
        Answer::of(check::compare_and_set(key, expected, value, life).map(write))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Answer<Vec<Vec<u8>>> {
        Answer::ready(check::scan(prefix, limit).and_then(|()| self.opened.scan(prefix, limit)))
    }

    fn publish(&self, topic: &[u8], value: &[u8]) -> Answer<()> {
        Answer::of(check::publish(topic, value).map(|()| self.opened.publish(topic, value)))
    }

    fn subscribe(&self, topic: &[u8]) -> Answer<Subscription> {
        Answer::of(check::topic(topic).map(|()| self.opened.subscribe(topic)))
    }
}
