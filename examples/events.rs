//! A cluster by hand, event by event: the program forks, watches, replaces a worker that crashes, and disconnects all.
//!
//! ```text
//! cargo run --release --example events -- --mode process     # or --mode thread
//! ```
//!
//! Look at the order of each worker's events, each told to the worker's own observer first; and at the two ways to go:
//! worker 1 crashes and is replaced, the others were asked to leave and are not. The panic's own words are on stderr. It ends by itself.

use bimodal::{Cluster, Event, Mode, Result, Worker, WorkerHandle, http};
use clap::Parser;

/// Shows the events of a cluster.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
}

const WORKERS: usize = 2;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let cluster = Cluster::builder(mode).launch(serve)?;
    for _ in 0..WORKERS {
        let worker = cluster.fork()?;
        worker.on_event(|event| println!("    its own observer: {}", event.name()));
    }
    let mut listening = 0;
    for event in cluster.events() {
        tell(&event);
        match event {
            Event::Listening { .. } => {
                listening += 1;
                if listening == WORKERS {
                    crash_the_first(&cluster.workers())?;
                } else if listening > WORKERS {
                    cluster.disconnect()?;
                }
            }
            Event::Exit { worker, .. } if worker.exited_after_disconnect() == Some(false) => {
                cluster.fork()?; // nobody asked it to go: replace it
            }
            _ => {}
        }
    }
    println!("nobody is left");
    Ok(())
}

/// What a worker does: it serves, unless it is told to crash.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let id = worker.id();
    bimodal::event_loop::spawn(crash_on_demand(worker)).detach();
    let hello = move |_| std::future::ready(http::text(format!("hello from worker {id}\n")));
    http::serve(listener, http::service_fn(hello)).await
}

async fn crash_on_demand(worker: Worker) {
    if worker.recv().await.is_some() {
        panic!("a bug, on demand");
    }
}

fn crash_the_first(workers: &[WorkerHandle]) -> Result<()> {
    let Some(first) = workers.first() else { return Ok(()) };
    let _ = first.send("crash")?;
    Ok(())
}

fn tell(event: &Event) {
    match event {
        Event::Setup { settings } => {
            println!("setup: {} mode, {}", settings.mode, settings.scheduling)
        }
        Event::Fork { worker } => println!("fork: {worker}"),
        Event::Online { worker } => println!("online: {worker}, in process {:?}", worker.pid()),
        Event::Listening { worker, address } => println!("listening: {worker} on {address}"),
        Event::Message { worker, message } => println!("message: {worker} sent {message:?}"),
        Event::Disconnect { worker } => println!("disconnect: {worker}"),
        Event::Exit { worker, status } => {
            let asked =
                if worker.exited_after_disconnect() == Some(true) { "as asked" } else { "unasked" };
            println!("exit: {worker} with {status}, {asked}");
        }
        Event::Error { worker: Some(worker), error } => println!("error: {worker} {error}"),
        Event::Error { error, .. } => println!("error: {error}"),
        other => println!("{}", other.name()),
    }
}
