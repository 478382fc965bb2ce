//! How much is under way in one direction, and when a sender has to slow down.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use crate::{
    error::{Error, ErrorKind, Result},
    wire::Frame,
};

/// Messages under way in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Load {
    /// Messages and bytes under way from which on a sender is asked to slow down.
    const SLOW: Self = Self { messages: 1024, bytes: 1 << 20 };
    /// Messages and bytes under way at which a message is refused.
    const FULL: Self = Self { messages: 262_144, bytes: 128 << 20 };

    pub(crate) fn add(&mut self, more: Self) {
        self.messages = self.messages.saturating_add(more.messages);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    pub(crate) fn subtract(&mut self, less: Self) {
        self.messages = self.messages.saturating_sub(less.messages);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }

    /// Whether no sender that looks at the load, and whose messages have at most so many bytes, can have got this far.
    pub(crate) fn is_excessive(self, largest: usize) -> bool {
        // One message may pass the bound on bytes, almost alone, and have a handle beside it.
        let most = Self::FULL.bytes.saturating_add(largest);
        self.messages > Self::FULL.messages || self.bytes > most
    }

    /// Tells the sender that so much was taken.
    pub(crate) fn taken(self) -> Frame {
        let messages = u32::try_from(self.messages).unwrap_or(u32::MAX);
        Frame::Taken { messages, bytes: self.bytes as u64 }
    }

    fn reaches(self, bound: Self) -> bool {
        self.messages >= bound.messages || self.bytes >= bound.bytes
    }
}

/// What sending a message says about those before it (Node: what `send` returns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "`Slow` asks to send less until the other side has caught up"]
pub enum Flow {
    /// Go on.
    Go,
    /// The other side is behind: pause, or the queue's bound will be reached.
    Slow,
}

/// Whether a message of this many bytes may follow what is under way.
pub(crate) fn check_room(load: Load, bytes: usize) -> Result<Flow> {
    let next = load.bytes.saturating_add(bytes);
    // So little may have been taken already, and nothing more comes that would be told with it.
    let alone = load.bytes < Credit::DUE.bytes;
    if load.messages >= Load::FULL.messages || next > Load::FULL.bytes && !alone {
        let text = format!(
            "{} messages ({} bytes) are under way and not taken; send less, or receive them",
            load.messages, load.bytes
        );
        return Err(Error::new(ErrorKind::Full, text));
    }
    Ok(if load.reaches(Load::SLOW) { Flow::Slow } else { Flow::Go })
}

/// A [`Load`] that both ends of a direction keep: the sender adds, whoever takes subtracts. On a cache line of its own,
/// since its neighbours in memory are often the other end's.
#[derive(Debug, Default)]
pub(crate) struct Pressure(CachePadded<Counts>);

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Pressure {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.messages.fetch_add(1, Relaxed);
        // A message that is moved has none: one write less to a line that both ends write.
        if bytes > 0 {
            self.0.bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// Subtracts, but never below nothing: the counts come over a channel.
    pub(crate) fn subtract(&self, messages: usize, bytes: usize) {
        let less = |counter: &AtomicUsize, amount: usize| {
            if amount > 0 {
                let _ = counter
                    .fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(amount)));
            }
        };
        less(&self.0.messages, messages);
        less(&self.0.bytes, bytes);
    }

    pub(crate) fn load(&self) -> Load {
        Load { messages: self.0.messages.load(Relaxed), bytes: self.0.bytes.load(Relaxed) }
    }
}

/// What was taken and the sender was not told yet: it is told now and then, well before it is slowed
/// by what it does not know. Where memory is shared it is not told, but its counter, which it writes
/// itself all the time, is left alone as long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credit {
    taken: Load,
}

impl Credit {
    const DUE: Load = Load { messages: 64, bytes: 64 << 10 };

    /// A message of this many bytes was taken; gives what the sender has to be told now, if anything.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<Load> {
        self.add(bytes);
        self.due()
    }

    /// A message of this many bytes was taken. Whether there is something that the sender has to be told.
    pub(crate) fn add(&mut self, bytes: usize) -> bool {
        self.taken.add(Load { messages: 1, bytes });
        self.taken.reaches(Self::DUE)
    }

    /// What the sender has to be told now, if anything.
    pub(crate) fn due(&mut self) -> Option<Load> {
        self.taken.reaches(Self::DUE).then(|| std::mem::take(&mut self.taken))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_slowed_then_refused() {
        let flow = |messages, bytes| check_room(Load { messages, bytes }, 10);
        assert_eq!(flow(0, 0).unwrap(), Flow::Go);
        assert_eq!(flow(Load::SLOW.messages, 0).unwrap(), Flow::Slow);
        assert_eq!(flow(1, Load::SLOW.bytes).unwrap(), Flow::Slow);
        for (messages, bytes) in [(Load::FULL.messages, 0), (1, Load::FULL.bytes - 9)] {
            assert_eq!(flow(messages, bytes).unwrap_err().kind(), ErrorKind::Full);
        }
        assert!(flow(1, Load::FULL.bytes - 10).is_ok());
    }

    #[test]
    fn a_message_larger_than_the_bound_passes_alone_or_behind_what_may_be_taken_already() {
        let large = |bytes| check_room(Load { messages: 1, bytes }, Load::FULL.bytes + 1);
        assert!(large(0).is_ok());
        let mut credit = Credit::default();
        assert_eq!(credit.take(Credit::DUE.bytes - 1), None, "its sender is not told");
        assert!(large(Credit::DUE.bytes - 1).is_ok());
        assert_eq!(large(Credit::DUE.bytes).unwrap_err().kind(), ErrorKind::Full);
    }

    #[test]
    fn credit_is_given_in_portions() {
        let mut credit = Credit::default();
        assert!((1..64).all(|_| credit.take(10).is_none()));
        assert_eq!(credit.take(10), Some(Load { messages: 64, bytes: 640 }));
        assert_eq!(credit.take(1 << 20), Some(Load { messages: 1, bytes: 1 << 20 }));
    }
}
