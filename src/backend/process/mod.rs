//! Workers as child processes.
//!
//! [`ProcessBackend`] is the primary's half: it starts processes, carries frames and descriptors to and
//! from them ([`link`]) and reaps them. [`child`] is the worker's half. `README.md` beside this file
//! tells the life of a worker and of a connection.
//!
//! Runs on the primary's event loop, on the thread that lives as long as the cluster: the kernel kills
//! the workers when the thread that forked them ends.

pub(crate) mod child;
mod frames;
mod link;
mod spawn;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use self::link::{Link, Remains};
pub(crate) use self::spawn::{Marker, own_program};
#[cfg(feature = "compare")]
pub(crate) use self::{child::claim, spawn::MARKER};
use super::{Backend, Common, Event, Force, Outfit, WorkerSpec};
use crate::{
    accept::Offer,
    channel::{Channel, Descriptor},
    clock,
    config::Memory,
    error::{Context as _, ErrorKind, Result},
    id::WorkerId,
    message::Codec,
    shared::{Regions, StatsPage},
    signal::Signal,
    sys::channel::seqpacket_pair,
    wire::{self, Frame},
    worker::Command,
};

/// How long the end of the backend waits for all its workers to be dead.
const TEAR_DOWN: Duration = Duration::from_secs(5);

/// The mode in which each worker is a child process.
pub(crate) struct ProcessBackend {
    common: Common,
    stats: Arc<StatsPage>,
    /// What a worker maps to see the same page.
    page: Arc<OwnedFd>,
    regions: Regions,
    /// The same for the regions, in their order.
    region_files: Vec<Arc<OwnedFd>>,
    links: BTreeMap<WorkerId, Link>,
    /// What happened outside of `poll`.
    events: Vec<Event>,
    /// Processes that were given up and will be reaped when they can be.
    abandoned: Vec<Remains>,
}

impl ProcessBackend {
    /// A backend without workers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: the stats page or a region could not be made.
    pub(crate) fn new(common: Common) -> Result<Self> {
        let (stats, page) =
            StatsPage::memfd().context(ErrorKind::Io, || "make the stats page".into())?;
        let (regions, files) = Regions::memfd(&common.regions, &stats)?;
        Ok(Self {
            common,
            stats,
            page: Arc::new(page),
            regions,
            region_files: files.into_iter().map(Arc::new).collect(),
            links: BTreeMap::new(),
            events: Vec::new(),
            abandoned: Vec::new(),
        })
    }

    /// The primary's end of a new channel, with the welcome and the data already in it, and the
    /// worker's end.
    fn open_channel(&self, spec: &mut WorkerSpec) -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = seqpacket_pair()?;
        let ours = Arc::new(ours);
        let outlet = spec.line.outlet().map_err(io::Error::other)?;
        let first = self.first_frames(spec)?;
        outlet.open(ours.clone(), first).map_err(io::Error::other)?;
        let mut channel = Channel::with_outlet(ours, outlet)?;
        channel.allow_messages(self.common.packing.max_bytes as u64);
        // What does not fit now goes out with the first poll.
        match channel.poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(fault)) => Err(io::Error::other(fault)),
            _ => Ok((channel, theirs)),
        }
    }

    /// What leaves before everything that was sent to the worker already: the welcome, and its data.
    fn first_frames(&self, spec: &mut WorkerSpec) -> io::Result<Vec<(Frame, Vec<Descriptor>)>> {
        let data = spec.outfit.data.take();
        let welcome = self.welcome(spec, data.is_some())?;
        let mut memory: Vec<Descriptor> = vec![self.page.clone()];
        memory.extend(self.region_files.iter().map(|file| file.clone() as Descriptor));
        let mut frames = vec![(welcome, memory)];
        if let Some(data) = data {
            let unencoded = |_| io::Error::other("the worker's data is not encoded");
            let (letter, _) = data.into_letter().map_err(unencoded)?;
            frames.push((Frame::Message { letter, handle: None, topic: None }, Vec::new()));
        }
        Ok(frames)
    }

    fn welcome(&self, spec: &WorkerSpec, data: bool) -> io::Result<Frame> {
        let (pace, nanoseconds) = (self.common.pace, |time: Duration| time.as_nanos() as u64);
        let number = |number: usize| u32::try_from(number).map_err(io::Error::other);
        let region =
            |(name, words)| wire::Region { name: str::to_owned(name), words: words as u64 };
        Ok(Frame::Welcome {
            version: wire::VERSION,
            worker: spec.worker.get(),
            slot: number(spec.slot.get())?,
            slots: number(StatsPage::ROWS)?,
            generation: spec.generation,
            name: self.common.name.to_string(),
            max_message: self.common.packing.max_bytes as u64,
            beat: pace.beat.map_or(0, nanoseconds),
            idle_poll: nanoseconds(pace.idle_poll),
            core: self.common.cores.of(spec.place).map(number).transpose()?,
            json: self.common.packing.codec == Codec::Json,
            data,
            regions: self.regions.words().map(region).collect(),
        })
    }

    fn return_offer(&mut self, worker: WorkerId, command: Option<Offer>) {
        self.events.extend(command.map(|offer| Event::Returned { worker, offer }));
    }

    fn reap_abandoned(&mut self) {
        self.abandoned.retain_mut(|remains| !remains.reap());
    }
}

