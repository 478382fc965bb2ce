//! Events: at the handle, at the cluster, and what is known when they come.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use bimodal::{Address, Cluster, ErrorKind, Event, ExitStatus, Mode, State, Worker, WorkerHandle};

use crate::{
    acts::{Act, fork, obey},
    bodies::{greet, idle},
    support::{
        Scenario, Scene, both,
        events::{Seen, fork_listening, next_message, to_the_end, until, until_named},
        program, system,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("each_event_is_told_at_the_handle_first", handle_first)
        .proves(&["EVT-02", "EVT-05", "FORK-05", "EVT-06"]),
    both("observers_come_before_those_of_the_cluster_under_run", run_observers).proves(&["EVT-02"]),
    both("each_event_says_what_belongs_to_it", contents).proves(&["EVT-03", "EVT-04"]),
    both("listening_says_where", where_it_listens).proves(&["EVT-07"]),
    both("listening_comes_once_for_each_listener", each_listener).proves(&["EVT-12"]),
    both("every_end_is_told_in_the_same_order", every_end).proves(&[
        "EVT-16", "EVT-17", "EVT-18", "EVT-21", "EVT-22", "EVT-24", "LIFE-28", "LIFE-29", "LIFE-30",
    ]),
    both("nothing_of_a_worker_is_left_when_exit_is_told", nothing_left).proves(&["EVT-23"]),
    both("what_a_worker_fails_with_is_told_behind_its_messages", error_in_order)
        .proves(&["EVT-14", "EVT-28", "EVT-33", "THR-04", "THR-08"]),
    both("a_panic_without_a_text_is_told", no_text).proves(&["THR-06"]),
    both("a_worker_learns_of_its_own_disconnect", learns).proves(&["EVT-25"]),
    both("nobody_needs_to_hear_errors", nobody_listens).proves(&["EVT-29"]),
    both("a_panic_in_an_observer_ends_the_program_and_its_workers", panicking_observer)
        .proves(&["EVT-31", "THR-17"]),
    both("a_panic_in_an_observer_can_be_caught", caught_observer).proves(&["EVT-31", "THR-17"]),
];

/// Started to see how they end.
pub const PROGRAMS: &[Scenario] = &[both("observer_panics", observer_panics)];

/// Who was told what, in order.
type Log = Arc<Mutex<Vec<(&'static str, &'static str, Option<State>)>>>;

fn write(log: &Log, who: &'static str, event: &Event) {
    log.lock().unwrap().push((who, event.name(), event.state()));
}

fn observe(worker: &WorkerHandle, log: &Log) {
    let log = log.clone();
    worker.on_event(move |event| write(&log, "handle", event));
}

fn handle_first(scene: &Scene) {
    let log = Log::default();
    let cluster = scene.builder().launch(greet).unwrap();
    let worker = cluster.fork().unwrap();
    observe(&worker, &log);
    let tell = |count| {
        for _ in 0..count {
            let event = until(&cluster, "an event", |_| true).0.remove(0);
            assert!(event.state().is_none_or(|state| worker.state() >= state));
            write(&log, "cluster", &event);
        }
    };
    tell(4);
    assert_eq!(worker.state(), State::Listening);
    worker.disconnect().unwrap();
    assert!(worker.is_disconnecting());
    tell(2);
    let step = |name, state| [("handle", name, Some(state)), ("cluster", name, Some(state))];
    let life = [
        step("online", State::Online),
        step("listening", State::Listening),
        step("disconnect", State::Disconnected),
        step("exit", State::Gone),
    ];
    let mut expected = vec![("cluster", "setup", None), ("cluster", "fork", Some(State::Starting))];
    expected.extend(life.into_iter().flatten());
    assert_eq!(*log.lock().unwrap(), expected);
    assert!(!worker.is_disconnecting());
    assert_eq!(Arc::strong_count(&log), 1, "observers go with the last event");
}

fn run_observers(scene: &Scene) {
    let log = Log::default();
    let of_cluster = log.clone();
    let observer = move |event: &Event| {
        if let Event::Fork { worker } = event {
            observe(worker, &of_cluster);
        }
        write(&of_cluster, "cluster", event);
    };
    scene.builder().workers(1).on_event(observer).run(|_worker| async {}).unwrap();
    let told: Vec<_> = log.lock().unwrap().iter().map(|(who, name, _)| (*who, *name)).collect();
    let both = |name| [("handle", name), ("cluster", name)];
    let life = ["online", "disconnect", "exit"].into_iter().flat_map(both);
    let expected: Vec<_> =
        [("cluster", "setup"), ("cluster", "fork")].into_iter().chain(life).collect();
    assert_eq!(told, expected);
}

/// What an event says besides its name and its worker.
fn content(event: &Event) -> String {
    match event {
        Event::Listening { address, .. } => address.to_string(),
        Event::Message { message, .. } => {
            format!("{} {:?}", message.peek::<u32>().unwrap(), message.handle_kind())
        }
        Event::Exit { status, .. } => status.to_string(),
        Event::Setup { settings } => settings.name.clone(),
        _ => String::new(),
    }
}

fn contents(scene: &Scene) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let cluster = scene.builder().launch(send_a_socket).unwrap();
    let worker = cluster.fork().unwrap();
    let log = seen.clone();
    worker.on_event(move |event| log.lock().unwrap().push((event.name(), content(event))));
    let events = to_the_end(&cluster).0;
    let about = |event: &Event| event.worker().map(|worker| worker.id().get());
    let told: Vec<_> = events.iter().map(|it| (it.name(), about(it), content(it))).collect();
    let address = told[3].2.clone();
    assert!(address.parse::<Address>().unwrap().tcp().is_some_and(|it| it.port() != 0));
    let expected = [
        ("setup", None, scene.name),
        ("fork", Some(1), ""),
        ("online", Some(1), ""),
        ("listening", Some(1), &address),
        ("message", Some(1), "7 Some(TcpListener)"),
        ("disconnect", Some(1), ""),
        ("exit", Some(1), "code 0"),
    ];
    assert_eq!(told, expected.map(|(name, worker, what)| (name, worker, what.to_owned())));
    let of_handle = expected[2..].iter().map(|(name, _, what)| (*name, (*what).to_owned()));
    assert_eq!(*seen.lock().unwrap(), Vec::from_iter(of_handle));
}

