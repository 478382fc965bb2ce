//! What only the store on a server promises, or suffers.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    ErrorKind, Result,
    store::{RedisStore, Store},
};

use super::{
    fixture::{BACKENDS, Fixture},
    support::{DEADLINE, system, wait_until},
};

pub const TESTS: &[(&str, fn())] = &[
    ("while_the_server_is_away_calls_fail_and_then_work_again", away),
    ("nothing_that_was_answered_is_lost_when_the_server_is_killed", killed),
    ("a_server_that_is_stopped_hangs_nobody", stopped),
    ("a_subscription_comes_back_and_counts_the_gap", subscription),
    ("no_server_is_no_reason_not_to_start", absent),
    ("an_address_is_checked_and_not_shown", addresses),
    ("an_idle_connection_that_was_closed_costs_no_call", idle),
    ("what_another_program_keeps_there_is_respected", foreign),
    ("the_threads_end_with_the_store", threads),
];

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

fn fixture() -> Fixture {
    Fixture::new(BACKENDS.iter().find(|backend| backend.name == "redis").unwrap())
}

/// Answers within the deadline of a call, however it went.
fn in_time<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    let answer = call();
    assert!(since.elapsed() < DEADLINE / 2, "{:?}", since.elapsed());
    answer
}

fn away() {
    let mut fixture = fixture();
    let store = fixture.store.clone();
    store.set(b"k", b"v", None).wait().unwrap();
    fixture.server.as_mut().unwrap().kill();
    for _ in 0..20 {
        for error in [
            in_time(|| store.get(b"k").wait()).unwrap_err(),
            in_time(|| store.set(b"k", b"w", None).wait()).unwrap_err(),
            in_time(|| store.add(b"n", 1).wait()).unwrap_err(),
            in_time(|| store.scan(b"", 1).wait()).unwrap_err(),
            in_time(|| store.publish(b"t", b"v").wait()).unwrap_err(),
            in_time(|| store.subscribe(b"t").wait()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("Redis server"), "{error}");
        }
    }
    fixture.server.as_mut().unwrap().start_again();
    wait_until("the server, back", || in_time(|| store.get(b"k").wait()).is_ok());
    assert_eq!(store.get(b"k").wait().unwrap().unwrap(), b"v");
    assert_eq!(store.get(b"n").wait().unwrap(), None);
}

/// Writers go on while the server is killed and started; what they were told holds in the end.
fn killed() {
    let mut fixture = fixture();
    let done = AtomicBool::new(false);
    let write = |writer: usize, store: &dyn Store| {
        let mut answered = BTreeMap::new();
        let mut n = 0_u32;
        while !done.load(SeqCst) {
            let key = format!("{writer}/{n}");
            match in_time(|| store.set(key.as_bytes(), key.as_bytes(), None).wait()) {
                Ok(()) => drop(answered.insert(key, ())),
                // A server that loads what it held refuses for a moment.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
            }
            n = n.wrapping_add(1);
        }
        answered
    };
    let store = fixture.store.clone();
    let answered: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|n| {
                scope.spawn({
                    let store = store.clone();
                    move || write(n, &*store)
                })
            })
            .collect();
        for round in 0..5 {
            let key = format!("round/{round}");
            wait_until("a write", || store.set(key.as_bytes(), b"", None).wait().is_ok());
            let server = fixture.server.as_mut().unwrap();
            server.kill();
            assert!(in_time(|| store.get(b"k").wait()).is_err());
            server.start_again();
        }
        wait_until("the server, back", || store.get(b"k").wait().is_ok());
        done.store(true, SeqCst);
        writers.into_iter().flat_map(|writer| writer.join().unwrap().into_keys()).collect()
    });
    assert!(answered.len() > 5);
    for key in answered {
        assert_eq!(store.get(key.as_bytes()).wait().unwrap().as_deref(), Some(key.as_bytes()));
    }
}

