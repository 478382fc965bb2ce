//! A worker that hangs is noticed and replaced, and the others serve on meanwhile.
//!
//! ```text
//! cargo run --release --example health_monitoring -- --mode process             # or --mode thread
//! cargo run --release --example health_monitoring -- --mode process --by-hand   # Node's way: heartbeats as messages
//! ```
//!
//! Look at how the worker ends that a request has sent into an endless loop. It does not answer a request to leave; a
//! process is ended by SIGABRT, so that it can leave a core dump that shows where it was. A thread cannot be ended:
//! it is left behind, counted as abandoned, and its replacement serves. By hand it is what Node's documents write: ask every worker
//! now and then, kill who has not answered. The cluster asks nobody: it reads each loop's beats. It ends by itself.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bimodal::{Cluster, Decision, Event, Health, Mode, Result, Worker, WorkerId, http};
use clap::Parser;

/// Shows how a worker that hangs is replaced.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Exchange heartbeats, as a Node program does, instead of leaving it to the cluster
    #[arg(long)]
    by_hand: bool,
}

const WORKERS: usize = 2;
/// How long a worker may be silent. The default is 30 s; whoever watches an example has less patience.
const DEADLINE: Duration = Duration::from_secs(1);
/// How often the program asks.
const INTERVAL: Duration = Duration::from_millis(250);

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(WORKERS);
    if args.by_hand {
        return by_hand(&builder.launch(serve)?);
    }
    let patience = Duration::from_millis(200);
    built_in(builder.health(Health { deadline: DEADLINE, patience }).supervise(serve)?)
}

/// The cluster watches.
fn built_in(cluster: Cluster) -> Result<()> {
    let (mut listening, mut hung, mut clients) = (0, None, None);
    for event in cluster.events() {
        tell(&event);
        match event {
            Event::Listening { address, .. } => {
                listening += 1;
                if listening == WORKERS {
                    clients = hang_one(address.tcp());
                }
            }
            Event::Decision { decision: Decision::Hung { worker, .. } } => hung = Some(worker),
            Event::Exit { worker, .. } if Some(worker.id()) == hung => cluster.stop()?,
            _ => {}
        }
    }
    println!("{}", cluster.wait()?);
    clients.map(JoinHandle::join);
    Ok(())
}

/// The program watches: it asks every worker, and kills who has not answered for too long.
fn by_hand(cluster: &Cluster) -> Result<()> {
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    let mut answered = BTreeMap::new();
    let (mut listening, mut clients) = (0, None);
    let mut check_at = Instant::now() + INTERVAL;
    loop {
        let event = cluster.next_event_timeout(check_at.saturating_duration_since(Instant::now()));
        event.iter().for_each(tell);
        match event {
            Some(Event::Listening { worker, address }) => {
                answered.insert(worker.id(), Instant::now());
                listening += 1;
                if listening == WORKERS {
                    clients = hang_one(address.tcp());
                } else if listening > WORKERS {
                    cluster.disconnect()?;
                }
            }
            Some(Event::Message { worker, .. }) => {
                answered.insert(worker.id(), Instant::now());
            }
            Some(Event::Exit { worker, .. }) => {
                answered.remove(&worker.id());
                if worker.exited_after_disconnect() == Some(false) {
                    cluster.fork()?;
                }
            }
            Some(_) => {}
            None if cluster.workers().is_empty() => break,
            None => {
                check(cluster, &mut answered);
                check_at += INTERVAL;
            }
        }
    }
    clients.map(JoinHandle::join);
    Ok(())
}

/// Asks who is well, and ends who has been silent. What cannot be told to a worker that is gone does not matter.
fn check(cluster: &Cluster, answered: &mut BTreeMap<WorkerId, Instant>) {
    for worker in cluster.workers() {
        match answered.get(&worker.id()) {
            Some(last) if last.elapsed() >= DEADLINE => {
                println!("{worker} has not answered for {DEADLINE:?}: it is killed");
                answered.remove(&worker.id());
                let _ = worker.kill();
            }
            Some(_) => drop(worker.send("health-check")),
            None => {} // it does not listen yet, or was killed
        }
    }
}

/// What a worker does: it serves, and answers when it is asked how it is.
async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let id = worker.id();
    bimodal::event_loop::spawn(async move {
        while worker.recv().await.is_some() && worker.send("heartbeat").is_ok() {}
    })
    .detach();
    let answer = http::service_fn(move |request: http::Request<http::Incoming>| async move {
        while request.uri().path() == "/hang" {
            std::hint::spin_loop();
        }
        http::text(format!("worker {id} is well\n"))
    });
    http::serve(listener, answer).await
}

/// Sends one worker into an endless loop, and asks the cluster meanwhile.
fn hang_one(address: Option<SocketAddr>) -> Option<JoinHandle<()>> {
    let address = address?;
    Some(std::thread::spawn(move || {
        std::thread::spawn(move || ask(address, "/hang"));
        std::thread::sleep(Duration::from_millis(200)); // what comes too soon hangs, too
        (0..3).for_each(|_| ask(address, "/"));
    }))
}

/// One request on a connection of its own: what was answered, and after how long.
fn ask(address: SocketAddr, path: &str) {
    let (began, mut answer) = (Instant::now(), String::new());
    let result = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(3 * DEADLINE))?; // an abandoned thread never answers
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    let text = match result {
        Ok(_) => answer.lines().last().unwrap_or("nothing, the connection was closed").into(),
        Err(error) => error.to_string(),
    };
    println!("    GET {path}: {text}, after {} ms", began.elapsed().as_millis());
}

fn tell(event: &Event) {
    match event {
        Event::Listening { worker, .. } => println!("{worker} listens"),
        Event::Exit { worker, status } => println!("{worker} ended with {status}"),
        Event::Decision { decision } => println!("decision: {decision}"),
        _ => {}
    }
}
