//! A worker in the primary's table.

use crate::{
    event::ExitStatus,
    handle::WorkerHandle,
    supervise::{Ending, Seat},
};

/// A worker that has not ended.
pub(super) struct Entry {
    pub(super) handle: WorkerHandle,
    /// Where the supervisor wanted it.
    pub(super) seat: Option<Seat>,
    /// What its body said when it ended.
    pub(super) finished: Option<Option<String>>,
    /// A signal from outside told it to leave: it is to be replaced.
    pub(super) told_to_leave: bool,
}

impl Entry {
    pub(super) fn new(handle: WorkerHandle, seat: Option<Seat>) -> Self {
        Self { handle, seat, finished: None, told_to_leave: false }
    }

    /// What its end means to the supervisor.
    pub(super) fn ending(&self, status: ExitStatus) -> Ending {
        let asked = self.handle.exited_after_disconnect() == Some(true);
        match (&self.finished, status) {
            (Some(Some(cause)), ExitStatus::Code(ExitStatus::PANIC)) => {
                Ending::Crashed(cause.clone())
            }
            (Some(Some(cause)), _) => Ending::Refused(cause.clone()),
            (Some(None), ExitStatus::Code(0)) if !self.told_to_leave => Ending::Done,
            _ if asked => Ending::Done,
            _ if self.told_to_leave => Ending::Crashed("a signal told it to leave".into()),
            (_, ExitStatus::Code(code)) if code != ExitStatus::PANIC => Ending::Code(code),
            _ => Ending::Crashed(status.to_string()),
        }
    }
}
