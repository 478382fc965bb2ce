//! What the pool costs: a task's round trip from a loop and from a thread, tasks per second from one thread; and the
//! same in workers of both modes. Less than a minute.
//!
//! ```text
//! cargo bench --bench pool
//! ```
//!
//! `rayon` is the reference, in the same run, with as many threads: its `spawn` where nobody waits, `install` where a
//! thread waits, and a `spawn` that wakes the loop's task where a loop does. Tasks are empty but for a count.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, Event, Mode, Result, Worker,
    event_loop::EventLoop,
    pool::{Pool, PoolSettings},
};
use criterion::{Criterion, Throughput};
use rayon::{ThreadPool, ThreadPoolBuilder};

const CLUSTER: &str = "pool";

/// Far more than any answer takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    if bimodal::worker_of() == Some(CLUSTER) {
        launch(Mode::Process)?;
    }
    let time = Duration::from_secs(1);
    let criterion = Criterion::default().sample_size(20).warm_up_time(time);
    let mut criterion = criterion.measurement_time(2 * time).configure_from_args();
    for threads in [1, 2] {
        let ours = settings(threads).build()?;
        let rayon = ThreadPoolBuilder::new().num_threads(threads).build().expect("rayon's pool");
        measure_tasks(&mut criterion, threads, &ours, &rayon);
        measure_waits(&mut criterion, threads, &ours, &rayon);
        measure_loop(&mut criterion, threads, &ours, &rayon)?;
    }
    for mode in [Mode::Process, Mode::Thread] {
        measure_worker(&mut criterion, mode)?;
    }
    criterion.final_summary();
    Ok(())
}

fn settings(threads: usize) -> PoolSettings {
    Pool::builder().threads(1..=threads)
}

/// Tasks that nobody waits for, from one thread as fast as they are taken, until all have run.
fn measure_tasks(criterion: &mut Criterion, threads: usize, ours: &Pool, rayon: &ThreadPool) {
    let mut group = criterion.benchmark_group(format!("tasks_from_one_thread/{threads}"));
    group.throughput(Throughput::Elements(1));
    let time = |times: u64, submit: &dyn Fn(Arc<AtomicU64>)| {
        let done = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        (0..times).for_each(|_| submit(done.clone()));
        while done.load(SeqCst) < times {
            std::thread::yield_now();
        }
        start.elapsed()
    };
    let count = |done: Arc<AtomicU64>| {
        move || {
            done.fetch_add(1, SeqCst);
        }
    };
    group.bench_function("bimodal", |bencher| {
        let submit = |done| ours.submit(count(done)).expect("it waits for room").detach();
        bencher.iter_custom(|times| time(times, &submit));
    });
    group.bench_function("rayon", |bencher| {
        bencher.iter_custom(|times| time(times, &|done| rayon.spawn(count(done))));
    });
    group.finish();
}

/// One task after the other, a thread waits for each.
fn measure_waits(criterion: &mut Criterion, threads: usize, ours: &Pool, rayon: &ThreadPool) {
    let mut group = criterion.benchmark_group(format!("round_trip_from_a_thread/{threads}"));
    group.bench_function("bimodal", |bencher| {
        bencher.iter(|| ours.submit(|| 1).expect("there is room").wait().expect("it returns"));
    });
    group.bench_function("rayon", |bencher| bencher.iter(|| rayon.install(|| 1)));
    group.finish();
}

/// One task after the other, a task of an event loop awaits each.
fn measure_loop(
    criterion: &mut Criterion,
    threads: usize,
    ours: &Pool,
    rayon: &ThreadPool,
) -> std::io::Result<()> {
    let mut event_loop = EventLoop::new()?;
    let mut group = criterion.benchmark_group(format!("round_trip_from_a_loop/{threads}"));
    group.bench_function("bimodal", |bencher| {
        bencher.iter_custom(|times| event_loop.block_on(round_trips(ours, times)).expect("a loop"));
    });
    group.bench_function("rayon", |bencher| {
        let trips = async |times| {
            let start = Instant::now();
            for _ in 0..times {
                in_rayon(rayon).await;
            }
            start.elapsed()
        };
        bencher.iter_custom(|times| event_loop.block_on(trips(times)).expect("a loop"));
    });
    group.finish();
    Ok(())
}

async fn round_trips(pool: &Pool, times: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        pool.run(|| 1).await.expect("it returns");
    }
    start.elapsed()
}

/// What it takes to await a task of rayon's: a flag, and whom to wake.
fn in_rayon(pool: &ThreadPool) -> impl Future<Output = ()> {
    let shared = Arc::new((AtomicBool::new(false), Mutex::new(None::<Waker>)));
    let done = shared.clone();
    pool.spawn(move || {
        done.0.store(true, SeqCst);
        let waker = done.1.lock().expect("no panic").take();
        waker.into_iter().for_each(Waker::wake);
    });
    poll_fn(move |cx| {
        *shared.1.lock().expect("no panic") = Some(cx.waker().clone());
        if shared.0.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    })
}

/// The round trip from a worker's loop to its pool; the worker measures it.
fn measure_worker(criterion: &mut Criterion, mode: Mode) -> Result<()> {
    let cluster = launch(mode)?;
    let worker = cluster.fork()?;
    let mut group = criterion.benchmark_group("round_trip_in_a_worker");
    group.bench_function(mode.to_string(), |bencher| {
        bencher.iter_custom(|times| {
            let _ = worker.send(times).expect("the worker is there");
            let ns = answer(&cluster);
            Duration::from_nanos(ns)
        });
    });
    group.finish();
    cluster.shutdown().map(drop)
}

fn launch(mode: Mode) -> Result<Cluster> {
    Cluster::builder(mode).name(CLUSTER).pool(settings(1)).launch(measure_on_demand)
}

/// With every message makes so many round trips, and says how many ns they took.
async fn measure_on_demand(worker: Worker) -> Result<()> {
    while let Some(message) = worker.recv().await {
        let took = round_trips(worker.pool(), message.get()?).await;
        let _ = worker.send(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))?;
    }
    Ok(())
}

fn answer(cluster: &Cluster) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match cluster.next_event_timeout(left).expect("an event before the deadline") {
            Event::Message { message, .. } => return message.get().expect("a number"),
            Event::Exit { status, .. } => panic!("the worker has ended: {status}"),
            _ => {}
        }
    }
}
