//! What is published between processes: each that subscribes binds a Unix datagram socket in the store's
//! directory and has its name written beside the topic; who publishes sends to every name that is there.
//!
//! Two threads of a process, each there once it is needed: one sends, in the order of the calls, and one
//! receives, which only moves values into the queues of subscribers. A receiver that is full holds a sender up
//! once, briefly; after that it loses values and is told how many with the next one that reaches it.
//!
//! A socket whose process is gone refuses: whoever finds that out removes it and its name.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use heed::{Env, RwTxn};
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use super::{
    super::{
        Answer, Subscription,
        answer::Promise,
        check::{MAX_PUBLISHED, MAX_TOPIC},
        queue::Queue,
        topics::{Membership, Topics},
    },
    opened::read,
    sockets::Directory,
    tables::Tables,
    writer::{Job, Jobs},
};
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
};

/// How long a receiver that is full is waited for, the first time.
const PATIENCE: Duration = Duration::from_millis(200);

/// In front of the topic: values lost before (8 bytes), the topic's length (2).
const HEAD: usize = 10;

/// The notices of one store.
pub(super) struct Notices {
    directory: Directory,
    env: Env,
    tables: Tables,
    jobs: Arc<Jobs>,
    topics: Arc<Topics>,
    /// There while somebody subscribes.
    receiver: Mutex<Option<Receiver>>,
    /// There once somebody has published.
    outbox: Mutex<Option<Arc<Queue<Publication>>>>,
}

struct Receiver {
    name: String,
    socket: Arc<UnixDatagram>,
}

struct Publication {
    topic: Vec<u8>,
    value: Vec<u8>,
    promise: Promise<()>,
}

impl Notices {
    /// # Errors
    ///
    /// The directory cannot be read.
    pub(super) fn new(path: &Path, env: Env, tables: Tables, jobs: Arc<Jobs>) -> io::Result<Self> {
        let directory = Directory::new(path)?;
        directory.remove_the_dead()?;
        Ok(Self {
            directory,
            env,
            tables,
            jobs,
            topics: Arc::default(),
            receiver: Mutex::new(None),
            outbox: Mutex::new(None),
        })
    }

    pub(super) fn subscribe(self: &Arc<Self>, topic: &[u8]) -> Answer<Subscription> {
        let joined = self.join(topic).context(ErrorKind::Io, || {
            format!("receive in the store's directory {}", self.directory.path().display())
        });
        let (name, subscription) = match joined {
            Ok(joined) => joined,
            Err(error) => return Answer::ready(Err(error)),
        };
        let (promise, answer) = Answer::promised();
        let enlist = Enlist { topic: topic.into(), name, subscription, promise };
        let queued = self.jobs.push(Box::new(enlist), topic.len());
        Answer::of(queued.map(|()| answer))
    }

    fn join(self: &Arc<Self>, topic: &[u8]) -> io::Result<(String, Subscription)> {
        let mut receiver = self.receiver.lock();
        let name = match &*receiver {
            Some(receiver) => receiver.name.clone(),
            None => receiver.insert(Receiver::start(&self.directory, &self.topics)?).name.clone(),
        };
        let (feed, membership) = self.topics.join(topic);
        let seat =
            Seat { notices: self.clone(), topic: topic.into(), membership: Some(membership) };
        Ok((name, Subscription::new(feed, seat)))
    }

    fn leave(&self, topic: &[u8], membership: Option<Membership>) {
        let mut receiver = self.receiver.lock();
        drop(membership);
        let Some(name) = receiver.as_ref().map(|receiver| receiver.name.clone()) else { return };
        if !self.topics.has(topic) {
            self.strike(topic, &name);
        }
        if self.topics.is_empty()
            && let Some(receiver) = receiver.take()
        {
            receiver.stop(&self.directory);
        }
    }

    fn strike(&self, topic: &[u8], name: &str) {
        let strike = Strike { topic: topic.into(), name: name.into() };
        // If there is no room, the next who publishes finds nobody there and tries again.
        let _ = self.jobs.push(Box::new(strike), topic.len());
    }

    pub(super) fn publish(self: &Arc<Self>, topic: &[u8], value: &[u8]) -> Answer<()> {
        let (promise, answer) = Answer::promised();
        let publication = Publication { topic: topic.into(), value: value.into(), promise };
        let bytes = topic.len() + value.len();
        let queued = self.outbox().and_then(|outbox| outbox.push(publication, bytes));
        Answer::of(queued.map(|()| answer))
    }

    fn outbox(self: &Arc<Self>) -> Result<Arc<Queue<Publication>>> {
        let mut outbox = self.outbox.lock();
        if let Some(outbox) = &*outbox {
            return Ok(outbox.clone());
        }
        let text = || "start the thread that publishes".into();
        let sender = Sender::new(self.clone()).context(ErrorKind::Io, text)?;
        let made = Arc::new(Queue::new());
        let theirs = made.clone();
        let thread = thread::Builder::new().name("bimodal-notices".into());
        thread.spawn(move || sender.run(&theirs)).context(ErrorKind::Io, text)?;
        Ok(outbox.insert(made).clone())
    }
}

/// A place among the subscribers of a topic, in this process and in the store.
struct Seat {
    notices: Arc<Notices>,
    topic: Vec<u8>,
    membership: Option<Membership>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.notices.leave(&self.topic, self.membership.take());
    }
}

struct Enlist {
    topic: Vec<u8>,
    name: String,
    subscription: Subscription,
    promise: Promise<Subscription>,
}

