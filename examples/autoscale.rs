//! The number of workers follows the load: up soon when they are busy, down later when they are not.
//!
//! ```text
//! cargo run --release --example autoscale -- --mode process             # or --mode thread
//! cargo run --release --example autoscale -- --mode process --by-hand   # Node's way: count requests, fork, disconnect
//! ```
//!
//! Look at the number of workers while eight clients come, and after they have gone. The cluster goes by the share
//! of time for which the loops work, and by connections that wait; between "too busy" and "too idle" lies a gap, so
//! that a constant load leads to a constant number. By hand it is what Node's documents write: so many requests
//! for each worker are too many, so many too few. It ends by itself.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bimodal::{Autoscale, Cluster, Decision, Event, Mode, Result, Worker, http};
use clap::Parser;

/// Shows how the number of workers follows the load.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Count requests, as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
}

const MOST: usize = 3;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(1);
    if args.by_hand {
        return by_hand(&builder.launch(serve)?);
    }
    // The defaults are 3 s and 30 s; whoever watches an example has less patience.
    let autoscale = Autoscale {
        up_after: Duration::from_millis(300),
        down_after: Duration::from_millis(600),
        ..Autoscale::between(1, MOST)
    };
    built_in(builder.autoscale(autoscale).supervise(serve)?)
}

/// The cluster looks and decides.
fn built_in(cluster: Cluster) -> Result<()> {
    let mut crowd = None;
    for event in cluster.events() {
        tell(&event);
        match event {
            Event::Listening { address, .. } if crowd.is_none() => {
                crowd = address.tcp().map(Crowd::gather);
            }
            Event::Decision { decision: Decision::Scale { to: MOST, .. } } => {
                crowd.iter_mut().for_each(Crowd::leave);
            }
            Event::Decision { decision: Decision::Scale { to: 1, .. } } => cluster.stop()?,
            _ => {}
        }
    }
    println!("{}", cluster.wait()?);
    Ok(())
}

/// The program looks and decides, twice in a second.
fn by_hand(cluster: &Cluster) -> Result<()> {
    let (mut crowd, mut before) = (None, 0);
    let mut look_at = Instant::now() + Duration::from_millis(500);
    cluster.fork()?;
    while !cluster.workers().is_empty() {
        let wait = look_at.saturating_duration_since(Instant::now());
        if let Some(event) = cluster.next_event_timeout(wait) {
            tell(&event);
            if let (Event::Listening { address, .. }, None) = (event, &crowd) {
                crowd = address.tcp().map(Crowd::gather);
            }
            continue;
        }
        look_at += Duration::from_millis(500);
        let workers = cluster.workers();
        let requests: u64 = workers.iter().map(|worker| worker.stats().requests).sum();
        let per_worker = requests.saturating_sub(before) / workers.len().max(1) as u64;
        before = requests;
        println!("{per_worker} requests per worker, {} workers", workers.len());
        let left = crowd.as_ref().is_some_and(Crowd::has_left);
        match (per_worker, workers.as_slice()) {
            (_, all) if all.len() == MOST && !left => crowd.iter_mut().for_each(Crowd::leave),
            (20.., few) if few.len() < MOST => drop(cluster.fork()?),
            (..5, [_, .., last]) => drop(last.disconnect()?),
            (..5, [_]) if left => cluster.disconnect()?,
            _ => {}
        }
    }
    Ok(())
}

/// What a worker does: every answer takes 2 ms of computing.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let answer = http::service_fn(|_request| async {
        let end = Instant::now() + Duration::from_millis(2);
        while Instant::now() < end {}
        http::text("done\n")
    });
    http::serve(listener, answer).await
}

/// Clients that ask and ask, each time on a new connection.
struct Crowd {
    left: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn gather(address: SocketAddr) -> Self {
        println!("a crowd comes");
        let left = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let left = left.clone();
            thread::spawn(move || while !left.load(Relaxed) && ask(address).is_ok() {})
        };
        Self { threads: (0..8).map(client).collect(), left }
    }

    fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    fn leave(&mut self) {
        self.left.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        println!("the crowd has left");
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
