//! One end of a channel on an event loop: the flusher of its outlet and the reader of its inbox.
//!
//! Runs on the loop's thread; only the outlet may be used from others.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::{Context, Poll, ready},
};

use mio::Interest;

use super::{Descriptor, Fault, Inbox, Incoming, Outlet, flusher::Flusher};
use crate::{
    event_loop::Source,
    wire::{Frame, WireError},
};

/// One end of a channel.
pub(crate) struct Channel {
    source: Source<Arc<OwnedFd>>,
    flusher: Flusher,
    inbox: Inbox,
}

impl Channel {
    /// Takes over one end. Nothing but small frames is received before [`Self::allow_messages`].
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        let end = Arc::new(end);
        Self::with_outlet(end.clone(), Outlet::new(end))
    }

    /// Takes over one end whose way out is known to others.
    pub(crate) fn with_outlet(end: Arc<OwnedFd>, outlet: Outlet) -> io::Result<Self> {
        let source = Source::new(end, Interest::READABLE)?;
        Ok(Self { source, flusher: Flusher::new(outlet), inbox: Inbox::new(0) })
    }

    /// Receives messages of up to this many bytes from now on.
    pub(crate) fn allow_messages(&mut self, max_bytes: u64) {
        self.inbox.allow_messages(max_bytes);
    }

    /// The way out.
    pub(crate) fn outlet(&self) -> &Outlet {
        self.flusher.outlet()
    }

    /// Puts a frame behind all others. It leaves with the next [`Self::poll_flush`].
    ///
    /// # Errors
    ///
    /// A name or a path in it is over its limit; nothing was put anywhere.
    pub(crate) fn push(
        &mut self,
        frame: Frame,
        descriptors: Vec<Descriptor>,
    ) -> Result<(), WireError> {
        self.outlet().push(frame, descriptors)
    }

    /// Sends what waits. Ready when nothing does, because it has left or because it never can. From
    /// now on the task is woken when another thread leaves something to send.
    ///
    /// # Errors
    ///
    /// The channel cannot be used any more.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let flushed = self.flusher.poll(&self.source, cx)?;
        if flushed.is_ready() {
            self.source.unwatch_room()?;
        }
        flushed.map(Ok)
    }

    /// The next frame. At most `budget` packets are received, and subtracted from it; at 0 the task is
    /// woken again instead, so that everything else on the loop has its turn.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol or the channel failed: nothing that follows can be trusted.
    pub(crate) fn poll_receive(
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
            let received = ready!(source.poll_read_io(cx, |end| inbox.receive(end.as_fd())))?;
            *budget -= 1;
            if let Some(incoming) = inbox.decode(received)? {
                return Poll::Ready(Ok(incoming));
            }
        }
    }

    /// The next frame that is already here, whatever the event loop knows of it. At most `budget`
    /// packets are received, as above.
    pub(crate) fn receive_now(&mut self, budget: &mut usize) -> Result<Option<Incoming>, Fault> {
        self.inbox.receive_now(self.source.get_ref(), budget)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;
    use crate::{
        channel::{Load, outlet::Written},
        event_loop::{EventLoop, timeout},
        sys::channel::{send_packet, seqpacket_pair},
        wire::{Letter, PACKET_LIMIT},
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
        Arc::new(std::fs::File::open("/dev/null").unwrap())
    }

    fn null_owned() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn offer(channel: &mut Channel, listener: u32, id: u64) {
        channel.push(Frame::Connections { listener, ids: vec![id] }, vec![null()]).unwrap();
    }

    fn message(length: usize) -> Frame {
        Frame::Message { letter: letter(length), handle: None, topic: None }
    }

    fn letter(length: usize) -> Letter {
        Letter { type_name: "u8".into(), payload: vec![7; length] }
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
    fn small_messages_that_wait_together_are_one_packet() {
        with_pair(async |mut one, mut other| {
            one.push(message(7), vec![]).unwrap();
            one.push(message(0), vec![]).unwrap();
            one.push(message(8), vec![]).unwrap();
            one.push(message(PACKET_LIMIT), vec![]).unwrap();
            (0..20).for_each(|_| one.push(message(8000), vec![]).unwrap());
            let receipt = one.outlet().track();
            assert_eq!(one.outlet().load().messages, 24);
            flush(&mut one).await;
            receipt.await.unwrap();
            let letters = |lengths: &[usize]| Frame::Messages {
                letters: lengths.iter().copied().map(letter).collect(),
            };
            assert_eq!(frame(&mut other).await.0, letters(&[7, 0, 8]));
            assert_eq!(frame(&mut other).await.0, message(PACKET_LIMIT));
            for count in [8, 8, 4] {
                assert_eq!(frame(&mut other).await.0, letters(&vec![8000; count]));
            }
            assert_eq!(one.outlet().load(), Load::default());
        });
    }

    #[test]
    fn what_was_sent_before_the_opening_follows_the_first_frame() {
        with_pair(async |one, mut other| {
            let outlet = Outlet::default();
            assert!(outlet.send_message(letter(1), None, None, 0).is_ok());
            let receipt = outlet.track();
            outlet.open(one.source.get_ref().clone(), vec![(Frame::Online, vec![])]).unwrap();
            drop(one);
            assert!(outlet.send_message(letter(2), None, None, 0).is_ok());
            assert_eq!(frame(&mut other).await.0, Frame::Online);
            let letters = vec![letter(1), letter(2)];
            assert_eq!(frame(&mut other).await.0, Frame::Messages { letters });
            receipt.await.unwrap();
        });
    }

    #[test]
    fn a_closed_outlet_gives_a_handle_back_and_settles_receipts() {
        with_pair(async |one, other| {
            let outlet = Outlet::default();
            let handle = || Some((crate::wire::HandleKind::UdpSocket, null_owned()));
            assert!(outlet.send_message(letter(1), handle(), None, 0).is_ok());
            let receipt = outlet.track();
            drop(other);
            outlet.open(one.source.get_ref().clone(), vec![(Frame::Online, vec![])]).unwrap();
            assert_eq!(outlet.flush().unwrap(), Written::All);
            assert!(receipt.await.is_err());
            let unsent = outlet.send_message(letter(1), handle(), None, 0).unwrap_err();
            assert!(unsent.handle.is_some());
        });
    }

    #[test]
    fn the_load_is_what_has_not_left() {
        with_pair(async |mut one, mut other| {
            one.push(message(1 << 20), vec![]).unwrap();
            one.push(message(10), vec![]).unwrap();
            assert_eq!(one.outlet().load(), Load { messages: 2, bytes: (1 << 20) + 10 });
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
            assert_eq!(one.outlet().load(), Load::default());
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
                    if other.outlet().is_closed() { Poll::Ready(()) } else { Poll::Pending }
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
            let letter = Letter { type_name: type_name.into(), payload: Vec::new() };
            let long = Frame::Message {
                letter,
                handle: Some(crate::wire::HandleKind::UdpSocket),
                topic: None,
            };
            assert!(one.push(long, vec![null()]).is_err());
            assert!(one.outlet().is_empty());
            assert_eq!(one.outlet().load(), Load::default());
        });
    }
}
