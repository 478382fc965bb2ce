//! Reload under load: all workers are replaced while requests come. How many are lost?
//!
//! ```text
//! cargo run --release --example labs -- reload --mode process       # or --mode thread
//! ```
//!
//! **Question.** 300 requests come per second. Every worker is replaced, twice; then the server is stopped in good
//! order and started again. How many requests fail each time?
//! **Predict** both numbers.
//! **Look at** the ledger: every request is in one column.
//! **Explanation.** In a reload the listening sockets stay open all the time, as they are the primary's, and an old
//! worker leaves when its successor is ready. Between a stop and a start nobody listens.
//! **Next.** `examples/rolling_reload`: a new version that does not work.

use std::{thread, time::Duration};

use bimodal::{
    Mode,
    load::{self, Arrival, Load, Reuse, Running, Until},
};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;

use crate::{
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "reload",
    about: "all workers are replaced while requests come: how many are lost?",
    setting: "A server with 2 workers gets 300 requests a second, each over a connection of its own. While they come, a
        SIGHUP makes it replace all workers, and then another. In a second run it is stopped in good order (SIGTERM)
        instead, and started again at the same address 50 ms after it has ended, as programs take time to load.",
    question: "In which of the runs do requests fail?",
    choices: &[
        "in neither: in both the server ends requests in good order",
        "only when it is stopped and started again",
        "in both",
    ],
    run,
};

const PER_SECOND: f64 = 300.0;
/// Before, between and after what happens to the server.
const CALM: Duration = Duration::from_millis(300);
/// What a program may take to load.
const LOADING: Duration = Duration::from_millis(50);
/// Far more than a run takes: it is stopped.
const LONGEST: Duration = Duration::from_secs(20);

/// Where the requests of one run are.
#[derive(Serialize)]
struct Ledger {
    requests: u64,
    answered: u64,
    failed: u64,
    /// Kinds of failures and their numbers.
    failures: String,
    workers: u64,
}

fn run(mode: Mode) -> Result<Outcome> {
    let (reloaded, restarted) = (reload(mode)?, restart(mode)?);
    let mut table = Table::new(&["run", "requests", "answered", "failed", "workers started"]);
    for (name, ledger) in [("reloaded twice", &reloaded), ("stopped and started", &restarted)] {
        let counts = [ledger.requests, ledger.answered, ledger.failed, ledger.workers];
        table.row([name.to_owned()].into_iter().chain(counts.map(|count| count.to_string())));
    }
    Ok(Outcome {
        table,
        seen: match (reloaded.failed, restarted.failed) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 2,
        },
        expected: 1,
        explanation: explain(mode, &reloaded, &restarted),
        next: "the other mode. Then the example rolling_reload: the new version fails, and nobody notices but the log.",
        figures: json!({ "reloaded": reloaded, "restarted": restarted }),
    })
}

/// Every worker is replaced, twice.
fn reload(mode: Mode) -> Result<Ledger> {
    let mut server = Server::start(mode, &["--workers", "2"])?;
    let load = begin(&server)?;
    for _ in 0..2 {
        thread::sleep(CALM);
        server.signal(Signal::HUP)?;
        server.event(|event| event["decision"] == "reloaded")?;
    }
    let outcome = end(load)?;
    let report = server.stop()?;
    Ok(Ledger::new(&outcome, report["started"].as_u64().unwrap_or_default()))
}

/// The whole server ends and another one begins.
fn restart(mode: Mode) -> Result<Ledger> {
    let server = Server::start(mode, &["--workers", "2"])?;
    let (address, load) = (server.address.to_string(), begin(&server)?);
    thread::sleep(CALM);
    let first = server.stop()?;
    thread::sleep(LOADING);
    let server = Server::start_at(&address, mode, &["--workers", "2"])?;
    let outcome = end(load)?;
    let second = server.stop()?;
    let started = [first, second].map(|report| report["started"].as_u64().unwrap_or_default());
    Ok(Ledger::new(&outcome, started.iter().sum()))
}

fn begin(server: &Server) -> Result<Running> {
    let load = Load::new(&format!("http://{}/plaintext", server.address))?
        .arrival(Arrival::Constant { per_second: PER_SECOND })
        .reuse(Reuse::Close)
        .until(Until::Elapsed(LONGEST));
    Ok(load.start()?)
}

fn end(load: Running) -> Result<load::Outcome> {
    thread::sleep(CALM);
    load.stop();
    Ok(load.wait()?)
}

impl Ledger {
    fn new(outcome: &load::Outcome, workers: u64) -> Self {
        let failures = outcome.failures();
        Self {
            requests: outcome.scheduled(),
            answered: outcome.completed(),
            failed: failures.total(),
            failures: failures.to_string(),
            workers,
        }
    }
}

fn explain(mode: Mode, reloaded: &Ledger, restarted: &Ledger) -> String {
    let new = match mode {
        Mode::Process => "New processes run the program as it is on disk now: this is how a new version comes.",
        Mode::Thread => {
            "New threads are the same program with new state: a new version needs a new process, which takes the
                sockets over (SIGUSR2)."
        }
    };
    format!(
        "In a reload the listening socket stays open, as it is the primary's. The successor starts first, and only when
            it is ready does the old worker stop taking connections, finish what it has and leave: {} of {} requests
            failed. {new} A stop is in good order, too, and loses nothing that it has accepted; but what waits in the
            kernel's queue is reset, and nobody listens until the next one does: {} of {} requests failed ({}).",
        reloaded.failed, reloaded.requests, restarted.failed, restarted.requests, restarted.failures
    )
}
