//! What it costs when all workers count together: one increment, by one worker per core (at least two) at once. About
//! half a minute.
//!
//! ```text
//! cargo bench --bench shared_memory
//! ```
//!
//! | | the count is |
//! |---|---|
//! | `per_worker` | a [`SharedCounter`], in each worker's own shard |
//! | `atomic_in_region` | one word of a region: a memfd between processes, plain memory between threads |
//! | `atomic_in_arc` | an `AtomicU64` of the program; threads only |
//! | `mutex_in_region` | a word behind a [`SharedMutex`] |
//! | `mutex_in_arc` | a number in a `std::sync::Mutex`; threads only |
//! | `message` | kept by the primary, told with a message each |
//!
//! Workers start together and the last one ends the measurement; both are said by words of a region, with
//! `wait` and `notify`. The figure is the time of all, divided by the increments of all.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, ErrorKind, Event, Mode, Result, SharedBuffer, SharedCounter, SharedMutex, SharedView,
    Worker, event_loop,
};
use criterion::{Criterion, Throughput};

const CLUSTER: &str = "shared_memory";

/// Far more than any round takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ways to count, by their numbers in [`Parts::way`]; the last two need one memory.
const WAYS: [&str; 6] = [
    "per_worker",
    "atomic_in_region",
    "mutex_in_region",
    "message",
    "atomic_in_arc",
    "mutex_in_arc",
];

const MESSAGE: usize = 3;

/// Instead of a way: it was the last round.
const END: usize = WAYS.len();

/// Ways that workers have which are processes.
const BETWEEN_PROCESSES: usize = 4;

/// What threads share without a region.
static IN_ARC: AtomicU64 = AtomicU64::new(0);
static MUTEX_IN_ARC: Mutex<u64> = Mutex::new(0);

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    if bimodal::worker_of() == Some(CLUSTER) {
        launch(Mode::Process)?;
    }
    let time = Duration::from_secs(1);
    let criterion = Criterion::default().sample_size(20).warm_up_time(time);
    let mut criterion = criterion.measurement_time(2 * time).configure_from_args();
    let mut group = criterion.benchmark_group("one_counter");
    group.throughput(Throughput::Elements(1));
    for (mode, ways) in [(Mode::Process, BETWEEN_PROCESSES), (Mode::Thread, WAYS.len())] {
        let cluster = launch(mode)?;
        for _ in 0..workers() {
            cluster.fork()?;
        }
        let parts = Parts::of(&cluster.region("counting")?)?;
        for (way, name) in WAYS.iter().enumerate().take(ways) {
            group.bench_function(format!("{mode}/{name}"), |bencher| {
                bencher.iter_custom(|times| parts.measure(&cluster, way, times).expect("a round"));
            });
        }
        parts.begin(END, 0)?;
        cluster.shutdown()?;
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

fn launch(mode: Mode) -> Result<Cluster> {
    let bytes = HEAD + SharedCounter::bytes(workers());
    Cluster::builder(mode).name(CLUSTER).region("counting", bytes).launch(count)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

/// What lies in the region; what is changed by many at once lies in cache lines of its own.
struct Parts {
    /// 0: the number of the round; 1: how many workers have ended theirs.
    signals: SharedView<u32>,
    /// 0: the way to count; 1: how often each worker does.
    order: SharedView<u64>,
    word: SharedView<u64>,
    mutex: SharedMutex,
    behind_mutex: SharedView<u64>,
    counter: SharedCounter,
}

/// Bytes before the counter.
const HEAD: usize = 4 * 128;

impl Parts {
    fn of(region: &SharedBuffer) -> Result<Self> {
        Ok(Self {
            signals: region.view_at(0, 2)?,
            order: region.view_at(128, 2)?,
            word: region.view_at(256, 1)?,
            mutex: region.mutex(384)?,
            behind_mutex: region.view_at(392, 1)?,
            counter: region.counter(HEAD, workers())?,
        })
    }

    /// Lets all workers count in this way, so often each.
    fn begin(&self, way: usize, each: u64) -> Result<()> {
        self.order.store(0, way as u64)?;
        self.order.store(1, each)?;
        self.signals.store(1, 0)?;
        self.signals.add(0, 1)?;
        self.signals.notify(0, usize::MAX).map(drop)
    }

    /// One round: how long it takes all workers to count so often together.
    fn measure(&self, cluster: &Cluster, way: usize, times: u64) -> Result<Duration> {
        let each = times.div_ceil(workers() as u64);
        let start = Instant::now();
        self.begin(way, each)?;
        if way == MESSAGE {
            (0..each * workers() as u64).for_each(|_| next_message(cluster));
        }
        loop {
            let ended = self.signals.load(1)?;
            if ended as usize == workers() {
                return Ok(start.elapsed());
            }
            self.signals.wait(1, ended, Some(PATIENCE))?;
            assert!(start.elapsed() < PATIENCE, "a round does not end");
        }
    }

    async fn count(&self, worker: &Worker, way: usize, times: u64) -> Result<()> {
        match WAYS[way] {
            "per_worker" => {
                let shard = self.counter.at(worker.slot().get());
                (0..times).for_each(|_| shard.add(1));
            }
            "atomic_in_region" => {
                for _ in 0..times {
                    self.word.add(0, 1)?;
                }
            }
            "mutex_in_region" => {
                for _ in 0..times {
                    let _guard = self.mutex.lock()?;
                    self.behind_mutex.store(0, self.behind_mutex.load(0)? + 1)?;
                }
            }
            "atomic_in_arc" => {
                for _ in 0..times {
                    IN_ARC.fetch_add(1, Ordering::SeqCst);
                }
            }
            "mutex_in_arc" => (0..times).for_each(|_| {
                *MUTEX_IN_ARC.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }),
            _ => tell(worker, times).await?,
        }
        Ok(())
    }
}

async fn count(worker: Worker) -> Result<()> {
    let parts = Parts::of(&worker.region("counting")?)?;
    let mut round = 0;
    loop {
        // Not in its own thread: messages leave while it waits.
        while parts.signals.load(0)? == round {
            parts.signals.wait_async(0, round, None)?.await?;
        }
        round += 1;
        let way = usize::try_from(parts.order.load(0)?).unwrap_or(END);
        if way >= END {
            return Ok(());
        }
        parts.count(&worker, way, parts.order.load(1)?).await?;
        parts.signals.add(1, 1)?;
        parts.signals.notify(1, 1)?;
    }
}

async fn tell(worker: &Worker, times: u64) -> Result<()> {
    for _ in 0..times {
        while let Err(refused) = worker.send(()) {
            if refused.kind() != ErrorKind::Full {
                return Err(refused.into());
            }
            event_loop::yield_now().await;
        }
    }
    Ok(())
}

fn next_message(cluster: &Cluster) {
    loop {
        match cluster.next_event_timeout(PATIENCE).expect("an event before the deadline") {
            Event::Message { .. } => return,
            Event::Exit { status, .. } => panic!("a worker has ended: {status}"),
            _ => {}
        }
    }
}
