//! Real faults, and what the supervision makes of them: noticed, replaced, slowed, told of.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::{
    Lab, start,
    support::{
        Scene,
        client::{Client, get},
        system, wait_until,
    },
};

impl Lab {
    /// The next decision of this name.
    #[track_caller]
    fn decision(&mut self, name: &str) -> Value {
        loop {
            let line = self.program.line(|line| line.starts_with("{\"event\":\"decision\""));
            let decision: Value = serde_json::from_str(&line).unwrap();
            if decision["decision"] == json!(name) {
                return decision;
            }
        }
    }
}

/// Who answers a kept connection: id and process.
fn who(client: &mut Client) -> (Value, u32) {
    let identity: Value = serde_json::from_slice(&client.get("/").unwrap().body).unwrap();
    (identity["worker"].clone(), identity["pid"].as_u64().unwrap() as u32)
}

const DEADLINE_MS: u64 = 1200;
const HEALTH: [&str; 4] = ["--health-deadline-ms", "1200", "--health-patience-ms", "100"];

/// Noticed within the deadline and one beat.
#[track_caller]
fn assert_noticed_in_time(lab: &mut Lab, worker: &Value) {
    let hung = lab.decision("hung");
    assert_eq!(hung["of"], *worker);
    let silent = hung["silent_ms"].as_u64().unwrap();
    assert!((DEADLINE_MS..=DEADLINE_MS * 5 / 4).contains(&silent), "{hung}");
    assert_eq!(lab.decision("restart")["delay_ms"], json!(0));
    lab.event("listening");
}

pub fn spin_is_noticed(scene: &Scene) {
    let mut lab = start(scene.mode, &HEALTH);
    let mut client = Client::connect(&lab.address).unwrap();
    let (worker, _) = who(&mut client);
    client.request("/fault/spin").unwrap();
    assert_noticed_in_time(&mut lab, &worker);
    for _ in 0..4 {
        assert_ne!(lab.json("/")["worker"], worker);
    }
    let exit = lab.event("exit");
    if scene.is_process() {
        assert_eq!(exit["signal"], json!(6));
    } else {
        assert_eq!(exit["status"], json!("abandoned"));
    }
    let report = lab.stop();
    assert_eq!((&report["hung"], &report["restarts"]), (&json!(1), &json!(1)));
    assert_eq!(report["abandoned"], json!(u64::from(!scene.is_process())));
}

pub fn a_stopped_process_hangs(scene: &Scene) {
    let mut lab = start(scene.mode, &HEALTH);
    let (worker, pid) = who(&mut Client::connect(&lab.address).unwrap());
    system::signal(pid, 19);
    assert_noticed_in_time(&mut lab, &worker);
    assert_eq!(lab.event("exit")["signal"], json!(9));
    assert_eq!(lab.stop()["hung"], json!(1));
}

pub fn a_crash_loop_is_slowed(scene: &Scene) {
    let mut lab = start(scene.mode, &["--workers", "1", "--restart-delay-ms", "40"]);
    let mut delays = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&lab.address).unwrap();
        client.request("/fault/panic").unwrap();
        assert!(client.answer().is_err());
        delays.push(lab.decision("restart")["delay_ms"].as_u64().unwrap());
        lab.event("listening");
    }
    // Each is longer by up to a tenth, by chance.
    for (delay, expected) in delays.iter().zip([0, 40, 80, 160, 320]) {
        assert!((expected..=expected + expected / 10).contains(delay), "{delays:?}");
    }
    assert_eq!(lab.stop()["restarts"], json!(5));
}

pub fn a_leak_is_recycled(scene: &Scene) {
    let further = [&HEALTH[..], &["--recycle-memory", "64"]].concat();
    let mut lab = start(scene.mode, &further);
    let mut client = Client::connect(&lab.address).unwrap();
    let (worker, _) = who(&mut client);
    assert_eq!(client.get("/fault/leak-memory?mib=80").unwrap().status, 200);
    let decision = lab.decision("recycle");
    assert_eq!(decision["of"], worker);
    lab.event("listening");
    assert_eq!(lab.event("exit")["worker"], worker);
    let report = lab.stop();
    assert_eq!((&report["recycled"], &report["exits"]), (&json!(1), &json!({"code 0": 3})));
}

pub fn requests_and_age_recycle(scene: &Scene) {
    for bound in [["--recycle-requests", "3"], ["--recycle-age-ms", "300"]] {
        let mut lab = start(scene.mode, &[&HEALTH[..], &bound].concat());
        for _ in 0..8 {
            assert_eq!(lab.get("/plaintext").status, 200);
        }
        lab.decision("recycle");
        lab.event("listening");
        lab.event("exit");
        assert_eq!(lab.stop()["restarts"], json!(0));
    }
}

pub fn load_scales(scene: &Scene) {
    let further = ["--workers", "1", "--autoscale", "1..3", "--autoscale-after-ms", "100"];
    let mut lab = start(scene.mode, &further);
    let (address, stop) = (lab.address.clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = get(&address, "/burn?ms=20");
                }
            });
        }
        let scaled = lab.decision("scale");
        stop.store(true, Ordering::Relaxed);
        assert_eq!((&scaled["from"], &scaled["to"]), (&json!(1), &json!(2)));
    });
    loop {
        if lab.decision("scale")["to"] == json!(1) {
            break;
        }
    }
    lab.stop();
}

pub fn a_stop_is_announced(scene: &Scene) {
    let lab = start(scene.mode, &["--shutdown-delay-ms", "1500"]);
    assert_eq!(lab.get("/ready").status, 200);
    lab.program.signal(15);
    wait_until("it to be unready", || lab.get("/ready").status == 503);
    assert_eq!(lab.get("/plaintext").status, 200);
    let report = lab.succeed();
    assert_eq!(report["forced_kills"], json!(0));
}

pub fn a_drain_has_an_end(scene: &Scene) {
    let mut lab = start(scene.mode, &["--shutdown-drain-ms", "200"]);
    let mut client = Client::connect(&lab.address).unwrap();
    who(&mut client);
    client.request("/sleep?ms=60000").unwrap();
    lab.program.signal(15);
    lab.event("exit");
    assert!(client.answer().is_err());
    assert_eq!(lab.succeed()["closed"], json!(1));
}

pub fn reload_by_signal(scene: &Scene) {
    let mut lab = start(scene.mode, &[]);
    lab.program.signal(1);
    lab.decision("reload");
    lab.decision("reloaded");
    // The last old one may answer what it has still taken.
    wait_until("a new worker to answer", || lab.json("/")["worker"].as_u64() > Some(2));
    assert_eq!(lab.stop()["reloads"], json!(1));
}
