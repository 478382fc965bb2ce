//! One end of the channel between a primary and a worker process: frames in, frames out, descriptors
//! beside the frame they belong to.
//!
//! Both sides use this type, each on its own event loop. What is pushed waits in the outbox and leaves
//! in that order; frames of one kind that follow each other there become one frame, so that a turn that
//! offers or adopts many connections costs one packet. Nothing is bounded here: whoever pushes looks at
//! [`Channel::load`] first.
//!
//! A broken channel (the peer is gone) swallows what is pushed, but what the peer had sent before is
//! still received.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use mio::Interest;
use rustix::io::Errno;

use crate::{
    event_loop::{Sleep, Source, sleep},
    sys::channel::{Received, receive_packet, send_packet},
    wire::{Decoder, Frame, MAX_CONNECTIONS, MAX_IDS, Outgoing, PACKET_LIMIT, WireError},
    worker::Load,
};

/// How long to wait when the kernel has no room for what nothing will announce.
const RETRY: Duration = Duration::from_millis(10);

/// A descriptor to send. Its owner may keep it as well; the peer gets a duplicate.
pub(super) type Descriptor = Rc<dyn AsFd>;

/// One end of a channel.
pub(super) struct Channel {
    source: Source<OwnedFd>,
    outbox: VecDeque<Parcel>,
    load: Load,
    /// Nothing can be sent any more.
    broken: bool,
    retry: Option<Pin<Box<Sleep>>>,
    inbox: Inbox,
}

/// What one receive brought.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A frame, with as many descriptors as it must have.
    Frame(Frame, Vec<OwnedFd>),
    /// A frame whose descriptors did not arrive: this process can open no more.
    Stripped(Frame),
    /// The peer has closed its end.
    End,
}

/// Why a channel cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the channel failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    #[error("the peer broke the protocol: a packet is larger than {PACKET_LIMIT} bytes")]
    Oversized,
}

impl Channel {
    /// Takes over one end. Nothing but small frames is received before [`Self::allow_messages`].
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            source: Source::new(end, Interest::READABLE | Interest::WRITABLE)?,
            outbox: VecDeque::new(),
            load: Load::default(),
            broken: false,
            retry: None,
            inbox: Inbox { decoder: Decoder::new(0), buffer: vec![0; PACKET_LIMIT].into() },
        })
    }

    /// Receives messages of up to this many bytes from now on.
    pub(super) fn allow_messages(&mut self, max_bytes: u64) {
        self.inbox.decoder = Decoder::new(max_bytes);
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The messages that have not left yet.
    pub(super) fn load(&self) -> Load {
        self.load
    }

    /// Puts a frame behind all others. It leaves with the next [`Self::poll_flush`].
    ///
    /// # Errors
    ///
    /// A name or a path in it is over its limit; nothing was put anywhere.
    pub(super) fn push(
        &mut self,
        frame: Frame,
        descriptors: Vec<Descriptor>,
    ) -> Result<(), WireError> {
        debug_assert_eq!(frame.descriptors(), descriptors.len());
        let parcel = match frame {
            Frame::Connections { .. }
            | Frame::Adopted { .. }
            | Frame::Refused { .. }
            | Frame::Taken { .. } => Parcel::Growing { frame, descriptors },
            frame => Parcel::encode(frame, descriptors)?,
        };
        if !self.broken {
            self.append(parcel);
        }
        Ok(())
    }

    fn append(&mut self, parcel: Parcel) {
        if let Some(bytes) = parcel.message_bytes() {
            self.load.messages += 1;
            self.load.bytes += bytes;
        }
        let rest = match self.outbox.back_mut() {
            Some(last) => last.absorb(parcel),
            None => Some(parcel),
        };
        self.outbox.extend(rest);
    }

    /// Sends what waits. Ready when nothing does, because it has left or because it never can.
    ///
    /// # Errors
    ///
    /// The channel cannot be used any more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if let Some(retry) = &mut self.retry {
            ready!(retry.as_mut().poll(cx));
            self.retry = None;
        }
        while !self.outbox.is_empty() {
            match ready!(self.poll_send(cx)) {
                Ok(()) => {}
                Err(Fault::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.give_up()
                }
                Err(Fault::Io(error)) if is_shortage(&error) => return self.poll_retry(cx),
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the next packet of the first parcel, and removes the parcel after its last one.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(sealed) = seal_first(&mut self.outbox)? else { return Poll::Ready(Ok(())) };
        if let Some(packet) = sealed.outgoing.packet() {
            // Only the first packet of a frame has descriptors.
            let count = packet.descriptors.min(sealed.descriptors.len());
            let descriptors: Vec<BorrowedFd<'_>> =
                sealed.descriptors[..count].iter().map(|each| (**each).as_fd()).collect();
            ready!(self.source.poll_write_io(cx, |end| {
                send_packet(end.as_fd(), &packet.parts(), &descriptors)
            }))?;
            sealed.outgoing.advance();
            sealed.descriptors.clear();
        }
        if sealed.outgoing.packet().is_none() {
            let bytes = sealed.message.take();
            self.outbox.pop_front();
            self.message_left(bytes);
        }
        Poll::Ready(Ok(()))
    }

    fn message_left(&mut self, bytes: Option<usize>) {
        if let Some(bytes) = bytes {
            self.load.messages -= 1;
            self.load.bytes -= bytes;
        }
    }

    fn give_up(&mut self) {
        self.broken = true;
        self.outbox.clear();
        self.load = Load::default();
    }

    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let retry = self.retry.insert(Box::pin(sleep(RETRY)));
        match retry.as_mut().poll(cx) {
            Poll::Ready(()) => cx.waker().wake_by_ref(),
            Poll::Pending => {}
        }
        Poll::Pending
    }

    /// The next frame. At most `budget` packets are received, and subtracted from it; at 0 the task is
    /// woken again instead, so that everything else on the loop has its turn.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol or the channel failed: nothing that follows can be trusted.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        budget: &mut usize,
    ) -> Poll<Result<Incoming, Fault>> {
        let Self { source, inbox, .. } = self;
        loop {
            if *budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let received = ready!(source.poll_read_io(cx, |end| inbox.receive(end)))?;
            *budget -= 1;
            if let Some(incoming) = inbox.decode(received)? {
                return Poll::Ready(Ok(incoming));
            }
        }
    }

    /// The next frame that is already here, whatever the event loop knows of it. At most `budget`
    /// packets are received, as above.
    pub(super) fn receive_now(&mut self, budget: &mut usize) -> Result<Option<Incoming>, Fault> {
        while *budget > 0 {
            *budget -= 1;
            let received = match self.inbox.receive(self.source.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                received => received?,
            };
            if let Some(incoming) = self.inbox.decode(received)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }
}

