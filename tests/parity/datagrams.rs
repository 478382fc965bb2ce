//! UDP: one socket for all workers, whatever the policy.

use std::{net::UdpSocket, os::fd::AsRawFd as _};

use bimodal::{Address, Scheduling};
use rustix::io::Errno;

use crate::{
    bodies::ANYWHERE,
    orders::{Order, Party, UdpAsk, listen, own_address, refused, udp},
    support::{DEADLINE, Scenario, Scene, both, ledger::Ledger, wait_until},
};

pub const SCENARIOS: &[Scenario] = &[
    both("udp_is_shared_under_round_robin", |scene| shared(scene, Scheduling::RoundRobin))
        .proves(&["LST-57", "LST-58"]),
    both("udp_is_shared_under_shared", |scene| shared(scene, Scheduling::Shared))
        .proves(&["LST-57", "LST-58"]),
    both("udp_is_shared_under_reuse_port", |scene| shared(scene, Scheduling::ReusePort))
        .proves(&["LST-57", "LST-58"]),
    both("each_datagram_reaches_one_worker_and_the_rest_when_others_close", quarters)
        .proves(&["LST-58"]),
    both("how_uneven_udp_is_and_what_to_do_is_documented", alternative).proves(&["LST-59"]),
    both("exclusive_udp_belongs_to_its_worker", exclusive).proves(&["LST-60"]),
    both("udp_can_be_bound_twice_with_reuse_address", reuse_address).proves(&["LST-61"]),
    both("udp_over_ipv6_leaves_ipv4_alone_if_asked_to", ipv6_only).proves(&["LST-61"]),
    both("udp_takes_a_descriptor_of_the_primary", descriptor).proves(&["LST-61"]),
    both("udp_sends_from_the_shared_socket", sends).proves(&["LST-61"]),
    both("a_failed_udp_bind_can_be_tried_again", again).proves(&["LST-62"]),
    both("what_is_given_up_before_the_answer_is_given_back", given_up).proves(&["LST-63"]),
    both("a_multicast_group_is_joined_once_through_a_shared_socket", multicast).proves(&["LST-64"]),
    both("udp_and_tcp_count_port_0_apart", apart).proves(&["LST-48"]),
    both("a_worker_that_leaves_receives_nothing_more", leaving),
];

/// A client with a deadline for everything.
fn client(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Sends a datagram from a port of its own, and says which worker answered.
fn ask(address: &Address) -> String {
    let target = address.udp().unwrap();
    let local = if target.is_ipv6() { "[::1]:0" } else { ANYWHERE };
    let client = client(local);
    client.send_to(b"who?", target).unwrap();
    let mut answer = [0; 8];
    let (length, from) = client.recv_from(&mut answer).unwrap();
    assert_eq!(from.port(), target.port(), "answered from the shared socket");
    String::from_utf8(answer[..length].to_vec()).unwrap()
}

fn bind(party: &mut Party, worker: usize, address: &str) -> Address {
    party.told(worker, udp(address)).parse().unwrap()
}

fn received(party: &mut Party, worker: usize, address: &Address) -> u64 {
    party.told(worker, Order::Received(address.to_string())).parse().unwrap()
}

fn shared(scene: &Scene, scheduling: Scheduling) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), 3);
    let addresses = [0, 1, 2].map(|worker| bind(&mut party, worker, ANYWHERE));
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    assert!(addresses[0].udp().is_some_and(|address| address.port() != 0));
    party.await_named("listening", 3);
    assert_eq!(party.seen.addresses(), addresses);
    (0..30).for_each(|_| drop(ask(&addresses[0])));
    let counts = [0, 1, 2].map(|worker| received(&mut party, worker, &addresses[0]));
    assert_eq!(counts.iter().sum::<u64>(), 30, "{counts:?}");
    // The primary has nothing to do with it.
    let report = party.cluster.shutdown().unwrap();
    assert_eq!(report.dispatched, 0, "{report}");
}

