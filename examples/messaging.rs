//! Messages of the program's own types, there and back: work, answers, health checks.
//!
//! ```text
//! cargo run --release --example messaging -- --mode process     # or --mode thread
//! ```
//!
//! Look at the answers: any serde type goes both ways. Between processes it is encoded, between threads it is moved.
//! It ends by itself.

use bimodal::{Cluster, Event, Message, Mode, Result, Worker, WorkerHandle};
use clap::Parser;
use serde::{Deserialize, Serialize};

/// Shows messages between the primary and its workers.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// How many workers share the work
    #[arg(long, value_name = "N", default_value_t = 4)]
    workers: u64,
}

/// What the primary asks.
#[derive(Serialize, Deserialize)]
enum Request {
    HealthCheck,
    SumOfSquares { from: u64, to: u64 },
}

/// What a worker answers.
#[derive(Serialize, Deserialize, Debug)]
enum Answer {
    Healthy { pid: u32, asked: u64 },
    Sum(u64),
}

const UP_TO: u64 = 1_000_000;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let cluster = Cluster::builder(mode).launch(work)?;
    for part in 0..args.workers {
        // Sent before the worker runs; it is there when the worker receives.
        ask(&cluster.fork()?, part * UP_TO / args.workers, (part + 1) * UP_TO / args.workers)?;
    }
    let mut total = 0;
    for event in cluster.events() {
        let Event::Message { worker, message } = event else { continue };
        match message.get()? {
            Answer::Sum(sum) => total += sum,
            answer @ Answer::Healthy { .. } => {
                println!("{worker}: {answer:?}");
                worker.disconnect()?;
            }
        }
    }
    println!("the sum of all squares below {UP_TO} is {total}");
    Ok(())
}

/// Messages keep their order: the sum comes first.
fn ask(worker: &WorkerHandle, from: u64, to: u64) -> Result<()> {
    let _ = worker.send(Request::SumOfSquares { from, to })?;
    let _ = worker.send(Request::HealthCheck)?;
    Ok(())
}

/// What a worker does: it answers until it is asked to leave.
async fn work(worker: Worker) -> Result<()> {
    let mut asked = 0;
    while let Some(message) = worker.recv().await {
        asked += 1;
        let _ = worker.send(answer(message, asked)?)?;
    }
    Ok(())
}

fn answer(message: Message, asked: u64) -> Result<Answer> {
    Ok(match message.get()? {
        Request::HealthCheck => Answer::Healthy { pid: std::process::id(), asked },
        Request::SumOfSquares { from, to } => Answer::Sum((from..to).map(|n| n * n).sum()),
    })
}
