//! The server that tests, measurements and lessons share: the same routes in both modes, and a way to break every
//! one of its workers.
//!
//! ```text
//! cargo run --release --example lab -- --mode thread --workers 2 --events text
//! curl http://127.0.0.1:3000/                  # who answers
//! curl http://127.0.0.1:3000/fault/segfault    # who survives that depends on the mode
//! ```
//!
//! It prints one line when every worker listens on every address, and the report at the end. Warnings go to stderr
//! (`RUST_LOG` chooses what else). `--help` tells the rest.

mod data;
mod events;
mod faults;
mod policy;
mod routes;
mod stored;

use std::{ffi::OsString, process::ExitCode, rc::Rc};

use bimodal::{
    Address, Cluster, ListenOptions, Mode, Result, Scheduling, Worker, Workers, event_loop, http,
    pool::Pool,
};
use clap::{ArgAction, Parser};
use env_logger::Env;

use data::Data;
use events::{Announcer, Form};
use policy::Policy;
use routes::Lab;

const ROUTES: &str = "\
Routes:
  GET  /               who answers, as JSON
  GET  /plaintext      Hello, World!
  POST /echo           the body, streamed back
  GET  /sleep?ms=N     answers after N ms; the loop goes on
  GET  /burn?ms=N      answers after N ms of computing; the loop stands still
  GET  /burn?ms=N&pool=1
                       the same in the pool; the loop goes on
  GET  /stats          the counters of all workers, as JSON
  GET  /ready          200 while the worker wants connections, 503 once a stop is announced
  GET  /count          counts one on in the store that all share
  GET  /session        how often this session came, kept in that store
  GET  /fault/KIND     panic, abort, segfault, stack-overflow, spin, exit,
                       leak-fd?n=N or leak-memory?mib=N";

/// A server on every core, to measure, to test and to break.
#[derive(Parser)]
#[command(name = "lab", after_help = ROUTES)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// How many workers; auto is one per core
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    workers: Workers,
    /// Where to listen, also unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
    listen: Vec<Address>,
    /// Who gets a connection: round-robin (default of processes), least-connections, shared
    /// (default of threads) or reuse-port
    #[arg(long, value_name = "POLICY")]
    scheduling: Option<Scheduling>,
    /// Whether each worker is pinned to a core [default: threads are, processes are not]
    #[arg(long, value_name = "true|false")]
    pin: Option<bool>,
    /// Whether a connection stays in the kernel until its first bytes come, at most a second: HTTP clients speak first
    #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set)]
    defer_accept: bool,
    /// Keeps what /count and /session know in this directory [default of threads: in memory]
    #[cfg(feature = "store-lmdb")]
    #[arg(long, value_name = "DIRECTORY")]
    store: Option<std::path::PathBuf>,
    /// Prints one line per event on stdout
    #[arg(long, value_enum, default_value_t = Form::Off)]
    events: Form,
    /// How many threads a pool has at most: there is one pool for all threads, one for each process
    #[arg(long, value_name = "N")]
    pool_threads: Option<usize>,
    /// Lets `top`, and other programs of this user, watch the cluster on this Unix socket
    #[arg(long, value_name = "PATH")]
    status_socket: Option<std::path::PathBuf>,
    #[command(flatten)]
    policy: Policy,
    #[command(flatten)]
    data: Data,
}

fn main() -> ExitCode {
    start(std::env::args_os())
}

/// The program with these arguments, the first of which is its name.
pub(crate) fn start(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    env_logger::Builder::from_env(Env::default().default_filter_or("warn")).init();
    match run(Args::parse_from(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// In a worker process this does not return: the process becomes the worker.
fn run(args: Args) -> Result<()> {
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let mut announcer = Announcer::new(args.events, args.listen.len());
    let mut builder = Cluster::builder(mode)
        .name("lab")
        .workers(args.workers)
        .on_event(move |event| announcer.announce(event));
    builder = args.data.declare(args.policy.apply(builder));
    if let Some(scheduling) = args.scheduling {
        builder = builder.scheduling(scheduling);
    }
    if let Some(pin) = args.pin {
        builder = builder.pin(pin);
    }
    if let Some(threads) = args.pool_threads {
        builder = builder.pool(Pool::builder().threads(1..=threads));
    }
    if let Some(path) = args.status_socket {
        builder = builder.status_socket(path);
    }
    #[cfg(feature = "store-lmdb")]
    if let Some(directory) = args.store {
        builder = builder.store(bimodal::store::Storage::Lmdb(directory.into()));
    }
    let report = builder.run({
        let addresses = args.listen;
        let options = ListenOptions::new().defer_accept(args.defer_accept);
        let data = args.data;
        move |worker| serve(worker, mode, addresses.clone(), options.clone(), data)
    })?;
    events::print_report(args.events, &report);
    Ok(())
}

/// A worker's body: one server per address, all on this worker's loop.
async fn serve(
    worker: Worker,
    mode: Mode,
    addresses: Vec<Address>,
    options: ListenOptions,
    data: Data,
) -> Result<()> {
    let _own = data.take(&worker)?;
    let lab = Rc::new(Lab::new(worker.clone(), mode));
    let mut servers = Vec::new();
    for address in addresses {
        let lab = Rc::clone(&lab);
        let service = http::service_fn(move |request| routes::answer(Rc::clone(&lab), request));
        let listener = worker.listen_with(address, options.clone()).await?;
        servers.push(event_loop::spawn(http::serve(listener, service)));
    }
    for server in servers {
        // It is cancelled only together with this worker.
        if let Ok(outcome) = server.await {
            outcome?;
        }
    }
    Ok(())
}
