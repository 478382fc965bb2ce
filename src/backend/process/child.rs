//! The worker's side: finding out whose worker this process is, and being it.
//!
//! Runs in a worker process, on its main thread. [`invited_to`] reads the marker once, checks everything
//! it says and removes it from the environment; a marker that is not for this process makes it no
//! worker, it does not end it. One that is makes it a worker also if the primary speaks another version of
//! the protocol: it cannot begin then, and must not be a primary in a worker's place. [`become_worker`]
//! never returns.
//!
//! What is sent waits for the next time the runtime looks for arrivals, which is before the loop's next
//! turn: all that one turn sends leaves together, in order.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::{AsFd, IntoRawFd, OwnedFd},
    process::exit,
    rc::Rc,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::Socket;

use super::{
    frames,
    spawn::{MARKER, Marker},
};
use crate::{
    accept::{Grant, Intake, Offer},
    backend::cores,
    channel::{Channel, Credit, Fault, Incoming, Load, Pressure, Receipt},
    config::{MAX_IDLE_POLL, Memory},
    error::{Context as _, Error, ErrorKind, Result},
    event_loop::{EventLoop, Signals, timeout},
    id::{ConnectionId, ListenerId, Slot, WorkerId},
    message::{self, Codec, Message, Packing},
    pool::Pool,
    shared::{Parties, Regions, SlotMeter, StatsPage},
    sys::{channel as packets, environment, process, thread},
    wire::{self, Frame},
    worker::{self, Arrival, Body, Command, Denial, Ended, Given, Identity, Link, Note, Pace},
};

/// How long a worker waits for the welcome, which was sent before it was started.
const WELCOME: Duration = Duration::from_secs(10);

/// How many packets are received before the worker's tasks have their turn.
const PACKETS_PER_TURN: usize = 64;

/// No beat comes sooner, whatever the primary says.
const SHORTEST_BEAT: Duration = Duration::from_millis(1);

/// The exit code of a worker that could not begin.
const NOT_STARTED: i32 = 1;

/// What makes this process a worker: the right to become one, once.
#[derive(Debug)]
pub(crate) struct Invitation {
    worker: WorkerId,
    /// Of the protocol, as the primary speaks it.
    version: u16,
    channel: OwnedFd,
}

struct Invited {
    name: String,
    invitation: Mutex<Option<Invitation>>,
}

/// The name of the cluster that this process was started for, if it is a worker.
///
/// The first call reads the environment; it must be made before other threads run.
pub(crate) fn invited_to() -> Option<&'static str> {
    invited().map(|invited| invited.name.as_str())
}

/// The invitation, once, if it is to this cluster.
pub(crate) fn accept_invitation(name: &str) -> Option<Invitation> {
    invited().filter(|invited| invited.name == name)?.invitation.lock().take()
}

fn invited() -> Option<&'static Invited> {
    static INVITED: OnceLock<Option<Invited>> = OnceLock::new();
    INVITED.get_or_init(look_for_invitation).as_ref()
}

fn look_for_invitation() -> Option<Invited> {
    let (Marker { name, worker, version, .. }, channel) = claim_of_any_version(MARKER)?;
    let invitation = Invitation { worker, version, channel };
    Some(Invited { name, invitation: Mutex::new(Some(invitation)) })
}

/// The marker in this variable and the channel it names, if both were made for this process by its parent, which
/// speaks the same version of the protocol. The variable is removed.
#[cfg(feature = "compare")]
pub(crate) fn claim(variable: &str) -> Option<(Marker, OwnedFd)> {
    let (marker, channel) = claim_of_any_version(variable)?;
    if let Err(error) = check_version(marker.version) {
        log::warn!("{variable} is ignored: {error}");
        return None;
    }
    Some((marker, channel))
}

fn claim_of_any_version(variable: &str) -> Option<(Marker, OwnedFd)> {
    let found = environment::take_env(variable)?;
    let checked = Marker::parse(found).map_err(String::from).and_then(check);
    checked.inspect_err(|cause| log::warn!("{variable} is ignored: {cause}")).ok()
}