async fn send_a_socket(worker: Worker) -> bimodal::Result<()> {
    let _listener = worker.listen("127.0.0.1:0").await?;
    let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    let _ = worker.send_with(7_u32, socket)?;
    Ok(())
}

fn where_it_listens(scene: &Scene) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("where-{}-{}", scene.mode, std::process::id()));
    let unix = format!("unix:{}", path.display());
    let wanted = ["127.0.0.1:0".to_owned(), unix.clone()];
    let cluster = scene.builder().launch(listen_where_told).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(wanted.to_vec()).unwrap();
    let told = until_named(&cluster, "listening", 2).addresses();
    let tcp = told[0].tcp().unwrap();
    assert!(tcp.is_ipv4() && tcp.port() != 0);
    assert_eq!(told[1], unix.parse::<Address>().unwrap());
    assert!(matches!(&told[1], Address::Unix(told) if *told == path && told.is_absolute()));
    cluster.shutdown().unwrap();
}

/// Holds what it listens on until it is to leave.
async fn listen_where_told(worker: Worker) -> bimodal::Result<()> {
    let mut listeners = Vec::new();
    let addresses: Vec<String> = worker.recv().await.unwrap().get()?;
    for address in addresses {
        listeners.push(worker.listen(&address).await?);
    }
    worker.draining().await;
    Ok(())
}

fn each_listener(scene: &Scene) {
    let cluster = scene.builder().launch(listen_again).unwrap();
    let workers: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    let seen = to_the_end(&cluster);
    for worker in workers {
        let names = seen.names(Some(worker.id()));
        assert_eq!(names.iter().filter(|name| **name == "listening").count(), 3, "{names:?}");
    }
}

