//! The tables of the store and what they hold; every change of one write is made here, in its caller's
//! transaction. Time comes in as nanoseconds of the machine's monotonic clock, which starts anew with each
//! boot: the boot is remembered, and what has an end does not outlive it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries` | the key | when it expires (8 bytes, 0: never), the value |
//! | `expiries` | when (8 bytes), the key | |
//! | `topics` | length of the topic (2 bytes), the topic, the name of a socket | |
//! | `about` | `boot`, `format` | |

use std::{ops::Bound, time::Duration};

use heed::{
    CommitOrAbort, Database, Env, RoTxn, RwTxn,
    types::{Bytes, Unit},
};

use super::super::operation::{Change, Life, Operation};
use crate::error::{Error, ErrorKind, Result};

/// The layout above.
const FORMAT: &[u8] = b"1";

/// The number of tables.
pub(super) const TABLES: u32 = 4;

/// The bytes in front of a value.
const HEAD: usize = 8;

type Index = Database<'static, Bytes, Unit>;
type Table = Database<'static, Bytes, Bytes>;

#[derive(Clone, Copy)]
pub(super) struct Tables {
    entries: Table,
    expiries: Index,
    topics: Index,
    about: Table,
}

impl Tables {
    /// Opens the tables, or makes them, and enters this boot of the machine.
    pub(super) fn open(env: &Env, boot: &[u8]) -> heed::Result<Result<Self>> {
        let created = env.create_databases_and_commit(env.write_txn()?, |open, txn| {
            let tables = (
                open.create_database::<Bytes, Bytes>(txn, Some("entries"))?,
                open.create_database::<Bytes, Unit>(txn, Some("expiries"))?,
                open.create_database::<Bytes, Unit>(txn, Some("topics"))?,
                open.create_database::<Bytes, Bytes>(txn, Some("about"))?,
            );
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        let (entries, expiries, topics, about) = created.unwrap_commit();
        let tables = Self { entries, expiries, topics, about };
        let mut txn = env.write_txn()?;
        if let Err(error) = tables.check_format(&mut txn)? {
            return Ok(Err(error));
        }
        tables.enter_boot(&mut txn, boot)?;
        txn.commit()?;
        Ok(Ok(tables))
    }

    fn check_format(&self, txn: &mut RwTxn<'_>) -> heed::Result<Result<()>> {
        match self.about.get(txn, b"format")? {
            Some(FORMAT) => return Ok(Ok(())),
            Some(_) => {}
            None => return self.about.put(txn, b"format", FORMAT).map(Ok),
        }
        let text = "the store was made by a version of this crate that lays it out differently; give `Lmdb::new` another directory";
        Ok(Err(Error::new(ErrorKind::Setting, text)))
    }

    /// What has an end ended with the boot before; so did every process that subscribed.
    fn enter_boot(&self, txn: &mut RwTxn<'_>, boot: &[u8]) -> heed::Result<()> {
        if self.about.get(txn, b"boot")? == Some(boot) {
            return Ok(());
        }
        self.sweep(txn, u64::MAX, usize::MAX)?;
        self.topics.clear(txn)?;
        self.about.put(txn, b"boot", boot)
    }

    pub(super) fn get(
        &self,
        txn: &RoTxn<'_>,
        key: &[u8],
        now: u64,
    ) -> heed::Result<Option<Vec<u8>>> {
        Ok(self.living(txn, key, now)?.map(|(_, value)| value.into()))
    }

    /// Does what the operation decides. The inner error has changed nothing.
    pub(super) fn change<O: Operation>(
        &self,
        txn: &mut RwTxn<'_>,
        key: &[u8],
        operation: &O,
        now: u64,
    ) -> heed::Result<Result<O::Done>> {
        let living = self.living(txn, key, now)?;
        let before = living.map_or(0, |(expires, _)| expires);
        let (change, done) = match operation.decide(living.map(|(_, value)| value)) {
            Ok(decided) => decided,
            Err(error) => return Ok(Err(error)),
        };
        match change {
            Change::Keep => {}
            Change::Remove => self.remove(txn, key)?,
            Change::Put { value, life } => {
                let expires = match life {
                    Life::AsBefore => before,
                    Life::For(life) => life.map_or(0, |life| end(now, life)),
                };
                self.put(txn, key, &value, expires)?;
            }
        }
        Ok(Ok(done))
    }

    /// Removes at most so many entries that have expired.
    pub(super) fn sweep(&self, txn: &mut RwTxn<'_>, now: u64, most: usize) -> heed::Result<()> {
        for _ in 0..most {
            let Some((expiry, ())) = self.expiries.first(txn)? else { return Ok(()) };
            let Some((expires, key)) = split(expiry) else {
                let malformed = expiry.to_vec();
                self.expiries.delete(txn, &malformed)?;
                continue;
            };
            if expires > now {
                return Ok(());
            }
            let key = key.to_vec();
            self.remove(txn, &key)?;
            // Also where the entry does not know of it.
            self.expiries.delete(txn, &join(expires, &key))?;
        }
        Ok(())
    }

    /// The first keys that begin with a prefix.
    pub(super) fn keys(
        &self,
        txn: &RoTxn<'_>,
        prefix: &[u8],
        limit: usize,
        now: u64,
    ) -> heed::Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        for entry in self.entries.range(txn, &from(prefix))? {
            let (key, value) = entry?;
            if !key.starts_with(prefix) || keys.len() == limit {
                break;
            }
            if split(value).is_some_and(|(expires, _)| lives(expires, now)) {
                keys.push(key.into());
            }
        }
        Ok(keys)
    }

    /// Writes down that this socket wants what is published under a topic.
    pub(super) fn enlist(&self, txn: &mut RwTxn<'_>, topic: &[u8], name: &str) -> heed::Result<()> {
        self.topics.put(txn, &subscriber(topic, name), &())
    }

    /// Strikes it off again.
    pub(super) fn strike(&self, txn: &mut RwTxn<'_>, topic: &[u8], name: &str) -> heed::Result<()> {
        self.topics.delete(txn, &subscriber(topic, name)).map(|_| ())
    }

    /// The sockets that want what is published under a topic.
    pub(super) fn subscribers(&self, txn: &RoTxn<'_>, topic: &[u8]) -> heed::Result<Vec<String>> {
        let prefix = subscriber(topic, "");
        let mut names = Vec::new();
        for entry in self.topics.range(txn, &from(&prefix))? {
            let (key, ()) = entry?;
            let Some(name) = key.strip_prefix(&*prefix) else { break };
            names.extend(std::str::from_utf8(name).ok().map(String::from));
        }
        Ok(names)
    }

    fn living<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        key: &[u8],
        now: u64,
    ) -> heed::Result<Option<(u64, &'t [u8])>> {
        let entry = self.entries.get(txn, key)?.and_then(split);
        Ok(entry.filter(|(expires, _)| lives(*expires, now)))
    }

