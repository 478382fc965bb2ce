//! The primary's side of listening: who listens where, and who is offered which connection.
//!
//! Owns every listening socket of the cluster, in both modes. Runs on the primary's loop. What a
//! policy needs is one of four doors:
//!
//! * `Handed`: the primary accepts and offers connections to workers (round robin, least connections);
//! * `Kernel`: the workers accept from the one socket themselves (shared, separate memory);
//! * `Queue`: the primary accepts into a queue that workers take from (shared, shared memory);
//! * `Slots`: one `SO_REUSEPORT` socket per slot; the primary accepts for a slot nobody serves.
//!
//! An offered connection counts against its worker's window until it is adopted or returned; a
//! returned one is offered again, before new ones are accepted. The primary accepts no more than the
//! windows can take, so the kernel's backlog is the queue behind them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::Socket;

use super::{
    AcceptQueue, Acceptor, Grant, Intake, ListenOptions, Offer, SharedQueue,
    socket::ListeningSocket,
};
use crate::{
    config::{Address, Memory, Scheduling},
    event_loop::{Sleep, sleep},
    id::{ConnectionId, ListenerId, Slot, WorkerId},
    schedule::{Candidate, LeastConnections, RoundRobin, Schedule},
};

/// Connections accepted from one socket before the loop looks at everything else again.
const ACCEPTS_PER_TURN: usize = 64;

/// How long a worker that gave a connection back is offered nothing: it may have run out of
/// descriptors, and offering at once would go round and round.
const REST: Duration = Duration::from_millis(50);

/// The settings that decide about connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) scheduling: Scheduling,
    /// Connections a worker may be offered before it has adopted one of them.
    pub(crate) window: usize,
    /// The bound of a queue in memory.
    pub(crate) queue: usize,
    pub(crate) memory: Memory,
    /// Whether a listening socket outlives its last worker, because another will come.
    pub(crate) keep_open: bool,
}

/// What was done with connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections offered or queued, each counted once.
    pub(crate) dispatched: u64,
    /// Offers that came back and were made to somebody else.
    pub(crate) again: u64,
}

/// All listeners of a cluster.
pub(crate) struct Dispatcher {
    rules: Rules,
    listeners: BTreeMap<ListenerId, Listening>,
    workers: HashMap<WorkerId, Listener>,
    next_listener: u32,
    next_connection: u64,
    counts: Counts,
}

/// A worker, as far as listening goes.
struct Listener {
    slot: Slot,
    /// How often it asked for port 0 at an address: the n-th of every worker meet.
    ordinals: HashMap<Address, u32>,
}

/// What makes two listens the same: the address, and for port 0 which one of the worker's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    address: Address,
    ordinal: u32,
}

struct Listening {
    key: Key,
    /// Where it really is.
    address: Address,
    options: ListenOptions,
    entrance: Entrance,
    members: Vec<Member>,
    policy: Box<dyn Schedule>,
    /// Accepted or returned, and not offered yet.
    parked: VecDeque<(ConnectionId, Socket)>,
    /// Runs while members rest.
    rest: Option<Pin<Box<Sleep>>>,
}

enum Entrance {
    Handed {
        acceptor: Acceptor,
        _socket: ListeningSocket,
    },
    Kernel {
        socket: ListeningSocket,
    },
    Queue {
        acceptor: Acceptor,
        queue: Arc<SharedQueue>,
        refused: Option<Socket>,
        _socket: ListeningSocket,
    },
    Slots {
        sockets: BTreeMap<Slot, SlotSocket>,
    },
}

struct SlotSocket {
    socket: ListeningSocket,
    /// Accepts while no worker of this slot does.
    cover: Option<Acceptor>,
}

/// A worker that listens here.
struct Member {
    worker: WorkerId,
    slot: Slot,
    /// It said that it is ready.
    ready: bool,
    accepting: bool,
    /// It gave a connection back a moment ago.
    resting: bool,
    in_flight: usize,
}

impl Dispatcher {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            listeners: BTreeMap::new(),
            workers: HashMap::new(),
            next_listener: 0,
            next_connection: 0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// A worker was started.
    pub(crate) fn join(&mut self, worker: WorkerId, slot: Slot) {
        self.workers.insert(worker, Listener { slot, ordinals: HashMap::new() });
    }

