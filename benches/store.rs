//! What the Store costs: reads and writes of several sizes, 95 to 5, and one counter, by one thread per core (at least two)
//! at once. Each waits for its answer before it asks again. Less than a minute.
//!
//! ```text
//! cargo bench --bench store
//! ```
//!
//! `redis` needs `redis-server` on the PATH, and runs one that writes nothing to the disk, over a Unix socket; it is left
//! out if there is none. `setpriv` of util-linux sees to it that the server does not outlive a bench that is killed.
//! The figure is the time of all, divided by the calls of all.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::{
    env,
    fs::{self, DirEntry},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bimodal::store::{Lmdb, LmdbStore, MemoryStore, RedisStore, Store};
use criterion::{Criterion, Throughput};

/// Keys that the calls are spread over.
const KEYS: u64 = 1000;

/// Of so many calls one is a write.
const WRITES: u64 = 20;

const SIZES: [usize; 3] = [64, 1 << 10, 64 << 10];

/// A server that does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let directory = Directory::new();
    let server = Server::start(&directory.0);
    let lmdb = Lmdb::new(directory.0.join("lmdb"));
    let mut stores: Vec<(&str, Box<dyn Store>)> = vec![
        ("memory", Box::new(MemoryStore::new())),
        ("lmdb", Box::new(LmdbStore::open(lmdb).expect("a store in a directory"))),
    ];
    if let Some(server) = &server {
        let store = RedisStore::open(&server.url).expect("the address of a server");
        stores.push(("redis", Box::new(store)));
    }
    let time = Duration::from_secs(1);
    let criterion = Criterion::default().sample_size(20).warm_up_time(time);
    let mut criterion = criterion.measurement_time(2 * time).configure_from_args();
    for (name, store) in &stores {
        measure(&mut criterion, name, &**store);
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, name: &str, store: &dyn Store) {
    let mut group = criterion.benchmark_group(format!("store/{name}"));
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let value = vec![b'v'; size];
        (0..KEYS).for_each(|key| store.set(&name_of(key), &value, None).wait().expect("a set"));
        group.bench_function(format!("95_5_of_{size}_bytes"), |bencher| {
            bencher.iter_custom(|times| by_all(times, |turn| read_or_write(store, turn, &value)));
        });
    }
    group.bench_function("one_counter", |bencher| {
        bencher.iter_custom(|times| {
            by_all(times, |_| {
                store.add(b"counter", 1).wait().expect("an add");
            })
        });
    });
    group.finish();
}

fn read_or_write(store: &dyn Store, turn: u64, value: &[u8]) {
    // Far apart from turn to turn.
    let key = name_of(turn.wrapping_mul(7919) % KEYS);
    if turn.is_multiple_of(WRITES) {
        store.set(&key, value, None).wait().expect("a set");
    } else {
        let found = store.get(&key).wait().expect("a get").expect("a value");
        assert_eq!(found.len(), value.len());
    }
}

fn name_of(key: u64) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

/// How long it takes all threads to make so many calls together.
fn by_all(times: u64, call: impl Fn(u64) + Sync) -> Duration {
    let threads = thread::available_parallelism().map_or(2, |cores| cores.get().max(2)) as u64;
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let call = &call;
            scope.spawn(move || (thread..times).step_by(threads as usize).for_each(call));
        }
    });
    start.elapsed()
}

/// A directory that is removed; what a bench left that was killed, the next one removes.
struct Directory(PathBuf);

impl Directory {
    const PREFIX: &str = "bimodal-bench-store-";

    fn new() -> Self {
        // Not under target/, whose path may be too long for a socket.
        let all = env::temp_dir();
        fs::read_dir(&all).expect("a directory").flatten().for_each(remove_if_left);
        let path = all.join(format!("{}{}", Self::PREFIX, process::id()));
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }
}

/// Removes it if the bench whose number it has is gone.
fn remove_if_left(entry: DirEntry) {
    let name = entry.file_name();
    let owner = name.to_str().and_then(|name| name.strip_prefix(Directory::PREFIX));
    let gone =
        |owner: u32| owner == process::id() || !Path::new("/proc").join(owner.to_string()).exists();
    if owner.and_then(|owner| owner.parse().ok()).is_some_and(gone) {
        // It may be somebody else's.
        let _ = fs::remove_dir_all(entry.path());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left there harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(directory: &Path) -> Option<Self> {
        let socket = directory.join("redis");
        // The name of a program that is not there would be taken for setpriv's own failure.
        Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().ok()?;
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "redis-server",
                "--port",
                "0",
                "--save",
                "",
                "--unixsocket",
            ])
            .arg(&socket);
        let child = command.current_dir(directory).stdout(Stdio::null()).spawn().ok()?;
        let server = Self { child, url: format!("redis+unix://{}", socket.display()) };
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < PATIENCE, "redis-server does not listen");
            thread::yield_now();
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if these fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
