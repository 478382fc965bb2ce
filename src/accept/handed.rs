//! Sockets that were bound before this program was started: by a service manager, which keeps them, or by
//! the program that this one takes over from. And how they go on to the next program.
//!
//! The primaries of all clusters of the program share one [`Handed`]. A listener that is opened looks here
//! first. A manager's socket is there for every listener, one after the other; one from the program before
//! goes to the first that asks for the same as was asked for there.

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{ListeningSocket, dispatch::Key};
use crate::{config::Address, id::Slot};

/// Sockets that go with one letter: fewer than a packet can carry.
const SOCKETS_PER_LETTER: usize = 60;

/// What was handed to this program and may still be asked for.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    managed: Vec<Managed>,
    before: Vec<Before>,
}

/// A socket of a service manager's.
#[derive(Debug)]
struct Managed {
    socket: ListeningSocket,
    address: Address,
    datagram: bool,
    /// Its number when the manager started the program.
    number: i32,
    name: String,
    used: bool,
}

/// An address on which the program before listened.
#[derive(Debug)]
pub(super) struct Before {
    asked: Asked,
    pub(super) address: Address,
    /// One for all, or one for each of some slots.
    pub(super) sockets: Vec<(Option<Slot>, ListeningSocket)>,
    /// Whether the socket's file goes with it, once the program before lets go.
    pub(super) file: bool,
}

/// As what a listener was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    address: Address,
    datagram: bool,
    ordinal: u32,
}

/// What a listener that is opened finds.
#[derive(Debug)]
pub(super) enum Found {
    /// A duplicate of a manager's socket.
    Managed(ListeningSocket, Address),
    Before(Before),
}

impl Asked {
    pub(super) fn new(key: &Key) -> Self {
        let name = &key.name;
        Self { address: name.address.clone(), datagram: name.datagram, ordinal: key.ordinal }
    }
}

impl Handed {
    /// Takes a socket of a service manager's. What it cannot use comes back with the reason.
    pub(crate) fn add_managed(
        &self,
        fd: OwnedFd,
        number: i32,
        name: String,
    ) -> Result<(), (OwnedFd, String)> {
        match Managed::check(&fd) {
            Ok((address, datagram)) => {
                let managed =
                    |socket| Managed { socket, address, datagram, number, name, used: false };
                let adopted = ListeningSocket::adopt(fd, datagram).map(managed);
                // Whoever is bound and of this type is adopted.
                self.waiting.lock().managed.extend(adopted.ok());
                Ok(())
            }
            Err(reason) => Err((fd, reason)),
        }
    }

    /// What a listener finds that is asked for under this key.
    pub(super) fn find(&self, key: &Key) -> Option<Found> {
        let asked = Asked::new(key);
        let mut waiting = self.waiting.lock();
        let at = waiting.before.iter().position(|before| before.is(&asked, key.counted));
        if let Some(at) = at {
            let before = waiting.before.remove(at);
            // The program before had it from the manager.
            let same = |managed: &&mut Managed| managed.address == before.address;
            waiting.managed.iter_mut().filter(same).for_each(|managed| managed.used = true);
            return Some(Found::Before(before));
        }
        let exact = waiting.managed.iter().position(|managed| managed.is(&asked));
        let at =
            exact.or_else(|| waiting.managed.iter().position(|managed| managed.covers(&asked)))?;
        let managed = &mut waiting.managed[at];
        let socket = managed.socket.duplicate().ok()?;
        managed.used = true;
        Some(Found::Managed(socket, managed.address.clone()))
    }

    /// What the program before listened on, as this was asked for, and has only now handed over.
    pub(super) fn late(&self, key: &Key) -> Option<Before> {
        let asked = Asked::new(key);
        let mut waiting = self.waiting.lock();
        let at = waiting.before.iter().position(|before| before.asked == asked)?;
        Some(waiting.before.remove(at))
    }

    /// Whether nobody has asked yet for something that the program before listened on.
    pub(crate) fn has_rest(&self) -> bool {
        !self.waiting.lock().before.is_empty()
    }

    /// The manager's sockets on which nobody has listened.
    pub(crate) fn unused(&self) -> Vec<String> {
        let waiting = self.waiting.lock();
        let unused = waiting.managed.iter().filter(|managed| !managed.used);
        unused
            .map(|Managed { number, name, address, .. }| format!("{number} ({name}, {address})"))
            .collect()
    }

