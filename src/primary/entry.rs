//! A worker in the primary's table.

use std::{
    collections::{HashMap, hash_map::Entry::Vacant},
    future::Future as _,
    pin::Pin,
    task::{Context, Waker},
};

use crate::{
    channel::Receipt,
    event::ExitStatus,
    handle::WorkerHandle,
    id::ListenerId,
    supervise::{Ending, Seat},
};

/// A worker that has not ended.
pub(super) struct Entry {
    pub(super) handle: WorkerHandle,
    /// Where the supervisor wanted it.
    pub(super) seat: Option<Seat>,
    /// What its body said when it ended.
    pub(super) finished: Option<Option<String>>,
    /// A signal from outside told it to leave: it is to be replaced.
    pub(super) told_to_leave: bool,
    pub(super) looks: Looks,
}

/// Requests to look at a listener's socket that may not have left the primary, each with the receipt of what was sent
/// before it. While that has not left, neither has the request, and it stands for those that would follow: it is read later
/// than they were made.
#[derive(Default)]
pub(super) struct Looks(HashMap<ListenerId, Receipt>);

impl Looks {
    /// Whether a request has to be sent now. A receipt of what is behind it would not do: the request could have been read
    /// long before that has left.
    pub(super) fn is_due(
        &mut self,
        listener: ListenerId,
        before: impl FnOnce() -> Receipt,
    ) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        self.0.retain(|_, receipt| Pin::new(receipt).poll(cx).is_pending());
        let Vacant(place) = self.0.entry(listener) else { return false };
        place.insert(before());
        true
    }
}

impl Entry {
    pub(super) fn new(handle: WorkerHandle, seat: Option<Seat>) -> Self {
        Self { handle, seat, finished: None, told_to_leave: false, looks: Looks::default() }
    }

    /// What its end means to the supervisor.
    pub(super) fn ending(&self, status: ExitStatus) -> Ending {
        let asked = self.handle.was_asked_to_leave();
        match (&self.finished, status) {
            (Some(Some(cause)), ExitStatus::Code(ExitStatus::PANIC)) => {
                Ending::Crashed(cause.clone())
            }
            (Some(Some(cause)), _) => Ending::Refused(cause.clone()),
            (Some(None), ExitStatus::Code(0)) if !self.told_to_leave => Ending::Done,
            _ if asked => Ending::Done,
            _ if self.told_to_leave => Ending::Crashed("a signal told it to leave".into()),
            (_, ExitStatus::Code(code)) if code != ExitStatus::PANIC => Ending::Code(code),
            _ => Ending::Crashed(status.to_string()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        channel::Channel,
        config::Memory,
        event_loop::on_loop,
        message::{Codec, Packing},
        sys::channel::seqpacket_pair,
        wire::Frame,
        worker::Line,
    };

    fn line() -> Line {
        let memory = Memory::Separate;
        Line::new(Packing { memory, codec: Codec::MessagePack, max_bytes: 1 << 20 })
    }

    /// How often a worker is sent a request to look that is to be asked so often.
    fn sent(looks: &mut Looks, line: &Line, listener: u32, times: usize) -> usize {
        let outlet = line.outlet().unwrap();
        let is_due = |_: &usize| {
            let is_due = looks.is_due(ListenerId(listener), || line.track());
            if is_due {
                outlet.push(Frame::Look { listener }, Vec::new()).unwrap();
            }
            is_due
        };
        (0..times).filter(is_due).count()
    }

    async fn flush(channel: &mut Channel) {
        std::future::poll_fn(|cx| channel.poll_flush(cx)).await.unwrap();
    }

    #[test]
    fn a_worker_is_asked_again_once_the_requests_have_left() {
        let line = line();
        let outlet = line.outlet().unwrap();
        let mut looks = Looks::default();
        assert_eq!(sent(&mut looks, &line, 1, 1000), 2, "nothing was before the first");
        assert_eq!(sent(&mut looks, &line, 2, 1000), 1, "something was");
        let (ours, _theirs) = seqpacket_pair().unwrap();
        let ours = Arc::new(ours);
        outlet.open(ours.clone(), Vec::new()).unwrap();
        on_loop(async || {
            let mut channel = Channel::with_outlet(ours, outlet).unwrap();
            flush(&mut channel).await;
            for _ in 0..3 {
                assert_eq!(sent(&mut looks, &line, 1, 1), 1, "it may have been read by now");
                flush(&mut channel).await;
            }
        });
    }

    #[test]
    fn a_message_behind_a_request_delays_no_other() {
        let line = line();
        let outlet = line.outlet().unwrap();
        let mut looks = Looks::default();
        assert_eq!(sent(&mut looks, &line, 1, 1), 1);
        outlet.push(Frame::Unready, Vec::new()).unwrap();
        assert_eq!(sent(&mut looks, &line, 1, 1), 1, "the first may have left before that");
    }
}
