//! Memory that the primary and its workers share, in both modes.
//!
//! The stats page is the crate's own; regions are the program's. `README.md` beside this file tells what
//! holds for both.

mod buffer;
mod regions;
mod stats;

pub use buffer::SharedBuffer;
pub(crate) use regions::{Regions, Sizes, check};
pub(crate) use stats::SlotMeter;
pub use stats::{SlotStats, StatsPage};
