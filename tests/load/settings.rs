//! Settings that cannot hold are refused by name, with a remedy.

use std::time::Duration;

use bimodal::{
    ErrorKind,
    load::{Arrival, Load, Request, Reuse, Until},
};

use crate::Case;

pub const CASES: &[Case] = &[
    ("a_url_that_cannot_be_driven_is_refused", urls),
    ("a_setting_that_cannot_hold_is_refused", settings),
    ("a_host_without_an_address_is_an_error", host),
];

fn urls() {
    for (url, word) in [
        ("https://localhost/", "TLS"),
        ("localhost:3000", "scheme"),
        ("/path", "scheme"),
        ("", "http://HOST"),
        ("http://", "http://HOST"),
        ("http://a b/", "http://HOST"),
        ("http://me@localhost/", "user"),
        ("http://localhost:0/", "port"),
        ("http://localhost:/", "port"),
        ("http://localhost:99999/", "http://HOST"),
        ("http://localhost/#x", "fragment"),
    ] {
        let error = Load::new(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting, "{url}");
        assert!(error.to_string().contains(word), "{url}: {error}");
    }
    for url in ["http://localhost", "http://[::1]:80/a?b", "http://127.0.0.1:3000?x=y"] {
        assert!(Load::new(url).is_ok(), "{url}");
    }
}

fn settings() {
    let load = || Load::new("http://127.0.0.1:9/").unwrap();
    let rate = |per_second| load().arrival(Arrival::Poisson { per_second });
    let hour = Duration::from_secs(3600);
    for (load, word) in [
        (load().connections(0), "connections is 0"),
        (load().connections(2_000_000), "connections"),
        (load().connections(900_000), "ulimit -n"),
        (load().connections(2).threads(3), "threads is 3"),
        (load().threads(0), "threads"),
        (load().pipeline(0), "pipeline"),
        (load().reuse(Reuse::Requests(0)), "reuse"),
        (load().reuse(Reuse::Close).pipeline(2), "pipeline"),
        (load().until(Until::Requests(0)), "until"),
        (load().until(Until::Elapsed(Duration::ZERO)), "until"),
        (load().until(Until::Elapsed(hour * 2)), "until"),
        (load().warmup(hour * 2), "warmup"),
        (load().timeout(Duration::ZERO), "timeout"),
        (rate(0.0), "rate"),
        (rate(-1.0), "rate"),
        (rate(f64::NAN), "rate"),
        (rate(f64::INFINITY), "rate"),
        (rate(1e7).until(Until::Elapsed(hour)), "requests"),
        (load().request(0, Request::get("/")), "weights"),
        (load().request(u32::MAX, Request::get("/")).request(1, Request::get("/")), "weights"),
        (load().request(1, Request::get("no")), "path"),
    ] {
        let error = load.run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting, "{load:?}");
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

fn host() {
    // Reserved for names that do not exist (RFC 6761).
    let error = Load::new("http://nobody.invalid/").unwrap().run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("nobody.invalid"), "{error}");
}
