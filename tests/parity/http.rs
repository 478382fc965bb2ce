//! HTTP in a cluster: requests in flight when a worker leaves, workers that are full.

use std::time::Duration;

use bimodal::{Address, Cluster, Result, Scheduling, Worker, event_loop, http};

use crate::{
    bodies::ANYWHERE,
    support::{
        DEADLINE, Scenario, Scene, both,
        client::{self, Client},
        events::{fork_listening, next_message, to_the_end, until_named},
        ledger::Ledger,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_request_in_flight_is_answered_and_idle_connections_close", in_flight)
        .proves(&["LIFE-06", "LST-67"]),
    both("a_new_connection_gets_its_first_request_answered_by_a_worker_that_leaves", fresh),
    both("a_drain_under_load_loses_nothing_under_round_robin", |scene| {
        under_load(scene, Scheduling::RoundRobin);
    }),
    both("a_drain_under_load_loses_nothing_under_least_connections", |scene| {
        under_load(scene, Scheduling::LeastConnections);
    }),
    both("a_drain_under_load_loses_nothing_under_shared", |scene| {
        under_load(scene, Scheduling::Shared);
    }),
    both("a_drain_under_load_loses_nothing_under_reuse_port", |scene| {
        under_load(scene, Scheduling::ReusePort);
    }),
    both("round_robin_passes_over_workers_that_are_full", |scene| {
        full(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-40"]),
    both("least_connections_passes_over_workers_that_are_full", |scene| {
        full(scene, Scheduling::LeastConnections);
    }),
    both("shared_passes_over_workers_that_are_full", |scene| full(scene, Scheduling::Shared)),
    both("raw_connections_are_finished_before_a_worker_leaves", raw)
        .proves(&["LIFE-06", "LIFE-08"]),
    both("a_shutdown_drains_everybody", shutdown),
    both("a_panic_in_a_handler_is_answered_by_nobody_and_others_serve", handler_panics),
];

/// Answers with the worker's id. `/body` tells the primary that it has begun, and reads the whole
/// body first; `/panic` panics.
async fn serve(worker: Worker) -> Result<()> {
    serve_with(http::Server::new(), worker).await
}

/// The same, and tells the primary when the worker is to leave.
async fn serve_and_tell(worker: Worker) -> Result<()> {
    let leaving = worker.clone();
    event_loop::spawn(async move {
        leaving.draining().await;
        let _ = leaving.send("draining".to_owned()).unwrap();
    })
    .detach();
    serve(worker).await
}

async fn serve_with(server: http::Server, worker: Worker) -> Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    let service = http::service_fn(move |request: http::Request<http::Incoming>| {
        let worker = worker.clone();
        async move {
            match request.uri().path() {
                "/body" => {
                    let _ = worker.send("began").unwrap();
                    let body = http::BodyExt::collect(request.into_body()).await.unwrap();
                    http::text(body.to_bytes())
                }
                "/panic" => panic!("the handler was to panic"),
                _ => http::text(worker.id().to_string()),
            }
        }
    });
    server.serve(listener, service).await
}

fn begin_a_request(cluster: &Cluster, address: &Address) -> Client {
    let mut client = Client::connect(address).unwrap();
    client.send(b"POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab").unwrap();
    assert_eq!(next_message::<String>(cluster).1, "began");
    client
}

fn idle_connections(address: &Address, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = Client::connect(address).unwrap();
        assert_eq!(client.get("/").unwrap().status, 200);
        client
    };
    (0..count).map(connect).collect()
}

fn in_flight(scene: &Scene) {
    let cluster = scene.builder().launch(serve).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let mut busy = begin_a_request(&cluster, &address);
    let idle = idle_connections(&address, 3);
    workers[0].disconnect().unwrap();
    for mut client in idle {
        assert_eq!(client.rest().unwrap(), b"", "an idle connection ends without a word");
    }
    assert!(!workers[0].is_dead(), "a request is in flight");
    busy.send(b"cde").unwrap();
    let answer = busy.answer().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "abcde"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(busy.rest().unwrap(), b"");
    assert!(to_the_end(&cluster).exit(workers[0].id()).success());
}

fn fresh(scene: &Scene) {
    let cluster = scene.builder().launch(serve_and_tell).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let mut fresh = Client::connect(&address).unwrap();
    wait_until("it to be accepted", || cluster.stats()[0].connections_open == 1);
    workers[0].disconnect().unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "draining");
    let answer = fresh.get("/").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(fresh.rest().unwrap(), b"");
    assert!(to_the_end(&cluster).exit(workers[0].id()).success());
}

fn under_load(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(serve).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..150 {
                    let answer = client::get(&address, "/");
                    ledger.note(&answer);
                }
            });
        }
        for worker in &workers[..2] {
            cluster.fork().unwrap();
            until_named(&cluster, "listening", 1);
            worker.disconnect().unwrap();
        }
    });
    ledger.assert_only("ok");
    cluster.disconnect().unwrap();
    assert!(to_the_end(&cluster).exits().all(|(_, status)| status.success()));
}

