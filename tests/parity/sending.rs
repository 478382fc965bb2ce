//! What a send promises: refused with everything given back, receipts, order around the end.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use bimodal::{Codec, ErrorKind, Event, ExitStatus, Flow, Mode, Worker, event_loop};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    bodies::{fork_stuck, get_stuck, idle},
    support::{
        DEADLINE, Scenario, Scene, both,
        events::{next_message, to_the_end, until, until_named},
        only,
        trap::{Trap, step_into},
    },
};

/// Where messages are encoded, and a process can end without its queue.
const PROCESS: &[Mode] = &[Mode::Process];
/// Where messages are moved.
const THREAD: &[Mode] = &[Mode::Thread];

pub const SCENARIOS: &[Scenario] = &[
    both("a_refused_send_gives_everything_back", refused).proves(&["MSG-06", "ERR-06"]),
    // Only what is encoded can fail to be.
    only(PROCESS, "a_value_that_cannot_be_encoded_is_refused", unencodable)
        .proves(&["MSG-08", "THR-25", "THR-27"]),
    only(PROCESS, "either_codec_keeps_what_it_can_express", codecs).proves(&["MSG-10", "FORK-26"]),
    // Only what is moved needs no encoding.
    only(THREAD, "a_value_that_no_codec_takes_is_moved_all_the_same", moved).proves(&["FORK-26"]),
    both("a_worker_is_slowed_then_refused_then_goes_on", slowed).proves(&["MSG-04", "MSG-07"]),
    both("a_receipt_says_that_a_message_has_left_and_no_more", receipts).proves(&["MSG-05"]),
    // A thread's queue outlives it.
    only(PROCESS, "what_was_flushed_arrives_though_the_worker_exits", flushed).proves(&["MSG-35"]),
    both("everything_arrives_before_the_exit", before_exit).proves(&["THR-08", "EVT-33"]),
    both("what_was_sent_comes_before_the_news_to_leave", before_the_news).proves(&["MSG-33"]),
    both("a_worker_that_leaves_can_still_be_sent_to", while_leaving).proves(&["MSG-32"]),
    both("a_disconnect_is_news_of_a_later_turn", later).proves(&["MSG-36"]),
    both("a_worker_with_nothing_to_do_stays", stays).proves(&["MSG-37"]),
    both("senders_survive_the_worker", senders).proves(&["MSG-30"]),
    both("what_a_dead_worker_did_not_take_is_closed", lost).proves(&["MSG-29", "EVT-19"]),
    // A process that is left behind is killed.
    only(THREAD, "a_thread_that_was_left_behind_sends_to_nobody", left_behind)
        .proves(&["MSG-07", "EVT-28"]),
    both("no_message_is_taken_for_a_command", disguised).proves(&["MSG-11"]),
    both("what_nobody_asked_for_is_passed_over", unexpected).proves(&["MSG-12"]),
    both("messages_can_be_looked_at_and_left", peeked),
    both("a_worker_that_takes_nothing_shows_in_its_beats", still).proves_in(PROCESS, &["MSG-39"]),
];

/// A connection: this side's end, and the one to give away.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_read_timeout(Some(DEADLINE)).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn refused(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let worker = cluster.fork().unwrap();
    worker.disconnect().unwrap();
    until_named(&cluster, "exit", 1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let refused = worker.send_with(String::from("value"), socket).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert!(refused.to_string().contains("is gone"), "{refused}");
    let (value, handle) = refused.into_value();
    assert_eq!(value, "value");
    let socket = UdpSocket::try_from(handle.unwrap()).unwrap();
    assert_eq!(socket.local_addr().unwrap(), address);
    let refused = worker.send("text").unwrap_err();
    assert_eq!(refused.into_value().0, "text");
    assert_eq!(worker.send_tracked(1_u8).unwrap_err().kind(), ErrorKind::Closed);
    let error: bimodal::Error = worker.send(1_u8).unwrap_err().into();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Refuses to be encoded.
#[derive(Debug, Deserialize)]
struct Stubborn(u8);

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not this one"))
    }
}

