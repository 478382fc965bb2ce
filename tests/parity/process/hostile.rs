//! A worker that writes to the channel itself: the primary and the other workers must not care.

use std::{
    fs,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use bimodal::{Cluster, ErrorKind, ExitStatus, Flow, Result, Worker, http};
use rustix::{
    io::Errno,
    net::{
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketType, send, sendmsg,
        shutdown, sockopt::socket_type,
    },
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

use crate::support::{
    Scene,
    client::get,
    events::{fork_listening, next_message, until},
    system, wait_until,
};

/// The kinds of frames (see the crate's `wire`).
const WELCOME: u8 = 2;
const ADOPTED: u8 = 11;
const FINISHED: u8 = 15;
const MESSAGE: u8 = 16;
const CHUNK: u8 = 17;
const LAST_KIND: u8 = 21;

/// What a hostile worker writes, packet by packet.
type Packets = Vec<Vec<u8>>;

pub fn hostile_worker_is_killed(scene: &Scene) {
    let cluster = scene.builder().launch(body).unwrap();
    let (served, address) = fork_listening(&cluster, 1);
    for packets in cases() {
        attack(&cluster, &packets);
        let answer = get(&address, "/").unwrap();
        assert_eq!(answer.text(), "here", "after {packets:?}");
    }
    assert!(served[0].is_connected());
    let report = cluster.shutdown().unwrap();
    assert_eq!(
        report.exits.get("code 0"),
        Some(&1),
        "only the honest worker left by itself: {report}"
    );
}

/// No frame of a worker's brings that many.
pub fn worker_that_sends_descriptors(scene: &Scene) {
    let body = |worker: Worker| async move {
        let message = announced(2, 0, b"ok");
        match worker.id().get() {
            1 => body(worker).await,
            2 => attach(&message, 1),
            3 => attach(&message, 200),
            // Its channel is no TCP stream; and one handle is not two.
            4 => attach(&announced(2, 1, b"ok"), 1),
            5 => attach(&announced(2, 6, b"ok"), 2),
            _ => attach(&[ADOPTED], 1),
        }
    };
    let cluster = scene.builder().launch(body).unwrap();
    let (_, address) = fork_listening(&cluster, 1);
    for _ in 0..5 {
        let worker = cluster.fork().unwrap();
        let seen = until(&cluster, "the end", |event| event.name() == "exit");
        assert_eq!(seen.exit(worker.id()), ExitStatus::Signal(9));
        assert_eq!(get(&address, "/").unwrap().text(), "here");
    }
    cluster.shutdown().unwrap();
}

/// Writes a packet with so many descriptors, and stays.
fn attach(packet: &[u8], count: usize) -> ! {
    let channel = channel();
    let descriptors = vec![channel.as_fd(); count];
    let mut space =
        vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(&descriptors).size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let parts = [IoSlice::new(packet)];
    sendmsg(&channel, &parts, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    loop {
        std::thread::park();
    }
}

/// Why it failed it can say once.
pub fn worker_that_finishes_again_and_again(scene: &Scene) {
    let cluster = scene.builder().launch(body).unwrap();
    let (_, address) = fork_listening(&cluster, 1);
    let mut packets: Packets = ["first", "second", "third"].map(finished).into();
    packets.push(vec![FINISHED, 0]);
    packets.push(garbage(1));
    let worker = cluster.fork().unwrap();
    assert_eq!(worker.send(packets).unwrap(), Flow::Go);
    let seen = until(&cluster, "the end", |event| event.name() == "exit");
    let names = ["fork", "online", "error", "disconnect", "exit"];
    assert_eq!(seen.names(Some(worker.id())), names);
    assert_eq!(seen.error(worker.id()).to_string(), "first");
    assert_eq!(get(&address, "/").unwrap().text(), "here");
    cluster.shutdown().unwrap();
}

/// It is told that its primary is gone, as far as it can know, and ends.
pub fn worker_that_hangs_up(scene: &Scene) {
    let cluster = scene.builder().launch(body).unwrap();
    let (_, address) = fork_listening(&cluster, 1);
    let worker = cluster.fork().unwrap();
    assert_eq!(worker.send(Packets::new()).unwrap(), Flow::Go);
    let seen = until(&cluster, "the end", |event| event.name() == "exit");
    assert_eq!(seen.names(Some(worker.id())), ["fork", "online", "disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    assert_eq!(get(&address, "/").unwrap().text(), "here");
    cluster.shutdown().unwrap();
}

/// A worker that closes its channel and does not end is of no use: another takes its place.
pub fn worker_without_a_channel_is_replaced(scene: &Scene) {
    let moment = Duration::from_millis(50);
    let steps = bimodal::Shutdown { drain: moment, close: moment, ..Default::default() };
    let body = |worker: Worker| async move {
        if worker.id().get() > 1 {
            return serve(worker).await;
        }
        shutdown(channel(), Shutdown::Both).unwrap();
        loop {
            std::thread::park();
        }
    };
    let cluster = scene.builder().workers(1).shutdown(steps).supervise(body).unwrap();
    let seen = until(&cluster, "the successor", |event| event.name() == "listening");
    assert!(seen.exits().all(|(_, status)| status == ExitStatus::Signal(9)), "{seen:?}");
    assert_eq!(get(&seen.addresses()[0], "/").unwrap().text(), "here");
    cluster.shutdown().unwrap();
}

/// What a dead worker's child holds open delays nothing.
pub fn stranger_with_the_channel(scene: &Scene) {
    let cluster = scene.builder().launch(leave_a_stranger).unwrap();
    let worker = cluster.fork().unwrap();
    let stranger: u32 = next_message(&cluster).1;
    worker.kill().unwrap();
    let seen = until(&cluster, "the end", |event| event.name() == "exit");
    assert_eq!(seen.names(Some(worker.id())), ["disconnect", "exit"]);
    assert!(!worker.is_connected() && cluster.workers().is_empty());
    assert!(system::exists(stranger), "it still holds the channel");
    system::signal(stranger, 9);
}

/// Starts a child that inherits the channel, and stays.
async fn leave_a_stranger(worker: Worker) {
    let channel = channel();
    rustix::io::fcntl_setfd(&channel, rustix::io::FdFlags::empty()).unwrap();
    let script = "sleep 60 > /dev/null 2>&1 & echo $!";
    let output = std::process::Command::new("/bin/sh").args(["-c", script]).output().unwrap();
    let stranger: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let _ = worker.send(stranger).unwrap();
    std::future::pending().await
}

fn attack(cluster: &Cluster, packets: &Packets) {
    let worker = cluster.fork().unwrap();
    assert_eq!(worker.send(packets.clone()).unwrap(), Flow::Go);
    let seen =
        until(cluster, &format!("the end after {packets:?}"), |event| event.name() == "exit");
    let status = seen.exit(worker.id());
    assert_eq!(status, ExitStatus::Signal(9), "after {packets:?}");
}

/// Listens, and obeys whoever sends packets to write.
async fn body(worker: Worker) -> Result<()> {
    if worker.id().get() == 1 {
        return serve(worker).await;
    }
    let packets: Packets = worker.recv().await.unwrap().get()?;
    let channel = channel();
    packets.iter().for_each(|packet| write(&channel, packet));
    if packets.is_empty() {
        shutdown(&channel, Shutdown::Both).unwrap();
        // A panic here would show in the exit code.
        let refused = worker.send(String::from("to nobody")).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.into_value().0.as_str()),
            (ErrorKind::Closed, "to nobody")
        );
    }
    std::future::pending().await
}

async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    http::serve(listener, http::service_fn(|_| async { http::text("here") })).await
}

/// The worker's own end of the channel: its one SOCK_SEQPACKET socket.
fn channel() -> OwnedFd {
    channel_of_a_worker().unwrap()
}

/// [`channel`], if this is a worker process.
pub fn channel_of_a_worker() -> Option<OwnedFd> {
    bimodal::worker_of()?;
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let open = |number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok();
    let mut sockets = numbers.filter_map(open);
    sockets.find(|socket| socket_type(socket.as_fd()) == Ok(SocketType::SEQPACKET))
}

fn write(channel: &OwnedFd, packet: &[u8]) {
    wait_until("room in the channel", || {
        // A primary that has hung up already needs no more packets.
        !matches!(send(channel, packet, SendFlags::NOSIGNAL), Err(Errno::AGAIN))
    });
}

fn cases() -> Vec<Packets> {
    let mut cases = vec![
        // An unknown kind; a packet over the limit; frames that only the primary sends.
        vec![vec![0xee, 1, 2, 3]],
        vec![vec![CHUNK; 150_000]],
        vec![vec![WELCOME; 64]],
        // Part of a message that never began; one interrupted; lengths that are lies.
        vec![vec![CHUNK, 1, 2, 3]],
        vec![announced(1 << 20, 0, b"part"), vec![7]],
        vec![announced(u64::MAX, 0, b"part")],
        vec![announced(4, 0, b"far too much")],
        // A handle that is not there, and one of an unknown kind.
        vec![announced(2, 1, b"ok")],
        vec![announced(2, 99, b"ok")],
        // A list of so many ids that are not there.
        vec![vec![ADOPTED, 0xff, 0xff, 0xff, 0xff]],
    ];
    // Every kind, cut off, and with too much behind it.
    cases.extend((0..=LAST_KIND + 1).map(|kind| vec![vec![kind; 2]]));
    cases.extend((0..8).map(|seed| vec![garbage(seed)]));
    cases
}

/// The beginning of a message of so many bytes, with this kind of handle; 0 is none.
fn announced(total: u64, handle: u8, part: &[u8]) -> Vec<u8> {
    let mut packet = vec![MESSAGE];
    packet.extend(total.to_le_bytes());
    packet.extend(2u32.to_le_bytes());
    packet.extend(b"u8");
    // No topic.
    packet.extend([handle, 0]);
    packet.extend(part);
    packet
}

/// The body's end, with this error.
fn finished(text: &str) -> Vec<u8> {
    let mut packet = vec![FINISHED, 1, 0];
    packet.extend((text.len() as u32).to_le_bytes());
    packet.extend(text.as_bytes());
    packet
}

/// Bytes without a meaning, the same for the same seed; of no known kind.
fn garbage(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut bytes: Vec<_> = (0..200).map(|_| byte()).collect();
    bytes[0] |= 0x80;
    bytes
}
