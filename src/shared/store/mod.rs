//! A key-value store beside the workers: what people keep in Redis next to a cluster (sessions, counters,
//! locks, notices), behind one trait with three backends.
//!
//! Owns the trait, its limits and the backends. A call checks its arguments on the caller's thread; what a
//! backend does on a thread of its own it answers through an [`Answer`]. No backend knows workers, modes or
//! the event loop: futures are woken through their std waker. `README.md` beside this file tells what each
//! backend guarantees.
//!
//! Invariants: an answer comes by its deadline, as an error if need be; what is answered with `Ok` has
//! happened; nothing grows without a bound.

// Used where a backend answers from a thread of its own.
#[cfg_attr(not(any(feature = "store-lmdb", feature = "redis")), allow(dead_code))]
mod alarm;
#[cfg_attr(not(any(feature = "store-lmdb", feature = "redis")), allow(dead_code))]
mod answer;
mod check;
mod choice;
#[cfg(feature = "store-lmdb")]
mod lmdb;
mod memory;
mod operation;
#[cfg(any(feature = "store-lmdb", feature = "redis"))]
mod queue;
#[cfg(feature = "redis")]
mod redis;
#[cfg_attr(not(all(feature = "store-lmdb", feature = "redis")), allow(dead_code))]
mod subscription;
mod topics;

use std::{fmt, time::Duration};

pub use answer::Answer;
pub use check::{MAX_KEY, MAX_LIFE, MAX_PUBLISHED, MAX_SCAN, MAX_TOPIC, MAX_VALUE, MIN_LIFE};
pub(crate) use choice::Choice;
pub use choice::Storage;
#[cfg(feature = "store-lmdb")]
pub use lmdb::{Lmdb, LmdbStore};
pub use memory::MemoryStore;
#[cfg(feature = "redis")]
pub use redis::RedisStore;
pub use subscription::Subscription;

/// A store of keys and values that several workers, processes or machines share, as far as its backend
/// reaches: [`MemoryStore`] one process, `LmdbStore` one machine, `RedisStore` many machines.
///
/// Keys and values are bytes: keys of 1 to [`MAX_KEY`], values up to [`MAX_VALUE`]. An entry may have a
/// life, from [`MIN_LIFE`] to [`MAX_LIFE`], after which it is absent.
///
/// ```
/// use std::time::Duration;
/// use bimodal::store::{MemoryStore, Store};
///
/// # fn main() -> bimodal::Result<()> {
/// let store = MemoryStore::new();
/// store.set(b"session:7", b"ada", Some(Duration::from_secs(3600))).wait()?;
/// assert_eq!(store.add(b"visits", 1).wait()?, 1);
/// assert_eq!(store.scan(b"session:", 10).wait()?, [b"session:7"]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Of all calls: [`TooLarge`](crate::ErrorKind::TooLarge) and [`Setting`](crate::ErrorKind::Setting) for
/// arguments that are not within the limits, and then nothing was done; [`Full`](crate::ErrorKind::Full)
/// when the store, or its queue, has no room, and then nothing was done either;
/// [`Io`](crate::ErrorKind::Io) when the backend is away, fails, or does not answer in time
/// ([`Error::io_kind`](crate::Error::io_kind) is `TimedOut`): then a write **may** have happened.
pub trait Store: Send + Sync + fmt::Debug {
    /// The value of a key, if it has one (Redis: `GET`).
    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>>;

    /// Gives a key this value and this life, whatever it had before (Redis: `SET`, `PX`). `None`: it does
    /// not expire.
    fn set(&self, key: &[u8], value: &[u8], life: Option<Duration>) -> Answer<()>;

    /// Removes a key; false if there was none (Redis: `DEL`).
    fn delete(&self, key: &[u8]) -> Answer<bool>;

    /// Adds to the number that a key holds as decimal text, and says the sum (Redis: `INCRBY`). An absent
    /// key counts as 0. The life that the entry has goes on.
    ///
    /// # Errors
    ///
    /// [`Type`](crate::ErrorKind::Type) when the value is not such a number,
    /// [`Range`](crate::ErrorKind::Range) when the sum is not in an `i64`: nothing has changed then.
    fn add(&self, key: &[u8], amount: i64) -> Answer<i64>;

    /// Gives a key the value `value`, or removes it with `None`, if it holds `expected`, or is absent for
    /// `None`; false if it does not, and nothing has changed then. `life` is that of the new value.
    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        life: Option<Duration>,
    ) -> Answer<bool>;

    /// The first `limit` keys, at most [`MAX_SCAN`], that begin with `prefix`, in the order of their bytes.
    /// A key that was there all the time is among them; one that comes or goes meanwhile may be.
    fn scan(&self, prefix: &[u8], limit: usize) -> Answer<Vec<Vec<u8>>>;

    /// Sends a value of up to [`MAX_PUBLISHED`] bytes to whoever subscribes to the topic now (Redis:
    /// `PUBLISH`). Nobody is a success, too; nothing is kept for those who come later.
    fn publish(&self, topic: &[u8], value: &[u8]) -> Answer<()>;

    /// Receives what is published under a topic of 1 to [`MAX_TOPIC`] bytes, once this is answered (Redis:
    /// `SUBSCRIBE`).
    fn subscribe(&self, topic: &[u8]) -> Answer<Subscription>;
}
