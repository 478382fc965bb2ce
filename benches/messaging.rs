//! What messages cost, in both modes: the round trip of 100 bytes, of fewer and of many more, one way in bulk, a socket
//! with a message. About three minutes.
//!
//! ```text
//! cargo bench --bench messaging
//! ```
//!
//! Each mode is measured twice: as it is, and with `idle_poll`, which spends a core on waiting.
//!
//! `floor` is what nobody gets below on this machine. There and back it is a bare socket pair: waking a sleeping thread or
//! process, twice. One way it is a bare channel of `crossbeam-channel` between threads, whose receiver never sleeps: most
//! of a text's cost is that one thread allocates it and another one frees it.
//!
//! Where `node` is installed the same is measured with `contenders/messaging_cluster.js` and
//! `contenders/messaging_threads.js` in the same run, and printed; it says so when it is not.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

use std::{
    io::{Read, Write},
    net::UdpSocket,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Command,
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, Error, ErrorKind, Event, Flow, Message, Mode, Port, Result, Worker, WorkerHandle,
    event_loop,
};
use criterion::{Criterion, Throughput};
use serde::{Deserialize, Serialize};

/// The clusters that are measured, and how long their idle loops look again before they sleep.
const CLUSTERS: [(&str, Duration); 2] =
    [("messaging", Duration::ZERO), ("messaging-idle-poll", Duration::from_micros(50))];

/// Makes this program the other side of the floor.
const ECHO: &str = "--floor-echo";

/// What goes one way: its name, how to send one to be thrown away, and how to have so many sent.
type OneWay = (&'static str, fn() -> Order, fn(u64) -> Order);

const ONE_WAY: [OneWay; 2] = [
    ("100_bytes", || Order::Swallow(text()), Order::Talk),
    ("100_plain_bytes", || Order::SwallowPlain(PLAIN), Order::TalkPlain),
];

/// Texts that go there and back besides those of 100 bytes, in bytes.
const SIZES: [usize; 4] = [16, 1 << 10, 64 << 10, 1 << 20];

/// Far more than any answer takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hundred bytes that are the message itself, where a text's are elsewhere: what has one thread allocate and another
/// one free is slow whoever carries it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Plain([[u8; 25]; 4]);

const PLAIN: Plain = Plain([[b'x'; 25]; 4]);

/// What the primary tells the worker to do.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Send this back.
    Echo(String),
    /// Throw this away.
    Swallow(String),
    /// Throw this away, too.
    SwallowPlain(Plain),
    /// Say that all before this was received.
    Mark,
    /// Send so many texts, then a mark.
    Talk(u64),
    /// Send so many plain values, then a mark.
    TalkPlain(u64),
    /// The message has a socket: drop it and say so.
    Take,
    /// The message has a port: send back what comes through it.
    Serve,
}

fn main() -> Result<()> {
    // In a worker process `launch` does not return, so a worker never reaches the measurement.
    if let Some(cluster) = CLUSTERS.iter().find(|(name, _)| bimodal::worker_of() == Some(name)) {
        launch(Mode::Process, *cluster)?;
    }
    if std::env::args().any(|arg| arg == ECHO) {
        echo(std::io::stdin(), std::io::stdout());
        return Ok(());
    }
    let time = Duration::from_secs(1);
    let criterion = Criterion::default().sample_size(20).warm_up_time(time);
    let mut criterion = criterion.measurement_time(2 * time).configure_from_args();
    measure_floor(&mut criterion)?;
    measure_bare_channel(&mut criterion);
    for mode in [Mode::Process, Mode::Thread] {
        for (name, idle_poll) in CLUSTERS {
            let cluster = launch(mode, (name, idle_poll))?;
            let worker = cluster.fork()?;
            let extra = if idle_poll.is_zero() { "" } else { "_with_idle_poll" };
            measure(&mut criterion, &format!("{mode}{extra}"), &cluster, &worker);
            if idle_poll.is_zero() {
                measure_sizes(&mut criterion, &format!("{mode}_by_size"), &cluster, &worker);
            }
            cluster.shutdown()?;
        }
    }
    criterion.final_summary();
    // Node's scripts have no short run, which `cargo test` would want.
    if std::env::args().any(|arg| arg == "--bench") {
        ["messaging_cluster.js", "messaging_threads.js"].into_iter().for_each(run_node);
    }
    Ok(())
}

