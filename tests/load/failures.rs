//! Requests without an answer, by kind.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use bimodal::load::{Arrival, Load, Until};
use socket2::SockRef;

use crate::{
    Case,
    server::{OK, Server},
    support::wait_until,
};

pub const CASES: &[Case] = &[
    ("nobody_listens", refused),
    ("a_reset_is_a_reset", reset),
    ("an_end_without_an_answer_is_closed", closed),
    ("an_end_in_the_middle_is_closed", closed_in_the_middle),
    ("silence_times_out", silence),
    ("an_answer_without_an_end_times_out", endless),
    ("others_on_the_connection_are_closed", behind),
    ("what_comes_after_a_failure_counts", recovery),
    ("what_never_went_is_unsent", unsent),
    ("stopping_ends_it_at_once", stop),
];

fn refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let load = Load::new(&url).unwrap().connections(2).until(Until::Requests(6));
    for load in [load.clone(), load.arrival(Arrival::Constant { per_second: 100.0 })] {
        let outcome = load.run().unwrap();
        let failures = outcome.failures();
        assert_eq!((failures.connect, failures.total()), (6, 6), "{failures}");
        assert_eq!(outcome.connections, 0);
    }
}

fn reset() {
    let server = Server::new(|mut peer, _| {
        peer.request()?;
        SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO))
    });
    let failures = server.load(10).run().unwrap().failures();
    assert_eq!((failures.reset, failures.total()), (10, 10), "{failures}");
}

fn closed() {
    let server = Server::new(|mut peer, _| peer.request().map(drop));
    let failures = server.load(10).run().unwrap().failures();
    assert_eq!((failures.closed, failures.total()), (10, 10), "{failures}");
}

fn closed_in_the_middle() {
    for part in ["HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"] {
        let server = Server::new(move |mut peer, _| {
            peer.request()?;
            peer.send(part)
        });
        let failures = server.load(10).run().unwrap().failures();
        assert_eq!((failures.closed, failures.total()), (10, 10), "{part:?}: {failures}");
    }
}

fn silence() {
    let server = Server::new(|mut peer, _| peer.wait_for_end());
    let load = server.load(3).timeout(Duration::from_millis(50));
    let outcome = load.run().unwrap();
    let failures = outcome.failures();
    assert_eq!((failures.timed_out, failures.total()), (3, 3), "{failures}");
    assert_eq!(outcome.connections, 3);
    assert!(outcome.elapsed >= Duration::from_millis(150), "{:?}", outcome.elapsed);
}

fn endless() {
    let chunk = format!("{:x}\r\n{}\r\n", 4096, "x".repeat(4096));
    let server = Server::new(move |mut peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            peer.send(&chunk)?;
        }
    });
    let failures = server.load(3).timeout(Duration::from_millis(100)).run().unwrap().failures();
    assert_eq!((failures.timed_out, failures.total()), (3, 3), "{failures}");
}

fn behind() {
    let server = Server::new(|mut peer, _| {
        for _ in 0..5 {
            peer.request()?;
        }
        peer.send(&format!("{OK}garbage\r\n\r\n"))?;
        peer.wait_for_end()
    });
    let outcome = server.load(5).pipeline(5).run().unwrap();
    let failures = outcome.failures();
    assert_eq!(outcome.completed(), 1, "{failures}");
    assert_eq!((failures.answer, failures.closed, failures.total()), (1, 3, 4), "{failures}");
}

fn recovery() {
    let requests = AtomicU64::new(0);
    let server = Server::new(move |mut peer, _| {
        while peer.request()?.is_some() {
            if requests.fetch_add(1, SeqCst) % 5 == 4 {
                return Ok(());
            }
            peer.send(OK)?;
        }
        Ok(())
    });
    let outcome = server.load(50).run().unwrap();
    let failures = outcome.failures();
    assert_eq!(
        (outcome.completed(), failures.closed, failures.total()),
        (40, 10, 10),
        "{failures}"
    );
    let ticks = outcome.timeline.iter();
    let (completed, failed) = ticks.fold((0, 0), |(completed, failed), tick| {
        (completed + tick.completed, failed + tick.failed)
    });
    assert_eq!((completed, failed), (40, 10));
}

fn unsent() {
    let server = Server::new(|mut peer, _| peer.wait_for_end());
    let load = server
        .load(1)
        .arrival(Arrival::Constant { per_second: 100.0 })
        .until(Until::Elapsed(Duration::from_millis(300)))
        .timeout(Duration::from_secs(2));
    let outcome = load.run().unwrap();
    let failures = outcome.failures();
    // The first is under way, and waited for; no other gets a connection.
    assert_eq!(failures.timed_out, 1, "{failures}");
    assert!((28..=30).contains(&failures.unsent), "{failures}");
    assert_eq!(outcome.scheduled(), failures.total());
    assert_eq!(outcome.elapsed, Duration::from_millis(300));
}

fn stop() {
    let server = Server::new(|mut peer, number| {
        while peer.request()?.is_some() {
            // The second connection stays without an answer.
            if number == 0 {
                peer.send(OK)?;
            }
        }
        Ok(())
    });
    let until = Until::Elapsed(Duration::from_secs(3600));
    let running = server.load(1).connections(2).until(until).start().unwrap();
    wait_until("answers", || running.progress().completed > 100);
    assert!(!running.progress().is_over);
    running.stop();
    let outcome = running.wait().unwrap();
    // What is under way does not count.
    assert_eq!(outcome.scheduled(), outcome.completed());
    assert!(outcome.completed() > 100 && outcome.elapsed < Duration::from_secs(60));
}
