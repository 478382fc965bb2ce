//! What handles ask the primary for, and how they reach it.

use std::{fmt, sync::Arc};

use crate::{
    backend::Outfit,
    builder::Settings,
    error::{Error, ErrorKind, Result},
    event_loop::Postbox,
    handle::WorkerHandle,
    id::WorkerId,
    message::Packing,
    shared::StatsPage,
    signal::Signal,
};

/// What handles ask the primary for.
#[derive(Debug)]
pub(crate) enum Request {
    /// These settings are in force.
    Setup(Arc<Settings>),
    Fork(WorkerHandle, Box<Outfit>),
    Disconnect(WorkerId),
    DisconnectAll,
    Kill(WorkerId),
    Signal(WorkerId, Signal),
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
