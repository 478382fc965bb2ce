//! A load driver: requests to an HTTP/1 server at a rate or as fast as it answers, and what came of each.
//!
//! ```no_run
//! use std::time::Duration;
//! use bimodal::load::{Arrival, Load, Until};
//!
//! # fn main() -> bimodal::Result<()> {
//! let outcome = Load::new("http://127.0.0.1:3000/")?
//!     .arrival(Arrival::Poisson { per_second: 2000.0 })
//!     .until(Until::Elapsed(Duration::from_secs(10)))
//!     .run()?;
//! println!("p99 {} ns, failed {}", outcome.latency().value_at_quantile(0.99), outcome.failures());
//! # Ok(())
//! # }
//! ```
//!
//! In a **closed** loop a connection sends when it has its answer: a server that stalls is asked less, and hides its
//! stall. In an **open** loop requests are due at times of their own. One that finds no free connection waits for
//! one, and its latency counts from when it was *due*: nothing is left out because the server was slow ("coordinated
//! omission", see the README of wrk2). The closed loop shows what a server can do at most, the open loop what its users
//! see.
//!
//! Each of a load's threads runs an event loop of its own, which is not the crate's: one read and one write per
//! request, no allocation once it is warm, a timer of the kernel's for what is due. They share nothing but a flag and
//! a few counters. [`usage`] reads what a process and its children used meanwhile.
//!
//! # Invariants
//!
//! * A request that was scheduled is completed or a failure of one kind, once each:
//!   `scheduled == completed + failures.total()`.
//! * What the server says is hostile: an answer that is malformed or too large is a failure, never a panic, and no
//!   answer makes the driver keep more than a bounded number of bytes per connection.
//! * Nothing lives longer than the [`Running`] load: no thread, no connection.

mod answer;
mod arrival;
mod driver;
mod exchange;
mod field;
mod outcome;
mod plan;
mod request;
mod running;
mod settings;
mod slot;
mod tally;
pub mod usage;

pub use self::arrival::{Arrival, Until};
pub use self::outcome::{Class, Failures, Histogram, Outcome, Tick};
pub use self::request::{Expect, Request};
pub use self::running::{Progress, Running};
pub use self::settings::{Load, Reuse};
