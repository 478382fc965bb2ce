//! A promise that what was sent has left this side.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};

/// Resolves once, when everything that was sent before has left this side (Node: the callback of
/// `send`): it is with the kernel, or in the worker's queue where memory is shared. It does not say
/// that the other side has received it.
///
/// A future on any event loop, or [`wait`](Self::wait) on any thread. Dropping it changes nothing.
#[must_use = "a receipt says nothing until it is awaited"]
pub struct Receipt {
    slip: Arc<Slip>,
}

#[derive(Default)]
struct Slip {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stage: Stage,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    Sent,
    Lost,
}

impl Slip {
    /// The first word counts.
    fn settle(&self, stage: Stage) {
        let mut state = self.state.lock();
        if state.stage != Stage::Waiting {
            return;
        }
        state.stage = stage;
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The other half of a receipt: kept beside what is sent. Dropping it says that it never was.
pub(crate) struct Ticket {
    slip: Arc<Slip>,
}

impl Ticket {
    pub(super) fn sent(self) {
        self.slip.settle(Stage::Sent);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.slip.settle(Stage::Lost);
    }
}

/// A receipt and what settles it.
pub(super) fn receipt() -> (Ticket, Receipt) {
    let slip = Arc::<Slip>::default();
    (Ticket { slip: slip.clone() }, Receipt { slip })
}

impl Receipt {
    /// Of what has left already.
    pub(crate) fn sent() -> Self {
        let (ticket, receipt) = receipt();
        ticket.sent();
        receipt
    }

    /// Of what never can leave.
    pub(crate) fn lost() -> Self {
        receipt().1
    }

    /// Blocks this thread until it is settled, or for this long. Not on an event loop: there, await it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] when it never can leave; [`ErrorKind::Full`] when it has not left in time:
    /// the other side receives too slowly. It may still leave.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let deadline = clock::now().checked_add(limit);
        let mut state = self.slip.state.lock();
        while state.stage == Stage::Waiting {
            let Some(deadline) = deadline else {
                self.slip.changed.wait(&mut state);
                continue;
            };
            if self.slip.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        match state.stage {
            Stage::Waiting => Err(Error::new(
                ErrorKind::Full,
                format!("what was sent has not left within {limit:?}: it is received too slowly"),
            )),
            stage => settled(stage),
        }
    }
}

impl Future for Receipt {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.slip.state.lock();
        if state.stage == Stage::Waiting {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(settled(state.stage))
    }
}

fn settled(stage: Stage) -> Result<()> {
    match stage {
        Stage::Sent => Ok(()),
        Stage::Waiting | Stage::Lost => {
            Err(Error::new(ErrorKind::Closed, "the other side went before all was sent"))
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.slip.state.lock().stage {
            Stage::Waiting => "waiting",
            Stage::Sent => "sent",
            Stage::Lost => "lost",
        };
        write!(f, "Receipt({stage})")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_settled_once() {
        let (ticket, receipt) = super::receipt();
        assert_eq!(receipt.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Full);
        ticket.sent();
        assert!(receipt.wait(Duration::MAX).is_ok());
        let (ticket, receipt) = super::receipt();
        let waiter = std::thread::spawn(move || receipt.wait(Duration::from_secs(20)));
        drop(ticket);
        assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    }
}
