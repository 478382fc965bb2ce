//! A worker's listener: connections from whichever door the primary opened, as one stream.
//!
//! Offers come first, in order; adopting one is what acknowledges it. Beside them a listener accepts
//! from a socket, its own or one that all workers accept from. How many it takes per turn is bounded, so that a
//! worker which is busy leaves the rest to others.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io,
    net::Shutdown,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use socket2::Socket;

use super::{
    Note, State,
    desk::{Desk, DeskMeter, Limit},
    turn::{Turn, wake_next_turn},
};
use crate::{
    accept::{
        Accept, Acceptor, Connection, Count, Grant, Intake, ListenOptions, ListeningSocket,
        StreamOptions,
    },
    config::{Address, Memory},
    error::{Context as _, ErrorKind, Result},
    id::ListenerId,
};

/// Connections taken per turn from a socket that others take from, too: few, so that they are
/// spread over the loops that have time for them.
const TAKEN_PER_TURN: u32 = 4;

/// An address that this worker listens on, alone or together with others (Node: a `net.Server` in a
/// worker).
///
/// Dropping it withdraws this worker from the address at once; the others keep listening, and
/// connections that were accepted go on (Node: `server.close`). With the last worker the address is
/// closed.
pub struct Listener {
    state: Rc<State>,
    desk: Rc<Desk>,
    entrance: Entrance,
    /// Counts all its connections.
    meter: Rc<dyn Count>,
    turn: Turn,
    /// Whether the primary keeps a duplicate of what it offers until it is adopted.
    keeps_duplicates: bool,
    stream: StreamOptions,
    dropped: Dropped,
    data: Option<Arc<[u8]>>,
    /// The socket of a listener of the worker's own.
    own: Option<ListeningSocket>,
}

/// Where connections come from beside the desk.
enum Entrance {
    Nowhere,
    Socket(Acceptor),
}

impl Listener {
    /// What the primary granted.
    pub(super) fn open(state: Rc<State>, grant: Grant, options: &ListenOptions) -> Result<Self> {
        let limit = limit_of(options, matches!(grant.intake, Intake::Offers));
        let desk = Rc::new(Desk::new(Some(grant.listener), grant.address, limit));
        let entrance = Entrance::granted(&desk, grant.intake);
        // Also where that failed: it is how the primary gets the grant back.
        let mut listener = Self::new(state, desk, Entrance::Nowhere, options);
        listener.entrance = entrance?;
        listener.data = grant.data;
        Ok(listener)
    }

    /// A listener that the primary does not know of.
    pub(super) fn own(
        state: Rc<State>,
        socket: ListeningSocket,
        options: &ListenOptions,
    ) -> Result<Self> {
        let failed = || "cannot listen on a socket of the worker's own".into();
        let address = socket.address().context(ErrorKind::Listen, failed)?;
        let desk = Rc::new(Desk::new(None, address, limit_of(options, false)));
        let shared = socket.share().context(ErrorKind::Listen, failed)?;
        let acceptor = Acceptor::new(shared);
        let entrance = Entrance::Socket(acceptor.context(ErrorKind::Listen, failed)?);
        let mut listener = Self::new(state, desk, entrance, options);
        listener.own = Some(socket);
        Ok(listener)
    }

    fn new(state: Rc<State>, desk: Rc<Desk>, entrance: Entrance, options: &ListenOptions) -> Self {
        desk.set_up(&state);
        let meter = DeskMeter::of(&state, &desk);
        let keeps_duplicates = state.link.memory() == Memory::Separate;
        Self {
            state,
            desk,
            entrance,
            meter,
            turn: Turn::default(),
            keeps_duplicates,
            stream: options.stream,
            dropped: Dropped::default(),
            data: None,
            own: None,
        }
    }

    /// Its number in the cluster, if the cluster knows of it.
    pub(super) fn id(&self) -> Option<ListenerId> {
        self.desk.id()
    }

