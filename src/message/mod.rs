//! Messages between the primary and its workers: any serde type, moved where memory is shared,
//! encoded where it is not, and a socket, a listener or a port beside it.
//!
//! Pure values: nothing here runs anywhere but on the thread that sends or takes.

mod broadcast;
mod codec;
mod handle;
mod port;
mod receive;
mod send;

use std::{any::Any, borrow::Cow, fmt};

use serde::{Serialize, de::DeserializeOwned};
use smallbox::{SmallBox, smallbox, space::S16};

pub use broadcast::Broadcast;
pub(crate) use broadcast::{MAX_NAMES, Members, Relay};
pub use codec::Codec;
pub use handle::Handle;
pub use port::Port;
pub(crate) use receive::receive;
pub use send::SendError;
pub(crate) use send::{post, send};

use crate::{
    config::Memory,
    error::{Error, ErrorKind, Result},
    wire::{HandleKind, Letter, NAME_LIMIT},
};

/// The default bound on one encoded message: 16 MiB.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// What a handle under way stands for: whoever is slow to take what it is sent runs out of descriptors long before it
/// runs out of memory. 512 of them fill the way.
const HANDLE_BYTES: usize = 256 << 10;

/// How values become messages in a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    pub(crate) memory: Memory,
    pub(crate) codec: Codec,
    /// The largest encoded value.
    pub(crate) max_bytes: usize,
}

/// One message, as the receiving side holds it (Node: the arguments of the `message` event).
pub struct Message {
    type_name: Cow<'static, str>,
    payload: Payload,
    attached: Attached,
}

enum Payload {
    /// The value itself.
    Moved(Moved),
    Encoded {
        bytes: Vec<u8>,
        codec: Codec,
    },
}

/// A value of any type, in the message itself up to 128 bytes: memory that one thread allocates and another one frees
/// costs more than all else about a message between threads.
type Moved = SmallBox<dyn Any + Send, S16>;

/// What came beside the value.
enum Attached {
    Nothing,
    Handle(Box<Handle>),
    /// It was sent, and this process could open no more descriptors.
    Lost(HandleKind),
    /// Nothing, but it was broadcast under this name.
    Topic(Box<Topic>),
}

/// The name of a broadcast, boxed as a whole: most messages have none.
struct Topic {
    name: Box<str>,
}

/// Where a value is once it was packed.
enum Kept<T> {
    Here(T),
    InMessage,
}