    /// A worker wants to listen. The first to ask binds; a failure is not remembered.
    pub(crate) fn listen(
        &mut self,
        worker: WorkerId,
        address: Address,
        options: ListenOptions,
    ) -> io::Result<Grant> {
        let asker = self.workers.get(&worker).ok_or(io::ErrorKind::NotConnected)?;
        let slot = asker.slot;
        let key = Key { ordinal: asker.ordinal(&address), address };
        let id = match self.listeners.iter().find(|(_, listening)| listening.key == key) {
            Some((id, _)) => *id,
            None => self.open(key.clone(), options, slot)?,
        };
        // The entry was found or made above.
        let Some(listening) = self.listeners.get_mut(&id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if listening.member(worker).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let intake = listening.intake(slot)?;
        listening.members.push(Member {
            worker,
            slot,
            ready: false,
            accepting: true,
            resting: false,
            in_flight: 0,
        });
        if let Some(asker) = self.workers.get_mut(&worker) {
            asker.listened(key);
        }
        Ok(Grant { listener: id, address: listening.address.clone(), intake })
    }

    /// A worker is ready for connections. Says where, the first time.
    pub(crate) fn ready(&mut self, worker: WorkerId, listener: ListenerId) -> Option<Address> {
        let listening = self.listeners.get_mut(&listener)?;
        let member = listening.member(worker)?;
        let first = !std::mem::replace(&mut member.ready, true);
        let slot = member.slot;
        listening.uncover(slot);
        first.then(|| listening.address.clone())
    }

    /// A worker pauses or resumes.
    pub(crate) fn set_accepting(
        &mut self,
        worker: WorkerId,
        listener: ListenerId,
        accepting: bool,
    ) {
        if let Some(member) = self.member(worker, listener) {
            member.accepting = accepting;
            member.resting &= !accepting;
        }
    }

    /// A worker adopted so many of the connections it was offered.
    pub(crate) fn adopted(&mut self, worker: WorkerId, listener: ListenerId, connections: usize) {
        if let Some(member) = self.member(worker, listener) {
            member.in_flight = member.in_flight.saturating_sub(connections);
        }
    }

    /// A worker will not adopt this connection: somebody else gets it.
    pub(crate) fn returned(&mut self, worker: WorkerId, offer: Offer) {
        self.adopted(worker, offer.listener, 1);
        if let Some(listening) = self.listeners.get_mut(&offer.listener) {
            self.counts.again += 1;
            listening.parked.push_back((offer.id, offer.socket));
            listening.let_rest(worker);
        }
    }

    /// A worker gets nothing more, from this listener or from all.
    pub(crate) fn withdraw(&mut self, worker: WorkerId, only: Option<ListenerId>) {
        let keep_open = self.rules.keep_open;
        self.listeners.retain(|id, listening| {
            if only.is_none_or(|only| only == *id) {
                listening.remove(worker);
            }
            keep_open || !listening.members.is_empty()
        });
    }

    /// A worker is gone.
    pub(crate) fn leave(&mut self, worker: WorkerId) {
        self.withdraw(worker, None);
        self.workers.remove(&worker);
    }

    /// Stops listening everywhere. Connections that were accepted and not offered are closed, except
    /// those in a queue: the workers that drain now still take them.
    pub(crate) fn close(&mut self) {
        for listening in self.listeners.values() {
            if let Entrance::Queue { queue, .. } = &listening.entrance {
                queue.close();
            }
        }
        self.listeners.clear();
    }

    /// Accepts what the workers can take and appends whom to offer it to. The task is woken when
    /// there may be more.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        open: &dyn Fn(Slot) -> u64,
        dealt: &mut Vec<(WorkerId, Offer)>,
    ) {
        let (window, next, counts) =
            (self.rules.window, &mut self.next_connection, &mut self.counts);
        let mut broken = Vec::new();
        for (id, listening) in &mut self.listeners {
            listening.poll_rest(cx);
            let mut number = || {
                *next += 1;
                counts.dispatched += 1;
                ConnectionId(*next)
            };
            if let Err(error) = listening.accept(cx, window, &mut number) {
                log::error!("{} cannot accept any more: {error}", listening.address);
                broken.push(*id);
            }
            listening.deal(*id, window, open, dealt);
        }
        for id in broken {
            self.listeners.remove(&id);
        }
    }

