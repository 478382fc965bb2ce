//! One client: what it asks for, and the task that answers it.
//!
//! On the thread of the status socket. A client sends one line, within [`PATIENCE`] and of at most [`LINE`] bytes, and is
//! then only spoken to. Lines for it wait in its queue; beyond the bound they are dropped, and it is told how many.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use mio::Interest;

use super::{
    Feed,
    lines::{Past, Request, View, error, missed},
};
use crate::event_loop::{self, Source, sleep_until, timeout};

/// How long a client may take to ask, and then not receive anything of a line that waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest request, in bytes.
const LINE: usize = 1024;

/// Lines that wait for one client.
const QUEUE: usize = 256;

/// All clients that are served.
#[derive(Default)]
pub(super) struct Clients {
    list: RefCell<Vec<Rc<Client>>>,
    /// Who waits for the last one to go.
    watcher: Cell<Option<Waker>>,
}

impl Clients {
    pub(super) fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// Queues a line for whoever wants events, who has missed so many before it.
    pub(super) fn tell(&self, line: &Arc<str>, missed: u64) {
        self.list.borrow().iter().for_each(|client| client.queue(line, missed));
    }

    /// Ends every client when it has received what is queued.
    pub(super) fn end(&self) {
        self.list.borrow().iter().for_each(|client| client.end());
    }

    /// Until nobody is left.
    pub(super) async fn emptied(&self) {
        poll_fn(|cx| {
            self.watcher.set(Some(cx.waker().clone()));
            if self.list.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn leave(&self, client: &Rc<Client>) {
        self.list.borrow_mut().retain(|other| !Rc::ptr_eq(other, client));
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }
}

#[derive(Default)]
pub(super) struct Client {
    wants_events: Cell<bool>,
    ended: Cell<bool>,
    missed: Cell<u64>,
    lines: RefCell<VecDeque<Arc<str>>>,
    waker: Cell<Option<Waker>>,
}

/// What a client's task waits for.
enum Next {
    Line(Arc<str>),
    Missed(u64),
    Snapshot,
    End,
}

impl Client {
    fn queue(&self, line: &Arc<str>, missed: u64) {
        if !self.wants_events.get() {
            return;
        }
        let is_full = self.lines.borrow().len() >= QUEUE;
        self.missed.set(self.missed.get() + missed + u64::from(is_full));
        if !is_full {
            self.lines.borrow_mut().push_back(line.clone());
        }
        self.wake();
    }

    fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What comes next: a snapshot at its time, or at once without one.
    async fn next(&self, time: Option<Instant>) -> Next {
        let Some(time) = time else { return Next::Snapshot };
        let mut alarm = Box::pin(sleep_until(time));
        // Time first: with many events there are snapshots all the same.
        poll_fn(|cx| match alarm.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Next::Snapshot),
            Poll::Pending => self.poll_told(cx),
        })
        .await
    }

    /// A line, or the end. The task is woken when there is one.
    fn poll_told(&self, cx: &Context<'_>) -> Poll<Next> {
        self.waker.set(Some(cx.waker().clone()));
        if let Some(line) = self.lines.borrow_mut().pop_front() {
            return Poll::Ready(Next::Line(line));
        }
        match self.missed.take() {
            0 if self.ended.get() => Poll::Ready(Next::End),
            0 => Poll::Pending,
            count => Poll::Ready(Next::Missed(count)),
        }
    }
}

/// Serves a client in a task of its own.
pub(super) fn start(stream: UnixStream, clients: &Rc<Clients>, view: Rc<View>, feed: Feed) {
    let client = Rc::new(Client::default());
    clients.list.borrow_mut().push(client.clone());
    let clients = clients.clone();
    event_loop::spawn(async move {
        // It costs nobody else anything.
        if let Err(error) = converse(stream, &client, &view, &feed).await {
            log::debug!("a client of the status socket is dropped: {error}");
        }
        clients.leave(&client);
    })
    .detach();
}

async fn converse(stream: UnixStream, client: &Client, view: &View, feed: &Feed) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = Source::new(stream, Interest::READABLE | Interest::WRITABLE)?;
    let asked = timeout(PATIENCE, receive(&stream)).await;
    let late = |_| Err(format!("no request came within {PATIENCE:?}"));
    match asked
        .map_or_else(late, |line| line.map_err(|error| error.to_string()).and_then(Request::parse))
    {
        // It only looked whether somebody is here.
        Ok(None) => Ok(()),
        Ok(Some(request)) => inform(&stream, request, client, view, feed).await,
        Err(cause) => say(&stream, &error(&cause)).await,
    }
}

/// Tells a client what it asked for, until it goes or the cluster ends.
async fn inform(
    stream: &Source<UnixStream>,
    request: Request,
    client: &Client,
    view: &View,
    feed: &Feed,
) -> io::Result<()> {
    let _reader = request.events.then(|| Reader::new(feed));
    client.wants_events.set(request.events);
    let mut past = Past::default();
    let mut time = None;
    loop {
        match client.next(time).await {
            Next::Line(line) => say(stream, &line).await?,
            Next::Missed(count) => say(stream, &missed(count)).await?,
            Next::End => return Ok(()),
            Next::Snapshot => {
                say(stream, &view.snapshot(feed.uptime(), &mut past)).await?;
                let Some(interval) = request.interval() else { return Ok(()) };
                time = Some(event_loop::now() + interval);
            }
        }
    }
}

/// A client that wants events.
struct Reader<'a>(&'a Feed);

impl<'a> Reader<'a> {
    fn new(feed: &'a Feed) -> Self {
        feed.0.readers.fetch_add(1, SeqCst);
        Self(feed)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.0.readers.fetch_sub(1, SeqCst);
    }
}

/// The first line, without its end; what comes after it is not read.
async fn receive(stream: &Source<UnixStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let mut bytes = [0; LINE];
        let count = stream.read_io(|mut stream| stream.read(&mut bytes)).await?;
        line.extend_from_slice(&bytes[..count]);
        let end = line.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(line.len()) > LINE {
            return Err(io::Error::other(format!("a request has at most {LINE} bytes")));
        }
        if count == 0 || end.is_some() {
            line.truncate(end.unwrap_or(line.len()));
            return Ok(line);
        }
    }
}

async fn say(stream: &Source<UnixStream>, line: &str) -> io::Result<()> {
    let mut left = line.as_bytes();
    while !left.is_empty() {
        let send = stream.write_io(|mut stream| stream.write(left));
        let sent = match timeout(PATIENCE, send).await {
            Ok(sent) => sent?,
            // The kernel tells of room when most of what is under way was read; some may be there before.
            Err(_) => (&mut stream.get_ref()).write(left)?,
        };
        left = &left[sent..];
    }
    Ok(())
}
