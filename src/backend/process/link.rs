//! The primary's side of one worker process: its channel, its offers, its death.
//!
//! Runs on the primary's event loop. Invariants:
//!
//! * An offer's socket stays here until the worker names it in `Adopted`; what is sent is a duplicate.
//!   Whatever ends the channel returns all offers that are left. An id that was not sent is nobody's:
//!   naming it does nothing.
//! * A worker that breaks the protocol is killed, and nothing more is read from it.
//! * Death is what the pidfd says, not the end of the channel: a grandchild may hold the channel open.
//!   What the worker had sent before it died is read first, then comes `Closed`, then `Exited`. A worker
//!   that closes its channel and lives on is `Closed` at once and `Exited` when it ends; nobody is
//!   killed for it here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::Child,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mio::Interest;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
};
use socket2::Socket;

use super::frames;
use crate::{
    accept::{Grant, Intake, Offer},
    backend::Event,
    channel::{Channel, Descriptor, Fault, Incoming, Load},
    error::{Context as _, Error, ErrorKind, Result},
    event::ExitStatus,
    event_loop::Source,
    id::{ConnectionId, ListenerId, WorkerId},
    message::{self, Packing},
    sys::process,
    wire::{self, Frame},
    worker::{Command, Line, Note},
};

/// How many packets of one worker are received before the others have their turn.
const PACKETS_PER_TURN: usize = 64;

/// How many packets of a dead worker are received at most: more than a socket's buffer of 4 MiB holds (278 of the
/// smallest fit into 208 KiB, the kernel's default), unless somebody still fills it.
const PACKETS_AFTER_DEATH: usize = 8192;

/// How many answers to its requests a worker may leave unread: more than the listeners it can have.
pub(super) const UNREAD_ANSWERS: usize = 2048;

/// One worker process, from its start to its end.
pub(super) struct Link {
    worker: WorkerId,
    child: Child,
    /// Readable when the process has ended.
    end: Source<OwnedFd>,
    /// Absent once it is closed.
    channel: Option<Channel>,
    stage: Stage,
    offers: BTreeMap<ConnectionId, Kept>,
    granted: BTreeSet<ListenerId>,
    /// Answers to its requests since everything had left.
    answers: usize,
    line: Line,
    packing: Packing,
}

/// A process that was killed and not reaped.
pub(super) struct Remains {
    child: Child,
    end: OwnedFd,
}

impl Remains {
    /// Reaps the process if it is dead. Whether that is done.
    pub(super) fn reap(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Blocks until the process is dead, or for this long, and reaps it.
    pub(super) fn bury(mut self, limit: Duration) {
        let waited = Timespec::try_from(limit).map_err(io::Error::other).and_then(|limit| {
            let end = &mut [PollFd::new(&self.end, PollFlags::IN)];
            Ok(retry_on_intr(|| poll(end, Some(&limit)))?)
        });
        if waited.is_err() || !self.reap() {
            log::error!("process {} was killed and is not dead yet", self.child.id());
        }
    }
}

/// How far a worker has come in saying who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has to say `Hello` first.
    Silent,
    Greeted,
    /// Its body runs.
    Online,
}

/// An offer that was not answered yet. The outbox holds the socket, too, until it is sent.
struct Kept {
    listener: ListenerId,
    socket: Arc<Socket>,
}

