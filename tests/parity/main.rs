//! Every behaviour, in both modes, from one source; what only one mode can do or suffer is in [`process`]
//! and [`thread`].
//!
//! A difference between the modes is named where it is asserted.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../serve/mod.rs"]
mod serve;
#[cfg(feature = "redis")]
// Its own suite uses the rest.
#[allow(dead_code)]
#[path = "../store/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod accepting;
mod activation;
mod acts;
mod addresses;
mod bodies;
mod broadcasts;
mod captured;
mod clusters;
#[cfg(feature = "compare")]
mod comparing;
mod cores;
mod datagrams;
mod ending;
mod events;
mod first;
mod forking;
mod health;
mod http;
mod isolation;
mod leaving;
mod ledgers;
mod limits;
mod listen;
mod load;
mod manager;
mod messages;
mod observing;
mod orders;
mod own_sockets;
mod pinning;
mod pool;
mod ports;
mod process;
mod recycling;
mod regions;
mod reloading;
mod restarting;
mod roles;
mod rows;
mod scaling;
mod scheduling;
mod sending;
mod service;
mod shared_locks;
mod shared_memory;
mod sharing;
mod shutdown;
mod sockets;
mod status;
mod status_socket;
mod stopping;
// Most of it needs a store that processes share.
#[cfg_attr(not(any(feature = "store-lmdb", feature = "redis")), allow(dead_code, unused_imports))]
mod stores;
mod supervised;
mod supervising;
mod thread;
mod upgrade;

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
        sending::SCENARIOS,
        sockets::SCENARIOS,
        ports::SCENARIOS,
        broadcasts::SCENARIOS,
        load::SCENARIOS,
        regions::SCENARIOS,
        pinning::SCENARIOS,
        pool::SCENARIOS,
        shared_memory::SCENARIOS,
        shared_locks::SCENARIOS,
        stores::SCENARIOS,
        leaving::SCENARIOS,
        supervised::SCENARIOS,
        scheduling::SCENARIOS,
        accepting::SCENARIOS,
        captured::SCENARIOS,
        http::SCENARIOS,
        clusters::SCENARIOS,
        #[cfg(feature = "compare")]
        comparing::SCENARIOS,
        process::SCENARIOS,
        thread::SCENARIOS,
        roles::SCENARIOS,
        forking::SCENARIOS,
        observing::SCENARIOS,
        ending::SCENARIOS,
        shutdown::SCENARIOS,
        isolation::SCENARIOS,
        restarting::SCENARIOS,
        health::SCENARIOS,
        recycling::SCENARIOS,
        scaling::SCENARIOS,
        reloading::SCENARIOS,
        stopping::SCENARIOS,
        status::SCENARIOS,
        status_socket::SCENARIOS,
        ledgers::SCENARIOS,
        cores::SCENARIOS,
        first::SCENARIOS,
        upgrade::SCENARIOS,
        manager::SCENARIOS,
        activation::SCENARIOS,
    ];
    let programs = [
        SERVERS,
        accepting::PROGRAMS,
        load::PROGRAMS,
        supervised::PROGRAMS,
        clusters::PROGRAMS,
        #[cfg(feature = "compare")]
        comparing::PROGRAMS,
        process::PROGRAMS,
        thread::PROGRAMS,
        roles::PROGRAMS,
        forking::PROGRAMS,
        observing::PROGRAMS,
        shutdown::PROGRAMS,
        isolation::PROGRAMS,
        addresses::PROGRAMS,
        sharing::PROGRAMS,
        health::PROGRAMS,
        scaling::PROGRAMS,
        reloading::PROGRAMS,
        stopping::PROGRAMS,
        cores::PROGRAMS,
        first::PROGRAMS,
        service::PROGRAMS,
        activation::PROGRAMS,
        status_socket::PROGRAMS,
    ];
    let scenarios = Vec::from_iter(themes.into_iter().flatten());
    let node_rows = rows::table::check(scenarios.clone());
    support::run_with(scenarios, programs.into_iter().flatten(), [node_rows])
}
