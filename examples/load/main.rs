//! Puts a load on any HTTP/1 server and says what came of it.
//!
//! ```text
//! cargo run --release --example lab -- --mode thread                           # a server, in another terminal
//! cargo run --release --example load -- http://127.0.0.1:3000/ --count-by worker
//! cargo run --release --example load -- http://127.0.0.1:3000/plaintext --rate 2000 --poisson --duration 30s
//! cargo run --release --example load -- http://127.0.0.1:3000/ --mix '199 /' --mix '1 /burn?ms=20' --rate 500
//! ```
//!
//! Look at the latency: without `--rate` it is that of a closed loop, which asks less of a server that is slow; with it
//! it counts from when a request was due. Ctrl-C ends it early, with the result so far.
//!
//! The exit status is 0 when there is a result, whatever it says, as of wrk, ab and hey: `--json` says what failed. It is 1
//! when there is none (no such host, a setting that cannot hold), and 2 for a command line that makes no sense.

mod args;
mod text;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bimodal::{
    Result,
    load::{Load, Outcome, Running},
};
use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use args::Args;

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let args = Args::parse();
    match args.load().and_then(|load| run(&load)) {
        Ok(outcome) => print(&args, &outcome),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the load to its end, or up to Ctrl-C.
fn run(load: &Load) -> Result<Outcome> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let handled =
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&is_interrupted));
    if let Err(error) = handled {
        eprintln!("load: Ctrl-C will leave no result: {error}");
    }
    let running = load.start()?;
    let bar = bar();
    while !running.progress().is_over {
        if is_interrupted.load(Relaxed) {
            running.stop();
        }
        show(&bar, &running);
        thread::sleep(LOOK);
    }
    bar.finish_and_clear();
    running.wait()
}

/// A bar on stderr, which is hidden without a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
    let bar = ProgressBar::new(1000);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, running: &Running) {
    let progress = running.progress();
    bar.set_position((progress.part * 1000.0) as u64);
    bar.set_message(if progress.elapsed.is_zero() {
        "warm-up".to_owned()
    } else {
        let rate = progress.completed as f64 / progress.elapsed.as_secs_f64();
        format!("{rate:.0} requests/s, {} failed", progress.failed)
    });
}

/// What `--json` prints: the outcome, and what the text says beside it.
#[derive(Serialize)]
struct Printed<'a> {
    url: &'a str,
    scheduled: u64,
    completed: u64,
    failed: u64,
    per_second: f64,
    /// How much of the time the driver's threads computed.
    driver_share: f64,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

fn print(args: &Args, outcome: &Outcome) -> ExitCode {
    let text = if args.json { json(args, outcome) } else { text::result(args, outcome) };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: the result cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn json(args: &Args, outcome: &Outcome) -> String {
    let printed = Printed {
        url: &args.url,
        scheduled: outcome.scheduled(),
        completed: outcome.completed(),
        failed: outcome.failures().total(),
        per_second: outcome.per_second(),
        driver_share: outcome.driver_share(args.threads),
        outcome,
    };
    // Texts, numbers and lists under text keys always have a JSON form.
    serde_json::to_string(&printed).unwrap_or_default()
}
