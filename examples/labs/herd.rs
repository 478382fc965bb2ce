//! Thundering herd: who wakes up for a connection, and who gets it?
//!
//! ```text
//! cargo run --release --example labs -- herd --mode process       # or --mode thread
//! ```
//!
//! **Question.** Four workers share one queue of connections, all are idle. A connection comes: how many of them wake
//! up?
//! **Predict** that, and how evenly 200 connections spread, one after the other and at once.
//! **Look at** the wake-ups: the voluntary context switches of each worker's loop, see proc_pid_status(5).
//! **Explanation.** Idle processes wait for the same socket, and the kernel tells each of them (one that waits with
//! `EPOLLEXCLUSIVE` may be spared, see epoll_ctl(2); then the one that began to wait last is asked first, LIFO).
//! Threads share a queue in memory that knows who sleeps, and since when: it wakes one.
//! **Next.** `src/accept/README.md` has the whole argument.

use std::{fs, net::TcpStream, thread, time::Duration};

use bimodal::Mode;
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
    setting: "A server with 4 workers under the policy `shared`: whoever looks first takes a connection. First 200
        connections come and go without a request, one after the other, so that all workers sleep in between. Then 208
        come 16 at a time, each with a request that computes for 2 ms. How often each worker slept and was woken, the
        kernel counts.",
    question: "All four sleep and a connection comes. How many of them wake up?",
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
    let [idle, busy] = observe(mode)?;
    let header = ["worker", "idle: connections", "wake-ups", "busy: connections", "wake-ups"];
    let mut table = Table::new(&header);
    for (at, (idle, busy)) in idle.iter().zip(&busy).enumerate() {
        let cells = [idle.connections, idle.wake_ups, busy.connections, busy.wake_ups];
        table.row([(at + 1).to_string()].into_iter().chain(cells.map(|count| count.to_string())));
    }
    // One of them was for the end of the connection.
    let (when_idle, when_busy) = (wake_ups_per(&idle, IDLE) - 1.0, wake_ups_per(&busy, BUSY));
    let most = idle.iter().map(|count| count.connections).max().unwrap_or_default();
    Ok(Outcome {
        table,
        seen: usize::from(when_idle > 2.0),
        expected: usize::from(mode == Mode::Process),
        explanation: explain(mode, when_idle, when_busy, most),
        next: "the other mode. Then src/accept/README.md: why a busy server herds less, and why nobody starves.",
        figures: json!({ "idle": idle, "busy": busy, "woken_by_one": when_idle }),
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
        let wake_ups = wake_ups(number(row, "pid"), number(row, "worker"))?;
        Ok(Count { connections, wake_ups })
    };
    rows.as_array().ok_or("no counters of workers")?.iter().map(count).collect()
}

/// How often a worker's loop has slept: that of the thread with its name, else that of its process.
fn wake_ups(pid: u64, worker: u64) -> Result<u64> {
    let mut found = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let slept = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
        let slept = slept.ok_or("a task without a count of its sleeps")?;
        if field("Name:") == Some(&format!("bimodal-w-{worker}")) {
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

fn explain(mode: Mode, when_idle: f64, when_busy: f64, most: u64) -> String {
    match mode {
        Mode::Process => format!(
            "All four wait for the same socket, and the kernel tells each of them: {when_idle:.1} wake-ups per
                connection, though one worker takes it and the others find nothing (the thundering herd). Who looks
                first the kernel's scheduler decides: one worker got {most} of {IDLE}. The flag EPOLLEXCLUSIVE would
                spare some of them (epoll_ctl(2)), but then the worker that began to wait last is asked first (LIFO),
                and an idle server gives most to one: see \"Why does one NGINX worker take all the load?\" at
                blog.cloudflare.com. Under load the herd is gone: whoever computes does not wait, and there were
                {when_busy:.1} wake-ups per connection, its request included."
        ),
        Mode::Thread => format!(
            "Threads take connections from a queue in memory that knows who sleeps, and since when: it wakes the one
                that has slept longest, {when_idle:.1} wake-ups per connection, and nobody got more than {most} of
                {IDLE}. The one who is woken by the kernel is the primary, which accepts for all. Under load there
                were {when_busy:.1} wake-ups per connection, its request included: who has work takes the next
                connection without having slept."
        ),
    }
}