/// What is wrong with a frame that came intact.
#[derive(Debug, thiserror::Error)]
enum Breach {
    #[error(transparent)]
    Channel(#[from] Fault),
    #[error("the peer broke the protocol: {0} is not for it to send now")]
    OutOfPlace(&'static str),
    #[error("the peer broke the protocol: it names a listener that it was not given")]
    Listener,
    #[error("the peer is not the process that was started")]
    Stranger,
    #[error("the peer broke the protocol: {0}")]
    Message(#[from] Error),
    #[error("the peer broke the protocol: it sends more messages than can be under way")]
    Flood,
    #[error("the peer broke the protocol: it says that it took messages that have not left")]
    Taken,
    #[error("the peer asks again and again and reads no answer")]
    Deaf,
}

impl Link {
    /// Watches a worker that has just been started.
    ///
    /// # Errors
    ///
    /// The process cannot be watched. It has been killed and reaped.
    pub(super) fn new(
        worker: WorkerId,
        line: Line,
        channel: Channel,
        mut child: Child,
        packing: Packing,
    ) -> io::Result<Self> {
        let end = watch(&child).inspect_err(|_| end_now(&mut child))?;
        Ok(Self {
            worker,
            child,
            end,
            channel: Some(channel),
            stage: Stage::Silent,
            offers: BTreeMap::new(),
            granted: BTreeSet::new(),
            answers: 0,
            line,
            packing,
        })
    }

    /// The worker's process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Queues a command. It leaves with the next [`Self::poll`].
    ///
    /// # Errors
    ///
    /// The channel is closed, or the command cannot be put into a frame. An offer is given back.
    pub(super) fn ask(&mut self, command: Command) -> Result<(), (Error, Option<Offer>)> {
        let Some(channel) = &mut self.channel else {
            return Err((closed(self.worker), offer_of(command)));
        };
        let pushed = match command {
            Command::Offer(offer) => {
                keep(&mut self.offers, channel, offer);
                Ok(())
            }
            Command::Message(message) => self.line.send(message).map_err(|(error, _)| error),
            Command::Granted { request, grant } => {
                self.granted.insert(grant.listener);
                self.answers += 1;
                push_grant(channel, request, grant)
            }
            Command::Denied { request, denial } => {
                let (errno, text) = (denial.errno, denial.text);
                self.answers += 1;
                push(channel, Frame::Denied { request, errno, text }, Vec::new())
            }
            Command::Disconnect => push(channel, Frame::Disconnect, Vec::new()),
            Command::Close => push(channel, Frame::Close, Vec::new()),
            Command::Unready => push(channel, Frame::Unready, Vec::new()),
            Command::Look { listener } => {
                push(channel, Frame::Look { listener: listener.0 }, Vec::new())
            }
        };
        pushed.map_err(|error| (error, None))
    }

    /// Sends, receives, and looks whether the worker is dead. Whether this was the end of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        self.flush(cx, events);
        self.receive(cx, events);
        let Poll::Ready(status) = self.poll_end(cx) else { return false };
        self.drain(events);
        self.finish(status, events);
        true
    }

    /// Ends the process.
    pub(super) fn kill(&self) {
        self.signal(process::SIGKILL);
    }

    /// Sends the process a signal. One that has ended needs none.
    pub(super) fn signal(&self, signal: i32) {
        if let Err(error) = process::signal(self.end.get_ref().as_fd(), signal)
            && Errno::from_io_error(&error) != Some(Errno::SRCH)
        {
            log::error!("worker {}: signal {signal} cannot be sent: {error}", self.worker);
        }
    }

    /// Gives the worker up, dead or not. It is killed first, if it was not: its offers go to others.
    pub(super) fn abandon(mut self, events: &mut Vec<Event>) -> Remains {
        self.kill();
        self.finish(ExitStatus::Abandoned, events);
        self.tear_down()
    }

    /// Kills the process; somebody else has to reap it.
    pub(super) fn tear_down(self) -> Remains {
        self.kill();
        Remains { child: self.child, end: self.end.into_inner() }
    }

    fn flush(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        let Some(channel) = &mut self.channel else { return };
        match channel.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.answers = 0,
            Poll::Ready(Err(fault)) => self.expel(&fault.into(), events),
            Poll::Pending if self.answers > UNREAD_ANSWERS => self.expel(&Breach::Deaf, events),
            Poll::Pending => {}
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        let mut budget = PACKETS_PER_TURN;
        while let Some(channel) = &mut self.channel
            && let Poll::Ready(received) = channel.poll_receive(cx, &mut budget)
        {
            self.handle(received, events);
        }
    }

    /// Receives what the worker sent before it died.
    fn drain(&mut self, events: &mut Vec<Event>) {
        let mut budget = PACKETS_AFTER_DEATH;
        while let Some(channel) = &mut self.channel
            && let Some(received) = channel.receive_now(&mut budget).transpose()
        {
            self.handle(received, events);
        }
    }

    fn handle(&mut self, received: Result<Incoming, Fault>, events: &mut Vec<Event>) {
        let handled = match received {
            Ok(Incoming::Frame(frame, descriptors)) => self.accept(frame, descriptors, events),
            Ok(Incoming::Stripped(frame)) => self.accept_stripped(frame, events),
            Ok(Incoming::End) => {
                self.close(events);
                Ok(())
            }
            Err(fault) => Err(fault.into()),
        };
        if let Err(breach) = handled {
            self.expel(&breach, events);
        }
    }

    fn accept(
        &mut self,
        frame: Frame,
        descriptors: Vec<OwnedFd>,
        events: &mut Vec<Event>,
    ) -> Result<(), Breach> {
        self.advance(&frame)?;
        let worker = self.worker;
        match frame {
            Frame::Hello { .. } => {}
            Frame::Adopted { ids } => self.adopted(ids, events),
            Frame::Refused { ids } => self.refused(ids, events),
            Frame::Taken { messages, bytes } => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                self.took(Load { messages: messages as usize, bytes })?;
            }
            frame @ (Frame::Message { .. } | Frame::Messages { .. }) => {
                self.accept_messages(frame, descriptors, false, events)?;
            }
            frame => {
                let name = frame.name();
                let note = frames::note(frame).ok_or(Breach::OutOfPlace(name))?;
                self.check_listener(&note)?;
                if let Note::Unlisten { listener } = &note {
                    self.granted.remove(listener);
                }
                events.push(Event::Note { worker, note });
            }
        }
        Ok(())
    }

    /// What has not left cannot have been taken: whoever says so would have more and more sent to it.
    fn took(&self, Load { messages, bytes }: Load) -> Result<(), Breach> {
        let Some(channel) = &self.channel else { return Ok(()) };
        self.line.pressure().subtract(messages, bytes);
        // In this order: another thread counts a message before it puts it into the outbox.
        let left = channel.outlet().load();
        let under_way = self.line.pressure().load();
        if under_way.messages < left.messages || under_way.bytes < left.bytes {
            return Err(Breach::Taken);
        }
        Ok(())
    }

    /// Nothing that a worker sends has descriptors, but a message.
    fn accept_stripped(&mut self, frame: Frame, events: &mut Vec<Event>) -> Result<(), Breach> {
        self.advance(&frame)?;
        match frame {
            Frame::Message { .. } => self.accept_messages(frame, Vec::new(), true, events),
            frame => Err(Breach::OutOfPlace(frame.name())),
        }
    }

    fn accept_messages(
        &mut self,
        frame: Frame,
        descriptors: Vec<OwnedFd>,
        stripped: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Breach> {
        let worker = self.worker;
        for message in message::receive(frame, descriptors, stripped, self.packing)? {
            self.line.upward().add(message.bytes());
            events.push(Event::Note { worker, note: Note::Message(message) });
        }
        // An honest worker stops when it is told nothing of what was taken.
        if self.line.upward().load().is_excessive(self.packing.max_bytes) {
            Err(Breach::Flood)
        } else {
            Ok(())
        }
    }

    /// Nothing comes before `Hello`; it and `Online` come once.
    fn advance(&mut self, frame: &Frame) -> Result<(), Breach> {
        self.stage = match (self.stage, frame) {
            (Stage::Silent, Frame::Hello { worker, pid, .. }) => {
                if *worker != self.worker.get() || *pid != self.child.id() {
                    return Err(Breach::Stranger);
                }
                Stage::Greeted
            }
            (Stage::Silent, frame) | (_, frame @ Frame::Hello { .. }) => {
                return Err(Breach::OutOfPlace(frame.name()));
            }
            (Stage::Greeted, Frame::Online) => Stage::Online,
            (Stage::Online, Frame::Online) => return Err(Breach::OutOfPlace("Online")),
            (stage, _) => stage,
        };
        Ok(())
    }

    fn check_listener(&self, note: &Note) -> Result<(), Breach> {
        match note {
            Note::Listening { listener }
            | Note::Unlisten { listener }
            | Note::Left { listener, .. }
            | Note::Room { listener, .. }
                if !self.granted.contains(listener) =>
            {
                Err(Breach::Listener)
            }
            _ => Ok(()),
        }
    }

    fn adopted(&mut self, ids: Vec<u64>, events: &mut Vec<Event>) {
        let mut by_listener: BTreeMap<ListenerId, Vec<ConnectionId>> = BTreeMap::new();
        for id in ids.into_iter().map(ConnectionId) {
            // Dropping the socket here closes the primary's duplicate.
            if let Some((listener, _socket)) = self.take_sent(id) {
                by_listener.entry(listener).or_default().push(id);
            }
        }
        let worker = self.worker;
        events.extend(
            by_listener.into_iter().map(|(listener, ids)| Event::Note {
                worker,
                note: Note::Adopted { listener, ids },
            }),
        );
    }

    fn refused(&mut self, ids: Vec<u64>, events: &mut Vec<Event>) {
        for id in ids.into_iter().map(ConnectionId) {
            if let Some((listener, socket)) = self.take_sent(id) {
                let offer = Offer { listener, id, socket };
                events.push(Event::Returned { worker: self.worker, offer });
            }
        }
    }

    /// An offer that the worker has got, if this is one.
    fn take_sent(&mut self, id: ConnectionId) -> Option<(ListenerId, Socket)> {
        let Kept { listener, socket } = self.offers.remove(&id)?;
        // The thread that sent it may not have let go of it yet.
        self.line.outlet().ok()?.settle();
        match Arc::try_unwrap(socket) {
            Ok(socket) => Some((listener, socket)),
            Err(socket) => {
                self.offers.insert(id, Kept { listener, socket });
                None
            }
        }
    }

    fn expel(&mut self, breach: &Breach, events: &mut Vec<Event>) {
        log::warn!("worker {} (process {}) is killed: {breach}", self.worker, self.child.id());
        self.kill();
        self.close(events);
    }

    /// Closes the channel, once: the offers come back, then nothing more comes.
    fn close(&mut self, events: &mut Vec<Event>) {
        let worker = self.worker;
        let Some(channel) = self.channel.take() else { return };
        // The outbox shares the sockets that were not sent.
        channel.outlet().close();
        drop(channel);
        let ids: Vec<_> = self.offers.keys().copied().collect();
        let left = ids.into_iter().filter_map(|id| Some((id, self.take_sent(id)?)));
        let offers = left.map(|(id, (listener, socket))| Offer { listener, id, socket });
        events.extend(offers.map(|offer| Event::Returned { worker, offer }));
        events.push(Event::Closed { worker });
    }

    fn finish(&mut self, status: ExitStatus, events: &mut Vec<Event>) {
        self.close(events);
        events.push(Event::Exited { worker: self.worker, status });
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<ExitStatus> {
        let Self { end, child, .. } = self;
        let reaped = end.poll_read_io(cx, |_| match child.try_wait()? {
            Some(status) => Ok(status),
            None => Err(io::ErrorKind::WouldBlock.into()),
        });
        reaped.map(|reaped| match reaped {
            Ok(status) => exit_status(status),
            Err(error) => {
                // Somebody else has reaped it: the program itself, or the kernel where SIGCHLD is ignored.
                log::warn!("worker {}: how it ended is unknown: {error}", self.worker);
                ExitStatus::Code(-1)
            }
        })
    }
}

/// A descriptor that becomes readable when the child has ended.
fn watch(child: &Child) -> io::Result<Source<OwnedFd>> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Source::new(process::pidfd(pid)?, Interest::READABLE)
}

fn end_now(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        log::error!("process {}, which was to be a worker, is left behind: {error}", child.id());
    }
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal(signal.unwrap_or_default()),
    }
}

