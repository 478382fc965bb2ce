//! How many instructions in user space a connection, a request and a message cost bimodal, in both modes; and whether
//! that is more than it was: `counts.json` has the figures of the last time that somebody looked.
//!
//! ```text
//! cd benches/instructions
//! cargo run --release --locked                      # fails where a figure grew by more than 15 %
//! BIMODAL_BLESS=1 cargo run --release --locked      # takes the figures of now for the right ones
//! ```
//!
//! It needs valgrind, and has to be run in this folder, whose `.cargo/config.toml` has a flag without which the
//! program ends under valgrind.
//!
//! callgrind counts; it is the same on a busy machine as on an idle one. A figure is the difference between a
//! run and one of twice as many exchanges, divided by the exchanges: starting and ending cancel. Under valgrind are the
//! primary and the worker of [`Mode::Thread`], which are one process, and the worker of [`Mode::Process`].
//! Its primary is not: up to 3.19 valgrind does not know `pidfd_open`.
//!
//! | | an exchange is |
//! |---|---|
//! | `accept` | a connection, accepted by the primary and given to the worker, closed at once |
//! | `accept_shared` | the same; the worker accepts it itself |
//! | `request` | a GET on a connection that is open: parsed, dispatched, answered |
//! | `message` | a text of 100 bytes to the worker, and one back |

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

mod cell;
mod client;
mod counts;
mod valgrind;

use std::process::ExitCode;

use bimodal::Mode;
use cell::{Cell, Path};
use client::Client;
use counts::Counts;

/// Exchanges of the shorter run.
const TIMES: u64 = 1000;

fn main() -> ExitCode {
    // In a worker process `launch` does not return.
    if let Some(name) = bimodal::worker_of() {
        Cell::of_worker(name).run();
    } else if let Some(cell) = Cell::from_args() {
        cell.run();
    } else if let Some(client) = Client::from_args() {
        client.run();
    } else {
        return judge();
    }
    ExitCode::SUCCESS
}

/// Counts everything, and compares or blesses.
fn judge() -> ExitCode {
    let now = Counts::new(count_all());
    if std::env::var_os("BIMODAL_BLESS").is_some() {
        now.write();
        return ExitCode::SUCCESS;
    }
    match now.complaints(&Counts::read()) {
        complaints if complaints.is_empty() => ExitCode::SUCCESS,
        complaints => {
            eprintln!("{complaints}");
            ExitCode::FAILURE
        }
    }
}

fn count_all() -> impl Iterator<Item = (String, u64)> {
    let modes = [Mode::Process, Mode::Thread];
    Path::ALL.into_iter().flat_map(move |path| modes.map(|mode| (path, mode))).map(
        |(path, mode)| {
            let count = |times| valgrind::count(&Cell { mode, path, times });
            let per_exchange = count(2 * TIMES).saturating_sub(count(TIMES)) / TIMES;
            let name = format!("{}/{mode}", path.name());
            println!("{name:<24} {per_exchange:>6} instructions");
            (name, per_exchange)
        },
    )
}
