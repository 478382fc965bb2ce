//! The language of the channel between a primary and a worker process: a closed set of frames and their
//! bounded encoding.
//!
//! Pure: it moves no byte and reads no clock, and runs on whichever thread owns an end of the channel.
//! [`Outgoing`] turns a [`Frame`] into packets, a [`Decoder`] turns packets into frames.
//!
//! A packet is 1 to [`PACKET_LIMIT`] bytes: the frame's kind, then its fields, little-endian, counts before
//! what they count. A frame is one packet, except a message: its packets follow each other without another
//! frame in between. Descriptors travel beside the first packet of their frame; here they are only counted.
//!
//! What arrives is hostile until it is decoded: any packet ends in a frame or an error, never in a panic, and
//! never makes the decoder hold more than what has arrived and was allowed to arrive. After an error nothing
//! that follows can be trusted: close the channel.

mod bytes;
mod fields;
mod frame;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::io::IoSlice;

use bytes::{Reader, Writer};
pub use fields::HandleKind;
use fields::read_handle;
pub(crate) use fields::{Address, Failure, Grant, Letter, ListenOptions, Region};
pub(crate) use frame::Frame;
use frame::kind;

/// The protocol's version. Both sides must have the same one; it is the first thing they tell each other.
pub(crate) const VERSION: u16 = 7;

/// The largest packet, in bytes; well below what a `SOCK_SEQPACKET` takes with default buffers.
pub(crate) const PACKET_LIMIT: usize = 64 * 1024;

/// The most connections in one `Connections` frame: each brings a descriptor.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// The most ids in one `Adopted` or `Refused` frame; whoever has more sends several frames.
pub(crate) const MAX_IDS: usize = 4096;

/// The longest name of a cluster or a type, in bytes. A longer one is not sent.
pub(crate) const NAME_LIMIT: usize = 4 * 1024;

/// The largest payload that shares a packet with other messages, in bytes.
pub(crate) const SMALL: usize = 8 * 1024;

/// The longest error text, in bytes. A longer one is cut.
pub(crate) const TEXT_LIMIT: usize = 16 * 1024;

/// The longest path of a Unix socket, in bytes, as Linux has it for any path.
pub(crate) const PATH_LIMIT: usize = 4096;

/// The most bytes that a listener keeps for those who listen there.
pub(crate) const DATA_LIMIT: usize = 16 * 1024;

/// Why a frame could not be written or a packet could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("an empty packet")]
    Empty,
    #[error("a packet of an unknown kind ({got})")]
    Kind { got: u8 },
    #[error("the other side speaks version {theirs} of the protocol, this one version {ours}")]
    Version { theirs: u16, ours: u16 },
    #[error("the packet ends within {what}")]
    Short { what: &'static str },
    #[error("{bytes} bytes follow the end of the frame")]
    Trailing { bytes: usize },
    #[error("{what} cannot be {got}")]
    Value { what: &'static str, got: u8 },
    #[error("{what} is not UTF-8")]
    NotText { what: &'static str },
    #[error("{what} is too long: {got}, the limit is {limit}")]
    TooLong { what: &'static str, got: u64, limit: u64 },
    #[error("a list of ids without an id")]
    NoIds,
    #[error("{frame} came with {got} descriptors instead of {expected}")]
    Descriptors { frame: &'static str, got: usize, expected: usize },
    #[error("another frame came while {missing} bytes of a message were missing")]
    Interrupted { missing: usize },
    #[error("a part of a message came without its beginning")]
    Stray,
    #[error("a part of a message has {got} bytes where 1 to {missing} were missing")]
    Chunk { got: usize, missing: usize },
}

/// A frame on its way out, packet by packet.
///
/// It can be left between two packets and continued later, when the channel takes more. A message's payload
/// is not copied.
#[derive(Debug)]
pub(crate) struct Outgoing {
    head: Vec<u8>,
    payload: Vec<u8>,
    /// How much of the payload went with earlier packets.
    sent: usize,
    descriptors: usize,
    done: bool,
}

/// One packet, as two parts that are sent as one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// The kind and the fields.
    pub(crate) head: &'a [u8],
    /// A piece of a message's payload.
    pub(crate) body: &'a [u8],
    /// How many descriptors must go with it.
    pub(crate) descriptors: usize,
}

impl<'a> Packet<'a> {
    /// Both parts, ready for a vectored send.
    pub(crate) fn parts(&self) -> [IoSlice<'a>; 2] {
        [IoSlice::new(self.head), IoSlice::new(self.body)]
    }

    /// The packet's length in bytes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl Outgoing {
    /// Encodes a frame. An error if a name or a list is over its limit; texts are cut instead.
    ///
    /// The limit on messages is the sender's to check: it is not known here.
    pub(crate) fn new(mut frame: Frame) -> Result<Self, WireError> {
        let mut head = Writer::default();
        frame.write(&mut head)?;
        Ok(Self {
            head: head.finish(),
            descriptors: frame.descriptors(),
            payload: frame.take_payload(),
            sent: 0,
            done: false,
        })
    }

    /// The packet to send now: the same one until [`advance`](Self::advance) is called; `None` at the end.
    pub(crate) fn packet(&self) -> Option<Packet<'_>> {
        (!self.done).then(|| Packet {
            head: &self.head,
            body: &self.payload[self.sent..self.end()],
            descriptors: self.descriptors,
        })
    }

    /// The current packet has been sent: go to the next one.
    pub(crate) fn advance(&mut self) {
        self.sent = self.end();
        self.done = self.sent == self.payload.len();
        self.descriptors = 0;
        self.head.clear();
        self.head.push(kind::CHUNK);
    }

    /// Where the current packet's piece of the payload ends.
    fn end(&self) -> usize {
        self.payload.len().min(self.sent + PACKET_LIMIT - self.head.len())
    }
}

/// Turns the packets of one channel back into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    max_message: u64,
    partial: Option<Partial>,
}

/// A message of which some packets are still to come.
#[derive(Debug)]
struct Partial {
    letter: Letter,
    total: usize,
    handle: Option<HandleKind>,
    topic: Option<Box<str>>,
}

/// The descriptors that came with a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub(crate) count: usize,
    /// More were sent than could be opened here.
    pub(crate) lost: bool,
}