/// The kernel is short of something and will not say when that is over: descriptors in flight
/// (`ETOOMANYREFS`), or memory.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::TOOMANYREFS, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// Where packets become frames.
struct Inbox {
    decoder: Decoder,
    buffer: Box<[u8]>,
}

impl Inbox {
    fn receive(&mut self, end: &OwnedFd) -> io::Result<Option<Received>> {
        receive_packet(end.as_fd(), &mut self.buffer)
    }

    /// `None`: more packets of the same message must follow.
    fn decode(&mut self, received: Option<Received>) -> Result<Option<Incoming>, Fault> {
        let Some(received) = received else { return Ok(Some(Incoming::End)) };
        if received.truncated {
            return Err(Fault::Oversized);
        }
        let packet = &self.buffer[..received.length];
        match self.decoder.push(packet, received.descriptors.len()) {
            // What the frame says is needed all the same: its sender waits for an answer.
            Err(WireError::Descriptors { expected, .. }) if received.descriptors_lost => {
                Ok(self.decoder.push(packet, expected)?.map(Incoming::Stripped))
            }
            frame => Ok(frame?.map(|frame| Incoming::Frame(frame, received.descriptors))),
        }
    }
}

/// One frame of the outbox.
enum Parcel {
    /// Not begun, and open for more of its kind.
    Growing { frame: Frame, descriptors: Vec<Descriptor> },
    /// As it is sent.
    Encoded(Sealed),
}

struct Sealed {
    outgoing: Outgoing,
    descriptors: Vec<Descriptor>,
    /// The payload's size, if it is a message.
    message: Option<usize>,
}

impl Parcel {
    fn encode(frame: Frame, descriptors: Vec<Descriptor>) -> Result<Self, WireError> {
        let message = match &frame {
            Frame::Message { payload, .. } => Some(payload.len()),
            _ => None,
        };
        Ok(Self::Encoded(Sealed { outgoing: Outgoing::new(frame)?, descriptors, message }))
    }

