//! Many threads at once.

use std::thread;

use super::fixture::{Case, Fixture, case};

pub const CASES: &[Case] = &[
    case("no_add_of_many_threads_is_lost", adds),
    case("of_those_who_compare_one_wins", compare),
    case("readers_see_whole_values_while_writers_write", torn),
];

const THREADS: u64 = 8;
const ROUNDS: u64 = 200;

fn adds(Fixture { store, .. }: &Fixture) {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                (0..ROUNDS).for_each(|_| assert!(store.add(b"n", 1).wait().unwrap() > 0))
            });
        }
    });
    assert_eq!(store.add(b"n", 0).wait().unwrap() as u64, THREADS * ROUNDS);
}

fn compare(Fixture { store, .. }: &Fixture) {
    store.set(b"n", b"0", None).wait().unwrap();
    let increment = || {
        loop {
            let before = store.get(b"n").wait().unwrap().unwrap();
            let number: u64 = std::str::from_utf8(&before).unwrap().parse().unwrap();
            let after = (number + 1).to_string();
            let swap = store.compare_and_set(b"n", Some(&before), Some(after.as_bytes()), None);
            if swap.wait().unwrap() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| increment()));
        }
    });
    assert_eq!(store.get(b"n").wait().unwrap().unwrap(), b"200");
}

fn torn(Fixture { store, .. }: &Fixture) {
    let value = |n: u64| vec![n as u8; 10_000 + n as usize];
    store.set(b"k", &value(0), None).wait().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..ROUNDS).for_each(|n| store.set(b"k", &value(n % 256), None).wait().unwrap());
        });
        while !writer.is_finished() {
            let found = store.get(b"k").wait().unwrap().unwrap();
            assert!(found == value((found.len() - 10_000) as u64));
        }
    });
}
