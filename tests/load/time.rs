//! What a request's time is, and when requests are due.

use std::time::{Duration, Instant};

use bimodal::load::{Arrival, Histogram, Outcome, Until};

use crate::{
    Case,
    server::{OK, Server},
};

pub const CASES: &[Case] = &[
    ("an_open_loop_shows_a_stall_that_a_closed_one_hides", stall),
    ("the_rate_is_kept_whatever_the_server_does", rate),
    ("the_warm_up_does_not_count", warmup),
    ("an_outcome_has_a_form_in_json", json),
];

const STALL: Duration = Duration::from_millis(400);

/// The server answers one request late, and all others at once.
fn stalling() -> Server {
    Server::new(|mut peer, _| {
        let mut count = 0;
        while peer.request()?.is_some() {
            count += 1;
            if count == 50 {
                std::thread::sleep(STALL); // what this server does: nothing, for a while
            }
            peer.send(OK)?;
        }
        Ok(())
    })
}

/// How many took at least 100 ms.
fn slow(times: &Histogram) -> u64 {
    times.count_between(100_000_000, u64::MAX)
}

/// "Coordinated omission": in a closed loop the stall is one request's, to the users it is that of all who came
/// meanwhile.
fn stall() {
    let closed = stalling().load(400).run().unwrap();
    let server = stalling();
    let open = server.load(400).arrival(Arrival::Constant { per_second: 500.0 }).run().unwrap();
    assert_eq!((closed.completed(), open.completed()), (400, 400));
    for outcome in [&closed, &open] {
        assert!(outcome.latency().max() >= STALL.as_nanos() as u64);
        // From the send, the stall is one request's in both. The others are what a busy machine does.
        assert!((1..40).contains(&slow(&outcome.service())), "{}", slow(&outcome.service()));
    }
    assert!(slow(&closed.latency()) < 40, "{}", slow(&closed.latency()));
    // Due in the first 300 ms of the stall, one every 2 ms.
    assert!(slow(&open.latency()) >= 145, "{}", slow(&open.latency()));
    let slowest = open.timeline.iter().map(|tick| tick.slowest).max().unwrap();
    assert!(slowest >= STALL, "{slowest:?}");
}

fn rate() {
    let server = Server::answering(OK);
    let until = Until::Elapsed(Duration::from_millis(500));
    for (arrival, expected) in [
        (Arrival::Constant { per_second: 400.0 }, 199..=201),
        (Arrival::Poisson { per_second: 400.0 }, 130..=270),
    ] {
        let outcome =
            server.load(1).connections(4).threads(2).until(until).arrival(arrival).run().unwrap();
        assert!(expected.contains(&outcome.scheduled()), "{}", outcome.scheduled());
        // Each was sent, or is among the failures: the driver does not wait for the server.
        assert_eq!(outcome.scheduled(), outcome.completed() + outcome.failures().total());
        assert!(!outcome.lag.is_empty());
        assert_eq!(outcome.elapsed, Duration::from_millis(500));
        assert_timeline(&outcome);
    }
}

#[track_caller]
fn assert_timeline(outcome: &Outcome) {
    let places = outcome.timeline.iter().enumerate();
    let times = places.map(|(index, tick)| (tick.at, Duration::from_millis(10) * index as u32));
    times.for_each(|(at, expected)| assert_eq!(at, expected));
    assert!(outcome.timeline.len() as u128 >= outcome.elapsed.as_millis() / 10);
    let completed = outcome.timeline.iter().map(|tick| tick.completed).sum::<u64>();
    assert_eq!(completed, outcome.completed());
}

fn warmup() {
    let server = Server::answering(OK);
    let load = server
        .load(1)
        .arrival(Arrival::Constant { per_second: 200.0 })
        .warmup(Duration::from_millis(300))
        .until(Until::Elapsed(Duration::from_millis(300)));
    let outcome = load.run().unwrap();
    assert!((59..=61).contains(&outcome.scheduled()), "{}", outcome.scheduled());
    // The connection was opened before, and is still there.
    assert_eq!((outcome.connections, server.accepted()), (1, 1));
    let (before, time) = (Instant::now(), Duration::from_millis(100));
    let closed = server.load(20).warmup(time).start().unwrap();
    assert!(closed.begins() >= before + time);
    let outcome = closed.wait().unwrap();
    assert_eq!((outcome.scheduled(), outcome.latency().len()), (20, 20));
}

fn json() {
    let outcome = Server::answering(OK).load(10).run().unwrap();
    let value = serde_json::to_value(&outcome).unwrap();
    assert_eq!(value["classes"][0]["name"], "default");
    assert_eq!(value["classes"][0]["completed"], 10);
    assert_eq!(value["elapsed"].as_f64().unwrap(), outcome.elapsed.as_secs_f64());
    let latency = &value["classes"][0]["latency"];
    assert_eq!(latency["count"], 10);
    assert_eq!(latency["max"], outcome.latency().max());
    assert_eq!(latency["p99.9"], outcome.latency().value_at_quantile(0.999));
    let cumulative = latency["cumulative"].as_array().unwrap();
    assert_eq!(cumulative.last().unwrap()[1], 10);
    assert!(cumulative.is_sorted_by_key(|pair| pair[0].as_u64().unwrap()));
}