fn check_version(theirs: u16) -> Result<()> {
    let ours = wire::VERSION;
    if theirs == ours {
        return Ok(());
    }
    let text = format!(
        "the primary speaks version {theirs} of the protocol, this program version {ours}: it takes over by an \
         upgrade (SIGUSR2), not by a reload"
    );
    Err(Error::new(ErrorKind::Start, text))
}

/// Whether this process is the one that the marker was made for.
fn check(marker: Marker) -> Result<(Marker, OwnedFd), String> {
    let Marker { descriptor, primary, .. } = marker;
    let parent = process::parent_pid();
    if parent != primary {
        return Err(format!("it was made by process {primary}, the parent is process {parent}"));
    }
    let channel = environment::adopt_descriptor(descriptor).map_err(|error| error.to_string())?;
    if let Err(cause) = check_channel(&channel, primary) {
        // It is somebody else's: leave it open.
        let _ = channel.into_raw_fd();
        return Err(cause);
    }
    Ok((marker, channel))
}

fn check_channel(channel: &OwnedFd, primary: i32) -> Result<(), String> {
    if !packets::is_seqpacket(channel.as_fd()) {
        return Err("its descriptor is not a channel".into());
    }
    match packets::peer_pid(channel.as_fd()) {
        Ok(peer) if peer == primary || peer == 0 => Ok(()),
        Ok(peer) => Err(format!("its channel was made by process {peer}, not {primary}")),
        Err(error) => Err(format!("its channel has no peer: {error}")),
    }
}

/// Is the worker, with a pool of its own: runs its body and ends the process.
pub(crate) fn become_worker(invitation: Invitation, body: Body, pool: Pool) -> ! {
    let worker = invitation.worker;
    match begin(invitation, pool) {
        Ok(begun) => live(begun, &body),
        Err(error) => {
            log::error!("worker {worker} cannot begin: {error}");
            exit(NOT_STARTED)
        }
    }
}

/// A worker that was welcomed.
struct Begun {
    // Before the loop: what is registered leaves first.
    link: Rc<ProcessLink>,
    identity: Identity,
    given: Given,
    meter: SlotMeter,
    event_loop: EventLoop,
}

fn begin(invitation: Invitation, pool: Pool) -> Result<Begun> {
    check_version(invitation.version)?;
    let mut event_loop = EventLoop::new().context(ErrorKind::Start, || "make its loop".into())?;
    let terminate =
        event_loop.enter(catch_signals).context(ErrorKind::Start, || "catch signals".into())?;
    let mut channel = event_loop
        .enter(|| Channel::new(invitation.channel))
        .context(ErrorKind::Start, || "watch its channel".into())?;
    let hello = Frame::Hello {
        version: wire::VERSION,
        worker: invitation.worker.get(),
        pid: std::process::id(),
    };
    channel.push(hello, Vec::new()).context(ErrorKind::Start, || "say hello".into())?;
    let welcomed = event_loop
        .block_on(async { timeout(WELCOME, welcome(&mut channel, 1)).await })?
        .context(ErrorKind::Start, || "wait for the primary's welcome".into())?;
    let (frame, descriptors) = welcomed?;
    let has_data = matches!(frame, Frame::Welcome { data: true, .. });
    let (identity, meter, regions) = enter_cluster(invitation.worker, frame, descriptors)?;
    cores::pin(&identity);
    let packing = identity.packing;
    channel.allow_messages(packing.max_bytes as u64);
    let data =
        if has_data { Some(receive_data(&mut event_loop, &mut channel, packing)?) } else { None };
    let vars = std::env::vars_os().filter(|(name, _)| name != MARKER).collect();
    let given = Given::new(std::env::args_os().skip(1).collect(), vars, data, regions, pool);
    let link = Rc::new(ProcessLink::new(channel, terminate, packing));
    Ok(Begun { link, identity, given, meter, event_loop })
}

