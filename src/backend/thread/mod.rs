//! Workers as pinned threads of this process.
//!
//! Runs on the primary's thread, except [`body`], which runs on the workers'. `README.md` in this
//! folder tells the life of a worker and of a connection in this mode.

mod body;
mod link;

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    task::{Context, Poll},
    thread::JoinHandle,
};

use super::{Backend, Common, Event, Force, Outfit, WorkerSpec};
use crate::{
    accept::Offer,
    config::Memory,
    error::{Context as _, Error, ErrorKind, Result},
    event::ExitStatus,
    event_loop::{Mailbox, Postbox, mailbox},
    id::WorkerId,
    pool::{Pool, PoolSettings},
    shared::{Regions, StatsPage},
    signal::Signal,
    worker::{Body, Command, Ended, Given, Identity, Note},
};
use link::{Far, Near, Up, pair};

/// Events taken in per poll before the loop looks at everything else again.
const EVENTS_PER_POLL: usize = 1024;

/// The backend of [`Mode::Thread`](crate::Mode::Thread).
pub(crate) struct ThreadBackend {
    common: Common,
    body: Body,
    stats: Arc<StatsPage>,
    regions: Regions,
    /// All workers share it.
    pool: Pool,
    workers: HashMap<WorkerId, Running>,
    up: (Postbox<Up>, Mailbox<Up>),
    /// Known already, not told yet.
    pending: Vec<Event>,
    /// Whose notes the last poll told: they are acted on when the next one comes.
    told: Vec<WorkerId>,
}

struct Running {
    near: Near,
    thread: JoinHandle<()>,
}

impl ThreadBackend {
    /// A backend without workers; the pool keeps off the cores of so many loops if it can.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: a region could not be made. [`ErrorKind::Setting`]: the pool cannot be.
    pub(crate) fn new(
        common: Common,
        (pool, loops): (PoolSettings, usize),
        body: Body,
    ) -> Result<Self> {
        let stats = StatsPage::heap();
        Ok(Self {
            pool: pool.or_cores(common.cores.without(loops)).build()?,
            regions: Regions::anonymous(&common.regions, &stats)?,
            common,
            body,
            stats,
            workers: HashMap::new(),
            up: mailbox(),
            pending: Vec::new(),
            told: Vec::new(),
        })
    }

    fn spawn(&self, spec: WorkerSpec, far: Far) -> io::Result<JoinHandle<()>> {
        let identity = Identity {
            worker: spec.worker,
            slot: spec.slot,
            generation: spec.generation,
            cluster: self.common.name.clone(),
            packing: self.common.packing,
            pace: self.common.pace,
            core: self.common.cores.of(spec.place),
        };
        let (stats, body) = (self.stats.clone(), self.body.clone());
        let mut builder =
            std::thread::Builder::new().name(format!("bimodal-worker-{}", spec.worker));
        if let Some(bytes) = spec.outfit.stack_size {
            builder = builder.stack_size(bytes);
        }
        let Outfit { args, vars, data, .. } = spec.outfit;
        let given = Given::new(args, vars, data, self.regions.clone(), self.pool.clone());
        builder.spawn(move || body::run(identity, given, far, stats, &body))
    }

    fn take_in(&mut self, up: Up, events: &mut Vec<Event>) {
        match up {
            Up::Note { worker, note: Note::Refused(offer) } => {
                self.told.push(worker);
                events.push(Event::Returned { worker, offer })
            }
            Up::Note { worker, note } => {
                if self.workers.contains_key(&worker) {
                    self.told.push(worker);
                    events.push(Event::Note { worker, note });
                }
            }
            Up::Ended { worker, ended } => self.reap(worker, ended, events),
        }
    }

    /// The thread has said its last word; joining it takes a moment at most.
    fn reap(&mut self, worker: WorkerId, ended: Ended, events: &mut Vec<Event>) {
        let Some(running) = self.workers.remove(&worker) else { return };
        let status = match (running.thread.join(), ended) {
            (Err(_), _) => ExitStatus::Code(ExitStatus::PANIC),
            (Ok(()), Ended::Code(code)) => ExitStatus::Code(code),
            (Ok(()), Ended::Killed) => ExitStatus::Killed,
        };
        events.extend(gone(worker, &running.near, status));
    }
}

impl Backend for ThreadBackend {
    fn memory(&self) -> Memory {
        Memory::Shared
    }

    fn stats(&self) -> &Arc<StatsPage> {
        &self.stats
    }

    fn regions(&self) -> &Regions {
        &self.regions
    }

    fn start(&mut self, spec: WorkerSpec) -> Result<u32> {
        let worker = spec.worker;
        let (near, far) = pair(worker, &spec.line, self.up.0.clone())?;
        let thread = self
            .spawn(spec, far)
            .context(ErrorKind::Start, || format!("cannot start a thread for worker {worker}"))?;
        self.workers.insert(worker, Running { near, thread });
        Ok(std::process::id())
    }

    fn ask(&mut self, worker: WorkerId, command: Command) -> Result<()> {
        if let Some(running) = self.workers.get(&worker) {
            running.near.post(command);
            return Ok(());
        }
        if let Command::Offer(offer) = command {
            self.pending.push(Event::Returned { worker, offer });
            self.up.0.wake();
        }
        Err(Error::new(ErrorKind::Closed, format!("worker {worker} is gone")))
    }

    fn force(&mut self, worker: WorkerId, force: Force) {
        match force {
            // A thread that is stuck cannot be made to abort alone.
            Force::Kill | Force::Abort => {
                if let Some(running) = self.workers.get(&worker) {
                    running.near.kill();
                }
            }
            Force::Signal(Signal::Term) if self.workers.contains_key(&worker) => {
                // What a process tells when the signal reaches it.
                let note = Note::Leaving { voluntary: false };
                self.pending.push(Event::Note { worker, note });
                self.up.0.wake();
            }
            Force::Signal(_) => {}
            Force::Abandon => {
                if let Some(running) = self.workers.remove(&worker) {
                    running.near.kill();
                    self.pending.extend(gone(worker, &running.near, ExitStatus::Abandoned));
                    self.up.0.wake();
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        for worker in self.told.drain(..) {
            if let Some(running) = self.workers.get(&worker) {
                running.near.acted();
            }
        }
        let before = events.len();
        events.append(&mut self.pending);
        while events.len() - before < EVENTS_PER_POLL {
            match self.up.1.poll_next(cx) {
                Poll::Ready(Some(up)) => self.take_in(up, events),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if events.len() - before >= EVENTS_PER_POLL {
            cx.waker().wake_by_ref();
        }
        if events.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ThreadBackend {
    /// A primary that ends before its workers (it panicked) asks them to end; it cannot wait for a
    /// thread that is stuck.
    fn drop(&mut self) {
        self.workers.values().for_each(|running| running.near.kill());
    }
}

/// The last events of a worker: what it was offered and never saw, then its end.
fn gone(worker: WorkerId, near: &Near, status: ExitStatus) -> impl Iterator<Item = Event> {
    let unseen: Vec<Offer> = near.unseen_offers();
    let returned = unseen.into_iter().map(move |offer| Event::Returned { worker, offer });
    returned.chain([Event::Closed { worker }, Event::Exited { worker, status }])
}