    fn open(&mut self, key: Key, options: ListenOptions, slot: Slot) -> io::Result<ListenerId> {
        let listening = Listening::open(key, options, slot, self.rules)?;
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        self.listeners.insert(id, listening);
        Ok(id)
    }

    fn member(&mut self, worker: WorkerId, listener: ListenerId) -> Option<&mut Member> {
        self.listeners.get_mut(&listener)?.member(worker)
    }
}

impl Listener {
    fn ordinal(&self, address: &Address) -> u32 {
        self.ordinals.get(address).copied().unwrap_or(0)
    }

    /// A listen that failed takes no ordinal.
    fn listened(&mut self, key: Key) {
        if key.address.tcp().is_some_and(|address| address.port() == 0) {
            self.ordinals.insert(key.address, key.ordinal + 1);
        }
    }
}

impl Listening {
    fn open(key: Key, options: ListenOptions, slot: Slot, rules: Rules) -> io::Result<Self> {
        let reuse_port = rules.scheduling == Scheduling::ReusePort && key.address.tcp().is_some();
        let socket = ListeningSocket::bind(&key.address, options, reuse_port)?;
        let address = socket.address()?;
        let entrance = match (rules.scheduling, rules.memory) {
            (Scheduling::ReusePort, _) if reuse_port => {
                let sockets = BTreeMap::from([(slot, SlotSocket { socket, cover: None })]);
                Entrance::Slots { sockets }
            }
            (Scheduling::RoundRobin | Scheduling::LeastConnections, _) => {
                Entrance::Handed { acceptor: Acceptor::new(socket.share()?)?, _socket: socket }
            }
            // A Unix socket cannot be bound twice: reuse-port shares it like the shared policy.
            (_, Memory::Separate) => Entrance::Kernel { socket },
            (_, Memory::Shared) => Entrance::Queue {
                acceptor: Acceptor::new(socket.share()?)?,
                queue: Arc::new(AcceptQueue::new(rules.queue)),
                refused: None,
                _socket: socket,
            },
        };
        let policy: Box<dyn Schedule> = match rules.scheduling {
            Scheduling::LeastConnections => Box::new(LeastConnections::default()),
            _ => Box::new(RoundRobin::default()),
        };
        Ok(Self {
            key,
            address,
            options,
            entrance,
            members: Vec::new(),
            policy,
            parked: VecDeque::new(),
            rest: None,
        })
    }

    /// How the worker in `slot` gets connections.
    fn intake(&mut self, slot: Slot) -> io::Result<Intake> {
        match &mut self.entrance {
            Entrance::Handed { .. } => Ok(Intake::Offers),
            Entrance::Kernel { socket } => Ok(Intake::Socket(socket.share()?)),
            Entrance::Queue { queue, .. } => Ok(Intake::Queue(queue.clone())),
            Entrance::Slots { sockets } => {
                let own = match sockets.entry(slot) {
                    Entry::Occupied(own) => own.into_mut(),
                    Entry::Vacant(place) => {
                        let socket = ListeningSocket::bind(&self.address, self.options, true)?;
                        place.insert(SlotSocket { socket, cover: None })
                    }
                };
                Ok(Intake::Socket(own.socket.share()?))
            }
        }
    }

