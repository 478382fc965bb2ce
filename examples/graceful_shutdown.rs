//! A stop that loses nothing: what happens to requests under way when SIGTERM comes, step by step.
//!
//! ```text
//! cargo run --release --example graceful_shutdown -- --mode process             # or --mode thread
//! cargo run --release --example graceful_shutdown -- --mode process --by-hand   # Node's way: disconnect, then a timer
//! ```
//!
//! Look at the times. SIGTERM first announces the stop: `/ready` says 503, so that a load balancer looks away, while
//! everything is still served. Then nothing new is accepted: who works finishes, who waits is told and says goodbye. What is
//! not done after its time is told to close; whatever ignores that is killed. By hand it is what Node's
//! documents write: `disconnect` all workers, and a timer for those that do not leave. It sends itself the signal and ends.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bimodal::{Cluster, Event, Mode, Result, Shutdown, Worker, event_loop, http};
use clap::Parser;
use signal_hook::{consts::SIGTERM, flag, low_level::raise};

/// Shows the phases of a stop.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Stop the workers as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
}

const WORKERS: usize = 2;
const DRAIN: Duration = Duration::from_millis(1500);

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(WORKERS);
    if args.by_hand {
        return by_hand(&builder.launch(serve)?);
    }
    let delay = Duration::from_millis(400);
    built_in(
        builder
            .shutdown(Shutdown { delay, drain: DRAIN, ..Default::default() })
            .supervise(serve)?,
    )
}

/// The cluster watches for SIGTERM and SIGINT, as it does under `run`.
fn built_in(cluster: Cluster) -> Result<()> {
    let clients = meet_clients(&cluster);
    cluster.events().for_each(|event| tell(&event));
    println!("{}", cluster.wait()?);
    clients.map(JoinHandle::join);
    Ok(())
}

/// The program watches, and stops the workers itself.
fn by_hand(cluster: &Cluster) -> Result<()> {
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    let terminated = Arc::new(AtomicBool::new(false));
    flag::register(SIGTERM, terminated.clone())?;
    let clients = meet_clients(cluster);
    while !terminated.load(SeqCst) {
        if let Some(event) = cluster.next_event_timeout(Duration::from_millis(20)) {
            tell(&event);
        }
    }
    println!("SIGTERM: the workers are asked to leave");
    cluster.disconnect()?;
    if !cluster.wait_gone(DRAIN) {
        println!("time is over: who is left is killed");
        cluster.workers().iter().for_each(|worker| drop(worker.kill()));
    }
    cluster.events().for_each(|event| tell(&event));
    clients.map(JoinHandle::join);
    Ok(())
}

/// What a worker does.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let answer = http::service_fn(move |request: http::Request<http::Incoming>| {
        let worker = worker.clone();
        async move {
            match request.uri().path() {
                "/ready" if !worker.is_ready() => {
                    return http::status(http::StatusCode::SERVICE_UNAVAILABLE, "look elsewhere\n");
                }
                "/slow" => event_loop::sleep(Duration::from_secs(1)).await,
                "/wait" => worker.draining().await, // a long poll: it is told to end
                "/stuck" => std::future::pending().await,
                _ => {}
            }
            http::text("done\n")
        }
    });
    http::serve(listener, answer).await
}

/// Waits until all workers listen, then lets clients come, and the signal while they wait.
fn meet_clients(cluster: &Cluster) -> Option<JoinHandle<()>> {
    let listening = cluster.events().filter_map(|event| match event {
        Event::Listening { address, .. } => address.tcp(),
        _ => None,
    });
    let address = listening.take(WORKERS).last()?;
    Some(thread::spawn(move || {
        let began = Instant::now();
        let clients = ["/slow", "/wait", "/stuck"]
            .map(|path| thread::spawn(move || ask(began, address, path)));
        thread::sleep(Duration::from_millis(200));
        ask(began, address, "/ready");
        println!("{:>5} ms  SIGTERM", began.elapsed().as_millis());
        let _ = raise(SIGTERM);
        thread::sleep(Duration::from_millis(200));
        ask(began, address, "/ready");
        thread::sleep(Duration::from_millis(400));
        ask(began, address, "/late");
        clients.into_iter().for_each(|client| drop(client.join()));
    }))
}

/// One request on a connection of its own: when its answer came, and what it was.
fn ask(began: Instant, address: SocketAddr, path: &str) {
    let mut answer = String::new();
    let result = TcpStream::connect(address).and_then(|mut stream| {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    let status = match result {
        Ok(_) => answer.lines().next().unwrap_or("closed without an answer").into(),
        Err(error) => error.to_string(),
    };
    println!("{:>5} ms  GET {path}: {status}", began.elapsed().as_millis());
}

fn tell(event: &Event) {
    match event {
        Event::Exit { worker, status } => println!("          {worker} ended with {status}"),
        Event::Decision { decision } => println!("          decision: {decision}"),
        _ => {}
    }
}
