//! What waits to be sent, in order. Pure: it moves no byte.

use std::{collections::VecDeque, os::fd::AsFd, sync::Arc};

use super::{Load, receipt::Ticket};
use crate::wire::{Frame, MAX_CONNECTIONS, MAX_IDS, Outgoing, PACKET_LIMIT, SMALL, WireError};

/// A descriptor to send. Its owner may keep it as well; the peer gets a duplicate.
pub(crate) type Descriptor = Arc<dyn AsFd + Send + Sync>;

/// Frames in the order in which they leave.
#[derive(Default)]
pub(super) struct Outbox {
    parcels: VecDeque<Parcel>,
    /// The messages among them.
    load: Load,
    /// Whether each frame stays as it is.
    unmerged: bool,
}

/// One frame.
enum Parcel {
    /// Not begun, and open for more of its kind.
    Growing { frame: Frame, size: usize, descriptors: Vec<Descriptor>, cargo: Cargo },
    /// As it is sent.
    Sealed(Sealed),
}

/// A frame as it is sent.
pub(super) struct Sealed {
    pub(super) outgoing: Outgoing,
    pub(super) descriptors: Vec<Descriptor>,
    cargo: Cargo,
}

/// The messages in a frame, and whoever waits until they have left.
#[derive(Default)]
struct Cargo {
    load: Load,
    tickets: Vec<Ticket>,
}

