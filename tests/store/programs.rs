//! What a test starts beside itself: `--program NAME BACKEND PLACE ARGUMENTS`.

use std::{sync::Arc, time::Duration};

use bimodal::store::Store;

use super::{fixture, support::DEADLINE};

/// Runs what the command line asks for; false if it asks for nothing.
pub fn run() -> bool {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, flag, name, backend, place, rest @ ..] = &*arguments else { return false };
    if flag != "--program" {
        return false;
    }
    let store = fixture::open(backend, place);
    let rest: Vec<_> = rest.iter().map(String::as_str).collect();
    match (&**name, &*rest) {
        ("adds", [key, times]) => adds(&store, key, times.parse().unwrap()),
        ("ledger", [prefix]) => ledger(&store, prefix),
        ("stream", []) => stream(&store),
        ("subscriber", [topic]) => subscriber(&store, topic),
        ("leaver", [topic]) => drop(store.subscribe(topic.as_bytes()).wait().unwrap()),
        _ => panic!("{arguments:?}"),
    }
    true
}

fn adds(store: &Arc<dyn Store>, key: &str, times: usize) {
    (0..times).for_each(|_| assert!(store.add(key.as_bytes(), 1).wait().unwrap() > 0));
}

/// The places that a ledger goes round in.
pub const PLACES: i64 = 32;

/// What a ledger holds at a place in a certain step.
pub fn page(step: i64) -> Vec<u8> {
    let bytes = 100 + usize::try_from(step).unwrap() * 7919 % 30_000;
    format!("{step}:").into_bytes().into_iter().chain(vec![step as u8; bytes]).collect()
}

/// Counts and writes until it is killed, and prints each step once it was answered.
fn ledger(store: &Arc<dyn Store>, prefix: &str) {
    loop {
        let step = store.add(format!("{prefix}/step").as_bytes(), 1).wait().unwrap();
        println!("counted {step}");
        let key = format!("{prefix}/page/{:02}", step % PLACES);
        store.set(key.as_bytes(), &page(step), None).wait().unwrap();
        println!("written {step}");
    }
}

/// Writes as much as it can.
fn stream(store: &Arc<dyn Store>) {
    println!("ready");
    let value = vec![7; 4 << 20];
    loop {
        // It is stopped now and then, which its own clock sees as a store that does not answer.
        let _ = store.set(b"stream", &value, None).wait();
    }
}

/// Prints what it receives, up to an empty value.
fn subscriber(store: &Arc<dyn Store>, topic: &str) {
    let subscription = store.subscribe(topic.as_bytes()).wait().unwrap();
    println!("ready");
    loop {
        match subscription.wait(DEADLINE + Duration::from_secs(10)).unwrap() {
            Some(value) if !value.is_empty() => {
                println!("got {}", String::from_utf8(value).unwrap())
            }
            end => {
                assert!(end.is_some(), "nothing came");
                return println!("missed {}", subscription.missed());
            }
        }
    }
}
