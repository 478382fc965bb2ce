//! Workers that count, all at once, in ways that differ in what they share; for exercises without a server.
//!
//! The cluster is this program's own. Workers start a round together and the last one ends it; both are said by words
//! of a region, with `wait` and `notify`.

use std::time::{Duration, Instant};

use bimodal::{Cluster, ErrorKind, Event, Mode, SharedView, Worker, event_loop};

use crate::exercise::Result;

/// The cluster's name, by which a worker process finds its way here.
pub(crate) const CLUSTER: &str = "counting";

/// A round that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(8);

/// Bytes of a cache line with its neighbour, which processors fetch together (Intel's Optimization Reference Manual: the
/// spatial prefetcher completes pairs of 64-byte lines).
const LINE: usize = 128;
const WORD: usize = size_of::<u64>();

/// Workers have numbers below this.
const MOST: usize = 8;

/// What workers count on.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// Each on a word of its own, one beside the other.
    Adjacent,
    /// Each on a word of its own, 128 bytes from the next.
    Apart,
    /// All on one word.
    Together,
    /// Each tells the primary, which counts.
    Messages,
}

const WAYS: [Way; 4] = [Way::Adjacent, Way::Apart, Way::Together, Way::Messages];

/// Instead of a way: it was the last round.
const END: u64 = WAYS.len() as u64;

/// What lies in the region.
struct Parts {
    /// 0: the number of the round; 1: how many workers have ended theirs.
    signals: SharedView<u32>,
    /// 0: the way to count; 1: how often each worker does.
    order: SharedView<u64>,
    counts: SharedView<u64>,
}

const COUNTS: usize = 2 * LINE;
const BYTES: usize = COUNTS + MOST * LINE;

/// Workers that wait for rounds.
pub(crate) struct Counting {
    cluster: Cluster,
    parts: Parts,
    workers: usize,
}

/// What a round showed.
pub(crate) struct Round {
    /// The time of all, divided by the counts of all, in nanoseconds.
    pub(crate) each_ns: f64,
    pub(crate) counted: u64,
    /// What there should be.
    pub(crate) due: u64,
}

/// The cluster; in a worker process this does not return.
pub(crate) fn launch(mode: Mode) -> bimodal::Result<Cluster> {
    Cluster::builder(mode).name(CLUSTER).region("counts", BYTES).launch(count)
}

impl Counting {
    /// One worker per core, at least two.
    pub(crate) fn start(mode: Mode) -> Result<Self> {
        let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        let cluster = launch(mode)?;
        let parts = Parts::of(&cluster.region("counts")?)?;
        let workers = workers.clamp(2, MOST);
        for _ in 0..workers {
            cluster.fork()?;
        }
        let counting = Self { cluster, parts, workers };
        // They take their time to start.
        counting.round(Way::Apart, 1)?;
        Ok(counting)
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Lets each worker count so often.
    pub(crate) fn round(&self, way: Way, times: u64) -> Result<Round> {
        self.parts.clear()?;
        let due = times * self.workers as u64;
        let began = Instant::now();
        self.parts.begin(way as u64, times)?;
        let told = match way {
            Way::Messages => (0..due).try_for_each(|_| self.message()).map(|()| due)?,
            _ => 0,
        };
        self.wait(began + PATIENCE)?;
        let each_ns = began.elapsed().as_nanos() as f64 / due as f64;
        Ok(Round { each_ns, counted: told + self.parts.sum()?, due })
    }

    /// Waits for the end of the round.
    fn wait(&self, deadline: Instant) -> Result<()> {
        loop {
            let ended = self.parts.signals.load(1)?;
            if ended as usize == self.workers {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the workers do not come to an end".into());
            }
            self.parts.signals.wait(1, ended, Some(left))?;
        }
    }

    /// Takes one message.
    fn message(&self) -> Result<()> {
        loop {
            match self.cluster.next_event_timeout(PATIENCE) {
                Some(Event::Message { .. }) => return Ok(()),
                Some(Event::Exit { worker, status }) => {
                    return Err(format!("{worker} ended with {status}").into());
                }
                Some(_) => {}
                None => return Err("a message did not come".into()),
            }
        }
    }

    pub(crate) fn end(self) -> Result<()> {
        self.parts.begin(END, 0)?;
        self.cluster.shutdown()?;
        Ok(())
    }
}

impl Parts {
    fn of(region: &bimodal::SharedBuffer) -> bimodal::Result<Self> {
        Ok(Self {
            signals: region.view_at(0, 2)?,
            order: region.view_at(LINE, 2)?,
            counts: region.view_at(COUNTS, MOST * LINE / WORD)?,
        })
    }

    fn clear(&self) -> bimodal::Result<()> {
        (0..self.counts.len()).try_for_each(|index| self.counts.store(index, 0))
    }

    fn sum(&self) -> bimodal::Result<u64> {
        (0..self.counts.len()).map(|index| self.counts.load(index)).sum()
    }

    fn begin(&self, way: u64, times: u64) -> bimodal::Result<()> {
        self.order.store(0, way)?;
        self.order.store(1, times)?;
        self.signals.store(1, 0)?;
        self.signals.add(0, 1)?;
        self.signals.notify(0, usize::MAX).map(drop)
    }

    async fn count(&self, worker: &Worker, way: Way, times: u64) -> bimodal::Result<()> {
        let own = worker.slot().get();
        let index = match way {
            Way::Adjacent => own,
            Way::Apart => own * (LINE / WORD),
            Way::Together => 0,
            Way::Messages => return tell(worker, times).await,
        };
        (0..times).try_for_each(|_| self.counts.add(index, 1).map(drop))
    }
}

/// A worker's body: one round after the other.
async fn count(worker: Worker) -> bimodal::Result<()> {
    let parts = Parts::of(&worker.region("counts")?)?;
    let mut round = 0;
    loop {
        // Not in its own thread: messages leave while it waits.
        while parts.signals.load(0)? == round {
            parts.signals.wait_async(0, round, None)?.await?;
        }
        round += 1;
        let Some(way) = WAYS.get(parts.order.load(0)? as usize) else { return Ok(()) };
        parts.count(&worker, *way, parts.order.load(1)?).await?;
        parts.signals.add(1, 1)?;
        parts.signals.notify(1, 1)?;
    }
}

/// One message per count; where the primary is behind, it waits.
async fn tell(worker: &Worker, times: u64) -> bimodal::Result<()> {
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
