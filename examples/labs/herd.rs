//! Thundering herd: who wakes up for a connection, and who gets it?
//!
//! ```text
//! cargo run --release --example labs -- herd --mode process       # or --mode thread
//! ```
//!
//! **Question.** Four threads sleep on one listening socket, each with an epoll of its own, as mio registers it. A
//! connection comes: how many of them wake up?
//! **Predict** that, and how evenly 200 connections spread, one after the other.
//! **Look at** the wake-ups (the voluntary context switches of each loop, see proc_pid_status(5)), and at who got how many
//! connections.
//! **Explanation.** The kernel tells everybody who waits (epoll(7)), unless they wait with `EPOLLEXCLUSIVE`
//! (epoll_ctl(2)); then it asks in the order of their registration, and always the same one first. A worker of the cluster
//! stands in line only while it waits, and each time at its end.
//! **Next.** `src/accept/README.md` has the whole argument.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bimodal::Mode;
use mio::{Events, Interest, Poll, Token, net::TcpListener};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    client::Client,
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "herd",
    about: "how many idle workers wake up for one connection, and who gets it?",
    setting: "Four threads, each with its own epoll, wait for the same listening socket, and 200 connections come one
        after the other, so that all sleep in between. Then the same with a server of 4 workers under the policy
        `shared`. Last, 208 connections come to it 16 at a time, each with a request that computes for 2 ms.",
    question: "The four plain threads sleep and a connection comes. How many of them wake up?",
    choices: &["one", "all, and all but one find nothing"],
    run,
};

const IDLE: u64 = 200;
const BUSY: u64 = 208;
const AT_ONCE: u64 = 16;
/// Long enough for all workers to fall asleep again.
const PAUSE: Duration = Duration::from_millis(4);

/// What one worker had counted at a moment, or between two.
#[derive(Clone, Copy, Serialize)]
struct Count {
    connections: u64,
    wake_ups: u64,
}

fn run(mode: Mode) -> Result<Outcome> {
    let plain = Plain::start()?.observe()?;
    let [idle, busy] = observe(mode)?;
    let header = [
        "worker",
        "plain: connections",
        "wake-ups",
        "cluster: connections",
        "wake-ups",
        "busy",
        "wake-ups",
    ];
    let mut table = Table::new(&header);
    for (at, counts) in plain.iter().zip(&idle).zip(&busy).enumerate() {
        let ((plain, idle), busy) = counts;
        let cells = [plain, idle, busy].map(|count| [count.connections, count.wake_ups]);
        let cells = cells.as_flattened().iter().map(u64::to_string);
        table.row([(at + 1).to_string()].into_iter().chain(cells));
    }
    let (of_plain, when_busy) = (wake_ups_per(&plain, IDLE), wake_ups_per(&busy, BUSY));
    // One of them was for the end of the connection.
    let when_idle = wake_ups_per(&idle, IDLE) - 1.0;
    let most = idle.iter().map(|count| count.connections).max().unwrap_or_default();
    Ok(Outcome {
        table,
        seen: usize::from(of_plain > 2.0),
        expected: 1,
        explanation: explain([of_plain, when_idle, when_busy], most),
        next: "the other mode: it is the same. Then src/accept/README.md: why nobody starves and nothing is forgotten.",
        figures: json!({ "plain": plain, "idle": idle, "busy": busy, "woken_by_one": [of_plain, when_idle] }),
    })
}

/// What each worker counted while all were idle, and while all were busy.
fn observe(mode: Mode) -> Result<[Vec<Count>; 2]> {
    let server = Server::start(mode, &["--workers", "4", "--scheduling", "shared"])?;
    let start = counts(&server)?;
    one_by_one(&server)?;
    let between = counts(&server)?;
    all_at_once(&server)?;
    let end = counts(&server)?;
    server.stop()?;
    Ok([difference(&start, &between), difference(&between, &end)])
}

fn wake_ups_per(counts: &[Count], connections: u64) -> f64 {
    counts.iter().map(|count| count.wake_ups).sum::<u64>() as f64 / connections as f64
}

/// What each worker has counted so far.
fn counts(server: &Server) -> Result<Vec<Count>> {
    let rows: Value = serde_json::from_slice(&Client::connect(server.address)?.get("/stats")?)?;
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap_or_default();
    let count = |row: &Value| {
        let connections = number(row, "connections_accepted");
        let thread = format!("bimodal-w-{}", number(row, "worker"));
        let wake_ups = wake_ups(number(row, "pid"), &thread)?;
        Ok(Count { connections, wake_ups })
    };
    rows.as_array().ok_or("no counters of workers")?.iter().map(count).collect()
}

