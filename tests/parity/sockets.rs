//! Sockets and listeners that go with a message, to a worker and to the primary.

use std::{
    io::{ErrorKind::WouldBlock, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
};

use bimodal::{
    Connection, ErrorKind, Event, Handle, HandleKind, Message, Mode, Worker, event_loop,
};
use event_loop::Source;
use mio::Interest;

use crate::{
    bodies::{fork_stuck, get_stuck, idle},
    support::{
        DEADLINE, Scenario, Scene, both,
        events::{next_message, until_named},
        only,
        trap::Trap,
        wait_until,
    },
};

/// Where a handle travels as a descriptor.
const PROCESS: &[Mode] = &[Mode::Process];
const THREAD: &[Mode] = &[Mode::Thread];

pub const SCENARIOS: &[Scenario] = &[
    both("a_connection_is_the_workers_once_it_is_sent", to_a_worker)
        .proves(&["MSG-17", "MSG-28"])
        .proves_in(THREAD, &["THR-51"]),
    both("a_connection_is_the_primarys_once_it_is_sent", to_the_primary).proves(&["MSG-18"]),
    both("a_copy_that_is_kept_writes_to_the_same_connection", kept).proves(&["MSG-19"]),
    both("a_listener_that_was_sent_accepts_on_both_sides", listener)
        .proves(&["MSG-25"])
        .proves_in(THREAD, &["THR-51"]),
    both("a_udp_socket_that_was_sent_receives_on_both_sides", udp).proves(&["MSG-26"]),
    both("unix_sockets_go_with_messages_both_ways", unix),
    both("messages_keep_their_order_with_sockets_among_them", order)
        .proves(&["MSG-03"])
        .proves_in(PROCESS, &["MSG-20"]),
    both("sockets_that_nobody_takes_fill_the_way", full),
    both("a_handle_of_the_wrong_kind_is_an_error_that_names_both", wrong_kind),
    // With memory shared there is one copy, and no descriptor can be missing.
    only(PROCESS, "a_socket_under_way_stays_open", under_way).proves(&["MSG-24"]),
    only(PROCESS, "a_message_arrives_though_its_socket_cannot", scarce).proves(&["MSG-23"]),
];

/// A connection: this side's end, and the one to give away.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_read_timeout(Some(DEADLINE)).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// Each is a descriptor: the bound is one of hundreds, and whoever comes to it keeps the socket.
fn full(scene: &Scene) {
    let cluster = scene.builder().launch(|_| std::future::pending::<()>()).unwrap();
    let worker = cluster.fork().unwrap();
    let (_peer, socket) = connected();
    let send = |_| worker.send_with("take it", socket.try_clone().unwrap());
    let refused: Vec<_> = (0..513).map(send).filter_map(Result::err).collect();
    // Texts between processes have a length of their own.
    assert!((1..=2).contains(&refused.len()), "{refused:?}");
    for refused in refused {
        assert_eq!(refused.kind(), ErrorKind::Full);
        assert_eq!(refused.into_value().1.unwrap().kind(), HandleKind::TcpStream);
    }
    worker.kill().unwrap();
    until_named(&cluster, "exit", 1);
}

fn ask(mut stream: impl std::io::Read + std::io::Write, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Answers everything that comes with the worker's id in front, until the end.
async fn answer(worker: &Worker, connection: &Connection) {
    let mut text = [0; 64];
    loop {
        let length = connection.read(&mut text).await.unwrap();
        if length == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&text[..length]);
        let answer = format!("{}:{text}", worker.id());
        connection.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Serves each stream that comes, one after the other.
async fn serve(worker: Worker) {
    while let Some(mut message) = worker.recv().await {
        let connection = match message.take_handle().unwrap().unwrap() {
            Handle::TcpStream(stream) => worker.adopt(stream).unwrap(),
            Handle::UnixStream(stream) => worker.adopt(stream).unwrap(),
            other => panic!("{other:?}"),
        };
        answer(&worker, &connection).await;
    }
}

fn to_a_worker(scene: &Scene) {
    let cluster = scene.builder().launch(serve).unwrap();
    let worker = cluster.fork().unwrap();
    let (mut ours, theirs) = connected();
    let _ = worker.send_with("yours", theirs).unwrap();
    assert_eq!(ask(&mut ours, "a"), "1:a");
    assert_eq!(ask(&mut ours, "b"), "1:b");
    assert_eq!(worker.stats().connections_open, 1, "it counts where it is");
    // It is nobody's but the worker's: the end comes when the worker drops it.
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    wait_until("the count", || open(&cluster) == 0);
}

fn to_the_primary(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let mut listener = worker.listen("127.0.0.1:0").await.unwrap();
            while let Some(connection) = listener.accept().await.unwrap() {
                let _ = worker.send_with(String::from("accepted"), connection).unwrap();
            }
        })
        .unwrap();
    cluster.fork().unwrap();
    let address = until_named(&cluster, "listening", 1).addresses()[0].tcp().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let stream = TcpStream::try_from(next_handle(&cluster)).unwrap();
    stream.set_nonblocking(false).unwrap();
    (&stream).write_all(b"from the primary").unwrap();
    assert_eq!(ask(&mut client, "and back"), "from the primary");
    assert_eq!(ask(&stream, ""), "and back");
    assert_eq!(open(&cluster), 0, "it left the worker");
    drop(stream);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "nobody else holds it");
}

