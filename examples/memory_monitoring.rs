//! Who takes how much memory, and what is done about a worker that takes more and more.
//!
//! ```text
//! cargo run --release --example memory_monitoring -- --mode process             # or --mode thread
//! cargo run --release --example memory_monitoring -- --mode process --by-hand   # Node's way: look, fork, disconnect
//! ```
//!
//! Look at the table: each request leaves a megabyte behind in its worker. A process has memory of its own, which is read
//! from outside (Node's documents ask each worker for its `process.memoryUsage()`), and is replaced above 32 MiB. Threads share the
//! program's memory: nobody can say whose it is, a bound for each is refused with that reason, and what is left is to replace
//! them after so many requests. It ends by itself when two workers were replaced.

use std::{
    cell::RefCell,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bimodal::{Builder, Cluster, Event, Mode, Recycle, Result, Worker, WorkerHandle, http};
use clap::Parser;

/// Shows who takes how much memory.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Replace the workers as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
}

const WORKERS: usize = 2;
const MIB: u64 = 1 << 20;
/// A process that takes more is replaced.
const MOST: u64 = 32 * MIB;
/// A thread that has answered more is replaced.
const REQUESTS: u64 = 32;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    if args.by_hand {
        return watch(&builder(mode).launch(serve)?, true);
    }
    let bound = Recycle { memory: Some(MOST), ..Default::default() };
    let recycle = match builder(mode).recycle(bound.clone()).build() {
        Ok(_) => bound,
        Err(refused) => {
            println!("{refused}");
            Recycle { requests: Some(REQUESTS), ..Default::default() }
        }
    };
    let cluster = builder(mode).recycle(recycle).supervise(serve)?;
    watch(&cluster, false)?;
    println!("{}", cluster.wait()?);
    Ok(())
}

fn builder(mode: Mode) -> Builder {
    Cluster::builder(mode).workers(WORKERS)
}

/// Prints who takes how much; by hand, replaces who takes too much, one worker at a time.
fn watch(cluster: &Cluster, by_hand: bool) -> Result<()> {
    let (mut client, mut ended, mut leaving) = (None, 0, None);
    let mut look_at = Instant::now();
    (0..if by_hand { WORKERS } else { 0 }).try_for_each(|_| cluster.fork().map(drop))?;
    loop {
        let wait = look_at.saturating_duration_since(Instant::now());
        let event = cluster.next_event_timeout(wait);
        event.iter().for_each(tell);
        match event {
            Some(Event::Listening { address, .. }) => {
                client = client.or_else(|| address.tcp().map(Client::start));
                leaving.take().into_iter().for_each(|old: WorkerHandle| drop(old.disconnect()));
            }
            Some(Event::Exit { .. }) => {
                ended += 1;
                if ended == 2 {
                    client.iter_mut().for_each(Client::stop);
                    // After a Ctrl-C the cluster may have ended already.
                    drop(if by_hand { cluster.disconnect() } else { cluster.stop() });
                }
            }
            Some(_) => {}
            None if ended >= 2 && cluster.workers().is_empty() => return Ok(()),
            None => {
                look_at += Duration::from_millis(250);
                println!("{}", table(cluster));
                let too_much = |worker: &WorkerHandle| {
                    worker
                        .memory()
                        .map_or(worker.stats().requests >= REQUESTS, |bytes| bytes >= MOST)
                };
                if by_hand && leaving.is_none() && ended < 2 {
                    leaving = cluster.workers().into_iter().find(too_much);
                    leaving.iter().try_for_each(|_| cluster.fork().map(drop))?;
                }
            }
        }
    }
}

/// One line: the primary's process, then each worker.
fn table(cluster: &Cluster) -> String {
    let mib = |bytes: Option<u64>| {
        bytes.map_or("shared".into(), |bytes| format!("{:>3} MiB", bytes / MIB))
    };
    let workers = cluster.workers();
    let workers = workers.iter().map(|worker| format!("{worker}: {}", mib(worker.memory())));
    let program = format!("program: {}", mib(program()));
    std::iter::once(program).chain(workers).collect::<Vec<_>>().join("   ")
}

/// What this process has in use and shares with nobody, in bytes (proc(5)).
fn program() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// What a worker does: it remembers too much, until it ends.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let cache = RefCell::new(Vec::new());
    let answer = http::service_fn(move |_request| {
        cache.borrow_mut().push(vec![1_u8; MIB as usize]);
        std::future::ready(http::text("done\n"))
    });
    http::serve(listener, answer).await
}

/// A client that asks and asks, each time on a new connection.
struct Client {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let ask_on = move || {
            while !stopped.load(Relaxed) && ask(address).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        };
        Self { stop, thread: Some(thread::spawn(ask_on)) }
    }

    fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// One request.
fn ask(address: SocketAddr) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
    stream.read_to_string(&mut String::new())
}

fn tell(event: &Event) {
    match event {
        Event::Listening { worker, .. } => println!("{worker} listens"),
        Event::Exit { worker, status } => println!("{worker} ended with {status}"),
        Event::Decision { decision } => println!("decision: {decision}"),
        _ => {}
    }
}