pub(super) fn closed(worker: WorkerId) -> Error {
    Error::new(ErrorKind::Closed, format!("worker {worker} is gone"))
}

pub(super) fn offer_of(command: Command) -> Option<Offer> {
    match command {
        Command::Offer(offer) => Some(offer),
        _ => None,
    }
}

fn keep(offers: &mut BTreeMap<ConnectionId, Kept>, channel: &mut Channel, offer: Offer) {
    let Offer { listener, id, socket } = offer;
    let socket = Arc::new(socket);
    let frame = Frame::Connections { listener: listener.0, ids: vec![id.0] };
    // A list of one id is within every limit.
    let _ = channel.push(frame, vec![socket.clone()]);
    offers.insert(id, Kept { listener, socket });
}

fn push_grant(channel: &mut Channel, request: u32, grant: Grant) -> Result<()> {
    let (listener, address) = (grant.listener.0, frames::address(&grant.address)?);
    let data = grant.data.map(|data| data.to_vec());
    let (grant, descriptors): (_, Vec<Descriptor>) = match grant.intake {
        Intake::Offers => (wire::Grant::Handed { listener, address }, Vec::new()),
        Intake::Socket(socket) => {
            (wire::Grant::Socket { listener, address }, vec![Arc::new(socket)])
        }
    };
    push(channel, Frame::Granted { request, grant, data }, descriptors)
}

fn push(channel: &mut Channel, frame: Frame, descriptors: Vec<Descriptor>) -> Result<()> {
    let name = frame.name();
    channel
        .push(frame, descriptors)
        .context(ErrorKind::TooLarge, || format!("a {name} frame cannot be sent"))
}
