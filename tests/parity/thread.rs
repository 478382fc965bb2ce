//! What only worker threads can do or suffer: pinning, values that are moved, threads that are stuck.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bimodal::{
    Cluster, Event, ExitStatus, Flow, Mode, Result, Scheduling, Worker, WorkerId, event_loop, http,
};

use crate::{
    pinning::own_cores,
    serve,
    support::{
        BOTH, Scenario, Scene, both,
        client::Client,
        events::{fork_listening, next_message, to_the_end, until, until_named},
        only, program, system, wait_until,
    },
};

/// Everything here needs a thread per worker.
const THREAD: &[Mode] = &[Mode::Thread];

pub const SCENARIOS: &[Scenario] = &[
    only(THREAD, "threads_are_named_and_pinned", threads_are_named_and_pinned).proves(&["THR-44"]),
    only(THREAD, "panic_ends_one_worker", panic_ends_one_worker),
    only(THREAD, "stuck_thread_is_abandoned", stuck_thread_is_abandoned)
        .proves(&["LIFE-19", "THR-10", "LST-35"]),
    only(THREAD, "messages_are_moved", messages_are_moved).proves(&["THR-24"]),
    only(THREAD, "abandoned_thread_does_not_hold_the_program", abandoned_does_not_hold)
        .proves(&["SHUT-11"]),
    only(THREAD, "nothing_is_left_after_shutdown", nothing_is_left_after_shutdown),
];

/// Started again by the tests below, to be alone in their process.
pub const PROGRAMS: &[Scenario] = &[both("leftovers", leftovers)];

/// The cores each worker thread of a process may run on, as the kernel lists them.
fn cores_of_workers(pid: u32) -> Vec<String> {
    let tasks =
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| task.path());
    // The kernel keeps 15 bytes of a thread's name: workers show a short one.
    let workers = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("bimodal-w-"))
    });
    let cores = workers.map(|task| {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.unwrap().trim().to_owned()
    });
    cores.collect()
}

fn threads_are_named_and_pinned(_: &Scene) {
    let count = own_cores().len();
    let server = serve::start(Mode::Thread, count, &["scheduling=round-robin"]);
    let names: BTreeSet<_> = (0..count).map(|_| server.get("/thread")).collect();
    let expected: BTreeSet<_> = (1..=count).map(|id| format!("bimodal-worker-{id}")).collect();
    assert_eq!(names, expected);
    let pinned: BTreeSet<_> = cores_of_workers(server.primary()).into_iter().collect();
    let expected: BTreeSet<_> = own_cores().iter().map(usize::to_string).collect();
    assert_eq!(pinned, expected, "each to a core of its own");
    server.stop();
}

fn panic_ends_one_worker(_: &Scene) {
    let mut server = serve::start(Mode::Thread, 2, &["scheduling=round-robin"]);
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(&server.address).unwrap()).collect();
    let ask = |client: &mut Client| client.get("/").unwrap().text().to_owned();
    let before: Vec<_> = clients.iter_mut().map(ask).collect();
    let mut victim = clients.remove(0);
    victim.request("/panic").unwrap();
    assert!(server.next_exit().ends_with(" code 101 (panic)"));
    assert_eq!(ask(&mut clients[0]), before[1], "a connection of another worker lives on");
    assert_eq!(victim.rest().map_err(|error| error.kind()).unwrap_or_default(), b"");
    server.next_listening();
    let report = server.stop();
    assert!(report.contains("started: 3, restarts: 1"), "{report}");
}

/// Where a worker thread gets stuck until it is released.
#[derive(Default)]
struct Trap {
    sprung: AtomicBool,
    release: AtomicBool,
}

impl Trap {
    fn enter(&self) {
        self.sprung.store(true, SeqCst);
        while !self.release.load(SeqCst) {
            std::hint::spin_loop();
        }
    }
}

async fn stuck_on_request(worker: Worker, trap: Arc<Trap>) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let service = move |request: http::Request<http::Incoming>| {
        let (trap, id) = (trap.clone(), worker.id());
        async move {
            if request.uri().path() == "/stuck" {
                trap.enter();
            }
            http::text(id.to_string())
        }
    };
    http::serve(listener, http::service_fn(service)).await
}

