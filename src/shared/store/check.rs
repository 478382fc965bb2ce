//! The limits of keys, values, lives, topics and scans: the same for all backends, so that a program can
//! change its backend without a surprise.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The longest key, in bytes; the shortest has 1. LMDB's keys end at 511 bytes, and the index of
/// expiries needs some of them.
pub const MAX_KEY: usize = 480;

/// The largest value, in bytes.
pub const MAX_VALUE: usize = 16 << 20;

/// The longest topic, in bytes; the shortest has 1.
pub const MAX_TOPIC: usize = 256;

/// The largest value that can be published, in bytes.
pub const MAX_PUBLISHED: usize = 64 << 10;

/// The most keys that one scan answers.
pub const MAX_SCAN: usize = 65_536;

/// The shortest life of an entry.
pub const MIN_LIFE: Duration = Duration::from_millis(1);

/// The longest life of an entry: 100 years.
pub const MAX_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(super) fn key(key: &[u8]) -> Result<()> {
    named("a key", key, MAX_KEY)
}

pub(super) fn set(key: &[u8], value: &[u8], life: Option<Duration>) -> Result<()> {
    self::key(key)?;
    self::value(value)?;
    self::life(life)
}

pub(super) fn compare_and_set(
    key: &[u8],
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
    life: Option<Duration>,
) -> Result<()> {
    self::key(key)?;
    expected.map_or(Ok(()), self::value)?;
    value.map_or(Ok(()), self::value)?;
    if value.is_none() && life.is_some() {
        return refuse("`life` is given without a value to live: leave it out to remove the key");
    }
    self::life(life)
}

pub(super) fn scan(prefix: &[u8], limit: usize) -> Result<()> {
    at_most("a prefix", prefix.len(), MAX_KEY)?;
    if (1..=MAX_SCAN).contains(&limit) {
        return Ok(());
    }
    refuse(format!("`limit` is {limit}; a scan can have from 1 to {MAX_SCAN} keys"))
}

pub(super) fn topic(topic: &[u8]) -> Result<()> {
    named("a topic", topic, MAX_TOPIC)
}

pub(super) fn publish(topic: &[u8], value: &[u8]) -> Result<()> {
    self::topic(topic)?;
    at_most("a published value", value.len(), MAX_PUBLISHED)
}

fn value(value: &[u8]) -> Result<()> {
    at_most("a value", value.len(), MAX_VALUE)
}

fn life(life: Option<Duration>) -> Result<()> {
    match life {
        Some(life) if !(MIN_LIFE..=MAX_LIFE).contains(&life) => refuse(format!(
            "`life` is {life:?}; it must be from {MIN_LIFE:?} to 100 years, or `None` for no end"
        )),
        _ => Ok(()),
    }
}

fn named(what: &str, name: &[u8], most: usize) -> Result<()> {
    if name.is_empty() {
        return refuse(format!("{what} is empty; it must have from 1 to {most} bytes"));
    }
    at_most(what, name.len(), most)
}

fn at_most(what: &str, bytes: usize, most: usize) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    let text = format!("{what} has {bytes} bytes; the limit of a store is {most}");
    Err(Error::new(ErrorKind::TooLarge, text))
}

fn refuse(text: impl Into<String>) -> Result<()> {
    Err(Error::new(ErrorKind::Setting, text))
}
