//! How a worker asks for an address, and what it makes of the answer.
//!
//! What is shared is asked for from the primary, one request and one answer; what is to be the
//! worker's own is made here, and the primary never hears of it.

use std::{future::poll_fn, io, net::ToSocketAddrs as _, os::fd::OwnedFd, task::Poll};

use super::{Answer, Denial, Listener, Note, State, UdpSocket, Worker};
use crate::{
    accept::{
        Grant, ListenOptions, ListeningSocket, SocketOptions, UdpOptions, Wanted, is_abstract,
    },
    config::Address,
    error::{Context as _, Error, ErrorKind, Result},
    event_loop::mailbox,
};

impl Worker {
    /// Listens on an address that all workers of the cluster share (Node: `server.listen`).
    ///
    /// The primary binds it once. Port 0 gives one free port to all workers: the n-th `listen` on
    /// port 0 of every worker is the same, counted from when the worker listened on none of them. The
    /// port that it became can be listened on by its number, too. What a service manager has bound already
    /// [is used](crate::docs::outside#sockets-that-are-there-already).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] for a malformed address; [`ErrorKind::Listen`] when the primary cannot
    /// bind it (with the operating system's error beneath), this worker listens on it already, or a
    /// name cannot be resolved; [`ErrorKind::Disconnecting`] when the worker is leaving.
    pub async fn listen<A>(&self, address: A) -> Result<Listener>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        self.listen_with(address, ListenOptions::default()).await
    }

    /// Listens with options other than the default ones.
    ///
    /// # Errors
    ///
    /// As [`Worker::listen`]; [`ErrorKind::Setting`] also for options that cannot hold for the address.
    pub async fn listen_with<A>(&self, address: A, options: ListenOptions) -> Result<Listener>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let asked = address.try_into()?;
        options.check(&asked)?;
        let address = locate(&asked).await?;
        if options.is_own() {
            let socket = bind(&asked, &address, options.socket, options.reuse_port)?;
            return Listener::own(self.state.clone(), socket, &options);
        }
        let wanted = Wanted { address, options: options.socket, data: options.data.clone() };
        let grant = self.ask(&asked, wanted).await?;
        let listener = Listener::open(self.state.clone(), grant, &options)?;
        self.announce(listener.id())?;
        Ok(listener)
    }

    /// Accepts from a socket that this worker has already, such as one that it was sent (Node:
    /// `server.listen(handle)`). The cluster does not know of it, as if it were
    /// [`exclusive`](ListenOptions::exclusive).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Listen`] when it is no bound stream socket.
    pub fn listen_on(&self, listener: impl Into<OwnedFd>) -> Result<Listener> {
        let options = ListenOptions::default();
        let adopted = ListeningSocket::adopt(listener.into(), false);
        let adopted = adopted.and_then(|socket| {
            socket.listen(options.socket)?;
            Ok(socket)
        });
        let text = || "cannot listen on a socket that is not a bound stream socket".into();
        Listener::own(self.state.clone(), adopted.context(ErrorKind::Listen, text)?, &options)
    }

    /// Receives datagrams at an address that all workers of the cluster share (Node: `socket.bind` of
    /// `dgram`): each goes to one of them, whoever looks first, whatever the scheduling.
    ///
    /// The address is `udp:IP:PORT`, or anything that [`listen`](Self::listen) takes, meant for UDP.
    /// Port 0 is shared as `listen` shares it.
    ///
    /// # Errors
    ///
    /// As [`Worker::listen`].
    pub async fn bind_udp<A>(&self, address: A) -> Result<UdpSocket>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        self.bind_udp_with(address, UdpOptions::default()).await
    }

    /// Receives datagrams with options other than the default ones. If workers that share an address
    /// differ, the first counts.
    ///
    /// # Errors
    ///
    /// As [`Worker::listen_with`].
    pub async fn bind_udp_with<A>(&self, address: A, options: UdpOptions) -> Result<UdpSocket>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let asked = address.try_into()?;
        let address = for_datagrams(locate(&asked).await?);
        options.check(&address)?;
        let socket_options = SocketOptions { datagram: true, ..options.socket };
        if options.is_own() {
            let socket = bind(&asked, &address, socket_options, options.reuse_port)?;
            return UdpSocket::own(self.state.clone(), socket);
        }
        let wanted = Wanted { address, options: socket_options, data: None };
        let grant = self.ask(&asked, wanted).await?;
        let socket = UdpSocket::open(self.state.clone(), grant)?;
        self.announce(socket.id())?;
        Ok(socket)
    }

    /// Asks the primary; dropped before the answer, it gives back what the answer brings.
    async fn ask(&self, asked: &Address, wanted: Wanted) -> Result<Grant> {
        self.check_staying()?;
        let request = Request::new(&self.state);
        self.state.link.send(Note::Listen { request: request.number, wanted })?;
        let answer = request.answer().await;
        // A worker that is leaving is denied everything: that it leaves is the reason.
        self.check_staying()
            .or_else(|leaving| if answer.is_ok() { Ok(()) } else { Err(leaving) })?;
        answer.map_err(|denial| denied(asked, denial))
    }

    /// Says that the worker is ready, unless it is leaving by now.
    fn announce(&self, listener: Option<crate::id::ListenerId>) -> Result<()> {
        self.check_staying()?;
        if let Some(listener) = listener {
            self.state.got_ready();
            self.state.send(Note::Listening { listener });
        }
        Ok(())
    }

    fn check_staying(&self) -> Result<()> {
        if self.is_draining() {
            let text = "the worker is leaving and cannot listen any more";
            return Err(Error::new(ErrorKind::Disconnecting, text));
        }
        Ok(())
    }
}

