//! Sending a value: packed, checked, posted, or given back.

use std::{error::Error as StdError, fmt};

use serde::Serialize;
use smallbox::SmallBox;

use super::{Attached, Codec, Handle, Kept, Message, Packing, Payload};
use crate::{
    channel::{Flow, Load, Outlet, check_room},
    error::{Error, ErrorKind, Result},
};

/// Packs a value with what goes beside it, and posts it if there is room.
pub(crate) fn send<T: Serialize + Send + 'static>(
    value: T,
    handle: Option<Handle>,
    packing: Packing,
    load: Load,
    post: impl FnOnce(Message) -> Result<(), (Error, Message)>,
) -> Result<Flow, SendError<T>> {
    let (mut message, kept) = match Message::pack(value, packing) {
        Ok(packed) => packed,
        Err((error, value)) => return Err(SendError::new(error, value, handle)),
    };
    message.attach(handle);
    match check_room(load, message.bytes()) {
        Ok(flow) => match post(message) {
            Ok(()) => Ok(flow),
            Err((error, message)) => Err(SendError::recover(error, message, kept)),
        },
        Err(error) => Err(SendError::recover(error, message, kept)),
    }
}

/// Puts a message on a channel; `under_way` counts those that the other side has not taken.
pub(crate) fn post(
    mut message: Message,
    outlet: &Outlet,
    packing: Packing,
    under_way: usize,
) -> Result<(), (Error, Message)> {
    let topic = message.take_topic();
    let (letter, handle) = message.into_letter().map_err(|message| {
        let text = "a message for another process must be encoded; it was packed to be moved";
        (Error::new(ErrorKind::Protocol, text), message)
    })?;
    let handle = match handle.map(Handle::into_descriptor).transpose() {
        Ok(handle) => handle,
        Err((error, handle)) => return Err((error, Message::returned(Some(handle)))),
    };
    outlet.send_message(letter, handle, topic, under_way).map_err(|unsent| {
        // What was a handle a moment ago is one still.
        let handle = unsent.handle.map(|(kind, fd)| Handle::of(kind, fd, packing));
        (Error::new(ErrorKind::Closed, "the other side is gone"), Message::returned(handle))
    })
}

impl Message {
    /// What is left of an encoded message that was not taken: its value is with the sender.
    fn returned(handle: Option<Handle>) -> Self {
        let payload = Payload::Encoded { bytes: Vec::new(), codec: Codec::default() };
        Self { type_name: "".into(), payload, attached: Attached::Nothing }.with_handle(handle)
    }
}

/// Why something was not sent, and what was not: nothing of it has left, and everything comes back.
pub struct SendError<T> {
    inner: Box<Inner<T>>,
}

struct Inner<T> {
    error: Error,
    value: T,
    handle: Option<Handle>,
}

impl<T> SendError<T> {
    pub(crate) fn new(error: Error, value: T, handle: Option<Handle>) -> Self {
        Self { inner: Box::new(Inner { error, value, handle }) }
    }

    /// What went wrong: [`ErrorKind::Closed`], [`ErrorKind::Full`], [`ErrorKind::TooLarge`],
    /// [`ErrorKind::Codec`], or [`ErrorKind::Io`] for a handle.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.error.kind()
    }

    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.inner.error
    }

    /// What was not sent.
    #[must_use]
    pub fn into_value(self) -> (T, Option<Handle>) {
        (self.inner.value, self.inner.handle)
    }
}

impl<T: 'static> SendError<T> {
    fn recover(error: Error, message: Message, kept: Kept<T>) -> Self {
        let handle = match message.attached {
            Attached::Handle(handle) => Some(*handle),
            Attached::Nothing | Attached::Lost(_) | Attached::Topic(_) => None,
        };
        let value = match (kept, message.payload) {
            (Kept::Here(value), _) => Some(value),
            (Kept::InMessage, Payload::Moved(value)) => {
                value.downcast::<T>().ok().map(SmallBox::into_inner)
            }
            (Kept::InMessage, Payload::Encoded { .. }) => None,
        };
        #[expect(clippy::expect_used, reason = "a value is moved into its message as what it is")]
        Self::new(error, value.expect("the value is in its message"), handle)
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.error.fmt(f)
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.error.fmt(f)
    }
}

impl<T> StdError for SendError<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.error.source()
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(refused: SendError<T>) -> Self {
        refused.inner.error
    }
}