/// Connections that are open in the workers.
fn open(cluster: &bimodal::Cluster) -> u64 {
    cluster.stats().iter().map(|row| row.connections_open).sum()
}

/// The handle of the next message.
fn next_handle(cluster: &bimodal::Cluster) -> Handle {
    next(cluster).take_handle().unwrap().unwrap()
}

fn next(cluster: &bimodal::Cluster) -> Message {
    let mut seen = until_named(cluster, "message", 1);
    let Some(Event::Message { message, .. }) = seen.0.pop() else { unreachable!() };
    message
}

fn kept(scene: &Scene) {
    let cluster = scene.builder().launch(serve).unwrap();
    let worker = cluster.fork().unwrap();
    let (mut ours, theirs) = connected();
    let mut kept = theirs.try_clone().unwrap();
    let _ = worker.send_with("ours", theirs).unwrap();
    assert_eq!(ask(&mut ours, "a"), "1:a");
    wait_until("room in the socket", || kept.write_all(b"kept").is_ok());
    assert_eq!(ask(&mut ours, ""), "kept");
    // The worker's end is not the end of the connection.
    worker.kill().unwrap();
    until_named(&cluster, "exit", 1);
    kept.write_all(b"still").unwrap();
    assert_eq!(ask(&mut ours, ""), "still");
}