impl Message {
    /// Wraps a value for the way it has to travel. A `&'static str` travels as a `String`.
    fn pack<T>(value: T, packing: Packing) -> Result<(Self, Kept<T>), (Error, T)>
    where
        T: Serialize + Send + 'static,
    {
        if let Some(text) = (&value as &dyn Any).downcast_ref::<&'static str>() {
            return match Self::pack(String::from(*text), packing) {
                Ok((message, _)) => Ok((message, Kept::Here(value))),
                Err((error, _)) => Err((error, value)),
            };
        }
        let type_name = std::any::type_name::<T>();
        let message =
            |payload| Self { type_name: type_name.into(), payload, attached: Attached::Nothing };
        if packing.memory == Memory::Shared {
            return Ok((message(Payload::Moved(smallbox!(value))), Kept::InMessage));
        }
        let codec = packing.codec;
        let encoded = check_name(type_name).and_then(|()| codec.encode(&value, packing.max_bytes));
        match encoded {
            Ok(bytes) => Ok((message(Payload::Encoded { bytes, codec }), Kept::Here(value))),
            Err(error) => Err((error, value)),
        }
    }

    /// Wraps a value that goes by another way than a channel.
    pub(crate) fn packed<T: Serialize + Send + 'static>(
        value: T,
        packing: Packing,
    ) -> Result<Self> {
        Self::pack(value, packing).map(|(message, _)| message).map_err(|(error, _)| error)
    }

    /// A message that arrived in encoded form.
    pub(crate) fn encoded(letter: Letter, codec: Codec) -> Self {
        let payload = Payload::Encoded { bytes: letter.payload, codec };
        Self { type_name: letter.type_name, payload, attached: Attached::Nothing }
    }

    /// Under the name it was broadcast under, if it was.
    pub(crate) fn under(mut self, topic: Option<Box<str>>) -> Self {
        if let Some(topic) = topic {
            self.attached = Attached::Topic(Box::new(Topic { name: topic }));
        }
        self
    }

    /// With what came beside it.
    pub(crate) fn with_handle(mut self, handle: Option<Handle>) -> Self {
        self.attach(handle);
        self
    }

    /// Puts a handle beside it, if there is one.
    fn attach(&mut self, handle: Option<Handle>) {
        if let Some(handle) = handle {
            self.attached = Attached::Handle(Box::new(handle));
        }
    }

    /// With the knowledge that something came beside it which could not be received.
    pub(crate) fn with_lost_handle(mut self, kind: HandleKind) -> Self {
        self.attached = Attached::Lost(kind);
        self
    }

    /// The message as it is encoded, and what is to go beside it. A value that was moved is given back.
    pub(crate) fn into_letter(mut self) -> Result<(Letter, Option<Handle>), Self> {
        match self.payload {
            Payload::Encoded { bytes, .. } => {
                let handle = match self.attached {
                    Attached::Handle(handle) => Some(*handle),
                    Attached::Nothing | Attached::Lost(_) | Attached::Topic(_) => None,
                };
                Ok((Letter { type_name: self.type_name, payload: bytes }, handle))
            }
            Payload::Moved(value) => {
                self.payload = Payload::Moved(value);
                Err(self)
            }
        }
    }

    /// What this message counts for while it is under way: its bytes, none when it is moved, and what a handle beside
    /// it stands for.
    pub(crate) fn bytes(&self) -> usize {
        let value = match &self.payload {
            Payload::Encoded { bytes, .. } => bytes.len(),
            Payload::Moved(_) => 0,
        };
        match &self.attached {
            Attached::Handle(_) | Attached::Lost(_) => value.saturating_add(HANDLE_BYTES),
            Attached::Nothing | Attached::Topic(_) => value,
        }
    }

    /// The name of the type that was sent.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Whether the message holds a `T`.
    #[must_use]
    pub fn is<T: 'static>(&self) -> bool {
        match &self.payload {
            Payload::Moved(value) => value.is::<T>(),
            Payload::Encoded { .. } => self.type_name == std::any::type_name::<T>(),
        }
    }

    /// The value that was sent. A handle that was not [taken](Self::take_handle) is closed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] when another type was sent, naming both; [`ErrorKind::Codec`] when the
    /// bytes do not decode, as after a reload that changed the type's fields.
    pub fn get<T: DeserializeOwned + 'static>(self) -> Result<T> {
        self.check::<T>()?;
        match self.payload {
            Payload::Encoded { bytes, codec } => codec.decode(&bytes),
            Payload::Moved(value) => match value.downcast::<T>() {
                Ok(value) => Ok(value.into_inner()),
                Err(value) => Err(Self { payload: Payload::Moved(value), ..self }.mismatch::<T>()),
            },
        }
    }

    /// A copy of the value that was sent; the message keeps it, as for an observer that only sees
    /// `&Event`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn peek<T: DeserializeOwned + Clone + 'static>(&self) -> Result<T> {
        match &self.payload {
            Payload::Encoded { bytes, codec } if self.is::<T>() => codec.decode(bytes),
            Payload::Moved(value) => {
                value.downcast_ref::<T>().cloned().ok_or_else(|| self.mismatch::<T>())
            }
            Payload::Encoded { .. } => Err(self.mismatch::<T>()),
        }
    }

    /// What kind of socket, listener or port was sent with the message, if one was and it was not
    /// taken yet.
    #[must_use]
    pub fn handle_kind(&self) -> Option<HandleKind> {
        match &self.attached {
            Attached::Nothing | Attached::Topic(_) => None,
            Attached::Handle(handle) => Some(handle.kind()),
            Attached::Lost(kind) => Some(*kind),
        }
    }

    /// Takes what was sent with the message (Node: the `sendHandle` of the `message` event); `None`
    /// when nothing was, or when it was taken already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when something was sent and this process could open no more descriptors when
    /// it arrived: the sender's is closed, raise the limit (`ulimit -n`).
    pub fn take_handle(&mut self) -> Result<Option<Handle>> {
        match std::mem::replace(&mut self.attached, Attached::Nothing) {
            Attached::Nothing | Attached::Topic(_) => Ok(None),
            Attached::Handle(handle) => Ok(Some(*handle)),
            Attached::Lost(kind) => Err(Error::caused(
                ErrorKind::Io,
                format!("a {kind} came with the message and could not be received"),
                std::io::Error::from_raw_os_error(libc::EMFILE),
            )),
        }
    }

    /// An error that names both types, unless the message holds a `T`.
    pub(crate) fn check<T: 'static>(&self) -> Result<()> {
        if self.is::<T>() { Ok(()) } else { Err(self.mismatch::<T>()) }
    }

    fn mismatch<T>(&self) -> Error {
        let asked = std::any::type_name::<T>();
        Error::new(
            ErrorKind::Type,
            format!("the message holds a `{}`; a `{asked}` was asked for", self.type_name),
        )
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.handle_kind() {
            None => write!(f, "Message({})", self.type_name),
            Some(kind) => write!(f, "Message({}, with a {kind})", self.type_name),
        }
    }
}

