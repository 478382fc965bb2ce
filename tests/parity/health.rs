//! Workers that hang: how soon it is noticed, how they are ended, who takes over; and who does not hang.

use std::{
    net::TcpStream,
    os::unix::process::CommandExt as _,
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Address, Cluster, Decision, Event, ExitStatus, Health, Mode, Scheduling, Shutdown,
    WorkerHandle, WorkerId,
};

use crate::{
    bodies::greet,
    serve::pass,
    supervising::{decision, served, who},
    support::{
        Scenario, Scene, both,
        client::{Client, get, greeting},
        events::{Seen, until, until_named},
        ledger::Ledger,
        only,
        program::{self, Program},
        system,
        trap::Trap,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_worker_that_hangs_is_noticed_in_time_ended_and_replaced", hangs),
    both("what_a_hanging_worker_was_offered_others_answer", queued),
    both("a_worker_that_is_only_slow_stays", slow),
    both("a_worker_with_nothing_to_do_does_not_hang", idles),
    both("a_program_that_was_stopped_holds_it_against_nobody", stopped_program),
    both("a_program_that_was_stopped_with_its_workers_holds_it_against_nobody", stopped_group),
    // A thread cannot be stopped alone.
    only(&[Mode::Process], "a_stopped_worker_hangs", stopped_worker),
];

/// Started again by the tests above, to be stopped.
pub const PROGRAMS: &[Scenario] = &[both("watch_health", watch)];

/// Long enough for a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_millis(1000);
const BEAT: Duration = Duration::from_millis(250);

fn health() -> Health {
    Health { deadline: DEADLINE, patience: Duration::from_millis(100) }
}

fn shutdown() -> Shutdown {
    Shutdown { kill: 2 * DEADLINE, ..Shutdown::default() }
}

/// Makes a worker's loop stand still. Dropping the stream lets it go.
fn block(worker: &WorkerHandle, trap: &Trap) -> TcpStream {
    let _ = worker.send(trap.address()).unwrap();
    trap.caught()
}

/// Reads events up to the end of this worker.
#[track_caller]
fn until_gone(cluster: &Cluster, worker: WorkerId) -> Seen {
    until(
        cluster,
        "the end of the worker",
        |event| matches!(event, Event::Exit { worker: gone, .. } if gone.id() == worker),
    )
}

#[track_caller]
fn until_hung(cluster: &Cluster) -> (WorkerId, Duration) {
    let hung = decision(cluster, "a hang", |made| matches!(made, Decision::Hung { .. }));
    let Decision::Hung { worker, silent } = hung else { unreachable!() };
    (worker, silent)
}

fn hangs(scene: &Scene) {
    let trap = Trap::new();
    let (cluster, address) = served(scene.builder().health(health()).shutdown(shutdown()), 2);
    let victim = cluster.workers().remove(0);
    let start = Instant::now();
    let stuck = block(&victim, &trap);
    let (worker, silent) = until_hung(&cluster);
    assert_eq!(worker, victim.id());
    assert!(silent >= DEADLINE && silent <= DEADLINE + BEAT, "{silent:?}");
    // It had just beaten, or was about to.
    assert!(start.elapsed() + BEAT >= DEADLINE, "{:?}", start.elapsed());
    let restart = decision(
        &cluster,
        "its replacement",
        |made| matches!(made, Decision::Restart { worker, .. } if *worker == victim.id()),
    );
    assert!(restart.to_string().contains("no sign of life"), "{restart}");
    // The replacement does not wait for the end of the one that hangs.
    let seen = until_named(&cluster, "listening", 1);
    assert!(seen.exits().next().is_none() || victim.is_dead());
    wait_until("two to be ready", || cluster.status().ready() == 2);
    for _ in 0..4 {
        assert_ne!(who(&address), victim.id().get());
    }
    let replacement = cluster.status().workers.pop().unwrap();
    assert_eq!((replacement.restarts, replacement.generation), (1, 1), "another slot");
    let gone = until_gone(&cluster, victim.id());
    // The one difference: a thread cannot be ended from outside.
    let status = if scene.is_process() { ExitStatus::Signal(6) } else { ExitStatus::Abandoned };
    assert_eq!(gone.exit(victim.id()), status);
    drop(stuck);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.hung, report.restarts, report.started), (1, 1, 3), "{report}");
    assert_eq!(report.abandoned, u64::from(!scene.is_process()), "{report}");
}

