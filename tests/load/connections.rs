//! Connections: how many, how long each is used, what is under way on it, and that none is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bimodal::load::{Arrival, Reuse, Until};

use crate::{
    Case,
    server::{OK, Server, answer},
    support::{
        Scenario, Scene, only, program,
        system::{descriptors, threads},
        wait_until,
    },
};

pub const CASES: &[Case] = &[
    ("a_connection_is_used_for_as_many_requests_as_it_may", reuse),
    ("a_connection_for_one_request_says_so", close),
    ("a_server_that_says_close_is_believed", server_closes),
    ("an_open_loop_takes_turns_on_its_connections", turns),
    ("requests_go_out_before_the_answers_come_in", pipeline),
    ("threads_share_connections_and_requests", sharing),
    ("nothing_outlives_a_load", leaves_nothing),
];

/// In a process of its own, whose threads and descriptors are nobody else's.
pub const PROGRAMS: &[Scenario] = &[only(&[bimodal::Mode::Thread], "leaves_nothing", left)];

fn reuse() {
    let counts = Arc::new(Mutex::new(BTreeMap::<u64, u64>::new()));
    let server = Server::new({
        let counts = counts.clone();
        move |mut peer, number| {
            while peer.request()?.is_some() {
                *counts.lock().unwrap().entry(number).or_default() += 1;
                peer.send(OK)?;
            }
            Ok(())
        }
    });
    // The pipeline does not go beyond the limit either.
    for pipeline in [1, 3] {
        counts.lock().unwrap().clear();
        let load = server.load(50).reuse(Reuse::Requests(5)).pipeline(pipeline);
        let outcome = load.run().unwrap();
        assert_eq!((outcome.completed(), outcome.connections), (50, 10), "{}", outcome.failures());
        let counts = counts.lock().unwrap();
        assert_eq!(Vec::from_iter(counts.values()), [&5; 10]);
    }
    assert_eq!(server.accepted(), 20);
}

fn close() {
    let server = Server::new(|mut peer, _| {
        let request = peer.request()?.unwrap_or_default();
        let is_told = request.contains("\r\nConnection: close\r\n");
        peer.send(if is_told { OK } else { "HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n" })?;
        peer.wait_for_end()
    });
    let outcome = server.load(30).connections(3).reuse(Reuse::Close).run().unwrap();
    assert_eq!((outcome.completed(), outcome.connections), (30, 30), "{}", outcome.failures());
    assert_eq!(server.accepted(), 30);
}

fn server_closes() {
    let server = Server::new(|mut peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    });
    let outcome = server.load(30).run().unwrap();
    assert_eq!((outcome.completed(), outcome.connections), (30, 30), "{}", outcome.failures());
}

fn turns() {
    let server = Server::new(|mut peer, number| {
        while peer.request()?.is_some() {
            peer.send(&answer(&format!(r#"{{"worker":{number}}}"#)))?;
        }
        Ok(())
    });
    let load = server.load(80).connections(4).count_by("worker");
    let outcome = load.arrival(Arrival::Constant { per_second: 200.0 }).run().unwrap();
    assert_eq!(outcome.connections, 4);
    assert_eq!(outcome.workers.len(), 4, "{:?}", outcome.workers);
}

fn pipeline() {
    let server = Server::new(|mut peer, _| {
        // Nothing is answered before four are there.
        loop {
            for _ in 0..4 {
                if peer.request()?.is_none() {
                    return Ok(());
                }
            }
            peer.send(&OK.repeat(4))?;
        }
    });
    let outcome = server.load(40).pipeline(4).run().unwrap();
    assert_eq!((outcome.completed(), outcome.connections), (40, 1), "{}", outcome.failures());
    let load = server.load(3).timeout(Duration::from_millis(100));
    let failures = load.run().unwrap().failures();
    assert_eq!((failures.timed_out, failures.total()), (3, 3), "{failures}");
}

fn sharing() {
    let server = Server::answering(OK);
    let outcome = server.load(100).connections(7).threads(3).run().unwrap();
    assert_eq!((outcome.completed(), outcome.scheduled()), (100, 100), "{}", outcome.failures());
    assert!((3..=7).contains(&server.accepted()), "{}", server.accepted());
    assert_eq!(outcome.connections, server.accepted());
    assert_eq!(outcome.latency().len(), 100);
}

fn leaves_nothing() {
    program::start("leaves_nothing", bimodal::Mode::Thread).succeed();
}

fn left(_: &Scene) {
    let server = Server::answering(OK);
    let before = (threads(), descriptors());
    let load = server.load(1).connections(20).threads(3);
    drop(load.run().unwrap());
    let for_long = load.until(Until::Elapsed(Duration::from_secs(3600)));
    drop(for_long.start().unwrap());
    // One that is dropped in the middle.
    let running = for_long.start().unwrap();
    wait_until("answers", || running.progress().completed > 100);
    drop(running);
    // The server's ends follow.
    wait_until("the end of everything", || (threads(), descriptors()) == before);
}
