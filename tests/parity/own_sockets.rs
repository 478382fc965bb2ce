//! Sockets that a worker has for itself: exclusive, with `SO_REUSEPORT`, brought along.

use std::io::Write as _;

use bimodal::{Address, Connection, ListenOptions, Mode, Scheduling, Worker, WorkerId, event_loop};
use rustix::io::Errno;

use crate::{
    orders::{Ask, Order, Party, listen, own_address, refused},
    support::{
        Scenario, Scene, both,
        client::{Client, greeting, wait_until_closed},
        events::{next_message, to_the_end},
        only, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("exclusive_listeners_belong_to_their_worker", exclusive).proves(&["LST-14", "LST-15"]),
    both("what_is_exclusive_outlives_the_disconnect_and_does_not_hold_it_up", outlives)
        .proves(&["LST-15", "LIFE-07"]),
    both("a_worker_may_listen_twice_with_reuse_port", reuse_port).proves(&["LST-16"]),
    both("a_socket_that_is_there_can_be_listened_on", listen_on).proves(&["LST-17"]),
    both("a_panic_closes_what_the_worker_opened", panics).proves(&["THR-39"]),
    // Processes collide in the kernel alike, but the claim is about threads.
    only(&[Mode::Thread], "threads_share_a_port_that_they_could_not_bind_twice", threads_share)
        .proves(&["LST-71"]),
];

fn ask(address: &str) -> Ask {
    Ask { address: address.into(), exclusive: true, ..Ask::default() }
}

fn exclusive(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let any = [0, 1].map(|worker| party.told(worker, Order::Listen(ask("127.0.0.1:0"))));
    assert_ne!(any[0], any[1]);
    for (worker, address) in ["1", "2"].iter().zip(&any) {
        assert_eq!(greeting(&address.parse().unwrap()).unwrap(), *worker);
    }
    let fixed = own_address(scene, 4000);
    party.told(0, Order::Listen(ask(&fixed)));
    refused(&party.tell(1, Order::Listen(ask(&fixed))), Errno::ADDRINUSE);
    // The cluster cannot have it either, and does not know who has.
    refused(&party.tell(1, listen(&fixed)), Errno::ADDRINUSE);
    assert_eq!(greeting(&fixed.parse().unwrap()).unwrap(), "1");
    party.told(0, listen("127.0.0.1:0"));
    party.await_named("listening", 1);
    assert!(!party.seen.addresses().contains(&fixed.parse().unwrap()));
}

fn outlives(scene: &Scene) {
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = scene.builder().launch(stay_busy).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(outside.local_addr().unwrap().to_string()).unwrap();
    let (_, own) = next_message::<String>(&cluster);
    let own: Address = own.parse().unwrap();
    let (mut peer, _) = outside.accept().unwrap();
    worker.disconnect().unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "draining");
    // Its own listener, its own connection and its timer go on.
    assert_eq!(greeting(&own).unwrap(), worker.id().to_string());
    assert_eq!(greeting(&own).unwrap(), worker.id().to_string());
    assert!(!worker.is_dead());
    peer.write_all(b"enough").unwrap();
    let seen = to_the_end(&cluster);
    assert!(seen.exit(worker.id()).success());
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

/// Works for itself until its own connection says that it is enough.
async fn stay_busy(worker: Worker) -> bimodal::Result<()> {
    let Some(outside) = worker.recv().await else { return Ok(()) };
    let outside = std::net::TcpStream::connect(outside.get::<String>()?)?;
    let outside = Connection::new(outside.into(), None, false)?;
    let options = ListenOptions::new().exclusive(true);
    let mut own = worker.listen_with("127.0.0.1:0", options).await?;
    let _ = worker.send(own.address().to_string())?;
    let id = worker.id();
    let greeter = event_loop::spawn(async move { greet_for_ever(&mut own, id).await });
    worker.draining().await;
    let _ = worker.send("draining".to_owned())?;
    event_loop::sleep(std::time::Duration::from_millis(1)).await;
    outside.read(&mut [0; 16]).await?;
    drop(greeter);
    Ok(())
}

async fn greet_for_ever(own: &mut bimodal::Listener, id: WorkerId) -> bimodal::Result<()> {
    while let Some(connection) = own.accept().await? {
        connection.write_all(format!("{id}\n").as_bytes()).await?;
    }
    unreachable!("nobody withdraws a listener of the worker's own")
}

fn reuse_port(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = own_address(scene, 4000);
    let ask = Ask { address: address.clone(), reuse_port: true, ..Ask::default() };
    // The first of worker 1 is there while the second is made: the worker keeps both.
    for (worker, ignore) in [(0, true), (0, false), (1, false)] {
        let ask = Ask { ignore, ..ask.clone() };
        assert_eq!(party.told(worker, Order::Listen(ask)), address);
    }
    // What nobody accepts from would take its part of the connections; a child about to exec may hold
    // it for a moment.
    party.told(0, Order::CloseIgnored(address.clone()));
    let address: Address = address.parse().unwrap();
    wait_until("the kernel to choose each", || greeting(&address).is_ok_and(|who| who == "1"));
    wait_until("the kernel to choose each", || greeting(&address).is_ok_and(|who| who == "2"));
    party.told(0, Order::Ping);
    assert_eq!(party.count("listening"), 0, "the primary was asked");
}

fn listen_on(scene: &Scene) {
    let mut party = Party::of(scene.builder().scheduling(Scheduling::RoundRobin), 1);
    let address: Address = party.told(0, Order::ListenOn("127.0.0.1:0".into())).parse().unwrap();
    assert_eq!(greeting(&address).unwrap(), "1");
    party.told(0, Order::Ping);
    assert_eq!(party.count("listening"), 0);
    let report = party.cluster.shutdown().unwrap();
    assert_eq!(report.dispatched, 0, "the primary was in between: {report}");
}

fn panics(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    let own: Address = party.told(0, Order::Listen(ask("127.0.0.1:0"))).parse().unwrap();
    let keep = Ask { address: "127.0.0.1:0".into(), keep: true, ..Ask::default() };
    let shared: Address = party.told(0, Order::Listen(keep)).parse().unwrap();
    let mut client = Client::connect(&shared).unwrap();
    assert_eq!(client.line().unwrap(), "1");
    party.order(0, Order::Panic);
    party.await_named("exit", 1);
    wait_until_closed(&own);
    wait_until_closed(&shared);
    let _ = client.rest();
}

fn threads_share(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = own_address(scene, 4000);
    party.told(0, Order::Listen(ask(&address)));
    refused(&party.tell(1, Order::Listen(ask(&address))), Errno::ADDRINUSE);
    party.told(0, Order::Close(address.clone()));
    // A process that another test forks has the socket until it runs its program.
    wait_until("the address to be free", || party.tell(0, listen(&address)).is_ok());
    party.told(1, listen(&address));
    let address = address.parse().unwrap();
    wait_until("both to serve", || greeting(&address).is_ok_and(|who| who == "1"));
    wait_until("both to serve", || greeting(&address).is_ok_and(|who| who == "2"));
}