    /// The program before has let go: on what nobody listens here either, nobody will. Says what that was.
    pub(crate) fn close_rest(&self) -> Vec<Address> {
        let rest = std::mem::take(&mut self.waiting.lock().before);
        let close = |mut before: Before| {
            before.own_file();
            before.address.clone()
        };
        rest.into_iter().map(close).collect()
    }

    /// The letters of everything that waits here, for the next program.
    pub(crate) fn letters(&self) -> io::Result<Vec<(Vec<u8>, Vec<OwnedFd>)>> {
        let waiting = self.waiting.lock();
        let mut letters = Vec::new();
        for managed in &waiting.managed {
            letters.push((managed.letter().encode()?, vec![managed.socket.share()?.into()]));
        }
        for Before { asked, address, sockets, file } in &waiting.before {
            let sockets = sockets.iter().map(|(slot, socket)| (*slot, socket));
            letters.extend(letters_of(asked.clone(), address, sockets, *file)?);
        }
        Ok(letters)
    }

    /// Takes what a letter from the program before brings.
    pub(crate) fn receive(&self, letter: &[u8], sockets: Vec<OwnedFd>) -> Result<(), String> {
        let letter: Letter = rmp_serde::from_slice(letter).map_err(|error| error.to_string())?;
        let address = from_bytes(&letter.address).ok_or("an address is malformed")?;
        if letter.slots.len().max(1) != sockets.len() {
            return Err(format!("{} sockets came for {} slots", sockets.len(), letter.slots.len()));
        }
        match (letter.asked, letter.managed) {
            (Some((asked, ordinal)), None) => {
                let asked = from_bytes(&asked).ok_or("an address is malformed")?;
                let asked = Asked { address: asked, datagram: letter.datagram, ordinal };
                self.add_before(asked, address, &letter.slots, sockets, letter.file)
            }
            (None, Some((number, name))) => sockets.into_iter().try_for_each(|socket| {
                self.add_managed(socket, number, name.clone()).map_err(|(_, reason)| reason)
            }),
            _ => Err("a letter says neither what was asked for nor what was handed over".into()),
        }
    }

    fn add_before(
        &self,
        asked: Asked,
        address: Address,
        slots: &[u32],
        sockets: Vec<OwnedFd>,
        file: bool,
    ) -> Result<(), String> {
        let mut slots = slots.iter().map(|slot| Slot(*slot as usize));
        let adopt = |fd| {
            let socket = ListeningSocket::adopt(fd, asked.datagram);
            socket.map(|socket| (slots.next(), socket)).map_err(|error| error.to_string())
        };
        let sockets = sockets.into_iter().map(adopt).collect::<Result<Vec<_>, _>>()?;
        let mut waiting = self.waiting.lock();
        match waiting.before.iter_mut().find(|before| before.asked == asked) {
            Some(before) => before.sockets.extend(sockets),
            None => waiting.before.push(Before { asked, address, sockets, file }),
        }
        Ok(())
    }
}

impl Managed {
    /// Where a socket is and whether it is for datagrams; the error says why it is of no use.
    fn check(fd: &OwnedFd) -> Result<(Address, bool), String> {
        let listening = ListeningSocket::of_copy(fd).map_err(|_| "it is no socket")?;
        let datagram = listening.is_datagram();
        if !datagram && !listening.listens() {
            return Err("it is no listening socket".into());
        }
        let address = listening.address().map_err(|error| error.to_string())?;
        match (&address, datagram) {
            (Address::Unix(_), true) => Err("it is for datagrams of a Unix socket".into()),
            _ if address.port() == Some(0) => Err("it is bound to no address".into()),
            _ => Ok((address, datagram)),
        }
    }

    fn is(&self, asked: &Asked) -> bool {
        let by_number = asked.address == Address::Fd(self.number);
        self.datagram == asked.datagram && (self.address == asked.address || by_number)
    }

    /// Whether both mean all addresses, be it of IPv4 or of IPv6.
    fn covers(&self, asked: &Asked) -> bool {
        let any = |address: &Address| {
            let at = address.tcp().or_else(|| address.udp())?;
            (at.ip().is_unspecified() && at.port() != 0).then(|| at.port())
        };
        let own = any(&self.address);
        self.datagram == asked.datagram && own.is_some() && own == any(&asked.address)
    }

    fn letter(&self) -> Letter {
        Letter {
            asked: None,
            managed: Some((self.number, self.name.clone())),
            address: to_bytes(&self.address),
            datagram: self.datagram,
            slots: Vec::new(),
            file: false,
        }
    }
}

impl Before {
    /// Asked for in the same words, or, where the words stand for one place, by that place.
    fn is(&self, asked: &Asked, counted: bool) -> bool {
        let same_place = !counted && self.address == asked.address;
        self.asked == *asked || (same_place && self.asked.datagram == asked.datagram)
    }

