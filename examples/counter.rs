//! One counter, kept in four ways, and what each of them counts.
//!
//! ```text
//! cargo run --release --example counter -- --mode process       # or --mode thread
//! ```
//!
//! Look at the last lines. Every worker counts the same number of times, one of them crashes on its way and is
//! replaced. A plain variable is each worker's own and goes with it, in both modes. A message to the primary counts
//! in one place. A `SharedBuffer` is one memory for all, and the Store is one place for all that also outlives the
//! program. It ends by itself.

use std::{cell::Cell, collections::BTreeMap, path::PathBuf, rc::Rc};

use bimodal::{
    Cluster, Event, Mode, Result, Worker,
    store::{Lmdb, Storage},
};
use clap::{Parser, value_parser};
use serde::{Deserialize, Serialize};

/// Counts in a variable, by messages, in a SharedBuffer and in the Store.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// How many workers count
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u64).range(2..=16))]
    workers: u64,
    /// Where the Store is
    #[arg(long, value_name = "DIRECTORY", default_value = "target/counter")]
    directory: PathBuf,
}

/// What a worker sends.
#[derive(Serialize, Deserialize)]
enum Note {
    One,
    Done { variable: u64 },
}

const TIMES: u64 = 1000;

/// After so many of its counts the first worker crashes.
const CRASH: u64 = 400;

const KEY: &[u8] = b"counter";

/// The words of the region.
const COUNTER: usize = 0;
const CRASHED: usize = 1;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode)
        .workers(usize::try_from(args.workers).unwrap_or(2))
        .region("counters", 16)
        .store(Storage::Lmdb(Lmdb::new(&args.directory)));
    let cluster = builder.supervise(count)?;
    let store = cluster.store()?;
    let (messages, variables) = collect(&cluster, args.workers)?;
    let counted = args.workers * TIMES + CRASH;
    println!(
        "{} workers counted {counted} times in all, one of them crashed and began anew",
        args.workers
    );
    for (worker, variable) in variables {
        println!("a variable of {worker}: {variable}");
    }
    println!("messages to the primary: {messages}");
    println!("the SharedBuffer: {}", cluster.region("counters")?.load(COUNTER)?);
    println!("the Store: {}, with what earlier runs counted", store.add(KEY, 0).wait()?);
    cluster.shutdown()?;
    Ok(())
}

/// The primary's own count, and what each worker's variable was at last.
fn collect(cluster: &Cluster, workers: u64) -> Result<(u64, BTreeMap<String, u64>)> {
    let (mut messages, mut variables) = (0, BTreeMap::new());
    for event in cluster.events() {
        if let Event::Message { worker, message } = event {
            match message.get()? {
                Note::One => messages += 1,
                Note::Done { variable } => {
                    variables.insert(worker.to_string(), variable);
                }
            }
        }
        if variables.len() as u64 == workers {
            break;
        }
    }
    Ok((messages, variables))
}

async fn count(worker: Worker) -> Result<()> {
    worker.ready();
    let (counters, store) = (worker.region("counters")?, worker.store()?);
    let variable = Rc::new(Cell::new(0));
    for _ in 0..TIMES {
        variable.set(variable.get() + 1);
        worker.send_tracked(Note::One)?.await?;
        counters.add(COUNTER, 1)?;
        store.add(KEY, 1).await?;
        let first = variable.get() == CRASH && counters.swap(CRASHED, 1)? == 0;
        assert!(!first, "a bug, on demand");
    }
    let _ = worker.send(Note::Done { variable: variable.get() })?;
    // Until the cluster is shut down: what it sent is on its way then.
    while worker.recv().await.is_some() {}
    Ok(())
}