fn unencodable(scene: &Scene) {
    let cluster = scene.builder().max_message(1000).launch(count_handles).unwrap();
    let worker = cluster.fork().unwrap();
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = worker.send_with(Stubborn(7), socket()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Codec);
    assert!(refused.to_string().contains("not this one"), "{refused}");
    let (Stubborn(value), handle) = refused.into_value();
    assert_eq!(value, 7);
    let refused = worker.send_with("x".repeat(2000), handle.unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    let (_, handle) = refused.into_value();
    let _ = worker.send_with(String::from("fits"), handle.unwrap()).unwrap();
    // Nothing of what was refused has left.
    assert_eq!(next_message::<(u32, u32)>(&cluster).1, (1, 1));
}

/// Tells after each message how many came, and how many handles.
async fn count_handles(worker: Worker) {
    let (mut messages, mut handles) = (0_u32, 0_u32);
    while let Some(mut message) = worker.recv().await {
        messages += 1;
        handles += u32::from(message.take_handle().unwrap().is_some());
        let _ = worker.send((messages, handles)).unwrap();
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rich {
    by_number: BTreeMap<u32, String>,
    nested: Vec<Option<Box<Rich>>>,
    bytes: Vec<u8>,
    largest: u64,
    least: i64,
    unit: (),
    #[serde(default)]
    absent: Option<f64>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Kind {
    Empty,
    Named { text: String },
}

fn codecs(scene: &Scene) {
    let leaf = Rich {
        by_number: BTreeMap::from([(7, "sieben".into()), (u32::MAX, "größte".into())]),
        nested: vec![None],
        bytes: (0..=255).collect(),
        largest: u64::MAX,
        least: i64::MIN,
        unit: (),
        absent: None,
        kind: Kind::Named { text: "\u{1F980}\0".into() },
    };
    let rich = Rich { nested: vec![Some(Box::new(leaf.clone())), None], kind: Kind::Empty, ..leaf };
    // All are launched before one is used: in a worker of the second the first does nothing.
    let clusters = [Codec::MessagePack, Codec::Json].map(|codec| {
        let builder = scene.another(scene.mode, &codec.to_string());
        (codec, builder.codec(codec).launch(echo_and_nan).unwrap())
    });
    for unknown in ["advanced", "JSON", ""] {
        let error = unknown.parse::<Codec>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains("must be message-pack or json"), "{error}");
    }
    for (codec, cluster) in clusters {
        assert_eq!(cluster.settings().codec, Some(codec));
        let worker = cluster.fork().unwrap();
        let _ = worker.send(rich.clone()).unwrap();
        assert_eq!(next_message::<Rich>(&cluster).1, rich, "{codec}");
        let mut seen = until_named(&cluster, "message", 1);
        let Some(Event::Message { message, .. }) = seen.0.pop() else { unreachable!() };
        match (codec, message.get::<f64>()) {
            (Codec::MessagePack, Ok(number)) => assert!(number.is_nan()),
            // JSON has no NaN.
            (_, number) => assert_eq!(number.unwrap_err().kind(), ErrorKind::Codec),
        }
    }
}

async fn echo_and_nan(worker: Worker) {
    let rich = worker.recv().await.unwrap().get::<Rich>().unwrap();
    let _ = worker.send(rich).unwrap();
    let _ = worker.send(f64::NAN).unwrap();
    idle(worker).await;
}

fn moved(scene: &Scene) {
    for codec in [Codec::MessagePack, Codec::Json] {
        let error = scene.builder().codec(codec).launch(idle).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains("`codec`"), "{error}");
    }
    let cluster = scene.builder().max_message(1).launch(send_back).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(Stubborn(7)).unwrap();
    assert_eq!(next_message::<Stubborn>(&cluster).1.0, 7);
}

async fn send_back(worker: Worker) {
    let value = worker.recv().await.unwrap().get::<Stubborn>().unwrap();
    let _ = worker.send(value).unwrap();
    idle(worker).await;
}

fn slowed(scene: &Scene) {
    let cluster = scene.builder().launch(send_until_refused).unwrap();
    let worker = cluster.fork().unwrap();
    // Not a message is taken until the worker was refused, which it says on a connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _ = worker.send(listener.local_addr().unwrap().to_string()).unwrap();
    let mut told = [0; 1];
    listener.accept().unwrap().0.read_exact(&mut told).unwrap();
    assert_eq!(told, [1], "it was slowed before it was refused");
    let mut count = 0;
    let seen = until(&cluster, "the last", |event| {
        let Event::Message { message, .. } = event else { return false };
        if let Ok(number) = message.peek::<u32>() {
            assert_eq!(number, count, "nothing is lost or overtaken");
            count += 1;
        }
        message.is::<u64>()
    });
    let last = seen.messages::<u64>();
    assert_eq!(last[0].1, u64::from(count), "what was refused came back, the rest arrived");
}

async fn send_until_refused(worker: Worker) {
    let address = worker.recv().await.unwrap().get::<String>().unwrap();
    let (mut sent, mut slowed) = (0_u32, false);
    let refused = loop {
        match worker.send(sent) {
            Ok(flow) => slowed |= flow == Flow::Slow,
            Err(refused) => break refused,
        }
        sent += 1;
    };
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert_eq!(refused.into_value().0, sent);
    use std::io::Write as _;
    TcpStream::connect(address).unwrap().write_all(&[u8::from(slowed)]).unwrap();
    while worker.send(u64::from(sent)).is_err() {
        event_loop::sleep(Duration::from_millis(1)).await;
    }
    idle(worker).await;
}

fn receipts(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().launch(count_after_the_trap).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(trap.address()).unwrap();
    let stuck = trap.caught();
    // It receives nothing, and the message has left all the same.
    worker.send_tracked(vec![0_u8]).unwrap().wait(DEADLINE).unwrap();
    let large = || vec![7_u8; 4 << 20];
    let receipt = worker.send_tracked(large()).unwrap();
    if scene.is_process() {
        // The kernel does not hold that much. A queue in memory does.
        assert_eq!(receipt.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(worker.flush(Duration::ZERO).unwrap_err().kind(), ErrorKind::Full);
    }
    drop(stuck);
    receipt.wait(DEADLINE).unwrap();
    receipt.wait(Duration::ZERO).unwrap();
    worker.flush(DEADLINE).unwrap();
    worker.disconnect().unwrap();
    // A receipt in the worker is a future.
    assert_eq!(next_message::<u32>(&cluster).1, 2);
    until_named(&cluster, "exit", 1);
    assert_eq!(worker.flush(DEADLINE).is_err(), scene.is_process());
}

async fn count_after_the_trap(worker: Worker) {
    let mut count = 0_u32;
    get_stuck(&worker).await;
    while worker.recv().await.is_some() {
        count += 1;
    }
    worker.send_tracked(count).unwrap().await.unwrap();
}

fn flushed(scene: &Scene) {
    let cluster = scene.builder().launch(flush_and_abort).unwrap();
    cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exits().next().unwrap().1.signal(), Some(6));
    assert_eq!(seen.messages::<Vec<u8>>().len(), 50);
}

async fn flush_and_abort(worker: Worker) {
    for _ in 0..50 {
        let _ = worker.send(vec![7_u8; 100_000]).unwrap();
    }
    worker.flush().await.unwrap();
    std::process::abort()
}

const MANY: u32 = 20_000;

fn before_exit(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            (0..MANY).for_each(|number| assert!(worker.send(number).is_ok()));
            match worker.id().get() {
                1 => Ok(()),
                2 => Err("no more"),
                _ => {
                    // In a process the way out is flushed first, as when it returns.
                    worker.flush().await.unwrap();
                    worker.kill();
                    std::future::pending().await
                }
            }
        })
        .unwrap();
    for _ in 0..3 {
        let worker = cluster.fork().unwrap();
        let seen = to_the_end(&cluster);
        let mut names = seen.names(Some(worker.id()));
        names.dedup();
        names.retain(|name| *name != "error");
        assert_eq!(names, ["fork", "online", "message", "disconnect", "exit"]);
        let errors = seen.names(Some(worker.id())).into_iter().filter(|name| *name == "error");
        assert!(errors.count() <= 1);
        let numbers = seen.messages::<u32>().into_iter().map(|(_, number)| number);
        assert!(numbers.eq(0..MANY));
    }
}

