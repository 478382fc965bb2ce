//! The connections of one `serve`: their tasks, their number, and the word to drain.
//!
//! Lives on the loop's thread, shared by the accepting task and the connections' tasks. A
//! connection's place is taken before its task exists and given back when its task is dropped, so
//! the number is never behind. Nothing is borrowed while a task is dropped or woken.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use slab::Slab;

use super::{limits::Limits, outbox::Outbox};
use crate::event_loop::JoinHandle;

/// The most that one `read` moves.
const SCRATCH_BYTES: usize = 64 * 1024;

pub(super) struct Hub {
    pub(super) limits: Limits,
    /// Where every connection reads to: a turn of the loop reads one at a time.
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) outbox: Outbox,
    places: RefCell<Slab<Place>>,
    draining: Cell<bool>,
    /// Who waits for connections to end.
    watcher: Cell<Option<Waker>>,
}

#[derive(Default)]
struct Place {
    task: Option<JoinHandle<()>>,
    waker: Option<Waker>,
}

impl Hub {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            outbox: Outbox::default(),
            places: RefCell::default(),
            draining: Cell::new(false),
            watcher: Cell::new(None),
        }
    }

    /// Takes a place for a connection.
    pub(super) fn enter(self: &Rc<Self>) -> Seat {
        let key = self.places.borrow_mut().insert(Place::default());
        Seat { hub: Rc::clone(self), key }
    }

    /// Remembers the task at `key`, to cancel it with the server.
    pub(super) fn keep(&self, key: usize, task: JoinHandle<()>) {
        match self.places.borrow_mut().get_mut(key) {
            Some(place) => place.task = Some(task),
            None => task.detach(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.limits.max_connections.is_some_and(|max| self.places.borrow().len() >= max)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Tells every connection to finish.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        let wakers: Vec<Waker> =
            self.places.borrow().iter().filter_map(|(_, place)| place.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Drops every connection's task.
    pub(super) fn cancel(&self) {
        let tasks: Vec<JoinHandle<()>> = self
            .places
            .borrow_mut()
            .iter_mut()
            .filter_map(|(_, place)| place.task.take())
            .collect();
        drop(tasks);
        // What waits holds its connection, and that holds this.
        self.outbox.send();
    }

    /// Wakes the caller when the next connection ends.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.watcher.set(Some(cx.waker().clone()));
    }

    /// Until no connection is left.
    pub(super) async fn emptied(&self) {
        poll_fn(|cx| {
            if self.places.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.watch(cx);
            Poll::Pending
        })
        .await;
    }
}

/// A connection's place in the hub, given back when dropped.
pub(super) struct Seat {
    hub: Rc<Hub>,
    pub(super) key: usize,
}

impl Seat {
    /// Whom to wake when the hub drains.
    pub(super) fn set_waker(&self, waker: Waker) {
        if let Some(place) = self.hub.places.borrow_mut().get_mut(self.key) {
            place.waker = Some(waker);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = self.hub.places.borrow_mut().try_remove(self.key);
        if let Some(task) = place.and_then(|place| place.task) {
            // It is the task that drops its seat: there is nothing left to cancel.
            task.detach();
        }
        if let Some(watcher) = self.hub.watcher.take() {
            watcher.wake();
        }
    }
}
