//! Everything that a primary and a worker process can say to each other, and how each of it is written.

use std::mem;

use super::{
    MAX_CONNECTIONS, MAX_IDS, NAME_LIMIT, TEXT_LIMIT, WireError,
    bytes::{Reader, Writer},
    fields::{
        Address, Failure, Grant, HandleKind, Letter, ListenOptions, Region, read_data, read_ids,
        read_letters, read_regions, read_version, write_data, write_ids, write_regions,
    },
};

/// One logical message of the channel.
///
/// Who sends what: from the primary come `Welcome`, `Granted`, `Denied`, `Connections`, `Disconnect`, `Close` and
/// `Unready`, `Look`; both send `Message` and `Taken`; all others come from the worker. The codec does not check the
/// direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The primary's answer to `Hello`, with descriptors: the stats page, then each region.
    Welcome {
        /// Always [`VERSION`].
        version: u16,
        /// The worker's id.
        worker: u64,
        /// Its place: which row of the stats page is its own.
        slot: u32,
        /// How many rows the stats page has.
        slots: u32,
        /// How often the cluster has been reloaded.
        generation: u32,
        /// The cluster's name.
        name: String,
        /// The largest payload of a `Message`, in bytes.
        max_message: u64,
        /// How often to beat at least, in nanoseconds; 0: no matter how often.
        beat: u64,
        /// How long an idle loop looks again before it sleeps, in nanoseconds.
        idle_poll: u64,
        /// The core that the worker is pinned to, if it is.
        core: Option<u32>,
        /// Whether messages are JSON instead of MessagePack.
        json: bool,
        /// Whether a `Message` follows that is not for `recv`: the data the worker starts with.
        data: bool,
        /// The regions that the cluster shares, at most [`MAX_REGIONS`].
        regions: Vec<Region>,
    },
    /// A `Listen` that worked.
    Granted {
        /// The `request` of the `Listen`.
        request: u32,
        /// How connections or datagrams will come.
        grant: Grant,
        /// What the first who left any left for all.
        data: Option<Vec<u8>>,
    },
    /// A `Listen` that did not.
    Denied {
        /// The `request` of the `Listen`.
        request: u32,
        /// The error number, if the operating system refused.
        errno: Option<i32>,
        /// The cause; cut to [`TEXT_LIMIT`].
        text: String,
    },
    /// Connections for the worker to adopt or refuse, with one descriptor for each id.
    Connections {
        /// Where they were accepted.
        listener: u32,
        /// Their ids, 1 to [`MAX_CONNECTIONS`].
        ids: Vec<u64>,
    },
    /// Drain and leave.
    Disconnect,
    /// End now, in good order.
    Close,
    /// The cluster is about to stop.
    Unready,
    /// A connection may wait that no worker was woken for.
    Look {
        /// Where.
        listener: u32,
    },
    /// The first frame of a worker.
    Hello {
        /// Always [`VERSION`].
        version: u16,
        /// The id it was started with.
        worker: u64,
        /// Its process id.
        pid: u32,
    },
    /// The worker's body is about to run.
    Online,
    /// The worker says itself that it is ready.
    Ready,
    /// Please listen on this address for me.
    Listen {
        /// Chosen by the worker, repeated in the answer.
        request: u32,
        /// Where; port 0 asks for any.
        address: Address,
        /// How.
        options: ListenOptions,
        /// What the asker leaves for all who listen there, at most [`DATA_LIMIT`] bytes.
        data: Option<Vec<u8>>,
    },
    /// The worker is ready for connections of this listener.
    Listening {
        /// Which.
        listener: u32,
    },
    /// The worker wants no more connections of this listener.
    Unlisten {
        /// Which.
        listener: u32,
    },
    /// The worker waits no more for now, and a connection may wait that it was woken for.
    Left {
        /// Where.
        listener: u32,
        /// What accept(2) said, if it failed.
        errno: Option<i32>,
    },
    /// These connections are the worker's now.
    Adopted {
        /// Their ids, 1 to [`MAX_IDS`].
        ids: Vec<u64>,
    },
    /// These connections were not touched; give them to somebody else.
    Refused {
        /// Their ids, 1 to [`MAX_IDS`].
        ids: Vec<u64>,
    },
    /// How many connections the worker can adopt now, those under way to it included.
    Room {
        /// Where.
        listener: u32,
        /// Absent for any number.
        connections: Option<u32>,
    },
    /// The worker drains without having been asked to: withdraw it.
    Leaving {
        /// By its own wish; else because a signal told it to.
        voluntary: bool,
    },
    /// The worker's body has ended.
    Finished {
        /// Why it failed, or nothing if it did not.
        failure: Option<Failure>,
    },
    /// The receiver's user has taken these messages: as many more may be sent.
    Taken {
        /// How many.
        messages: u32,
        /// Their payloads together, in bytes.
        bytes: u64,
    },
    /// A message of the user's. The only frame that may take several packets.
    Message {
        /// The message.
        letter: Letter,
        /// What the descriptor is that comes with it, if one does.
        handle: Option<HandleKind>,
        /// The name it is broadcast under, if it is: for the members of that name.
        topic: Option<Box<str>>,
    },
    /// The worker has members of this broadcast name from now on.
    Join {
        /// The name.
        topic: String,
    },
    /// It has none any more.
    Leave {
        /// The name.
        topic: String,
    },
    /// Messages of the user's that were under way together, in order; small ones without descriptors.
    Messages {
        /// The messages, at least one.
        letters: Vec<Letter>,
    },
}