async fn listen_again(worker: Worker) -> bimodal::Result<()> {
    let first = worker.listen("127.0.0.1:0").await?;
    let _second = worker.listen("127.0.0.1:0").await?;
    drop(first);
    worker.listen("127.0.0.1:0").await.map(drop)
}

/// How workers end: by what, how that is told, whether with an error, whether because it was asked for.
fn ends(scene: &Scene) -> Vec<(Act, ExitStatus, bool, bool)> {
    use Act::*;
    let code = ExitStatus::Code;
    // The one difference: a process is killed by a signal.
    let killed = if scene.is_process() { ExitStatus::Signal(9) } else { ExitStatus::Killed };
    vec![
        (Return(0), code(0), false, false),
        (Return(5), code(5), false, false),
        (Exit(0), code(0), false, false),
        (Exit(7), code(7), false, false),
        (Fail, code(1), true, false),
        (Panic, code(ExitStatus::PANIC), true, false),
        (Leave, code(0), false, true),
        (KillItself, code(0), false, true),
        // Asked to leave, and killed, by the test.
        (Stay, code(0), false, true),
        (ExitWhenAsked(42), code(42), false, true),
        (Linger, killed, false, false),
    ]
}

fn every_end(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    for (act, status, error, asked) in ends(scene) {
        let worker = fork(&cluster, act.clone());
        assert_eq!((worker.exited_after_disconnect(), worker.exit_status()), (None, None));
        until_named(&cluster, "online", 1);
        match act {
            Act::Stay | Act::ExitWhenAsked(_) => {
                worker.disconnect().unwrap();
            }
            Act::Linger => worker.kill().unwrap(),
            _ => {}
        }
        let seen = until_the_end_of(&cluster, &worker, asked);
        let names = seen.names(Some(worker.id()));
        let before: &[_] = if error { &["error"] } else { &[] };
        assert_eq!(names, [before, &["disconnect", "exit"]].concat(), "{act:?}");
        assert_eq!(seen.exit(worker.id()), status, "{act:?}");
        assert_eq!(worker.exit_status(), Some(status));
        assert!(status.code().is_none() || status.signal().is_none(), "never both");
        assert_eq!(worker.exited_after_disconnect(), Some(asked), "{act:?}");
    }
    assert!(to_the_end(&cluster).0.is_empty(), "nothing comes after `exit`");
}

/// Reads up to `exit`, and looks at the handle when `disconnect` and `exit` are told.
fn until_the_end_of(cluster: &Cluster, worker: &WorkerHandle, asked: bool) -> Seen {
    until(cluster, "exit", |event| {
        if let Event::Disconnect { .. } | Event::Exit { .. } = event {
            assert!(!worker.is_connected());
            assert_eq!(worker.exited_after_disconnect(), Some(asked));
        }
        match event {
            Event::Disconnect { .. } => assert_eq!(event.state(), Some(State::Disconnected)),
            Event::Exit { .. } => {
                assert!(worker.is_dead() && event.state() == Some(State::Gone));
                assert!(cluster.worker(worker.id()).is_none(), "it is not listed any more");
                return true;
            }
            _ => {}
        }
        false
    })
}

thread_local! {
    /// Dropped with the worker's thread.
    static LAST: RefCell<Option<SetAtTheEnd>> = const { RefCell::new(None) };
}

struct SetAtTheEnd(Arc<AtomicBool>);

