//! What handles ask the primary for, and how they reach it.

use std::{fmt, sync::Arc};

use crate::{
    backend::Outfit,
    builder::Settings,
    channel::{Pressure, check_room},
    error::{Error, ErrorKind, Result},
    event_loop::Postbox,
    handle::WorkerHandle,
    id::WorkerId,
    message::{Message, Packing, Relay},
    shared::StatsPage,
    signal::Signal,
};

/// What handles ask the primary for.
#[derive(Debug)]
pub(crate) enum Request {
    /// These settings are in force.
    Setup(Arc<Settings>),
    Fork(WorkerHandle, Box<Outfit>),
    /// Pass on what the program has posted.
    Broadcast(Message),
    Disconnect(WorkerId),
    DisconnectAll,
    Kill(WorkerId),
    Signal(WorkerId, Signal),
    /// Keep so many workers running.
    Scale(usize),
    /// Replace every worker.
    Reload,
    /// Let the program as it is on disk now take over.
    Upgrade,
    /// End the cluster: drain, then kill.
    Stop,
    /// End the cluster now.
    StopNow,
}

/// How a handle reaches the primary and packs what it sends.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) requests: Postbox<Request>,
    pub(crate) packing: Packing,
    pub(crate) stats: Arc<StatsPage>,
    /// What the program has broadcast and the primary has not passed on.
    pub(crate) posted: Arc<Pressure>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("packing", &self.packing).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn request(&self, request: Request) -> Result<()> {
        self.requests
            .post(request)
            .map_err(|_| Error::new(ErrorKind::Closed, "the cluster has ended"))
    }
}

/// From the program's members of broadcasts to those in workers.
impl Relay for Desk {
    fn join(&self, _: &str) -> Result<()> {
        // The primary sees the program's members.
        Ok(())
    }

    fn leave(&self, _: &str) {}

    fn pass(&self, message: Message) -> Result<()> {
        let bytes = message.bytes();
        // What the flow would say is for whoever can wait.
        let _ = check_room(self.posted.load(), bytes)?;
        self.posted.add(bytes);
        self.request(Request::Broadcast(message))
    }
}