fn stopped() {
    let fixture = fixture();
    let store = &fixture.store;
    store.set(b"k", b"v", None).wait().unwrap();
    system::signal(fixture.server.as_ref().unwrap().pid(), SIGSTOP);
    for _ in 0..2 {
        let error = in_time(|| store.set(b"k", b"w", None).wait()).unwrap_err();
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::TimedOut), "{error}");
    }
    system::signal(fixture.server.as_ref().unwrap().pid(), SIGCONT);
    wait_until("the server, awake", || in_time(|| store.set(b"k", b"x", None).wait()).is_ok());
    assert_eq!(store.get(b"k").wait().unwrap().unwrap(), b"x");
}

fn subscription() {
    let mut fixture = fixture();
    let subscription = fixture.store.subscribe(b"t").wait().unwrap();
    let next = |value: &str| {
        wait_until("a value", || {
            // Until the subscriber is back, nobody receives.
            let _ = fixture.store.publish(b"t", value.as_bytes()).wait();
            let got = subscription.wait(Duration::from_millis(20)).unwrap();
            got.is_some_and(|got| got == value.as_bytes())
        });
    };
    next("before");
    assert_eq!(subscription.missed(), 0);
    let server = fixture.server.as_mut().unwrap();
    server.kill();
    server.start_again();
    next("after");
    assert_eq!(subscription.missed(), 1);
}

fn absent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let store = RedisStore::open(&format!("redis://{address}")).unwrap();
    let error = in_time(|| store.get(b"k").wait()).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused), "{error}");
    assert!(error.to_string().contains(&format!("{address} is away, and nothing was done")));
    // Somebody listens and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = RedisStore::open(&format!("redis://{}", silent.local_addr().unwrap())).unwrap();
    let error = in_time(|| store.get(b"k").wait()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

fn addresses() {
    for url in ["", "http://host", "redis://:secret@host:port", "rediss://:secret@host", "host"] {
        let error = RedisStore::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting, "{url}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().contains("redis://host:6379"), "{error}");
    }
    let store = RedisStore::open("redis://user:secret@127.0.0.1:1/3").unwrap();
    assert_eq!(format!("{store:?}"), "RedisStore { address: \"127.0.0.1:1\", .. }");
}

/// `redis-cli`, for what only a server can be told.
fn cli(fixture: &Fixture, arguments: &[&str]) -> String {
    let socket = fixture.place.strip_prefix("redis+unix://").unwrap();
    let output = Command::new("redis-cli").args(["-s", socket]).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn idle() {
    let fixture = fixture();
    fixture.store.set(b"k", b"v", None).wait().unwrap();
    let since = Instant::now();
    cli(&fixture, &["CLIENT", "KILL", "TYPE", "normal"]);
    wait_until("a connection that was idle for more than a second", || {
        since.elapsed() > Duration::from_millis(1100)
    });
    assert_eq!(fixture.store.get(b"k").wait().unwrap().unwrap(), b"v");
}

fn foreign() {
    let fixture = fixture();
    let store = &fixture.store;
    cli(&fixture, &["RPUSH", "list", "a"]);
    let errors = [
        store.get(b"list").wait().unwrap_err(),
        store.add(b"list", 1).wait().unwrap_err(),
        store.compare_and_set(b"list", None, Some(b"v"), None).wait().unwrap_err(),
    ];
    errors.iter().for_each(|error| assert_eq!(error.kind(), ErrorKind::Type, "{error}"));
    assert_eq!(store.scan(b"", 10).wait().unwrap(), [b"list"]);
    cli(&fixture, &["CONFIG", "SET", "maxmemory", "1mb"]);
    let error = store.set(b"k", &vec![0; 2 << 20], None).wait();
    let error = error.and_then(|()| store.set(b"k", b"v", None).wait()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(store.delete(b"list").wait().unwrap());
}

fn threads() {
    let fixture = fixture();
    let connected = || {
        let list = cli(&fixture, &["CLIENT", "LIST"]);
        list.lines()
            .filter(|client| !client.contains("redis-cli") && !client.contains("cmd=client"))
            .count()
    };
    let store = RedisStore::open(&fixture.place).unwrap();
    let subscription = store.subscribe(b"t").wait().unwrap();
    store.set(b"k", b"v", None).wait().unwrap();
    assert_eq!(connected(), 2);
    drop((store, subscription));
    wait_until("no connection", || connected() == 0);
}
