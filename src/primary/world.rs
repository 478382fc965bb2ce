//! The primary and the world outside: what the service manager is told, the program before, the program
//! that takes over.

use std::{
    future::{Future as _, poll_fn},
    path::PathBuf,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::{Context, Poll, ready},
    time::Duration,
};

use super::Primary;
use crate::{
    backend::process::own_program,
    channel::RETRY,
    error::{Context as _, ErrorKind, Result},
    event_loop::{self, Sleep, sleep, timeout},
    outside::{Notifier, Outside, Predecessor, Successor, init},
    supervise::{BOOT, Decision},
};

/// How long workers that are ready may take to listen on the rest of their addresses: ready is who listens on
/// one.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the end waits for a service manager that has no room for what it has to know.
const FAREWELL: Duration = Duration::from_secs(2);

/// The supervised clusters of this program that have a primary.
static SUPERVISED: AtomicUsize = AtomicUsize::new(0);

/// Who there is outside.
pub(super) struct World {
    notifier: Notifier,
    /// The next sign of life.
    sign: Option<Pin<Box<Sleep>>>,
    /// When to tell the manager again what it had no room for.
    retry: Option<Pin<Box<Sleep>>>,
    predecessor: Option<Predecessor>,
    successor: Option<Successor>,
    /// The file of this program, by the name it had at the start.
    program: Result<PathBuf>,
    /// Every seat had a worker that was ready.
    was_ready: bool,
    /// When whoever is ready has listened on everything.
    settle: Option<Pin<Box<Sleep>>>,
    supervised: bool,
}

impl World {
    /// On the current loop.
    pub(super) fn new(outside: Outside, supervised: bool) -> Result<Self> {
        let predecessor = outside.legacy.map(Predecessor::new).transpose();
        let predecessor =
            predecessor.context(ErrorKind::Io, || "cannot watch the program before".into())?;
        SUPERVISED.fetch_add(usize::from(supervised), SeqCst);
        Ok(Self {
            sign: outside.notifier.interval().map(|interval| Box::pin(sleep(interval))),
            notifier: outside.notifier,
            retry: None,
            predecessor,
            successor: None,
            program: own_program(),
            was_ready: false,
            settle: None,
            supervised,
        })
    }

    /// Tells the service manager what was decided.
    pub(super) fn decided(&mut self, decision: &Decision) {
        match decision {
            Decision::Reload | Decision::Upgrade { .. } => self.notifier.reloading(),
            Decision::Reloaded | Decision::ReloadFailed { .. } => self.notifier.reloaded(),
            Decision::UpgradeFailed { .. } => self.notifier.reloaded(),
            Decision::Upgraded { pid } => self.notifier.hand_over(*pid),
            Decision::Stop => self.notifier.stopping(),
            _ => {}
        }
    }

    /// Gives a sign of life when it is due. The task is woken for the next.
    fn give_signs(&mut self, cx: &mut Context<'_>) {
        let (Some(sign), Some(interval)) = (&mut self.sign, self.notifier.interval()) else {
            return;
        };
        while sign.as_mut().poll(cx).is_ready() {
            self.notifier.sign_of_life();
            sign.as_mut().reset(event_loop::now() + interval);
        }
    }

    /// Ready when the service manager has been told everything; until then the task is woken now and then.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.notifier.has_untold() {
            let retry = self.retry.get_or_insert_with(|| Box::pin(sleep(RETRY)));
            ready!(retry.as_mut().poll(cx));
            self.retry = None;
            self.notifier.tell_again();
        }
        self.retry = None;
        Poll::Ready(())
    }

    /// The primary ends: it can tell nothing any more.
    pub(super) async fn farewell(&mut self) {
        if timeout(FAREWELL, poll_fn(|cx| self.poll_told(cx))).await.is_err() {
            log::warn!("the service manager takes nothing, and was not told everything");
        }
    }

    /// Whoever was to take over is not to any more.
    pub(super) fn forget_successor(&mut self) {
        self.successor = None;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        SUPERVISED.fetch_sub(usize::from(self.supervised), SeqCst);
    }
}