fn check_name(type_name: &str) -> Result<()> {
    if type_name.len() <= NAME_LIMIT {
        return Ok(());
    }
    let length = type_name.len();
    Err(Error::new(
        ErrorKind::TooLarge,
        format!(
            "the type's name has {length} bytes, the limit is {NAME_LIMIT}; send a simpler type"
        ),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn all() -> [Packing; 3] {
        let packing = |memory, codec| Packing { memory, codec, max_bytes: MAX_BYTES };
        [
            packing(Memory::Shared, Codec::MessagePack),
            packing(Memory::Separate, Codec::MessagePack),
            packing(Memory::Separate, Codec::Json),
        ]
    }

    fn pack<T: Serialize + Send + 'static>(value: T, packing: Packing) -> Message {
        Message::pack(value, packing).map_err(|(error, _)| error).unwrap().0
    }

    #[test]
    fn a_value_arrives_as_it_was_sent() {
        for packing in all() {
            let message = pack(vec![1u64, 2, 3], packing);
            assert_eq!(message.peek::<Vec<u64>>().unwrap(), [1, 2, 3]);
            assert_eq!(message.get::<Vec<u64>>().unwrap(), [1, 2, 3]);
            assert_eq!(pack("shutdown", packing).get::<String>().unwrap(), "shutdown");
        }
    }

    #[test]
    fn a_value_of_any_size_and_alignment_is_moved_and_dropped_once() {
        #[derive(Clone, Default, Serialize, serde::Deserialize)]
        struct Held<T>(#[serde(skip)] Arc<()>, T);

        #[derive(Clone, Default, Serialize, serde::Deserialize)]
        #[repr(align(64))]
        struct Aligned(u8);

        fn moves<T: Clone + Default + Send + Serialize + DeserializeOwned + 'static>() {
            let held = Held::<T>::default();
            let owners = || Arc::strong_count(&held.0);
            let message = pack(held.clone(), all()[0]);
            assert_eq!(owners(), 2);
            let value = message.get::<Held<T>>().unwrap();
            assert_eq!((owners(), std::ptr::from_ref(&value).is_aligned()), (2, true));
            let message = pack(value, all()[0]);
            let error = message.get::<String>().unwrap_err();
            assert_eq!((error.kind(), owners()), (ErrorKind::Type, 1));
            drop(pack(held.clone(), all()[0]));
            assert_eq!(owners(), 1);
        }
        moves::<()>();
        moves::<[u8; 32]>();
        moves::<[[u64; 5]; 3]>();
        moves::<[[u64; 16]; 1]>();
        moves::<[[u64; 32]; 4]>();
        moves::<Aligned>();
    }

    #[test]
    fn a_mismatch_names_both_types() {
        for packing in all() {
            let peeked = pack(7u32, packing).peek::<String>().unwrap_err();
            for error in [peeked, pack(7u32, packing).get::<String>().unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Type);
                let text = error.to_string();
                assert!(text.contains("`u32`") && text.contains("String"), "{text}");
            }
        }
    }

    #[test]
    fn the_limit_is_named_and_the_value_given_back() {
        let packing = Packing { max_bytes: 10, ..all()[1] };
        let (error, value) = Message::pack(vec![0u64; 100], packing).map(drop).unwrap_err();
        assert_eq!((error.kind(), value.len()), (ErrorKind::TooLarge, 100));
        assert!(error.to_string().contains("limit of 10"), "{error}");
    }

    #[test]
    fn bytes_that_trail_are_refused() {
        for packing in &all()[1..] {
            let (mut letter, _) = pack(1u8, *packing).into_letter().unwrap();
            letter.payload.push(b'0' + 1);
            letter.payload.push(b'{');
            let error = Message::encoded(letter, packing.codec).get::<u8>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Codec);
        }
    }

    #[test]
    fn a_handle_that_was_lost_is_an_error_once() {
        let mut message = pack(1u8, all()[1]).with_lost_handle(HandleKind::UdpSocket);
        assert_eq!(message.handle_kind(), Some(HandleKind::UdpSocket));
        let error = message.take_handle().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert!(message.take_handle().unwrap().is_none());
        assert_eq!(message.get::<u8>().unwrap(), 1);
    }
}
