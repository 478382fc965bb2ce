//! Messages both ways while connections are handed over.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
};

use bimodal::{ErrorKind, Event, Flow, Scheduling, Worker, WorkerHandle, event_loop};

use crate::{
    bodies::{ANYWHERE, greet_all},
    support::{
        DEADLINE, Scenario, Scene, both,
        events::{to_the_end, until, until_named},
        program,
    },
};

pub const SCENARIOS: &[Scenario] =
    &[both("nothing_is_lost_or_overtaken_under_load", under_load).proves(&["MSG-03"])];

/// In a process of its own, whose memory is nobody else's.
pub const PROGRAMS: &[Scenario] = &[both("load", load)];

fn under_load(scene: &Scene) {
    program::start("load", scene.mode).succeed();
}

const MESSAGES: u32 = 100_000;
const CONNECTIONS: usize = 2000;

/// What the primary may need at most beyond what it needed before, in KiB.
const PEAK: u64 = 64 << 10;

fn load(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::RoundRobin).launch(body).unwrap();
    let worker = cluster.fork().unwrap();
    let address = until_named(&cluster, "listening", 1).addresses()[0].tcp().unwrap();
    let before = peak();
    let sender = std::thread::spawn({
        let worker = worker.clone();
        move || (0..MESSAGES).for_each(|number| send(&worker, number))
    });
    let client = std::thread::spawn(move || (0..CONNECTIONS).for_each(|_| visit(address)));
    let mut next = 0;
    until(&cluster, "the last message", |event| {
        if let Event::Message { message, .. } = event {
            assert_eq!(message.peek::<u32>().unwrap(), next);
            next += 1;
        }
        next == MESSAGES
    });
    sender.join().unwrap();
    client.join().unwrap();
    let grown = peak() - before;
    assert!(grown < PEAK, "{grown} KiB");
    worker.disconnect().unwrap();
    assert!(to_the_end(&cluster).exit(worker.id()).success());
    let report = cluster.shutdown().unwrap();
    assert_eq!(report.dispatched, CONNECTIONS as u64);
}

/// Sends, and goes as slowly as the worker receives.
fn send(worker: &WorkerHandle, number: u32) {
    loop {
        match worker.send(number) {
            Ok(Flow::Go) => return,
            Ok(Flow::Slow) => return std::thread::yield_now(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
        }
    }
}

fn visit(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "1\n");
}

async fn body(worker: Worker) -> bimodal::Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    event_loop::spawn(answer(worker.clone())).detach();
    greet_all(worker, listener).await
}

async fn answer(worker: Worker) {
    while let Some(message) = worker.recv().await {
        let mut number = message.get::<u32>().unwrap();
        while let Err(refused) = worker.send(number) {
            assert_eq!(refused.kind(), ErrorKind::Full);
            number = refused.into_value().0;
            event_loop::yield_now().await;
        }
    }
}

/// The most memory this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
