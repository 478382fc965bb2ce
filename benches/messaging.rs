//! What messages cost, in both modes: the round trip of 100 bytes, one way in bulk, a socket with a message.
//!
//! ```text
//! cargo bench --bench messaging
//! ```
//!
//! Where `node` is installed the same is measured with `contenders/messaging_cluster.js` and
//! `contenders/messaging_threads.js` in the same run, and printed; it says so when it is not.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::{
    net::UdpSocket,
    process::Command,
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, Error, ErrorKind, Event, Flow, Mode, Port, Result, Worker, WorkerHandle, event_loop,
};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use serde::{Deserialize, Serialize};

const CLUSTER: &str = "messaging";

/// Far more than any answer takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the primary tells the worker to do.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Send this back.
    Echo(String),
    /// Throw this away.
    Swallow(String),
    /// Say that all before this was received.
    Mark,
    /// Send so many texts, then a mark.
    Talk(u64),
    /// The message has a socket: drop it and say so.
    Take,
    /// The message has a port: send back what comes through it.
    Serve,
}

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    if bimodal::worker_of() == Some(CLUSTER) {
        launch(Mode::Process)?;
    }
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    for mode in [Mode::Process, Mode::Thread] {
        let cluster = launch(mode)?;
        let worker = cluster.fork()?;
        measure(&mut criterion, mode, &cluster, &worker);
        cluster.shutdown()?;
    }
    criterion.final_summary();
    for script in ["messaging_cluster.js", "messaging_threads.js"] {
        run_node(script);
    }
    Ok(())
}

fn launch(mode: Mode) -> Result<Cluster> {
    Cluster::builder(mode).name(CLUSTER).launch(obey)
}

fn text() -> String {
    "x".repeat(100)
}

async fn obey(worker: Worker) -> Result<()> {
    while let Some(mut message) = worker.recv().await {
        let handle = message.take_handle()?;
        match message.get::<Order>()? {
            Order::Echo(text) => {
                let _ = worker.send(text)?;
            }
            Order::Swallow(_) => {}
            Order::Mark => {
                let _ = worker.send(())?;
            }
            Order::Talk(times) => talk(&worker, times).await?,
            Order::Take => {
                drop(handle);
                let _ = worker.send(())?;
            }
            Order::Serve => {
                let port = handle.map(Port::try_from).transpose()?.expect("a port came");
                event_loop::spawn(serve(port)).detach();
            }
        }
    }
    Ok(())
}

async fn talk(worker: &Worker, times: u64) -> Result<()> {
    for _ in 0..times {
        let mut text = text();
        while let Err(refused) = worker.send(text) {
            text = refused.into_value().0;
            event_loop::yield_now().await;
        }
    }
    worker.send(()).map(drop).map_err(Error::from)
}

async fn serve(port: Port) {
    while let Some(message) = port.recv().await {
        let text = message.get::<String>().expect("a text came");
        if port.send(text).is_err() {
            return;
        }
    }
}

fn measure(criterion: &mut Criterion, mode: Mode, cluster: &Cluster, worker: &WorkerHandle) {
    let mut group = criterion.benchmark_group(mode.to_string());
    group.bench_function("round_trip_100_bytes", |bencher| {
        bencher.iter(|| {
            send(worker, Order::Echo(text()));
            answer::<String>(cluster)
        });
    });
    measure_port(&mut group, cluster, worker);
    group.bench_function("socket_with_a_message", |bencher| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        bencher.iter(|| {
            let copy = socket.try_clone().expect("a copy of the socket");
            let _ = worker.send_with(Order::Take, copy).expect("the worker takes it");
            answer::<()>(cluster);
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_way_down_100_bytes", |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            (0..times).for_each(|_| send(worker, Order::Swallow(text())));
            send(worker, Order::Mark);
            answer::<()>(cluster);
            start.elapsed()
        });
    });
    group.bench_function("one_way_up_100_bytes", |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            send(worker, Order::Talk(times));
            answer::<()>(cluster);
            start.elapsed()
        });
    });
    group.finish();
}

fn measure_port(
    group: &mut BenchmarkGroup<'_, WallTime>,
    cluster: &Cluster,
    worker: &WorkerHandle,
) {
    let (near, far) = cluster.channel().expect("a channel");
    let _ = worker.send_with(Order::Serve, far).expect("the worker takes it");
    group.bench_function("round_trip_100_bytes_by_port", |bencher| {
        bencher.iter(|| {
            let _ = near.send(text()).expect("the port is open");
            near.recv_timeout(PATIENCE).expect("an answer before the deadline")
        });
    });
}

/// Sends, as fast as there is room.
fn send(worker: &WorkerHandle, mut order: Order) {
    loop {
        match worker.send(order) {
            Ok(Flow::Go | Flow::Slow) => return,
            Err(refused) => {
                assert_eq!(refused.kind(), ErrorKind::Full);
                order = refused.into_value().0;
                std::thread::yield_now();
            }
        }
    }
}

/// Waits for the next message of this type.
fn answer<T: 'static>(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match cluster.next_event_timeout(left).expect("an event before the deadline") {
            Event::Message { message, .. } if message.is::<T>() => return,
            Event::Exit { status, .. } => panic!("the worker has ended: {status}"),
            _ => {}
        }
    }
}

fn run_node(script: &str) {
    let path = format!("{}/benches/contenders/{script}", env!("CARGO_MANIFEST_DIR"));
    match Command::new("node").arg(path).status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{script} failed: {status}"),
        Err(error) => eprintln!("NOT COMPARED: {script} was not run: node: {error}"),
    }
}