    fn put(&self, txn: &mut RwTxn<'_>, key: &[u8], value: &[u8], expires: u64) -> heed::Result<()> {
        self.forget_expiry(txn, key)?;
        if expires > 0 {
            self.expiries.put(txn, &join(expires, key), &())?;
        }
        self.entries.put_reserved(txn, key, HEAD + value.len(), |space| {
            std::io::Write::write_all(space, &expires.to_be_bytes())?;
            std::io::Write::write_all(space, value)
        })
    }

    fn remove(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> heed::Result<()> {
        self.forget_expiry(txn, key)?;
        self.entries.delete(txn, key).map(|_| ())
    }

    fn forget_expiry(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> heed::Result<()> {
        let entry = self.entries.get(txn, key)?.and_then(split);
        if let Some((expires, _)) = entry.filter(|(expires, _)| *expires > 0) {
            self.expiries.delete(txn, &join(expires, key))?;
        }
        Ok(())
    }
}

fn lives(expires: u64, now: u64) -> bool {
    expires == 0 || now < expires
}

fn end(now: u64, life: Duration) -> u64 {
    now.saturating_add(u64::try_from(life.as_nanos()).unwrap_or(u64::MAX))
}

fn join(expires: u64, key: &[u8]) -> Vec<u8> {
    [&expires.to_be_bytes(), key].concat()
}

/// When it expires, and what comes behind.
fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    Some((u64::from_be_bytes(*head), rest))
}

fn subscriber(topic: &[u8], name: &str) -> Vec<u8> {
    // Topics are far shorter.
    let length = u16::try_from(topic.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), topic, name.as_bytes()].concat()
}

/// All keys from this one; LMDB has no empty key.
fn from(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let from = if key.is_empty() { Bound::Unbounded } else { Bound::Included(key) };
    (from, Bound::Unbounded)
}
