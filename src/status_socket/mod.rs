//! The status socket: what a running cluster tells other programs of the same user about itself.
//!
//! It runs on a thread of its own, `bimodal-status`, which lives as long as the cluster; the primary's loop only posts
//! events to it, of which so many are under way at most, and waits for it nowhere. Its clients share that thread as tasks
//! of its loop. Each has a queue of its own that does not grow beyond a bound, and whoever does not take what it is sent is
//! dropped, so a client holds up neither the cluster nor another client.
//!
//! `client` is one client and what it asks for, `lines` is what it is answered, `file` the socket's file. The protocol
//! is told in [`docs::outside`](crate::docs::outside).

mod client;
mod file;
mod lines;

use std::{
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, ready},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::Interest;

pub(crate) use self::file::check;
use self::{
    client::Clients,
    file::{Bound, bind},
    lines::{View, error, event},
};
use crate::{
    builder::Settings,
    clock,
    cluster::Crew,
    error::{Context as _, Error, ErrorKind, Result},
    event_loop::{self, EventLoop, Mailbox, Postbox, Sleep, Source, mailbox, sleep},
    events::Event,
    outside::Legacy,
    sys::channel::peer_user,
};

/// Clients that are served at the same time.
const CLIENTS: usize = 16;

/// Events on their way from the primary to the thread.
const EVENTS: usize = 4096;

/// How long the clients of a cluster that has ended may take to receive what is left.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long nobody is accepted after that has failed, as it does without descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What the primary tells the thread.
enum Order {
    /// A line for whoever wants events.
    Event(Arc<str>),
    /// The program before has let go of its socket's file.
    TakeOver,
    /// The next program has the file now.
    Disown,
    /// The cluster has ended.
    End,
}

/// The primary's way to the thread.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Way>);

struct Way {
    orders: Postbox<Order>,
    begun: Instant,
    /// Clients that want events.
    readers: AtomicUsize,
    under_way: AtomicUsize,
    missed: AtomicU64,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// Passes an event on, if anybody wants it. Messages are the program's own and stay in it.
    pub(crate) fn see(&self, happened: &Event) {
        let is_message = matches!(happened, Event::Message { .. });
        if is_message || self.0.readers.load(SeqCst) == 0 {
            return;
        }
        if self.0.under_way.load(SeqCst) >= EVENTS {
            self.0.missed.fetch_add(1, SeqCst);
            return;
        }
        self.0.under_way.fetch_add(1, SeqCst);
        self.post(Order::Event(event(self.uptime(), happened).into()));
    }

    /// The program before has let go of its socket's file.
    pub(crate) fn take_over(&self) {
        self.post(Order::TakeOver);
    }

    /// The next program takes the file over.
    pub(crate) fn disown(&self) {
        self.post(Order::Disown);
    }

    fn post(&self, order: Order) {
        // A thread that has ended needs no orders.
        let _ = self.0.orders.post(order);
    }

    fn uptime(&self) -> Duration {
        clock::now().saturating_duration_since(self.0.begun)
    }
}

/// A socket that is open but not served yet.
pub(crate) struct Opened {
    path: PathBuf,
    /// Absent while the program before has it.
    bound: Option<Bound>,
    predecessor: Option<i32>,
    orders: Mailbox<Order>,
    feed: Feed,
}

/// Opens the socket at an absolute path. Where the program takes over from another one, that is waited for.
///
/// # Errors
///
/// [`ErrorKind::Listen`], naming the path and the remedy.
pub(crate) fn open(path: &Path, before: Option<&Legacy>) -> Result<Opened> {
    let bound = match before {
        None => Some(bind(path, None).map_err(|cause| refused(path, cause))?),
        Some(_) => None,
    };
    let predecessor = before.and_then(Legacy::process);
    let (post, orders) = mailbox();
    let (readers, under_way, missed) = Default::default();
    let way = Way { orders: post, begun: clock::now(), readers, under_way, missed };
    Ok(Opened { path: path.into(), bound, predecessor, orders, feed: Feed(Arc::new(way)) })
}

fn refused(path: &Path, cause: io::Error) -> Error {
    let text = format!(
        "`status_socket` {} cannot be opened; choose a path that nothing has, in a directory that this program may write to",
        path.display()
    );
    Error::caused(ErrorKind::Listen, text, cause)
}

