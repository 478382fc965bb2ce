//! From frames to messages.

use std::os::fd::OwnedFd;

use super::{Handle, Message, Packing};
use crate::{
    error::{Error, ErrorKind, Result},
    wire::{Frame, HandleKind, Letter},
};

/// The messages in a frame, in order. `stripped` says that its descriptor could not be received.
///
/// # Errors
///
/// The frame holds no message, or its descriptor is not what the frame says: the peer breaks the
/// protocol.
pub(crate) fn receive(
    frame: Frame,
    descriptors: Vec<OwnedFd>,
    stripped: bool,
    packing: Packing,
) -> Result<Vec<Message>> {
    match frame {
        Frame::Message { letter, handle, topic } => {
            let message = one(letter, handle, descriptors, stripped, packing)?;
            Ok(vec![message.under(topic)])
        }
        Frame::Messages { letters } => {
            let messages = letters.into_iter();
            Ok(messages.map(|letter| Message::encoded(letter, packing.codec)).collect())
        }
        frame => {
            Err(Error::new(ErrorKind::Protocol, format!("a {} holds no message", frame.name())))
        }
    }
}

fn one(
    letter: Letter,
    handle: Option<HandleKind>,
    descriptors: Vec<OwnedFd>,
    stripped: bool,
    packing: Packing,
) -> Result<Message> {
    let message = Message::encoded(letter, packing.codec);
    let Some(kind) = handle else { return Ok(message) };
    if stripped {
        return Ok(message.with_lost_handle(kind));
    }
    let descriptor = descriptors.into_iter().next();
    let handle =
        descriptor.map(|descriptor| Handle::received(kind, descriptor, packing)).transpose()?;
    Ok(message.with_handle(handle))
}
