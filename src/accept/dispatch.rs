//! The primary's side of listening: who listens where, and who is offered which connection.
//!
//! Owns every listening socket of the cluster, in both modes. Runs on the primary's loop. What a
//! policy needs is one of three doors:
//!
//! * `Handed`: the primary accepts and offers connections to workers (round robin, least connections);
//! * `Kernel`: the workers accept from the one socket themselves (shared);
//! * `Slots`: one `SO_REUSEPORT` socket per slot; the primary accepts for a slot nobody serves.
//!
//! An offered connection counts against its worker's window until it is adopted or returned; a
//! returned one is offered again, before new ones are accepted. The primary accepts no more than the
//! windows can take, so the kernel's backlog is the queue behind them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    sync::Arc,
    task::Context,
};

use rustix::io::Errno;

use super::{Grant, Handed, Offer, Wanted, listening::Listening};
use crate::{
    config::{Address, Scheduling},
    id::{ConnectionId, ListenerId, Slot, WorkerId},
};

/// Addresses on which one worker may listen at a time: each costs the primary a descriptor.
const ADDRESSES_PER_WORKER: usize = 1024;

/// Addresses that are kept open though no worker listens there: each costs the primary one or two descriptors.
pub(super) const DESERTED: usize = 256;

/// The settings that decide about connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) scheduling: Scheduling,
    /// Connections a worker may be offered before it has adopted one of them.
    pub(crate) window: usize,
    /// Whether a listening socket outlives its last worker, because another will come.
    pub(crate) keep_open: bool,
}

/// What was done with connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections offered, each counted once.
    pub(crate) dispatched: u64,
    /// Offers that came back and were made to somebody else.
    pub(crate) again: u64,
}

/// All listeners of a cluster.
pub(crate) struct Dispatcher {
    rules: Rules,
    listeners: BTreeMap<ListenerId, Listening>,
    workers: HashMap<WorkerId, Listener>,
    /// Offers that a worker got from a listener before it left that, and has not answered: they count against its windows
    /// everywhere, so that it gets no new ones by coming back.
    owed: HashMap<WorkerId, HashMap<ListenerId, usize>>,
    /// Workers that left a listener, counted.
    departures: u64,
    next_listener: u32,
    next_connection: u64,
    counts: Counts,
    failures: Vec<(Address, io::Error)>,
    looks: BTreeSet<(WorkerId, ListenerId)>,
    handed: Arc<Handed>,
}

/// A worker, as far as listening goes.
struct Listener {
    slot: Slot,
    /// It leaves the cluster: another one will want what it listened on.
    leaving: bool,
    /// On how many addresses it listens.
    addresses: usize,
    ordinals: HashMap<Name, Ordinals>,
}

/// How often a worker asked for the same: the n-th of every worker meet.
#[derive(Clone, Copy, Default)]
struct Ordinals {
    next: u32,
    /// Those it still listens on: with none left it begins anew.
    open: u32,
}

/// What a worker asks for. TCP and UDP are apart also where it is a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) address: Address,
    pub(super) datagram: bool,
}

/// What makes two listens the same: the name, and where one name stands for many which one of the
/// worker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: Name,
    pub(super) ordinal: u32,
    /// Whether the name stands for many.
    pub(super) counted: bool,
}