/// What the primary sent behind its welcome for the body to start with.
fn receive_data(
    event_loop: &mut EventLoop,
    channel: &mut Channel,
    packing: Packing,
) -> Result<Message> {
    let received = event_loop
        .block_on(async { timeout(WELCOME, welcome(channel, usize::MAX)).await })?
        .context(ErrorKind::Start, || "wait for the worker's data".into())?;
    match received? {
        (Frame::Message { letter, handle: None, topic: None }, _) => {
            Ok(Message::encoded(letter, packing.codec))
        }
        (frame, _) => {
            let text = format!("the primary sent {} before the worker's data", frame.name());
            Err(Error::new(ErrorKind::Protocol, text))
        }
    }
}

/// The next frame from the primary, in at most so many packets, while the hello goes out.
async fn welcome(channel: &mut Channel, packets: usize) -> Result<(Frame, Vec<OwnedFd>)> {
    let mut packets = packets;
    let first = std::future::poll_fn(|cx| {
        if let Poll::Ready(Err(fault)) = channel.poll_flush(cx) {
            return Poll::Ready(Err(fault));
        }
        channel.poll_receive(cx, &mut packets)
    });
    match first.await.context(ErrorKind::Protocol, || "receive the primary's welcome".into())? {
        Incoming::Frame(frame, descriptors) => Ok((frame, descriptors)),
        Incoming::Stripped(_) => {
            Err(Error::new(ErrorKind::Start, "no more descriptors can be opened"))
        }
        Incoming::End => Err(Error::new(ErrorKind::Closed, "the primary is gone")),
    }
}

/// Takes what the welcome says, after checking it.
fn enter_cluster(
    invited: WorkerId,
    frame: Frame,
    descriptors: Vec<OwnedFd>,
) -> Result<(Identity, SlotMeter, Regions)> {
    let refuse = |text: String| Err(Error::new(ErrorKind::Protocol, text));
    let name = frame.name();
    let Frame::Welcome {
        worker,
        slot,
        slots,
        generation,
        name: cluster,
        max_message,
        beat,
        idle_poll,
        core,
        json,
        regions,
        ..
    } = frame
    else {
        return refuse(format!("the primary sent {name} before its welcome"));
    };
    let (slot, slots) = (slot as usize, slots as usize);
    if worker != invited.get() || slots != StatsPage::ROWS || slot >= slots {
        return refuse(format!("the welcome is for worker {worker} in slot {slot} of {slots}"));
    }
    let mut descriptors = descriptors.into_iter();
    let Some(page) = descriptors.next() else {
        return refuse("the welcome came without the stats page".into());
    };
    let page = StatsPage::map(page).context(ErrorKind::Start, || "map the stats page".into())?;
    // As many descriptors as regions: whoever decoded the frame has counted.
    let given = regions.into_iter().zip(descriptors);
    let given = given.map(|(region, fd)| (region.name, region.words, fd));
    let parties = Parties::of_worker(page.clone(), invited, Slot(slot));
    let regions = Regions::map(given, &parties)?;
    let identity = Identity {
        worker: invited,
        slot: Slot(slot),
        generation,
        cluster: cluster.into(),
        packing: Packing {
            memory: Memory::Separate,
            codec: if json { Codec::Json } else { Codec::MessagePack },
            max_bytes: usize::try_from(max_message).unwrap_or(usize::MAX),
        },
        pace: Pace {
            beat: (beat > 0).then(|| Duration::from_nanos(beat).max(SHORTEST_BEAT)),
            idle_poll: Duration::from_nanos(idle_poll).min(MAX_IDLE_POLL),
        },
        core: core.map(|core| core as usize),
    };
    Ok((identity, SlotMeter::new(page, Slot(slot), thread::process_clock()), regions))
}

/// A terminal's SIGINT is the primary's to answer; SIGTERM is watched on the current loop.
///
/// Handled, not ignored: what this worker starts gets the default back by exec.
fn catch_signals() -> io::Result<Signals> {
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))?;
    Signals::new(&[SIGTERM])
}

/// Exits with the link still there: a SIGTERM that comes last must not replace the exit code.
fn live(begun: Begun, body: &Body) -> ! {
    let Begun { link, identity, given, meter, mut event_loop } = begun;
    match worker::run(&mut event_loop, identity, given, link.clone(), meter, body) {
        Ended::Code(code) => exit(code),
        // A process is killed from outside; nothing in here asks for it.
        Ended::Killed => exit(NOT_STARTED),
    }
}