    /// Where it listens: never port 0.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.desk.address()
    }

    /// What the first worker that brought any [left for all](ListenOptions::data).
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    /// Counts the connections that were closed at once because as many as
    /// [`max_connections`](ListenOptions::max_connections) were open (Node: the `drop` event). To be
    /// looked at also while the listener is being served.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// The next connection; `None` when this worker is to leave, after those that were on their way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Listen`] when a listening socket of the worker's own fails; what fails at one that is shared is an
    /// [`Event::Error`](crate::Event::Error) of the cluster. What costs one connection only is not an error.
    ///
    /// Connections for which nobody waits here go to other workers, also after this future was dropped.
    pub async fn accept(&mut self) -> Result<Option<Connection>> {
        let waiting = Waiting(self);
        let accepted = poll_fn(|cx| waiting.0.poll_next(cx)).await;
        drop(waiting);
        // Before the caller reads from it: a connection that was begun must not be given to another.
        self.state.acknowledge();
        accepted
    }

    /// Withdraws this worker from the address at once; the others keep listening. What is returned is ready when the
    /// connections that were accepted here have ended (Node: `server.close` and its callback); it need not be awaited.
    pub fn close(self) -> Closing {
        Closing { desk: self.desk.clone() }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Connection>>> {
        loop {
            if let Some(offer) = self.desk.take() {
                self.state.adopt(offer.listener, offer.id);
                match self.open_connection(offer.socket, self.keeps_duplicates) {
                    Some(connection) => return Poll::Ready(Ok(Some(connection))),
                    None => continue,
                }
            }
            let socket = match self.poll_entrance(cx)? {
                Poll::Ready(Some(socket)) => socket,
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    self.desk.park(cx.waker());
                    return Poll::Pending;
                }
            };
            if let Some(connection) = self.open_connection(socket, false) {
                return Poll::Ready(Ok(Some(connection)));
            }
        }
    }

    /// The next socket from beside the desk; ready with `None` when nothing will come any more.
    fn poll_entrance(&mut self, cx: &mut Context<'_>) -> Result<Poll<Option<Socket>>> {
        if self.desk.is_withdrawn() {
            return Ok(Poll::Ready(self.entrance.close(cx)));
        }
        let Entrance::Socket(acceptor) = &mut self.entrance else { return Ok(Poll::Pending) };
        if !self.desk.wants_more() {
            self.stop_waiting();
            return Ok(Poll::Pending);
        }
        if self.desk.was_asked_to_look() {
            acceptor.look();
        }
        if !self.turn.take_one(TAKEN_PER_TURN) {
            wake_next_turn(cx);
            return Ok(Poll::Pending);
        }
        match acceptor.poll_accept(cx) {
            Poll::Ready(Ok(socket)) => Ok(Poll::Ready(Some(socket))),
            Poll::Ready(Err(error)) => self.broken(error),
            Poll::Pending => {
                let (failure, left_behind) = (acceptor.take_failure(), acceptor.take_left_behind());
                self.turn.give_back();
                if left_behind || failure.is_some() {
                    self.tell_left(failure);
                }
                Ok(Poll::Pending)
            }
        }
    }

    /// The socket will never accept again. If it is the primary's, which closes it for all when nobody is to listen any
    /// more, the primary says what follows.
    fn broken(&mut self, error: io::Error) -> Result<Poll<Option<Socket>>> {
        self.entrance = Entrance::Nowhere;
        if self.desk.id().is_none() {
            let failed = || format!("{} failed", self.desk.address());
            return Err(error).context(ErrorKind::Listen, failed);
        }
        self.tell_left(Some(error));
        Ok(Poll::Pending)
    }

    /// Takes nothing for now: the kernel wakes others.
    fn stop_waiting(&mut self) {
        if let Entrance::Socket(acceptor) = &mut self.entrance
            && acceptor.stop_waiting()
        {
            self.tell_left(None);
        }
    }

    /// Tells the primary, if it knows of this listener, that others have to look.
    fn tell_left(&self, failure: Option<io::Error>) {
        let errno = failure.and_then(|error| error.raw_os_error());
        if let Some(listener) = self.desk.id() {
            self.state.send(Note::Left { listener, errno });
        }
    }

    /// A socket that cannot be put on the loop costs its own connection only.
    fn open_connection(&mut self, socket: Socket, handed: bool) -> Option<Connection> {
        if self.desk.is_excess() {
            self.dropped.connections.set(self.dropped.count() + 1);
            // The peer must not wait for the primary's duplicate to be closed. It may have gone.
            let _ = socket.shutdown(Shutdown::Both);
            return None;
        }
        let connection = self
            .stream
            .set_on(&socket)
            .and_then(|()| Connection::adopt(socket, Some(self.meter.clone()), handed));
        self.state.room_changed(&self.desk);
        connection
            .inspect_err(|error| {
                log::warn!("a connection to {} is lost: {error}", self.desk.address());
            })
            .ok()
    }
}

/// A listener that was [closed](Listener::close): ready when none of its connections is open any more.
pub struct Closing {
    desk: Rc<Desk>,
}

impl Future for Closing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.desk.poll_unused(cx)
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing").field("address", self.desk.address()).finish_non_exhaustive()
    }
}

/// How many connections a listener closed because it was full.
#[derive(Clone, Debug, Default)]
pub struct Dropped {
    connections: Rc<Cell<u64>>,
}

impl Dropped {
    /// So far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.connections.get()
    }
}

fn limit_of(options: &ListenOptions, by_offers: bool) -> Limit {
    Limit { connections: options.max_connections, drop_excess: options.drop_excess, by_offers }
}

/// Somebody waits for a connection; once he does not, others are to be woken.
struct Waiting<'a>(&'a mut Listener);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.stop_waiting();
    }
}

impl Accept for Listener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Connection>>> {
        let polled = self.poll_next(cx);
        if !matches!(polled, Poll::Ready(Ok(Some(_)))) {
            self.state.acknowledge();
        }
        polled
    }

    fn set_accepting(&mut self, accepting: bool) {
        if !self.desk.set_accepting(accepting) {
            return;
        }
        self.state.acknowledge();
        self.desk.tell_room(&self.state);
        if accepting {
            self.desk.wake();
        } else {
            self.desk.refuse_all(&self.state);
            self.stop_waiting();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Before the primary hears of it and asks others to look at the socket.
        self.entrance = Entrance::Nowhere;
        self.desk.take_down(&self.state);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", self.address()).finish_non_exhaustive()
    }
}

impl Entrance {
    fn granted(desk: &Desk, intake: Intake) -> Result<Self> {
        Ok(match intake {
            Intake::Offers => Self::Nowhere,
            Intake::Socket(socket) => {
                let waiting = || format!("cannot wait for connections on {}", desk.address());
                Self::Socket(Acceptor::shared(socket).context(ErrorKind::Listen, waiting)?)
            }
        })
    }

    /// Takes nothing any more, but for the connection that this loop may have been woken for.
    fn close(&mut self, cx: &mut Context<'_>) -> Option<Socket> {
        let Self::Socket(mut acceptor) = std::mem::replace(self, Self::Nowhere) else {
            return None;
        };
        acceptor.last(cx)
    }
}