    fn own_file(&mut self) {
        if let (true, Address::Unix(path)) = (self.file, &self.address) {
            self.sockets.iter_mut().for_each(|(_, socket)| socket.own_file(path.clone()));
        }
    }
}

/// What goes with sockets from one program to the next. A later version may add fields.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    /// As what a listener was asked for: the address, and which of several it is.
    asked: Option<(Vec<u8>, u32)>,
    /// The number and the name that a service manager gave it.
    managed: Option<(i32, String)>,
    /// Where it is in fact.
    address: Vec<u8>,
    datagram: bool,
    /// Whose the sockets are, in their order; empty if there is one for all.
    slots: Vec<u32>,
    /// Whether a Unix socket's file is to be removed with it.
    file: bool,
}

impl Letter {
    fn encode(&self) -> io::Result<Vec<u8>> {
        rmp_serde::to_vec_named(self).map_err(io::Error::other)
    }
}

/// The letters of one listener, and duplicates of those of its sockets that the next program does not have.
pub(super) fn letters_of<'a>(
    asked: Asked,
    address: &Address,
    sockets: impl Iterator<Item = (Option<Slot>, &'a ListeningSocket)>,
    file: bool,
) -> io::Result<Vec<(Vec<u8>, Vec<OwnedFd>)>> {
    let sockets: Vec<_> = sockets.filter(|(_, socket)| !socket.bequeath(true)).collect();
    let letter = |sockets: &[(Option<Slot>, &ListeningSocket)]| {
        let slots = sockets.iter().filter_map(|(slot, _)| u32::try_from(slot.as_ref()?.get()).ok());
        let letter = Letter {
            asked: Some((to_bytes(&asked.address), asked.ordinal)),
            managed: None,
            address: to_bytes(address),
            datagram: asked.datagram,
            slots: slots.collect(),
            file,
        };
        let shared = sockets.iter().map(|(_, socket)| Ok(socket.share()?.into()));
        Ok((letter.encode()?, shared.collect::<io::Result<Vec<OwnedFd>>>()?))
    };
    sockets.chunks(SOCKETS_PER_LETTER).map(letter).collect()
}

/// The address as text; a path keeps its bytes.
fn to_bytes(address: &Address) -> Vec<u8> {
    match address {
        Address::Unix(path) => [b"unix:", path.as_os_str().as_bytes()].concat(),
        other => other.to_string().into_bytes(),
    }
}