impl Backend for ProcessBackend {
    fn memory(&self) -> Memory {
        Memory::Separate
    }

    fn stats(&self) -> &Arc<StatsPage> {
        &self.stats
    }

    fn regions(&self) -> &Regions {
        &self.regions
    }

    fn start(&mut self, mut spec: WorkerSpec) -> Result<u32> {
        self.reap_abandoned();
        let failed = |what: String| move || format!("start a worker process: {what}");
        let opened = self.open_channel(&mut spec);
        let (channel, theirs) =
            opened.context(ErrorKind::Start, failed("open its channel".into()))?;
        let WorkerSpec { worker, line, outfit, .. } = spec;
        let marker = Marker::new(&self.common.name, worker, theirs.as_fd());
        let run = format!("run {}", attempt(&outfit));
        let child =
            spawn::spawn(outfit, &marker, theirs.as_fd()).context(ErrorKind::Start, failed(run))?;
        let link = Link::new(worker, line, channel, child, self.common.packing)
            .context(ErrorKind::Start, failed("watch it".into()))?;
        let pid = link.pid();
        self.links.insert(worker, link);
        Ok(pid)
    }

    fn ask(&mut self, worker: WorkerId, command: Command) -> Result<()> {
        let asked = match self.links.get_mut(&worker) {
            Some(link) => link.ask(command),
            None => Err((link::closed(worker), link::offer_of(command))),
        };
        asked.map_err(|(error, offer)| {
            self.return_offer(worker, offer);
            error
        })
    }

    fn force(&mut self, worker: WorkerId, force: Force) {
        match force {
            Force::Kill => {
                if let Some(link) = self.links.get(&worker) {
                    link.kill();
                }
            }
            Force::Abort => self.force(worker, Force::Signal(Signal::Abort)),
            Force::Signal(signal) => {
                if let Some(link) = self.links.get(&worker) {
                    link.signal(signal.number());
                }
            }
            Force::Abandon => {
                if let Some(link) = self.links.remove(&worker) {
                    self.abandoned.push(link.abandon(&mut self.events));
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        let before = events.len();
        events.append(&mut self.events);
        self.links.retain(|_, link| !link.poll(cx, events));
        if events.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What a start tries, for its error: which program, and where, if that was chosen.
fn attempt(outfit: &Outfit) -> String {
    let program = outfit.exec.display();
    match &outfit.cwd {
        Some(directory) => format!("{program} in {}", directory.display()),
        None => program.to_string(),
    }
}

impl Drop for ProcessBackend {
    /// Kills all before waiting for any.
    fn drop(&mut self) {
        let links = std::mem::take(&mut self.links).into_values();
        let mut remains: Vec<_> = links.map(Link::tear_down).collect();
        remains.append(&mut self.abandoned);
        let deadline = clock::now() + TEAR_DOWN;
        for remains in remains {
            remains.bury(deadline.saturating_duration_since(clock::now()));
        }
    }
}
