//! The task behind an outlet: it waits until the kernel takes what was left.

use std::{
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{Fault, Outlet, outlet::Written};
use crate::event_loop::{Sleep, Source, sleep};

/// How long to wait when the kernel is short of something and will not say when that is over.
pub(crate) const RETRY: Duration = Duration::from_millis(10);

/// Flushes one outlet, from the event loop it was made on.
pub(super) struct Flusher {
    outlet: Outlet,
    retry: Option<Pin<Box<Sleep>>>,
}

impl Flusher {
    pub(super) fn new(outlet: Outlet) -> Self {
        Self { outlet, retry: None }
    }

    pub(super) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Sends what waits, by the end that `source` watches. Ready when nothing waits, because it has
    /// left or because it never can. From now on the task is woken when something is left.
    ///
    /// # Errors
    ///
    /// The channel cannot be used any more.
    pub(super) fn poll(
        &mut self,
        source: &Source<Arc<OwnedFd>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if !self.outlet.watch(cx.waker()) {
            return Poll::Ready(Ok(()));
        }
        if let Some(retry) = &mut self.retry {
            ready!(retry.as_mut().poll(cx));
            self.retry = None;
        }
        loop {
            if source.poll_writable(cx).is_pending() {
                source.watch_room()?;
                return Poll::Pending;
            }
            match self.outlet.flush()? {
                Written::All => return Poll::Ready(Ok(())),
                Written::Blocked => source.clear_writable(),
                Written::Short => return self.poll_retry(cx),
            }
        }
    }

    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let retry = self.retry.insert(Box::pin(sleep(RETRY)));
        match retry.as_mut().poll(cx) {
            Poll::Ready(()) => cx.waker().wake_by_ref(),
            Poll::Pending => {}
        }
        Poll::Pending
    }
}
