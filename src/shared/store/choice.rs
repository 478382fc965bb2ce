//! Which store a cluster has, and the store of this process once somebody has asked for it.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

#[cfg(feature = "redis")]
use super::RedisStore;
#[cfg(feature = "store-lmdb")]
use super::{Lmdb, LmdbStore};
use super::{MemoryStore, Store};
use crate::{
    config::Memory,
    error::{Error, ErrorKind, Result},
};

/// Where the store of a cluster is ([`Builder::store`](crate::Builder::store)).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// In the program's memory, for worker threads only: see [`MemoryStore`].
    Memory,
    /// In a directory, for all processes of one machine: see [`LmdbStore`].
    #[cfg(feature = "store-lmdb")]
    Lmdb(Lmdb),
    /// On the Redis server at this address, for many machines: see [`RedisStore`].
    #[cfg(feature = "redis")]
    Redis(String),
}

impl Storage {
    /// What applies where nothing was chosen.
    pub(crate) fn default_for(memory: Memory) -> Option<Self> {
        (memory == Memory::Shared).then_some(Self::Memory)
    }

    /// # Errors
    ///
    /// [`ErrorKind::Setting`]: workers that share no memory cannot share a store in it.
    pub(crate) fn check(&self, memory: Memory) -> Result<()> {
        if (self, memory) == (&Self::Memory, Memory::Separate) {
            let text = format!(
                "`store` is `Storage::Memory`, which cannot be in process mode: each process would have a store of its own; {REMEDY}, or use thread mode"
            );
            return Err(Error::new(ErrorKind::Setting, text));
        }
        Ok(())
    }

    fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStore::new()),
            #[cfg(feature = "store-lmdb")]
            Self::Lmdb(place) => Arc::new(LmdbStore::open(place.clone())?),
            #[cfg(feature = "redis")]
            Self::Redis(url) => Arc::new(RedisStore::open(url)?),
        })
    }
}

const REMEDY: &str = "choose `.store(Storage::Lmdb(\"directory\".into()))` (feature `store-lmdb`) or `.store(Storage::Redis(\"redis://host\".into()))` (feature `redis`)";

/// Without the address of a server, which may hold a password.
impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("Memory"),
            #[cfg(feature = "store-lmdb")]
            Self::Lmdb(place) => f.debug_tuple("Lmdb").field(place).finish(),
            #[cfg(feature = "redis")]
            Self::Redis(_) => f.write_str("Redis(..)"),
        }
    }
}

/// The store that was chosen: opened when it is asked for, once in a process. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    storage: Option<Storage>,
    opened: Arc<Mutex<Option<Arc<dyn Store>>>>,
}

impl Choice {
    pub(crate) fn new(storage: Option<Storage>) -> Self {
        Self { storage, opened: Arc::default() }
    }

    /// # Errors
    ///
    /// [`ErrorKind::Setting`]: none was chosen. As its backend when it cannot be opened; the next call tries
    /// again.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>> {
        let none = || {
            let text =
                format!("the cluster has no store, and in process mode no default: {REMEDY}");
            Error::new(ErrorKind::Setting, text)
        };
        let storage = self.storage.as_ref().ok_or_else(none)?;
        let mut opened = self.opened.lock();
        if let Some(store) = &*opened {
            return Ok(store.clone());
        }
        Ok(opened.insert(storage.open()?).clone())
    }
}
