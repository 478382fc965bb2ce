//! Node's `cluster` for Rust, with the choice that Node never gave: the same program runs its workers as
//! **processes** or as **pinned threads**, by changing one value.
//!
//! ```no_run
//! use bimodal::{Cluster, Mode, Worker, http};
//!
//! fn main() -> bimodal::Result<()> {
//!     let mode = Mode::from_args_or_env()?; // --mode process|thread, or BIMODAL_MODE
//!     Cluster::builder(mode).run(|worker: Worker| async move {
//!         let listener = worker.listen("127.0.0.1:3000").await?;
//!         let id = worker.id();
//!         let hello = http::service_fn(move |_request| async move {
//!             http::text(format!("hello from worker {id}\n"))
//!         });
//!         http::serve(listener, hello).await
//!     })?;
//!     Ok(())
//! }
//! ```
//!
//! [`Builder::run`] supervises: it replaces workers that crash or hang, reloads on SIGHUP, drains on SIGTERM and
//! returns a [`Report`]; [`Builder::supervise`] does the same beside the program. [`Builder::launch`] is Node's
//! way: the program [forks](Cluster::fork), reads [events](Cluster::events) and decides.
//!
//! Whoever is new to all of this begins with the [guide], a course in chapters; whoever knows Node's `cluster` with
//! [Coming from Node](docs::coming_from_node), whoever knows PM2, gunicorn, puma or systemd with
//! [Supervision](docs::supervision).
//!
//! | | [`Mode::Process`] | [`Mode::Thread`] |
//! |---|---|---|
//! | panic in a handler | that worker ends, is replaced | same |
//! | abort, segfault, stack overflow, `exit` | that worker ends, is replaced | the program ends |
//! | endless loop in a handler | noticed, killed, replaced | noticed, left behind, reported, replaced |
//! | kill | SIGKILL, immediate | at the loop's next turn |
//! | memory, descriptors, directory, user | per worker | shared |
//! | memory declared with [`Builder::region`] | shared | shared |
//! | message | serialized | moved |
//! | [pool](Worker::pool) for heavy work | one per worker | one for all |
//! | connections | passed as descriptors, or accepted from one socket | moved, or accepted from one socket |

pub mod accept;
mod address;
mod backend;
mod builder;
mod channel;
pub mod clock;
mod cluster;
#[cfg(feature = "compare")]
pub mod compare;
mod config;
mod desk;
mod dice;
pub mod docs;
mod error;
mod event;
pub mod event_loop;
mod events;
mod fork;
pub mod guide;
mod handle;
#[cfg(feature = "http")]
pub mod http;
mod id;
#[cfg(feature = "compare")]
pub mod load;
mod message;
mod observers;
mod outside;
mod patience;
pub mod pool;
mod primary;
mod schedule;
mod setup;
mod shared;
mod signal;
mod status;
mod status_socket;
mod supervise;
mod supervision;
mod sys;
mod wire;
mod worker;
mod workers;

pub use accept::{Connection, ListenOptions, UdpOptions};
pub use builder::{Builder, Settings};
pub use channel::{Flow, Receipt};
pub use cluster::{Cluster, Report};
#[cfg(feature = "compare")]
pub use compare::compare;
pub use config::{Address, AddressKind, Mode, Scheduling, Stdio, Workers};
pub use error::{Error, ErrorKind, Result};
pub use event::{ExitStatus, State};
pub use events::{Event, Events};
pub use fork::Fork;
pub use handle::WorkerHandle;
pub use id::{ConnectionId, ListenerId, Slot, WorkerId};
pub use message::{Broadcast, Codec, Handle, Message, Port, SendError};
pub use setup::Setup;
pub use shared::store;
pub use shared::{
    Atom, CounterShard, Latency, SharedBuffer, SharedCell, SharedCounter, SharedGuard, SharedMutex,
    SharedView, SlotStats, StatsPage, Waitable, Waited, Waiting,
};
pub use signal::Signal;
pub use status::{Status, WorkerStatus};
pub use supervise::{
    Autoscale, Decision, Exhausted, Health, Intensity, Recycle, Restart, Rollout, Shutdown,
};
pub use supervision::Supervision;
pub use wire::HandleKind;
pub use worker::{Closing, Dropped, Listener, Outcome, UdpSocket, Worker};

/// The name of the cluster this process was started to be a worker of; `None` in a program that was
/// started in any other way.
///
/// For a `main` that has to do something else first, such as a test program: get to that cluster's
/// [`Builder::run`] or [`Builder::launch`] directly.
#[must_use]
pub fn worker_of() -> Option<&'static str> {
    backend::process::child::invited_to()
}
