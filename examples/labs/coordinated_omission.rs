//! Coordinated omission: a server stalls for a second. Does the measurement notice?
//!
//! ```text
//! cargo run --release --example labs -- coordinated-omission --mode process       # or --mode thread
//! ```
//!
//! **Question.** For one second of three and a half nobody is answered. What does a load generator report as the 99th
//! percentile that sends the next request when it has its answer, and what one that sends at fixed times?
//! **Predict** both.
//! **Look at** p99 and at the number of requests that took long.
//! **Explanation.** Who waits for its answer does not ask meanwhile: the stall is one slow request among thousands.
//! People do not wait for each other.
//! **Next.** The README of wrk2 tells the story; `bimodal::load` has both loops.

use std::{thread, time::Duration};

use bimodal::{
    Mode,
    load::{self, Arrival, Load, Until},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    client::Client,
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "coordinated-omission",
    about: "a server stalls for a second: which measurement notices?",
    setting: "A server with one worker is measured for three and a half seconds, in one of which it stalls: a request
        computes, and nobody is answered. First by a closed loop: one connection, on which the next request is sent
        when the answer is there. Then by an open loop: 200 requests a second at fixed times, each measured from when
        it was due.",
    question: "What do the two report as the 99th percentile of latency?",
    choices: &[
        "both about a second: they saw the same stall",
        "the closed loop some milliseconds, the open loop almost a second",
        "both some milliseconds: it was one request",
    ],
    run,
};

const TIME: Duration = Duration::from_millis(3500);
const PER_SECOND: f64 = 200.0;
const STALL: &str = "/burn?ms=1000";
/// When in the measurement the stall begins.
const STALL_AT: Duration = Duration::from_millis(1200);
/// What took longer met the stall.
const LONG: Duration = Duration::from_millis(300);

/// What one of the loops reports.
#[derive(Serialize)]
struct Report {
    requests: u64,
    failed: u64,
    /// How many took longer than 300 ms.
    long: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

fn run(mode: Mode) -> Result<Outcome> {
    let server = Server::start(mode, &["--workers", "1"])?;
    let url = format!("http://{}/plaintext", server.address);
    let load = Load::new(&url)?.until(Until::Elapsed(TIME));
    let closed = measure(&server, &load.clone().arrival(Arrival::Closed).connections(1))?;
    let open = load.arrival(Arrival::Constant { per_second: PER_SECOND });
    let open = measure(&server, &open)?;
    server.stop()?;
    let mut table = Table::new(&["", "requests", "over 300 ms", "p50, ms", "p99, ms", "max, ms"]);
    for (name, report) in [("closed loop", &closed), ("open loop", &open)] {
        let counts = [report.requests, report.long].map(|count| count.to_string());
        let times = [report.p50_ms, report.p99_ms, report.max_ms].map(|ms| format!("{ms:.1}"));
        table.row([name.to_owned()].into_iter().chain(counts).chain(times));
    }
    let long = LONG.as_secs_f64() * 1e3;
    Ok(Outcome {
        table,
        seen: match (closed.p99_ms > long, open.p99_ms > long) {
            (true, true) => 0,
            (false, true) => 1,
            _ => 2,
        },
        expected: 1,
        explanation: explain(&closed, &open),
        next: "with any generator you use: stop the server for a second (kill -STOP, then -CONT) and see whether its
            p99 notices. The other mode shows the same: it is the measurement that differs.",
        figures: json!({ "closed": closed, "open": open }),
    })
}

fn measure(server: &Server, load: &Load) -> Result<Report> {
    let mut culprit = Client::connect(server.address)?;
    let running = load.start()?;
    thread::sleep(STALL_AT);
    culprit.get(STALL)?;
    Ok(Report::new(&running.wait()?))
}

impl Report {
    fn new(outcome: &load::Outcome) -> Self {
        let latency = outcome.latency();
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        Self {
            requests: outcome.scheduled(),
            failed: outcome.failures().total(),
            long: latency.count_between(LONG.as_nanos() as u64, u64::MAX),
            p50_ms: ms(latency.value_at_quantile(0.5)),
            p99_ms: ms(latency.value_at_quantile(0.99)),
            max_ms: ms(latency.max()),
        }
    }
}

fn explain(closed: &Report, open: &Report) -> String {
    format!(
        "Who sends only when the answer is there does not ask while the server stalls: for a second the closed loop
            sent nothing, and the stall is {} of its {} requests. Its p99 says {:.1} ms. In the open loop requests
            were due all the time, and {} of {} waited, up to {:.0} ms; its p99 says {:.0} ms, which is what users
            would have seen. The generator and the server had coordinated to leave the bad second out (Gil Tene's
            words). A closed loop is right for what it asks: how much a server can do at most.",
        closed.long, closed.requests, closed.p99_ms, open.long, open.requests, open.max_ms, open.p99_ms
    )
}
