//! Memory that the primary and its workers share, in both modes.
//!
//! The stats page is the crate's own; regions are the program's, with what it lays into them. `README.md`
//! beside this file tells what holds for each.

mod atom;
mod buffer;
mod cell;
mod counter;
mod latency;
mod mutex;
mod region;
mod regions;
mod stats;
pub mod store;
mod view;
mod waiting;
mod word;

pub use atom::{Atom, Waitable};
pub use buffer::SharedBuffer;
pub use cell::SharedCell;
pub use counter::{CounterShard, SharedCounter};
pub use latency::Latency;
pub use mutex::{SharedGuard, SharedMutex};
pub(crate) use region::Parties;
use region::Region;
pub use region::Waited;
pub(crate) use regions::{Regions, Sizes, check};
pub(crate) use stats::SlotMeter;
pub use stats::{SlotStats, StatsPage};
pub use view::SharedView;
pub use waiting::Waiting;
