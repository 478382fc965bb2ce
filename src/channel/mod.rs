//! Frames and descriptors over a packet socket pair, in order.
//!
//! The way out is an [`Outlet`]: an outbox and the descriptor behind one lock, so that any thread may
//! send without asking whoever reads. What the kernel does not take at once is left to the flusher,
//! the task that was told to look after this outlet: a [`Channel`] on its event loop, or the
//! [`courier`] for an end that is on none. The way in is an [`Inbox`] and belongs to one owner.
//!
//! What is pushed leaves in that order. Frames of one kind that follow each other in the outbox become
//! one frame, so that a turn that offers or adopts many connections costs one packet, and messages
//! that are sent faster than they are taken share packets. Nothing is bounded here: whoever sends
//! looks at the [`Load`] first.
//!
//! An outlet whose peer is gone takes nothing more, but what the peer had sent before is still
//! received.

mod courier;
mod end;
mod flusher;
mod inbox;
mod load;
mod outbox;
mod outlet;
mod receipt;

use std::io;

pub(crate) use end::Channel;
pub(crate) use flusher::RETRY;
pub(crate) use inbox::{Inbox, Incoming};
pub use load::Flow;
pub(crate) use load::{Credit, Load, Pressure, check_room};
pub(crate) use outbox::Descriptor;
pub(crate) use outlet::Outlet;
pub use receipt::Receipt;

use crate::wire::{PACKET_LIMIT, WireError};

/// Why a channel cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the channel failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    #[error("the peer broke the protocol: a packet is larger than {PACKET_LIMIT} bytes")]
    Oversized,
}
