//! The workers of a running cluster, live in a terminal, read from its status socket.
//!
//! ```text
//! cargo run --release --example lab -- --mode process --status-socket /tmp/lab.sock     # or --mode thread
//! cargo run --release --example top -- /tmp/lab.sock                                    # in another terminal
//! ```
//!
//! Look at PID/TID: processes have numbers of their own, and memory of their own; threads have the same process and
//! one memory. Then end one with `curl http://127.0.0.1:3000/fault/panic` and see who takes its place, with the next
//! generation. q or Ctrl-C quits. Without a terminal it prints a table per interval.

mod feed;
mod screen;
mod table;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;

use feed::{Feed, Told};
use screen::{Input, Screen};
use table::Table;

/// Events that are kept to be shown.
const EVENTS: usize = 100;

/// The size of a table that goes elsewhere than to a terminal: as wide as one, and with every worker.
const PLAIN: (usize, usize) = (80, usize::MAX);

/// Watches the workers of a running cluster.
#[derive(Parser)]
#[command(name = "top")]
struct Args {
    /// The cluster's status socket
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// How often to look, in ms: 100 to 60000
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval: u64,
    /// Prints one table, of one interval, and ends
    #[arg(long)]
    once: bool,
    /// Prints what the cluster tells, one JSON object per line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has enough of it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("top: {}", table::plain(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let wants_terminal = !args.once && !args.json;
    let feed = Feed::open(&args.path, args.interval)?;
    if wants_terminal && io::stdout().is_terminal() && io::stdin().is_terminal() {
        live(feed)
    } else {
        print(feed, args)
    }
}

/// A table after the other, until the cluster ends.
fn print(mut feed: Feed, args: &Args) -> io::Result<()> {
    let mut table = Table::new(EVENTS);
    // The first snapshot of a client is of the workers' whole lives.
    let mut snapshots = 0;
    while let Some(line) = feed.next()? {
        let told = Told::parse(&line)?;
        snapshots += u32::from(matches!(told, Told::Snapshot(_)));
        let is_due = matches!(told, Told::Snapshot(_)) && (!args.once || snapshots == 2);
        table.take(told);
        match (args.json, is_due) {
            (true, _) if !args.once || is_due => writeln!(io::stdout(), "{line}")?,
            (false, true) => {
                writeln!(io::stdout(), "{}\n", table.lines(PLAIN.0, PLAIN.1).join("\n"))?;
                table.forget_events();
            }
            _ => {}
        }
        if args.once && is_due {
            return Ok(());
        }
    }
    Ok(())
}

/// The whole screen, until somebody quits or the cluster ends.
fn live(feed: Feed) -> io::Result<()> {
    let mut table = Table::new(EVENTS);
    let inputs = screen::inputs(feed)?;
    let mut screen = Screen::open()?;
    for input in inputs {
        match input {
            Input::Line(line) => table.take(Told::parse(&line)?),
            Input::Resized => {}
            Input::Quit => return Ok(()),
            Input::Ended => {
                drop(screen);
                return writeln!(io::stdout(), "the cluster has ended");
            }
            Input::Failed(error) => return Err(error),
        }
        let (columns, rows) = screen.size();
        screen.show(&table.lines(columns, rows))?;
    }
    Ok(())
}