impl Dispatcher {
    pub(crate) fn new(rules: Rules, handed: Arc<Handed>) -> Self {
        Self {
            rules,
            listeners: BTreeMap::new(),
            workers: HashMap::new(),
            owed: HashMap::new(),
            departures: 0,
            next_listener: 0,
            next_connection: 0,
            counts: Counts::default(),
            failures: Vec::new(),
            looks: BTreeSet::new(),
            handed,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Connections that no worker has taken, as far as is known: they wait in queues here or in the
    /// kernel's.
    pub(crate) fn waiting(&self) -> usize {
        self.listeners.values().map(Listening::waiting).sum()
    }

    /// Where accepting has failed since somebody asked last.
    pub(crate) fn take_failures(&mut self) -> Vec<(Address, io::Error)> {
        std::mem::take(&mut self.failures)
    }

    /// Who is to look at the socket of which listener.
    pub(crate) fn take_looks(&mut self) -> BTreeSet<(WorkerId, ListenerId)> {
        std::mem::take(&mut self.looks)
    }

    /// A worker was started.
    pub(crate) fn join(&mut self, worker: WorkerId, slot: Slot) {
        let ordinals = HashMap::new();
        self.workers.insert(worker, Listener { slot, leaving: false, addresses: 0, ordinals });
    }

    /// A worker wants to listen. The first to ask binds; a failure is not remembered.
    pub(crate) fn listen(&mut self, worker: WorkerId, wanted: Wanted) -> io::Result<Grant> {
        let asker = self.workers.get_mut(&worker).ok_or(io::ErrorKind::NotConnected)?;
        if asker.addresses >= ADDRESSES_PER_WORKER {
            return Err(Errno::MFILE.into());
        }
        let (slot, key) = (asker.slot, asker.key(&wanted));
        let id = match self.find(&key) {
            Some(id) => id,
            None => self.open(key.clone(), &wanted, slot)?,
        };
        let granted = self.grant(id, worker, key, wanted);
        if granted.is_err() {
            self.close_deserted();
        }
        granted
    }

    /// Makes a worker a member of a listener that is there.
    fn grant(
        &mut self,
        id: ListenerId,
        worker: WorkerId,
        key: Key,
        wanted: Wanted,
    ) -> io::Result<Grant> {
        let (Some(listening), Some(asker)) =
            (self.listeners.get_mut(&id), self.workers.get_mut(&worker))
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let intake = listening.admit(worker, asker.slot, &key, wanted)?;
        asker.listens(&key);
        let (address, data) = (listening.address().clone(), listening.data().cloned());
        Ok(Grant { listener: id, address, intake, data })
    }

    /// Who listens on this, by the name that was asked for, or by the port that a name got.
    fn find(&self, key: &Key) -> Option<ListenerId> {
        let by = |matches: &dyn Fn(&Listening) -> bool| {
            self.listeners.iter().find(|(_, listening)| matches(listening)).map(|(id, _)| *id)
        };
        by(&|listening| *listening.key() == *key).or_else(|| {
            if key.counted {
                return None;
            }
            by(&|listening| *listening.address() == key.name.address)
        })
    }

    /// Closes listeners without a worker, but for as many as are kept for the workers to come: those that a worker left
    /// which goes on are closed before those of a worker that leaves or is gone, and those first that were left first.
    fn close_deserted(&mut self) {
        let kept = if self.rules.keep_open { DESERTED } else { 0 };
        let is_gone = |worker| self.workers.get(&worker).is_none_or(|asker| asker.leaving);
        let deserted = self.listeners.iter().filter(|(_, listening)| listening.is_deserted());
        let mut deserted: Vec<_> = deserted
            .map(|(id, listening)| {
                let last = listening.last_departure();
                (last.is_some_and(|(_, worker)| is_gone(worker)), last, *id)
            })
            .collect();
        deserted.sort_unstable();
        for (.., id) in &deserted[..deserted.len().saturating_sub(kept)] {
            self.listeners.remove(id);
        }
    }

    /// A worker is ready for connections. Says where, the first time.
    pub(crate) fn ready(&mut self, worker: WorkerId, listener: ListenerId) -> Option<Address> {
        self.listeners.get_mut(&listener)?.ready(worker)
    }

    /// A worker can adopt so many connections more; without a number, any number.
    pub(crate) fn set_room(&mut self, worker: WorkerId, listener: ListenerId, room: Option<u32>) {
        if let Some(listening) = self.listeners.get_mut(&listener) {
            listening.set_room(worker, room);
        }
    }

    /// A worker that accepts for itself does not for now, because of this error if there is one. Who receives datagrams has
    /// nothing of the kind to say: whatever comes wakes all.
    pub(crate) fn left(
        &mut self,
        worker: WorkerId,
        listener: ListenerId,
        error: Option<io::Error>,
    ) {
        let Some(listening) = self.listeners.get_mut(&listener) else { return };
        if !listening.is_member(worker) || listening.is_for_datagrams() {
            return;
        }
        self.failures.extend(error.map(|error| (listening.address().clone(), error)));
        self.pass_on(listener, Some(worker));
    }

    /// The connection that this worker, or one that is gone, was woken for may wait at the socket: the others look.
    fn pass_on(&mut self, listener: ListenerId, from: Option<WorkerId>) {
        let Some(listening) = self.listeners.get(&listener) else { return };
        let others = listening.lookers().into_iter().filter(|worker| Some(*worker) != from);
        self.looks.extend(others.map(|worker| (worker, listener)));
    }

    /// A worker adopted so many of the connections it was offered.
    pub(crate) fn adopted(&mut self, worker: WorkerId, listener: ListenerId, connections: usize) {
        let connections = self.pay(worker, listener, connections);
        if let Some(listening) = self.listeners.get_mut(&listener) {
            listening.adopted(worker, connections);
        }
    }

    /// A worker will not adopt this connection: somebody else gets it. With nobody left to come, it
    /// is closed.
    pub(crate) fn returned(&mut self, worker: WorkerId, offer: Offer) {
        let is_owed = self.pay(worker, offer.listener, 1) == 0;
        if let Some(listening) = self.listeners.get_mut(&offer.listener) {
            self.counts.again += 1;
            if !is_owed {
                listening.refused(worker);
            }
            listening.park(offer);
        }
    }

    /// Counts answers to offers from before the worker left this listener; gives how many are to later ones. Those from
    /// before come first.
    fn pay(&mut self, worker: WorkerId, listener: ListenerId, answers: usize) -> usize {
        let Some(owed) = self.owed.get_mut(&worker) else { return answers };
        let Some(offers) = owed.get_mut(&listener) else { return answers };
        let paid = answers.min(*offers);
        *offers -= paid;
        if *offers == 0 {
            owed.remove(&listener);
        }
        if owed.is_empty() {
            self.owed.remove(&worker);
        }
        answers - paid
    }

    /// A worker gets nothing more: from this listener, or from all, since it leaves the cluster.
    pub(crate) fn withdraw(&mut self, worker: WorkerId, only: Option<ListenerId>) {
        let mut asker = self.workers.get_mut(&worker);
        if let Some(asker) = &mut asker {
            asker.leaving |= only.is_none();
        }
        self.departures += 1;
        for (id, listening) in &mut self.listeners {
            if only.is_none_or(|only| only == *id)
                && let Some((asked, in_flight)) = listening.remove(worker, self.departures)
                && let Some(asker) = &mut asker
            {
                asker.left(&asked);
                if in_flight > 0 {
                    *self.owed.entry(worker).or_default().entry(*id).or_default() += in_flight;
                }
            }
        }
        self.close_deserted();
        let ids = self.listeners.keys().copied();
        let left: Vec<_> = ids.filter(|id| only.is_none_or(|only| only == *id)).collect();
        left.into_iter().for_each(|listener| self.pass_on(listener, None));
    }

    /// A worker is gone.
    pub(crate) fn leave(&mut self, worker: WorkerId) {
        self.withdraw(worker, None);
        self.workers.remove(&worker);
        self.owed.remove(&worker);
        debug_assert!(
            self.rules.keep_open || !self.workers.is_empty() || self.listeners.is_empty(),
            "a listener remains though no worker does"
        );
    }

    /// Stops listening everywhere. Connections that were accepted and not offered are closed.
    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }

    /// Everything that is listened on or was handed to this program, for the next program: letters, with
    /// the sockets that belong to each.
    pub(crate) fn letters(&self) -> io::Result<Vec<(Vec<u8>, Vec<OwnedFd>)>> {
        self.listeners.values().for_each(Listening::take_back);
        let mut letters = self.handed.letters()?;
        letters.extend(self.late_letters()?);
        Ok(letters)
    }

    /// The same of what was opened since.
    pub(crate) fn late_letters(&self) -> io::Result<Vec<(Vec<u8>, Vec<OwnedFd>)>> {
        let letters = self.listeners.values().map(Listening::letters);
        Ok(letters.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Takes in what the program before opened after it had handed over the rest.
    pub(crate) fn take_in_late(&mut self) {
        for listening in self.listeners.values_mut() {
            if let Some(late) = self.handed.late(listening.key()) {
                listening.take_in(late);
            }
        }
    }

    /// The next program has taken over: the files of sockets are its own.
    pub(crate) fn disown_files(&mut self) {
        self.listeners.values_mut().for_each(Listening::disown_files);
    }

    /// The program before has let go: the files of sockets are this one's.
    pub(crate) fn own_files(&mut self) {
        self.listeners.values_mut().for_each(Listening::own_files);
    }

    /// What was handed over.
    pub(crate) fn handed(&self) -> &Handed {
        &self.handed
    }

    /// Accepts what the workers can take and appends whom to offer it to. The task is woken when
    /// there may be more.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        open: &dyn Fn(Slot) -> u64,
        dealt: &mut Vec<(WorkerId, Offer)>,
    ) {
        let (most, next, counts) = (self.rules.window, &mut self.next_connection, &mut self.counts);
        let owed = &self.owed;
        let window = |worker| {
            let owed = owed.get(&worker).map_or(0, |owed| owed.values().sum());
            most.saturating_sub(owed)
        };
        let mut broken = Vec::new();
        for (id, listening) in &mut self.listeners {
            let mut number = || {
                *next += 1;
                counts.dispatched += 1;
                ConnectionId(*next)
            };
            if let Err(error) = listening.accept(cx, &window, &mut number) {
                log::error!("{} cannot accept any more: {error}", listening.address());
                self.failures.push((listening.address().clone(), error));
                broken.push(*id);
            }
            if let Some(error) = listening.take_failure() {
                self.failures.push((listening.address().clone(), error));
            }
            listening.deal(*id, &window, open, dealt);
        }
        for id in broken {
            self.listeners.remove(&id);
        }
    }

    fn open(&mut self, key: Key, wanted: &Wanted, slot: Slot) -> io::Result<ListenerId> {
        let listening = match self.handed.find(&key) {
            Some(found) => Listening::take_over(key, wanted, found, self.rules)?,
            None => Listening::open(key, wanted, slot, self.rules)?,
        };
        let id = ListenerId(self.next_listener);
        self.next_listener = self.next_listener.wrapping_add(1);
        self.listeners.insert(id, listening);
        Ok(id)
    }
}

impl Listener {
    /// A listen that fails takes no ordinal.
    fn key(&self, wanted: &Wanted) -> Key {
        let datagram = wanted.options.datagram;
        let name = Name { address: wanted.address.clone(), datagram };
        let counted = name.address.port() == Some(0) || (datagram && wanted.options.reuse_address);
        let ordinal =
            if counted { self.ordinals.get(&name).map_or(0, |taken| taken.next) } else { 0 };
        Key { name, ordinal, counted }
    }

    fn listens(&mut self, key: &Key) {
        self.addresses += 1;
        if key.counted {
            let taken = self.ordinals.entry(key.name.clone()).or_default();
            taken.next = key.ordinal + 1;
            taken.open += 1;
        }
    }

    fn left(&mut self, asked: &Key) {
        self.addresses = self.addresses.saturating_sub(1);
        if let Some(taken) = self.ordinals.get_mut(&asked.name).filter(|_| asked.counted) {
            taken.open = taken.open.saturating_sub(1);
            if taken.open == 0 {
                self.ordinals.remove(&asked.name);
            }
        }
    }
}