fn before_the_news(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            worker.draining().await;
            let there = std::iter::from_fn(|| worker.try_recv()).count();
            let _ = worker.send(there as u32).unwrap();
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    for _ in 0..50 {
        let _ = worker.send(vec![1_u8; 64 << 10]).unwrap();
    }
    worker.disconnect().unwrap();
    assert_eq!(next_message::<u32>(&cluster).1, 50);
}

fn while_leaving(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            worker.draining().await;
            let _ = worker.send("draining").unwrap();
            let message = loop {
                match worker.try_recv() {
                    Some(message) => break message.get::<String>().unwrap(),
                    None => event_loop::sleep(Duration::from_millis(1)).await,
                }
            };
            let _ = worker.send(message).unwrap();
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    worker.disconnect().unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "draining");
    let _ = worker.send("after").unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "after");
    until_named(&cluster, "disconnect", 1);
    assert_eq!(worker.send("too late").unwrap_err().kind(), ErrorKind::Closed);
}

fn later(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            worker.disconnect();
            let within = worker.is_draining();
            worker.disconnect();
            worker.draining().await;
            let _ = worker.send(within).unwrap();
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    assert!(!next_message::<bool>(&cluster).1, "the news came within the call");
    // Until the channel is closed a further call is no error and changes nothing.
    if worker.is_connected() {
        let _ = worker.disconnect();
    }
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(Some(worker.id())), ["disconnect", "exit"]);
    assert_eq!(worker.disconnect().unwrap_err().kind(), ErrorKind::Closed);
}

