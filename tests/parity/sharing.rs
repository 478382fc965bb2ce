//! The life of a shared address: who is served in which order, who leaves, what waits, what is closed.

use std::{
    cell::Cell, future::poll_fn, io::ErrorKind, os::fd::AsRawFd as _, pin::pin, rc::Rc, task::Poll,
    time::Duration,
};

use bimodal::{Address, ExitStatus, ListenOptions, Mode, Scheduling, State, Worker, event_loop};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    bodies::{ANYWHERE, greet},
    orders::{Ask, Order, Party, listen, own_address, udp},
    support::{
        Scenario, Scene, both,
        client::{Client, greeting, wait_until_closed},
        events::{fork_listening, next_message, to_the_end, until, until_named},
        ledger::Ledger,
        only, program, system,
        trap::Trap,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("round_robin_is_exact_in_the_order_of_readiness", exact_turns).proves(&["LST-28"]),
    both("waiting_connections_go_in_order_to_a_worker_that_comes", in_order).proves(&["LST-31"]),
    both("what_waits_for_workers_is_bounded_under_round_robin", |scene| {
        bounded(scene, Scheduling::RoundRobin, 2);
    })
    .proves(&["LST-32", "LST-29"]),
    both("what_waits_for_workers_is_bounded_under_least_connections", |scene| {
        bounded(scene, Scheduling::LeastConnections, 2);
    })
    .proves(&["LST-32", "LST-29"]),
    both("a_refused_connection_goes_to_another_and_its_client_notices_nothing", refused)
        .proves(&["LST-33"]),
    both("a_refused_connection_that_nobody_is_left_for_is_closed", refused_by_the_last)
        .proves(&["LST-34"]),
    both("with_the_last_worker_the_address_and_what_waits_are_closed", |scene| {
        last_leaves(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-37", "SHUT-09"]),
    both("with_the_last_worker_the_address_is_closed_under_shared", |scene| {
        last_leaves(scene, Scheduling::Shared);
    })
    .proves(&["LST-37", "LST-56"]),
    both("an_address_can_be_kept_while_its_worker_is_replaced", kept)
        .proves(&["LST-38", "SHUT-09"]),
    both("without_keep_listening_nobody_listens_meanwhile", not_kept).proves(&["SHUT-09"]),
    both("a_shortage_of_descriptors_is_an_event_and_passes", shortage).proves(&["LST-39"]),
    both("a_closed_listener_serves_what_it_has_and_is_closed_at_once", closing).proves(&["LST-46"]),
    both("a_close_ends_when_the_connections_have", |scene| waits_for_connections(scene, None))
        .proves(&["LST-46"]),
    both("a_close_under_a_limit_ends_when_the_connections_have", |scene| {
        waits_for_connections(scene, Some(2));
    })
    .proves(&["LST-46"]),
    both("a_listener_can_be_closed_and_opened_again", again).proves(&["LST-48", "EVT-12"]),
    both("short_lived_listeners_trip_nothing", short_lived).proves(&["LST-48"]),
    both("workers_that_go_while_they_begin_to_listen_do_no_harm", gone_at_once)
        .proves(&["LST-53", "ERR-07"]),
    both("a_failed_listen_lets_a_worker_leave_in_order", fails_and_leaves)
        .proves(&["LST-13", "ERR-02"]),
    both("under_shared_what_waits_outlives_the_death_of_some", outlives).proves(&["LST-56"]),
    both("a_disconnected_worker_is_offered_nothing_more_under_round_robin", |scene| {
        withdrawn(scene, Scheduling::RoundRobin);
    })
    .proves(&["LIFE-04"]),
    both("a_disconnected_worker_is_offered_nothing_more_under_least_connections", |scene| {
        withdrawn(scene, Scheduling::LeastConnections);
    })
    .proves(&["LIFE-04"]),
    both("an_accepted_connection_dies_with_its_worker", dies_along).proves(&["LIFE-39"]),
    // Only a process can be dead while somebody else holds its channel.
    only(&[Mode::Process], "a_dead_worker_whose_channel_is_held_gets_nothing", held_channel)
        .proves(&["LIFE-40"]),
    both("idle_workers_leave_beside_those_that_listen", idle_leave).proves(&["SHUT-10"]),
    both("the_primary_survives_what_workers_do_to_its_listeners", misbehaviour).proves(&["ERR-07"]),
];

/// Started again by the tests above, to be short of descriptors alone.
pub const PROGRAMS: &[Scenario] = &[both("run_out_of_descriptors", run_out)];

fn round_robin(scene: &Scene) -> bimodal::Builder {
    scene.builder().scheduling(Scheduling::RoundRobin)
}

fn exact_turns(scene: &Scene) {
    let mut party = Party::of(round_robin(scene), 4);
    // They get ready in another order than they were started.
    let mut address = None;
    for worker in [2, 0, 3, 1] {
        address = Some(party.listening(worker, ANYWHERE));
        party.told(worker, Order::Ping);
    }
    let address = address.unwrap();
    let turns: Vec<_> = (0..400).map(|_| greeting(&address).unwrap()).collect();
    assert!(turns.chunks(4).all(|round| round == ["3", "1", "4", "2"]), "{turns:?}");
    // Newcomers go last, and so does who comes back.
    party.fork();
    party.listening(4, ANYWHERE);
    party.told(4, Order::Ping);
    let turns: Vec<_> = (0..10).map(|_| greeting(&address).unwrap()).collect();
    assert!(
        turns.chunks(5).all(|round| round == ["5", "3", "1", "4", "2"])
            || turns.chunks(5).all(|round| round == ["3", "1", "4", "2", "5"]),
        "{turns:?}"
    );
    let shared = address.to_string();
    party.told(0, Order::Close(shared.clone()));
    party.told(0, listen(&shared));
    party.told(0, Order::Ping);
    let turns: Vec<_> = (0..50).map(|_| greeting(&address).unwrap()).collect();
    let at = |id: &str| turns.iter().position(|turn| turn == id).unwrap();
    assert!(turns.chunks(5).all(|round| round == &turns[..5]), "{turns:?}");
    assert_eq!((at("5") + 1) % 5, at("1"), "the newcomer, then who came back: {turns:?}");
}

/// The first is stuck with its window of 1; the others wait for a worker that comes.
fn in_order(scene: &Scene) {
    let trap = Trap::new();
    let cluster = round_robin(scene).window(1).launch(number).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let _ = workers[0].send(trap.address()).unwrap();
    let stuck = trap.caught();
    let mut clients: Vec<_> = (0..6).map(|_| Client::connect(&address).unwrap()).collect();
    fork_listening(&cluster, 1);
    let lines: Vec<_> = clients[1..].iter_mut().map(|client| client.line().unwrap()).collect();
    assert_eq!(lines, ["2 1", "2 2", "2 3", "2 4", "2 5"]);
    drop(stuck);
    assert_eq!(clients[0].line().unwrap(), "1 1");
}

/// Greets with the worker's id and how many it has greeted.
async fn number(worker: Worker) -> bimodal::Result<()> {
    let mut listener = worker.listen(ANYWHERE).await?;
    event_loop::spawn(crate::bodies::step_into_traps(worker.clone())).detach();
    let mut count = 0;
    while let Some(connection) = listener.accept().await? {
        count += 1;
        connection.write_all(format!("{} {count}\n", worker.id()).as_bytes()).await?;
    }
    Ok(())
}

fn bounded(scene: &Scene, scheduling: Scheduling, window: usize) {
    let trap = Trap::new();
    let cluster = scene.builder().scheduling(scheduling).window(window).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let _ = workers[0].send(trap.address()).unwrap();
    let stuck = trap.caught();
    let clients: Vec<_> = (0..30).map(|_| Client::connect(&address).unwrap()).collect();
    let port = address.port().unwrap();
    wait_until("the window to be full", || system::accepted(port) == window);
    // The primary has done something else since, and still waits.
    workers[0].disconnect().unwrap();
    wait_until("the primary's next turn", || workers[0].state() == State::Draining);
    assert!(system::accepted(port) <= window);
    drop(stuck);
    drop(clients);
}

fn refused(scene: &Scene) {
    let trap = Trap::new();
    let mut party = Party::of(round_robin(scene).window(4), 2);
    let address = party.listening(0, ANYWHERE);
    party.listening(1, ANYWHERE);
    party.await_named("listening", 2);
    party.order(0, Order::StickThenClose(trap.address(), address.to_string()));
    let stuck = trap.caught();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&address).unwrap()).collect();
    let ledger = Ledger::default();
    // All but the window of the stuck one.
    wait_until("the others to be served", || {
        clients.retain_mut(|client| {
            client.set_patience(Duration::from_millis(5)).unwrap();
            let line = client.line();
            line.as_ref().iter().for_each(|line| ledger.count(line.as_str()));
            line.is_err()
        });
        clients.len() == 4
    });
    drop(stuck);
    for client in &mut clients {
        client.set_patience(crate::support::DEADLINE).unwrap();
        ledger.count(client.line().unwrap());
    }
    ledger.assert_only("2");
    let report = party.cluster.shutdown().unwrap();
    assert_eq!((report.dispatched, report.dispatched_again), (20, 4), "{report}");
}

fn refused_by_the_last(scene: &Scene) {
    let trap = Trap::new();
    let mut party = Party::of(round_robin(scene), 1);
    let address = party.listening(0, ANYWHERE);
    party.await_named("listening", 1);
    party.order(0, Order::StickThenClose(trap.address(), address.to_string()));
    let stuck = trap.caught();
    let mut client = Client::connect(&address).unwrap();
    wait_until("the offer", || system::accepted(address.port().unwrap()) == 1);
    drop(stuck);
    assert!(ended(&mut client), "it was served");
    assert!(party.answer(0).is_ok(), "the worker goes on");
    party.listening(0, ANYWHERE);
}

/// Whether a connection ends, in either way, before anything comes.
fn ended(client: &mut Client) -> bool {
    match client.line() {
        Ok(_) => false,
        Err(error) => {
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
        }
    }
}

fn last_leaves(scene: &Scene, scheduling: Scheduling) {
    let trap = Trap::new();
    let builder = scene.builder().scheduling(scheduling).window(1);
    let cluster = builder.launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let _ = workers[0].send(trap.address()).unwrap();
    let stuck = trap.caught();
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&address).unwrap()).collect();
    let offered = if scheduling == Scheduling::RoundRobin { 1 } else { 0 };
    let port = address.port().unwrap();
    wait_until("the offer", || system::accepted(port) >= offered);
    workers[0].disconnect().unwrap();
    // While it is stuck: what nobody has been offered ends, and nobody else is let in.
    for client in &mut clients[offered..] {
        assert!(ended(client), "it was served");
    }
    wait_until_closed(&address);
    drop(stuck);
    let seen = to_the_end(&cluster);
    assert!(seen.exit(workers[0].id()).success());
    // What was offered before is still served.
    for client in &mut clients[..offered] {
        assert_eq!(client.line().unwrap(), "1");
    }
}

