//! A link with a process that only dies, and the backend with real workers: this test binary, started
//! again so that it runs [`worker_fixture`] alone.

use std::{
    future::poll_fn,
    net::{TcpListener, TcpStream},
    process::Command as Process,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use socket2::Socket;

use super::*;
use crate::{
    accept::{Grant, Intake},
    backend::{Stream, cores::Cores},
    config::Address,
    error::Error,
    event_loop::{on_loop, timeout},
    id::{ConnectionId, ListenerId, Slot},
    message::Message,
    message::Packing,
    pool::Pool,
    shared::Sizes,
    sys::channel::send_packet,
    wire::Outgoing,
    worker::{Denial, Line, Note},
};

const LIMIT: Duration = Duration::from_secs(20);
const WORKER: WorkerId = WorkerId::new(7);
const PACKING: Packing =
    Packing { memory: Memory::Separate, codec: Codec::MessagePack, max_bytes: 16 << 20 };

fn spec() -> WorkerSpec {
    let line = Line::new(PACKING);
    let fixture = "backend::process::tests::worker_fixture";
    let outfit = Outfit {
        exec: own_program().unwrap(),
        args: ["--exact", fixture, "--nocapture", "--quiet"].map(Into::into).to_vec(),
        vars: std::env::vars_os().collect(),
        stdio: [Stream::Null, Stream::Null, Stream::Inherit],
        ..Outfit::default()
    };
    WorkerSpec { worker: WORKER, slot: Slot(3), place: 3, generation: 2, line, outfit }
}

/// One end of a connection, as a socket to offer.
fn offer(listener: u32, id: u64) -> Offer {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Socket::from(TcpStream::connect(listening.local_addr().unwrap()).unwrap());
    Offer { listener: ListenerId(listener), id: ConnectionId(id), socket }
}

/// What happened, in words that can be compared.
fn say(event: &Event) -> String {
    match event {
        Event::Note { note: Note::Message(message), .. } => format!("message {message:?}"),
        Event::Note { note, .. } => format!("{note:?}"),
        Event::Returned { offer, .. } => format!("returned {}", offer.id.0),
        Event::Closed { .. } => "closed".into(),
        Event::Exited { status, .. } => format!("exited: {status}"),
    }
}

/// A link to a process that runs `script`; its end of the channel stays here, as a grandchild might
/// hold it.
fn link_to(script: &str) -> (Link, OwnedFd) {
    let (link, end, _) = link_and_line_to(script);
    (link, end)
}

fn link_and_line_to(script: &str) -> (Link, OwnedFd, Line) {
    let (ours, theirs) = seqpacket_pair().unwrap();
    let child = Process::new("/bin/sh").args(["-c", script]).spawn().unwrap();
    let (spec, ours) = (spec(), Arc::new(ours));
    let outlet = spec.line.outlet().unwrap();
    outlet.open(ours.clone(), vec![(Frame::Disconnect, Vec::new())]).unwrap();
    let channel = Channel::with_outlet(ours, outlet).unwrap();
    let line = spec.line.clone();
    (Link::new(WORKER, spec.line, channel, child, PACKING).unwrap(), theirs, line)
}

fn put(end: &OwnedFd, frame: Frame) {
    let outgoing = Outgoing::new(frame).unwrap();
    send_packet(end.as_fd(), &outgoing.packet().unwrap().parts(), &[]).unwrap();
}

fn hello(link: &Link) -> Frame {
    Frame::Hello { version: wire::VERSION, worker: WORKER.get(), pid: link.pid() }
}

async fn live_out(link: &mut Link) -> Vec<String> {
    let mut events = Vec::new();
    let end =
        poll_fn(|cx| if link.poll(cx, &mut events) { Poll::Ready(()) } else { Poll::Pending });
    timeout(LIMIT, end).await.unwrap();
    events.iter().map(say).collect()
}

async fn flush(link: &mut Link) {
    let mut events = Vec::new();
    poll_fn(|cx| Poll::Ready(link.poll(cx, &mut events))).await;
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn what_was_sent_before_death_comes_before_its_end() {
    on_loop(async || {
        let (mut link, end) = link_to("exit 3");
        put(&end, hello(&link));
        put(&end, Frame::Online);
        let failure = wire::Failure { panicked: true, text: "why".into() };
        put(&end, Frame::Finished { failure: Some(failure) });
        let finished = "Finished { failure: Some(Panic: why) }";
        let expected = ["Online", finished, "closed", "exited: code 3"];
        assert_eq!(live_out(&mut link).await, expected);
        drop(end);
    });
}

#[test]
fn an_open_channel_and_an_endless_sender_do_not_delay_the_end() {
    on_loop(async || {
        let (mut link, end) = link_to("exit 0");
        put(&end, hello(&link));
        let outgoing = Outgoing::new(Frame::Taken { messages: 1, bytes: 1 }).unwrap();
        let parts = outgoing.packet().unwrap().parts();
        assert!((0..100_000).any(|_| send_packet(end.as_fd(), &parts, &[]).is_err()));
        let said = live_out(&mut link).await;
        assert_eq!(said.last().unwrap(), "exited: code 0");
        assert_eq!(said.iter().filter(|each| *each == "closed").count(), 1);
    });
}

#[test]
fn offers_are_adopted_or_refused_or_returned_once() {
    on_loop(async || {
        let (mut link, end) = link_to("exec sleep 60");
        put(&end, hello(&link));
        for id in 1..=4 {
            link.ask(Command::Offer(offer(1, id))).unwrap();
        }
        flush(&mut link).await;
        link.ask(Command::Offer(offer(1, 5))).unwrap();
        put(&end, Frame::Adopted { ids: vec![1, 1, 99, 5] });
        put(&end, Frame::Refused { ids: vec![2, 1] });
        drop(end);
        link.kill();
        let said = live_out(&mut link).await;
        let adopted = "Adopted { listener: ListenerId(1), ids: [ConnectionId(1)";
        assert!(said[0].starts_with(adopted), "{said:?}");
        assert_eq!(said[1], "returned 2");
        let left: Vec<_> = said.iter().filter(|each| each.starts_with("returned")).collect();
        assert!(
            ["returned 3", "returned 4"].iter().all(|each| left.contains(&&(*each).to_owned()))
        );
        assert_eq!(said[said.len() - 2..], ["closed", "exited: signal 9 (SIGKILL)"]);
        let (_, back) = link.ask(Command::Offer(offer(1, 6))).unwrap_err();
        assert_eq!(back.unwrap().id, ConnectionId(6));
    });
}

#[test]
fn an_id_that_was_not_sent_is_nobodys() {
    on_loop(async || {
        let (mut link, end) = link_to("exit 0");
        put(&end, hello(&link));
        let full = (0..).find(|&id| {
            let kept = offer(1, id);
            let _ = link.ask(Command::Offer(kept));
            id == 400
        });
        put(&end, Frame::Adopted { ids: vec![full.unwrap()] });
        let said = live_out(&mut link).await;
        let adopted = said.iter().filter(|each| each.starts_with("Adopted")).count();
        let returned = said.iter().filter(|each| each.starts_with("returned")).count();
        assert_eq!(adopted + returned, 401);
    });
}

#[test]
fn a_worker_that_breaks_the_protocol_is_killed() {
    let hello_of = |worker, pid| Frame::Hello { version: wire::VERSION, worker, pid };
    type Case<'a> = &'a dyn Fn(&Link) -> Vec<Frame>;
    let cases: [Case<'_>; 6] = [
        &|_| vec![Frame::Online],
        &|link| vec![hello_of(8, link.pid())],
        &|_| vec![hello_of(7, 1)],
        &|link| vec![hello(link), hello(link)],
        &|link| vec![hello(link), Frame::Listening { listener: 1 }],
        &|link| vec![hello(link), Frame::Disconnect],
    ];
    for case in cases {
        on_loop(async || {
            let (mut link, end) = link_to("exec sleep 60");
            link.ask(Command::Offer(offer(1, 1))).unwrap();
            case(&link).into_iter().for_each(|frame| put(&end, frame));
            let expected = ["returned 1", "closed", "exited: signal 9 (SIGKILL)"];
            assert_eq!(live_out(&mut link).await, expected);
        });
    }
}

#[test]
fn a_worker_that_took_what_has_not_left_is_killed() {
    on_loop(async || {
        let (mut link, end, line) = link_and_line_to("exec sleep 60");
        put(&end, hello(&link));
        let sent = 64;
        (0..sent).for_each(|_| link.ask(text("x".repeat(64 << 10))).unwrap());
        flush(&mut link).await;
        let left = line.outlet().unwrap().load();
        assert!((1..sent).contains(&left.messages), "{left:?}");
        let taken = |messages| Frame::Taken { messages: messages as u32, bytes: 0 };
        put(&end, taken(sent - left.messages));
        flush(&mut link).await;
        put(&end, taken(1));
        assert_eq!(live_out(&mut link).await, ["closed", "exited: signal 9 (SIGKILL)"]);
    });
}

#[test]
fn a_worker_that_asks_and_reads_no_answer_is_killed() {
    on_loop(async || {
        let (mut link, end) = link_to("exec sleep 60");
        put(&end, hello(&link));
        let denial = || Denial { errno: None, text: "no".into() };
        let deny = || Command::Denied { request: 1, denial: denial() };
        (0..link::UNREAD_ANSWERS).for_each(|_| link.ask(deny()).unwrap());
        flush(&mut link).await;
        link.ask(deny()).unwrap();
        assert_eq!(live_out(&mut link).await, ["closed", "exited: signal 9 (SIGKILL)"]);
    });
}

#[test]
fn a_line_that_is_kept_keeps_no_channel_open() {
    on_loop(async || {
        let (mut link, end, line) = link_and_line_to("exit 0");
        live_out(&mut link).await;
        drop(link);
        // A child of another test may hold a copy for a moment.
        let peer = &mut [PollFd::new(&end, PollFlags::empty())];
        poll(peer, Some(&Timespec::try_from(LIMIT).unwrap())).unwrap();
        assert!(peer[0].revents().contains(PollFlags::HUP), "somebody has the other end");
        assert!(line.outlet().unwrap().is_closed());
    });
}

#[test]
fn a_closed_channel_is_said_at_once_and_the_end_when_it_comes() {
    on_loop(async || {
        let (mut link, end) = link_to("exec sleep 60");
        put(&end, hello(&link));
        drop(end);
        let mut events = Vec::new();
        let closed = poll_fn(|cx| {
            assert!(!link.poll(cx, &mut events));
            if events.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        timeout(LIMIT, closed).await.unwrap();
        assert_eq!(say(&events[0]), "closed");
        link.kill();
        assert_eq!(live_out(&mut link).await, ["exited: signal 9 (SIGKILL)"]);
    });
}

/// Not a test: what the workers of the tests below are.
#[test]
fn worker_fixture() {
    let Some(invitation) = child::accept_invitation("unit") else { return };
    assert!(child::accept_invitation("unit").is_none());
    let body: crate::worker::Body = Arc::new(|worker| {
        Box::pin(async move {
            while let Some(message) = worker.recv().await {
                let text: String = message.get()?;
                let _ = worker.send(text + "!")?;
            }
            Err(Error::new(ErrorKind::Body, "as it should"))
        })
    });
    child::become_worker(invitation, body, Pool::builder().build().unwrap());
}

fn backend() -> ProcessBackend {
    ProcessBackend::new(Common {
        name: "unit".into(),
        packing: PACKING,
        pace: Default::default(),
        cores: Cores::usable(false),
        regions: Sizes::new(),
    })
    .unwrap()
}

/// Waits until the backend has said `last`, and gives all that it has said.
async fn until(backend: &mut ProcessBackend, last: &str) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    let wait = poll_fn(|cx| {
        let mut events = Vec::new();
        while backend.poll(cx, &mut events).is_ready() {
            said.extend(events.drain(..).map(|event| say(&event)));
        }
        let found = said.iter().any(|each| each.starts_with(last));
        if found { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no {last:?} in time"));
    said
}

fn text(text: String) -> Command {
    let payload = Codec::MessagePack.encode(&text, 16 << 20).unwrap();
    let type_name = std::any::type_name::<String>().into();
    Command::Message(Message::encoded(wire::Letter { type_name, payload }, Codec::MessagePack))
}

#[test]
fn a_worker_lives_from_online_to_exited() {
    on_loop(async || {
        let mut backend = backend();
        let spec = spec();
        let (slot, generation) = (spec.slot, spec.generation);
        backend.stats().reset(slot, WORKER.get(), generation);
        let pid = backend.start(spec).unwrap();
        let large = "x".repeat(8 << 20);
        backend.ask(WORKER, text(large)).unwrap();
        // Nobody listens on it, so it comes back untouched.
        backend.ask(WORKER, Command::Offer(offer(1, 1))).unwrap();
        let said = until(&mut backend, "message").await;
        assert_eq!(said.iter().filter(|each| *each == "Online").count(), 1);
        assert_eq!(backend.stats().row(slot).pid, u64::from(pid));
        backend.ask(WORKER, Command::Disconnect).unwrap();
        let mut all = said;
        all.extend(until(&mut backend, "exited").await);
        assert_eq!(all[0], "Online");
        assert!(all.contains(&"returned 1".into()), "{all:?}");
        let finished = "Finished { failure: Some(Body: as it should) }";
        assert_eq!(all[all.len() - 3..], [finished, "closed", "exited: code 1"]);
        let error = backend.ask(WORKER, Command::Offer(offer(1, 2))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(until(&mut backend, "returned").await, ["returned 2"]);
    });
}

#[test]
fn a_worker_asks_to_leave_on_sigterm_and_not_on_sigint() {
    on_loop(async || {
        let mut backend = backend();
        let pid = backend.start(spec()).unwrap();
        until(&mut backend, "Online").await;
        let process = rustix::process::Pid::from_raw(pid as i32).unwrap();
        for signal in [Signal::INT, Signal::TERM] {
            rustix::process::kill_process(process, signal).unwrap();
        }
        until(&mut backend, "Leaving { voluntary: false }").await;
        backend.force(WORKER, Force::Kill);
        assert_eq!(until(&mut backend, "exited").await, ["closed", "exited: signal 9 (SIGKILL)"]);
    });
}

#[test]
fn an_abandoned_worker_is_gone_at_once_and_the_end_leaves_none() {
    on_loop(async || {
        let mut backend = backend();
        let pid = backend.start(spec()).unwrap();
        backend.ask(WORKER, Command::Offer(offer(1, 1))).unwrap();
        backend.force(WORKER, Force::Abandon);
        let said = until(&mut backend, "exited").await;
        assert_eq!(said, ["returned 1", "closed", "exited: abandoned"]);
        let other = WorkerSpec { worker: WorkerId::new(8), ..spec() };
        let left = backend.start(other).unwrap();
        drop(backend);
        let gone = |pid: u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        assert!(gone(left) && gone(pid));
    });
}

#[test]
fn a_failed_start_says_what_failed_and_leaves_nothing() {
    on_loop(async || {
        let mut backend = backend();
        let mut spec = spec();
        spec.outfit.exec = "/nonexistent/program".into();
        let error = backend.start(spec).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Start, Some(2)));
        assert!(
            error.to_string().starts_with("start a worker process: run /nonexistent"),
            "{error}"
        );
        assert!(backend.links.is_empty());
    });
}

#[test]
fn a_worker_speaks_of_the_listeners_that_it_was_given() {
    on_loop(async || {
        let (mut link, end) = link_to("exit 0");
        let address = Address::Tcp("127.0.0.1:1".parse().unwrap());
        let grant = Grant { listener: ListenerId(1), address, intake: Intake::Offers, data: None };
        link.ask(Command::Granted { request: 1, grant }).unwrap();
        put(&end, hello(&link));
        put(&end, Frame::Listening { listener: 1 });
        let listening = "Listening { listener: ListenerId(1) }";
        assert_eq!(live_out(&mut link).await, [listening, "closed", "exited: code 0"]);
    });
}
