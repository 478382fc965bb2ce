//! What a fault costs those who did nothing wrong: how long until there are as many workers as before, how many
//! requests fail meanwhile, and which workers live on. Each fault of a worker is real, and comes while a load of 250
//! requests per second goes on. About two minutes.
//!
//! ```text
//! cargo bench --bench isolation
//! cargo bench --bench isolation -- spin      # this fault only
//! ```
//!
//! The server is this program again, as a process of its own, because some faults end it: one of workers that are
//! processes, and one of workers that are threads. It has two workers, and they are replaced without delay. A
//! worker without a sign of life for [`SILENCE`] counts as hung. A process that has more than 32 MiB of its own is
//! recycled, which is looked at once in a second; a thread has no memory of its own, so nobody can. In each server
//! 512 descriptors may be open per process; nobody watches for their leak.
//!
//! Criterion measures from the request that makes the fault to the moment at which the replacement listens. Where
//! there is none, nothing is measured. The table at the end has one fault of each kind, with everything:
//! `never: the program has ended`, or `never: not noticed` in the time that it was watched. Newcomers are clients that come
//! two seconds later, all at once; who is not answered within half a second is not counted. Survivors are workers that were
//! there before the fault.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

#[path = "isolation/fault.rs"]
mod fault;
#[path = "isolation/server.rs"]
mod server;
#[path = "isolation/table.rs"]
mod table;

use std::{env, process::ExitCode, time::Duration};

use bimodal::Mode;
use criterion::{Criterion, SamplingMode};
use fault::Fault;
use server::{PATIENCE, Server};

/// After this long without a sign of life a worker counts as hung.
const SILENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(mode) = server::asked_for() {
        return server::run(mode);
    }
    let time = Duration::from_millis(500);
    let criterion = Criterion::default().sample_size(10).warm_up_time(time / 5);
    let mut criterion = criterion.measurement_time(time).configure_from_args();
    for fault in Fault::ALL {
        measure(&mut criterion, fault);
    }
    criterion.final_summary();
    table::print(is_measuring());
    ExitCode::SUCCESS
}

fn measure(criterion: &mut Criterion, fault: Fault) {
    let mut group = criterion.benchmark_group(format!("isolation/{}", fault.name()));
    group.sampling_mode(SamplingMode::Flat);
    for mode in [Mode::Process, Mode::Thread].into_iter().filter(|&mode| fault.is_repaired(mode)) {
        group.bench_function(mode.to_string(), |bencher| {
            bencher.iter_custom(|times| repair(mode, fault, times));
        });
    }
    group.finish();
}

/// How long it took to get over so many of these faults, one after the other.
fn repair(mode: Mode, fault: Fault, times: u64) -> Duration {
    let mut server = Server::start(mode);
    let load = server.load().start().expect("the load starts");
    let one = |_| server.suffer(fault, PATIENCE).expect("a worker that fails is replaced");
    let time = (0..times).map(one).sum();
    drop(load);
    time
}

/// Whether figures are wanted: `cargo test` wants to know only whether all this works.
fn is_measuring() -> bool {
    env::args().any(|arg| arg == "--bench") && !env::args().any(|arg| arg == "--test")
}