fn kept(scene: &Scene) {
    let cluster = scene.builder().keep_listening(true).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    workers[0].kill().unwrap();
    until_named(&cluster, "exit", 1);
    let mut waiting: Vec<_> = (0..5).map(|_| Client::connect(&address).unwrap()).collect();
    let (_, again) = fork_listening(&cluster, 1);
    assert_eq!(again, address);
    for client in &mut waiting {
        assert_eq!(client.line().unwrap(), "2");
    }
    // With all of them disconnected, it is not kept.
    cluster.disconnect().unwrap();
    to_the_end(&cluster);
    wait_until_closed(&address);
}

fn not_kept(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    workers[0].kill().unwrap();
    until_named(&cluster, "exit", 1);
    greeting(&address).unwrap();
    workers[1].kill().unwrap();
    until_named(&cluster, "exit", 1);
    wait_until_closed(&address);
}

/// A primary that cannot open descriptors says so and goes on.
fn shortage(scene: &Scene) {
    let mut program = program::start("run_out_of_descriptors", scene.mode);
    let address = program.line(|line| line.starts_with("at "));
    let address: Address = address["at ".len()..].parse().unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&address).unwrap()).collect();
    let told = program.line(|line| line.starts_with("error: "));
    assert!(told.contains("cannot accept connections on"), "{told}");
    assert!(told.contains("os error 24"), "{told}");
    clients.iter_mut().for_each(|client| assert_eq!(client.line().unwrap(), "1"));
    drop(program);
}

