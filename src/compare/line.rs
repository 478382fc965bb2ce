//! The line between the comparing program and an arm: one JSON value per packet of a packet socket pair.
//!
//! Either end may be used by any thread. Nothing here waits longer than it is told; what does not fit into the
//! socket's buffer is not sent, and whoever sends is told.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Fault;
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
    sys::channel::{receive_packet, send_packet},
};

/// No packet is larger, in bytes.
const LARGEST: usize = 16 << 10;

/// A text in a packet is cut here, in bytes.
const LONGEST_TEXT: usize = 2 << 10;

/// What an arm is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first order: start the cluster.
    Begin {
        /// `process` or `thread`.
        mode: String,
        workers: usize,
    },
    Commit(Fault),
}

/// What an arm tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program got to its comparison.
    Arrived,
    /// A worker listens. `after` counts from the start of the cluster.
    Listening { address: String, tcp: Option<SocketAddr>, listening: usize, after: Duration },
    /// A worker ended that was not told to.
    Ended(String),
    /// So long after a fault, every worker listened again.
    Restored(Duration),
    /// The arm cannot go on.
    Failed(String),
}

/// What came over a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<T> {
    Value(T),
    /// Nothing came in time.
    Late,
    /// The other end is closed.
    End,
}

/// One end of a line.
#[derive(Debug)]
pub(super) struct Line(OwnedFd);

impl Line {
    pub(super) fn new(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Sends a value at once, or fails.
    pub(super) fn send(&self, value: &impl Serialize) -> Result<()> {
        let failed = || "send to the other end of a comparison".to_owned();
        let bytes = serde_json::to_vec(value).context(ErrorKind::Codec, failed)?;
        send_packet(self.0.as_fd(), &[IoSlice::new(&bytes)], &[]).context(ErrorKind::Closed, failed)
    }

    /// The next value, if it comes until then; at any time, if there is no deadline.
    pub(super) fn receive<T: DeserializeOwned>(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Received<T>> {
        let mut buffer = vec![0; LARGEST];
        loop {
            match receive_packet(self.0.as_fd(), &mut buffer) {
                Ok(None) => return Ok(Received::End),
                Ok(Some(packet)) if packet.truncated => return Err(malformed("it is too long")),
                Ok(Some(packet)) => return decode(&buffer[..packet.length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if !self.wait(deadline)? {
                return Ok(Received::Late);
            }
        }
    }

    /// Waits until something can be received. Whether it can.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], left.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            // Whoever calls looks again, with the time that is left.
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Received<T>> {
    let value = serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
    Ok(Received::Value(value))
}

fn malformed(cause: &str) -> Error {
    let text = format!("what the other end of a comparison says cannot be understood: {cause}");
    Error::new(ErrorKind::Protocol, text)
}

/// As much of a text as goes into a packet.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sys::channel::seqpacket_pair;

    fn pair() -> (Line, Line) {
        let (one, other) = seqpacket_pair().unwrap();
        (Line::new(one), Line::new(other))
    }

    #[test]
    fn values_arrive_in_order_and_then_the_end() {
        let (ours, theirs) = pair();
        let sent = [
            Report::Arrived,
            Report::Listening {
                address: "http".into(),
                tcp: Some(([127, 0, 0, 1], 80).into()),
                listening: 2,
                after: Duration::from_nanos(1_234_567_891),
            },
            Report::Failed(cut("ä".repeat(LARGEST))),
        ];
        sent.iter().for_each(|report| ours.send(report).unwrap());
        drop(ours);
        for report in sent {
            assert_eq!(theirs.receive(None).unwrap(), Received::Value(report));
        }
        assert_eq!(theirs.receive::<Report>(None).unwrap(), Received::End);
    }

    #[test]
    fn a_wait_has_an_end() {
        let (_ours, theirs) = pair();
        let soon = clock::now() + Duration::from_millis(5);
        assert_eq!(theirs.receive::<Order>(Some(soon)).unwrap(), Received::Late);
        assert!(clock::now() >= soon);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let (ours, theirs) = pair();
        ours.send(&"nonsense").unwrap();
        ours.send(&"x".repeat(LARGEST + 1)).unwrap();
        for _ in 0..2 {
            let error = theirs.receive::<Order>(None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }
}
