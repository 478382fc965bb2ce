//! Answers in every form that HTTP/1 has, and whether they are the expected ones.

use bimodal::{
    http::Method,
    load::{Expect, Load, Outcome, Request},
};

use crate::{
    Case,
    server::{OK, Server, answer, path},
};

pub const CASES: &[Case] = &[
    ("answers_in_any_form_are_understood", forms),
    ("an_answer_may_come_byte_by_byte", pieces),
    ("a_large_answer_is_read_to_its_end", large),
    ("another_status_is_a_failure", status),
    ("another_body_is_a_failure", body),
    ("a_body_longer_than_it_says_is_a_failure", surplus),
    ("garbage_is_a_failure", garbage),
    ("a_head_without_an_end_is_a_failure", long_head),
    ("answers_are_counted_by_a_field", count_by),
    ("each_class_has_its_own_answer", classes),
    ("a_head_request_has_no_body", head),
];

fn expecting(body: &str) -> Request {
    Request { expect: Expect { body: Some(body.into()), ..Expect::default() }, ..Request::get("/") }
}

#[track_caller]
fn assert_all_completed(outcome: &Outcome, requests: u64) {
    let counts = (outcome.scheduled(), outcome.completed(), outcome.failures().total());
    assert_eq!(counts, (requests, requests, 0), "{}", outcome.failures());
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n";

fn forms() {
    let preceded = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for text in [CHUNKED, preceded] {
        let server = Server::answering(text);
        let outcome = server.load(20).request(1, expecting("hello")).run().unwrap();
        assert_all_completed(&outcome, 20);
        assert_eq!(server.accepted(), 1, "{text}");
    }
    let until_close = Server::new(|mut peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\nhello")
    });
    let outcome = until_close.load(20).request(1, expecting("hello")).run().unwrap();
    assert_all_completed(&outcome, 20);
    assert_eq!(until_close.accepted(), 20);
}

fn pieces() {
    let server = Server::new(|mut peer, _| {
        while peer.request()?.is_some() {
            for at in 0..CHUNKED.len() {
                peer.send(&CHUNKED[at..=at])?;
                std::thread::yield_now();
            }
        }
        Ok(())
    });
    let outcome = server.load(20).request(1, expecting("hello")).run().unwrap();
    assert_all_completed(&outcome, 20);
    assert_eq!(server.accepted(), 1);
}

fn large() {
    const LENGTH: usize = 5 << 20;
    let server = Server::new(|mut peer, _| {
        let text = answer(&"x".repeat(LENGTH));
        while peer.request()?.is_some() {
            peer.send(&text)?;
        }
        Ok(())
    });
    let expect = Expect { length: Some(LENGTH as u64), ..Expect::default() };
    let request = Request { expect, ..Request::get("/") };
    assert_all_completed(&server.load(4).request(1, request).run().unwrap(), 4);
}

fn status() {
    let server = Server::answering("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno");
    let outcome = server.load(10).run().unwrap();
    assert_eq!((outcome.failures().status, outcome.failures().total()), (10, 10));
    assert_eq!((outcome.completed(), outcome.latency().len()), (0, 0));
    // The connection is as good as before.
    assert_eq!(server.accepted(), 1);
    let expect = Expect { status: 503, ..Expect::default() };
    let wanted = Request { expect, ..Request::get("/") };
    assert_all_completed(&server.load(10).request(1, wanted).run().unwrap(), 10);
}

fn body() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let length = |length| Request {
        expect: Expect { length: Some(length), ..Expect::default() },
        ..Request::get("/")
    };
    for request in [expecting("hallo"), expecting("hell"), expecting("hello!"), length(4)] {
        let failures = server.load(10).request(1, request).run().unwrap().failures();
        assert_eq!((failures.answer, failures.total()), (10, 10));
    }
    assert_all_completed(&server.load(10).request(1, length(5)).run().unwrap(), 10);
}

fn surplus() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello");
    let outcome = server.load(10).run().unwrap();
    let failures = outcome.failures();
    assert_eq!((failures.answer, failures.total()), (10, 10), "{failures}");
}

fn garbage() {
    for text in
        ["SSH-2.0-OpenSSH_9.6\r\n", "\0\0\0\0", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
    {
        let server = Server::answering(text);
        let failures = server.load(10).run().unwrap().failures();
        assert_eq!((failures.answer, failures.total()), (10, 10), "{text:?}: {failures}");
    }
}

fn long_head() {
    let server = Server::new(|mut peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nX: ")?;
        loop {
            peer.send(&"x".repeat(1024))?;
        }
    });
    let failures = server.load(3).run().unwrap().failures();
    assert_eq!((failures.answer, failures.total()), (3, 3), "{failures}");
}

fn count_by() {
    let server = Server::new(|mut peer, number| {
        while peer.request()?.is_some() {
            peer.send(&answer(&format!(r#"{{"x":[{{"worker":9}}],"worker":"w{number}"}}"#)))?;
        }
        Ok(())
    });
    let load = server.load(400).connections(4).threads(2).count_by("worker");
    let outcome = load.run().unwrap();
    assert_all_completed(&outcome, 400);
    assert_eq!(outcome.workers.values().sum::<u64>(), 400);
    assert!(outcome.workers.keys().all(|name| ["w0", "w1", "w2", "w3"].contains(&name.as_str())));
    assert_eq!(outcome.workers.len() as u64, server.accepted());
    let without = Server::answering(OK).load(5).count_by("worker").run().unwrap();
    assert_eq!(Vec::from_iter(without.workers), [("(none)".to_owned(), 5)]);
}

fn classes() {
    let server = Server::new(|mut peer, _| {
        while let Some(request) = peer.request()? {
            peer.send(&answer(path(&request)))?;
        }
        Ok(())
    });
    let class = |path: &str| Request { path: path.into(), ..expecting(path) };
    let load = |seed| -> Load {
        let load = server.load(1000).seed(seed).pipeline(8);
        load.request(3, Request { name: "often".into(), ..class("/a") }).request(1, class("/b?c=d"))
    };
    let outcome = load(5).run().unwrap();
    assert_all_completed(&outcome, 1000);
    let names: Vec<_> = outcome.classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["often", "/"]);
    let counts =
        |outcome: &Outcome| Vec::from_iter(outcome.classes.iter().map(|class| class.completed));
    assert!((650..850).contains(&counts(&outcome)[0]), "{:?}", counts(&outcome));
    assert_eq!(counts(&load(5).run().unwrap()), counts(&outcome));
    assert_eq!(outcome.latency().len(), 1000);
    assert_eq!(outcome.classes[0].latency.len(), counts(&outcome)[0]);
}

fn head() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
    let request = Request { method: Method::HEAD, ..Request::get("/") };
    assert_all_completed(&server.load(10).request(1, request).run().unwrap(), 10);
}
