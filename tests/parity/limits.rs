//! How many connections a worker has at a time, what else listeners carry, and what accepted
//! connections are set to.

use std::time::Duration;

use bimodal::{Address, ListenOptions, Scheduling, Worker};
use rustix::net::sockopt;

use crate::{
    orders::{Ask, Order, Party},
    support::{
        Scenario, Scene, both,
        client::{Client, greeting},
        events::{next_message, until_named},
        ledger::Ledger,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("limits_are_kept_exactly_under_round_robin", |scene| {
        exact(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-40", "LST-41"]),
    both("limits_are_kept_exactly_under_least_connections", |scene| {
        exact(scene, Scheduling::LeastConnections);
    })
    .proves(&["LST-40", "LST-41"]),
    both("limits_are_kept_exactly_under_shared", |scene| exact(scene, Scheduling::Shared))
        .proves(&["LST-40", "LST-41", "LST-44"]),
    both("with_all_workers_full_nothing_goes_round", no_ping_pong).proves(&["LST-40"]),
    both("a_full_worker_drops_what_it_is_to_drop_under_round_robin", |scene| {
        drops(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-43"]),
    both("a_full_worker_drops_what_it_is_to_drop_under_shared", |scene| {
        drops(scene, Scheduling::Shared);
    })
    .proves(&["LST-43", "LST-44"]),
    both("data_of_the_first_worker_is_had_by_all", data).proves(&["LST-65"]),
    both("accepted_connections_are_set_as_asked_under_round_robin", |scene| {
        socket_options(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-66"]),
    both("accepted_connections_are_set_as_asked_under_shared", |scene| {
        socket_options(scene, Scheduling::Shared);
    })
    .proves(&["LST-66"]),
    both("under_shared_the_primary_gives_nothing_out", shared_by_itself).proves(&["LST-54"]),
    both("under_shared_idle_workers_take_turns", uneven).proves(&["LST-55"]),
    both("limits_hold_under_reuse_port", reuse_port),
];

fn ask(max: usize) -> Ask {
    Ask { address: "127.0.0.1:0".into(), max: Some(max), keep: true, ..Ask::default() }
}

fn party(scene: &Scene, scheduling: Scheduling, limits: &[usize]) -> (Party, Address) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), limits.len());
    let mut address = None;
    for (worker, max) in limits.iter().enumerate() {
        address = Some(party.told(worker, Order::Listen(ask(*max))).parse().unwrap());
    }
    party.await_named("listening", limits.len());
    (party, address.unwrap())
}

/// Limits of 0, 1 and 9, and 10 clients.
fn exact(scene: &Scene, scheduling: Scheduling) {
    let (party, address) = party(scene, scheduling, &[0, 1, 9]);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&address).unwrap()).collect();
    let mut ledger = Ledger::default();
    for client in &mut clients {
        ledger.count(client.line().unwrap());
    }
    assert_eq!((ledger.get("1"), ledger.get("2"), ledger.get("3")), (0, 1, 9), "{ledger}");
    // One more waits until one ends.
    let mut eleventh = Client::connect(&address).unwrap();
    eleventh.set_patience(Duration::from_millis(50)).unwrap();
    assert!(eleventh.line().is_err());
    eleventh.set_patience(crate::support::DEADLINE).unwrap();
    drop(clients.pop());
    eleventh.line().unwrap();
    ledger = Ledger::default();
    drop((clients, eleventh));
    // All places are free again.
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&address).unwrap()).collect();
    clients.iter_mut().for_each(|client| ledger.count(client.line().unwrap()));
    assert_eq!((ledger.get("1"), ledger.get("2"), ledger.get("3")), (0, 1, 9), "{ledger}");
    drop(party);
}

/// 40 clients for 4 places: nobody is offered what it cannot take.
fn no_ping_pong(scene: &Scene) {
    let (party, address) = party(scene, Scheduling::RoundRobin, &[2, 2]);
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(&address).unwrap()).collect();
    // In the order in which they came, as places get free.
    for client in &mut clients {
        client.line().unwrap();
        *client = Client::connect(&address).unwrap();
    }
    drop(clients);
    let report = party.cluster.shutdown().unwrap();
    assert_eq!(report.dispatched_again, 0, "{report}");
}

fn drops(scene: &Scene, scheduling: Scheduling) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), 1);
    let told = party.told(0, Order::Listen(Ask { drop_excess: true, ..ask(2) }));
    let address: Address = told.parse().unwrap();
    let mut kept: Vec<_> = (0..2).map(|_| Client::connect(&address).unwrap()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.line().unwrap(), "1"));
    for _ in 0..5 {
        let mut excess = Client::connect(&address).unwrap();
        assert!(excess.line().is_err(), "it was served");
    }
    wait_until("all drops to be counted", || party.told(0, Order::Dropped(told.clone())) == "5");
    drop(kept.pop());
    wait_until("a place to be free", || greeting(&address).is_ok());
    // Those that have a place keep it.
    kept[0].send(b"still\n").unwrap();
    assert_eq!(kept[0].line().unwrap(), "still");
}