fn from_bytes(bytes: &[u8]) -> Option<Address> {
    match bytes.strip_prefix(b"unix:") {
        Some(path) => Some(Address::Unix(OsStr::from_bytes(path).into())),
        None => std::str::from_utf8(bytes).ok()?.parse().ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    use crate::accept::dispatch::Name;

    fn key(address: &str, ordinal: u32) -> Key {
        let address: Address = address.parse().unwrap();
        let (datagram, counted) = (address.udp().is_some(), address.port() == Some(0));
        Key { name: Name { address, datagram }, ordinal, counted }
    }

    fn listener(at: &str) -> (OwnedFd, u16) {
        let listener = TcpListener::bind(at).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener.into(), port)
    }

    #[test]
    fn a_managers_socket_is_found_by_place_by_number_and_by_all_addresses() {
        let handed = Handed::default();
        let ((one, port), (all, any)) = (listener("127.0.0.1:0"), listener("[::]:0"));
        handed.add_managed(one, 7, "web".into()).unwrap();
        handed.add_managed(all, 8, "all".into()).unwrap();
        assert!(handed.unused()[0].starts_with("7 (web, 127.0.0.1:"));
        let places = [format!("127.0.0.1:{port}"), "fd:7".into(), format!("0.0.0.0:{any}")];
        for place in places.iter().chain(&places) {
            assert!(matches!(handed.find(&key(place, 0)), Some(Found::Managed(..))), "{place}");
        }
        assert!(handed.unused().is_empty());
        let others = ["127.0.0.1:0", "fd:9", "[::1]:80"].map(str::to_owned);
        let others =
            others.into_iter().chain([format!("127.0.0.1:{any}"), format!("udp:127.0.0.1:{port}")]);
        others.for_each(|other| assert!(handed.find(&key(&other, 0)).is_none(), "{other}"));
    }

    #[test]
    fn what_is_no_bound_socket_comes_back() {
        let handed = Handed::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        let (one, _) = listener("127.0.0.1:0");
        let peer = std::net::TcpStream::connect(
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        );
        let unbound =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        for fd in [file.into(), OwnedFd::from(peer.unwrap()), unbound.into()] {
            assert!(handed.add_managed(fd, 3, String::new()).is_err());
        }
        assert!(handed.add_managed(one, 3, String::new()).is_ok());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(handed.add_managed(udp.into(), 4, String::new()).is_ok());
    }

    /// What goes from one program to the next when the first listens on these.
    fn pass(asked: &str, ordinal: u32, slots: &[Option<usize>]) -> (Handed, Address) {
        let made = slots.iter().map(|slot| {
            let adopted = ListeningSocket::adopt(listener("127.0.0.1:0").0, false).unwrap();
            (slot.map(Slot), adopted)
        });
        let made: Vec<_> = made.collect();
        let address = made[0].1.address().unwrap();
        let sockets = || made.iter().map(|(slot, socket)| (*slot, socket));
        let asked = Asked::new(&key(asked, ordinal));
        let letters = letters_of(asked.clone(), &address, sockets(), false).unwrap();
        assert!(
            letters_of(asked, &address, sockets(), false).unwrap().is_empty(),
            "once is enough"
        );
        let next = Handed::default();
        letters.into_iter().for_each(|(letter, fds)| next.receive(&letter, fds).unwrap());
        (next, address)
    }

    #[test]
    fn the_next_program_finds_what_it_asks_for_in_the_same_words_once() {
        let (next, address) = pass("127.0.0.1:0", 1, &[None]);
        assert!(next.find(&key("127.0.0.1:0", 0)).is_none(), "that was another one");
        let Some(Found::Before(before)) = next.find(&key("127.0.0.1:0", 1)) else { panic!() };
        assert_eq!((before.address, before.sockets[0].0), (address, None));
        assert!(next.find(&key("127.0.0.1:0", 1)).is_none() && !next.has_rest());
        let (next, address) = pass("127.0.0.1:0", 0, &[None]);
        assert!(next.find(&key(&address.to_string(), 0)).is_some(), "by its place");
    }

    #[test]
    fn any_number_of_slots_goes_along() {
        let slots: Vec<_> = (0..2 * SOCKETS_PER_LETTER + 1).map(Some).collect();
        let (next, _) = pass("127.0.0.1:0", 0, &slots);
        let Some(Found::Before(before)) = next.find(&key("127.0.0.1:0", 0)) else { panic!() };
        let found: Vec<_> = before.sockets.iter().map(|(slot, _)| slot.map(Slot::get)).collect();
        assert_eq!(found, slots);
    }

    #[test]
    fn the_rest_goes_on_to_a_third_program_or_is_closed() {
        let (next, address) = pass("127.0.0.1:0", 0, &[None]);
        let third = Handed::default();
        for (letter, fds) in next.letters().unwrap() {
            third.receive(&letter, fds).unwrap();
        }
        assert!(third.has_rest());
        assert_eq!(
            (third.close_rest(), next.close_rest()),
            (vec![address.clone()], vec![address.clone()])
        );
        // A child that another test is starting may have a copy for a moment.
        let end = crate::clock::now() + std::time::Duration::from_secs(20);
        while std::net::TcpStream::connect(address.tcp().unwrap()).is_ok() {
            assert!(crate::clock::now() < end, "somebody still listens");
        }
    }

    #[test]
    fn hostile_letters_are_refused() {
        let letter = |asked, managed, address: &str, slots| {
            let address = address.as_bytes().to_vec();
            Letter { asked, managed, address, datagram: false, slots, file: false }
                .encode()
                .unwrap()
        };
        let here = || Some((b"127.0.0.1:0".to_vec(), 0));
        for (letter, sockets) in [
            (b"nonsense".to_vec(), 1),
            (letter(None, None, "127.0.0.1:1", vec![]), 1),
            (letter(here(), Some((3, String::new())), "127.0.0.1:1", vec![]), 1),
            (letter(here(), None, "nowhere", vec![]), 1),
            (letter(Some((vec![0xff], 0)), None, "127.0.0.1:1", vec![]), 1),
            (letter(here(), None, "127.0.0.1:1", vec![]), 0),
            (letter(here(), None, "127.0.0.1:1", vec![1, 2, 3]), 2),
        ] {
            let sockets = (0..sockets).map(|_| listener("127.0.0.1:0").0).collect();
            assert!(Handed::default().receive(&letter, sockets).is_err());
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        let honest = letter(here(), None, "127.0.0.1:1", vec![]);
        assert!(Handed::default().receive(&honest, vec![file.into()]).is_err(), "no socket");
    }
}
