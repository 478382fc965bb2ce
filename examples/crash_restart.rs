//! A worker that crashes is replaced: at once the first time, later and later when it goes on like that.
//!
//! ```text
//! cargo run --release --example crash_restart -- --mode process                # or --mode thread
//! cargo run --release --example crash_restart -- --mode process --by-hand      # Node's way: decide yourself
//! cargo run --release --example crash_restart -- --mode process --broken; echo "status $?"
//! ```
//!
//! Look at the times: the worker in slot 0 panics whenever it listens, four times in a row, and the one in slot 1
//! serves on. By hand it is what Node's documents write, `cluster.on('exit', () => cluster.fork())`, and nothing
//! slows a crash loop down. With `--broken` no worker ever gets ready: the program ends with the workers' own error
//! and a status that an outer supervisor understands. The panics' own words are on stderr. It ends by itself.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bimodal::{Cluster, Event, Mode, Restart, Result, Worker, WorkerHandle, http};
use clap::Parser;

/// Shows how workers that crash are replaced.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Decide from the events, as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
    /// Let every worker fail before it is ready
    #[arg(long)]
    broken: bool,
}

const WORKERS: usize = 2;
const CRASHES: u32 = 4;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            error.exit_code().into() // 69 for workers that never get ready, 78 for a wrong setting ...
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(WORKERS);
    let broken = args.broken;
    let body = move |worker| serve(worker, broken);
    if args.by_hand {
        return by_hand(&builder.launch(body)?);
    }
    // The defaults, but for the delays, which are shorter here than a crash loop deserves.
    let restart = Restart {
        first_delay: Duration::from_millis(50),
        longest_delay: Duration::from_millis(150),
        jitter: 0.0,
        ..Restart::default()
    };
    built_in(builder.restart(restart).supervise(body)?)
}

/// The cluster decides, and tells what.
fn built_in(cluster: Cluster) -> Result<()> {
    let (began, mut crashes) = (Instant::now(), 0);
    for event in cluster.events() {
        tell(began, &event);
        if let Event::Listening { worker, .. } = &event
            && !crash(worker, &mut crashes)?
        {
            cluster.stop()?;
        }
    }
    println!("{}", cluster.wait()?);
    Ok(())
}

/// The program decides: whoever ends without having been asked to is replaced.
fn by_hand(cluster: &Cluster) -> Result<()> {
    let (began, mut crashes) = (Instant::now(), 0);
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    for event in cluster.events() {
        tell(began, &event);
        match event {
            Event::Listening { worker, .. } if !crash(&worker, &mut crashes)? => {
                cluster.disconnect()?;
            }
            Event::Exit { worker, .. } if worker.exited_after_disconnect() == Some(false) => {
                cluster.fork()?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the worker in slot 0 crash; false when it has done so often enough.
fn crash(worker: &WorkerHandle, crashes: &mut u32) -> Result<bool> {
    if worker.slot().get() != 0 {
        return Ok(true);
    }
    *crashes += 1;
    if *crashes <= CRASHES {
        let _ = worker.send("crash")?;
    }
    Ok(*crashes <= CRASHES)
}

/// What a worker does: it serves until it is told to crash.
async fn serve(worker: Worker, broken: bool) -> Result<(), Box<dyn std::error::Error>> {
    if broken {
        return Err("no database today".into()); // exit code 1; 78 would mean: do not try again
    }
    let listener = worker.listen("127.0.0.1:0").await?;
    let id = worker.id();
    bimodal::event_loop::spawn(async move {
        if worker.recv().await.is_some() {
            panic!("a bug, on demand");
        }
    })
    .detach();
    let hello = move |_| std::future::ready(http::text(format!("hello from worker {id}\n")));
    Ok(http::serve(listener, http::service_fn(hello)).await?)
}

fn tell(began: Instant, event: &Event) {
    let text = match event {
        Event::Listening { worker, .. } => format!("{worker} listens, slot {}", worker.slot()),
        Event::Exit { worker, status } => format!("{worker} ended with {status}"),
        Event::Decision { decision } => format!("decision: {decision}"),
        _ => return,
    };
    println!("{:>5} ms  {text}", began.elapsed().as_millis());
}
