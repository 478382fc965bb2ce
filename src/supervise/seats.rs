//! The places to keep filled.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Seat, restart::Window};
use crate::id::WorkerId;

/// One place, and who is in it.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Who serves, or is to serve as soon as it is ready.
    pub(super) worker: Option<WorkerId>,
    /// Who takes over as soon as it is ready.
    pub(super) successor: Option<WorkerId>,
    /// When the next worker is to be started here, if one is wanted.
    pub(super) due: Option<Instant>,
    /// It was asked for and has not been started yet.
    pub(super) asked: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) window: Window,
}

impl Place {
    pub(super) fn wanted_at(now: Instant) -> Self {
        Self { due: Some(now), ..Self::default() }
    }

    /// A worker was started here.
    pub(super) fn seat(&mut self, worker: WorkerId) {
        self.due = None;
        self.asked = false;
        let vacancy = if self.worker.is_none() { &mut self.worker } else { &mut self.successor };
        *vacancy = Some(worker);
    }

    /// A worker is here no more; if it served, its successor does as soon as it can.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        if self.successor == Some(worker) {
            self.successor = None;
        } else if self.worker == Some(worker) {
            self.worker = self.successor.take();
        }
    }

    /// The successor is ready. Who served until now, if it did.
    pub(super) fn succeed(&mut self, worker: WorkerId) -> Option<WorkerId> {
        if self.successor != Some(worker) {
            return None;
        }
        self.successor = None;
        self.worker.replace(worker)
    }

    /// Whether this worker serves here while another is on its way to take over.
    pub(super) fn is_succeeded(&self, worker: WorkerId) -> bool {
        self.worker == Some(worker) && self.is_awaiting()
    }

    /// Whether somebody else is on the way.
    pub(super) fn is_awaiting(&self) -> bool {
        self.successor.is_some() || self.asked || self.due.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.worker.is_none() && !self.is_awaiting()
    }

    /// Counts a failure of a worker that had lived this long.
    pub(super) fn count_failure(&mut self, lived: Duration, healthy: Duration) {
        self.failures = if lived >= healthy { 1 } else { self.failures + 1 };
    }
}

/// All places. A place that nobody is to fill any more is removed.
#[derive(Debug, Default)]
pub(super) struct Seats {
    places: BTreeMap<Seat, Place>,
}

impl Seats {
    pub(super) fn get(&self, seat: Seat) -> Option<&Place> {
        self.places.get(&seat)
    }

    pub(super) fn get_mut(&mut self, seat: Seat) -> Option<&mut Place> {
        self.places.get_mut(&seat)
    }

    pub(super) fn remove(&mut self, seat: Seat) -> Option<Place> {
        self.places.remove(&seat)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Seat, &Place)> {
        self.places.iter().map(|(seat, place)| (*seat, place))
    }

    /// Adds a place with the lowest free number.
    pub(super) fn add(&mut self, now: Instant) {
        let free = (0..).map(Seat).find(|seat| !self.places.contains_key(seat));
        self.places.extend(free.map(|seat| (seat, Place::wanted_at(now))));
    }

    /// Nobody is to be started any more.
    pub(super) fn want_nobody(&mut self) {
        self.places.values_mut().for_each(|place| place.due = None);
        self.places.retain(|_, place| place.asked);
    }

    /// Who serves is not to be succeeded later by whoever was to be tried again.
    pub(super) fn forget_retries(&mut self) {
        let served = self.places.values_mut().filter(|place| place.worker.is_some());
        served.filter(|place| !place.asked).for_each(|place| place.due = None);
    }

    /// Takes away whoever was to succeed a worker that still serves.
    pub(super) fn give_up_successors(&mut self) -> Vec<WorkerId> {
        let served = self.places.values_mut().filter(|place| place.worker.is_some());
        served
            .filter_map(|place| {
                place.due = None;
                place.successor.take()
            })
            .collect()
    }

    /// Places whose worker serves while another is on its way.
    pub(super) fn being_replaced(&self) -> impl Iterator<Item = Seat> {
        let replaced = |place: &Place| place.worker.is_some() && place.is_awaiting();
        self.places.iter().filter(move |(_, place)| replaced(place)).map(|(seat, _)| *seat)
    }

    /// When the next worker is to be started.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.places.values().filter_map(|place| place.due).min()
    }

    /// A place whose worker is to be started now; it counts as asked for from here on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Seat> {
        let is_due = |place: &Place| place.due.is_some_and(|due| due <= now);
        let (seat, place) = self.places.iter_mut().find(|(_, place)| is_due(place))?;
        place.due = None;
        place.asked = true;
        Some(*seat)
    }

    /// Workers that were asked for and not started yet.
    pub(super) fn asked(&self) -> usize {
        self.places.values().filter(|place| place.asked).count()
    }
}
