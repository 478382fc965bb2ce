//! skeleton
#![deny(missing_docs)]
#![allow(dead_code)]

pub mod accept;
pub mod clock;
mod error;
pub mod event_loop;
#[cfg(feature = "http")]
pub mod http;
mod id;

pub use error::{Error, ErrorKind, Result};
pub use id::{ConnectionId, ListenerId, Slot, WorkerId};
