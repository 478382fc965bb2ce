//! What a mode must be able to do.
//!
//! A backend starts workers, carries commands and notes, ends workers and says when they are gone. It
//! decides nothing: no policy, no restart, no scheduling. It runs on the primary's event loop.
//!
//! Everything above is written against [`Backend`] and never asks for the mode; everything that is
//! inside a worker is written against [`Link`](crate::worker::Link).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
};

use self::cores::Cores;
use crate::{
    accept::Offer,
    config::Memory,
    error::Result,
    event::ExitStatus,
    id::{Slot, WorkerId},
    message::{Message, Packing},
    shared::{Regions, Sizes, StatsPage},
    signal::Signal,
    worker::{Command, Line, Note, Pace},
};

pub(crate) mod cores;
pub(crate) mod process;
pub(crate) mod thread;

/// A mode.
///
/// For each worker that was started, events come in this order: notes and returned offers, then
/// `Closed`, then `Exited`; the last two exactly once, both, and nothing after them. An offer that was
/// asked is either adopted (a note) or returned (an event), exactly once, whatever happens to the
/// worker.
pub(crate) trait Backend {
    /// Whether workers share this process's memory.
    fn memory(&self) -> Memory;

    /// The page on which workers count.
    fn stats(&self) -> &Arc<StatsPage>;

    /// The memory that workers share with the program.
    fn regions(&self) -> &Regions;

    /// Starts a worker and says in which process it runs.
    ///
    /// # Errors
    ///
    /// The operating system refused; nothing of the worker is left and no event will come.
    fn start(&mut self, spec: WorkerSpec) -> Result<u32>;

    /// Asks a worker to do something, in order with everything asked before.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed): there is no such worker. An offer is returned all the same.
    fn ask(&mut self, worker: WorkerId, command: Command) -> Result<()>;

    /// Does something to a worker, whether it cooperates or not.
    fn force(&mut self, worker: WorkerId, force: Force);

    /// Appends what has happened; whoever calls has acted on what the last call told. Ready when something has; otherwise the task is woken when it does.
    fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()>;
}

/// What a backend has to know of a worker.
#[derive(Debug)]
pub(crate) struct WorkerSpec {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Slot,
    /// Which of the machine's cores it should have, counted round and round.
    pub(crate) place: usize,
    pub(crate) generation: u32,
    /// The way to the worker, of which the backend takes its end. It subtracts what the worker's body
    /// took, and adds what the worker sends.
    pub(crate) line: Line,
    pub(crate) outfit: Outfit,
}

/// What a worker starts with. A backend takes what its workers can have of their own.
#[derive(Debug, Default)]
pub(crate) struct Outfit {
    /// The file to run.
    pub(crate) exec: PathBuf,
    /// The arguments, without the program's own name.
    pub(crate) args: Vec<OsString>,
    /// The whole environment.
    pub(crate) vars: BTreeMap<OsString, OsString>,
    /// The working directory; the primary's if absent.
    pub(crate) cwd: Option<PathBuf>,
    /// The user to become.
    pub(crate) uid: Option<u32>,
    /// The group to become.
    pub(crate) gid: Option<u32>,
    /// Whether to lead a process group of its own.
    pub(crate) own_group: bool,
    /// Standard input, output and error.
    pub(crate) stdio: [Stream; 3],
    /// Bytes of a thread's stack; the standard library's default if absent.
    pub(crate) stack_size: Option<usize>,
    /// The program's value for the worker.
    pub(crate) data: Option<Message>,
}

/// One standard stream of a worker.
#[derive(Debug, Default)]
pub(crate) enum Stream {
    /// The primary's.
    #[default]
    Inherit,
    Null,
    /// The worker's end of a pipe.
    Pipe(OwnedFd),
}

/// What can be done to a worker against its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// End it: a process at once, a thread at its loop's next turn.
    Kill,
    /// End it so that it leaves a trace (SIGABRT); what cannot be told from killing is the same.
    Abort,
    /// Send it a signal other than SIGKILL. To a thread only SIGTERM can be sent, as a request.
    Signal(Signal),
    /// Stop waiting for it: it counts as gone now. Its offers are returned.
    Abandon,
}

/// What happened to a worker.
#[derive(Debug)]
pub(crate) enum Event {
    /// It said something. Refused offers come as `Returned`.
    Note { worker: WorkerId, note: Note },
    /// An offer that it will not adopt.
    Returned { worker: WorkerId, offer: Offer },
    /// Its channel is closed: nothing more comes from it.
    Closed { worker: WorkerId },
    /// It is gone.
    Exited { worker: WorkerId, status: ExitStatus },
}

/// What every backend gives to the workers it starts.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// The cluster's name.
    pub(crate) name: Arc<str>,
    /// How messages are packed.
    pub(crate) packing: Packing,
    pub(crate) pace: Pace,
    /// The cores they are pinned to.
    pub(crate) cores: Cores,
    /// The regions that are shared with them.
    pub(crate) regions: Sizes,
}
