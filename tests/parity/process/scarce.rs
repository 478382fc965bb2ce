//! When descriptors or processes run out: in the primary, in a worker, at a start.
//!
//! A soft limit of 3 descriptors, set from outside, lets a program keep what it has and open nothing.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    time::{Duration, Instant},
};

use bimodal::Mode;
use rustix::process::Resource;

use crate::{
    serve::{self, Server, cpu_time_during, limit},
    support::{Scene, client::Client, not_permitted, program::Program, system},
};

/// How long a shortage is observed, and the CPU time that a program may use meanwhile.
const OBSERVED: Duration = Duration::from_millis(200);
const AT_REST: Duration = Duration::from_millis(80);

/// No connection waits longer than this once there are descriptors again.
const STALL: Duration = Duration::from_millis(100);

fn start(workers: usize, options: &[&str]) -> Server {
    serve::start(Mode::Process, workers, options)
}

fn requests(server: &Server, count: usize) -> Vec<Client> {
    let request = |_| {
        let mut client = Client::connect(&server.address).unwrap();
        client.request("/").unwrap();
        client
    };
    (0..count).map(request).collect()
}

fn answers(clients: Vec<Client>) -> Vec<String> {
    let answer = |mut client: Client| client.answer().unwrap().text().to_owned();
    clients.into_iter().map(answer).collect()
}

/// Takes the descriptors of `starved` away while clients connect, and looks what it costs whom.
///
/// The machine may be busy: the shortest of the stalls counts.
fn starve(server: &Server, starved: &[u32]) {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let before: Vec<_> =
            starved.iter().map(|pid| limit(*pid, Resource::Nofile, Some(3))).collect();
        let clients = requests(server, 5);
        for pid in group_of(server) {
            let used = cpu_time_during(pid, OBSERVED);
            assert!(used < AT_REST, "process {pid} spins: {used:?} in {OBSERVED:?}");
        }
        let since = Instant::now();
        for (pid, before) in starved.iter().zip(before) {
            limit(*pid, Resource::Nofile, before);
        }
        assert_eq!(answers(clients).len(), 5);
        shortest = shortest.min(since.elapsed());
    }
    assert!(shortest < STALL, "the shortest stall was {shortest:?}");
}

fn group_of(server: &Server) -> Vec<u32> {
    serve::group(server.primary())
}

pub fn primary_without_descriptors(_: &Scene) {
    let server = start(2, &[]);
    starve(&server, &[server.primary()]);
    server.stop();
}

pub fn worker_without_descriptors(_: &Scene) {
    let server = start(2, &[]);
    let (starved, other) = (server.pids[0], server.pids[1]);
    let before = limit(starved, Resource::Nofile, Some(3));
    for answer in answers(requests(&server, 20)) {
        assert_eq!(answer, format!("2 {other}"));
    }
    limit(starved, Resource::Nofile, before);
    server.stop();
}

pub fn all_workers_without_descriptors(_: &Scene) {
    let server = start(2, &[]);
    starve(&server, &server.pids);
    server.stop();
}

pub fn accepting_worker_without_descriptors(_: &Scene) {
    for scheduling in ["scheduling=shared", "scheduling=reuse-port"] {
        let server = start(2, &[scheduling]);
        starve(&server, &server.pids);
        server.stop();
    }
}

pub fn replacement_without_descriptors(_: &Scene) {
    let mut server = start(2, &[]);
    let before = limit(server.primary(), Resource::Nofile, Some(3));
    system::signal(server.pids[0], 9);
    let error = server.program.line(|line| line.starts_with("error "));
    assert!(error.contains("start a worker process") && error.contains("open files"), "{error}");
    limit(server.primary(), Resource::Nofile, before);
    server.next_listening();
    server.stop();
}

/// Whatever the limit: a cluster that serves, or a clear end.
pub fn start_without_descriptors(_: &Scene) {
    let (mut failed, mut served) = (0, 0);
    for descriptors in (3..36).step_by(4) {
        let option = format!("nofile={descriptors}");
        let mut command = serve::command(Mode::Process, &[&option, "workers=1"]);
        let mut program = Program::spawn(&mut command);
        let outcome =
            program.line(|line| line.starts_with("listening ") || line.starts_with("failed "));
        if outcome.starts_with("failed ") {
            failed += 1;
            assert_eq!(program.wait().code(), Some(1));
            assert!(outcome.contains("open files"), "{descriptors}: {outcome}");
        } else {
            served += 1;
            program.signal(15);
            assert!(program.wait().success(), "{descriptors}: {:?}", program.output);
        }
        serve::assert_nobody_left(program.pid());
    }
    assert!(failed > 0 && served > 0, "{failed} failed, {served} served");
}

/// Needs root: whom the limit binds must be another user.
pub fn replacement_without_processes(_: &Scene) {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return not_permitted("to choose a user, which takes root");
    }
    // A user that nothing else on the machine runs as.
    const USER: u32 = 61_234;
    let mut command = serve::command(Mode::Process, &[]);
    let mut server = Server::spawn(command.uid(USER).gid(USER).arg("workers=2"));
    server.get("/processes/limit");
    system::signal(server.pids[0], 9);
    let error = server.program.line(|line| line.starts_with("error "));
    assert!(error.contains("temporarily unavailable"), "{error}");
    assert!(server.get("/").starts_with("2 "), "the other worker serves");
    server.get("/processes/free");
    server.next_listening();
    server.stop();
}
