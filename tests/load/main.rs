//! The load driver: against servers made by hand, which misbehave on purpose; against a cluster in both modes; and
//! as the program that people use.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod cluster;
mod connections;
mod failures;
mod program;
mod server;
mod settings;
mod time;

use std::process::ExitCode;

use libtest_mimic::Trial;

/// A test without a cluster.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let themes = [
        answers::CASES,
        connections::CASES,
        failures::CASES,
        time::CASES,
        settings::CASES,
        program::CASES,
    ];
    let trials = themes.into_iter().flatten().map(|(name, case)| {
        Trial::test(*name, || {
            case();
            Ok(())
        })
    });
    support::run_with(cluster::SCENARIOS, connections::PROGRAMS, trials)
}
