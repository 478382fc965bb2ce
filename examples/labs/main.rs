//! Short exercises: predict what will happen, then see it happen.
//!
//! ```text
//! cargo run --release --example labs -- list
//! cargo run --release --example labs -- blast-radius --mode thread
//! ```
//!
//! Each asks a question and, on a terminal, waits for a guess (`--yes` goes on at once). Then it runs for some seconds,
//! prints what it saw, says what the guess was worth, and explains it with the figures just measured. Compare the two
//! modes. Nothing stays behind: a server that an exercise needs is a child of this program and ends with it.

mod blast_radius;
mod client;
mod coordinated_omission;
mod counting;
mod descriptors;
mod endless_loop;
mod exercise;
mod false_sharing;
mod head_of_line;
mod herd;
#[expect(dead_code, reason = "its `main` is not this program's")]
#[path = "../lab/main.rs"]
mod lab;
mod lesson;
mod memory_leak;
mod messages;
mod reload;
mod server;
mod table;

use std::process::ExitCode;

use bimodal::Mode;
use clap::Parser;

use exercise::{Exercise, Result};

/// In the order in which they teach.
const EXERCISES: [&Exercise; 10] = [
    &blast_radius::EXERCISE,
    &endless_loop::EXERCISE,
    &memory_leak::EXERCISE,
    &descriptors::EXERCISE,
    &herd::EXERCISE,
    &head_of_line::EXERCISE,
    &reload::EXERCISE,
    &false_sharing::EXERCISE,
    &messages::EXERCISE,
    &coordinated_omission::EXERCISE,
];

/// Predict what will happen, then see it happen.
#[derive(Parser)]
#[command(name = "labs", after_help = catalogue())]
struct Args {
    /// The name of an exercise, or list
    #[arg(default_value = "list", value_parser = named)]
    exercise: Wanted,
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Does not wait for a guess
    #[arg(long)]
    yes: bool,
    /// Adds a last line for programs: what was measured, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy)]
enum Wanted {
    List,
    One(&'static Exercise),
}

fn main() -> ExitCode {
    if let Some(code) = server::take_over() {
        return code;
    }
    match become_worker().and_then(|()| run(&Args::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("labs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// In a worker process of this program's own cluster this does not return.
fn become_worker() -> Result<()> {
    if bimodal::worker_of() == Some(counting::CLUSTER) {
        counting::launch(Mode::Process)?;
    }
    Ok(())
}

fn run(args: &Args) -> Result<()> {
    match args.exercise {
        Wanted::List if args.mode.is_some() || args.yes || args.json => {
            Err("list takes no options: leave them out, or name an exercise".into())
        }
        Wanted::List => {
            println!("{}", catalogue());
            Ok(())
        }
        Wanted::One(exercise) => {
            let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
            lesson::give(exercise, mode, args.yes, args.json)
        }
    }
}

fn named(name: &str) -> std::result::Result<Wanted, String> {
    if name == "list" {
        return Ok(Wanted::List);
    }
    let found = EXERCISES.into_iter().find(|exercise| exercise.name == name);
    found.map(Wanted::One).ok_or_else(|| format!("there is no such exercise.\n\n{}", catalogue()))
}

fn catalogue() -> String {
    let line = |exercise: &Exercise| format!("\n  {:<22}{}", exercise.name, exercise.about);
    format!("Exercises:{}", EXERCISES.map(line).concat())
}
