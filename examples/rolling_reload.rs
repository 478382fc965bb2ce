//! A new configuration without an interruption: every worker is replaced, one after the other, while clients ask.
//!
//! ```text
//! cargo run --release --example rolling_reload -- --mode process             # or --mode thread
//! cargo run --release --example rolling_reload -- --mode process --by-hand   # Node's way: fork, wait, disconnect
//! ```
//!
//! Look at the three greetings. With the second all workers are replaced: each new one listens before an old one leaves. The
//! third does not work: the first new worker fails, the reload is broken off, and the old ones go on; the client
//! counts no failure. SIGHUP does the same as `reload`. In Process mode new workers run the program file as
//! it is on disk then, so this is how a new version goes live; a thread is the same program. It ends by itself.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bimodal::{
    Cluster, Decision, Event, Mode, Result, Setup, Worker, WorkerHandle, event_loop, http,
};
use clap::Parser;

/// Shows how workers are replaced by new ones.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Replace the workers as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
    /// The configuration: what workers answer
    #[arg(long, value_name = "TEXT", default_value = "hello")]
    greeting: String,
}

const WORKERS: usize = 3;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(WORKERS);
    if args.by_hand {
        return by_hand(&builder.launch(serve)?);
    }
    built_in(builder.supervise(serve)?)
}

/// The cluster replaces its workers.
fn built_in(cluster: Cluster) -> Result<()> {
    let (mut client, mut listening) = (None, 0);
    for event in cluster.events() {
        tell(&event);
        match event {
            Event::Listening { address, .. } => {
                listening += 1;
                if listening == WORKERS {
                    client = address.tcp().map(Client::start);
                    configure(&cluster, "bonjour")?;
                    cluster.reload()?;
                }
            }
            Event::Decision { decision: Decision::Reloaded } => {
                configure(&cluster, "")?;
                cluster.reload()?;
            }
            Event::Decision { decision: Decision::ReloadFailed { .. } } => {
                client.take().into_iter().for_each(Client::stop);
                cluster.stop()?;
            }
            _ => {}
        }
    }
    println!("{}", cluster.wait()?);
    Ok(())
}

/// The program replaces them.
fn by_hand(cluster: &Cluster) -> Result<()> {
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    let listening = cluster.events().inspect(tell).filter_map(|event| match event {
        Event::Listening { address, .. } => address.tcp(),
        _ => None,
    });
    let client = listening.take(WORKERS).last().map(Client::start);
    for greeting in ["bonjour", ""] {
        configure(cluster, greeting)?;
        replace_all(cluster)?;
    }
    client.into_iter().for_each(Client::stop);
    cluster.disconnect()?;
    cluster.events().for_each(|event| tell(&event));
    Ok(())
}

/// One after the other, as long as the new ones listen.
fn replace_all(cluster: &Cluster) -> Result<()> {
    for old in cluster.workers() {
        let new = cluster.fork()?;
        if !gets_ready(cluster, &new) {
            println!("{new} does not listen: the others stay");
            return Ok(());
        }
        old.disconnect()?;
    }
    Ok(())
}

/// Waits until a new worker listens, or has failed.
fn gets_ready(cluster: &Cluster, new: &WorkerHandle) -> bool {
    let of_new = |event: &Event| event.worker().is_some_and(|worker| worker.id() == new.id());
    let decisive = |event: &Event| matches!(event, Event::Listening { .. } | Event::Exit { .. });
    let first = cluster.events().inspect(tell).find(|event| of_new(event) && decisive(event));
    matches!(first, Some(Event::Listening { .. }))
}

/// What workers to come are started with.
fn configure(cluster: &Cluster, greeting: &str) -> Result<()> {
    println!("a new configuration: {greeting:?}");
    let mode = cluster.settings().mode.to_string();
    cluster.setup_primary(Setup::new().args(["--mode", &mode, "--greeting", greeting]))
}

/// What a worker does: it reads its configuration, and serves if that is any good.
async fn serve(worker: Worker) -> Result<(), Box<dyn std::error::Error>> {
    let program = std::iter::once("worker".into());
    let greeting = Args::try_parse_from(program.chain(worker.args().iter().cloned()))?.greeting;
    event_loop::sleep(Duration::from_millis(200)).await; // connects to its database, say
    if greeting.is_empty() {
        return Err("the greeting is empty".into());
    }
    let listener = worker.listen("127.0.0.1:0").await?;
    let answer = move |_| std::future::ready(http::text(format!("{greeting}, world\n")));
    Ok(http::serve(listener, http::service_fn(answer)).await?)
}

/// A client that asks and asks, each time on a new connection, and counts.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, u64>>,
}

impl Client {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut answers = BTreeMap::new();
            while !stopped.load(Relaxed) {
                let answer = ask(address).unwrap_or_else(|error| format!("failed: {error}"));
                *answers.entry(answer).or_default() += 1;
                thread::sleep(Duration::from_millis(2));
            }
            answers
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        let answers = self.thread.join().unwrap_or_default();
        answers.iter().for_each(|(answer, count)| println!("{count} requests: {answer}"));
    }
}

/// One request: an error unless it is answered in full.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let complete = answer.starts_with("HTTP/1.1 200") && answer.ends_with(", world\n");
    let greeting = answer.lines().last().filter(|_| complete);
    greeting.map(str::to_owned).ok_or(std::io::ErrorKind::UnexpectedEof.into())
}

fn tell(event: &Event) {
    match event {
        Event::Listening { worker, .. } => println!("{worker} listens"),
        Event::Exit { worker, status } => println!("{worker} ended with {status}"),
        Event::Decision { decision } => println!("decision: {decision}"),
        _ => {}
    }
}
