//! What is out of the limits is refused, the same way by all.

use std::time::Duration;

use bimodal::{
    Error, ErrorKind,
    store::{Answer, MAX_KEY, MAX_LIFE, MAX_PUBLISHED, MAX_SCAN, MAX_TOPIC, MAX_VALUE},
};

use super::fixture::{Case, Fixture, case};

pub const CASES: &[Case] = &[
    case("keys_have_a_length", keys),
    case("values_have_a_size", values),
    case("lives_have_a_length", lives),
    case("scans_and_topics_have_limits", others),
];

fn refused<T: std::fmt::Debug>(answer: Answer<T>) -> Error {
    answer.wait().unwrap_err()
}

fn keys(Fixture { store, .. }: &Fixture) {
    for (key, kind, named) in [
        (vec![], ErrorKind::Setting, "from 1 to 480"),
        (vec![b'k'; MAX_KEY + 1], ErrorKind::TooLarge, "481"),
    ] {
        for error in [
            refused(store.get(&key)),
            refused(store.set(&key, b"v", None)),
            refused(store.delete(&key)),
            refused(store.add(&key, 1)),
            refused(store.compare_and_set(&key, None, Some(b"v"), None)),
        ] {
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
    assert!(store.scan(b"", 10).wait().unwrap().is_empty());
}

fn values(Fixture { store, .. }: &Fixture) {
    let large = vec![0; MAX_VALUE + 1];
    for error in [
        refused(store.set(b"k", &large, None)),
        refused(store.compare_and_set(b"k", None, Some(&large), None)),
        refused(store.compare_and_set(b"k", Some(&large), None, None)),
    ] {
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("16777217 bytes; the limit"), "{error}");
    }
    assert_eq!(store.get(b"k").wait().unwrap(), None);
}

fn lives(Fixture { store, .. }: &Fixture) {
    for life in [Duration::ZERO, Duration::from_micros(999), MAX_LIFE + Duration::from_nanos(1)] {
        for error in [
            refused(store.set(b"k", b"v", Some(life))),
            refused(store.compare_and_set(b"k", None, Some(b"v"), Some(life))),
        ] {
            assert_eq!(error.kind(), ErrorKind::Setting);
            assert!(error.to_string().contains("from 1ms to 100 years"), "{error}");
        }
    }
    let error = refused(store.compare_and_set(b"k", None, None, Some(Duration::from_secs(1))));
    assert!(error.to_string().contains("`life` is given without a value"), "{error}");
    assert_eq!(store.get(b"k").wait().unwrap(), None);
    store.set(b"k", b"v", Some(MAX_LIFE)).wait().unwrap();
    assert_eq!(store.get(b"k").wait().unwrap().unwrap(), b"v");
}

fn others(Fixture { store, .. }: &Fixture) {
    assert_eq!(refused(store.scan(&[0; MAX_KEY + 1], 1)).kind(), ErrorKind::TooLarge);
    assert_eq!(refused(store.scan(b"", 0)).kind(), ErrorKind::Setting);
    assert_eq!(refused(store.scan(b"", MAX_SCAN + 1)).kind(), ErrorKind::Setting);
    assert_eq!(refused(store.publish(b"", b"v")).kind(), ErrorKind::Setting);
    assert_eq!(refused(store.subscribe(b"")).kind(), ErrorKind::Setting);
    assert_eq!(refused(store.subscribe(&[b't'; MAX_TOPIC + 1])).kind(), ErrorKind::TooLarge);
    let large = vec![0; MAX_PUBLISHED + 1];
    assert_eq!(refused(store.publish(b"t", &large)).kind(), ErrorKind::TooLarge);
}