/// The address as the primary can use it: no name, and no path that depends on the directory.
async fn locate(address: &Address) -> Result<Address> {
    match address {
        Address::Host(name, port) => resolve(name, *port).await.map(Address::Tcp),
        Address::Unix(path) if !is_abstract(path) => {
            let absolute = std::path::absolute(path);
            absolute.map(Address::Unix).context(ErrorKind::Listen, || cannot(address))
        }
        _ => Ok(address.clone()),
    }
}

/// Asks the system's resolver, which blocks, on a thread of its own.
async fn resolve(name: &str, port: u16) -> Result<std::net::SocketAddr> {
    let failed = || format!("cannot listen on {name}:{port}: the name cannot be resolved");
    let (post, answer) = mailbox();
    let owned = name.to_owned();
    let asking = std::thread::Builder::new().name("bimodal-resolve".into()).spawn(move || {
        // Nobody waits any more for an answer that cannot be posted.
        let _ = post.post((owned.as_str(), port).to_socket_addrs());
    });
    asking.context(ErrorKind::Listen, failed)?;
    let answer = poll_fn(|cx| answer.poll_next(cx)).await;
    let none = || Error::new(ErrorKind::Listen, failed());
    let mut found = answer.ok_or_else(none)?.context(ErrorKind::Listen, failed)?;
    found.next().ok_or_else(none)
}

fn for_datagrams(address: Address) -> Address {
    match address {
        Address::Tcp(address) => Address::Udp(address),
        other => other,
    }
}

/// A socket of this worker's own.
fn bind(
    asked: &Address,
    address: &Address,
    options: SocketOptions,
    reuse_port: bool,
) -> Result<ListeningSocket> {
    let socket = ListeningSocket::bind(address, options, reuse_port);
    socket.context(ErrorKind::Listen, || cannot(asked))
}

fn cannot(address: &Address) -> String {
    format!("cannot listen on {address}")
}

fn denied(address: &Address, denial: Denial) -> Error {
    let text = cannot(address);
    match denial.errno {
        Some(errno) => Error::caused(ErrorKind::Listen, text, io::Error::from_raw_os_error(errno)),
        None => Error::new(ErrorKind::Listen, format!("{text}: {}", denial.text)),
    }
}

/// A listen that waits for its answer; dropping it declines the answer.
struct Request<'a> {
    state: &'a State,
    number: u32,
}

impl<'a> Request<'a> {
    fn new(state: &'a State) -> Self {
        let number = state.requests.get();
        state.requests.set(number.wrapping_add(1));
        state.answers.borrow_mut().insert(number, Answer::Awaited(None));
        Self { state, number }
    }

    async fn answer(&self) -> Result<Grant, Denial> {
        poll_fn(|cx| {
            let mut answers = self.state.answers.borrow_mut();
            match answers.remove(&self.number) {
                Some(Answer::Granted(grant)) => Poll::Ready(Ok(grant)),
                Some(Answer::Denied(denial)) => Poll::Ready(Err(denial)),
                Some(Answer::Awaited(_)) | None => {
                    answers.insert(self.number, Answer::Awaited(Some(cx.waker().clone())));
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let answer = self.state.answers.borrow_mut().remove(&self.number);
        if let Some(answer) = answer {
            self.state.decline(answer);
        }
    }
}
