//! What only the store in a directory promises, or suffers.

use std::{os::unix::fs::PermissionsExt as _, time::Instant};

use bimodal::{
    Error, ErrorKind,
    store::{Lmdb, LmdbStore, Store},
};

use super::{
    fixture::{BACKENDS, Directory, Fixture, lmdb},
    support::{DEADLINE, wait_until},
};

pub const TESTS: &[(&str, fn())] = &[
    ("a_full_store_refuses_and_recovers", full),
    ("a_writer_that_is_stopped_hangs_nobody", stopped),
    ("a_directory_is_opened_once", again),
    ("settings_are_checked", settings),
    ("a_long_path_has_room_for_subscribers", long_path),
    ("only_its_user_can_reach_a_store", permissions),
    ("sockets_of_the_dead_are_removed", sockets),
    ("a_subscription_that_ends_leaves_nothing", leaves_nothing),
];

fn fixture() -> Fixture {
    Fixture::new(BACKENDS.iter().find(|backend| backend.name == "lmdb").unwrap())
}

fn full() {
    let directory = Directory::new();
    let store = LmdbStore::open(Lmdb::new(directory.path()).map_size(4 << 20)).unwrap();
    let value = vec![1; 100_000];
    let mut kept = 0;
    let error = loop {
        let set = store.set(format!("k{kept}").as_bytes(), &value, None).wait();
        let Err(error) = set else {
            kept += 1;
            assert!(kept < 100, "4 MiB have room for {kept} values of 100 KB");
            continue;
        };
        break error;
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(error.to_string().contains("`Lmdb::map_size`"), "{error}");
    assert!(kept > 20, "{kept}");
    // Nothing that was answered is gone, and small writes that wait with a large one do not suffer.
    assert_eq!(store.scan(b"k", 1000).wait().unwrap().len(), kept);
    let large = store.set(b"large", &value, None);
    let small = store.set(b"small", b"v", None);
    assert_eq!(large.wait().unwrap_err().kind(), ErrorKind::Full);
    small.wait().unwrap();
    (0..5).for_each(|n| assert!(store.delete(format!("k{n}").as_bytes()).wait().unwrap()));
    store.set(b"large", &value, None).wait().unwrap();
}

/// While it holds the lock that all writers share.
fn stopped() {
    const SIGSTOP: i32 = 19;
    const SIGCONT: i32 = 18;
    let fixture = fixture();
    let mut program = fixture.program("stream", &[]);
    program.line(|line| line == "ready");
    wait_until("a writer that is stopped while it holds the lock", || {
        program.signal(SIGSTOP);
        let since = Instant::now();
        let set = fixture.store.set(b"k", b"v", None).wait();
        assert!(since.elapsed() < DEADLINE / 2, "{:?}", since.elapsed());
        // Readers do not care.
        fixture.store.get(b"stream").wait().unwrap();
        program.signal(SIGCONT);
        let held = set.inspect_err(is_timeout).is_err();
        wait_until("the lock", || fixture.store.set(b"k", b"v", None).wait().is_ok());
        held
    });
}

fn is_timeout(error: &Error) {
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::TimedOut), "{error}");
    assert!(error.to_string().contains("may or may not have happened"), "{error}");
}

fn again() {
    let directory = Directory::new();
    let one = LmdbStore::open(lmdb(directory.path())).unwrap();
    let two = LmdbStore::open(lmdb(directory.path().join("../").join(directory.path()))).unwrap();
    one.set(b"k", b"v", None).wait().unwrap();
    assert_eq!(two.get(b"k").wait().unwrap().unwrap(), b"v");
    for other in [lmdb(directory.path()).durable(true), Lmdb::new(directory.path())] {
        let error = LmdbStore::open(other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains("open it the same way"), "{error}");
    }
    std::fs::remove_dir_all(directory.path()).unwrap();
    std::fs::create_dir(directory.path()).unwrap();
    let error = LmdbStore::open(lmdb(directory.path())).unwrap_err();
    assert!(error.to_string().contains("was replaced"), "{error}");
}

fn settings() {
    let directory = Directory::new();
    for size in [0, (1 << 20) - 1, (1 << 40) + 1] {
        let error = LmdbStore::open(Lmdb::new(directory.path()).map_size(size)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains("`map_size`"), "{error}");
    }
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = LmdbStore::open(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    // A size that is no multiple of a page, and every commit on the disk.
    let odd = Lmdb::new(directory.path().join("odd")).map_size((1 << 20) + 1).durable(true);
    let store = LmdbStore::open(odd).unwrap();
    store.set(b"k", b"v", None).wait().unwrap();
}

fn long_path() {
    let directory = Directory::new();
    let store = LmdbStore::open(directory.path().join("d".repeat(120))).unwrap();
    let subscription = store.subscribe(b"t").wait().unwrap();
    store.publish(b"t", b"v").wait().unwrap();
    assert_eq!(subscription.wait(DEADLINE).unwrap().unwrap(), b"v");
}

fn permissions() {
    let directory = Directory::new();
    let path = directory.path().join("new/store");
    let store = LmdbStore::open(&path).unwrap();
    let _subscription = store.subscribe(b"t").wait().unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = path.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{file:?}"));
}

/// Whoever opens the store clears up after those who were killed, even if nobody publishes.
fn sockets() {
    let fixture = fixture();
    let mut program = fixture.program("subscriber", &["t"]);
    program.line(|line| line == "ready");
    program.signal(9);
    program.wait();
    assert_eq!(fixture.sockets().len(), 1);
    let alive = fixture.store.subscribe(b"t").wait().unwrap();
    fixture.program("adds", &["n", "1"]).succeed();
    assert_eq!(fixture.sockets().len(), 1);
    fixture.store.publish(b"t", b"v").wait().unwrap();
    assert_eq!(alive.wait(DEADLINE).unwrap().unwrap(), b"v");
}

fn leaves_nothing() {
    let fixture = fixture();
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "bimodal-topics").count()
    };
    let subscriptions =
        [b"a", b"a", b"b"].map(|topic| fixture.store.subscribe(topic).wait().unwrap());
    assert_eq!(fixture.sockets().len(), 1);
    drop(subscriptions);
    assert_eq!(fixture.sockets().len(), 0);
    // Other tests of this process may subscribe as well, and end.
    wait_until("the end of the thread that receives", || threads() == 0);
    let again = fixture.store.subscribe(b"a").wait().unwrap();
    fixture.store.publish(b"a", b"v").wait().unwrap();
    assert_eq!(again.wait(DEADLINE).unwrap().unwrap(), b"v");
}
