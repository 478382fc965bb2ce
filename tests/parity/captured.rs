//! Workers that do not answer: what they hold up, and what becomes of it.

use std::{io::ErrorKind, net::TcpStream};

use bimodal::{Address, Cluster, Scheduling, WorkerHandle};

use crate::{
    bodies::greet,
    support::{
        Scenario, Scene, both,
        client::{Client, greeting},
        events::{fork_listening, until_named},
        ledger::Ledger,
        trap::Trap,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("shared_goes_round_a_stuck_worker", shared_is_work_conserving),
    both("round_robin_loses_at_most_a_window_to_a_stuck_worker", |scene| {
        captures_a_window(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-30", "LST-35", "EVT-19"]),
    both("least_connections_loses_at_most_a_window_to_a_stuck_worker", |scene| {
        captures_a_window(scene, Scheduling::LeastConnections);
    }),
    both("with_all_windows_full_clients_wait_and_are_served", |scene| {
        all_full(scene, Scheduling::RoundRobin);
    }),
    both("with_everybody_stuck_a_shared_queue_waits_and_is_served", |scene| {
        all_full(scene, Scheduling::Shared);
    }),
    both("a_killed_worker_leaves_nothing_behind_under_reuse_port", |scene| {
        killed_with_a_backlog(scene, Scheduling::ReusePort);
    }),
    both("a_killed_worker_leaves_nothing_behind_under_shared", |scene| {
        killed_with_a_backlog(scene, Scheduling::Shared);
    }),
    both("kills_under_load_lose_at_most_what_was_begun_under_round_robin", |scene| {
        kills_under_load(scene, Scheduling::RoundRobin);
    }),
    both("kills_under_load_lose_at_most_what_was_begun_under_least_connections", |scene| {
        kills_under_load(scene, Scheduling::LeastConnections);
    }),
    both("kills_under_load_lose_at_most_what_was_begun_under_shared", |scene| {
        kills_under_load(scene, Scheduling::Shared);
    }),
    both("the_primary_covers_for_a_worker_that_left_under_reuse_port", covered),
];

/// Makes a worker's loop block.
fn block(worker: &WorkerHandle, trap: &Trap) -> TcpStream {
    let _ = worker.send(trap.address()).unwrap();
    trap.caught()
}

fn connect(address: &Address, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(address).unwrap()).collect()
}

fn shared_is_work_conserving(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().scheduling(Scheduling::Shared).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    let stuck = block(&workers[1], &trap);
    for _ in 0..60 {
        assert_ne!(greeting(&address).unwrap(), "2");
    }
    // Also many at once.
    for mut client in connect(&address, 40) {
        assert_ne!(client.line().unwrap(), "2");
    }
    drop(stuck);
}

fn captures_a_window(scene: &Scene, scheduling: Scheduling) {
    const WINDOW: u64 = 4;
    let trap = Trap::new();
    let cluster =
        scene.builder().scheduling(scheduling).window(WINDOW as usize).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let stuck = block(&workers[0], &trap);
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| match greeting(&address) {
                Ok(greeter) => ledger.count(greeter),
                Err(error) => ledger.count(error.to_string()),
            });
        }
        wait_until("all but a window to be served", || ledger.get("2") >= 40 - WINDOW);
        workers[0].kill().unwrap();
    });
    ledger.assert_only("2");
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.names(Some(workers[0].id())), ["disconnect", "exit"]);
    let report = cluster.shutdown().unwrap();
    assert_eq!(report.dispatched, 40, "{report}");
    // With the fewest connections, whoever is quick gets more than the one that is stuck.
    let exact = scheduling == Scheduling::RoundRobin;
    assert!(report.dispatched_again <= WINDOW, "{report}");
    assert!(!exact || report.dispatched_again == WINDOW, "{report}");
    drop(stuck);
}

fn all_full(scene: &Scene, scheduling: Scheduling) {
    let trap = Trap::new();
    let builder = scene.builder().scheduling(scheduling).window(1);
    let cluster = builder.launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let stuck: Vec<_> = workers.iter().map(|worker| block(worker, &trap)).collect();
    // The kernel's backlog takes what the windows do not.
    let clients = connect(&address, 30);
    drop(stuck);
    for mut client in clients {
        client.line().unwrap();
    }
    greeting(&address).unwrap();
}

fn killed_with_a_backlog(scene: &Scene, scheduling: Scheduling) {
    let trap = Trap::new();
    let cluster = scene.builder().scheduling(scheduling).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let stuck = block(&workers[0], &trap);
    let clients = connect(&address, 40);
    workers[0].kill().unwrap();
    until_named(&cluster, "exit", 1);
    for mut client in clients {
        assert_eq!(client.line().unwrap(), "2");
    }
    drop(stuck);
}

const KILLS: usize = 4;

/// A worker that dies takes at most those connections along that it had begun (one, or what it accepted in its last turn);
/// all others are given to somebody else, and no client hangs.
fn kills_under_load(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(greet).unwrap();
    let (mut workers, address) = fork_listening(&cluster, 2);
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                (0..200).for_each(|_| match greeting(&address).map_err(|error| error.kind()) {
                    Ok(_) => ledger.count("ok"),
                    Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                        ledger.count("begun");
                    }
                    Err(kind) => ledger.count(kind.to_string()),
                });
            });
        }
        for victim in 0..KILLS {
            workers.push(cluster.fork().unwrap());
            until_named(&cluster, "listening", 1);
            workers[victim].kill().unwrap();
        }
    });
    let (ok, begun) = (ledger.get("ok"), ledger.get("begun"));
    let each = if scheduling == Scheduling::Shared { 4 } else { 1 };
    assert!(ok + begun == 600 && begun <= (KILLS * each) as u64, "{ledger}");
}

fn covered(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::ReusePort).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    workers[0].disconnect().unwrap();
    workers[1].kill().unwrap();
    until_named(&cluster, "exit", 2);
    for _ in 0..40 {
        assert_eq!(greeting(&address).unwrap(), "3");
    }
    replaced(&cluster, &address);
}

/// A worker in a slot that was covered serves it again.
fn replaced(cluster: &Cluster, address: &Address) {
    cluster.fork().unwrap();
    let seen = until_named(cluster, "listening", 1);
    assert_eq!(&seen.addresses()[0], address);
    let served = (0..1000).any(|_| greeting(address).unwrap() == "4");
    assert!(served, "the new worker got none of 1000 connections");
}
