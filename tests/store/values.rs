//! Values, numbers and scans.

use std::future::poll_fn;

use bimodal::{ErrorKind, event_loop::EventLoop, store::MAX_VALUE};

use super::fixture::{Case, Fixture, case};

pub const CASES: &[Case] = &[
    case("a_value_is_what_was_set_last", set_and_get),
    case("delete_says_whether_there_was_one", delete),
    case("large_values", large),
    case("add_counts_and_refuses_what_is_no_number", add),
    case("compare_and_set_compares_absence_too", compare_and_set),
    case("scan_is_sorted_and_bounded", scan),
    case("scan_takes_a_prefix_literally", prefixes),
    case("an_answer_is_a_future", future),
    case("a_dropped_answer_is_done_all_the_same", dropped),
];

fn set_and_get(Fixture { store, .. }: &Fixture) {
    assert_eq!(store.get(b"k").wait().unwrap(), None);
    let values: [&[u8]; 4] = [b"one", b"", b"\0\xff\r\n", b"four"];
    for key in [b"k".as_slice(), b"\0", b"\xff\xfe", "ключ".as_bytes(), &[7; 480]] {
        for value in values {
            store.set(key, value, None).wait().unwrap();
            assert_eq!(store.get(key).wait().unwrap().as_deref(), Some(value));
        }
    }
}

fn delete(Fixture { store, .. }: &Fixture) {
    assert!(!store.delete(b"k").wait().unwrap());
    store.set(b"k", b"", None).wait().unwrap();
    assert!(store.delete(b"k").wait().unwrap());
    assert!(!store.delete(b"k").wait().unwrap());
    assert_eq!(store.get(b"k").wait().unwrap(), None);
}

fn large(Fixture { store, .. }: &Fixture) {
    for size in [4096, 65_536, 1 << 20, MAX_VALUE] {
        let value: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        store.set(b"k", &value, None).wait().unwrap();
        assert!(store.get(b"k").wait().unwrap().unwrap() == value, "{size}");
    }
}

fn add(Fixture { store, .. }: &Fixture) {
    assert_eq!(store.add(b"n", 5).wait().unwrap(), 5);
    assert_eq!(store.add(b"n", -8).wait().unwrap(), -3);
    assert_eq!(store.add(b"n", 0).wait().unwrap(), -3);
    assert_eq!(store.get(b"n").wait().unwrap().unwrap(), b"-3");
    store.set(b"n", b"9223372036854775807", None).wait().unwrap();
    assert_eq!(store.add(b"n", 1).wait().unwrap_err().kind(), ErrorKind::Range);
    assert_eq!(store.add(b"n", i64::MIN).wait().unwrap(), -1);
    assert_eq!(store.add(b"n", i64::MIN).wait().unwrap_err().kind(), ErrorKind::Range);
    for text in [&b""[..], b"ten", b" 1", b"01", b"+1", b"1.5", b"9223372036854775808"] {
        store.set(b"n", text, None).wait().unwrap();
        let error = store.add(b"n", 1).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Type, "{text:?}: {error}");
        assert_eq!(store.get(b"n").wait().unwrap().as_deref(), Some(text));
    }
}

fn compare_and_set(Fixture { store, .. }: &Fixture) {
    let cas = |expected: Option<&str>, value: Option<&str>| {
        let (expected, value) = (expected.map(str::as_bytes), value.map(str::as_bytes));
        store.compare_and_set(b"k", expected, value, None).wait().unwrap()
    };
    let get = || store.get(b"k").wait().unwrap();
    assert!(!cas(Some("a"), Some("b")));
    assert!(cas(None, None));
    assert_eq!(get(), None);
    assert!(cas(None, Some("")));
    assert!(!cas(None, Some("b")));
    assert!(cas(Some(""), Some("b")));
    assert!(!cas(Some("B"), None));
    assert_eq!(get().unwrap(), b"b");
    assert!(cas(Some("b"), None));
    assert_eq!(get(), None);
}

fn scan(Fixture { store, .. }: &Fixture) {
    assert!(store.scan(b"", 10).wait().unwrap().is_empty());
    for n in (0..3000).rev() {
        drop(store.set(format!("k{n:04}").as_bytes(), b"v", None));
    }
    store.set(b"other", b"v", None).wait().unwrap();
    let names = |limit| {
        let keys = store.scan(b"k", limit).wait().unwrap();
        keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(3), ["k0000", "k0001", "k0002"]);
    let all: Vec<_> = (0..3000).map(|n| format!("k{n:04}")).collect();
    assert_eq!(names(65_536), all);
    assert_eq!(store.scan(b"", 65_536).wait().unwrap().len(), 3001);
}

fn prefixes(Fixture { store, .. }: &Fixture) {
    let keys: [&[u8]; 9] =
        [b"a*b", b"aXb", b"a?", b"a[x]", b"ax", b"a\\*", b"\xff", b"\xff\xff1", b"a^-]"];
    for key in keys {
        store.set(key, b"v", None).wait().unwrap();
    }
    for prefix in
        [&b"a*"[..], b"a?", b"a[", b"a[x", b"a\\", b"\xff", b"\xff\xff", b"a^-", b"a", b""]
    {
        let mut expected: Vec<_> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        expected.sort();
        assert_eq!(store.scan(prefix, 100).wait().unwrap(), expected, "{prefix:?}");
    }
}

fn future(Fixture { store, .. }: &Fixture) {
    let mut event_loop = EventLoop::new().unwrap();
    let sum = event_loop.block_on(async {
        let mut set = store.set(b"n", b"40", None);
        poll_fn(|cx| std::pin::Pin::new(&mut set).poll(cx)).await.unwrap();
        let first = store.add(b"n", 1).await.unwrap();
        (first, store.add(b"n", 1).await.unwrap(), store.get(b"n").await.unwrap())
    });
    assert_eq!(sum.unwrap(), (41, 42, Some(b"42".into())));
}

fn dropped(Fixture { store, .. }: &Fixture) {
    for _ in 0..200 {
        drop(store.add(b"n", 1));
    }
    // What one thread asks for is done in its order.
    assert_eq!(store.add(b"n", 1).wait().unwrap(), 201);
}