impl Job for Enlist {
    fn is_overdue(&self) -> bool {
        self.promise.is_overdue(clock::now())
    }

    fn apply(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, _now: u64) -> heed::Result<()> {
        tables.enlist(txn, &self.topic, &self.name)
    }

    fn finish(self: Box<Self>, committed: Result<()>) {
        let Self { subscription, promise, .. } = *self;
        promise.keep(committed.map(|()| subscription));
    }
}

struct Strike {
    topic: Vec<u8>,
    name: String,
}

impl Job for Strike {
    fn is_overdue(&self) -> bool {
        false
    }

    fn apply(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, _now: u64) -> heed::Result<()> {
        tables.strike(txn, &self.topic, &self.name)
    }

    fn finish(self: Box<Self>, _committed: Result<()>) {}
}

impl Receiver {
    fn start(directory: &Directory, topics: &Arc<Topics>) -> io::Result<Self> {
        let random = RandomState::new().hash_one(clock::now());
        let name = format!("sub-{}-{random:016x}.sock", std::process::id());
        let socket = Arc::new(directory.bind(&name)?);
        let (receiving, topics) = (socket.clone(), topics.clone());
        let run = move || receive(&receiving, &topics);
        let started = thread::Builder::new().name("bimodal-topics".into()).spawn(run);
        let receiver = Self { name, socket };
        match started {
            Ok(_) => Ok(receiver),
            Err(error) => {
                receiver.stop(directory);
                Err(error)
            }
        }
    }

    fn stop(self, directory: &Directory) {
        directory.remove(&self.name);
        // Ends the thread. It cannot fail on a socket that is open.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Runs until the socket is shut down.
fn receive(socket: &UnixDatagram, topics: &Topics) {
    let mut packet = vec![0; HEAD + MAX_TOPIC + MAX_PUBLISHED + 1];
    loop {
        match socket.recv(&mut packet) {
            Ok(0) => return,
            Ok(bytes) => match parse(&packet[..bytes]) {
                Some((lost, topic, value)) => topics.deliver(topic, value, lost),
                None => {
                    log::warn!("{bytes} bytes that nobody has published came to a store's socket")
                }
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                log::error!("a store receives no more: {error}");
                return topics.close();
            }
        }
    }
}

pub(super) fn packet(lost: u64, topic: &[u8], value: &[u8]) -> Vec<u8> {
    // Topics are far shorter.
    let length = u16::try_from(topic.len()).unwrap_or(u16::MAX);
    [&lost.to_be_bytes(), &length.to_be_bytes()[..], topic, value].concat()
}

/// Values lost before, the topic, the value; `None` if it is not what [`packet`] makes.
pub(super) fn parse(packet: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (lost, rest) = packet.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (topic, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let within = (1..=MAX_TOPIC).contains(&topic.len()) && value.len() <= MAX_PUBLISHED;
    within.then(|| (u64::from_be_bytes(*lost), topic, value))
}

/// The thread that sends.
struct Sender {
    notices: Arc<Notices>,
    socket: Socket,
    /// Values of a topic that a socket has not got and does not know of.
    lost: HashMap<(String, Vec<u8>), u64>,
    /// Sockets that were waited for in vain.
    full: HashSet<String>,
}

impl Sender {
    fn new(notices: Arc<Notices>) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { notices, socket, lost: HashMap::new(), full: HashSet::new() })
    }

    fn run(mut self, outbox: &Queue<Publication>) {
        while let Some(waiting) = outbox.take(None) {
            for Publication { topic, value, promise } in waiting {
                if !promise.is_overdue(clock::now()) {
                    promise.keep(self.publish(&topic, &value));
                }
            }
        }
    }

    fn publish(&mut self, topic: &[u8], value: &[u8]) -> Result<()> {
        let notices = self.notices.clone();
        let names = read(&notices.env, |txn| notices.tables.subscribers(txn, topic))?;
        let mut answer = Ok(());
        for name in names {
            if let Err(error) = self.send(&name, topic, value) {
                let text = format!("the subscriber {name} cannot be reached");
                answer = Err(Error::caused(ErrorKind::Io, text, error));
            }
        }
        answer
    }

    fn send(&mut self, name: &str, topic: &[u8], value: &[u8]) -> io::Result<()> {
        let key = (name.to_owned(), topic.to_vec());
        let lost = self.lost.get(&key).copied().unwrap_or(0);
        match self.send_packet(name, &packet(lost, topic, value)) {
            Ok(()) => {
                self.lost.remove(&key);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lost.insert(key, lost + 1);
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    self.bury(name, topic);
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn send_packet(&mut self, name: &str, packet: &[u8]) -> io::Result<()> {
        let address = self.notices.directory.address(name)?;
        let send = |flags| self.socket.send_to_with_flags(packet, &address, flags);
        let mut sent = send(libc::MSG_DONTWAIT);
        if is_full(&sent) && !self.full.contains(name) {
            sent = send(0);
        }
        if is_full(&sent) {
            self.full.insert(name.into());
        } else {
            self.full.remove(name);
        }
        sent.map(|_| ())
    }

    /// The process behind a socket is gone.
    fn bury(&mut self, name: &str, topic: &[u8]) {
        self.notices.directory.remove(name);
        self.notices.strike(topic, name);
        self.lost.retain(|(dead, _), _| dead != name);
    }
}

fn is_full(sent: &io::Result<usize>) -> bool {
    sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
