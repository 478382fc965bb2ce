//! The backends under test, each with a place of its own for every test.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[cfg(feature = "store-lmdb")]
use bimodal::store::{Lmdb, LmdbStore};
use bimodal::store::{MemoryStore, Store};

/// A behaviour of a store.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Fixture),
}

pub const fn case(name: &'static str, run: fn(&Fixture)) -> Case {
    Case { name, run }
}

/// A backend, and how its tests come to a store.
pub struct Backend {
    pub name: &'static str,
    open: fn(&Path) -> Arc<dyn Store>,
}

/// What a store may hold, where its backend has such a setting.
const CAPACITY: usize = 64 << 20;

pub const BACKENDS: &[Backend] = &[
    Backend { name: "memory", open: |_| Arc::new(MemoryStore::with_capacity(CAPACITY)) },
    #[cfg(feature = "store-lmdb")]
    Backend { name: "lmdb", open: |directory| Arc::new(LmdbStore::open(lmdb(directory)).unwrap()) },
];

#[cfg(feature = "store-lmdb")]
pub fn lmdb(directory: &Path) -> Lmdb {
    Lmdb::from(directory).map_size(CAPACITY)
}

/// One empty store.
pub struct Fixture {
    /// The store, as this process has opened it.
    pub store: Arc<dyn Store>,
    _directory: Directory,
}

impl Fixture {
    pub fn new(backend: &Backend) -> Self {
        let directory = Directory::new();
        Self { store: (backend.open)(directory.path()), _directory: directory }
    }
}

/// A directory that is removed with all that is in it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bimodal-store-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