/// A worker process's end of the channel.
struct ProcessLink {
    channel: RefCell<Channel>,
    /// Brings each SIGTERM.
    terminate: Signals,
    /// What came in one frame and was not asked for yet.
    arrivals: RefCell<VecDeque<Arrival>>,
    /// Whoever asks for arrivals, who also sends.
    root: RefCell<Option<Waker>>,
    /// Packets left in this turn.
    budget: Cell<usize>,
    gone: Cell<bool>,
    packing: Packing,
    /// Messages that were sent and that the program has not taken, as far as the primary has told.
    sent: Pressure,
    credit: RefCell<Credit>,
}

impl ProcessLink {
    fn new(channel: Channel, terminate: Signals, packing: Packing) -> Self {
        Self {
            channel: RefCell::new(channel),
            terminate,
            arrivals: RefCell::default(),
            root: RefCell::default(),
            budget: Cell::new(PACKETS_PER_TURN),
            gone: Cell::new(false),
            packing,
            sent: Pressure::default(),
            credit: RefCell::default(),
        }
    }

    fn queue(&self, frame: Frame) -> Result<()> {
        let name = frame.name();
        self.channel
            .borrow_mut()
            .push(frame, Vec::new())
            .context(ErrorKind::TooLarge, || format!("a {name} frame cannot be sent"))?;
        self.wake_root();
        Ok(())
    }

    fn wake_root(&self) {
        if let Some(root) = &*self.root.borrow() {
            root.wake_by_ref();
        }
    }

    /// What was taken is told behind the answers to it, for which somebody may be waiting.
    fn push_credit(&self) {
        let Some(due) = self.credit.borrow_mut().due() else { return };
        // A frame of fixed size is within every limit.
        let _ = self.channel.borrow_mut().push(due.taken(), Vec::new());
    }

    /// The primary is gone, or as good as gone. Said once.
    fn lose(&self) -> Arrival {
        self.gone.set(true);
        Arrival::Gone
    }

    fn fail(&self, fault: &Fault) -> Arrival {
        log::error!("the primary is given up: {fault}");
        self.lose()
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Fault>> {
        let mut budget = self.budget.get();
        let polled = self.channel.borrow_mut().poll_receive(cx, &mut budget);
        self.budget.set(if polled.is_pending() { PACKETS_PER_TURN } else { budget });
        polled
    }

    /// Turns a frame into arrivals; `None` if the primary may not send it.
    fn take_in(&self, frame: Frame, descriptors: Vec<OwnedFd>) -> Option<()> {
        if let Frame::Message { .. } | Frame::Messages { .. } = frame {
            return self.take_in_messages(frame, descriptors, false);
        }
        if let Frame::Taken { messages, bytes } = frame {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            self.sent.subtract(messages as usize, bytes);
            return Some(());
        }
        let mut sockets = descriptors.into_iter().map(Socket::from);
        let mut arrivals = self.arrivals.borrow_mut();
        if let Frame::Connections { listener, ids } = frame {
            let listener = ListenerId(listener);
            let offers = ids.into_iter().zip(sockets).map(|(id, socket)| {
                Arrival::Command(Command::Offer(Offer { listener, id: ConnectionId(id), socket }))
            });
            arrivals.extend(offers);
            return Some(());
        }
        arrivals.push_back(Arrival::Command(match frame {
            Frame::Granted { request, grant, data } => {
                Command::Granted { request, grant: grant_of(grant, data, sockets.next())? }
            }
            Frame::Denied { request, errno, text } => {
                Command::Denied { request, denial: Denial { errno, text } }
            }
            Frame::Disconnect => Command::Disconnect,
            Frame::Close => Command::Close,
            Frame::Unready => Command::Unready,
            Frame::Look { listener } => Command::Look { listener: ListenerId(listener) },
            _ => return None,
        }));
        Some(())
    }

    fn take_in_messages(&self, frame: Frame, sent: Vec<OwnedFd>, stripped: bool) -> Option<()> {
        let messages = message::receive(frame, sent, stripped, self.packing);
        let messages = messages.inspect_err(|error| log::error!("{error}")).ok()?;
        let commands = messages.into_iter().map(Command::Message).map(Arrival::Command);
        self.arrivals.borrow_mut().extend(commands);
        Some(())
    }

    /// Answers a frame whose descriptors this process could not open.
    fn take_in_stripped(&self, frame: Frame) {
        log::warn!("{} came and no more descriptors can be opened", frame.name());
        match frame {
            Frame::Connections { ids, .. } => {
                // A list that was received is within every limit.
                let _ = self.queue(Frame::Refused { ids });
            }
            Frame::Granted { request, .. } => {
                let text = "the worker can open no more descriptors".into();
                let denial = Denial { errno: Some(Errno::MFILE.raw_os_error()), text };
                let denied = Arrival::Command(Command::Denied { request, denial });
                self.arrivals.borrow_mut().push_back(denied);
            }
            frame => {
                self.take_in_messages(frame, Vec::new(), true);
            }
        }
    }
}

impl Link for ProcessLink {
    fn memory(&self) -> Memory {
        Memory::Separate
    }

