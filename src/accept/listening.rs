//! One address that is listened on: its sockets, the workers that share it, and what waits for them.
//!
//! Part of the dispatcher, on the primary's loop. The doors of the policies are told in `dispatch`.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    future::Future as _,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::io::Errno;
use socket2::Socket;

use super::{
    Acceptor, Intake, ListeningSocket, Offer, SocketOptions, Wanted,
    dispatch::{Key, Rules},
    handed::{Asked, Before, Found, letters_of},
};
use crate::{
    config::{Address, Scheduling},
    event_loop::{Sleep, sleep},
    id::{ConnectionId, ListenerId, Slot, WorkerId},
    schedule::{Candidate, LeastConnections, RoundRobin, Schedule},
};

/// Connections accepted from one socket before the loop looks at everything else again.
const ACCEPTS_PER_TURN: usize = 64;

/// How long a worker that gave a connection back is offered nothing: it may have run out of
/// descriptors, and offering at once would go round and round.
const REST: Duration = Duration::from_millis(50);

pub(super) struct Listening {
    key: Key,
    /// Where it really is.
    address: Address,
    options: SocketOptions,
    data: Option<Arc<[u8]>>,
    entrance: Entrance,
    /// A Unix socket's file, which is still the program's before.
    file_comes: bool,
    members: Vec<Member>,
    /// The number of the last worker's departure, and whose it was.
    last: Option<(u64, WorkerId)>,
    policy: Box<dyn Schedule>,
    /// Accepted or returned, and not offered yet.
    parked: VecDeque<(ConnectionId, Socket)>,
    /// Runs while members rest.
    rest: Option<Pin<Box<Sleep>>>,
}