impl Opened {
    pub(crate) fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Serves it from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when its thread or its loop cannot be made.
    pub(crate) fn serve(self, crew: Arc<Crew>, settings: Arc<Settings>) -> Result<StatusSocket> {
        let feed = self.feed();
        let (ready, started) = mpsc::sync_channel(1);
        let spawned = std::thread::Builder::new().name("bimodal-status".into()).spawn(move || {
            let mut event_loop = match EventLoop::new() {
                Ok(event_loop) => event_loop,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let server = event_loop.enter(|| Server::new(self, View::new(crew, settings)));
            let server = match server {
                Ok(server) => server,
                Err(error) => return drop(ready.send(Err(error))),
            };
            // The caller waits for this.
            let _ = ready.send(Ok(()));
            if let Err(error) = event_loop.block_on(server.run()) {
                log::error!("the status socket is not served any more: {error}");
            }
        });
        let failed = || "cannot serve the status socket".into();
        let thread = Some(spawned.context(ErrorKind::Io, failed)?);
        let socket = StatusSocket { feed, thread };
        let gone = || Err(io::Error::other("its thread has panicked"));
        started.recv().unwrap_or_else(|_| gone()).context(ErrorKind::Io, failed)?;
        Ok(socket)
    }
}

/// A socket that is served, until this is dropped.
#[derive(Debug)]
pub(crate) struct StatusSocket {
    feed: Feed,
    thread: Option<JoinHandle<()>>,
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.feed.post(Order::End);
        if let Some(thread) = self.thread.take() {
            // A panic of its own it has reported.
            let _ = thread.join();
        }
    }
}

/// The thread's root future.
struct Server {
    path: PathBuf,
    predecessor: Option<i32>,
    listener: Option<Listener>,
    orders: Mailbox<Order>,
    feed: Feed,
    view: Rc<View>,
    clients: Rc<Clients>,
    /// Nobody is accepted before this has passed.
    pause: Option<Pin<Box<Sleep>>>,
}

struct Listener {
    socket: Source<UnixListener>,
    file: file::SocketFile,
}

impl Listener {
    fn new((socket, file): Bound) -> io::Result<Self> {
        Ok(Self { socket: Source::new(socket, Interest::READABLE)?, file })
    }
}

impl Server {
    /// On the current loop.
    fn new(opened: Opened, view: View) -> io::Result<Self> {
        let Opened { path, bound, predecessor, orders, feed } = opened;
        Ok(Self {
            path,
            predecessor,
            listener: bound.map(Listener::new).transpose()?,
            orders,
            feed,
            view: Rc::new(view),
            clients: Rc::default(),
            pause: None,
        })
    }

    async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.listener = None;
        self.clients.end();
        // Who has not taken everything by then is not waited for.
        let _ = event_loop::timeout(FAREWELL, self.clients.emptied()).await;
    }

    /// Ready when the cluster has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(order) = self.orders.poll_next(cx) {
            match order {
                Some(Order::Event(line)) => self.pass_on(&line),
                Some(Order::TakeOver) => self.take_over(),
                Some(Order::Disown) => self.disown(),
                Some(Order::End) | None => return Poll::Ready(()),
            }
        }
        while let Poll::Ready(stream) = self.poll_accept(cx) {
            self.admit(stream);
        }
        Poll::Pending
    }

    fn pass_on(&self, line: &Arc<str>) {
        self.feed.0.under_way.fetch_sub(1, SeqCst);
        self.clients.tell(line, self.feed.0.missed.swap(0, SeqCst));
    }

    fn take_over(&mut self) {
        if self.listener.is_some() {
            return;
        }
        match bind(&self.path, self.predecessor).and_then(Listener::new) {
            Ok(listener) => self.listener = Some(listener),
            Err(cause) => log::warn!("{}", refused(&self.path, cause)),
        }
    }

    fn disown(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.file.disown();
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<UnixStream> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            // Without a listener an order is what wakes the task.
            let Some(listener) = &self.listener else { return Poll::Pending };
            let accept = |socket: &UnixListener| socket.accept().map(|(stream, _)| stream);
            match ready!(listener.socket.poll_read_io(cx, accept)) {
                Ok(stream) => return Poll::Ready(stream),
                Err(error) => {
                    log::warn!("the status socket accepts nobody: {error}");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }

    fn admit(&self, mut stream: UnixStream) {
        if let Err(cause) = check_user(&stream).and_then(|()| self.check_room()) {
            // Whoever is refused may be gone, and is not waited for.
            let _ = stream
                .set_nonblocking(true)
                .and_then(|()| stream.write_all(error(&cause).as_bytes()));
            return;
        }
        client::start(stream, &self.clients, self.view.clone(), self.feed.clone());
    }

    fn check_room(&self) -> Result<(), String> {
        let is_full = self.clients.count() >= CLIENTS;
        if is_full { Err(format!("{CLIENTS} clients are served already")) } else { Ok(()) }
    }
}

/// The file's mode lets in nobody else; this holds, too, if somebody has changed it.
fn check_user(stream: &UnixStream) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match peer_user(stream.as_fd()) {
        Ok(user) if user == own || user == 0 => Ok(()),
        Ok(user) => Err(format!("user {user} is not the one that this program runs as")),
        Err(error) => Err(format!("the system does not say who asks: {error}")),
    }
}