fn stays(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            if worker.id().get() > 1 {
                return;
            }
            while let Some(message) = worker.recv().await {
                let _ = worker.send(message.get::<u32>().unwrap()).unwrap();
            }
        })
        .unwrap();
    let idler = cluster.fork().unwrap();
    for number in 0..3_u32 {
        let other = cluster.fork().unwrap();
        until(&cluster, "an end", |event| event.name() == "exit");
        assert!(other.is_dead() && !idler.is_dead());
        let _ = idler.send(number).unwrap();
        assert_eq!(next_message::<u32>(&cluster).1, number);
    }
}

fn senders(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    for _ in 0..3 {
        let worker = cluster.fork().unwrap();
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let worker = worker.clone();
                std::thread::spawn(move || {
                    loop {
                        match worker.send(vec![1_u8; 1000]) {
                            Err(error) if error.kind() == ErrorKind::Closed => return,
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
                            Ok(_) => {}
                        }
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        until_named(&cluster, "online", 1);
        worker.kill().unwrap();
        until_named(&cluster, "exit", 1);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert!(worker.send_with(1_u8, UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
        assert!(worker.kill().is_err() && worker.disconnect().is_err());
    }
}

fn lost(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            get_stuck(&worker).await;
            idle(worker).await;
        })
        .unwrap();
    let (worker, _stuck) = fork_stuck(&cluster, &trap);
    let (mut under_way, theirs) = connected();
    let _ = worker.send_with(1_u8, theirs).unwrap();
    let _ = worker.send(vec![1_u8; 4 << 20]).unwrap();
    let (mut queued, theirs) = connected();
    let _ = worker.send_with(2_u8, theirs).unwrap();
    let receipt = worker.send_tracked(3_u8).unwrap();
    worker.kill().unwrap();
    let seen = until_named(&cluster, "exit", 1);
    let names = seen.names(Some(worker.id()));
    assert_eq!(names, ["fork", "online", "disconnect", "exit"]);
    // With memory shared it had left this side.
    assert_eq!(receipt.wait(DEADLINE).is_err(), scene.is_process());
    for peer in [&mut under_way, &mut queued] {
        let read = peer.read(&mut [0]);
        let waits = matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(matches!(read, Ok(0) | Err(_)) && !waits, "somebody holds it");
    }
}

fn left_behind(scene: &Scene) {
    let (tell, told) = std::sync::mpsc::channel();
    let trap = Trap::new();
    let body = move |worker: Worker| {
        let tell = tell.clone();
        async move {
            get_stuck(&worker).await;
            let refused =
                worker.send(7_u8).map_err(|refused| (refused.kind(), refused.into_value().0));
            tell.send(refused).unwrap();
        }
    };
    let cluster = scene.builder().launch(body).unwrap();
    let (worker, stuck) = fork_stuck(&cluster, &trap);
    worker.kill().unwrap();
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Abandoned);
    drop(stuck);
    assert_eq!(told.recv_timeout(DEADLINE).unwrap().unwrap_err(), (ErrorKind::Closed, 7));
}

/// As the crate's own notes may look.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Note {
    Disconnect,
    Command { cmd: String, act: String },
}

fn notes() -> [Note; 2] {
    [Note::Disconnect, Note::Command { cmd: "NODE_CLUSTER".into(), act: "disconnect".into() }]
}

/// What looks like the crate's own, in either direction, is a message like any other.
fn disguised(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            notes().into_iter().for_each(|note| assert!(worker.send(note).is_ok()));
            (0..=20_u8).for_each(|kind| assert!(worker.send(vec![kind]).is_ok()));
            let mut came = 0_u32;
            while worker.recv().await.is_some() {
                came += 1;
                let _ = worker.send((came, worker.is_draining())).unwrap();
            }
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let seen = until_named(&cluster, "message", 23);
    let mut messages = seen.0.into_iter().filter_map(|event| match event {
        Event::Message { message, .. } => Some(message),
        _ => None,
    });
    for note in notes() {
        assert_eq!(messages.next().unwrap().get::<Note>().unwrap(), note);
    }
    for kind in 0..=20_u8 {
        assert_eq!(messages.next().unwrap().get::<Vec<u8>>().unwrap(), [kind]);
    }
    notes().into_iter().for_each(|note| assert!(worker.send(note).is_ok()));
    (0..=20_u8).for_each(|kind| assert!(worker.send(vec![kind]).is_ok()));
    let seen = until_named(&cluster, "message", 23);
    assert_eq!(seen.names(None).len(), 23, "and nothing else comes of them");
    let answers = seen.messages::<(u32, bool)>();
    assert!(answers.iter().all(|(_, (_, draining))| !draining), "{answers:?}");
}

fn unexpected(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            // The answer will find nobody who waits for it.
            let listen = worker.listen("127.0.0.1:0");
            assert!(event_loop::timeout(Duration::ZERO, listen).await.is_err());
            forge();
            while let Some(message) = worker.recv().await {
                let _ = worker.send(message.get::<u32>().unwrap()).unwrap();
            }
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(7_u32).unwrap();
    assert_eq!(next_message::<u32>(&cluster).1, 7);
    worker.disconnect().unwrap();
    assert_eq!(to_the_end(&cluster).exit(worker.id()).code(), Some(0));
}

/// In a worker process: acknowledges connections and messages that never were.
fn forge() {
    let Some(channel) = crate::process::hostile::channel_of_a_worker() else { return };
    let ids = |kind: u8| [&[kind, 1, 0, 0, 0][..], &99_u64.to_le_bytes()].concat();
    let taken = [&[18][..], &u32::MAX.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    for packet in [ids(11), ids(12), taken] {
        rustix::net::send(&channel, &packet, rustix::net::SendFlags::NOSIGNAL).unwrap();
    }
}

fn peeked(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let _ = worker.send(vec![1_u32, 2]).unwrap();
            idle(worker).await;
        })
        .unwrap();
    cluster.fork().unwrap();
    let mut seen = until_named(&cluster, "message", 1);
    let Some(Event::Message { message, .. }) = seen.0.pop() else { unreachable!() };
    assert_eq!(message.peek::<String>().unwrap_err().kind(), ErrorKind::Type);
    assert_eq!(message.peek::<Vec<u32>>().unwrap(), [1, 2]);
    assert_eq!(message.get::<Vec<u32>>().unwrap(), [1, 2]);
}