    fn message_bytes(&self) -> Option<usize> {
        match self {
            Self::Encoded(sealed) => sealed.message,
            Self::Growing { .. } => None,
        }
    }

    /// Takes in the parcel that follows, if both can be one frame; otherwise gives it back.
    fn absorb(&mut self, next: Self) -> Option<Self> {
        let Self::Growing { frame, descriptors } = self else { return Some(next) };
        let Self::Growing { frame: more, descriptors: their } = next else { return Some(next) };
        match merge(frame, more) {
            None => {
                descriptors.extend(their);
                None
            }
            Some(frame) => Some(Self::Growing { frame, descriptors: their }),
        }
    }
}

/// The first parcel, which takes in nothing more from now on.
fn seal_first(outbox: &mut VecDeque<Parcel>) -> Result<Option<&mut Sealed>, WireError> {
    match outbox.pop_front() {
        Some(Parcel::Growing { frame, descriptors }) => {
            outbox.push_front(Parcel::encode(frame, descriptors)?);
        }
        encoded => encoded.into_iter().for_each(|encoded| outbox.push_front(encoded)),
    }
    match outbox.front_mut() {
        Some(Parcel::Encoded(sealed)) => Ok(Some(sealed)),
        _ => Ok(None),
    }
}

/// Makes one frame of two of the same kind, within the limits; otherwise gives the second one back.
fn merge(frame: &mut Frame, next: Frame) -> Option<Frame> {
    match (frame, next) {
        (
            Frame::Connections { listener, ids },
            Frame::Connections { listener: their, ids: more },
        ) if *listener == their && ids.len() + more.len() <= MAX_CONNECTIONS => ids.extend(more),
        (Frame::Adopted { ids }, Frame::Adopted { ids: more })
        | (Frame::Refused { ids }, Frame::Refused { ids: more })
            if ids.len() + more.len() <= MAX_IDS =>
        {
            ids.extend(more);
        }
        (Frame::Taken { messages, bytes }, Frame::Taken { messages: more, bytes: more_bytes }) => {
            *messages = messages.saturating_add(more);
            *bytes = bytes.saturating_add(more_bytes);
        }
        (_, next) => return Some(next),
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::{
        event_loop::{EventLoop, timeout},
        sys::channel::seqpacket_pair,
    };

    const LIMIT: Duration = Duration::from_secs(10);

    /// Runs `f` on an event loop, with both ends of a channel.
    fn with_pair(f: impl AsyncFnOnce(Channel, Channel)) {
        EventLoop::new()
            .unwrap()
            .block_on(async {
                let (one, other) = seqpacket_pair().unwrap();
                let [mut one, mut other] = [one, other].map(|end| Channel::new(end).unwrap());
                one.allow_messages(1 << 20);
                other.allow_messages(1 << 20);
                f(one, other).await;
            })
            .unwrap();
    }

    async fn flush(channel: &mut Channel) {
        timeout(LIMIT, poll_fn(|cx| channel.poll_flush(cx))).await.unwrap().unwrap();
    }

    async fn receive(channel: &mut Channel) -> Result<Incoming, Fault> {
        timeout(LIMIT, poll_fn(|cx| channel.poll_receive(cx, &mut 1000))).await.unwrap()
    }

    async fn frame(channel: &mut Channel) -> (Frame, usize) {
        match receive(channel).await.unwrap() {
            Incoming::Frame(frame, descriptors) => (frame, descriptors.len()),
            other => panic!("{other:?} is no frame"),
        }
    }

    fn null() -> Descriptor {
        Rc::new(std::fs::File::open("/dev/null").unwrap())
    }

    fn offer(channel: &mut Channel, listener: u32, id: u64) {
        channel.push(Frame::Connections { listener, ids: vec![id] }, vec![null()]).unwrap();
    }

    fn message(length: usize) -> Frame {
        Frame::Message { type_name: "u8".into(), payload: vec![7; length] }
    }

    #[test]
    fn offers_that_follow_each_other_are_one_frame() {
        with_pair(async |mut one, mut other| {
            (0..70).for_each(|id| offer(&mut one, 1, id));
            offer(&mut one, 2, 70);
            one.push(Frame::Online, vec![]).unwrap();
            offer(&mut one, 2, 71);
            flush(&mut one).await;
            let connections = |listener, ids: std::ops::Range<u64>| {
                let count = ids.clone().count();
                (Frame::Connections { listener, ids: ids.collect() }, count)
            };
            assert_eq!(frame(&mut other).await, connections(1, 0..64));
            assert_eq!(frame(&mut other).await, connections(1, 64..70));
            assert_eq!(frame(&mut other).await, connections(2, 70..71));
            assert_eq!(frame(&mut other).await, (Frame::Online, 0));
            assert_eq!(frame(&mut other).await, connections(2, 71..72));
        });
    }

    #[test]
    fn acknowledgements_are_one_frame_and_keep_their_place() {
        with_pair(async |mut one, mut other| {
            for id in 0..3 {
                one.push(Frame::Adopted { ids: vec![id] }, vec![]).unwrap();
            }
            one.push(message(1), vec![]).unwrap();
            for _ in 0..2 {
                one.push(Frame::Taken { messages: 1, bytes: 5 }, vec![]).unwrap();
            }
            flush(&mut one).await;
            assert_eq!(frame(&mut other).await.0, Frame::Adopted { ids: vec![0, 1, 2] });
            assert_eq!(frame(&mut other).await.0, message(1));
            assert_eq!(frame(&mut other).await.0, Frame::Taken { messages: 2, bytes: 10 });
        });
    }

    #[test]
    fn the_load_is_what_has_not_left() {
        with_pair(async |mut one, mut other| {
            one.push(message(1 << 20), vec![]).unwrap();
            one.push(message(10), vec![]).unwrap();
            assert_eq!(one.load(), Load { messages: 2, bytes: (1 << 20) + 10 });
            let mut both = [0, 0];
            let received = poll_fn(|cx| {
                let _ = one.poll_flush(cx);
                both[0] += 1;
                other.poll_receive(cx, &mut 1000)
            });
            let Incoming::Frame(first, _) = timeout(LIMIT, received).await.unwrap().unwrap() else {
                panic!("no frame")
            };
            assert_eq!(first, message(1 << 20));
            flush(&mut one).await;
            assert_eq!(one.load(), Load::default());
            assert_eq!(frame(&mut other).await.0, message(10));
        });
    }

    #[test]
    fn a_budget_ends_a_receive_and_comes_back() {
        with_pair(async |mut one, mut other| {
            one.push(message(2 * PACKET_LIMIT), vec![]).unwrap();
            flush(&mut one).await;
            let mut pauses = 0;
            let received = poll_fn(|cx| {
                let polled = other.poll_receive(cx, &mut 1);
                pauses += usize::from(polled.is_pending());
                polled
            });
            assert!(timeout(LIMIT, received).await.unwrap().is_ok());
            assert_eq!(pauses, 2);
        });
    }

    #[test]
    fn what_was_sent_is_received_after_the_peer_is_gone() {
        with_pair(async |mut one, mut other| {
            one.push(Frame::Online, vec![]).unwrap();
            flush(&mut one).await;
            drop(one);
            let send = timeout(
                LIMIT,
                poll_fn(|cx| {
                    other.push(Frame::Disconnect, vec![]).unwrap();
                    let _ = other.poll_flush(cx);
                    cx.waker().wake_by_ref();
                    if other.is_broken() { Poll::Ready(()) } else { Poll::Pending }
                }),
            );
            send.await.unwrap();
            assert_eq!(frame(&mut other).await.0, Frame::Online);
            assert!(matches!(receive(&mut other).await, Ok(Incoming::End)));
        });
    }

    #[test]
    fn garbage_and_oversized_packets_are_faults() {
        for packet in [vec![0xff; 9], vec![1; PACKET_LIMIT + 1]] {
            with_pair(async |one, mut other| {
                let parts = [io::IoSlice::new(&packet)];
                send_packet(one.source.get_ref().as_fd(), &parts, &[]).unwrap();
                assert!(receive(&mut other).await.is_err());
            });
        }
    }

    #[test]
    fn a_name_over_its_limit_is_refused_at_once() {
        with_pair(async |mut one, _other| {
            let type_name = "x".repeat(crate::wire::NAME_LIMIT + 1);
            let long = Frame::Message { type_name, payload: Vec::new() };
            assert!(one.push(long, vec![]).is_err());
            assert!(one.outbox.is_empty());
            assert_eq!(one.load(), Load::default());
        });
    }
}
