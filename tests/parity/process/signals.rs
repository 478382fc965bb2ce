//! Signals from outside: to the primary, to a worker, to a worker that has connections under way.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use bimodal::Mode;

use crate::{
    serve::{self, Server, group},
    support::{Scene, client::Client, system, wait_until},
};

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

fn start(workers: usize, options: &[&str]) -> Server {
    serve::start(Mode::Process, workers, options)
}

/// A client with a request under way.
fn request(server: &Server, path: &str) -> Client {
    let mut client = Client::connect(&server.address).unwrap();
    client.request(path).unwrap();
    client
}

/// The id and the process of the worker that this client talks to.
fn who(client: &mut Client) -> (u64, u32) {
    let answer = client.get("/").unwrap();
    let (id, pid) = answer.text().split_once(' ').unwrap();
    (id.parse().unwrap(), pid.parse().unwrap())
}

pub fn killed_primary_leaves_no_worker(_: &Scene) {
    let server = start(3, &[]);
    let mut spinning = Client::connect(&server.address).unwrap();
    let (_, pid) = who(&mut spinning);
    spinning.request("/spin").unwrap();
    wait_until("a worker that spins", || serve::cpu_time(pid) > Duration::from_millis(50));
    stop_process(*server.pids.iter().find(|other| **other != pid).unwrap());
    assert_eq!(group(server.primary()).len(), 4);
    server.program.signal(SIGKILL);
    serve::assert_nobody_left(server.primary());
}

pub fn sigterm_drains_the_cluster(_: &Scene) {
    let server = start(2, &[]);
    let mut idle = Client::connect(&server.address).unwrap();
    who(&mut idle);
    let mut busy: Vec<_> = (0..4).map(|_| request(&server, "/sleep/300")).collect();
    let mut late = Client::connect(&server.address).unwrap();
    // Whoever answers this has been dealt everything that was connected before.
    who(&mut late);
    server.program.signal(SIGTERM);
    for client in &mut busy {
        assert_eq!(client.answer().unwrap().text(), "slept");
    }
    assert_eq!(idle.rest().unwrap(), b"", "an idle connection is closed");
    let report = server.succeed();
    assert!(report.contains(r#"exits: {"code 0": 2}"#), "{report}");
}

pub fn second_signal_ends_at_once(_: &Scene) {
    let mut server = start(2, &[]);
    let _busy = request(&server, "/sleep/60000");
    who(&mut Client::connect(&server.address).unwrap());
    server.program.signal(SIGINT);
    wait_until("no more listening", || Client::connect(&server.address).is_err());
    // The one that has nothing to do leaves by itself.
    server.next_exit();
    // What comes sooner counts as the same signal.
    serve::pass(Duration::from_millis(150));
    let second = Instant::now();
    let report = server.stop();
    assert!(second.elapsed() < Duration::from_secs(5), "took {:?}", second.elapsed());
    assert!(report.contains("forced_kills: 1"), "{report}");
    assert!(report.contains(r#""signal 9 (SIGKILL)": 1"#), "{report}");
}

pub fn worker_told_to_leave_is_replaced(_: &Scene) {
    let mut server = start(2, &[]);
    let mut client = Client::connect(&server.address).unwrap();
    let (id, pid) = who(&mut client);
    client.request("/sleep/300").unwrap();
    // The other worker may serve while this one drains.
    system::signal(pid, SIGTERM);
    let answer = client.answer().unwrap();
    assert_eq!(answer.text(), "slept", "the request under way is finished");
    assert_eq!(server.next_exit(), format!("{id} code 0"));
    server.next_listening();
    assert_eq!(server.pids.len(), 3);
    assert!(!server.pids[2..].contains(&pid));
    server.get("/");
    server.stop();
}

pub fn sigint_to_a_worker_is_ignored(_: &Scene) {
    let server = start(1, &[]);
    let mut client = Client::connect(&server.address).unwrap();
    let (id, pid) = who(&mut client);
    for _ in 0..3 {
        system::signal(pid, SIGINT);
        assert_eq!(who(&mut client), (id, pid));
    }
    let report = server.stop();
    assert!(report.contains("started: 1,"), "{report}");
}

/// Clients whose answers come to a channel, each by its number.
fn ask_all(server: &Server, count: usize) -> Vec<thread::JoinHandle<io::Result<String>>> {
    let ask = |_| {
        let mut client = request(server, "/");
        thread::spawn(move || Ok(client.answer()?.text().to_owned()))
    };
    (0..count).map(ask).collect()
}

fn waiting<T>(clients: &[thread::JoinHandle<T>]) -> usize {
    clients.iter().filter(|client| !client.is_finished()).count()
}

fn stop_process(pid: u32) {
    system::signal(pid, SIGSTOP);
    wait_until("a stopped worker", || system::state(pid) == Some('T'));
}

pub fn stopped_worker_holds_its_window(_: &Scene) {
    let held = [("round-robin", 3), ("least-connections", 3), ("shared", 0)];
    for (scheduling, held) in held {
        let server = start(2, &["window=3", &format!("scheduling={scheduling}")]);
        let stopped = server.pids[0];
        stop_process(stopped);
        let clients = ask_all(&server, 30);
        wait_until("the answers of the other worker", || waiting(&clients) <= held);
        system::signal(stopped, SIGCONT);
        for client in clients {
            client.join().unwrap().unwrap();
        }
        server.stop();
    }
}

/// Where a worker accepts by itself, what waits in the backlog of its socket is not lost with it.
pub fn worker_killed_with_a_backlog(_: &Scene) {
    for scheduling in ["scheduling=shared", "scheduling=reuse-port"] {
        let mut server = start(2, &[scheduling]);
        let doomed = server.pids[0];
        stop_process(doomed);
        let clients = ask_all(&server, 30);
        system::signal(doomed, SIGKILL);
        for client in clients {
            client.join().unwrap().unwrap();
        }
        server.next_listening();
        server.stop();
    }
}

pub fn worker_killed_before_adopting(_: &Scene) {
    let mut server = start(2, &["window=4"]);
    let primary = server.primary();
    let baseline = system::descriptors_of(primary).len();
    for round in 0..3 {
        let doomed = *server.pids.iter().find(|pid| system::exists(**pid)).unwrap();
        stop_process(doomed);
        let clients = ask_all(&server, 12);
        wait_until("a full window", || waiting(&clients) <= 4);
        assert!(waiting(&clients) > 0, "round {round}: the stopped worker got nothing");
        system::signal(doomed, SIGKILL);
        for client in clients {
            let answer = client.join().unwrap().unwrap();
            assert!(!answer.ends_with(&format!(" {doomed}")), "answered by a dead worker");
        }
        assert!(server.next_exit().ends_with(" signal 9 (SIGKILL)"));
        server.next_listening();
    }
    wait_until("the primary's descriptors back at the baseline", || {
        system::descriptors_of(primary).len() == baseline
    });
    server.stop();
}