fn still(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().launch(trapped_echo).unwrap();
    let [stuck, healthy] = [(); 2].map(|()| cluster.fork().unwrap());
    until_named(&cluster, "online", 2);
    let _ = stuck.send(trap.address()).unwrap();
    let _ = healthy.send(String::new()).unwrap();
    let caught = trap.caught();
    let beats = |worker: &bimodal::WorkerHandle| {
        cluster.stats().iter().find(|row| row.worker == worker.id().get()).unwrap().beats
    };
    let before = [beats(&stuck), beats(&healthy)];
    for number in 0..100_u32 {
        let _ = stuck.send(number).unwrap();
        let _ = healthy.send(number).unwrap();
        assert_eq!(next_message::<u32>(&cluster), (healthy.id(), number));
    }
    assert_eq!(beats(&stuck), before[0], "it stands still");
    assert!(beats(&healthy) > before[1]);
    drop(caught);
    until_named(&cluster, "message", 100);
    assert!(beats(&stuck) > before[0]);
}

/// Steps into the trap that the first message names, if it names one; then sends numbers back.
async fn trapped_echo(worker: Worker) {
    let address = worker.recv().await.unwrap().get::<String>().unwrap();
    if !address.is_empty() {
        step_into(&address);
    }
    while let Some(message) = worker.recv().await {
        let _ = worker.send(message.get::<u32>().unwrap()).unwrap();
    }
}