fn run_out(scene: &Scene) {
    let cluster = round_robin(scene).launch(greet).unwrap();
    let (_, address) = fork_listening(&cluster, 1);
    let before = getrlimit(Resource::Nofile);
    let low = Rlimit { current: Some(3), ..before };
    setrlimit(Resource::Nofile, low).unwrap();
    println!("at {address}");
    let seen = until(&cluster, "an error", |event| event.name() == "error");
    setrlimit(Resource::Nofile, before).unwrap();
    if let Some(bimodal::Event::Error { worker: None, error }) = seen.0.last() {
        println!("error: {error}");
    }
    to_the_end(&cluster);
}

fn closing(scene: &Scene) {
    let mut party = Party::of(round_robin(scene), 1);
    let keep = Ask { address: ANYWHERE.into(), keep: true, ..Ask::default() };
    let text = party.told(0, Order::Listen(keep));
    let address: Address = text.parse().unwrap();
    let mut client = Client::connect(&address).unwrap();
    assert_eq!(client.line().unwrap(), "1");
    party.told(0, Order::Close(text));
    wait_until_closed(&address);
    client.send(b"still here\n").unwrap();
    assert_eq!(client.line().unwrap(), "still here");
    // The worker waits for it neither with the address nor with another.
    party.listening(0, ANYWHERE);
    assert_eq!(party.workers[0].stats().connections_open, 1);
    drop(client);
    wait_until("its end", || party.workers[0].stats().connections_open == 0);
}

