//! A worker that listens, binds and closes as it is told, and the test that tells it.

use std::{cell::Cell, collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use bimodal::{
    Address, Builder, Cluster, Connection, Dropped, Event, ListenOptions, Listener, Result,
    UdpOptions, UdpSocket, Worker, WorkerHandle,
    event_loop::{JoinHandle, spawn},
};
use serde::{Deserialize, Serialize};

use crate::support::{
    Scene,
    events::{Seen, until},
    trap,
};

/// What a worker is told to do. Listeners and sockets are known by the text of their address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    Listen(Ask),
    /// Makes a listener by itself and listens on it.
    ListenOn(String),
    Close(String),
    /// Closes only the one that nobody accepts from.
    CloseIgnored(String),
    /// How many connections a listener dropped.
    Dropped(String),
    Udp(UdpAsk),
    /// Sends a datagram from a socket to an address.
    SendTo(String, SocketAddr),
    /// How many datagrams a socket has received.
    Received(String),
    /// Joins a multicast group with a socket.
    Join(String),
    /// Asks for an address and gives up before the answer.
    GiveUp(String),
    /// Gets stuck, closes a listener without looking at anything else, and goes on.
    StickThenClose(String, String),
    Stick(String),
    Leave,
    Panic,
    /// Answers only that it is there.
    Ping,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ask {
    pub address: String,
    pub exclusive: bool,
    pub reuse_port: bool,
    pub ipv6_only: bool,
    pub backlog: Option<u32>,
    pub defer_accept: bool,
    pub max: Option<usize>,
    pub drop_excess: bool,
    pub data: Option<Vec<u8>>,
    pub open_to_all: bool,
    /// Connections stay open until the other side closes them.
    pub keep: bool,
    /// Nobody accepts.
    pub ignore: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UdpAsk {
    pub address: String,
    pub exclusive: bool,
    pub reuse_port: bool,
    pub reuse_address: bool,
    pub ipv6_only: bool,
}

/// How an order went; what went well has a text of its own.
pub type Answer = std::result::Result<String, Refusal>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: String,
    pub errno: Option<i32>,
    pub text: String,
}

impl From<bimodal::Error> for Refusal {
    fn from(error: bimodal::Error) -> Self {
        Self {
            kind: format!("{:?}", error.kind()),
            errno: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

pub fn listen(address: &str) -> Order {
    Order::Listen(Ask { address: address.into(), ..Ask::default() })
}

pub fn udp(address: &str) -> Order {
    Order::Udp(UdpAsk { address: address.into(), ..UdpAsk::default() })
}

/// A cluster whose workers obey.
pub struct Party {
    pub cluster: Cluster,
    pub workers: Vec<WorkerHandle>,
    /// Everything that happened but the answers.
    pub seen: Seen,
}

impl Party {
    pub fn new(scene: &Scene, workers: usize) -> Self {
        Self::of(scene.builder(), workers)
    }

    pub fn of(builder: Builder, workers: usize) -> Self {
        let cluster = builder.launch(obey).unwrap();
        let mut party = Self { cluster, workers: Vec::new(), seen: Seen::default() };
        (0..workers).for_each(|_| party.fork());
        party
    }

    pub fn fork(&mut self) {
        self.workers.push(self.cluster.fork().unwrap());
    }

    /// Tells a worker, and waits for its answer.
    #[track_caller]
    pub fn tell(&mut self, worker: usize, order: Order) -> Answer {
        self.order(worker, order);
        self.answer(worker)
    }

    /// Tells a worker something that goes well, and says what came of it.
    #[track_caller]
    pub fn told(&mut self, worker: usize, order: Order) -> String {
        let what = format!("{order:?}");
        let answer = self.tell(worker, order);
        answer.unwrap_or_else(|refusal| panic!("{what}: {refusal:?}"))
    }

    /// Tells a worker without waiting.
    pub fn order(&self, worker: usize, order: Order) {
        let _ = self.workers[worker].send(order).unwrap();
    }

    #[track_caller]
    pub fn answer(&mut self, worker: usize) -> Answer {
        let id = self.workers[worker].id();
        let mut seen = until(
            &self.cluster,
            &format!("an answer of worker {id}"),
            |event| matches!(event, Event::Message { worker, message } if worker.id() == id && message.is::<Answer>()),
        );
        let Some(Event::Message { message, .. }) = seen.0.pop() else { unreachable!() };
        self.seen.0.append(&mut seen.0);
        message.get().unwrap()
    }

    /// Listens with one worker and says where.
    #[track_caller]
    pub fn listening(&mut self, worker: usize, address: &str) -> Address {
        self.told(worker, listen(address)).parse().unwrap()
    }

    /// Lets all events of a name pass until there are so many in all.
    #[track_caller]
    pub fn await_named(&mut self, name: &str, count: usize) {
        let mut missing = count.saturating_sub(self.count(name));
        if missing > 0 {
            let mut seen = until(&self.cluster, &format!("{count} times {name}"), |event| {
                missing -= usize::from(event.name() == name);
                missing == 0
            });
            self.seen.0.append(&mut seen.0);
        }
    }

    pub fn count(&self, name: &str) -> usize {
        self.seen.names(None).iter().filter(|seen| **seen == name).count()
    }
}

/// What a worker has open.
#[derive(Default)]
struct Open {
    listeners: BTreeMap<String, Served>,
    /// Those that nobody accepts from.
    ignored: BTreeMap<String, Listener>,
    sockets: BTreeMap<String, Bound>,
}

/// A listener that a task serves. Dropping the task closes it.
struct Served {
    _task: JoinHandle<Result<()>>,
    dropped: Dropped,
}

/// A UDP socket that a task answers on. It is closed when both are dropped.
struct Bound {
    socket: Rc<UdpSocket>,
    _task: JoinHandle<()>,
    received: Rc<Cell<u64>>,
}

/// Obeys until it is told to leave.
pub async fn obey(worker: Worker) -> Result<()> {
    let mut open = Open::default();
    while let Some(message) = worker.recv().await {
        let answer = open.obey(&worker, message.get()?).await;
        // Nobody listens any more to a worker that leaves.
        let _ = worker.send::<Answer>(answer.map_err(Refusal::from));
    }
    Ok(())
}

impl Open {
    async fn obey(&mut self, worker: &Worker, order: Order) -> Result<String> {
        let done = || Ok(String::new());
        match order {
            Order::Listen(ask) => self.listen(worker, ask).await,
            Order::ListenOn(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                let listener = worker.listen_on(listener)?;
                Ok(self.serve(worker, listener, &Ask::default()))
            }
            Order::Close(address) => {
                let known = self.listeners.remove(&address).is_some()
                    | self.ignored.remove(&address).is_some()
                    | self.sockets.remove(&address).is_some();
                assert!(known, "{address} is not open");
                done()
            }
            Order::CloseIgnored(address) => {
                assert!(self.ignored.remove(&address).is_some(), "{address} is not open");
                done()
            }
            Order::Dropped(address) => Ok(self.listeners[&address].dropped.count().to_string()),
            Order::Udp(ask) => self.bind_udp(worker, ask).await,
            Order::SendTo(from, to) => {
                let sent = self.sockets[&from].socket.send_to(b"hello", to).await?;
                Ok(sent.to_string())
            }
            Order::Received(address) => Ok(self.sockets[&address].received.get().to_string()),
            Order::Join(address) => {
                let (group, local) = ("239.1.2.3".parse().unwrap(), "127.0.0.1".parse().unwrap());
                rustix::net::sockopt::set_ip_add_membership(
                    &*self.sockets[&address].socket,
                    &group,
                    &local,
                )
                .map_err(std::io::Error::from)?;
                done()
            }
            Order::GiveUp(address) => give_up(worker, &address).await,
            Order::StickThenClose(trap, address) => {
                trap::step_into(&trap);
                self.ignored.remove(&address);
                self.listeners.remove(&address);
                done()
            }
            Order::Stick(trap) => {
                trap::step_into(&trap);
                done()
            }
            Order::Leave => {
                worker.disconnect();
                worker.draining().await;
                done()
            }
            Order::Panic => panic!("it was told to"),
            Order::Ping => done(),
        }
    }

    async fn listen(&mut self, worker: &Worker, ask: Ask) -> Result<String> {
        let listener = worker.listen_with(&ask.address, options(&ask)).await?;
        Ok(self.serve(worker, listener, &ask))
    }

    /// The text of its address; with data, that behind a space.
    fn serve(&mut self, worker: &Worker, listener: Listener, ask: &Ask) -> String {
        let address = listener.address().to_string();
        let data = listener.data().map(|data| String::from_utf8(data.to_vec()).unwrap());
        let dropped = listener.dropped();
        if ask.ignore {
            self.ignored.insert(address.clone(), listener);
        } else {
            let _task = spawn(greet(worker.clone(), listener, ask.keep));
            self.listeners.insert(address.clone(), Served { _task, dropped });
        }
        data.map_or(address.clone(), |data| format!("{address} {data}"))
    }

    async fn bind_udp(&mut self, worker: &Worker, ask: UdpAsk) -> Result<String> {
        let options = UdpOptions::new()
            .exclusive(ask.exclusive)
            .reuse_port(ask.reuse_port)
            .reuse_address(ask.reuse_address)
            .ipv6_only(ask.ipv6_only);
        let socket = Rc::new(worker.bind_udp_with(&ask.address, options).await?);
        let address = socket.address().to_string();
        let received = Rc::new(Cell::new(0));
        let _task = spawn(echo(worker.clone(), socket.clone(), received.clone()));
        self.sockets.insert(address.clone(), Bound { socket, _task, received });
        Ok(address)
    }
}

fn options(ask: &Ask) -> ListenOptions {
    let mut options = ListenOptions::new()
        .exclusive(ask.exclusive)
        .reuse_port(ask.reuse_port)
        .ipv6_only(ask.ipv6_only)
        .defer_accept(ask.defer_accept)
        .drop_excess(ask.drop_excess)
        .readable_all(ask.open_to_all)
        .writable_all(ask.open_to_all);
    if let Some(backlog) = ask.backlog {
        options = options.backlog(backlog);
    }
    if let Some(max) = ask.max {
        options = options.max_connections(max);
    }
    if let Some(data) = &ask.data {
        options = options.data(data.clone());
    }
    options
}

/// Greets every connection with the worker's id.
async fn greet(worker: Worker, mut listener: Listener, keep: bool) -> Result<()> {
    while let Some(connection) = listener.accept().await? {
        let greeting = format!("{}\n", worker.id());
        spawn(async move {
            let _ = connection.write_all(greeting.as_bytes()).await;
            if keep {
                until_closed(&connection).await;
            }
        })
        .detach();
    }
    Ok(())
}

/// Sends back what comes, until the other side ends.
async fn until_closed(connection: &Connection) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
        let _ = connection.write_all(&buffer[..length]).await;
    }
}

/// Answers every datagram with the worker's id.
async fn echo(worker: Worker, socket: Rc<UdpSocket>, count: Rc<Cell<u64>>) {
    let mut buffer = [0; 64];
    while let Ok(Some((_, sender))) = socket.recv_from(&mut buffer).await {
        count.set(count.get() + 1);
        let _ = socket.send_to(worker.id().to_string().as_bytes(), sender).await;
    }
}

/// Polls a listen and a bind once each, then drops them.
async fn give_up(worker: &Worker, address: &str) -> Result<String> {
    let now = Duration::ZERO;
    let tcp = bimodal::event_loop::timeout(now, worker.listen(address)).await.is_ok();
    let udp = bimodal::event_loop::timeout(now, worker.bind_udp(address)).await.is_ok();
    Ok(format!("{tcp} {udp}"))
}

/// An address that nothing else on this machine uses: one of the loopback network's, by the test.
pub fn own_address(scene: &Scene, port: u16) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (scene.name, scene.mode, std::process::id()).hash(&mut hasher);
    let [a, b, c, ..] = hasher.finish().to_le_bytes();
    format!("127.{}.{}.{}:{port}", a.clamp(1, 254), b, c.clamp(1, 254))
}

/// The error that a refused order has, whatever its text.
#[track_caller]
pub fn refused(answer: &Answer, errno: rustix::io::Errno) {
    let refusal = answer.as_ref().expect_err("it was to be refused");
    assert_eq!(refusal.errno, Some(errno.raw_os_error()), "{refusal:?}");
    assert_eq!(refusal.kind, "Listen", "{refusal:?}");
}
