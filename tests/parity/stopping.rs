//! The phases of a stop: unready, drain, close, kill; and how signals go through them.

use std::{
    io::ErrorKind,
    rc::Rc,
    time::{Duration, Instant},
};

use bimodal::{Cluster, Connection, Decision, Event, ExitStatus, Shutdown, Worker, event_loop};

use crate::{
    bodies::ANYWHERE,
    supervising::{decision, served},
    support::{
        DEADLINE, Scenario, Scene, both,
        client::{Client, get, wait_until_closed},
        events::{to_the_end, until_named},
        program,
        trap::Trap,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("before_it_stops_a_cluster_says_so_and_goes_on_serving", announced),
    both("who_starts_while_a_stop_is_announced_is_unready_as_well", announced_to_all),
    both("a_stop_lets_requests_finish", drained),
    both("a_worker_that_does_not_drain_is_closed", closed),
    both("a_worker_that_cannot_be_closed_is_killed", killed).proves(&["SHUT-11"]),
    both("long_connections_are_told_of_the_stop", told),
    both("stop_now_ends_everything_at_once_and_stop_does_not", second_stop),
    both("sigquit_stops_without_hurry", quit),
    both("a_stop_during_a_reload_ends", during_reload),
];

/// Started again by the tests above, to be signalled.
pub const PROGRAMS: &[Scenario] = &[both("keep_without_hurry", keep_without_hurry)];

fn shutdown() -> Shutdown {
    Shutdown { drain: 2 * DEADLINE, ..Shutdown::default() }
}

const DELAY: Duration = Duration::from_millis(1500);

fn announced(scene: &Scene) {
    let shutdown = Shutdown { delay: DELAY, ..shutdown() };
    let (cluster, address) = served(scene.builder().shutdown(shutdown), 2);
    let says_ready = || get(&address, "/ready").unwrap().text().to_owned();
    assert!(says_ready() == "true" && cluster.status().is_ready());
    let start = Instant::now();
    cluster.stop().unwrap();
    decision(&cluster, "a stop", |made| *made == Decision::Stop);
    assert!(!cluster.status().is_ready());
    let mut answers = 0;
    wait_until("both to say that they are unready", || {
        answers = if says_ready() == "false" { answers + 1 } else { 0 };
        answers == 8
    });
    wait_until_closed(&address);
    assert!(start.elapsed() >= DELAY, "{:?}", start.elapsed());
    let report = cluster.wait().unwrap();
    assert_eq!((report.exits["code 0"], report.closed), (2, 0), "{report}");
}

fn announced_to_all(scene: &Scene) {
    let shutdown = Shutdown { delay: 2 * DEADLINE, ..shutdown() };
    let (cluster, address) = served(scene.builder().shutdown(shutdown), 1);
    cluster.stop().unwrap();
    let mut client = Client::connect(&address).unwrap();
    client.request("/panic").unwrap();
    assert!(client.answer().is_err());
    until_named(&cluster, "listening", 1);
    assert_eq!(get(&address, "/ready").unwrap().text(), "false");
    cluster.stop_now().unwrap();
    cluster.wait().unwrap();
}

fn drained(scene: &Scene) {
    let (cluster, address) = served(scene.builder().shutdown(shutdown()), 1);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(&address).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.request("/sleep/400").unwrap());
    wait_until("the requests to be there", || {
        cluster.status().workers[0].stats.connections_open == 4
    });
    cluster.stop().unwrap();
    for mut client in clients {
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    let report = cluster.wait().unwrap();
    assert_eq!((report.exits["code 0"], report.closed, report.forced_kills), (1, 0, 0), "{report}");
}

/// A cluster of workers that keep connections, and a connection to one of them.
fn keeping(scene: &Scene, shutdown: Shutdown) -> (Cluster, Client) {
    let cluster = scene.builder().workers(1).shutdown(shutdown).supervise(hold).unwrap();
    let address = until_named(&cluster, "listening", 1).addresses().remove(0);
    let mut client = Client::connect(&address).unwrap();
    client.line().unwrap();
    (cluster, client)
}

fn closed(scene: &Scene) {
    let drain = Duration::from_millis(300);
    let (cluster, mut client) =
        keeping(scene, Shutdown { drain, close: DEADLINE, ..Shutdown::default() });
    let start = Instant::now();
    cluster.stop().unwrap();
    assert_eq!(client.rest().unwrap_or_default(), b"");
    assert!(start.elapsed() >= drain, "{:?}", start.elapsed());
    let report = cluster.wait().unwrap();
    assert_eq!((report.closed, report.forced_kills, report.abandoned), (1, 0, 0), "{report}");
}

fn killed(scene: &Scene) {
    let time = Duration::from_millis(200);
    let shutdown = Shutdown { drain: time, close: time, kill: time, ..Shutdown::default() };
    let trap = Trap::new();
    let (cluster, _) = served(scene.builder().shutdown(shutdown), 2);
    let victim = cluster.workers().remove(0);
    let _ = victim.send(trap.address()).unwrap();
    let stuck = trap.caught();
    let start = Instant::now();
    cluster.stop().unwrap();
    let seen = to_the_end(&cluster);
    assert!(start.elapsed() >= 2 * time, "{:?}", start.elapsed());
    // The one difference: a thread cannot be ended from outside.
    let status = if scene.is_process() { ExitStatus::Signal(9) } else { ExitStatus::Abandoned };
    assert_eq!(seen.exit(victim.id()), status);
    drop(stuck);
    let report = cluster.wait().unwrap();
    assert_eq!((report.closed, report.forced_kills), (1, 1), "{report}");
    assert_eq!(report.exits["code 0"], 1, "{report}");
}

fn told(scene: &Scene) {
    let builder = scene.builder().workers(1).shutdown(shutdown());
    let cluster = builder.supervise(say_goodbye).unwrap();
    let address = until_named(&cluster, "listening", 1).addresses().remove(0);
    let mut clients = [(); 3].map(|()| Client::connect(&address).unwrap());
    for client in &mut clients {
        assert_eq!(client.line().unwrap(), "hello");
    }
    cluster.stop().unwrap();
    for client in &mut clients {
        assert_eq!(client.line().unwrap(), "goodbye");
        assert_eq!(client.rest().unwrap(), b"");
    }
    let report = cluster.wait().unwrap();
    assert_eq!((report.closed, report.exits["code 0"]), (0, 1), "{report}");
}

/// Connections that last until the worker is told to leave.
async fn say_goodbye(worker: Worker) -> bimodal::Result<()> {
    greet_and_wait_for(worker.clone(), async move |connection: &Connection| {
        worker.draining().await;
        let _ = connection.write_all(b"goodbye\n").await;
    })
    .await
}

/// Connections that last until the client has enough.
async fn hold(worker: Worker) -> bimodal::Result<()> {
    greet_and_wait_for(worker, async |connection: &Connection| {
        let _ = connection.read(&mut [0]).await;
    })
    .await
}

/// The worker ends when the last of its connections has.
async fn greet_and_wait_for(
    worker: Worker,
    end: impl AsyncFn(&Connection) + 'static,
) -> bimodal::Result<()> {
    let end = Rc::new(end);
    let mut listener = worker.listen(ANYWHERE).await?;
    let mut held = Vec::new();
    while let Some(connection) = listener.accept().await? {
        let end = end.clone();
        held.push(event_loop::spawn(async move {
            let _ = connection.write_all(b"hello\n").await;
            end(&connection).await;
        }));
    }
    for connection in held {
        let _ = connection.await;
    }
    Ok(())
}

fn second_stop(scene: &Scene) {
    let (cluster, mut client) =
        keeping(scene, Shutdown { delay: 2 * DEADLINE, drain: 2 * DEADLINE, ..shutdown() });
    let start = Instant::now();
    cluster.stop().unwrap();
    // The same again changes nothing.
    cluster.stop().unwrap();
    decision(&cluster, "a stop", |made| *made == Decision::Stop);
    client.set_patience(Duration::from_millis(100)).unwrap();
    assert_eq!(client.rest().unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_patience(DEADLINE).unwrap();
    cluster.stop_now().unwrap();
    assert_eq!(client.rest().unwrap_or_default(), b"");
    let report = cluster.wait().unwrap();
    assert!(start.elapsed() < DEADLINE);
    assert_eq!((report.closed, report.forced_kills), (0, 1), "{report}");
}

fn keep_without_hurry(scene: &Scene) {
    let builder = scene.builder().workers(1).shutdown(shutdown());
    let report = builder.on_event(print).run(hold).unwrap();
    println!("{report}");
}

fn print(event: &Event) {
    match event {
        Event::Listening { address, .. } => println!("listening {address}"),
        Event::Decision { decision } => println!("decision {decision}"),
        _ => println!("{}", event.name()),
    }
}

fn quit(scene: &Scene) {
    const QUIT: i32 = 3;
    let mut program = program::start("keep_without_hurry", scene.mode);
    let line = program.line(|line| line.starts_with("listening "));
    let address = line["listening ".len()..].parse().unwrap();
    let mut client = Client::connect(&address).unwrap();
    client.line().unwrap();
    program.signal(QUIT);
    program.line(|line| line == "decision the cluster stops");
    wait_until_closed(&address);
    // Later than what would count as the same signal. However often: nobody is killed.
    for _ in 0..3 {
        crate::serve::pass(Duration::from_millis(120));
        program.signal(QUIT);
    }
    client.set_patience(Duration::from_millis(100)).unwrap();
    assert_eq!(client.rest().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(client);
    let output = program.succeed();
    assert!(output.iter().any(|line| line.contains("closed: 0, killed: 0")), "{output:?}");
}

fn during_reload(scene: &Scene) {
    let (cluster, _) = served(scene.builder().shutdown(shutdown()), 3);
    cluster.reload().unwrap();
    until_named(&cluster, "fork", 1);
    cluster.stop().unwrap();
    let seen = to_the_end(&cluster);
    assert!(!seen.names(None).is_empty());
    let report = cluster.wait().unwrap();
    assert_eq!((report.reloads, report.forced_kills), (0, 0), "{report}");
    assert_eq!(report.exits.values().sum::<u64>(), report.started, "{report}");
}