fn waits_for_connections(scene: &Scene, limit: Option<usize>) {
    let cluster = scene.builder().launch(move |worker| close_and_wait(worker, limit)).unwrap();
    let (_, address) = fork_listening(&cluster, 1);
    let [one, other] = [(); 2].map(|()| Client::connect(&address).unwrap());
    assert!(next_message::<bool>(&cluster).1, "two are open");
    wait_until_closed(&address);
    drop(one);
    assert_eq!(next_message::<usize>(&cluster).1, 1);
    drop(other);
    assert_eq!(next_message::<usize>(&cluster).1, 0);
    assert_eq!(next_message::<String>(&cluster).1, "closed");
}

/// Tells whether its close waits, of each connection's end how many are left, and of the close's.
async fn close_and_wait(worker: Worker, limit: Option<usize>) -> bimodal::Result<()> {
    let options = ListenOptions::new();
    let options = match limit {
        Some(limit) => options.max_connections(limit),
        None => options,
    };
    let mut listener = worker.listen_with(ANYWHERE, options).await?;
    let left = Rc::new(Cell::new(2_usize));
    for _ in 0..2 {
        let connection = listener.accept().await?.unwrap();
        let (worker, left) = (worker.clone(), left.clone());
        let wait_for_the_end = async move {
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
            left.set(left.get() - 1);
            let _ = worker.send(left.get()).unwrap();
        };
        event_loop::spawn(wait_for_the_end).detach();
    }
    let mut closing = pin!(listener.close());
    let waits = poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx).is_pending())).await;
    let _ = worker.send(waits)?;
    closing.await;
    assert_eq!(left.get(), 0);
    let _ = worker.send("closed")?;
    Ok(())
}

