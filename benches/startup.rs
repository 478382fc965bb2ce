//! How long a worker takes from `fork` to its `listening` event, in both modes; and how long a failed one is missed:
//! from SIGKILL, or from the message that makes it panic, to the `listening` event of its replacement. About a quarter of a
//! minute.
//!
//! ```text
//! cargo bench --bench startup
//! ```
//!
//! The primary is this program, and so are the worker processes: what a process pays for exec, the dynamic loader and
//! the handshake is in the figure. Ending the worker is not.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::time::{Duration, Instant};

use bimodal::{Cluster, Event, Mode, Restart, Result, Signal, Worker};
use criterion::Criterion;

const CLUSTER: &str = "startup";

/// The cluster whose workers are made to fail.
const SUPERVISED: &str = "startup/supervised";

/// Far more than any start takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    match bimodal::worker_of() {
        Some(CLUSTER) => drop(launch(Mode::Process)?),
        Some(SUPERVISED) => drop(supervise(Mode::Process)?),
        _ => {}
    }
    // What is said of a panic costs more than all the rest.
    std::panic::set_hook(Box::new(|_| {}));
    let time = Duration::from_secs(1);
    let criterion = Criterion::default().sample_size(50).warm_up_time(time);
    let mut criterion = criterion.measurement_time(2 * time).configure_from_args();
    let mut group = criterion.benchmark_group("fork_to_listening");
    for mode in [Mode::Process, Mode::Thread] {
        let mut cluster = None;
        group.bench_function(mode.to_string(), |bencher| {
            // Launched here, so that a filter for one mode leaves the other alone.
            let cluster =
                cluster.get_or_insert_with(|| launch(mode).expect("the cluster launches"));
            bencher.iter_custom(|times| (0..times).map(|_| start_one(cluster)).sum());
        });
    }
    group.finish();
    failures(&mut criterion);
    criterion.final_summary();
    Ok(())
}

fn failures(criterion: &mut Criterion) {
    // A thread cannot be killed while it works, so it is let panic.
    measure_failure(criterion, Mode::Process, "sigkill_to_listening", kill);
    measure_failure(criterion, Mode::Thread, "panic_to_listening", panic);
}

fn measure_failure(criterion: &mut Criterion, mode: Mode, name: &str, fail: fn(&Cluster)) {
    let mut cluster = None;
    criterion.bench_function(&format!("{name}/{mode}"), |bencher| {
        let cluster = cluster.get_or_insert_with(|| {
            let cluster = supervise(mode).expect("the cluster starts");
            wait_for(&cluster, |event| matches!(event, Event::Listening { .. }));
            cluster
        });
        bencher.iter_custom(|times| (0..times).map(|_| replace_one(cluster, fail)).sum());
    });
}

/// One worker, replaced without delay.
fn supervise(mode: Mode) -> Result<Cluster> {
    let restart = Restart {
        first_delay: Duration::ZERO,
        longest_delay: Duration::ZERO,
        ..Restart::default()
    };
    Cluster::builder(mode).name(SUPERVISED).workers(1).restart(restart).supervise(listen)
}

fn kill(cluster: &Cluster) {
    let worker = cluster.workers().remove(0);
    worker.kill_with(Signal::Kill).expect("a worker that listens can be killed");
}

fn panic(cluster: &Cluster) {
    let worker = cluster.workers().remove(0);
    let _ = worker.send(()).expect("a worker that listens takes messages");
}

fn replace_one(cluster: &Cluster, fail: fn(&Cluster)) -> Duration {
    let start = Instant::now();
    fail(cluster);
    wait_for(cluster, |event| matches!(event, Event::Listening { .. }));
    start.elapsed()
}

fn launch(mode: Mode) -> Result<Cluster> {
    Cluster::builder(mode).name(CLUSTER).launch(listen)
}

/// Listens until it is told to leave; told anything else, panics.
async fn listen(worker: Worker) -> Result<()> {
    let _listener = worker.listen("127.0.0.1:0").await?;
    assert!(worker.recv().await.is_none(), "told to panic");
    Ok(())
}

/// Starts a worker, ends it again, and tells how long it took to listen.
fn start_one(cluster: &Cluster) -> Duration {
    let start = Instant::now();
    let worker = cluster.fork().expect("a worker starts");
    wait_for(cluster, |event| matches!(event, Event::Listening { .. }));
    let time = start.elapsed();
    worker.disconnect().expect("a worker that listens can be asked to leave");
    wait_for(cluster, |event| matches!(event, Event::Exit { .. }));
    time
}

fn wait_for(cluster: &Cluster, wanted: impl Fn(&Event) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = cluster.next_event_timeout(left).expect("an event before the deadline");
        if wanted(&event) {
            return;
        }
    }
}
