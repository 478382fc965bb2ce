//! Workers that have answered enough are replaced one after the other, and no request is lost by it.
//!
//! ```text
//! cargo run --release --example recycling -- --mode process             # or --mode thread
//! cargo run --release --example recycling -- --mode process --by-hand   # Node's way: count, fork, disconnect
//! ```
//!
//! Look at the order: the new worker listens before the old one is asked to leave, and the client, which never stops,
//! counts no failure. By hand it is what Node's documents write, but that no worker sends a message
//! for each request: its counters can be read. It ends by itself when every worker was replaced twice.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bimodal::{Cluster, Event, Mode, Recycle, Result, Worker, WorkerHandle, WorkerId, http};
use clap::Parser;

/// Shows how workers are replaced that have done enough.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Replace the workers as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
    /// How many requests are enough
    #[arg(long, value_name = "N", default_value_t = 100)]
    requests: u64,
}

const WORKERS: usize = 2;
/// Workers that have ended when the example does.
const ENOUGH: usize = 2 * WORKERS;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(WORKERS);
    if args.by_hand {
        return by_hand(&builder.launch(serve)?, args.requests);
    }
    // Up to a fifth more each, so that they do not all go at the same time.
    let recycle = Recycle { requests: Some(args.requests), jitter: 0.2, ..Default::default() };
    built_in(builder.recycle(recycle).supervise(serve)?)
}

/// The cluster counts; it looks once in a second.
fn built_in(cluster: Cluster) -> Result<()> {
    let (mut client, mut ended) = (None, 0);
    for event in cluster.events() {
        tell(&event);
        match event {
            Event::Listening { address, .. } if client.is_none() => {
                client = address.tcp().map(Client::start);
            }
            Event::Exit { .. } => {
                ended += 1;
                if ended == ENOUGH {
                    client.take().into_iter().for_each(Client::stop);
                    cluster.stop()?;
                }
            }
            _ => {}
        }
    }
    println!("{}", cluster.wait()?);
    Ok(())
}

/// The program counts, and replaces one worker at a time.
fn by_hand(cluster: &Cluster, requests: u64) -> Result<()> {
    let (mut client, mut ended) = (None, 0);
    let mut leaving: Option<WorkerId> = None;
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    while !cluster.workers().is_empty() {
        let event = cluster.next_event_timeout(Duration::from_millis(100));
        event.iter().for_each(tell);
        match event {
            Some(Event::Listening { address, .. }) => {
                client = client.or_else(|| address.tcp().map(Client::start));
                if let Some(old) = leaving.take().and_then(|old| cluster.worker(old)) {
                    old.disconnect()?;
                }
            }
            Some(Event::Exit { .. }) => {
                ended += 1;
                if ended == ENOUGH {
                    client.take().into_iter().for_each(Client::stop);
                    cluster.disconnect()?;
                }
            }
            Some(_) => {}
            None if leaving.is_none() && ended < ENOUGH => {
                let spent = |worker: &WorkerHandle| worker.stats().requests >= requests;
                if let Some(worker) = cluster.workers().into_iter().find(spent) {
                    println!("{worker} answered {} requests", worker.stats().requests);
                    leaving = Some(worker.id());
                    cluster.fork()?;
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// What a worker does.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let id = worker.id();
    let hello = move |_| std::future::ready(http::text(format!("hello from worker {id}\n")));
    http::serve(listener, http::service_fn(hello)).await
}

/// A client that asks and asks, each time on a new connection, and counts.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Client {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut answered, mut failed) = (0, 0);
            while !stopped.load(Relaxed) {
                *if ask(address).is_ok() { &mut answered } else { &mut failed } += 1;
                thread::sleep(Duration::from_millis(2));
            }
            (answered, failed)
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        let (answered, failed) = self.thread.join().unwrap_or_default();
        println!("{answered} requests answered, {failed} failed");
    }
}

/// One request: an error unless it is answered in full.
fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let complete = answer.starts_with("HTTP/1.1 200") && answer.contains("hello from worker");
    complete.then_some(()).ok_or(std::io::ErrorKind::UnexpectedEof.into())
}

fn tell(event: &Event) {
    match event {
        Event::Listening { worker, .. } => println!("{worker} listens"),
        Event::Exit { worker, status } => println!("{worker} ended with {status}"),
        Event::Decision { decision } => println!("decision: {decision}"),
        _ => {}
    }
}
