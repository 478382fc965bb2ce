//! A directory that is open in this process, once, however many stores are made of it.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use heed::{Env, EnvOpenOptions, MdbError, RoTxn};
use parking_lot::Mutex;

use super::{
    super::{Answer, Subscription, answer::Promise, operation::Operation},
    Lmdb,
    notices::Notices,
    tables::{TABLES, Tables},
    writer::{self, Jobs, Write, explain},
};
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
    sys,
};

/// Threads that may read at the same time, in all processes.
const READERS: u32 = 1024;

/// What every page size divides.
const GRANULE: usize = 64 << 10;

pub(super) struct Opened {
    place: Lmdb,
    /// Tells the directory from another that has come to its path.
    inode: u64,
    env: Env,
    tables: Tables,
    jobs: Arc<Jobs>,
    notices: Arc<Notices>,
}

/// All directories that are open, by their canonical path.
static OPEN: Mutex<BTreeMap<PathBuf, Arc<Opened>>> = Mutex::new(BTreeMap::new());

/// The directory as this process has it open, or opens it.
pub(super) fn open(place: &Lmdb) -> Result<Arc<Opened>> {
    check(place)?;
    let text = || format!("make the store's directory {}", place.directory.display());
    make_directory(&place.directory).context(ErrorKind::Io, text)?;
    let path = fs::canonicalize(&place.directory).context(ErrorKind::Io, text)?;
    let inode = fs::metadata(&path).context(ErrorKind::Io, text)?.ino();
    let mut open = OPEN.lock();
    if let Some(opened) = open.get(&path) {
        return opened.again(place, inode);
    }
    let opened = Arc::new(Opened::open(place, &path, inode)?);
    open.insert(path, opened.clone());
    Ok(opened)
}

fn check(place: &Lmdb) -> Result<()> {
    let size = place.map_size;
    if (1 << 20..=1 << 40).contains(&size) {
        return Ok(());
    }
    let text = format!("`map_size` is {size}; it must be from 1 MiB to 1 TiB");
    Err(Error::new(ErrorKind::Setting, text))
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

impl Opened {
    fn open(place: &Lmdb, path: &Path, inode: u64) -> Result<Self> {
        let text = || format!("open the store in {}", path.display());
        let mut options = EnvOpenOptions::new();
        options.map_size(place.map_size.next_multiple_of(GRANULE));
        options.max_readers(READERS).max_dbs(TABLES);
        let env = sys::lmdb::open(&options, path, place.durable).context(ErrorKind::Io, text)?;
        env.clear_stale_readers().context(ErrorKind::Io, text)?;
        let jobs = Arc::new(Jobs::new());
        let (promise, tables) = Answer::promised();
        start_writer(env.clone(), jobs.clone(), promise).context(ErrorKind::Io, text)?;
        let tables = tables.wait()?;
        let notices = Notices::new(path, env.clone(), tables, jobs.clone());
        let notices = Arc::new(notices.context(ErrorKind::Io, text)?);
        Ok(Self { place: place.clone(), inode, env, tables, jobs, notices })
    }

    fn again(self: &Arc<Self>, place: &Lmdb, inode: u64) -> Result<Arc<Self>> {
        let refuse = |text: String| Err(Error::new(ErrorKind::Setting, text));
        let directory = place.directory.display();
        if inode != self.inode {
            return refuse(format!(
                "the store's directory {directory} was replaced while this process has the one before open; restart it"
            ));
        }
        if (place.map_size, place.durable) != (self.place.map_size, self.place.durable) {
            return refuse(format!(
                "the store in {directory} is open in this process with another `map_size` or `durable`; open it the same way"
            ));
        }
        Ok(self.clone())
    }

    pub(super) fn place(&self) -> &Lmdb {
        &self.place
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        read(&self.env, |txn| self.tables.get(txn, key, clock::monotonic_ns()))
    }

    pub(super) fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>> {
        read(&self.env, |txn| self.tables.keys(txn, prefix, limit, clock::monotonic_ns()))
    }

    /// An operation whose arguments beside the key have so many bytes.
    pub(super) fn write<O>(&self, key: &[u8], operation: O, bytes: usize) -> Answer<O::Done>
    where
        O: Operation<Done: Send> + Send + 'static,
    {
        let (promise, answer) = Answer::promised();
        let write = Write { key: key.into(), operation, promise, done: None };
        let queued = self.jobs.push(Box::new(write), key.len() + bytes);
        Answer::of(queued.map(|()| answer))
    }

    pub(super) fn publish(&self, topic: &[u8], value: &[u8]) -> Answer<()> {
        self.notices.publish(topic, value)
    }

    pub(super) fn subscribe(&self, topic: &[u8]) -> Answer<Subscription> {
        self.notices.subscribe(topic)
    }
}

/// Reads from a snapshot; where dead readers leave no room for another, once more without them.
pub(super) fn read<T>(env: &Env, mut read: impl FnMut(&RoTxn<'_>) -> heed::Result<T>) -> Result<T> {
    let mut once = || read(&*env.read_txn()?);
    let first = once();
    let answer = match first {
        Err(heed::Error::Mdb(MdbError::ReadersFull)) => {
            env.clear_stale_readers().and_then(|_| once())
        }
        answer => answer,
    };
    answer.map_err(|error| explain(&error))
}

/// The thread enters the store first: that needs the lock, which another process may hold.
fn start_writer(env: Env, jobs: Arc<Jobs>, promise: Promise<Tables>) -> io::Result<()> {
    let run = move || {
        let tables = match enter(&env) {
            Ok(tables) => tables,
            Err(error) => return promise.keep(Err(error)),
        };
        promise.keep(Ok(tables));
        writer::run(&env, &tables, &jobs);
    };
    thread::Builder::new().name("bimodal-writer".into()).spawn(run).map(|_| ())
}

fn enter(env: &Env) -> Result<Tables> {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read(BOOT).context(ErrorKind::Io, || format!("read {BOOT}"))?;
    Tables::open(env, boot.trim_ascii_end()).map_err(|error| explain(&error))?
}