/// 40 datagrams; a worker that has got 10 closes its socket.
fn quarters(scene: &Scene) {
    let mut party = Party::new(scene, 4);
    let address = [0, 1, 2, 3].map(|worker| bind(&mut party, worker, ANYWHERE))[0].clone();
    let ledger = Ledger::default();
    let mut open = vec![0, 1, 2, 3];
    for _ in 0..40 {
        let worker = ask(&address);
        ledger.count(worker.as_str());
        if ledger.get(&worker) == 10 {
            let index = worker.parse::<usize>().unwrap() - 1;
            party.told(index, Order::Close(address.to_string()));
            open.retain(|left| *left != index);
        }
    }
    for worker in ["1", "2", "3", "4"] {
        assert_eq!(ledger.get(worker), 10, "{ledger}");
    }
    assert!(open.is_empty());
    // With the last one the port is free.
    wait_until("the port to be free", || UdpSocket::bind(address.udp().unwrap()).is_ok());
}

/// The documents name the alternative, and it is there: a socket for each worker, in one group.
fn alternative(scene: &Scene) {
    let document = include_str!("../../src/accept/README.md");
    let flat = document.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(
        "A UDP socket is shared by plain epoll: all idle workers wake, and the split is uneven"
    ));
    assert!(flat.contains("`UdpOptions::reuse_port` gives each worker a socket of its own"));
    let mut party = Party::new(scene, 2);
    let address = own_address(scene, 4000);
    let ask_for = UdpAsk { address, reuse_port: true, ..UdpAsk::default() };
    let at = [0, 1].map(|worker| party.told(worker, Order::Udp(ask_for.clone())));
    let address: Address = at[0].parse().unwrap();
    wait_until("the kernel to choose each", || ask(&address) == "1");
    wait_until("the kernel to choose each", || ask(&address) == "2");
    party.told(0, Order::Ping);
    assert_eq!(party.count("listening"), 0, "the primary was asked");
}

fn exclusive(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = own_address(scene, 4000);
    let own = |address: &str| {
        Order::Udp(UdpAsk { address: address.into(), exclusive: true, ..UdpAsk::default() })
    };
    party.told(0, own(&address));
    refused(&party.tell(1, own(&address)), Errno::ADDRINUSE);
    refused(&party.tell(1, udp(&address)), Errno::ADDRINUSE);
    // A socket that is only to send from: a port of each worker's own.
    let ports = [0, 1].map(|worker| party.told(worker, own(ANYWHERE)));
    assert_ne!(ports[0], ports[1]);
    // Shared, the second is welcome.
    let address = own_address(scene, 4001);
    (0..2).for_each(|worker| drop(party.told(worker, udp(&address))));
}

fn reuse_address(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = own_address(scene, 4000);
    let twice = Order::Udp(UdpAsk { address, reuse_address: true, ..UdpAsk::default() });
    for worker in 0..2 {
        party.told(worker, twice.clone());
        party.told(worker, twice.clone());
    }
    // Without it the second is in use.
    let address = own_address(scene, 4001);
    party.told(0, udp(&address));
    refused(&party.tell(0, udp(&address)), Errno::ADDRINUSE);
}

fn ipv6_only(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    let order = |ipv6_only| {
        Order::Udp(UdpAsk { address: "udp:[::]:0".into(), ipv6_only, ..UdpAsk::default() })
    };
    // Another test may have the port on one of the IPv4 addresses: the next one then.
    wait_until("a port that is free for IPv4", || {
        let address: Address = party.told(0, order(true)).parse().unwrap();
        let port = address.port().unwrap();
        ask(&format!("udp:[::1]:{port}").parse().unwrap());
        UdpSocket::bind(("0.0.0.0", port)).is_ok()
    });
    let address: Address = party.told(0, udp(":0")).parse().unwrap();
    let both = [
        format!("udp:127.0.0.1:{}", address.port().unwrap()),
        format!("udp:[::1]:{}", address.port().unwrap()),
    ];
    for address in both {
        ask(&address.parse().unwrap());
    }
}

