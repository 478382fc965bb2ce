//! Who gets which connection.

use std::collections::BTreeMap;

use bimodal::{Address, Cluster, Scheduling};

use crate::{
    bodies::{greet, keep},
    support::{
        DEADLINE, Scenario, Scene, both,
        client::{Client, greeting},
        events::{fork_listening, until_named},
        ledger::Ledger,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("round_robin_takes_exact_turns_over_idle_workers", rotation),
    both("round_robin_goes_on_with_the_workers_that_are_left", rotation_of_the_rest),
    both("least_connections_evens_out_what_is_open", least),
    both("round_robin_serves_a_crowd", |scene| crowd(scene, Scheduling::RoundRobin)),
    both("least_connections_serves_a_crowd", |scene| crowd(scene, Scheduling::LeastConnections)),
    both("shared_serves_a_crowd", |scene| crowd(scene, Scheduling::Shared)),
    both("reuse_port_serves_a_crowd", |scene| crowd(scene, Scheduling::ReusePort)),
    both("round_robin_uses_all_workers", |scene| all_work(scene, Scheduling::RoundRobin)),
    both("least_connections_uses_all_workers", |scene| {
        all_work(scene, Scheduling::LeastConnections)
    }),
    both("shared_uses_all_workers", |scene| all_work(scene, Scheduling::Shared)),
    both("reuse_port_uses_all_workers", |scene| all_work(scene, Scheduling::ReusePort)),
    both("defaults_are_the_mode_s", defaults),
    both("the_stats_page_counts_connections", stats),
];

fn rotation(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::RoundRobin).launch(greet).unwrap();
    let (_, address) = fork_listening(&cluster, 3);
    let turns: Vec<_> = (0..30).map(|_| greeting(&address).unwrap()).collect();
    assert_eq!(turns[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{turns:?}");
    assert!(turns.chunks(3).all(|round| round == &turns[..3]), "{turns:?}");
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.dispatched, report.dispatched_again), (30, 0), "{report}");
}

fn rotation_of_the_rest(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::RoundRobin).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    greeting(&address).unwrap();
    workers[1].kill().unwrap();
    until_named(&cluster, "exit", 1);
    let counts = count_greetings(&address, 10);
    assert_eq!(counts, BTreeMap::from([("1".into(), 5), ("3".into(), 5)]));
}

fn count_greetings(address: &Address, count: usize) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        *counts.entry(greeting(address).unwrap()).or_default() += 1;
    }
    counts
}

/// Connections that stay open until this is dropped, by worker.
#[derive(Default)]
struct Open(BTreeMap<String, Vec<Client>>);

impl Open {
    fn add(&mut self, address: &Address) {
        let mut client = Client::connect(address).unwrap();
        let worker = client.line().unwrap();
        self.0.entry(worker).or_default().push(client);
    }

    fn counts(&self) -> Vec<usize> {
        self.0.values().map(Vec::len).collect()
    }
}

fn least(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::LeastConnections).launch(keep).unwrap();
    let (_, address) = fork_listening(&cluster, 3);
    let mut open = Open::default();
    (0..15).for_each(|_| open.add(&address));
    // A connection counts twice while its acknowledgement is under way, so it may be one off.
    assert!(open.counts().iter().all(|count| (4..=6).contains(count)), "{:?}", open.counts());
    // All of one worker's end: the next ones are its.
    let ended = open.0.insert("2".into(), Vec::new()).unwrap().len();
    wait_until("the ends to be noticed", || open_connections(&cluster) == 15 - ended as u64);
    (0..ended).for_each(|_| open.add(&address));
    assert!(open.counts().iter().all(|count| (4..=6).contains(count)), "{:?}", open.counts());
}

fn open_connections(cluster: &Cluster) -> u64 {
    cluster.stats().iter().map(|row| row.connections_open).sum()
}

fn crowd(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(greet).unwrap();
    let (_, address) = fork_listening(&cluster, 3);
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| ledger.note(&greeting(&address))));
        }
    });
    ledger.assert_only("ok");
    assert_eq!(ledger.total(), 400);
}

/// How even it is, is the policy's affair; that nobody is forgotten is not.
fn all_work(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(keep).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    let end = std::time::Instant::now() + DEADLINE;
    let mut open = Open::default();
    while open.0.len() < workers.len() {
        assert!(std::time::Instant::now() < end, "only these workers serve: {:?}", open.counts());
        // Several at a time, so that one worker has no time for all.
        std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Client::connect(&address).unwrap())).collect();
            for client in clients {
                let mut client = client.join().unwrap();
                let worker = client.line().unwrap();
                let kept = open.0.entry(worker).or_default();
                kept.push(client);
                // Enough to show; more would only use up descriptors.
                kept.truncate(20);
            }
        });
    }
}

fn defaults(scene: &Scene) {
    let settings = scene.builder().build().unwrap();
    let expected = if scene.is_process() { Scheduling::RoundRobin } else { Scheduling::Shared };
    assert_eq!(settings.scheduling, expected);
    assert_eq!(settings.workers, bimodal::Workers::Auto.resolve().unwrap());
}

fn stats(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::RoundRobin).launch(keep).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    let mut open = Open::default();
    (0..6).for_each(|_| open.add(&address));
    let rows = cluster.stats();
    let counts: Vec<_> =
        rows.iter().map(|row| (row.slot, row.worker, row.connections_open)).collect();
    assert_eq!(counts, [(0, 1, 3), (1, 2, 3)]);
    drop(open);
    wait_until("the ends to be noticed", || open_connections(&cluster) == 0);
    assert!(cluster.stats().iter().all(|row| row.connections_accepted == 3));
    assert!(cluster.stats().iter().all(|row| row.beats > 0 && row.pid != 0));
}