/// The first byte of a packet. Numbers are never reused; `Hello`, `Welcome` and their version come first in
/// every version of the protocol, so that versions can always be told apart.
pub(super) mod kind {
    pub(in crate::wire) const HELLO: u8 = 1;
    pub(in crate::wire) const WELCOME: u8 = 2;
    pub(in crate::wire) const GRANTED: u8 = 3;
    pub(in crate::wire) const DENIED: u8 = 4;
    pub(in crate::wire) const CONNECTIONS: u8 = 5;
    pub(in crate::wire) const DISCONNECT: u8 = 6;
    pub(in crate::wire) const ONLINE: u8 = 7;
    pub(in crate::wire) const LISTEN: u8 = 8;
    pub(in crate::wire) const LISTENING: u8 = 9;
    pub(in crate::wire) const UNLISTEN: u8 = 10;
    pub(in crate::wire) const ADOPTED: u8 = 11;
    pub(in crate::wire) const REFUSED: u8 = 12;
    pub(in crate::wire) const ROOM: u8 = 13;
    pub(in crate::wire) const LEAVING: u8 = 14;
    pub(in crate::wire) const FINISHED: u8 = 15;
    pub(in crate::wire) const MESSAGE: u8 = 16;
    /// More of the payload of the `MESSAGE` before.
    pub(in crate::wire) const CHUNK: u8 = 17;
    pub(in crate::wire) const TAKEN: u8 = 18;
    pub(in crate::wire) const MESSAGES: u8 = 19;
    pub(in crate::wire) const JOIN: u8 = 20;
    pub(in crate::wire) const LEAVE: u8 = 21;
    pub(in crate::wire) const CLOSE: u8 = 22;
    pub(in crate::wire) const UNREADY: u8 = 23;
    pub(in crate::wire) const READY: u8 = 24;
    pub(in crate::wire) const LOOK: u8 = 25;
    pub(in crate::wire) const LEFT: u8 = 26;
}

