//! skeleton
#![deny(missing_docs)]
#![allow(dead_code, unused_imports)]

pub mod clock;
mod error;
mod id;
mod sys;
mod wire;

pub use error::{Error, ErrorKind, Result};
pub use id::{ConnectionId, ListenerId, Slot, WorkerId};
