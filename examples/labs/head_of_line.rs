//! Head-of-line blocking: one request is slow. Which policy keeps the others from waiting behind it?
//!
//! ```text
//! cargo run --release --example labs -- head-of-line --mode process       # or --mode thread
//! ```
//!
//! **Question.** While one worker of two computes for half a second, eight new clients ask for next to nothing. Does it
//! matter whether their connections are dealt out in turn or taken by whoever is free?
//! **Predict** how many of them wait for the slow request under each policy.
//! **Look at** the number that waited, and at the longest time.
//! **Explanation.** In turn means: also to a worker that computes. A queue that the idle take from has no such head.
//! **Next.** `examples/heavy`: the slow ones in the pool.

use std::{
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use bimodal::{Mode, load::usage};
use serde::Serialize;
use serde_json::json;

use crate::{
    client::Client,
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "head-of-line",
    about: "one request is slow: which policy keeps the others from waiting behind it?",
    setting: "A server with 2 workers. One client sends a request that computes for 500 ms. While it computes, 8 others
        connect and ask for a line of text. That happens four times while connections are dealt out in turn
        (`round-robin`), and four times while workers take the next one when they are free (`shared`).",
    question: "Of the 32 fast requests under each policy, how many are answered only when the slow one is?",
    choices: &[
        "about half under both: one of two workers is busy",
        "about half under round-robin, next to none under shared",
        "next to none under both: the other worker is idle",
    ],
    run,
};

const ROUNDS: usize = 4;
const FAST: usize = 8;
const SLOW: &str = "/burn?ms=500";
/// Who is answered this short a time before the slow request, or later, has waited for it.
const MARGIN: Duration = Duration::from_millis(100);
/// A server that has used so much CPU time computes.
const BEGUN: Duration = Duration::from_millis(10);
/// Later it would soon be over.
const LATEST: Duration = Duration::from_millis(300);

/// What became of the fast requests under one policy.
#[derive(Serialize)]
struct Fast {
    policy: &'static str,
    requests: usize,
    waited: usize,
    longest_ms: f64,
}

fn run(mode: Mode) -> Result<Outcome> {
    let (in_turn, shared) = (offer(mode, "round-robin")?, offer(mode, "shared")?);
    let mut table = Table::new(&["policy", "fast requests", "that waited", "longest, ms"]);
    for fast in [&in_turn, &shared] {
        let counts = [fast.requests, fast.waited].map(|count| count.to_string());
        let longest = format!("{:.1}", fast.longest_ms);
        table.row([fast.policy.to_owned()].into_iter().chain(counts).chain([longest]));
    }
    let few = ROUNDS * FAST / 8;
    Ok(Outcome {
        table,
        seen: match (in_turn.waited > few, shared.waited > few) {
            (_, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
        },
        expected: 1,
        explanation: explain(mode, &in_turn, &shared),
        next: "the other mode. Then the example heavy: the slow request goes to the pool, and no loop stands still.",
        figures: json!({ "round_robin": in_turn, "shared": shared }),
    })
}

fn offer(mode: Mode, policy: &'static str) -> Result<Fast> {
    let server = Server::start(mode, &["--workers", "2", "--scheduling", policy])?;
    let mut fast = Fast { policy, requests: 0, waited: 0, longest_ms: 0.0 };
    for _ in 0..ROUNDS {
        let (slow, answers) = round(&server)?;
        for Answer { at, took } in answers {
            fast.requests += 1;
            fast.waited += usize::from(at + MARGIN > slow);
            fast.longest_ms = fast.longest_ms.max(took.as_secs_f64() * 1e3);
        }
    }
    server.stop()?;
    Ok(fast)
}

/// When a fast request was answered, and how long that took.
struct Answer {
    at: Instant,
    took: Duration,
}

/// When the slow request was answered, and what became of the fast ones.
fn round(server: &Server) -> Result<(Instant, Vec<Answer>)> {
    let mut slow = Client::connect(server.address)?;
    // Its worker has it now, so that it begins at once.
    slow.worker()?;
    let before = usage::cpu(server.pid())?;
    slow.send(SLOW)?;
    // Who comes before it has begun may be taken in the same turn of the loop.
    let latest = Instant::now() + LATEST;
    while usage::cpu(server.pid())?.since(&before) < BEGUN && Instant::now() < latest {
        thread::sleep(Duration::from_millis(2));
    }
    let address = server.address;
    let fast: Vec<_> = (0..FAST).map(|_| thread::spawn(move || ask(address))).collect();
    slow.receive()?;
    let ended = Instant::now();
    let answers = fast.into_iter().map(|client| client.join().map_err(|_| "a client panicked"));
    Ok((ended, answers.map(|answer| Ok(answer??)).collect::<Result<_>>()?))
}

fn ask(address: SocketAddr) -> io::Result<Answer> {
    let began = Instant::now();
    Client::connect(address)?.get("/plaintext")?;
    Ok(Answer { at: Instant::now(), took: began.elapsed() })
}

fn explain(mode: Mode, in_turn: &Fast, shared: &Fast) -> String {
    let queue = match mode {
        Mode::Process => "the kernel's queue",
        Mode::Thread => "a queue in memory",
    };
    format!(
        "In turn means also: to a worker that computes. {} of {} fast requests waited for the slow one, though the
            other worker was idle, and up to {:.0} ms. Under `shared` a connection stays in {queue} until somebody is
            free to take it: {} of {} waited, and the longest time was {:.0} ms. (It would be more if they came in the
            same turn of the loop as the slow request: a loop takes up to 4 connections in one.) With connections that
            are kept the policy chooses only once: who is connected to a worker that computes waits under any policy.",
        in_turn.waited,
        in_turn.requests,
        in_turn.longest_ms,
        shared.waited,
        shared.requests,
        shared.longest_ms
    )
}