fn data(scene: &Scene) {
    let mut party = Party::new(scene, 3);
    let ask = |data: Option<&str>| {
        let data = data.map(|data| data.as_bytes().to_vec());
        Order::Listen(Ask { address: "127.0.0.1:0".into(), data, ..Ask::default() })
    };
    let none = party.told(0, ask(None));
    assert!(!none.contains(' '), "nobody had brought any");
    assert_eq!(party.told(1, ask(Some("keys"))), format!("{none} keys"));
    assert_eq!(party.told(2, ask(Some("other"))), format!("{none} keys"));
    party.told(0, Order::Close(none.clone()));
    assert_eq!(party.told(0, ask(None)), format!("{none} keys"), "it comes with the address");
}

fn socket_options(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(tell_options).unwrap();
    cluster.fork().unwrap();
    let addresses = until_named(&cluster, "listening", 2).addresses();
    let told = addresses.iter().map(|address| {
        let client = Client::connect(address).unwrap();
        let told = next_message::<String>(&cluster).1;
        drop(client);
        told
    });
    assert_eq!(Vec::from_iter(told), ["true false", "false true 33"]);
}

/// Says what the connections of two listeners are set to: the defaults, and others.
async fn tell_options(worker: Worker) -> bimodal::Result<()> {
    let mut plain = worker.listen("127.0.0.1:0").await?;
    let options = ListenOptions::new().no_delay(false).keep_alive(Duration::from_secs(33));
    let mut set = worker.listen_with("127.0.0.1:0", options).await?;
    if let Some(it) = plain.accept().await? {
        let delay = sockopt::tcp_nodelay(&it).unwrap();
        let alive = sockopt::socket_keepalive(&it).unwrap();
        let _ = worker.send(format!("{delay} {alive}"))?;
    }
    if let Some(it) = set.accept().await? {
        let delay = sockopt::tcp_nodelay(&it).unwrap();
        let alive = sockopt::socket_keepalive(&it).unwrap();
        let silence = sockopt::tcp_keepidle(&it).unwrap().as_secs();
        let _ = worker.send(format!("{delay} {alive} {silence}"))?;
    }
    worker.draining().await;
    Ok(())
}

/// Workers accept for themselves.
fn shared_by_itself(scene: &Scene) {
    let builder = scene.builder().scheduling(Scheduling::Shared);
    let mut party = Party::of(builder, 2);
    let address = party.listening(0, "127.0.0.1:0");
    party.listening(1, "127.0.0.1:0");
    (0..20).for_each(|_| drop(greeting(&address).unwrap()));
    let report = party.cluster.shutdown().unwrap();
    assert_eq!((report.dispatched, report.dispatched_again), (0, 0), "{report}");
}

/// Idle workers take turns; more is not promised about who serves how much, and the documents say so.
fn uneven(scene: &Scene) {
    let builder = scene.builder().scheduling(Scheduling::Shared);
    let mut party = Party::of(builder, 4);
    let addresses = [0, 1, 2, 3].map(|worker| party.listening(worker, "127.0.0.1:0"));
    let ledger = Ledger::default();
    (0..200).for_each(|_| ledger.count(greeting(&addresses[0]).unwrap()));
    assert_eq!(ledger.total(), 200, "{ledger}");
    // A worker that was awake all the time was not woken.
    let served = ["1", "2", "3", "4"].iter().filter(|worker| ledger.get(worker) > 0).count();
    assert!(served > 1, "{ledger}");
    let document = include_str!("../../src/accept/README.md");
    assert!(document.contains("## How even `shared` is"));
}

/// A worker that is full leaves what the kernel gives it in its backlog; others go on.
fn reuse_port(scene: &Scene) {
    let (party, address) = party(scene, Scheduling::ReusePort, &[1, 1]);
    let mut clients: Vec<_> = (0..12).map(|_| Client::connect(&address).unwrap()).collect();
    for client in &mut clients {
        client.set_patience(Duration::from_millis(20)).unwrap();
    }
    // Everybody is served once those before have ended; never more than two at a time.
    wait_until("all to be served", || {
        let before = clients.len();
        let mut served: Vec<_> = Vec::new();
        let mut waiting = Vec::new();
        for mut client in clients.drain(..) {
            match client.line() {
                Ok(_) => served.push(client),
                Err(_) => waiting.push(client),
            }
        }
        assert!(served.len() <= 2, "{} of {before} at a time", served.len());
        clients = waiting;
        clients.is_empty()
    });
    drop(party);
}