/// How often a loop has slept: the thread of this name, else the process.
fn wake_ups(pid: u64, thread: &str) -> Result<u64> {
    let mut found = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let slept = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
        let slept = slept.ok_or("a task without a count of its sleeps")?;
        if field("Name:") == Some(thread) {
            return Ok(slept);
        }
        if field("Pid:") == Some(&pid.to_string()) {
            found = slept;
        }
    }
    Ok(found)
}

fn difference(earlier: &[Count], later: &[Count]) -> Vec<Count> {
    let of_one = |(earlier, later): (&Count, &Count)| Count {
        connections: later.connections.saturating_sub(earlier.connections),
        wake_ups: later.wake_ups.saturating_sub(earlier.wake_ups),
    };
    earlier.iter().zip(later).map(of_one).collect()
}

fn one_by_one(server: &Server) -> Result<()> {
    for _ in 0..IDLE {
        let stream = TcpStream::connect(server.address)?;
        thread::sleep(PAUSE);
        drop(stream);
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn all_at_once(server: &Server) -> Result<()> {
    let address = server.address;
    let client = move || -> std::io::Result<()> {
        for _ in 0..BUSY / AT_ONCE {
            Client::connect(address)?.get("/burn?ms=2")?;
        }
        Ok(())
    };
    let clients: Vec<_> = (0..AT_ONCE).map(|_| thread::spawn(client)).collect();
    for client in clients {
        client.join().map_err(|_| "a client panicked")??;
    }
    Ok(())
}

fn explain([of_plain, when_idle, when_busy]: [f64; 3], most: u64) -> String {
    format!(
        "Whoever waits for a socket is told that a connection has come, all of them: {of_plain:.1} wake-ups per
            connection, of which one is of use (the thundering herd). With the flag EPOLLEXCLUSIVE the kernel tells only
            one that sleeps (epoll_ctl(2)), but asks in the order in which they registered, and an idle server gives
            most to one: see \"Why does one NGINX worker take all the load?\" at blog.cloudflare.com. The workers of the
            cluster wait with this flag, leave the line when they take a connection, and come back to its end:
            {when_idle:.1} wake-ups per connection, and nobody got more than {most} of {IDLE}. Under load there were
            {when_busy:.1} wake-ups per connection, its request included: who has work takes the next connection
            without having slept."
    )
}

/// Four threads that wait for one socket as a plain program of mio does.
struct Plain {
    address: SocketAddr,
    done: Arc<AtomicBool>,
    threads: Vec<(Arc<AtomicU64>, JoinHandle<io::Result<()>>)>,
}

impl Plain {
    fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let (address, done) = (listener.local_addr()?, Arc::<AtomicBool>::default());
        let start = |at: usize| {
            let listener = TcpListener::from_std(listener.try_clone()?);
            let (count, done) = (Arc::<AtomicU64>::default(), done.clone());
            let counted = count.clone();
            let thread = thread::Builder::new().name(plain_name(at));
            Ok((count, thread.spawn(move || accept_all(listener, &counted, &done))?))
        };
        let threads = (0..4).map(start).collect::<io::Result<_>>()?;
        Ok(Self { address, done, threads })
    }

    fn observe(self) -> Result<Vec<Count>> {
        // All have fallen asleep.
        thread::sleep(PAUSE);
        let start = self.counts()?;
        for _ in 0..IDLE {
            TcpStream::connect(self.address)?;
            thread::sleep(PAUSE);
        }
        let end = self.counts()?;
        self.stop()?;
        Ok(difference(&start, &end))
    }

    fn counts(&self) -> Result<Vec<Count>> {
        let count = |(at, (taken, _)): (usize, &(Arc<AtomicU64>, _))| {
            let wake_ups = wake_ups(u64::from(std::process::id()), &plain_name(at))?;
            Ok(Count { connections: taken.load(Relaxed), wake_ups })
        };
        self.threads.iter().enumerate().map(count).collect()
    }

    fn stop(self) -> Result<()> {
        self.done.store(true, Relaxed);
        // A thread whose connection another has taken meanwhile goes back to sleep without having looked.
        while self.threads.iter().any(|(_, thread)| !thread.is_finished()) {
            TcpStream::connect(self.address)?;
            thread::sleep(PAUSE);
        }
        for (_, thread) in self.threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    }
}

fn plain_name(at: usize) -> String {
    format!("plain-{at}")
}

fn accept_all(mut listener: TcpListener, taken: &AtomicU64, done: &AtomicBool) -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    while !done.load(Relaxed) {
        poll.poll(&mut events, None)?;
        while listener.accept().is_ok() {
            taken.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}