    fn member(&mut self, worker: WorkerId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.worker == worker)
    }

    fn let_rest(&mut self, worker: WorkerId) {
        if let Some(member) = self.member(worker) {
            member.resting = true;
            self.rest.get_or_insert_with(|| Box::pin(sleep(REST)));
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) {
        if self.rest.as_mut().is_some_and(|rest| rest.as_mut().poll(cx).is_ready()) {
            self.rest = None;
            self.members.iter_mut().for_each(|member| member.resting = false);
        }
    }

    /// A worker serves this slot's socket again.
    fn uncover(&mut self, slot: Slot) {
        if let Entrance::Slots { sockets } = &mut self.entrance
            && let Some(own) = sockets.get_mut(&slot)
        {
            own.cover = None;
        }
    }

    fn remove(&mut self, worker: WorkerId) {
        let Some(at) = self.members.iter().position(|member| member.worker == worker) else {
            return;
        };
        let slot = self.members.remove(at).slot;
        let Entrance::Slots { sockets } = &mut self.entrance else { return };
        if let Some(own) = sockets.get_mut(&slot) {
            // The socket stays open: closing it would reset what waits in its backlog.
            match own.socket.share().and_then(Acceptor::new) {
                Ok(acceptor) => own.cover = Some(acceptor),
                Err(error) => log::warn!(
                    "nobody accepts for slot {} of {}: {error}",
                    slot.get(),
                    self.address
                ),
            }
        }
    }

    /// Accepts as much as the workers have room for.
    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        window: usize,
        number: &mut dyn FnMut() -> ConnectionId,
    ) -> io::Result<()> {
        let room = self.members.iter().map(|member| member.room(window)).sum::<usize>();
        let mut room = room.saturating_sub(self.parked.len());
        let parked = &mut self.parked;
        match &mut self.entrance {
            Entrance::Kernel { .. } => Ok(()),
            Entrance::Queue { acceptor, queue, refused, .. } => {
                fill(acceptor, queue, refused, cx, &mut || {
                    number();
                })
            }
            Entrance::Handed { acceptor, .. } => {
                accept_some(acceptor, cx, &mut room, &mut |socket| {
                    parked.push_back((number(), socket))
                })
            }
            Entrance::Slots { sockets } => {
                for acceptor in sockets.values_mut().filter_map(|own| own.cover.as_mut()) {
                    accept_some(acceptor, cx, &mut room, &mut |socket| {
                        parked.push_back((number(), socket))
                    })?;
                }
                Ok(())
            }
        }
    }

    /// Offers what is parked, as the policy says.
    fn deal(
        &mut self,
        listener: ListenerId,
        window: usize,
        open: &dyn Fn(Slot) -> u64,
        dealt: &mut Vec<(WorkerId, Offer)>,
    ) {
        if self.parked.is_empty() {
            return;
        }
        let mut candidates: Vec<_> =
            self.members.iter().map(|member| member.candidate(window, open)).collect();
        while !self.parked.is_empty() {
            let Some(index) = self.policy.pick(&candidates) else { return };
            let Some((id, socket)) = self.parked.pop_front() else { return };
            candidates[index].room -= 1;
            candidates[index].load += 1;
            self.members[index].in_flight += 1;
            dealt.push((self.members[index].worker, Offer { listener, id, socket }));
        }
    }
}

impl Member {
    fn room(&self, window: usize) -> usize {
        if self.ready && self.accepting && !self.resting {
            window.saturating_sub(self.in_flight)
        } else {
            0
        }
    }

    fn candidate(&self, window: usize, open: &dyn Fn(Slot) -> u64) -> Candidate {
        Candidate {
            worker: self.worker,
            load: open(self.slot) + self.in_flight as u64,
            room: self.room(window),
        }
    }
}

/// Accepts up to `room` connections, and no more than a turn's share.
fn accept_some(
    acceptor: &mut Acceptor,
    cx: &mut Context<'_>,
    room: &mut usize,
    take: &mut dyn FnMut(Socket),
) -> io::Result<()> {
    for _ in 0..(*room).min(ACCEPTS_PER_TURN) {
        match acceptor.poll_accept(cx) {
            Poll::Ready(accepted) => take(accepted?),
            Poll::Pending => return Ok(()),
        }
        *room -= 1;
    }
    if *room > 0 {
        cx.waker().wake_by_ref();
    }
    Ok(())
}

/// Accepts into the queue until it is full or there is nothing more. A full queue wakes the task.
fn fill(
    acceptor: &mut Acceptor,
    queue: &SharedQueue,
    refused: &mut Option<Socket>,
    cx: &mut Context<'_>,
    count: &mut dyn FnMut(),
) -> io::Result<()> {
    for _ in 0..ACCEPTS_PER_TURN {
        let socket = match refused.take() {
            Some(socket) => socket,
            None => match acceptor.poll_accept(cx) {
                Poll::Ready(accepted) => accepted?,
                Poll::Pending => return Ok(()),
            },
        };
        if let Err(socket) = queue.push(socket, cx.waker()) {
            *refused = Some(socket);
            return Ok(());
        }
        count();
    }
    cx.waker().wake_by_ref();
    Ok(())
}
