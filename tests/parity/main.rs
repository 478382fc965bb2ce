//! Every behaviour, in both modes, from one source; what only one mode can do or suffer is in [`process`]
//! and [`thread`].
//!
//! A difference between the modes is named where it is asserted.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../serve/mod.rs"]
mod serve;
#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod bodies;
mod captured;
mod clusters;
mod datagrams;
mod events;
mod http;
mod leaving;
mod limits;
mod listen;
mod messages;
mod orders;
mod own_sockets;
mod process;
mod rows;
mod scheduling;
mod sharing;
mod supervised;
mod thread;

use std::process::ExitCode;

/// Started again by tests that look at a server from outside.
const SERVERS: &[support::Scenario] = &[support::both(serve::SERVE, serve::serve)];

fn main() -> ExitCode {
    let themes = [
        events::SCENARIOS,
        listen::SCENARIOS,
        addresses::SCENARIOS,
        own_sockets::SCENARIOS,
        limits::SCENARIOS,
        sharing::SCENARIOS,
        datagrams::SCENARIOS,
        messages::SCENARIOS,
        leaving::SCENARIOS,
        supervised::SCENARIOS,
        scheduling::SCENARIOS,
        captured::SCENARIOS,
        http::SCENARIOS,
        clusters::SCENARIOS,
        process::SCENARIOS,
        thread::SCENARIOS,
    ];
    let programs = [
        SERVERS,
        supervised::PROGRAMS,
        clusters::PROGRAMS,
        process::PROGRAMS,
        thread::PROGRAMS,
        addresses::PROGRAMS,
        sharing::PROGRAMS,
    ];
    let scenarios = Vec::from_iter(themes.into_iter().flatten());
    let node_rows = rows::table::check(scenarios.clone());
    support::run_with(scenarios, programs.into_iter().flatten(), [node_rows])
}
