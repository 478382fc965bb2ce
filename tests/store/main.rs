//! One suite for every backend of the Store: what the trait promises, and what a backend promises beyond
//! that to several processes, to killed writers, and while its server is away.
//!
//! A process that is started with `--program NAME ..` is a writer for one of the tests.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod concurrency;
mod expiry;
mod fixture;
mod limits;
#[cfg(feature = "store-lmdb")]
mod lmdb;
mod processes;
mod programs;
mod topics;
mod values;

use std::process::ExitCode;

use fixture::{BACKENDS, Case, Fixture};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if programs::run() {
        return ExitCode::SUCCESS;
    }
    let cases = [
        values::CASES,
        limits::CASES,
        expiry::CASES,
        concurrency::CASES,
        topics::CASES,
        processes::CASES,
    ];
    let mut trials: Vec<_> = cases.into_iter().flatten().flat_map(trials_of).collect();
    #[cfg(feature = "store-lmdb")]
    trials.extend(lmdb::TESTS.iter().map(|(name, test)| {
        Trial::test(format!("lmdb::{name}"), || {
            test();
            Ok(())
        })
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trials_of(case: &'static Case) -> impl Iterator<Item = Trial> {
    let backends = BACKENDS.iter().filter(|backend| backend.processes || !case.processes);
    backends.map(|backend| {
        Trial::test(format!("{}::{}", backend.name, case.name), || {
            (case.run)(&Fixture::new(backend));
            Ok(())
        })
    })
}
