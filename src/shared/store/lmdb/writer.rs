//! The thread that writes: takes what waits, makes one transaction of it, and answers once it is committed.
//!
//! One transaction costs as much as many writes in it, and only one process can have one: that is what
//! writing together saves. LMDB's lock passes on when its holder dies; while the holder lives and does not let go,
//! this thread waits, callers are answered by their deadlines, and the queue fills up to its bound.

use std::collections::VecDeque;

use heed::{Env, MdbError, RwTxn};

use super::{
    super::{answer::Promise, operation::Operation, queue::Queue},
    tables::Tables,
};
use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};

/// Jobs that share a transaction.
const BATCH: usize = 1024;

/// Expired entries that go with each write: more than it adds.
const SWEPT_PER_WRITE: usize = 4;

/// Expired entries that are removed at once when there is no room.
const SWEPT_WHEN_FULL: usize = 16_384;

/// A write that waits.
pub(super) trait Job: Send {
    /// Nobody waits for it any more, and nothing was done yet.
    fn is_overdue(&self) -> bool;

    /// Makes its changes. It may be called again in another transaction if this one fails.
    fn apply(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, now: u64) -> heed::Result<()>;

    /// Answers, once the transaction is committed or has failed.
    fn finish(self: Box<Self>, committed: Result<()>);
}

pub(super) type Jobs = Queue<Box<dyn Job>>;

/// An operation on a key.
pub(super) struct Write<O: Operation> {
    pub(super) key: Vec<u8>,
    pub(super) operation: O,
    pub(super) promise: Promise<O::Done>,
    pub(super) done: Option<Result<O::Done>>,
}

impl<O: Operation<Done: Send> + Send> Job for Write<O> {
    fn is_overdue(&self) -> bool {
        self.promise.is_overdue(clock::now())
    }

    fn apply(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, now: u64) -> heed::Result<()> {
        self.done = Some(tables.change(txn, &self.key, &self.operation, now)?);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<()>) {
        match (committed, self.done) {
            (Ok(()), Some(done)) => self.promise.keep(done),
            (Err(error), _) => self.promise.keep(Err(error)),
            // Dropped, the promise is an error.
            (Ok(()), None) => {}
        }
    }
}

/// Runs until the queue is closed.
pub(super) fn run(env: &Env, tables: &Tables, jobs: &Jobs) {
    while let Some(mut waiting) = jobs.take(None) {
        waiting.retain(|job| !job.is_overdue());
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(BATCH));
            write(env, tables, std::mem::replace(&mut waiting, rest));
        }
    }
}

fn write(env: &Env, tables: &Tables, mut batch: VecDeque<Box<dyn Job>>) {
    match commit(env, tables, &mut batch) {
        Ok(()) => batch.into_iter().for_each(|job| job.finish(Ok(()))),
        Err(error) => {
            make_room(env, tables, &error);
            batch.into_iter().for_each(|job| write_alone(env, tables, job));
        }
    }
}

/// For a job whose transaction has failed with others: the fault may be another's.
fn write_alone(env: &Env, tables: &Tables, job: Box<dyn Job>) {
    let mut batch = VecDeque::from([job]);
    let committed = commit(env, tables, &mut batch).map_err(|error| explain(&error));
    if let Some(job) = batch.pop_front() {
        job.finish(committed);
    }
}

fn commit(
    env: &Env,
    tables: &Tables,
    batch: &mut VecDeque<Box<dyn Job>>,
) -> Result<(), heed::Error> {
    let mut txn = env.write_txn()?;
    // Read under the lock: nobody writes later with an earlier time.
    let now = clock::monotonic_ns();
    tables.sweep(&mut txn, now, SWEPT_PER_WRITE * batch.len())?;
    batch.iter_mut().try_for_each(|job| job.apply(tables, &mut txn, now))?;
    txn.commit()
}

/// Frees what can be freed: entries that have expired, pages that a dead reader holds.
fn make_room(env: &Env, tables: &Tables, error: &heed::Error) {
    if !matches!(error, heed::Error::Mdb(MdbError::MapFull)) {
        return;
    }
    let sweep = || {
        env.clear_stale_readers()?;
        let mut txn = env.write_txn()?;
        tables.sweep(&mut txn, clock::monotonic_ns(), SWEPT_WHEN_FULL)?;
        txn.commit()
    };
    if let Err(error) = sweep() {
        log::warn!("a store that is full cannot be swept: {error}");
    }
}

/// The error of a transaction, for whoever waits for it.
pub(super) fn explain(error: &heed::Error) -> Error {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => {
            let text = "the store is full: delete entries, let them expire, or give it more with `Lmdb::map_size`";
            Error::new(ErrorKind::Full, text)
        }
        heed::Error::Mdb(MdbError::MapResized) => {
            let text = "another process has opened the store with a larger `Lmdb::map_size`, and this one cannot follow: give all processes the same";
            Error::new(ErrorKind::Setting, text)
        }
        heed::Error::Mdb(MdbError::ReadersFull) => {
            let text = "too many threads read the store: there can be 1024, in all processes";
            Error::new(ErrorKind::Full, text)
        }
        heed::Error::Io(error) => {
            let again = std::io::Error::new(error.kind(), error.to_string());
            Error::caused(ErrorKind::Io, "the store cannot be written or read", again)
        }
        error => Error::new(ErrorKind::Io, format!("the store cannot be written or read: {error}")),
    }
}