impl Frame {
    /// How many descriptors travel with this frame.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Welcome { regions, .. } => 1 + regions.len(),
            Self::Granted { grant: Grant::Socket { .. }, .. } => 1,
            Self::Connections { ids, .. } => ids.len(),
            Self::Message { handle, .. } => handle.iter().len(),
            _ => 0,
        }
    }

    /// The frame's name, for error texts.
    pub(crate) fn name(&self) -> &'static str {
        self.label().1
    }

    /// The frame's kind on the wire, and its name.
    fn label(&self) -> (u8, &'static str) {
        match self {
            Self::Welcome { .. } => (kind::WELCOME, "Welcome"),
            Self::Granted { .. } => (kind::GRANTED, "Granted"),
            Self::Denied { .. } => (kind::DENIED, "Denied"),
            Self::Connections { .. } => (kind::CONNECTIONS, "Connections"),
            Self::Disconnect => (kind::DISCONNECT, "Disconnect"),
            Self::Close => (kind::CLOSE, "Close"),
            Self::Unready => (kind::UNREADY, "Unready"),
            Self::Look { .. } => (kind::LOOK, "Look"),
            Self::Ready => (kind::READY, "Ready"),
            Self::Hello { .. } => (kind::HELLO, "Hello"),
            Self::Online => (kind::ONLINE, "Online"),
            Self::Listen { .. } => (kind::LISTEN, "Listen"),
            Self::Listening { .. } => (kind::LISTENING, "Listening"),
            Self::Unlisten { .. } => (kind::UNLISTEN, "Unlisten"),
            Self::Left { .. } => (kind::LEFT, "Left"),
            Self::Adopted { .. } => (kind::ADOPTED, "Adopted"),
            Self::Refused { .. } => (kind::REFUSED, "Refused"),
            Self::Room { .. } => (kind::ROOM, "Room"),
            Self::Leaving { .. } => (kind::LEAVING, "Leaving"),
            Self::Finished { .. } => (kind::FINISHED, "Finished"),
            Self::Taken { .. } => (kind::TAKEN, "Taken"),
            Self::Message { .. } => (kind::MESSAGE, "Message"),
            Self::Messages { .. } => (kind::MESSAGES, "Messages"),
            Self::Join { .. } => (kind::JOIN, "Join"),
            Self::Leave { .. } => (kind::LEAVE, "Leave"),
        }
    }

    /// Writes the kind and all fields but a message's payload, of which only the length is written.
    pub(super) fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        to.u8(self.label().0);
        match self {
            Self::Welcome {
                version,
                worker,
                slot,
                slots,
                generation,
                name,
                max_message,
                beat,
                idle_poll,
                core,
                json,
                data,
                regions,
            } => {
                to.u16(*version);
                to.u64(*worker);
                for number in [slot, slots, generation] {
                    to.u32(*number);
                }
                to.counted("the cluster's name", name.as_bytes(), NAME_LIMIT)?;
                to.u64(*max_message);
                to.u64(*beat);
                to.u64(*idle_poll);
                to.option(*core, Writer::u32);
                to.bool(*json);
                to.bool(*data);
                write_regions(to, regions)?;
            }
            Self::Granted { request, grant, data } => {
                to.u32(*request);
                grant.write(to)?;
                write_data(to, data.as_deref())?;
            }
            Self::Denied { request, errno, text } => {
                to.u32(*request);
                write_errno(to, *errno);
                to.text(text, TEXT_LIMIT);
            }
            Self::Connections { listener, ids } => {
                to.u32(*listener);
                write_ids(to, ids, MAX_CONNECTIONS)?;
            }
            Self::Hello { version, worker, pid } => {
                to.u16(*version);
                to.u64(*worker);
                to.u32(*pid);
            }
            Self::Listen { request, address, options, data } => {
                to.u32(*request);
                address.write(to)?;
                options.write(to);
                write_data(to, data.as_deref())?;
            }
            Self::Listening { listener }
            | Self::Unlisten { listener }
            | Self::Look { listener } => {
                to.u32(*listener);
            }
            Self::Left { listener, errno } => {
                to.u32(*listener);
                write_errno(to, *errno);
            }
            Self::Adopted { ids } | Self::Refused { ids } => write_ids(to, ids, MAX_IDS)?,
            Self::Room { listener, connections } => {
                to.u32(*listener);
                to.option(*connections, Writer::u32);
            }
            Self::Leaving { voluntary } => to.bool(*voluntary),
            Self::Finished { failure } => {
                to.option(failure.as_ref(), |to, failure| {
                    to.bool(failure.panicked);
                    to.text(&failure.text, TEXT_LIMIT);
                });
            }
            Self::Taken { messages, bytes } => {
                to.u32(*messages);
                to.u64(*bytes);
            }
            Self::Join { topic } | Self::Leave { topic } => {
                to.counted("a topic", topic.as_bytes(), NAME_LIMIT)?;
            }
            Self::Message { letter, handle, topic } => {
                to.u64(letter.payload.len() as u64);
                to.counted("a type name", letter.type_name.as_bytes(), NAME_LIMIT)?;
                to.u8(handle.map_or(0, HandleKind::number));
                to.bool(topic.is_some());
                if let Some(topic) = topic {
                    to.counted("a topic", topic.as_bytes(), NAME_LIMIT)?;
                }
            }
            Self::Messages { letters } => {
                letters.iter().try_for_each(|letter| letter.write(to))?;
            }
            Self::Disconnect | Self::Close | Self::Unready | Self::Online | Self::Ready => {}
        }
        Ok(())
    }

    /// Takes a message's payload out, if this is one: it is sent from where it is.
    pub(super) fn take_payload(&mut self) -> Vec<u8> {
        match self {
            Self::Message { letter, .. } => mem::take(&mut letter.payload),
            _ => Vec::new(),
        }
    }

    /// Reads the one packet of any frame but a message.
    pub(super) fn read(kind: u8, mut from: Reader<'_>) -> Result<Self, WireError> {
        let frame = Self::read_fields(kind, &mut from)?;
        from.finish()?;
        Ok(frame)
    }

    fn read_fields(kind: u8, from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match kind {
            kind::WELCOME => Self::Welcome {
                version: read_version(from)?,
                worker: from.u64("a worker's id")?,
                slot: from.u32("a slot")?,
                slots: from.u32("a number of slots")?,
                generation: from.u32("a generation")?,
                name: from.text("the cluster's name", NAME_LIMIT)?,
                max_message: from.u64("the message limit")?,
                beat: from.u64("the time of a beat")?,
                idle_poll: from.u64("the time before a sleep")?,
                core: from.option("the core", |from| from.u32("the core"))?,
                json: from.bool("the codec")?,
                data: from.bool("data")?,
                regions: read_regions(from)?,
            },
            kind::GRANTED => Self::Granted {
                request: from.u32("a request")?,
                grant: Grant::read(from)?,
                data: read_data(from)?,
            },
            kind::DENIED => Self::Denied {
                request: from.u32("a request")?,
                errno: read_errno(from)?,
                text: from.text("an error text", TEXT_LIMIT)?,
            },
            kind::CONNECTIONS => Self::Connections {
                listener: from.u32("a listener")?,
                ids: read_ids(from, MAX_CONNECTIONS)?,
            },
            kind::DISCONNECT => Self::Disconnect,
            kind::CLOSE => Self::Close,
            kind::UNREADY => Self::Unready,
            kind::LOOK => Self::Look { listener: from.u32("a listener")? },
            kind::READY => Self::Ready,
            kind::HELLO => Self::Hello {
                version: read_version(from)?,
                worker: from.u64("a worker's id")?,
                pid: from.u32("a process id")?,
            },
            kind::ONLINE => Self::Online,
            kind::LISTEN => Self::Listen {
                request: from.u32("a request")?,
                address: Address::read(from)?,
                options: ListenOptions::read(from)?,
                data: read_data(from)?,
            },
            kind::LISTENING => Self::Listening { listener: from.u32("a listener")? },
            kind::UNLISTEN => Self::Unlisten { listener: from.u32("a listener")? },
            kind::LEFT => {
                Self::Left { listener: from.u32("a listener")?, errno: read_errno(from)? }
            }
            kind::ADOPTED => Self::Adopted { ids: read_ids(from, MAX_IDS)? },
            kind::REFUSED => Self::Refused { ids: read_ids(from, MAX_IDS)? },
            kind::ROOM => Self::Room {
                listener: from.u32("a listener")?,
                connections: from.option("a room", |from| from.u32("a room"))?,
            },
            kind::LEAVING => Self::Leaving { voluntary: from.bool("voluntary")? },
            kind::FINISHED => Self::Finished {
                failure: from.option("a failure", |from| {
                    Ok(Failure {
                        panicked: from.bool("panicked")?,
                        text: from.text("a failure's text", TEXT_LIMIT)?,
                    })
                })?,
            },
            kind::TAKEN => Self::Taken {
                messages: from.u32("a number of messages")?,
                bytes: from.u64("a number of bytes")?,
            },
            kind::JOIN => Self::Join { topic: from.text("a topic", NAME_LIMIT)? },
            kind::LEAVE => Self::Leave { topic: from.text("a topic", NAME_LIMIT)? },
            kind::MESSAGES => Self::Messages { letters: read_letters(from)? },
            got => return Err(WireError::Kind { got }),
        })
    }
}

fn write_errno(to: &mut Writer, errno: Option<i32>) {
    to.option(errno, |to, errno| to.u32(errno.cast_unsigned()));
}

fn read_errno(from: &mut Reader<'_>) -> Result<Option<i32>, WireError> {
    let errno = from.option("an error number", |from| from.u32("an error number"))?;
    Ok(errno.map(u32::cast_signed))
}
