//! How the lab starts, stops, and refuses to start.

use std::thread;

use bimodal::Address;
use serde_json::json;

use crate::{
    Lab, command, serve, start,
    support::{Scene, client::Client, ledger::Ledger, program::Program, wait_until},
};

pub fn first_line_and_last(scene: &Scene) {
    let lab = start(scene.mode, &["--scheduling", "least-connections"]);
    let expected = format!(
        "listening on http://{} mode={} workers=2 scheduling=least-connections primary={}",
        lab.address,
        scene.mode,
        lab.program.pid()
    );
    assert_eq!(lab.ready, expected);
    let names: Vec<_> = lab.program.output.iter().filter(|line| line.starts_with('{')).collect();
    assert!(names[0].starts_with(r#"{"event":"setup","#), "{names:#?}");
    let report = lab.stop();
    assert_eq!(report["event"], json!("report"));
    assert_eq!(report["exits"], json!({"code 0": 2}));
}

pub fn all_policies(scene: &Scene) {
    for policy in ["round-robin", "least-connections", "shared", "reuse-port"] {
        let lab = start(scene.mode, &["--scheduling", policy]);
        assert!(lab.ready.contains(&format!(" scheduling={policy} ")), "{}", lab.ready);
        for _ in 0..20 {
            assert_eq!(lab.get("/plaintext").text(), "Hello, World!", "{policy}");
        }
        lab.stop();
    }
}

const SLOW: usize = 24;
const HAMMERS: usize = 4;

/// Every request that the lab took is answered; what it did not take, it did not begin to answer.
pub fn sigterm_under_load(scene: &Scene) {
    for policy in ["round-robin", "shared", "reuse-port"] {
        let lab = start(scene.mode, &["--scheduling", policy]);
        let (slow, fast) = (Ledger::default(), Ledger::default());
        thread::scope(|scope| {
            for _ in 0..SLOW {
                scope.spawn(|| slow.count(slow_request(&lab.address)));
            }
            for _ in 0..HAMMERS {
                scope.spawn(|| hammer(&lab.address, &fast));
            }
            wait_until("all slow requests under way", || open_connections(&lab) >= SLOW as u64);
            wait_until("traffic", || fast.get("ok") > 50);
            lab.program.signal(15);
        });
        slow.assert_only("ok");
        assert_eq!(fast.get("torn"), 0, "{policy}:\n{fast}");
        let report = lab.succeed();
        assert_eq!(report["forced_kills"], json!(0), "{policy}");
    }
}

fn open_connections(lab: &Lab) -> u64 {
    let rows = lab.json("/stats");
    let open = |row: &serde_json::Value| row["connections_open"].as_u64().unwrap();
    // Those of the hammers, at most one each, and this one's own.
    let all: u64 = rows.as_array().unwrap().iter().map(open).sum();
    all.saturating_sub(HAMMERS as u64 + 1)
}

fn slow_request(address: &Address) -> String {
    let mut client = Client::connect(address).unwrap();
    match client.get("/sleep?ms=700") {
        Ok(answer) if answer.status == 200 => "ok".into(),
        Ok(answer) => answer.status.to_string(),
        Err(error) => error.kind().to_string(),
    }
}

/// Requests, each on a connection of its own, until nobody listens any more.
fn hammer(address: &Address, ledger: &Ledger) {
    while let Ok(mut client) = Client::connect(address) {
        let outcome = client.get("/plaintext");
        ledger.count(match outcome {
            Ok(answer) if answer.status == 200 => "ok",
            Ok(_) => "other status",
            Err(_) if started(client) => "torn",
            Err(_) => "not taken",
        });
    }
    ledger.count("refused");
}

/// Whether an answer had begun to come.
fn started(mut client: Client) -> bool {
    client.take(1).is_ok_and(|byte| !byte.is_empty())
}

pub fn bad_arguments(scene: &Scene) {
    let mode = scene.mode.to_string();
    for (arguments, reason) in [
        (["--mode", "fibre"], "process or thread"),
        (["--workers", "0"], "from 1 to"),
        (["--scheduling", "lottery"], "round-robin, least-connections, shared or reuse-port"),
        (["--listen", "nowhere"], "unix:PATH"),
        (["--pool-threads", "0"], "there must be 1 to 512"),
        // Not this machine's address.
        (["--listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0"),
    ] {
        let mut command = command(&[]);
        let mut lab = Program::spawn(command.env("BIMODAL_MODE", &mode).args(arguments));
        assert!(!lab.wait().success(), "{arguments:?}");
        let errors = lab.errors();
        assert!(errors.contains(reason), "{arguments:?}: {errors}");
        serve::assert_nobody_left(lab.pid());
    }
}
