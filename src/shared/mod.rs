//! Memory that the primary and its workers share, in both modes.

mod stats;

pub(crate) use stats::SlotMeter;
pub use stats::{SlotStats, StatsPage};