impl Drop for SetAtTheEnd {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn nothing_left(scene: &Scene) {
    let ended = Arc::new(AtomicBool::new(false));
    let set = ended.clone();
    let body = move |worker: Worker| {
        LAST.set(Some(SetAtTheEnd(set.clone())));
        idle(worker)
    };
    let cluster = scene.builder().launch(body).unwrap();
    for _ in 0..10 {
        ended.store(false, SeqCst);
        let worker = cluster.fork().unwrap();
        until_named(&cluster, "online", 1);
        let pid = worker.pid().unwrap();
        worker.disconnect().unwrap();
        until_named(&cluster, "exit", 1);
        match scene.mode {
            Mode::Process => assert!(!system::exists(pid), "not even a zombie"),
            Mode::Thread => assert!(ended.load(SeqCst), "the thread was joined"),
        }
    }
}

fn error_in_order(scene: &Scene) {
    const COUNT: u64 = 20_000;
    let cluster = scene.builder().event_queue(1 << 16).launch(obey).unwrap();
    let bystander = fork(&cluster, Act::Stay);
    for (act, kind, text) in [
        (Act::Panic, Some(ErrorKind::Panic), "panicked: it was to panic"),
        (Act::Fail, Some(ErrorKind::Body), "it was to fail"),
        (Act::Exit(3), None, ""),
    ] {
        let worker = fork(&cluster, Act::Talk(COUNT, Box::new(act)));
        let of_worker = |event: &Event| event.worker().is_some_and(|it| it.id() == worker.id());
        let mut seen = until(&cluster, "exit", |event| of_worker(event) && event.name() == "exit");
        seen.0.retain(of_worker);
        let names = seen.names(None);
        assert_eq!(names[..2], ["fork", "online"]);
        assert!(names[2..2 + COUNT as usize].iter().all(|name| *name == "message"));
        let error: &[_] = if kind.is_some() { &["error"] } else { &[] };
        assert_eq!(names[2 + COUNT as usize..], [error, &["disconnect", "exit"]].concat());
        if let Some(kind) = kind {
            let error = seen.error(worker.id());
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
        let numbers = seen.messages::<u64>().into_iter().map(|(_, number)| number);
        assert!(numbers.eq(0..COUNT), "in order, none lost");
    }
    assert!(!bystander.is_dead());
    bystander.disconnect().unwrap();
    assert!(to_the_end(&cluster).exit(bystander.id()).success());
}

fn no_text(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    let worker = fork(&cluster, Act::PanicWithoutText);
    let seen = to_the_end(&cluster);
    let error = seen.error(worker.id());
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Panic, "panicked: (no text)")
    );
}

fn learns(scene: &Scene) {
    let cluster = scene.builder().launch(tell_when_leaving).unwrap();
    let worker = cluster.fork().unwrap();
    assert!(!next_message::<bool>(&cluster).1, "not yet");
    worker.disconnect().unwrap();
    assert!(next_message::<bool>(&cluster).1, "it can still tell");
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(Some(worker.id())), ["disconnect", "exit"]);
}

async fn tell_when_leaving(worker: Worker) {
    let _ = worker.send(worker.is_draining()).unwrap();
    worker.draining().await;
    let _ = worker.send(worker.is_draining()).unwrap();
}

fn nobody_listens(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    let broken = fork(&cluster, Act::Panic);
    crate::support::wait_until("its end", || broken.is_dead());
    assert_eq!(broken.send(()).unwrap_err().kind(), ErrorKind::Closed);
    let other = fork(&cluster, Act::Stay);
    other.disconnect().unwrap();
    assert!(cluster.wait_gone(crate::support::DEADLINE));
}

/// `run` with an observer that panics when a worker is online.
fn observer_panics(scene: &Scene) {
    let observer = |event: &Event| {
        println!("{}", event.name());
        assert!(event.name() != "listening", "an observer was to panic");
    };
    let _ = scene.builder().workers(2).on_event(observer).run(greet);
}

fn panicking_observer(scene: &Scene) {
    use std::os::unix::process::CommandExt as _;
    let mut command = program::command("observer_panics", scene.mode);
    let mut program = program::Program::spawn(command.process_group(0));
    assert_eq!(program.wait().code(), Some(101));
    crate::serve::assert_nobody_left(program.pid());
}

fn caught_observer(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let (workers, _) = fork_listening(&cluster, 2);
    workers[0].on_event(|event| assert!(event.name() != "exit", "an observer was to panic"));
    workers[0].disconnect().unwrap();
    let read = || until_named(&cluster, "exit", 1);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    assert!(caught.is_err(), "it goes through the call that takes the event");
    assert!(workers[0].is_dead() && !workers[1].is_dead());
    workers[1].disconnect().unwrap();
    assert!(to_the_end(&cluster).exit(workers[1].id()).success(), "and the cluster goes on");
}
