//! What a running cluster says of itself.

use std::time::Duration;

use bimodal::{ExitStatus, Health, State};

use crate::{
    supervising::{served, who},
    support::{
        Scenario, Scene, both,
        client::{Client, get},
        events::until_named,
        trap::Trap,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("the_status_tells_of_every_worker", workers),
    both("the_status_tells_what_came_before_a_worker", past),
    both("the_status_does_not_wait_for_a_stuck_worker", stuck),
    both("a_cluster_without_supervision_has_a_status", unsupervised),
];

fn workers(scene: &Scene) {
    let health = Health { deadline: Duration::from_secs(2), ..Health::default() };
    let (cluster, address) = served(scene.builder().health(health), 2);
    let mut client = Client::connect(&address).unwrap();
    let id: u64 = client.get("/").unwrap().text().parse().unwrap();
    let status = cluster.status();
    assert_eq!((status.target, status.ready(), status.workers.len()), (2, 2, 2), "{status:?}");
    assert!(status.is_ready() && !status.stopping && !status.reloading, "{status:?}");
    assert_eq!(status.to_string(), "2 of 2 workers ready, 0 restarts");
    for (worker, handle) in status.workers.iter().zip(cluster.workers()) {
        assert_eq!((worker.worker, worker.slot), (handle.id(), handle.slot()));
        assert_eq!((worker.pid, worker.generation), (handle.pid(), 1));
        assert_eq!((worker.state, worker.ready), (State::Listening, true));
        assert_eq!((worker.restarts, worker.last_exit), (0, None));
    }
    let of = |id: u64| {
        let workers = cluster.status().workers;
        workers.into_iter().find(|it| it.worker.get() == id).unwrap()
    };
    wait_until("the request to be counted", || of(id).stats.requests == 1);
    assert_eq!(of(id).stats.connections_open, 1);
    // Beats go on without work, and a loop that works is busy.
    for worker in [1, 2] {
        let before = of(worker);
        wait_until("a beat", || of(worker).stats.beats > before.stats.beats);
        assert!(of(worker).age > before.age);
    }
    let before = of(id).stats.busy_ns;
    client.get("/burn/100").unwrap();
    wait_until("work", || of(id).stats.busy_ns >= before + 90_000_000);
    assert!(of(id).stats.utilization() > 0.0);
    drop(client);
    wait_until("the connection to be closed", || of(id).stats.connections_open == 0);
    cluster.shutdown().unwrap();
}

fn past(scene: &Scene) {
    let (cluster, address) = served(scene.builder(), 1);
    for failures in 1..=2 {
        let mut client = Client::connect(&address).unwrap();
        client.request("/panic").unwrap();
        assert!(client.answer().is_err());
        until_named(&cluster, "listening", 1);
        let status = cluster.status();
        let worker = &status.workers[0];
        assert_eq!((worker.restarts, status.report.restarts), (failures, failures), "{status:?}");
        assert_eq!(worker.last_exit, Some(ExitStatus::Code(ExitStatus::PANIC)));
        assert_eq!(worker.generation as u64, failures + 1);
    }
    // What has happened is told first, and the status follows.
    wait_until("the replacement to be ready", || {
        cluster.status().to_string() == "1 of 1 workers ready, 2 restarts"
    });
    assert_eq!(who(&address), 3);
    cluster.shutdown().unwrap();
}

fn stuck(scene: &Scene) {
    let trap = Trap::new();
    let (cluster, _) = served(scene.builder(), 1);
    let worker = cluster.workers().remove(0);
    let _ = worker.send(trap.address()).unwrap();
    let held = trap.caught();
    let before = cluster.status().workers[0].stats.busy_ns;
    wait_until("a loop that is busy without end", || {
        cluster.status().workers[0].stats.busy_ns > before + 50_000_000
    });
    assert_eq!(cluster.status().ready(), 1, "nobody says otherwise yet");
    cluster.stop().unwrap();
    wait_until("it to be stopping", || cluster.status().stopping);
    assert!(!cluster.status().is_ready());
    drop(held);
    cluster.wait().unwrap();
}

fn unsupervised(scene: &Scene) {
    let cluster = scene.builder().launch(crate::supervising::serve).unwrap();
    assert_eq!((cluster.status().target, cluster.status().workers.len()), (0, 0));
    cluster.fork().unwrap();
    let address = until_named(&cluster, "listening", 1).addresses().remove(0);
    assert_eq!(get(&address, "/").unwrap().status, 200);
    let status = cluster.status();
    assert_eq!((status.ready(), status.report.started), (1, 1), "{status:?}");
    cluster.shutdown().unwrap();
}