fn again(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let address = party.listening(0, ANYWHERE);
    assert_eq!(party.listening(1, ANYWHERE), address);
    for _ in 0..5 {
        party.told(0, Order::Close(address.to_string()));
        assert_eq!(party.listening(0, ANYWHERE), address, "the others still have the first port 0");
    }
    party.await_named("listening", 7);
    assert_eq!(party.seen.addresses(), vec![address.clone(); 7]);
    greeting(&address).unwrap();
    // Alone, and by number.
    let own = own_address(scene, 4001);
    for _ in 0..3 {
        party.told(0, listen(&own));
        greeting(&own.parse().unwrap()).unwrap();
        party.told(0, Order::Close(own.clone()));
        wait_until_closed(&own.parse().unwrap());
    }
}

/// The same coming and going in two workers leads to the same ports.
fn short_lived(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let ports = [0, 1].map(|worker| {
        let mut ports = Vec::new();
        let first = party.told(worker, listen(ANYWHERE));
        let second = party.told(worker, listen(ANYWHERE));
        party.told(worker, Order::Close(first.clone()));
        let third = party.told(worker, listen(ANYWHERE));
        let fourth = party.told(worker, udp(ANYWHERE));
        party.told(worker, Order::Close(second.clone()));
        party.told(worker, Order::Close(fourth.clone()));
        let fifth = party.told(worker, udp(ANYWHERE));
        let sixth = party.told(worker, listen(ANYWHERE));
        ports.extend([first, second, third, fourth, fifth, sixth]);
        ports
    });
    // Worker 1 has left the first and second when worker 2 comes: they are others by then.
    assert_eq!(ports[0][2], ports[1][2]);
    assert_eq!(ports[0][5], ports[1][5]);
    assert_eq!(ports[0][4], ports[1][4], "the first of UDP, again");
    for address in [&ports[0][2], &ports[0][5]] {
        greeting(&address.parse().unwrap()).unwrap();
    }
}

fn gone_at_once(scene: &Scene) {
    let mut party = Party::new(scene, 8);
    for worker in 0..8 {
        for _ in 0..3 {
            party.order(worker, listen(ANYWHERE));
        }
        match worker % 4 {
            0 => party.workers[worker].kill().unwrap(),
            1 => drop(party.workers[worker].disconnect().unwrap()),
            2 => party.order(worker, Order::Panic),
            _ => party.order(worker, Order::Leave),
        }
    }
    party.await_named("exit", 8);
    party.fork();
    let address = party.listening(8, ANYWHERE);
    assert_eq!(greeting(&address).unwrap(), "9");
}

fn fails_and_leaves(scene: &Scene) {
    let cluster = scene.builder().launch(fail_to_listen).unwrap();
    let taken = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let workers: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    for (worker, how) in workers.iter().zip(["leave", "panic", "return"]) {
        let _ = worker.send((address.clone(), how.to_owned())).unwrap();
    }
    let seen = to_the_end(&cluster);
    let statuses: Vec<_> = workers.iter().map(|worker| seen.exit(worker.id())).collect();
    let codes = [0, ExitStatus::PANIC, 1].map(ExitStatus::Code);
    assert_eq!(statuses, codes);
    for (worker, fails) in workers.iter().zip([false, true, true]) {
        let mut names = seen.names(Some(worker.id()));
        names.retain(|name| *name != "error");
        assert_eq!(names, ["fork", "online", "disconnect", "exit"]);
        let told = seen.names(Some(worker.id())).contains(&"error");
        assert_eq!(told, fails, "{worker}");
    }
    let voluntary = |at: usize| workers[at].exited_after_disconnect();
    assert_eq!([0, 1, 2].map(voluntary), [true, true, false].map(Some));
}