fn stuck_thread_is_abandoned(scene: &Scene) {
    let trap = Arc::new(Trap::default());
    let handed = trap.clone();
    let builder = scene.builder().scheduling(Scheduling::RoundRobin).window(4);
    let cluster = builder.launch(move |worker| stuck_on_request(worker, handed.clone())).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let mut stuck = Client::connect(&address).unwrap();
    let id: u64 = stuck.get("/").unwrap().text().parse().unwrap();
    stuck.request("/stuck").unwrap();
    wait_until("a stuck worker", || trap.sprung.load(SeqCst));
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&address).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.request("/").unwrap());
    let stuck_worker = workers.iter().find(|worker| worker.id().get() == id).unwrap();
    stuck_worker.kill().unwrap();
    let other = workers.iter().find(|worker| worker.id().get() != id).unwrap();
    for mut client in clients {
        assert_eq!(client.answer().unwrap().text(), other.id().to_string());
    }
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.exit(stuck_worker.id()), ExitStatus::Abandoned);
    assert!(stuck_worker.is_dead() && !stuck_worker.is_connected());
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.abandoned, report.forced_kills), (1, 1));
    trap.release.store(true, SeqCst);
}

fn messages_are_moved(scene: &Scene) {
    let cluster = scene.builder().launch(echo_with_address).unwrap();
    let worker = cluster.fork().unwrap();
    let value = vec![7_u8; 8 << 20];
    let sent = value.as_ptr() as usize;
    assert_eq!(worker.send(value).unwrap(), Flow::Go);
    let (_, received): (WorkerId, usize) = next_message(&cluster);
    assert_eq!(received, sent, "the worker has the very buffer");
    let (_, back): (WorkerId, Vec<u8>) = next_message(&cluster);
    assert_eq!(back.as_ptr() as usize, sent, "and so has the primary again");
    cluster.shutdown().unwrap();
}

async fn echo_with_address(worker: Worker) -> Result<()> {
    while let Some(message) = worker.recv().await {
        let value: Vec<u8> = message.get()?;
        let _ = worker.send(value.as_ptr() as usize)?;
        let _ = worker.send(value)?;
    }
    Ok(())
}

fn abandoned_does_not_hold(_: &Scene) {
    let server = serve::start(Mode::Thread, 2, &["scheduling=round-robin", "grace=100"]);
    let mut stuck = Client::connect(&server.address).unwrap();
    stuck.request("/spin").unwrap();
    wait_until("a thread that spins", || {
        serve::cpu_time(server.primary()) > Duration::from_millis(50)
    });
    let report = server.stop();
    assert!(report.contains(r#""abandoned": 1"#), "{report}");
}

fn nothing_is_left_after_shutdown(_: &Scene) {
    for mode in BOTH {
        let output = program::start("leftovers", *mode).succeed();
        assert_eq!(output.last().map(String::as_str), Some("nothing is left"), "{output:#?}");
    }
}

/// A program of its own, as whatever else runs in a process would be counted, too.
fn leftovers(scene: &Scene) {
    if bimodal::worker_of().is_some() {
        let builder = Cluster::builder(Mode::Process).name(bimodal::worker_of().unwrap());
        builder.launch(listen_and_wait).unwrap();
    }
    // The first round opens what lives as long as the program.
    run_a_cluster(scene, 0);
    let before = leftover();
    for round in 1..4 {
        run_a_cluster(scene, round);
    }
    wait_until("the end of all threads", || leftover().0 <= before.0);
    assert_eq!(leftover(), before);
    println!("nothing is left");
}

/// Threads, descriptors, children.
fn leftover() -> (usize, usize, Vec<u32>) {
    (system::threads(), system::descriptors(), system::children())
}

fn run_a_cluster(scene: &Scene, round: u32) {
    let builder = scene.another(scene.mode, &round.to_string());
    let cluster = builder.launch(listen_and_wait).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    let clients: Vec<_> = (0..6).map(|_| Client::connect(&address).unwrap()).collect();
    workers[0].kill().unwrap();
    until(&cluster, "the end of the first", |event| matches!(event, Event::Exit { .. }));
    cluster.disconnect().unwrap();
    to_the_end(&cluster);
    drop(clients);
    cluster.shutdown().unwrap();
}

/// Takes connections and keeps them until it is to leave.
async fn listen_and_wait(worker: Worker) -> Result<()> {
    let mut listener = worker.listen("127.0.0.1:0").await?;
    let mut connections = Vec::new();
    while let Some(connection) = listener.accept().await? {
        connections.push(connection);
        event_loop::sleep(Duration::ZERO).await;
    }
    Ok(())
}
