//! One fault of each kind in each mode, and all that came of it.

use std::{env, time::Duration};

use bimodal::Mode;

use crate::{
    fault::Fault,
    server::{NEWCOMERS, Never, PATIENCE, Server, WORKERS},
};

/// How long the load goes on before the fault, how long a fault is watched that nobody notices, and how long the load
/// goes on then: long enough for a worker that hangs to be ended.
#[derive(Clone, Copy)]
struct Times {
    before: Duration,
    watched: Duration,
    after: Duration,
}

/// Prints the table. When it is not measured, it takes as little time as it can.
pub(crate) fn print(is_measured: bool) {
    let ms = Duration::from_millis;
    let times = match is_measured {
        true => Times { before: ms(1000), watched: ms(3000), after: ms(2000) },
        false => Times { before: ms(100), watched: ms(500), after: ms(100) },
    };
    println!(
        "| fault | mode | full strength after | failed | of requests | by kind | newcomers answered | survivors |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for fault in Fault::ALL.into_iter().filter(|fault| is_wanted(fault.name())) {
        for mode in [Mode::Process, Mode::Thread] {
            row(fault, mode, times);
        }
    }
}

/// Criterion takes words of the command line for filters on names.
fn is_wanted(name: &str) -> bool {
    let mut filters = env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

fn row(fault: Fault, mode: Mode, times: Times) {
    let mut server = Server::start(mode);
    let load = server.load().start().expect("the load starts");
    std::thread::sleep(times.before);
    let comes_to_something = fault.is_repaired(mode) || fault.ends_all(mode);
    let patience = if comes_to_something { PATIENCE } else { times.watched };
    let after = server.suffer(fault, patience);
    std::thread::sleep(times.after);
    let welcome = server.welcome();
    load.stop();
    let outcome = load.wait().expect("the load ends");
    let failures = outcome.failures();
    println!(
        "| {} | {mode} | {} | {} | {} | {failures} | {welcome} of {NEWCOMERS} | {} of {WORKERS} |",
        fault.name(),
        text(fault, mode, after),
        failures.total(),
        outcome.scheduled(),
        server.survivors(),
    );
}

/// What became of the fault, which must be what the mode promises.
fn text(fault: Fault, mode: Mode, after: Result<Duration, Never>) -> String {
    let what = fault.name();
    assert!(!fault.is_repaired(mode) || after.is_ok(), "{what} of a {mode}: {after:?}");
    assert!(!fault.ends_all(mode) || after == Err(Never::Ended), "{what} of a {mode}: {after:?}");
    match after {
        Ok(after) => format!("{:.1} ms", after.as_secs_f64() * 1000.0),
        Err(Never::Ended) => "never: the program has ended".into(),
        Err(Never::Unnoticed) => "never: not noticed".into(),
    }
}
