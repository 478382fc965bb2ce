//! Messages of the program's own types, there and back; connections and ports that go with them.
//!
//! ```text
//! cargo run --release --example messaging -- --mode process     # or --mode thread
//! ```
//!
//! Look at who sends what to whom. Any serde type goes both ways: between processes it is encoded, between threads it
//! is moved. The connection is passed as a descriptor or moved; workers 1 and 2 talk past the primary. It ends by itself.

use std::{io::Read as _, os::unix::net::UnixStream};

use bimodal::{Cluster, Connection, Event, Handle, Mode, Port, Result, Worker, WorkerHandle};
use clap::{Parser, value_parser};
use serde::{Deserialize, Serialize};

/// Shows messages between the primary and its workers.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// How many workers share the work
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u64).range(2..=64))]
    workers: u64,
}

/// What the primary asks.
#[derive(Serialize, Deserialize)]
enum Request {
    SumOfSquares {
        from: u64,
        to: u64,
    },
    /// Whoever is at the other end of the connection that comes with this.
    Greet,
    /// Whoever has the other end of the port that comes with this.
    Meet,
    HealthCheck,
}

/// What a worker answers.
#[derive(Serialize, Deserialize, Debug)]
enum Answer {
    Sum(u64),
    Met { worker: u64 },
    Healthy { asked: u64 },
}

const UP_TO: u64 = 1_000_000;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let cluster = Cluster::builder(mode).launch(work)?;
    let workers = (0..args.workers).map(|_| cluster.fork()).collect::<Result<Vec<_>>>()?;
    share_work(&workers)?;
    println!("over the connection came {:?}", connect(&workers[0])?);
    introduce(&cluster, &workers[0], &workers[1])?;
    for worker in &workers {
        let _ = worker.send(Request::HealthCheck)?;
    }
    println!("the sum of all squares below {UP_TO} is {}", collect(&cluster)?);
    Ok(())
}

/// Sent before the workers run: it is there when they receive.
fn share_work(workers: &[WorkerHandle]) -> Result<()> {
    let part = |index: usize| index as u64 * UP_TO / workers.len() as u64;
    for (index, worker) in workers.iter().enumerate() {
        let _ = worker.send(Request::SumOfSquares { from: part(index), to: part(index + 1) })?;
    }
    Ok(())
}

/// Gives one end of a connection away and reads what comes from the other.
fn connect(worker: &WorkerHandle) -> Result<String> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let _ = worker.send_with(Request::Greet, theirs)?;
    let mut greeting = String::new();
    ours.read_to_string(&mut greeting)?;
    Ok(greeting)
}

/// Two workers that have the two ends of a channel need the primary no more.
fn introduce(cluster: &Cluster, one: &WorkerHandle, other: &WorkerHandle) -> Result<()> {
    let (left, right) = cluster.channel()?;
    let _ = one.send_with(Request::Meet, left)?;
    let _ = other.send_with(Request::Meet, right)?;
    Ok(())
}

/// Takes all answers; who is healthy may go.
fn collect(cluster: &Cluster) -> Result<u64> {
    let mut total = 0;
    for event in cluster.events() {
        let Event::Message { worker, message } = event else { continue };
        match message.get()? {
            Answer::Sum(sum) => total += sum,
            Answer::Met { worker: other } => println!("{worker} met worker {other}"),
            Answer::Healthy { asked } => {
                println!("{worker} is healthy and was asked {asked} times");
                worker.disconnect()?;
            }
        }
    }
    Ok(total)
}

/// What a worker does: one request after the other, in the order they were sent, until it is to leave.
async fn work(worker: Worker) -> Result<()> {
    let mut asked = 0;
    while let Some(mut message) = worker.recv().await {
        asked += 1;
        let handle = message.take_handle()?;
        let answer = match (message.get()?, handle) {
            (Request::SumOfSquares { from, to }, _) => Answer::Sum((from..to).map(|n| n * n).sum()),
            (Request::Greet, Some(Handle::UnixStream(stream))) => {
                let greeting = format!("hello from worker {}", worker.id());
                Connection::from_stream(stream)?.write_all(greeting.as_bytes()).await?;
                continue;
            }
            (Request::Meet, Some(Handle::Port(port))) => meet(&worker, &port).await?,
            (Request::HealthCheck, _) => Answer::Healthy { asked },
            (Request::Greet | Request::Meet, _) => continue, // nobody to greet
        };
        let _ = worker.send(answer)?;
    }
    Ok(())
}

/// Exchanges names with another worker.
async fn meet(worker: &Worker, port: &Port) -> Result<Answer> {
    let _ = port.send(worker.id().get())?;
    let other = port.recv().await.map_or(Ok(0), |message| message.get())?;
    Ok(Answer::Met { worker: other })
}