fn descriptor(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let socket = UdpSocket::bind(ANYWHERE).unwrap();
    let at = Address::Udp(socket.local_addr().unwrap());
    for worker in 0..2 {
        assert_eq!(bind(&mut party, worker, &format!("fd:{}", socket.as_raw_fd())), at);
    }
    ask(&at);
    let stream = std::net::TcpListener::bind(ANYWHERE).unwrap();
    refused(&party.tell(0, udp(&format!("fd:{}", stream.as_raw_fd()))), Errno::INVAL);
    refused(&party.tell(0, listen(&format!("fd:{}", socket.as_raw_fd()))), Errno::INVAL);
    refused(&party.tell(0, udp(&format!("fd:{}", i32::MAX))), Errno::BADF);
}

fn sends(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let addresses = [0, 1].map(|worker| bind(&mut party, worker, ANYWHERE));
    let outside = client(ANYWHERE);
    for worker in 0..2 {
        let target = outside.local_addr().unwrap();
        let order = Order::SendTo(addresses[worker].to_string(), target);
        assert_eq!(party.told(worker, order), "5");
        let (length, from) = outside.recv_from(&mut [0; 16]).unwrap();
        assert_eq!((length, Address::Udp(from)), (5, addresses[0].clone()));
    }
}

fn again(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = own_address(scene, 4000);
    let taken = UdpSocket::bind(&address).unwrap();
    for worker in 0..2 {
        refused(&party.tell(worker, udp(&address)), Errno::ADDRINUSE);
    }
    drop(taken);
    // A process that another test forks has the socket until it runs its program.
    wait_until("the port to be free", || party.tell(0, udp(&address)).is_ok());
    party.told(1, udp(&address));
    ask(&format!("udp:{address}").parse().unwrap());
    assert_eq!(party.count("listening"), 2, "only what went well is told");
}

fn given_up(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    let address = own_address(scene, 4000);
    for _ in 0..20 {
        assert_eq!(party.told(0, Order::GiveUp(address.clone())), "false false");
    }
    wait_until("both to be given back", || {
        std::net::TcpListener::bind(&address).is_ok() && UdpSocket::bind(&address).is_ok()
    });
    assert_eq!(party.count("listening"), 0);
    // A bind that is closed as soon as it is there does no harm either.
    wait_until("the port to be free", || party.tell(0, udp(&address)).is_ok());
    party.told(0, Order::Close(format!("udp:{address}")));
    wait_until("the port to be free", || party.tell(0, udp(&address)).is_ok());
    ask(&format!("udp:{address}").parse().unwrap());
}

fn multicast(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let addresses = [0, 1].map(|worker| bind(&mut party, worker, ANYWHERE));
    let join = |worker: usize| Order::Join(addresses[worker].to_string());
    party.told(0, join(0));
    let refusal = party.tell(1, join(1)).unwrap_err();
    assert_eq!(refusal.errno, Some(Errno::ADDRINUSE.raw_os_error()), "{refusal:?}");
    // A socket of its own joins.
    let own = UdpAsk { address: ANYWHERE.into(), exclusive: true, ..UdpAsk::default() };
    let own = party.told(1, Order::Udp(own));
    party.told(1, Order::Join(own));
}

fn apart(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    party.told(0, listen(ANYWHERE));
    let first = bind(&mut party, 0, ANYWHERE);
    let second = bind(&mut party, 0, ANYWHERE);
    assert_ne!(first, second);
    // It is the first of UDP for the other worker, who has no TCP.
    assert_eq!(bind(&mut party, 1, ANYWHERE), first);
    assert_eq!(bind(&mut party, 1, ANYWHERE), second);
}

fn leaving(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = [0, 1].map(|worker| bind(&mut party, worker, ANYWHERE))[0].clone();
    party.workers[0].disconnect().unwrap();
    party.await_named("exit", 1);
    (0..10).for_each(|_| assert_eq!(ask(&address), "2"));
    party.workers[1].disconnect().unwrap();
    party.await_named("exit", 2);
    wait_until("the port to be free", || UdpSocket::bind(address.udp().unwrap()).is_ok());
}