fn listener(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let mut message = worker.recv().await.unwrap();
            let listener = TcpListener::try_from(message.take_handle().unwrap().unwrap()).unwrap();
            let listener = Source::new(listener, Interest::READABLE).unwrap();
            let (stream, _) = listener.read_io(TcpListener::accept).await.unwrap();
            answer(&worker, &worker.adopt(stream).unwrap()).await;
            drop(listener);
            let _ = worker.send("done").unwrap();
            idle(worker).await;
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let _ = worker.send_with("listen", listener.try_clone().unwrap()).unwrap();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    // Nobody accepts here, so the worker does.
    assert_eq!(ask(connect(), "a"), "1:a");
    assert_eq!(next_message::<String>(&cluster).1, "done");
    let client = connect();
    let mut accepted = None;
    wait_until("a connection here", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    accepted.unwrap().0.write_all(b"primary").unwrap();
    assert_eq!(ask(client, ""), "primary");
}

fn udp(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let mut message = worker.recv().await.unwrap();
            let socket = UdpSocket::try_from(message.take_handle().unwrap().unwrap()).unwrap();
            let socket = Source::new(socket, Interest::READABLE).unwrap();
            let mut datagram = [0; 16];
            let (length, peer) =
                socket.read_io(|socket| socket.recv_from(&mut datagram)).await.unwrap();
            socket.get_ref().send_to(&datagram[..length], peer).unwrap();
            let _ = worker.send("done").unwrap();
            idle(worker).await;
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = worker.send_with("receive", socket.try_clone().unwrap()).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    client.send(b"one").unwrap();
    let mut datagram = [0; 16];
    assert_eq!(client.recv(&mut datagram).unwrap(), 3, "the worker answered");
    assert_eq!(next_message::<String>(&cluster).1, "done");
    client.send(b"four").unwrap();
    wait_until("a datagram here", || socket.recv_from(&mut datagram).is_ok());
    assert_eq!(&datagram[..4], b"four");
}

fn unix(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            while let Some(mut message) = worker.recv().await {
                let handle = message.take_handle().unwrap().unwrap();
                let _ = worker.send_with(handle.kind().to_string(), handle).unwrap();
            }
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let _ = worker.send_with(1_u8, theirs).unwrap();
    let back = UnixStream::try_from(next_handle(&cluster)).unwrap();
    (&back).write_all(b"through").unwrap();
    assert_eq!(ask(&mut ours, ""), "through");
    let path =
        std::env::temp_dir().join(format!("{}-{}-{}", scene.name, scene.mode, std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let _ = worker.send_with(2_u8, listener).unwrap();
    let listener = UnixListener::try_from(next_handle(&cluster)).unwrap();
    let client = UnixStream::connect(&path);
    std::fs::remove_file(&path).unwrap();
    listener.accept().unwrap().0.write_all(b"accepted").unwrap();
    assert_eq!(ask(client.unwrap(), ""), "accepted");
}

fn order(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            while let Some(mut message) = worker.recv().await {
                let handle = message.take_handle().unwrap();
                let number = message.get::<Vec<u32>>().unwrap();
                let sent = match handle {
                    Some(handle) => worker.send_with(number, handle).map(drop),
                    None => worker.send(number).map(drop),
                };
                sent.unwrap();
            }
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let length = |number: u32| if number.is_multiple_of(50) { 40_000 } else { 1 };
    for number in 0..300_u32 {
        let value = vec![number; length(number)];
        let sent = match number % 3 {
            0 => worker.send_with(value, UdpSocket::bind("127.0.0.1:0").unwrap()).map(drop),
            _ => worker.send(value).map(drop),
        };
        sent.unwrap();
    }
    let seen = until_named(&cluster, "message", 300);
    let messages = seen.0.into_iter().filter_map(|event| match event {
        Event::Message { message, .. } => Some(message),
        _ => None,
    });
    for (number, message) in (0_u32..).zip(messages) {
        let kind = (number % 3 == 0).then_some(HandleKind::UdpSocket);
        assert_eq!(message.handle_kind(), kind, "{number}");
        assert_eq!(message.get::<Vec<u32>>().unwrap(), vec![number; length(number)]);
    }
}

fn wrong_kind(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let mut message = worker.recv().await.unwrap();
            let handle = message.take_handle().unwrap().unwrap();
            let error = TcpStream::try_from(handle).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Type);
            assert!(message.take_handle().unwrap().is_none(), "it was taken");
            let _ = worker.send(error.to_string()).unwrap();
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send_with(1_u8, UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let text = next_message::<String>(&cluster).1;
    assert!(text.contains("`UdpSocket`") && text.contains("`TcpStream`"), "{text}");
}

fn under_way(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            get_stuck(&worker).await;
            serve(worker).await;
        })
        .unwrap();
    let (worker, stuck) = fork_stuck(&cluster, &trap);
    let (mut ours, theirs) = connected();
    let _ = worker.send_with(1_u8, theirs).unwrap();
    worker.flush(DEADLINE).unwrap();
    // The sender's copy is gone and nobody has received it.
    ours.write_all(b"early").unwrap();
    ours.set_nonblocking(true).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), WouldBlock);
    ours.set_nonblocking(false).unwrap();
    drop(stuck);
    assert_eq!(ask(&mut ours, ""), "1:early");
}

fn scarce(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let null = || std::fs::File::open("/dev/null");
            limit_descriptors();
            let files: Vec<_> = std::iter::from_fn(|| null().ok()).collect();
            let _ = worker.send("full").unwrap();
            let mut message = worker.recv().await.unwrap();
            drop(files);
            let kind = message.handle_kind().unwrap().to_string();
            let error = message.take_handle().unwrap_err();
            assert_eq!(message.get::<u32>().unwrap(), 7, "the value came");
            let _ = worker.send((kind, error.to_string(), error.raw_os_error())).unwrap();
            serve(worker).await;
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "full");
    let (mut ours, theirs) = connected();
    let _ = worker.send_with(7_u32, theirs).unwrap();
    let (kind, text, errno) = next_message::<(String, String, Option<i32>)>(&cluster).1;
    assert_eq!((kind.as_str(), errno), ("TcpStream", Some(24)), "{text}");
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "what could not be received is closed");
    let (ours, theirs) = connected();
    let _ = worker.send_with(8_u32, theirs).unwrap();
    assert_eq!(ask(ours, "a"), "1:a");
}

/// To as many as are open, and a few.
fn limit_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    setrlimit(Resource::Nofile, limit).unwrap();
}