impl Primary {
    /// Says outside what has changed in here.
    pub(super) fn tell_outside(&mut self) {
        let ready = |entry: &&super::Entry| entry.seat.is_some() && entry.handle.is_ready();
        let ready = self.workers.values().filter(ready).count();
        if !self.world.was_ready && !self.stopping && ready > 0 && ready >= self.supervisor.target()
        {
            self.all_ready();
        }
        self.world.notifier.status(ready, self.report.restarts);
    }

    /// Every seat has a worker that is ready, for the first time.
    fn all_ready(&mut self) {
        self.world.was_ready = true;
        self.world.notifier.ready();
        self.world.settle = Some(Box::pin(sleep(SETTLE)));
    }

    /// Whether anything was done because of those outside. The task is woken when there is more.
    pub(super) fn look_outside(&mut self, cx: &mut Context<'_>) -> bool {
        self.world.give_signs(cx);
        // It is waited for at the end only.
        let _ = self.world.poll_told(cx);
        let before = self.look_back(cx);
        if let Some(successor) = &mut self.world.successor
            && let Poll::Ready(outcome) = successor.poll(cx)
        {
            self.succeeded(outcome);
            return true;
        }
        before
    }

    /// Looks after the program before, and after what was handed over; whether that one has gone.
    fn look_back(&mut self, cx: &mut Context<'_>) -> bool {
        let was_there = self.world.predecessor.is_some();
        let settle = self.world.settle.as_mut();
        let settled = settle.is_some_and(|settle| settle.as_mut().poll(cx).is_ready());
        if let Some(predecessor) = &mut self.world.predecessor {
            if self.world.was_ready && (settled || !self.dispatcher.handed().has_rest()) {
                predecessor.tell_ready();
            }
            if predecessor.poll_gone(cx, self.dispatcher.handed()).is_ready() {
                self.world.predecessor = None;
                self.dispatcher.own_files();
                if let Some(feed) = self.sink.feed() {
                    feed.take_over();
                }
                self.dispatcher.take_in_late();
            }
        }
        if settled && self.world.predecessor.is_none() {
            self.world.settle = None;
            self.leave_rest();
        }
        was_there && self.world.predecessor.is_none()
    }

    /// What was handed over and nobody has asked for, nobody will.
    fn leave_rest(&mut self) {
        let handed = self.dispatcher.handed();
        for unused in handed.unused() {
            log::warn!("nobody listens on descriptor {unused}, which was handed over");
        }
        for address in handed.close_rest() {
            log::warn!("{address} is closed: the program before listened there, this one does not");
        }
    }

    fn succeeded(&mut self, outcome: Result<(), String>) {
        let Some(successor) = self.world.successor.take() else { return };
        match outcome {
            Ok(()) => {
                let pid = successor.pid();
                if let Some(feed) = self.sink.feed() {
                    feed.disown();
                }
                successor.let_go(self.dispatcher.late_letters());
                self.dispatcher.disown_files();
                self.tell_program(Decision::Upgraded { pid });
                self.stop();
            }
            Err(cause) => self.tell_program(Decision::UpgradeFailed { cause }),
        }
    }

    /// Lets the program as it is on disk now take over; once at a time.
    pub(super) fn upgrade(&mut self) {
        if self.world.successor.is_some() || self.stopping {
            log::info!("an upgrade is under way, or the end: nothing else is begun");
            return;
        }
        match self.start_successor() {
            Ok(successor) => {
                let pid = successor.pid();
                self.world.successor = Some(successor);
                self.tell_program(Decision::Upgrade { pid });
            }
            Err(cause) => self.tell_program(Decision::UpgradeFailed { cause }),
        }
    }

    fn start_successor(&mut self) -> Result<Successor, String> {
        if init::ends_the_container() {
            return Err("process 1 ends with this program; replace the container".into());
        }
        if SUPERVISED.load(SeqCst) > 1 {
            return Err("this program has several supervised clusters".into());
        }
        if self.world.predecessor.is_some() {
            return Err("the program before has not let go yet".into());
        }
        let program = self.world.program.as_ref().map_err(ToString::to_string)?;
        let letters = self.dispatcher.letters().map_err(|error| error.to_string())?;
        let limit = self.settings.supervision.boot_timeout.unwrap_or(BOOT);
        Successor::start(program, self.world.notifier.variables(), letters, limit)
            .map_err(|error| format!("cannot run {}: {error}", program.display()))
    }
}
