//! Endless loop: a handler never returns. What can be done about its worker?
//!
//! ```text
//! cargo run --release --example labs -- endless-loop --mode process       # or --mode thread
//! ```
//!
//! **Question.** The cluster notices after half a second and starts a replacement. What is left of the worker that
//! hangs?
//! **Predict** what becomes of its core, and of the connections that it held.
//! **Look at** how it ended, its connections, and the CPU time used while nobody asks for anything.
//! **Explanation.** The kernel ends a process at any instruction. It has no such word for a thread: what the thread
//! holds (locks, half-written values) would stay as it is, in memory that all share.
//! **Next.** `examples/health_monitoring` does the same by hand.

use std::{
    io,
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
    name: "endless-loop",
    about: "what is left of a worker whose handler never returns?",
    setting: "A server with 2 workers holds 6 open connections, 3 per worker. One more client sends a request whose
        handler loops for ever. A worker that gives no sign of life for 500 ms counts as hung and is replaced. Once
        the replacement serves, all 6 connections are used once more, and for a while nobody asks for anything.",
    question: "What is left of the worker that hangs?",
    choices: &[
        "nothing: it is ended, and its connections are cut",
        "its thread: it keeps a core busy, and its connections neither answer nor end",
        "everything: nobody can notice, as a loop that computes answers no question",
    ],
    run,
};

const CONNECTIONS: usize = 6;
const SILENCE: Duration = Duration::from_millis(400);
const QUIET: Duration = Duration::from_millis(500);

const POLICY: [&str; 8] = [
    "--workers",
    "2",
    "--scheduling",
    "round-robin",
    "--health-deadline-ms",
    "500",
    "--health-patience-ms",
    "150",
];

/// What became of the connections of one of the workers.
#[derive(Default, Serialize)]
struct Fates {
    answered: usize,
    cut: usize,
    silent: usize,
}

#[derive(Serialize)]
struct Found {
    /// How long the worker had been silent when it was noticed.
    silent_ms: u64,
    /// From the request to the end of the worker.
    ended_ms: u64,
    status: String,
    own: Fates,
    others: Fates,
    new_clients_answered: bool,
    cores_used_by_an_idle_server: f64,
    abandoned: u64,
}

fn run(mode: Mode) -> Result<Outcome> {
    let found = observe(mode)?;
    let mut table = Table::new(&["", "answered", "cut", "silent"]);
    let rows = [("of the worker that hangs", &found.own), ("of the other worker", &found.others)];
    for (whose, fates) in rows {
        let counts = [fates.answered, fates.cut, fates.silent].map(|count| count.to_string());
        table.row([format!("connections {whose}")].into_iter().chain(counts));
    }
    Ok(Outcome {
        table,
        seen: match (found.abandoned, &found.own) {
            (0, Fates { silent: 0, .. }) => 0,
            (1.., Fates { cut: 0, .. }) => 1,
            _ => 2,
        },
        expected: usize::from(mode == Mode::Thread),
        explanation: explain(mode, &found),
        next: "the other mode. Then the example health_monitoring with --by-hand, which asks workers by message as a
            Node program does.",
        figures: json!(found),
    })
}

fn observe(mode: Mode) -> Result<Found> {
    let mut server = Server::start(mode, &POLICY)?;
    let mut clients = server.clients(CONNECTIONS)?;
    let mut culprit = Client::connect(server.address)?;
    let victim = culprit.worker()?;
    let began = Instant::now();
    culprit.send("/fault/spin")?;
    let noticed = server.event(|event| event["decision"] == "hung" && event["of"] == victim)?;
    let exit = server.event(|event| event["event"] == "exit" && event["worker"] == victim)?;
    let ended_ms = began.elapsed().as_millis() as u64;
    let (mut own, mut others) = (Fates::default(), Fates::default());
    for (worker, client) in &mut clients {
        if *worker == victim { &mut own } else { &mut others }.count(client)?;
    }
    let new_clients_answered = server.clients(4)?.iter().all(|(worker, _)| *worker != victim);
    let cores_used_by_an_idle_server = cores_used(server.pid())?;
    Ok(Found {
        silent_ms: noticed["silent_ms"].as_u64().unwrap_or_default(),
        ended_ms,
        status: exit["status"].as_str().unwrap_or_default().to_owned(),
        own,
        others,
        new_clients_answered,
        cores_used_by_an_idle_server,
        abandoned: server.stop()?["abandoned"].as_u64().unwrap_or_default(),
    })
}

impl Fates {
    fn count(&mut self, client: &mut Client) -> Result<()> {
        client.set_patience(SILENCE)?;
        match client.get("/") {
            Ok(_) => self.answered += 1,
            Err(error) if is_timeout(&error) => self.silent += 1,
            Err(_) => self.cut += 1,
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// How many cores the server uses while nobody asks it for anything.
fn cores_used(pid: u32) -> Result<f64> {
    let (before, began) = (usage::cpu(pid)?, Instant::now());
    std::thread::sleep(QUIET);
    Ok(usage::cpu(pid)?.since(&before).as_secs_f64() / began.elapsed().as_secs_f64())
}

fn explain(mode: Mode, found: &Found) -> String {
    let Found { ended_ms, status, cores_used_by_an_idle_server: cores, .. } = found;
    match mode {
        Mode::Process => format!(
            "Every loop counts its turns on a page that the primary reads, so nobody had to be asked. {ended_ms} ms
                after the request the worker had ended with {status}: a process can be ended at any instruction, and
                the kernel cuts its connections and takes its memory back. The idle server then used {cores:.2} cores."
        ),
        Mode::Thread => format!(
            "Every loop counts its turns on a page that the primary reads, so nobody had to be asked. {ended_ms} ms
                after the request the worker counted as {status}: a thread cannot be ended from outside, as the locks
                it holds and the values it has half written are everybody's. It is left behind: the replacement
                serves, but the idle server then used {cores:.2} cores, and the connections that the thread had
                adopted are open as long as the program runs."
        ),
    }
}
