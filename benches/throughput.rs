//! What a request costs, by mode and scheduling, in five shapes; two workers, and a closed loop with 32 connections in one
//! thread of this program. Every answer is compared with what it must be; one that is not fails the bench.
//! About two minutes.
//!
//! ```text
//! cargo bench --bench throughput
//! ```
//!
//! | group | a request is |
//! |---|---|
//! | `keep_alive` | a GET on a connection that stays open |
//! | `churn` | a GET on a connection of its own |
//! | `pipelined` | a GET, 16 of them under way on each connection |
//! | `body_64_kib` | a GET whose answer has 64 KiB |
//! | `cpu_heavy` | a GET whose answer takes 30 000 steps of a generator to compute |
//!
//! The client has its share of the cores: the figures compare modes and schedulings with each other, and say
//! little about what a server can do at most.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, Event, Mode, Result, Scheduling, Worker, http,
    load::{Expect, Load, Request, Reuse, Until},
};
use criterion::{Criterion, SamplingMode, Throughput};
use http::{Full, Incoming, Response};

const WORKERS: usize = 2;

const CONNECTIONS: usize = 32;

/// Requests under way on one connection, where they are pipelined.
const DEPTH: usize = 16;

/// Steps of the generator for one answer: some tens of microseconds.
const STEPS: u64 = 30_000;

/// Far more than any start takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEDULINGS: [Scheduling; 4] = [
    Scheduling::RoundRobin,
    Scheduling::LeastConnections,
    Scheduling::Shared,
    Scheduling::ReusePort,
];

/// What is asked for, and how.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    path: &'static str,
    reuse: Reuse,
    pipeline: usize,
}

const SHAPES: [Shape; 5] = [
    Shape { name: "keep_alive", path: "/", reuse: Reuse::KeepAlive, pipeline: 1 },
    Shape { name: "churn", path: "/", reuse: Reuse::Close, pipeline: 1 },
    Shape { name: "pipelined", path: "/", reuse: Reuse::KeepAlive, pipeline: DEPTH },
    Shape { name: "body_64_kib", path: "/large", reuse: Reuse::KeepAlive, pipeline: 1 },
    Shape { name: "cpu_heavy", path: "/heavy", reuse: Reuse::KeepAlive, pipeline: 1 },
];

static LARGE: [u8; 64 << 10] = [b'x'; 64 << 10];

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    if let Some(cluster) = bimodal::worker_of() {
        launch(Mode::Process, cluster.parse()?)?;
    }
    let time = Duration::from_millis(500);
    let criterion = Criterion::default().sample_size(10).warm_up_time(time);
    let mut criterion = criterion.measurement_time(3 * time).configure_from_args();
    let mut lanes = lanes();
    for shape in SHAPES {
        measure(&mut criterion, shape, &mut lanes);
    }
    criterion.final_summary();
    Ok(())
}

/// One of what is compared. Its server starts when it is first needed, so that a filter for one lane leaves the others
/// alone, and stays: idle workers cost the others nothing.
struct Lane {
    mode: Mode,
    scheduling: Scheduling,
    server: Option<Server>,
}

fn lanes() -> Vec<Lane> {
    let lane = |mode, scheduling| Lane { mode, scheduling, server: None };
    let pair = |scheduling| [Mode::Process, Mode::Thread].map(|mode| lane(mode, scheduling));
    SCHEDULINGS.into_iter().flat_map(pair).collect()
}

fn measure(criterion: &mut Criterion, shape: Shape, lanes: &mut [Lane]) {
    let mut group = criterion.benchmark_group(shape.name);
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    for Lane { mode, scheduling, server } in lanes {
        group.bench_function(format!("{scheduling}/{mode}"), |bencher| {
            let server = server.get_or_insert_with(|| Server::start(*mode, *scheduling));
            bencher.iter_custom(|times| server.answer(shape, times));
        });
    }
    group.finish();
}

struct Server {
    _cluster: Cluster,
    url: String,
}

impl Server {
    fn start(mode: Mode, scheduling: Scheduling) -> Self {
        let cluster = launch(mode, scheduling).expect("the cluster launches");
        for _ in 0..WORKERS {
            cluster.fork().expect("a worker starts");
        }
        let addresses: Vec<_> = (0..WORKERS).map(|_| next_address(&cluster)).collect();
        assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
        Self { url: format!("http://{}", addresses[0]), _cluster: cluster }
    }

    /// How long it takes to answer so many requests.
    fn answer(&self, shape: Shape, times: u64) -> Duration {
        let request = Request { expect: expected(shape.path), ..Request::get(shape.path) };
        let load = Load::new(&self.url).expect("an address").request(1, request);
        let load = load.connections(CONNECTIONS).reuse(shape.reuse).pipeline(shape.pipeline);
        let outcome = load.until(Until::Requests(times)).run().expect("the load runs");
        assert_eq!(outcome.failures().total(), 0, "failed: {}", outcome.failures());
        assert_eq!(outcome.completed(), times, "requests that were answered");
        outcome.elapsed
    }
}

/// The cluster's name says the scheduling, so that a worker process knows it.
fn launch(mode: Mode, scheduling: Scheduling) -> Result<Cluster> {
    Cluster::builder(mode).name(scheduling.to_string()).scheduling(scheduling).launch(serve)
}

async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    http::serve(listener, http::service_fn(async |request| answer(&request))).await
}

fn answer(request: &http::Request<Incoming>) -> Response<Full<http::Bytes>> {
    match request.uri().path() {
        "/large" => http::text(&LARGE[..]),
        "/heavy" => http::text(heavy()),
        _ => http::text("Hello, World!"),
    }
}

fn expected(path: &str) -> Expect {
    let body = match path {
        "/large" => LARGE.to_vec(),
        "/heavy" => heavy().into_bytes(),
        _ => b"Hello, World!".to_vec(),
    };
    Expect { body: Some(body), ..Expect::default() }
}

/// Something to compute: Knuth's MMIX generator (The Art of Computer Programming, 3.3.4), so many steps of it.
fn heavy() -> String {
    let step = |state: u64, _| {
        black_box(
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407),
        )
    };
    (0..STEPS).fold(1, step).to_string()
}

fn next_address(cluster: &Cluster) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match cluster.next_event_timeout(left).expect("an event before the deadline") {
            Event::Listening { address, .. } => return address.to_string(),
            Event::Exit { status, .. } => panic!("a worker has ended: {status}"),
            _ => {}
        }
    }
}