/// What two sleeping threads or processes cost each other at the least: 100 bytes over a socket pair and
/// back, nothing but blocking reads and writes.
fn measure_floor(criterion: &mut Criterion) -> std::io::Result<()> {
    let mut group = criterion.benchmark_group("floor");
    let (near, far) = UnixStream::pair()?;
    let far = std::thread::spawn(move || echo(&far, &far));
    group.bench_function("round_trip_between_threads", |bencher| bencher.iter(|| ping(&near)));
    drop(near);
    far.join().expect("the other thread echoes to the end");
    let (near, far) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ECHO)
        .stdin(OwnedFd::from(far.try_clone()?))
        .stdout(OwnedFd::from(far))
        .spawn()?;
    group.bench_function("round_trip_between_processes", |bencher| bencher.iter(|| ping(&near)));
    drop(near);
    child.wait()?;
    group.finish();
    Ok(())
}

/// What one way costs at the least where memory is shared.
fn measure_bare_channel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_way_100_bytes", |bencher| {
        bencher.iter_custom(|times| one_way(times, text));
    });
    group.bench_function("one_way_100_plain_bytes", |bencher| {
        bencher.iter_custom(|times| one_way(times, || PLAIN));
    });
    group.finish();
}

fn one_way<T: Send>(times: u64, value: impl Fn() -> T) -> Duration {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut taken = 0;
            while taken < times {
                taken += u64::from(receiver.try_recv().is_ok());
            }
        });
        (0..times)
            .for_each(|_| sender.send(value()).expect("the other thread receives to the end"));
    });
    start.elapsed()
}

fn ping(mut stream: &UnixStream) {
    let mut bytes = [b'x'; 100];
    stream.write_all(&bytes).expect("the other side reads");
    stream.read_exact(&mut bytes).expect("the other side answers");
}