fn raw(scene: &Scene) {
    let cluster = scene.builder().launch(echo_the_first).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let mut client = Client::connect(&address).unwrap();
    client.send(b"one\n").unwrap();
    assert_eq!(client.line().unwrap(), "one");
    workers[0].disconnect().unwrap();
    client.send(b"two\n").unwrap();
    assert_eq!(client.line().unwrap(), "two");
    drop(client);
    assert!(to_the_end(&cluster).exit(workers[0].id()).success());
}

/// Accepts one connection and echoes it to its end, whether it is to leave or not.
async fn echo_the_first(worker: Worker) -> Result<()> {
    let mut listener = worker.listen(ANYWHERE).await?;
    let Some(connection) = listener.accept().await? else { return Ok(()) };
    let mut buffer = [0; 64];
    loop {
        match connection.read(&mut buffer).await? {
            0 => return Ok(()),
            read => connection.write_all(&buffer[..read]).await?,
        }
    }
}

fn shutdown(scene: &Scene) {
    let cluster = scene.builder().launch(serve).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    let mut busy = begin_a_request(&cluster, &address);
    let idle = idle_connections(&address, 4);
    std::thread::scope(|scope| {
        let report = scope.spawn(|| cluster.shutdown().unwrap());
        for mut client in idle {
            assert_eq!(client.rest().unwrap(), b"");
        }
        busy.send(b"cde").unwrap();
        assert_eq!(busy.answer().unwrap().text(), "abcde");
        let report = report.join().unwrap();
        assert_eq!((report.exits["code 0"], report.forced_kills), (2, 0), "{report}");
    });
    client::wait_until_closed(&address);
}

fn handler_panics(scene: &Scene) {
    let cluster = scene.builder().launch(serve).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    assert!(client::get(&address, "/panic").is_err());
    let seen = until_named(&cluster, "exit", 1);
    assert!(seen.exits().all(|(_, status)| status.code() == Some(101)));
    for _ in 0..10 {
        assert_eq!(client::get(&address, "/").unwrap().status, 200);
    }
}

fn full(scene: &Scene, scheduling: Scheduling) {
    let cluster = scene.builder().scheduling(scheduling).launch(serve_two).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    // As many as all workers take together: none waits behind a worker that is full.
    let mut four = idle_connections(&address, 4);
    let mut fifth = Client::connect(&address).unwrap();
    fifth.request("/").unwrap();
    fifth.set_patience(Duration::from_millis(50)).unwrap();
    assert!(fifth.answer().is_err(), "nobody has a place for it");
    let mut seats: Vec<_> = four.iter_mut().map(|client| client.get("/").unwrap().body).collect();
    seats.sort();
    assert_eq!(seats, [b"1", b"1", b"2", b"2"]);
    four.pop();
    fifth.set_patience(DEADLINE).unwrap();
    assert_eq!(fifth.answer().unwrap().status, 200);
}

async fn serve_two(worker: Worker) -> Result<()> {
    serve_with(http::Server::new().max_connections(2), worker).await
}
