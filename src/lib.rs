//! skeleton
#![deny(missing_docs)]
#![allow(dead_code, unused_imports)]

pub mod accept;
pub mod clock;
mod error;
pub mod event_loop;
#[cfg(feature = "http")]
pub mod http;
mod id;
mod sys;
mod wire;

pub use error::{Error, ErrorKind, Result};
pub use id::{ConnectionId, ListenerId, Slot, WorkerId};