/// Sends back what comes, until nothing does.
fn echo(mut from: impl Read, mut to: impl Write) {
    let mut bytes = [0; 100];
    while from.read_exact(&mut bytes).is_ok() {
        if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn launch(mode: Mode, (name, idle_poll): (&str, Duration)) -> Result<Cluster> {
    Cluster::builder(mode).name(name).idle_poll(idle_poll).launch(obey)
}

fn text() -> String {
    "x".repeat(100)
}

async fn obey(worker: Worker) -> Result<()> {
    while let Some(mut message) = worker.recv().await {
        let handle = message.take_handle()?;
        match message.get::<Order>()? {
            Order::Echo(text) => {
                let _ = worker.send(text)?;
            }
            Order::Swallow(_) | Order::SwallowPlain(_) => {}
            Order::Mark => {
                let _ = worker.send(())?;
            }
            Order::Talk(times) => talk(&worker, times, text).await?,
            Order::TalkPlain(times) => talk(&worker, times, || PLAIN).await?,
            Order::Take => {
                drop(handle);
                let _ = worker.send(())?;
            }
            Order::Serve => {
                let port = handle.map(Port::try_from).transpose()?.expect("a port came");
                event_loop::spawn(serve(port)).detach();
            }
        }
    }
    Ok(())
}

async fn talk<T: Serialize + Send + 'static>(
    worker: &Worker,
    times: u64,
    value: impl Fn() -> T,
) -> Result<()> {
    for _ in 0..times {
        let mut value = value();
        while let Err(refused) = worker.send(value) {
            value = refused.into_value().0;
            event_loop::yield_now().await;
        }
    }
    worker.send(()).map(drop).map_err(Error::from)
}

/// Sends back each text; what comes with it is dropped first.
async fn serve(port: Port) {
    while let Some(mut message) = port.recv().await {
        drop(message.take_handle().expect("what was sent with it came, too"));
        let text = message.get::<String>().expect("a text came");
        if port.send(text).is_err() {
            return;
        }
    }
}

fn measure(criterion: &mut Criterion, name: &str, cluster: &Cluster, worker: &WorkerHandle) {
    let mut group = criterion.benchmark_group(name);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let copy = || socket.try_clone().expect("a copy of the socket");
    group.bench_function("round_trip_100_bytes", |bencher| {
        bencher.iter(|| {
            send(worker, Order::Echo(text()));
            answer::<String>(cluster)
        });
    });
    group.bench_function("socket_with_a_message", |bencher| {
        bencher.iter(|| {
            let _ = worker.send_with(Order::Take, copy()).expect("the worker takes it");
            answer::<()>(cluster);
        });
    });
    let (near, far) = cluster.channel().expect("a channel");
    let _ = worker.send_with(Order::Serve, far).expect("the worker takes it");
    let echoed = || near.recv_timeout(PATIENCE).expect("an answer before the deadline");
    group.bench_function("round_trip_100_bytes_by_port", |bencher| {
        bencher.iter(|| {
            let _ = near.send(text()).expect("the port is open");
            echoed()
        });
    });
    group.bench_function("socket_with_a_message_by_port", |bencher| {
        bencher.iter(|| {
            let _ = near.send_with(String::new(), copy()).expect("the port is open");
            echoed()
        });
    });
    group.throughput(Throughput::Elements(1));
    for (what, swallow, talk) in ONE_WAY {
        group.bench_function(format!("one_way_down_{what}"), |bencher| {
            bencher.iter_custom(|times| {
                let start = Instant::now();
                (0..times).for_each(|_| send(worker, swallow()));
                send(worker, Order::Mark);
                answer::<()>(cluster);
                start.elapsed()
            });
        });
        group.bench_function(format!("one_way_up_{what}"), |bencher| {
            bencher.iter_custom(|times| {
                let start = Instant::now();
                send(worker, talk(times));
                answer::<()>(cluster);
                start.elapsed()
            });
        });
    }
    group.finish();
}

/// The same text goes to and fro: between processes it is encoded and decoded on each way, between threads it is moved.
fn measure_sizes(criterion: &mut Criterion, name: &str, cluster: &Cluster, worker: &WorkerHandle) {
    let mut group = criterion.benchmark_group(name);
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("round_trip_{size}_bytes"), |bencher| {
            bencher.iter_custom(|times| {
                let mut text = "x".repeat(size);
                let start = Instant::now();
                for _ in 0..times {
                    send(worker, Order::Echo(text));
                    text = answer::<String>(cluster).get().expect("a text came back");
                }
                let time = start.elapsed();
                assert_eq!(text.len(), size);
                time
            });
        });
    }
    group.finish();
}

/// Sends, as fast as there is room.
fn send(worker: &WorkerHandle, mut order: Order) {
    loop {
        match worker.send(order) {
            Ok(Flow::Go | Flow::Slow) => return,
            Err(refused) => {
                assert_eq!(refused.kind(), ErrorKind::Full);
                order = refused.into_value().0;
                std::thread::yield_now();
            }
        }
    }
}

/// Waits for the next message of this type.
fn answer<T: 'static>(cluster: &Cluster) -> Message {
    loop {
        match cluster.next_event_timeout(PATIENCE).expect("an event before the deadline") {
            Event::Message { message, .. } if message.is::<T>() => return message,
            Event::Exit { status, .. } => panic!("the worker has ended: {status}"),
            _ => {}
        }
    }
}

fn run_node(script: &str) {
    let path = format!("{}/benches/contenders/{script}", env!("CARGO_MANIFEST_DIR"));
    match Command::new("node").arg(path).status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{script} failed: {status}"),
        Err(error) => eprintln!("NOT COMPARED: {script} was not run: node: {error}"),
    }
}