enum Entrance {
    Handed {
        acceptor: Acceptor,
        socket: ListeningSocket,
    },
    /// Workers have the socket: they accept from it, or receive datagrams.
    Kernel {
        socket: ListeningSocket,
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

impl SlotSocket {
    /// The primary accepts until a worker does.
    fn covered(socket: ListeningSocket) -> io::Result<Self> {
        let cover = Some(Acceptor::new(socket.share()?)?);
        Ok(Self { socket, cover })
    }
}

/// A worker that listens here.
struct Member {
    worker: WorkerId,
    slot: Slot,
    /// As what it asked for this address.
    asked: Key,
    /// It said that it is ready.
    ready: bool,
    /// How many it can adopt, those in flight included; without a number, any number.
    room: Option<usize>,
    /// It gave a connection back a moment ago.
    resting: bool,
    in_flight: usize,
}

impl Listening {
    pub(super) fn open(key: Key, wanted: &Wanted, slot: Slot, rules: Rules) -> io::Result<Self> {
        let Wanted { options, .. } = *wanted;
        // A Unix socket cannot be bound twice, nor can a socket that is there already: reuse-port
        // shares them like the shared policy. Datagrams are always shared.
        let may_repeat = !options.datagram && key.name.address.tcp().is_some();
        let reuse_port = rules.scheduling == Scheduling::ReusePort && may_repeat;
        let socket = ListeningSocket::bind(&key.name.address, options, reuse_port)?;
        let address = socket.address()?;
        let entrance = Entrance::new(socket, options, reuse_port.then_some(slot), rules)?;
        Ok(Self::new(key, address, options, entrance, rules))
    }

    /// Listens on what was bound before this program was started.
    pub(super) fn take_over(
        key: Key,
        wanted: &Wanted,
        found: Found,
        rules: Rules,
    ) -> io::Result<Self> {
        let Wanted { options, .. } = *wanted;
        let (address, entrance, file) = match found {
            Found::Managed(socket, address) => {
                (address, Entrance::new(socket, options, None, rules)?, false)
            }
            Found::Before(Before { address, sockets, file, .. }) => {
                (address, Entrance::take_over(sockets, options, rules)?, file)
            }
        };
        if !options.datagram {
            entrance.sockets().try_for_each(|(_, socket)| socket.listen(options))?;
        }
        let mut taken = Self::new(key, address, options, entrance, rules);
        taken.file_comes = file;
        Ok(taken)
    }

    fn new(
        key: Key,
        address: Address,
        options: SocketOptions,
        entrance: Entrance,
        rules: Rules,
    ) -> Self {
        let policy: Box<dyn Schedule> = match rules.scheduling {
            Scheduling::LeastConnections => Box::new(LeastConnections::default()),
            _ => Box::new(RoundRobin::default()),
        };
        Self {
            key,
            address,
            options,
            data: None,
            entrance,
            file_comes: false,
            members: Vec::new(),
            last: None,
            policy,
            parked: VecDeque::new(),
            rest: None,
        }
    }

    /// What the next program needs to listen here.
    pub(super) fn letters(&self) -> io::Result<Vec<(Vec<u8>, Vec<OwnedFd>)>> {
        let file = self.file_comes || self.entrance.sockets().any(|(_, socket)| socket.has_file());
        letters_of(Asked::new(&self.key), &self.address, self.entrance.sockets(), file)
    }

    /// The next program does not come: it has none of the sockets.
    pub(super) fn take_back(&self) {
        self.entrance.sockets().for_each(|(_, socket)| {
            socket.bequeath(false);
        });
    }

    /// Takes in sockets of slots that the program before opened late. Where workers have one of their own
    /// there, the primary accepts.
    pub(super) fn take_in(&mut self, late: Before) {
        let Entrance::Slots { sockets } = &mut self.entrance else { return };
        for (slot, socket) in late.sockets {
            let free = (0..).map(Slot).find(|slot| !sockets.contains_key(slot));
            let Some(slot) = slot.filter(|slot| !sockets.contains_key(slot)).or(free) else {
                return;
            };
            match SlotSocket::covered(socket) {
                Ok(own) => drop(sockets.insert(slot, own)),
                Err(error) => log::warn!("a socket of {} is lost: {error}", self.address),
            }
        }
    }

    /// The file of the socket is the next program's.
    pub(super) fn disown_files(&mut self) {
        if let Some(socket) = self.entrance.socket_of_all() {
            socket.disown_file();
        }
    }

    /// The program before has left the file of the socket to this one.
    pub(super) fn own_files(&mut self) {
        let comes = std::mem::take(&mut self.file_comes);
        if let (true, Address::Unix(path)) = (comes, &self.address)
            && let Some(socket) = self.entrance.socket_of_all()
        {
            socket.own_file(path.clone());
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn data(&self) -> Option<&Arc<[u8]>> {
        self.data.as_ref()
    }

    pub(super) fn is_member(&self, worker: WorkerId) -> bool {
        self.members.iter().any(|member| member.worker == worker)
    }

    pub(super) fn is_for_datagrams(&self) -> bool {
        self.options.datagram
    }

    /// Whether no worker listens here.
    pub(super) fn is_deserted(&self) -> bool {
        self.members.is_empty()
    }

    /// The number of the last worker's departure, and whose it was.
    pub(super) fn last_departure(&self) -> Option<(u64, WorkerId)> {
        self.last
    }

    /// Makes a worker a member and says how it gets connections.
    pub(super) fn admit(
        &mut self,
        worker: WorkerId,
        slot: Slot,
        asked: &Key,
        wanted: Wanted,
    ) -> io::Result<Intake> {
        if self.is_member(worker) {
            return Err(Errno::ADDRINUSE.into());
        }
        self.lengthen_backlog(wanted.options.backlog)?;
        let intake = self.intake(slot)?;
        if self.data.is_none() {
            self.data = wanted.data;
        }
        self.members.push(Member {
            worker,
            slot,
            asked: asked.clone(),
            ready: false,
            room: None,
            resting: false,
            in_flight: 0,
        });
        Ok(intake)
    }

    /// A worker is ready. Says where, the first time; its turn is after those that were ready before.
    pub(super) fn ready(&mut self, worker: WorkerId) -> Option<Address> {
        let at = self.members.iter().position(|member| member.worker == worker && !member.ready)?;
        let mut member = self.members.remove(at);
        member.ready = true;
        self.uncover(member.slot);
        self.members.push(member);
        Some(self.address.clone())
    }

    pub(super) fn set_room(&mut self, worker: WorkerId, room: Option<u32>) {
        if let Some(member) = self.member(worker) {
            member.room = room.map(|room| room as usize);
            member.resting &= room == Some(0);
        }
    }

    pub(super) fn adopted(&mut self, worker: WorkerId, connections: usize) {
        if let Some(member) = self.member(worker) {
            member.in_flight = member.in_flight.saturating_sub(connections);
            member.room = member.room.map(|room| room.saturating_sub(connections));
        }
    }

    /// A worker gave a connection back.
    pub(super) fn refused(&mut self, worker: WorkerId) {
        if let Some(member) = self.member(worker) {
            member.in_flight = member.in_flight.saturating_sub(1);
            member.resting = true;
            self.rest.get_or_insert_with(|| Box::pin(sleep(REST)));
        }
    }

    /// A connection waits to be offered again.
    pub(super) fn park(&mut self, offer: Offer) {
        self.parked.push_back((offer.id, offer.socket));
    }

    /// Takes a worker out and says as what it had asked, and how many offers it has not answered.
    pub(super) fn remove(&mut self, worker: WorkerId, departure: u64) -> Option<(Key, usize)> {
        let at = self.members.iter().position(|member| member.worker == worker)?;
        let Member { slot, asked, in_flight, .. } = self.members.remove(at);
        self.last = Some((departure, worker));
        self.cover(slot);
        Some((asked, in_flight))
    }

    /// Accepts as much as the workers have room for.
    pub(super) fn accept(
        &mut self,
        cx: &mut Context<'_>,
        window: &dyn Fn(WorkerId) -> usize,
        number: &mut dyn FnMut() -> ConnectionId,
    ) -> io::Result<()> {
        self.poll_rest(cx);
        let room = self.members.iter().map(|member| member.room(window)).sum::<usize>();
        let mut room = room.saturating_sub(self.parked.len());
        let parked = &mut self.parked;
        match &mut self.entrance {
            Entrance::Kernel { .. } => Ok(()),
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

    /// Connections that wait here: parked, in the kernel.
    pub(super) fn waiting(&self) -> usize {
        self.parked.len()
            + self.entrance.sockets().map(|(_, socket)| socket.waiting()).sum::<usize>()
    }

    /// Who is to look whether a connection waits, after a worker that may have been woken for it left it there.
    pub(super) fn lookers(&self) -> Vec<WorkerId> {
        match &self.entrance {
            Entrance::Kernel { socket } if !self.options.datagram && socket.may_have_waiting() => {
                let free = self.members.iter().filter(|member| member.room != Some(0));
                free.map(|member| member.worker).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Why accepting began to fail, said once for each shortage.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        match &mut self.entrance {
            Entrance::Kernel { .. } => None,
            Entrance::Handed { acceptor, .. } => acceptor.take_failure(),
            Entrance::Slots { sockets } => {
                let mut covers = sockets.values_mut().filter_map(|own| own.cover.as_mut());
                covers.find_map(Acceptor::take_failure)
            }
        }
    }

    /// Offers what is parked, as the policy says.
    pub(super) fn deal(
        &mut self,
        listener: ListenerId,
        window: &dyn Fn(WorkerId) -> usize,
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
            candidates[index].load = candidates[index].load.saturating_add(1);
            self.members[index].in_flight += 1;
            dealt.push((self.members[index].worker, Offer { listener, id, socket }));
        }
    }

    /// How the worker in `slot` gets connections.
    fn intake(&mut self, slot: Slot) -> io::Result<Intake> {
        match &mut self.entrance {
            Entrance::Handed { .. } => Ok(Intake::Offers),
            Entrance::Kernel { socket } => Ok(Intake::Socket(socket.share()?)),
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

    /// The largest backlog that any worker asked for counts.
    fn lengthen_backlog(&mut self, backlog: u32) -> io::Result<()> {
        if backlog <= self.options.backlog || self.options.datagram {
            return Ok(());
        }
        self.options.backlog = backlog;
        self.entrance.sockets().try_for_each(|(_, socket)| socket.listen(self.options))
    }

    fn member(&mut self, worker: WorkerId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.worker == worker)
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

    /// The primary accepts for a slot whose worker left: closing its socket would reset what waits in
    /// its backlog.
    fn cover(&mut self, slot: Slot) {
        let Entrance::Slots { sockets } = &mut self.entrance else { return };
        let Some(own) = sockets.get_mut(&slot) else { return };
        match own.socket.share().and_then(Acceptor::new) {
            Ok(acceptor) => own.cover = Some(acceptor),
            Err(error) => {
                log::warn!("nobody accepts for slot {} of {}: {error}", slot.get(), self.address);
            }
        }
    }
}

impl Entrance {
    /// The door for `socket`; with a `slot`, it is that slot's.
    fn new(
        socket: ListeningSocket,
        options: SocketOptions,
        slot: Option<Slot>,
        rules: Rules,
    ) -> io::Result<Self> {
        if let Some(slot) = slot {
            let sockets = BTreeMap::from([(slot, SlotSocket { socket, cover: None })]);
            return Ok(Self::Slots { sockets });
        }
        if options.datagram {
            return Ok(Self::Kernel { socket });
        }
        Ok(match rules.scheduling {
            Scheduling::RoundRobin | Scheduling::LeastConnections => {
                Self::Handed { acceptor: Acceptor::new(socket.share()?)?, socket }
            }
            Scheduling::Shared | Scheduling::ReusePort => Self::Kernel { socket },
        })
    }

    /// The door for sockets of the program before: one for all, or those of slots, for which the primary
    /// accepts until a worker does.
    fn take_over(
        sockets: Vec<(Option<Slot>, ListeningSocket)>,
        options: SocketOptions,
        rules: Rules,
    ) -> io::Result<Self> {
        let mut slots = BTreeMap::new();
        for (slot, socket) in sockets {
            let Some(slot) = slot else { return Self::new(socket, options, None, rules) };
            slots.insert(slot, SlotSocket::covered(socket)?);
        }
        Ok(Self::Slots { sockets: slots })
    }

    /// Every socket, with the slot whose it is.
    fn sockets(&self) -> Box<dyn Iterator<Item = (Option<Slot>, &ListeningSocket)> + '_> {
        match self {
            Self::Handed { socket, .. } | Self::Kernel { socket } => {
                Box::new(std::iter::once((None, socket)))
            }
            Self::Slots { sockets } => {
                Box::new(sockets.iter().map(|(slot, own)| (Some(*slot), &own.socket)))
            }
        }
    }

    /// The one socket, where there is one.
    fn socket_of_all(&mut self) -> Option<&mut ListeningSocket> {
        match self {
            Self::Handed { socket, .. } | Self::Kernel { socket } => Some(socket),
            Self::Slots { .. } => None,
        }
    }
}

impl Drop for Entrance {
    /// A worker that is stuck holds a duplicate for as long; who waits there must not.
    fn drop(&mut self) {
        if let Self::Kernel { socket } = self {
            socket.shut();
        }
    }
}

impl Member {
    fn room(&self, window: &dyn Fn(WorkerId) -> usize) -> usize {
        if !self.ready || self.resting {
            return 0;
        }
        let window = window(self.worker);
        self.room.map_or(window, |room| room.min(window)).saturating_sub(self.in_flight)
    }

    /// How many are open the worker says itself, by the page that it shares.
    fn candidate(
        &self,
        window: &dyn Fn(WorkerId) -> usize,
        open: &dyn Fn(Slot) -> u64,
    ) -> Candidate {
        Candidate {
            worker: self.worker,
            load: open(self.slot).saturating_add(self.in_flight as u64),
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
