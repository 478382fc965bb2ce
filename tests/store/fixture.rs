//! The backends under test, each with a place of its own for every test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[cfg(feature = "redis")]
use bimodal::store::RedisStore;
#[cfg(feature = "store-lmdb")]
use bimodal::store::{Lmdb, LmdbStore};
use bimodal::store::{MemoryStore, Store};

use super::{server::Server, support::program::Program};

/// A behaviour of a store.
pub struct Case {
    pub name: &'static str,
    /// Whether it takes several processes.
    pub processes: bool,
    pub run: fn(&Fixture),
}

pub const fn case(name: &'static str, run: fn(&Fixture)) -> Case {
    Case { name, processes: false, run }
}

/// A behaviour towards several processes.
pub const fn among_processes(name: &'static str, run: fn(&Fixture)) -> Case {
    Case { name, processes: true, run }
}

/// A backend, and how its tests come to a store.
pub struct Backend {
    pub name: &'static str,
    /// Whether several processes can share it.
    pub processes: bool,
    open: fn(&str) -> Arc<dyn Store>,
    /// A place in this directory, and the server behind it if it has one.
    place: fn(&Directory) -> (String, Option<Server>),
}

/// What a store may hold; the Redis server is told the same.
const CAPACITY: usize = 64 << 20;

pub const BACKENDS: &[Backend] = &[
    Backend {
        name: "memory",
        processes: false,
        open: |_| Arc::new(MemoryStore::with_capacity(CAPACITY)),
        place: in_directory,
    },
    #[cfg(feature = "store-lmdb")]
    Backend {
        name: "lmdb",
        processes: true,
        open: |directory| Arc::new(LmdbStore::open(lmdb(directory)).unwrap()),
        place: in_directory,
    },
    #[cfg(feature = "redis")]
    Backend {
        name: "redis",
        processes: true,
        open: |url| Arc::new(RedisStore::open(url).unwrap()),
        place: |directory| {
            let server = Server::start(directory.path());
            (server.url(), Some(server))
        },
    },
];

fn in_directory(directory: &Directory) -> (String, Option<Server>) {
    (directory.path().to_str().unwrap().into(), None)
}

#[cfg(feature = "store-lmdb")]
pub fn lmdb(directory: impl AsRef<Path>) -> Lmdb {
    Lmdb::from(directory.as_ref()).map_size(CAPACITY)
}

/// One empty store.
pub struct Fixture {
    /// The store, as this process has opened it.
    pub store: Arc<dyn Store>,
    pub backend: &'static Backend,
    pub place: String,
    pub server: Option<Server>,
    pub directory: Directory,
}

impl Fixture {
    pub fn new(backend: &'static Backend) -> Self {
        let directory = Directory::new();
        let (place, server) = (backend.place)(&directory);
        Self { store: (backend.open)(&place), backend, place, server, directory }
    }

    /// Starts this program again as one of its [programs](super::programs), with the same store.
    pub fn program(&self, name: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--program", name, self.backend.name, &self.place]).args(arguments);
        Program::spawn(&mut command)
    }

    /// The sockets in its directory.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.directory.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|end| end == "sock")).collect()
    }
}

/// The store of a program that a test has started.
pub fn open(backend: &str, place: &str) -> Arc<dyn Store> {
    let backend = BACKENDS.iter().find(|each| each.name == backend).unwrap();
    (backend.open)(place)
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
