//! Who gets the next connection? The same crowd of clients, once under each policy; worker 1 is slow on purpose.
//!
//! ```text
//! cargo run --release --example load_balancing -- --mode process     # or --mode thread
//! ```
//!
//! Look at worker 1. `round-robin` (Node: `SCHED_RR`) gives it its turn although others are idle, and whoever comes
//! behind its backlog waits. `least-connections` and `shared` (Node: `SCHED_NONE`) give it what it can do.
//! `reuse-port` asks nobody: the kernel has dealt by a hash. It ends by itself.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bimodal::{Cluster, Event, Fork, Mode, Result, Scheduling, Worker, http};
use clap::Parser;

/// Shows who serves how many connections under each policy.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// How many connections come, under each policy
    #[arg(long, value_name = "N", default_value_t = 400)]
    connections: usize,
}

const WORKERS: usize = 4;
const CLIENTS: usize = 16;
const POLICIES: [Scheduling; 4] = [
    Scheduling::RoundRobin,
    Scheduling::LeastConnections,
    Scheduling::Shared,
    Scheduling::ReusePort,
];

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    // `main` runs in every worker process, too, until it gets to the launch of its own cluster.
    if bimodal::worker_of().is_none() {
        println!(
            "{:<18}  connections served by worker 1 (slow), 2, 3, 4    longest wait",
            "policy"
        );
    }
    for policy in POLICIES {
        try_out(policy, mode, args.connections)?;
    }
    Ok(())
}

/// One cluster under one policy, with a name of its own.
fn try_out(policy: Scheduling, mode: Mode, connections: usize) -> Result<()> {
    let cluster =
        Cluster::builder(mode).name(policy.to_string()).scheduling(policy).launch(serve)?;
    for index in 0..WORKERS {
        let pace = Duration::from_millis(if index == 0 { 5 } else { 1 });
        cluster.fork_with(Fork::new().data(pace))?;
    }
    let Some(address) = address_of_all(&cluster) else {
        return Ok(()); // this process is a worker of one of the clusters to come
    };
    let (served, longest) = crowd(address, connections)?;
    let counts: Vec<_> = (1..=WORKERS).map(|id| served.get(&id).copied().unwrap_or(0)).collect();
    println!("{policy:<18}  {counts:<46}    {longest:.0?}", counts = format!("{counts:?}"));
    cluster.shutdown()?;
    Ok(())
}

/// Waits until every worker listens; the address is the same for all.
fn address_of_all(cluster: &Cluster) -> Option<SocketAddr> {
    let listening = cluster.events().filter_map(|event| match event {
        Event::Listening { address, .. } => address.tcp(),
        _ => None,
    });
    listening.take(WORKERS).last()
}

/// What a worker does: it says who it is, and takes the time that it was given at its fork.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let (id, pace) = (worker.id(), worker.data::<Duration>()?);
    let answer = http::service_fn(move |_request| async move {
        compute(pace);
        http::text(id.to_string())
    });
    http::serve(listener, answer).await
}

/// Computes: until it is done, this worker's loop does nothing else.
fn compute(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {}
}

/// Connections by worker, and the longest wait for an answer.
type Tally = (BTreeMap<usize, usize>, Duration);

/// So many connections, a few of them at a time.
fn crowd(address: SocketAddr, connections: usize) -> Result<Tally> {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let share = (client..connections).step_by(CLIENTS).len();
            std::thread::spawn(move || (0..share).map(|_| ask(address)).collect::<Vec<_>>())
        })
        .collect();
    let mut tally = Tally::default();
    for answer in clients.into_iter().filter_map(|client| client.join().ok()).flatten() {
        let (worker, time) = answer?;
        *tally.0.entry(worker).or_default() += 1;
        tally.1 = tally.1.max(time);
    }
    Ok(tally)
}

/// One connection with one request: who answered, and after how long.
fn ask(address: SocketAddr) -> std::io::Result<(usize, Duration)> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let worker = answer.lines().last().and_then(|line| line.parse().ok());
    Ok((worker.ok_or(std::io::ErrorKind::InvalidData)?, began.elapsed()))
}
