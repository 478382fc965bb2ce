//! Entries with a life.

use std::time::{Duration, Instant};

use super::{
    fixture::{Case, Fixture, case},
    support::wait_until,
};

pub const CASES: &[Case] = &[
    case("an_entry_goes_after_its_life_and_not_before", expiry),
    case("add_keeps_the_life", add),
    case("a_new_value_has_its_own_life", replaced),
    case("what_has_expired_is_absent_for_all", absent),
    case("what_has_expired_is_swept", swept),
];

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(3600);

/// Waits until the key is gone, which must not be before its life is over.
fn outlive(fixture: &Fixture, key: &[u8], since: Instant) {
    wait_until("the end of an entry's life", || fixture.store.get(key).wait().unwrap().is_none());
    assert!(since.elapsed() >= SHORT, "{:?}", since.elapsed());
    // It was not kept much longer either: far less than the deadline of the wait.
    assert!(since.elapsed() < SHORT + Duration::from_secs(10));
}

fn expiry(fixture: &Fixture) {
    let since = Instant::now();
    fixture.store.set(b"k", b"v", Some(SHORT)).wait().unwrap();
    outlive(fixture, b"k", since);
}

fn add(fixture: &Fixture) {
    let since = Instant::now();
    fixture.store.set(b"n", b"1", Some(SHORT)).wait().unwrap();
    fixture.store.add(b"n", 1).wait().unwrap();
    outlive(fixture, b"n", since);
    assert_eq!(fixture.store.add(b"n", 1).wait().unwrap(), 1);
}

fn replaced(fixture: &Fixture) {
    let store = &fixture.store;
    let since = Instant::now();
    store.set(b"set", b"1", Some(SHORT)).wait().unwrap();
    store.set(b"set", b"2", None).wait().unwrap();
    store.set(b"swap", b"1", Some(SHORT)).wait().unwrap();
    let swapped =
        store.compare_and_set(b"swap", Some(b"1"), Some(b"2"), Some(LONG)).wait().unwrap();
    // A busy machine may have taken longer than the life.
    assert!(swapped || since.elapsed() > SHORT);
    store.set(b"first", b"1", Some(LONG)).wait().unwrap();
    assert!(store.compare_and_set(b"first", Some(b"1"), Some(b"2"), Some(SHORT)).wait().unwrap());
    outlive(fixture, b"first", since);
    assert_eq!(store.get(b"set").wait().unwrap().unwrap(), b"2");
    assert_eq!(store.get(b"swap").wait().unwrap().is_some(), swapped);
}

fn absent(fixture: &Fixture) {
    let store = &fixture.store;
    let since = Instant::now();
    for key in [b"a", b"b", b"c"] {
        store.set(key, b"1", Some(SHORT)).wait().unwrap();
    }
    outlive(fixture, b"c", since);
    assert!(store.scan(b"", 10).wait().unwrap().is_empty());
    assert!(!store.delete(b"a").wait().unwrap());
    assert!(!store.compare_and_set(b"b", Some(b"1"), Some(b"2"), None).wait().unwrap());
    assert!(store.compare_and_set(b"b", None, Some(b"2"), None).wait().unwrap());
}

/// Ten times what a store would hold that kept what has expired; see the capacity of the fixtures.
fn swept(fixture: &Fixture) {
    let value = vec![b'v'; 1 << 20];
    for n in 0..640 {
        let set = || {
            let key = format!("k{n}");
            fixture.store.set(key.as_bytes(), &value, Some(Duration::from_millis(1))).wait()
        };
        wait_until("room, once entries have expired", || set().is_ok());
    }
}
