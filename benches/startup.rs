//! How long a worker takes from `fork` to its `listening` event, in both modes.
//!
//! ```text
//! cargo bench --bench startup
//! ```
//!
//! The primary is this program, and so are the worker processes: what a process pays for exec, the dynamic loader and
//! the handshake is in the figure. Ending the worker is not.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::time::{Duration, Instant};

use bimodal::{Cluster, Event, Mode, Result, Worker};
use criterion::Criterion;

const CLUSTER: &str = "startup";

/// Far more than any start takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    if bimodal::worker_of() == Some(CLUSTER) {
        launch(Mode::Process)?;
    }
    let mut criterion = Criterion::default().sample_size(50).configure_from_args();
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
    criterion.final_summary();
    Ok(())
}

fn launch(mode: Mode) -> Result<Cluster> {
    Cluster::builder(mode).name(CLUSTER).launch(listen)
}

async fn listen(worker: Worker) -> Result<()> {
    let _listener = worker.listen("127.0.0.1:0").await?;
    worker.draining().await;
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
