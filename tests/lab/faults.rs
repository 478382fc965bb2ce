//! Each fault: who survives, who is replaced, and the exit status that is seen.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use serde_json::json;

use crate::{
    Lab, serve, start,
    support::{Scene, client::Client, system, wait_until},
};

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;

/// The crashes, and what is seen of them: a code or a signal.
const CRASHES: [(&str, Option<i32>, Option<i32>); 4] = [
    ("abort", None, Some(SIGABRT)),
    ("segfault", None, Some(SIGSEGV)),
    // Rust's own handler recognises the guard page and aborts.
    ("stack-overflow", None, Some(SIGABRT)),
    ("exit", Some(3), None),
];

/// Asks for a fault that nobody can answer.
fn commit(lab: &Lab, fault: &str) -> Client {
    let mut client = Client::connect(&lab.address).unwrap();
    client.request(&format!("/fault/{fault}")).unwrap();
    client
}

pub fn panic(scene: &Scene) {
    let mut lab = start(scene.mode, &[]);
    commit(&lab, "panic");
    let exit = lab.event("exit");
    assert_eq!((&exit["code"], &exit["signal"]), (&json!(101), &json!(null)));
    assert_eq!(exit["exited_after_disconnect"], json!(false));
    let replacement = lab.event("listening");
    assert_eq!((&replacement["slot"], &replacement["generation"]), (&exit["slot"], &json!(2)));
    assert_eq!(lab.get("/plaintext").status, 200);
    let report = lab.stop();
    assert_eq!(report["exits"], json!({"code 0": 2, "code 101 (panic)": 1}));
    assert_eq!(report["restarts"], json!(1));
}

/// As a process only the worker dies; as a thread the program does.
pub fn crashes(scene: &Scene) {
    for (fault, code, signal) in CRASHES {
        let mut lab = start(scene.mode, &[]);
        commit(&lab, fault);
        if !scene.is_process() {
            let status = lab.program.wait();
            assert_eq!((status.code(), status.signal()), (code, signal), "{fault}");
            continue;
        }
        let exit = lab.event("exit");
        assert_eq!((&exit["code"], &exit["signal"]), (&json!(code), &json!(signal)), "{fault}");
        assert_eq!(lab.event("listening")["slot"], exit["slot"], "{fault}");
        assert_eq!(lab.get("/plaintext").status, 200, "{fault}");
        assert_eq!(lab.stop()["restarts"], json!(1), "{fault}");
    }
}

/// The others serve. What ends the stuck worker depends on the mode.
pub fn spin(scene: &Scene) {
    let mut lab = start(scene.mode, &["--scheduling", "shared"]);
    let mut client = Client::connect(&lab.address).unwrap();
    let identity = client.get("/").unwrap();
    let identity: serde_json::Value = serde_json::from_slice(&identity.body).unwrap();
    let pid = identity["pid"].as_u64().unwrap() as u32;
    let before = serve::cpu_time(pid);
    client.request("/fault/spin").unwrap();
    // What it accepted in the very turn in which it got stuck would be lost in it.
    let enough = before + Duration::from_millis(50);
    wait_until("a worker that spins", || serve::cpu_time(pid) > enough);
    for _ in 0..100 {
        assert_ne!(lab.json("/")["worker"], identity["worker"], "a stuck worker took a connection");
    }
    if scene.is_process() {
        system::signal(pid, SIGKILL);
        assert_eq!(lab.event("exit")["signal"], json!(SIGKILL));
        lab.event("listening");
        assert_eq!(lab.stop()["restarts"], json!(1));
        return;
    }
    lab.program.signal(15);
    lab.event("exit");
    // Sooner it would count as the same signal.
    serve::pass(Duration::from_millis(150));
    let report = lab.stop();
    assert_eq!(report["exits"], json!({"abandoned": 1, "code 0": 1}));
    assert_eq!((&report["abandoned"], &report["forced_kills"]), (&json!(1), &json!(1)));
}

pub fn leaks(scene: &Scene) {
    let lab = start(scene.mode, &[]);
    let mut client = Client::connect(&lab.address).unwrap();
    let identity = client.get("/").unwrap();
    let identity: serde_json::Value = serde_json::from_slice(&identity.body).unwrap();
    let pid = identity["pid"].as_u64().unwrap() as u32;
    let before = system::descriptors_of(pid).len();
    assert_eq!(client.get("/fault/leak-fd?n=20").unwrap().text(), "leaked 20 descriptors\n");
    assert!(system::descriptors_of(pid).len() >= before + 20);
    assert_eq!(client.get("/fault/leak-memory?mib=2").unwrap().text(), "leaked 2 MiB\n");
    assert_eq!(client.get("/fault/leak-fd?n=x").unwrap().status, 400);
    lab.stop();
}
