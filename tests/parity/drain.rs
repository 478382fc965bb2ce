//! Leaving with connections open.

use bimodal::{Address, Result, Worker, http};

use crate::{
    bodies::ANYWHERE,
    support::{
        Scenario, Scene, both,
        client::{self, Client},
        events::{fork_listening, next_message, to_the_end, until_named},
        ledger::Ledger,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_request_in_flight_is_answered_and_idle_connections_close", in_flight),
    both("a_drain_under_load_loses_nothing_that_was_accepted", under_load),
    both("raw_connections_are_finished_before_a_worker_leaves", raw),
    both("a_shutdown_drains_everybody", shutdown),
    both("a_panic_in_a_handler_is_answered_by_nobody_and_others_serve", handler_panics),
];

/// Answers with the worker's id. `/body` tells the primary that it has begun, and reads the whole
/// body first; `/panic` panics.
async fn serve(worker: Worker) -> Result<()> {
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
    http::serve(listener, service).await
}

fn begin_a_request(cluster: &bimodal::Cluster, address: &Address) -> Client {
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

fn under_load(scene: &Scene) {
    let cluster = scene.builder().launch(serve).unwrap();
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
    assert!(Client::connect(&address).is_err(), "nobody listens any more");
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