async fn fail_to_listen(worker: Worker) -> bimodal::Result<()> {
    let Some(message) = worker.recv().await else { return Ok(()) };
    let (address, how) = message.get::<(String, String)>()?;
    let Err(error) = worker.listen(&address).await else { return Ok(()) };
    if how == "return" {
        return Err(error);
    }
    worker.disconnect();
    worker.draining().await;
    assert_ne!(how, "panic", "it makes a mess of {error}");
    Ok(())
}

fn outlives(scene: &Scene) {
    let traps = [Trap::new(), Trap::new()];
    let builder = scene.builder().scheduling(Scheduling::Shared);
    let cluster = builder.launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let mut stuck: Vec<_> = workers
        .iter()
        .zip(&traps)
        .map(|(worker, trap)| {
            let _ = worker.send(trap.address()).unwrap();
            trap.caught()
        })
        .collect();
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&address).unwrap()).collect();
    workers[0].kill().unwrap();
    // A thread that is stuck is given up after a while; nobody has to wait for that.
    drop(stuck.pop());
    for client in &mut clients {
        assert_eq!(client.line().unwrap(), "2");
    }
    // What waits when the last one dies ends with it.
    let _ = workers[1].send(traps[1].address()).unwrap();
    let last = traps[1].caught();
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(&address).unwrap()).collect();
    workers[1].kill().unwrap();
    for client in &mut clients {
        assert!(ended(client), "it was served");
    }
    drop((stuck, last));
    until_named(&cluster, "exit", 2);
    wait_until_closed(&address);
}

fn withdrawn(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(linger).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let mut client = Client::connect(&address).unwrap();
    let first = client.line().unwrap();
    let at = usize::from(first == "2");
    workers[at].disconnect().unwrap();
    for _ in 0..20 {
        assert_ne!(greeting(&address).unwrap(), first);
    }
    // It lives, and serves what it has.
    assert!(!workers[at].is_dead());
    client.send(b"x").unwrap();
    assert_eq!(client.line().unwrap(), "bye");
    until_named(&cluster, "exit", 1);
}

/// Greets, and leaves only when its first connection says something.
async fn linger(worker: Worker) -> bimodal::Result<()> {
    let mut listener = worker.listen(ANYWHERE).await?;
    let mut tasks = Vec::new();
    while let Some(connection) = listener.accept().await? {
        connection.write_all(format!("{}\n", worker.id()).as_bytes()).await?;
        tasks.push(event_loop::spawn(async move {
            if let Ok(1..) = connection.read(&mut [0]).await {
                let _ = connection.write_all(b"bye\n").await;
            }
        }));
    }
    for task in tasks {
        let _ = task.await;
    }
    Ok(())
}

fn dies_along(scene: &Scene) {
    let mut party = Party::of(round_robin(scene), 2);
    let keep = Ask { address: ANYWHERE.into(), keep: true, ..Ask::default() };
    let address: Address = party.told(0, Order::Listen(keep.clone())).parse().unwrap();
    party.told(1, Order::Listen(keep));
    party.await_named("listening", 2);
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(&address).unwrap()).collect();
    let greeters: Vec<_> = clients.iter_mut().map(|client| client.line().unwrap()).collect();
    let of_first = greeters.iter().position(|greeter| greeter == "1").unwrap();
    party.order(0, Order::Panic);
    assert!(ended(&mut clients[of_first]), "somebody else took it over");
    party.await_named("exit", 1);
    let other = &mut clients[1 - of_first];
    other.send(b"alive\n").unwrap();
    assert_eq!(other.line().unwrap(), "alive");
    let report = party.cluster.shutdown().unwrap();
    assert_eq!((report.dispatched, report.dispatched_again), (2, 0), "{report}");
}

