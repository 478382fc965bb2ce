//! Every behaviour, in both modes, from one source.
//!
//! A difference between the modes is named where it is asserted.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod captured;
mod clusters;
mod events;
mod http;
mod leaving;
mod listen;
mod messages;
mod scheduling;
mod supervised;

use std::process::ExitCode;

fn main() -> ExitCode {
    let themes = [
        events::SCENARIOS,
        listen::SCENARIOS,
        messages::SCENARIOS,
        leaving::SCENARIOS,
        supervised::SCENARIOS,
        scheduling::SCENARIOS,
        captured::SCENARIOS,
        http::SCENARIOS,
        clusters::SCENARIOS,
    ];
    let programs = [supervised::PROGRAMS, clusters::PROGRAMS];
    support::run(themes.into_iter().flatten(), programs.into_iter().flatten())
}