    fn send(&self, note: Note) -> Result<()> {
        if self.gone.get() || self.channel.borrow().outlet().is_closed() {
            return Err(Error::new(ErrorKind::Closed, "the primary is gone"));
        }
        frames::of_note(note)?.into_iter().try_for_each(|frame| self.queue(frame))
    }

    fn send_message(&self, message: Message) -> Result<(), (Error, Message)> {
        if self.gone.get() {
            return Err((Error::new(ErrorKind::Closed, "the primary is gone"), message));
        }
        let (bytes, under_way) = (message.bytes(), self.sent.load().messages);
        message::post(message, self.channel.borrow().outlet(), self.packing, under_way)?;
        self.sent.add(bytes);
        Ok(())
    }

    fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<Arrival> {
        let next = self.arrivals.borrow_mut().pop_front();
        if let Some(arrival) = next {
            return Poll::Ready(arrival);
        }
        self.root.replace(Some(cx.waker().clone()));
        if self.gone.get() {
            return Poll::Pending;
        }
        self.push_credit();
        let flushed = self.channel.borrow_mut().poll_flush(cx);
        if let Poll::Ready(Err(fault)) = flushed {
            return Poll::Ready(self.fail(&fault));
        }
        if self.terminate.poll_next(cx).is_ready() {
            return Poll::Ready(Arrival::Terminate);
        }
        loop {
            let next = self.arrivals.borrow_mut().pop_front();
            if let Some(arrival) = next {
                return Poll::Ready(arrival);
            }
            match self.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Incoming::End)) => return Poll::Ready(self.lose()),
                Poll::Ready(Ok(Incoming::Stripped(frame))) => self.take_in_stripped(frame),
                Poll::Ready(Ok(Incoming::Frame(frame, descriptors))) => {
                    let name = frame.name();
                    if self.take_in(frame, descriptors).is_none() {
                        log::error!("the primary is given up: {name} is not for it to send");
                        return Poll::Ready(self.lose());
                    }
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(self.fail(&fault)),
            }
        }
    }

    fn taken(&self, bytes: usize) {
        if self.credit.borrow_mut().add(bytes) {
            self.wake_root();
        }
    }

    fn load(&self) -> Load {
        self.sent.load()
    }

    fn track(&self) -> Receipt {
        self.channel.borrow().outlet().track()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gone.get() {
            return Poll::Ready(());
        }
        self.channel.borrow_mut().poll_flush(cx).map(|flushed| {
            if let Err(fault) = flushed {
                self.fail(&fault);
            }
        })
    }
}

fn grant_of(grant: wire::Grant, data: Option<Vec<u8>>, socket: Option<Socket>) -> Option<Grant> {
    let (listener, address, intake) = match grant {
        wire::Grant::Handed { listener, address } => (listener, address, Intake::Offers),
        wire::Grant::Socket { listener, address } => (listener, address, Intake::Socket(socket?)),
    };
    Some(Grant {
        listener: ListenerId(listener),
        address: frames::address_of(address),
        intake,
        data: data.map(Into::into),
    })
}
