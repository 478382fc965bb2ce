//! One suite for every backend of the Store: what the trait promises, and what a backend promises beyond
//! that to several processes, to killed writers, and while its server is away.
//!
//! A process that is started with `--program NAME ..` is a writer for one of the tests.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod concurrency;
mod expiry;
// Some of it is for one backend only.
#[cfg_attr(not(all(feature = "store-lmdb", feature = "redis")), allow(dead_code))]
mod fixture;
mod limits;
#[cfg(feature = "store-lmdb")]
mod lmdb;
mod processes;
mod programs;
#[cfg(feature = "redis")]
mod redis;
#[cfg_attr(not(all(feature = "store-lmdb", feature = "redis")), allow(dead_code))]
mod server;
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
    trials.extend(lmdb::TESTS.iter().map(|(name, test)| trial("lmdb", name, test)));
    #[cfg(feature = "redis")]
    trials.extend(redis::TESTS.iter().map(|(name, test)| trial("redis", name, test)));
    if cfg!(feature = "redis") && !server::is_there() {
        trials.retain(|trial| !trial.name().starts_with("redis::"));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trials_of(case: &'static Case) -> impl Iterator<Item = Trial> {
    let backends = BACKENDS.iter().filter(|backend| backend.processes || !case.processes);
    backends.map(move |backend| {
        trial(backend.name, case.name, move || (case.run)(&Fixture::new(backend)))
    })
}

fn trial(backend: &str, name: &str, run: impl Fn() + Send + 'static) -> Trial {
    Trial::test(format!("{backend}::{name}"), move || {
        run();
        Ok(())
    })
}
