//! Time and boots, which a test chooses.

use std::time::Duration;

use heed::{Env, EnvOpenOptions};

use super::{
    super::operation::{Add, CompareAndSet, Delete, Operation, Set},
    notices::{packet, parse},
    tables::{TABLES, Tables},
};
use crate::sys;

/// A store in a directory that is removed.
struct Place {
    directory: std::path::PathBuf,
    env: Env,
}

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("bimodal-tables-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 20).max_dbs(TABLES);
        let env = sys::lmdb::open(&options, &directory, false).unwrap();
        Self { directory, env }
    }

    fn boot(&self, boot: &str) -> Tables {
        Tables::open(&self.env, boot.as_bytes()).unwrap().unwrap()
    }

    fn change<O: Operation>(&self, tables: Tables, key: &str, operation: &O, now: u64) -> O::Done {
        let mut txn = self.env.write_txn().unwrap();
        let done = tables.change(&mut txn, key.as_bytes(), operation, now).unwrap().unwrap();
        txn.commit().unwrap();
        done
    }

    fn get(&self, tables: Tables, key: &str, now: u64) -> Option<String> {
        let value = tables.get(&self.env.read_txn().unwrap(), key.as_bytes(), now).unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    }

    fn keys(&self, tables: Tables, now: u64) -> usize {
        tables.keys(&self.env.read_txn().unwrap(), b"", 100, now).unwrap().len()
    }

    fn sweep(&self, tables: Tables, now: u64, most: usize) {
        let mut txn = self.env.write_txn().unwrap();
        tables.sweep(&mut txn, now, most).unwrap();
        txn.commit().unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn set(value: &str, seconds: u64) -> Set {
    let life = (seconds > 0).then(|| Duration::from_secs(seconds));
    Set { value: value.into(), life }
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn an_entry_lives_exactly_as_long_as_it_was_given() {
    let place = Place::new("life");
    let tables = place.boot("one");
    place.change(tables, "a", &set("1", 10), 5 * SECOND);
    place.change(tables, "a", &Add { amount: 4 }, 14 * SECOND);
    assert_eq!(place.get(tables, "a", 15 * SECOND - 1).as_deref(), Some("5"));
    assert_eq!(place.get(tables, "a", 15 * SECOND), None);
    assert_eq!(place.keys(tables, 15 * SECOND), 0);
    assert!(!place.change(tables, "a", &CompareAndSet::new(Some(b"5"), None, None), 15 * SECOND));
    assert_eq!(place.change(tables, "a", &Add { amount: 1 }, 15 * SECOND), 1);
    assert_eq!(place.get(tables, "a", u64::MAX).as_deref(), Some("1"));
    assert!(place.change(tables, "a", &Delete, 16 * SECOND));
}

#[test]
fn sweeping_takes_a_few_and_only_what_has_expired() {
    let place = Place::new("sweep");
    let tables = place.boot("one");
    (0..10).for_each(|n| place.change(tables, &format!("k{n}"), &set("v", n + 1), 0));
    place.change(tables, "k0", &set("v", 60), 0);
    place.change(tables, "k1", &set("v", 0), 0);
    place.sweep(tables, 5 * SECOND, 2);
    assert_eq!(place.keys(tables, 0), 8);
    place.sweep(tables, 5 * SECOND, usize::MAX);
    assert_eq!(place.keys(tables, 0), 7);
    place.sweep(tables, 1000 * SECOND, usize::MAX);
    assert_eq!(place.keys(tables, 0), 1);
}

#[test]
fn a_new_boot_keeps_what_has_no_end_and_nothing_else() {
    let place = Place::new("boot");
    let tables = place.boot("one");
    place.change(tables, "session", &set("1", 3600), 900 * SECOND);
    place.change(tables, "for ever", &set("2", 0), 900 * SECOND);
    let same = place.boot("one");
    assert_eq!(place.get(same, "session", 901 * SECOND).as_deref(), Some("1"));
    // The clock has started anew: by it, the session would have more than an hour.
    let tables = place.boot("two");
    assert_eq!(place.get(tables, "session", SECOND), None);
    assert_eq!(place.get(tables, "for ever", SECOND).as_deref(), Some("2"));
}

#[test]
fn another_layout_is_refused() {
    let place = Place::new("format");
    place.boot("one");
    let mut txn = place.env.write_txn().unwrap();
    let about = place.env.clone();
    let about = about.create_databases_and_commit(txn, |open, txn| {
        let about =
            open.create_database::<heed::types::Bytes, heed::types::Bytes>(txn, Some("about"))?;
        heed::Result::Ok(heed::CommitOrAbort::<_, ()>::Commit(about))
    });
    let about = about.unwrap().unwrap_commit();
    txn = place.env.write_txn().unwrap();
    about.put(&mut txn, b"format", b"0").unwrap();
    txn.commit().unwrap();
    let error = Tables::open(&place.env, b"one").unwrap().err().unwrap();
    assert!(error.to_string().contains("another directory"), "{error}");
}

#[test]
fn what_comes_to_a_socket_is_checked() {
    let whole = packet(3, b"topic", b"value");
    assert_eq!(parse(&whole), Some((3, b"topic".as_slice(), b"value".as_slice())));
    (0..15).for_each(|bytes| assert_eq!(parse(&whole[..bytes]), None));
    assert_eq!(parse(&packet(0, b"t", b"")), Some((0, b"t".as_slice(), b"".as_slice())));
    assert_eq!(parse(&packet(0, b"", b"value")), None);
    assert_eq!(parse(&packet(0, &[b't'; 257], b"value")), None);
    assert_eq!(parse(&packet(0, b"t", &[0; (64 << 10) + 1])), None);
    assert_eq!(parse(&[0xff; 100]), None);
}
