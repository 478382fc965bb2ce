//! Where packets become frames. Belongs to whoever receives; runs on that thread.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::Fault;
use crate::{
    sys::channel::{Received, receive_packet},
    wire::{Decoder, Frame, Given, PACKET_LIMIT},
};

/// What one receive brought.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A frame, with as many descriptors as it must have.
    Frame(Frame, Vec<OwnedFd>),
    /// A frame whose descriptors did not arrive: this process can open no more.
    Stripped(Frame),
    /// The peer has closed its end.
    End,
}

/// The way in of one end of a channel.
pub(crate) struct Inbox {
    decoder: Decoder,
    buffer: Box<[u8]>,
    /// Those of the message that has begun.
    descriptors: Vec<OwnedFd>,
    stripped: bool,
}

impl Inbox {
    /// Receives messages of up to this many bytes.
    pub(crate) fn new(max_message: u64) -> Self {
        Self {
            decoder: Decoder::new(max_message),
            buffer: vec![0; PACKET_LIMIT].into(),
            descriptors: Vec::new(),
            stripped: false,
        }
    }

    /// Receives messages of up to this many bytes from now on.
    pub(crate) fn allow_messages(&mut self, max_bytes: u64) {
        self.decoder = Decoder::new(max_bytes);
    }

    /// Whether a message has begun to arrive and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        self.decoder.is_partial()
    }

    pub(super) fn receive(&mut self, end: BorrowedFd<'_>) -> io::Result<Option<Received>> {
        receive_packet(end, &mut self.buffer)
    }

    /// The next frame that is already here, if one is. At most `budget` packets are received, and
    /// subtracted from it.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol or the channel failed: nothing that follows can be trusted.
    pub(crate) fn receive_now(
        &mut self,
        end: &OwnedFd,
        budget: &mut usize,
    ) -> Result<Option<Incoming>, Fault> {
        while *budget > 0 {
            *budget -= 1;
            let received = match self.receive(end.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                received => received?,
            };
            if let Some(incoming) = self.decode(received)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// `None`: more packets of the same message must follow.
    pub(super) fn decode(&mut self, received: Option<Received>) -> Result<Option<Incoming>, Fault> {
        let Some(received) = received else { return Ok(Some(Incoming::End)) };
        if received.truncated {
            return Err(Fault::Oversized);
        }
        let packet = &self.buffer[..received.length];
        let (count, lost) = (received.descriptors.len(), received.descriptors_lost);
        let frame = self.decoder.push(packet, Given { count, lost })?;
        self.descriptors.extend(received.descriptors);
        // What the frame says is needed all the same: its sender waits for an answer.
        self.stripped |= lost;
        let Some(frame) = frame else { return Ok(None) };
        let descriptors = std::mem::take(&mut self.descriptors);
        Ok(Some(match std::mem::take(&mut self.stripped) {
            true => Incoming::Stripped(frame),
            false => Incoming::Frame(frame, descriptors),
        }))
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}