impl Outbox {
    /// One in which no two frames become one.
    pub(super) fn unmerged() -> Self {
        Self { unmerged: true, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// The messages that have not left yet.
    pub(super) fn load(&self) -> Load {
        self.load
    }

    /// Puts a frame behind all others.
    ///
    /// # Errors
    ///
    /// A name or a path in it is over its limit; nothing was put anywhere.
    pub(super) fn push(
        &mut self,
        frame: Frame,
        descriptors: Vec<Descriptor>,
    ) -> Result<(), WireError> {
        debug_assert_eq!(frame.descriptors(), descriptors.len());
        let parcel = Parcel::new(frame, descriptors)?;
        self.load.add(parcel.cargo().load);
        let rest = match self.parcels.back_mut() {
            Some(last) if !self.unmerged => last.absorb(parcel),
            _ => Some(parcel),
        };
        self.parcels.extend(rest);
        Ok(())
    }

    /// Puts a frame before all others, of which none has begun.
    pub(super) fn push_first(
        &mut self,
        frame: Frame,
        descriptors: Vec<Descriptor>,
    ) -> Result<(), WireError> {
        let sealed = Sealed::new(frame, descriptors, Cargo::default())?;
        self.parcels.push_front(Parcel::Sealed(sealed));
        Ok(())
    }

    /// Settles the ticket when all that waits has left. Gives it back when nothing waits.
    pub(super) fn mark(&mut self, ticket: Ticket) -> Option<Ticket> {
        let Some(last) = self.parcels.back_mut() else { return Some(ticket) };
        last.cargo_mut().tickets.push(ticket);
        None
    }

    /// The first frame, which takes in nothing more from now on.
    pub(super) fn first(&mut self) -> Result<Option<&mut Sealed>, WireError> {
        match self.parcels.pop_front() {
            Some(Parcel::Growing { frame, descriptors, cargo, .. }) => {
                let sealed = Sealed::new(frame, descriptors, cargo)?;
                self.parcels.push_front(Parcel::Sealed(sealed));
            }
            sealed => sealed.into_iter().for_each(|sealed| self.parcels.push_front(sealed)),
        }
        match self.parcels.front_mut() {
            Some(Parcel::Sealed(sealed)) => Ok(Some(sealed)),
            _ => Ok(None),
        }
    }

    /// The current packet of the first frame has been sent.
    pub(super) fn advance(&mut self) {
        let Some(Parcel::Sealed(sealed)) = self.parcels.front_mut() else { return };
        sealed.outgoing.advance();
        sealed.descriptors.clear();
        if sealed.outgoing.packet().is_some() {
            return;
        }
        if let Some(Parcel::Sealed(sealed)) = self.parcels.pop_front() {
            self.load.subtract(sealed.cargo.load);
            sealed.cargo.tickets.into_iter().for_each(Ticket::sent);
        }
    }
}

impl Parcel {
    fn new(frame: Frame, descriptors: Vec<Descriptor>) -> Result<Self, WireError> {
        let mut cargo = Cargo::default();
        let mut size = 0;
        let growing = match &frame {
            Frame::Connections { .. }
            | Frame::Adopted { .. }
            | Frame::Refused { .. }
            | Frame::Taken { .. } => true,
            Frame::Message { letter, handle, topic } => {
                cargo.load = Load { messages: 1, bytes: letter.payload.len() };
                // A byte is the packet's kind.
                size = 1 + letter.length();
                handle.is_none() && topic.is_none() && letter.payload.len() <= SMALL
            }
            _ => false,
        };
        if growing {
            return Ok(Self::Growing { frame, size, descriptors, cargo });
        }
        Sealed::new(frame, descriptors, cargo).map(Self::Sealed)
    }

    fn cargo(&self) -> &Cargo {
        match self {
            Self::Growing { cargo, .. } | Self::Sealed(Sealed { cargo, .. }) => cargo,
        }
    }

    fn cargo_mut(&mut self) -> &mut Cargo {
        match self {
            Self::Growing { cargo, .. } | Self::Sealed(Sealed { cargo, .. }) => cargo,
        }
    }

    /// Takes in the parcel that follows, if both can be one frame; otherwise gives it back.
    fn absorb(&mut self, next: Self) -> Option<Self> {
        let Self::Growing { frame, size, descriptors, cargo } = self else { return Some(next) };
        let Self::Growing { frame: more, size: its, descriptors: their, cargo: with } = next else {
            return Some(next);
        };
        // The kind's byte is there once.
        let together = (*size + its).saturating_sub(1);
        let more = if together <= PACKET_LIMIT { merge(frame, more) } else { Some(more) };
        if let Some(frame) = more {
            return Some(Self::Growing { frame, size: its, descriptors: their, cargo: with });
        }
        *size = together;
        descriptors.extend(their);
        cargo.load.add(with.load);
        cargo.tickets.extend(with.tickets);
        None
    }
}

impl Sealed {
    fn new(frame: Frame, descriptors: Vec<Descriptor>, cargo: Cargo) -> Result<Self, WireError> {
        Ok(Self { outgoing: Outgoing::new(frame)?, descriptors, cargo })
    }
}

/// Makes one frame of two of the same kind, within the limits; otherwise gives the second one back.
fn merge(frame: &mut Frame, next: Frame) -> Option<Frame> {
    match (frame, next) {
        (Frame::Messages { letters }, Frame::Message { letter, .. }) => letters.push(letter),
        (frame @ Frame::Message { .. }, Frame::Message { letter, .. }) => {
            let first = std::mem::replace(frame, Frame::Messages { letters: Vec::new() });
            if let (Frame::Messages { letters }, Frame::Message { letter: first, .. }) =
                (frame, first)
            {
                letters.extend([first, letter]);
            }
        }
        (
            Frame::Connections { listener, ids },
            Frame::Connections { listener: their, ids: more },
        ) if *listener == their && ids.len() + more.len() <= MAX_CONNECTIONS => ids.extend(more),
        (Frame::Adopted { ids }, Frame::Adopted { ids: more })
        | (Frame::Refused { ids }, Frame::Refused { ids: more })
            if ids.len() + more.len() <= MAX_IDS =>
        {
            ids.extend(more);
        }
        (Frame::Taken { messages, bytes }, Frame::Taken { messages: more, bytes: more_bytes }) => {
            *messages = messages.saturating_add(more);
            *bytes = bytes.saturating_add(more_bytes);
        }
        (_, next) => return Some(next),
    }
    None
}