impl Given {
    /// An error unless these are as many as the packet must have, or would be, had none been lost.
    fn check(self, frame: &'static str, expected: usize) -> Result<(), WireError> {
        // With some lost, as many as expected means that more were sent.
        let fits = if self.lost { self.count < expected } else { self.count == expected };
        if fits {
            return Ok(());
        }
        Err(WireError::Descriptors { frame, got: self.count, expected })
    }
}

impl Decoder {
    /// A decoder that refuses messages whose payload is larger than `max_message` bytes.
    pub(crate) fn new(max_message: u64) -> Self {
        Self { max_message, partial: None }
    }

    /// Takes the next packet, knowing of the descriptors that came with it. `None` means that more
    /// packets of the same message must follow.
    pub(crate) fn push(&mut self, packet: &[u8], given: Given) -> Result<Option<Frame>, WireError> {
        bytes::within("a packet", packet.len(), PACKET_LIMIT)?;
        let (&kind, fields) = packet.split_first().ok_or(WireError::Empty)?;
        match (kind, self.partial.take()) {
            (kind::CHUNK, Some(partial)) => {
                given.check("a part of a message", 0)?;
                self.extend(partial, fields)
            }
            (kind::CHUNK, None) => Err(WireError::Stray),
            (_, Some(partial)) => Err(WireError::Interrupted { missing: partial.missing() }),
            (kind::MESSAGE, None) => self.begin(Reader::new(fields), given),
            (kind, None) => {
                let frame = Frame::read(kind, Reader::new(fields))?;
                given.check(frame.name(), frame.descriptors())?;
                self.check_letters(&frame)?;
                Ok(Some(frame))
            }
        }
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    fn check_letters(&self, frame: &Frame) -> Result<(), WireError> {
        let Frame::Messages { letters } = frame else { return Ok(()) };
        let longest = letters.iter().map(|letter| letter.payload.len() as u64).max();
        self.check_length(longest.unwrap_or_default()).map(drop)
    }

    fn check_length(&self, length: u64) -> Result<usize, WireError> {
        let too_long =
            WireError::TooLong { what: "a message", got: length, limit: self.max_message };
        match usize::try_from(length) {
            Ok(size) if length <= self.max_message => Ok(size),
            _ => Err(too_long),
        }
    }

    fn begin(&mut self, mut from: Reader<'_>, given: Given) -> Result<Option<Frame>, WireError> {
        let total = self.check_length(from.u64("a message's length")?)?;
        let type_name = from.text("a type name", NAME_LIMIT)?.into();
        let handle = read_handle(&mut from)?;
        let topic = from.option("a topic", |from| from.text("a topic", NAME_LIMIT))?;
        given.check("Message", handle.iter().len())?;
        let letter = Letter { type_name, payload: Vec::new() };
        let partial = Partial { letter, total, handle, topic: topic.map(Into::into) };
        match from.rest() {
            [] if total == 0 => Ok(Some(partial.finish())),
            chunk => self.extend(partial, chunk),
        }
    }

    fn extend(&mut self, mut partial: Partial, chunk: &[u8]) -> Result<Option<Frame>, WireError> {
        partial.append(chunk)?;
        if partial.missing() == 0 {
            return Ok(Some(partial.finish()));
        }
        self.partial = Some(partial);
        Ok(None)
    }
}

impl Partial {
    fn missing(&self) -> usize {
        self.total - self.letter.payload.len()
    }

    /// Grows with what arrives, by doubling, and never beyond the announced and permitted total.
    fn append(&mut self, chunk: &[u8]) -> Result<(), WireError> {
        let missing = self.missing();
        if chunk.is_empty() || chunk.len() > missing {
            return Err(WireError::Chunk { got: chunk.len(), missing });
        }
        let payload = &mut self.letter.payload;
        let length = payload.len();
        if payload.capacity() - length < chunk.len() {
            payload.reserve_exact(chunk.len().max(length).min(missing));
        }
        payload.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(self) -> Frame {
        Frame::Message { letter: self.letter, handle: self.handle, topic: self.topic }
    }
}