fn held_channel(scene: &Scene) {
    let cluster = round_robin(scene).launch(leave_the_channel_behind).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let _ = workers[0].send(()).unwrap();
    let (_, heir) = next_message::<u32>(&cluster);
    workers[0].kill().unwrap();
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.exit(workers[0].id()), ExitStatus::Signal(9));
    assert!(system::exists(heir), "nobody holds the channel");
    for _ in 0..6 {
        assert_eq!(greeting(&address).unwrap(), "2");
    }
    system::signal(heir, 9);
}

/// Starts a program that has this worker's end of the channel.
async fn leave_the_channel_behind(worker: Worker) -> bimodal::Result<()> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let listener = worker.listen(ANYWHERE).await?;
    let greeter = event_loop::spawn(crate::bodies::greet_all(worker.clone(), listener));
    if worker.recv().await.is_some() {
        let (number, _) = system::descriptors_of(std::process::id())
            .into_iter()
            .find(|(number, kind)| kind.starts_with("socket:") && is_packets(*number))
            .unwrap();
        let me = pidfd_open(Pid::from_raw(std::process::id() as i32).unwrap(), PidfdFlags::empty());
        let channel = pidfd_getfd(me.unwrap(), number, PidfdGetfdFlags::empty()).unwrap();
        rustix::io::fcntl_setfd(&channel, rustix::io::FdFlags::empty()).unwrap();
        assert!(channel.as_raw_fd() > 2);
        let heir = std::process::Command::new("sleep").arg("60").spawn()?;
        let _ = worker.send(heir.id())?;
    }
    greeter.await.unwrap_or(Ok(()))
}

/// Whether a descriptor of this process is a socket for packets, such as the channel.
fn is_packets(number: i32) -> bool {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let me = pidfd_open(Pid::from_raw(std::process::id() as i32).unwrap(), PidfdFlags::empty());
    let copy = pidfd_getfd(me.unwrap(), number, PidfdGetfdFlags::empty());
    copy.is_ok_and(|copy| {
        rustix::net::sockopt::socket_type(&copy)
            .is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET)
    })
}

fn idle_leave(scene: &Scene) {
    let mut party = Party::new(scene, 4);
    party.listening(0, ANYWHERE);
    let own = Ask { address: ANYWHERE.into(), exclusive: true, ..Ask::default() };
    party.told(1, Order::Listen(own));
    party.told(2, udp(ANYWHERE));
    party.told(3, Order::Ping);
    party.cluster.disconnect().unwrap();
    party.await_named("exit", 4);
    for worker in &party.workers {
        assert!(party.seen.exit(worker.id()).success());
        assert_eq!(worker.exited_after_disconnect(), Some(true));
    }
    assert_eq!(party.count("error"), 0);
}

/// Crashes with connections under way, failed binds, storms of refusals.
fn misbehaviour(scene: &Scene) {
    let trap = Trap::new();
    let mut party = Party::of(round_robin(scene).window(4), 3);
    let address = party.listening(0, ANYWHERE);
    party.listening(1, ANYWHERE);
    for _ in 0..30 {
        assert!(party.tell(2, listen("192.0.2.1:4000")).is_err());
        assert!(party.tell(2, listen("fd:-5")).is_err());
    }
    party.await_named("listening", 2);
    let mut clients = Vec::new();
    for worker in 0..2 {
        let what = Order::StickThenClose(trap.address(), address.to_string());
        party.order(worker, if worker == 0 { Order::Stick(trap.address()) } else { what });
        let stuck = trap.caught();
        clients.extend((0..10).map(|_| Client::connect(&address).unwrap()));
        if worker == 0 {
            party.order(worker, Order::Panic);
        }
        drop(stuck);
    }
    // Everybody is served or let go; nobody waits for ever.
    for client in &mut clients {
        match client.line() {
            Ok(_) => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "a client hangs"),
        }
    }
    let address = party.listening(2, ANYWHERE);
    assert_eq!(greeting(&address).unwrap(), "3");
}