fn queued(scene: &Scene) {
    let trap = Trap::new();
    let builder = scene.builder().workers(2).scheduling(Scheduling::RoundRobin).window(4);
    let builder = builder.health(health()).shutdown(shutdown());
    let cluster = builder.supervise(greet).unwrap();
    let address = until_named(&cluster, "listening", 2).addresses().remove(0);
    let victim = cluster.workers().remove(0);
    let stuck = block(&victim, &trap);
    let ledger = Ledger::default();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| match greeting(&address) {
                Ok(greeter) if greeter == victim.id().to_string() => ledger.count("the stuck one"),
                outcome => ledger.note(&outcome),
            });
        }
    });
    ledger.assert_only("ok");
    drop(stuck);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.hung, report.dispatched_again), (1, 4), "{report}");
}

fn slow(scene: &Scene) {
    let health = Health { deadline: 3 * DEADLINE, ..health() };
    let (cluster, address) = served(scene.builder().health(health), 1);
    let mut client = Client::connect(&address).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/burn/1000").unwrap().status, 200);
    }
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.hung, report.started), (0, 1), "{report}");
}

fn idles(scene: &Scene) {
    let (cluster, _) = served(scene.builder().health(health()), 1);
    let beats = || cluster.status().workers[0].stats.beats;
    let before = beats();
    let start = Instant::now();
    wait_until("beats for longer than the deadline", || {
        start.elapsed() > 2 * DEADLINE && beats() >= before + 8
    });
    assert_eq!(cluster.shutdown().unwrap().hung, 0);
}

fn stopped_worker(scene: &Scene) {
    let (cluster, address) = served(scene.builder().health(health()).shutdown(shutdown()), 2);
    let victim = cluster.workers().remove(0);
    system::signal(victim.pid().unwrap(), 19);
    let (worker, silent) = until_hung(&cluster);
    assert!(worker == victim.id() && silent >= DEADLINE, "{worker} {silent:?}");
    // It takes no other signal while it is stopped.
    assert_eq!(until_gone(&cluster, worker).exit(worker), ExitStatus::Signal(9));
    wait_until("two to be ready", || cluster.status().ready() == 2);
    assert_ne!(who(&address), worker.get());
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.hung, report.restarts, report.abandoned), (1, 1, 0), "{report}");
}

fn watch(scene: &Scene) {
    let builder = scene.builder().workers(2).health(health());
    let report = builder.on_event(print).run(crate::supervising::serve).unwrap();
    println!("{report}");
}

fn print(event: &Event) {
    match event {
        Event::Listening { address, .. } => println!("listening {address}"),
        Event::Decision { decision } => println!("decision {decision}"),
        _ => println!("{}", event.name()),
    }
}

fn stopped_program(scene: &Scene) {
    stop_for_a_while(scene, |_| Vec::new());
}

fn stopped_group(scene: &Scene) {
    stop_for_a_while(scene, system::children_of);
}

/// Stops a program, and with it those of its workers that are processes.
fn stop_for_a_while(scene: &Scene, workers: fn(u32) -> Vec<u32>) {
    // In a group of its own: the system ends a group without a shell in which somebody is stopped.
    let mut program = Program::spawn(program::command("watch_health", scene.mode).process_group(0));
    let line = program.line(|line| line.starts_with("listening "));
    program.line(|line| line.starts_with("listening "));
    let address: Address = line["listening ".len()..].parse().unwrap();
    let workers = workers(program.pid());
    workers.iter().for_each(|pid| system::signal(*pid, 19));
    program.signal(19);
    wait_until("it to be stopped", || system::state(program.pid()) == Some('T'));
    pass(3 * DEADLINE);
    // The first look comes before any worker could beat.
    program.signal(18);
    pass(BEAT / 2);
    workers.iter().for_each(|pid| system::signal(*pid, 18));
    // Several looks later everybody is there who was.
    let end = Instant::now() + 2 * DEADLINE;
    while Instant::now() < end {
        let worker: u64 = get(&address, "/").unwrap().text().parse().unwrap();
        assert!(worker <= 2, "worker {worker} answers");
        pass(BEAT / 2);
    }
    program.signal(15);
    let output = program.succeed();
    let decisions: Vec<_> = output.iter().filter(|line| line.starts_with("decision")).collect();
    assert_eq!(decisions, ["decision the cluster stops"]);
    assert!(output.iter().any(|line| line.contains("hung: 0")), "{output:?}");
}
