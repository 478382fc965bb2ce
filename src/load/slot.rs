//! A place for a connection: closed, connecting or open, and what is under way on it.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
};

use mio::{Interest, Registry, Token, net::TcpStream};

use super::{answer::Answer, arrival::Due};

/// Low bits of a token: which slot. The rest is the generation, so that an event of an earlier connection is
/// recognised.
const INDEX_BITS: u32 = 20;

/// A request on its way.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub(super) due: Due,
    pub(super) sent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Connecting,
    Open,
}

/// A place for a connection.
pub(super) struct Slot {
    stream: Option<TcpStream>,
    state: State,
    generation: usize,
    /// Requests that the connection was given.
    given: u64,
    /// What is to be written, and how much of it was.
    out: Vec<u8>,
    written: usize,
    /// Bytes that make no sense without those that follow.
    pub(super) rest: Vec<u8>,
    /// What is under way, the oldest first.
    pub(super) flights: VecDeque<Flight>,
    pub(super) answer: Answer,
    /// Whether it waits for a request in the driver's queue.
    pub(super) is_queued: bool,
    /// Whether no connection is to be tried yet.
    pub(super) is_paused: bool,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            stream: None,
            state: State::Closed,
            generation: 0,
            given: 0,
            out: Vec::new(),
            written: 0,
            rest: Vec::new(),
            flights: VecDeque::new(),
            answer: Answer::new(),
            is_queued: false,
            is_paused: false,
        }
    }

    /// The slot that a token belongs to, unless it is of one of the slot's earlier connections.
    pub(super) fn of(token: Token, slots: &[Self]) -> Option<usize> {
        let index = token.0 & ((1 << INDEX_BITS) - 1);
        let slot = slots.get(index)?;
        (slot.stream.is_some() && slot.token(index) == token).then_some(index)
    }

    pub(super) fn token(&self, index: usize) -> Token {
        Token(self.generation << INDEX_BITS | index)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the connection was given all the requests it may be given.
    pub(super) fn is_used_up(&self, per_connection: u64) -> bool {
        self.given >= per_connection
    }

    /// Gives the connection a request, to be sent by the next [`flush`](Self::flush).
    pub(super) fn push(&mut self, bytes: &[u8], flight: Flight) {
        self.out.extend_from_slice(bytes);
        self.flights.push_back(flight);
        self.given += 1;
    }

    /// Begins to connect.
    pub(super) fn connect(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        index: usize,
    ) -> io::Result<()> {
        // A generation's high bits fall off; the tokens of the waker and the timer have all bits set.
        self.generation = self.generation.wrapping_add(1) & (usize::MAX >> (INDEX_BITS + 1));
        let token = self.token(index);
        let stream = self.stream.insert(TcpStream::connect(address)?);
        stream.set_nodelay(true)?;
        registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.state = State::Connecting;
        Ok(())
    }

    /// Whether the connection is established by now; an error if it cannot be.
    pub(super) fn finish_connect(&mut self) -> io::Result<bool> {
        let Some(stream) = &self.stream else { return Ok(false) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => {
                self.state = State::Open;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what there is to write, as far as the connection takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// What has come: `None` if nothing has.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        loop {
            match stream.read(scratch) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the connection, with whatever is under way on it: the caller has dealt with that.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.state = State::Closed;
        self.given = 0;
        self.out.clear();
        self.written = 0;
        self.rest.clear();
        self.flights.clear();
        self.answer.clear();
    }
}
