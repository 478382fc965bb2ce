//! The status socket: what it tells, whom it refuses, what becomes of its file.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bimodal::{Cluster, ErrorKind as Kind, Event, Setup};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Uid,
    thread::set_thread_uid,
};
use serde_json::Value;

use crate::{
    bodies,
    service::{SIGHUP, SIGUSR2},
    supervising::{served, who},
    support::{
        DEADLINE, Scenario, Scene, both,
        client::get,
        not_permitted,
        program::{self, Program},
        system, wait_until,
    },
    upgrade::Installed,
};

const PROGRAM: &str = "serve_with_a_status_socket";

/// A user that owns nothing here.
const NOBODY: u32 = 65_534;

pub const SCENARIOS: &[Scenario] = &[
    both("a_snapshot_tells_what_the_status_does", snapshot),
    both("snapshots_count_from_one_to_the_next", rates),
    both("the_time_of_a_request_is_seen_whether_it_waits_or_computes", latency),
    both("events_come_as_they_happen_and_messages_stay_inside", events),
    both("the_last_events_are_sent_before_the_socket_goes", farewell),
    both("what_is_no_request_gets_an_error_and_costs_nobody_anything", hostile),
    both("a_client_that_reads_nothing_is_dropped_and_holds_nobody_up", slow),
    both("a_client_that_is_behind_learns_how_much_it_missed", behind),
    both("there_is_room_for_so_many_clients", crowd),
    both("the_file_is_for_its_user_alone_and_so_is_the_socket", permissions),
    both("a_path_that_cannot_be_is_refused_before_anything_starts", refused),
    both("what_a_killed_program_left_is_replaced", stale),
    both("the_socket_goes_on_through_a_reload_and_an_upgrade", upgraded),
    both("a_cluster_without_supervision_has_a_status_socket", unsupervised),
];

pub const PROGRAMS: &[Scenario] = &[both(PROGRAM, serve)];

/// A path that nothing has, in the directory for temporary files.
fn path(scene: &Scene) -> PathBuf {
    let short = scene.name.split('_').map(|word| &word[..1]).collect::<String>();
    let name = format!("bimodal-{}-{}-{short}.sock", std::process::id(), scene.mode);
    std::env::temp_dir().join(name)
}

/// A client that has asked.
struct Client(BufReader<UnixStream>);

impl Client {
    fn ask(path: &PathBuf, request: &str) -> Self {
        Self::try_ask(path, request).unwrap()
    }

    fn try_ask(path: &PathBuf, request: &str) -> std::io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // It may have been refused, and closed, already.
        let _ = stream.write_all(format!("{request}\n").as_bytes());
        Ok(Self(BufReader::new(stream)))
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).unwrap();
        (count > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The next line of this kind.
    #[track_caller]
    fn next(&mut self, kind: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = self.line().expect("the socket was closed");
            if !line[kind].is_null() {
                return line[kind].clone();
            }
            assert!(Instant::now() < end, "no {kind} came");
        }
    }

    /// The next event with this name.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let event = self.next("event");
            if event["name"] == name {
                return event;
            }
            assert!(Instant::now() < end, "no {name} came");
        }
    }
}

const ONCE: &str = r#"{"interval_ms":0}"#;
const EVENTS: &str = r#"{"interval_ms":60000,"events":true}"#;

fn snapshot(scene: &Scene) {
    let path = path(scene);
    let (cluster, _) = served(scene.builder().status_socket(&path), 2);
    let mut client = Client::ask(&path, ONCE);
    let told = client.next("snapshot");
    assert!(client.line().is_none(), "one was asked for");
    let status = cluster.status();
    assert_eq!((&told["target"], &told["ready"]), (&2.into(), &2.into()), "{told}");
    assert_eq!(told["pid"], std::process::id());
    assert_eq!(
        (told["name"].as_str(), told["stopping"].as_bool()),
        (Some(scene.name), Some(false))
    );
    assert_eq!(told["mode"], scene.mode.to_string());
    let rows = told["workers"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{told}");
    for (row, worker) in rows.iter().zip(&status.workers) {
        assert_eq!(row["worker"], worker.worker.get());
        assert_eq!((&row["slot"], &row["generation"]), (&worker.slot.get().into(), &1.into()));
        assert_eq!((&row["state"], &row["restarts"]), (&"listening".into(), &0.into()), "{row}");
        assert_eq!(row["pid"], worker.pid.unwrap());
        assert_eq!(row["thread"], worker.stats.thread);
        assert_eq!(row["memory_bytes"].is_null(), !scene.is_process(), "threads share theirs");
        let is_task = fs::exists(format!("/proc/{}/task/{}", row["pid"], row["thread"])).unwrap();
        assert!(is_task, "{row}");
    }
    assert_ne!(rows[0]["thread"], rows[1]["thread"]);
    cluster.shutdown().unwrap();
    assert!(!path.exists(), "the file goes with the cluster");
}

fn rates(scene: &Scene) {
    let path = path(scene);
    let (cluster, address) = served(scene.builder().status_socket(&path), 1);
    (0..5).for_each(|_| assert_eq!(who(&address), 1));
    wait_until("the requests to be counted", || cluster.status().workers[0].stats.requests == 5);
    let before = Client::ask(&path, ONCE).next("snapshot");
    let mut client = Client::ask(&path, r#"{"interval_ms":100}"#);
    let first = client.next("snapshot");
    assert!(first["requests_per_second"].as_f64() > Some(0.0), "{first}");
    let second = client.next("snapshot");
    assert_eq!(second["requests_per_second"], 0.0, "{second}");
    assert_eq!(second["workers"][0]["requests"], 5, "{second}");
    // A time is counted at the loop's next look at the clock, which may come after the request was.
    wait_until("no further times", || client.next("snapshot")["p99_us"].is_null());
    // Counted from what was told before it was asked: a first snapshot that is late does not delay the second.
    assert!(second["uptime_ms"].as_u64() >= before["uptime_ms"].as_u64().map(|ms| ms + 100));
    assert!(second["uptime_ms"].as_u64() > first["uptime_ms"].as_u64());
    get(&address, "/burn/50").unwrap();
    let mut rate = 0.0;
    wait_until("one more request", || {
        rate = client.next("snapshot")["requests_per_second"].as_f64().unwrap();
        rate > 0.0
    });
    assert!(rate <= 10.0, "one request in at least 100 ms is at most 10 per second: {rate}");
    cluster.shutdown().unwrap();
}

fn latency(scene: &Scene) {
    let path = path(scene);
    let (cluster, address) = served(scene.builder().status_socket(&path), 1);
    for (route, least) in [("/sleep/60", 60_000), ("/burn/120", 120_000)] {
        get(&address, route).unwrap();
        let longest = || Client::ask(&path, ONCE).next("snapshot")["p99_us"].as_u64();
        wait_until(route, || longest() >= Some(least));
    }
    let worker = cluster.worker(bimodal_id(&cluster)).unwrap();
    assert_eq!(worker.latency().count(), 2);
    assert!(worker.latency().quantile(0.5) < worker.latency().quantile(1.0));
    cluster.shutdown().unwrap();
}

fn bimodal_id(cluster: &Cluster) -> bimodal::WorkerId {
    cluster.workers()[0].id()
}

fn events(scene: &Scene) {
    let path = path(scene);
    let (cluster, address) = served(scene.builder().status_socket(&path), 1);
    let mut client = Client::ask(&path, EVENTS);
    client.next("snapshot");
    assert!(get(&address, "/panic").is_err());
    let error = client.event("error");
    assert_eq!((&error["worker"], &error["generation"]), (&1.into(), &1.into()), "{error}");
    assert!(error["text"].as_str().unwrap().contains("a panic was asked for"), "{error}");
    assert_eq!(client.event("exit")["text"], "code 101 (panic)");
    let fork = client.event("fork");
    assert_eq!(
        (&fork["worker"], &fork["slot"], &fork["generation"]),
        (&2.into(), &0.into(), &2.into())
    );
    let listening = client.event("listening");
    assert_eq!(listening["text"], address.to_string());
    cluster.shutdown().unwrap();
}

fn farewell(scene: &Scene) {
    let path = path(scene);
    let (cluster, _) = served(scene.builder().status_socket(&path), 2);
    let mut client = Client::ask(&path, EVENTS);
    client.next("snapshot");
    cluster.shutdown().unwrap();
    assert!(!path.exists());
    let mut exits = 0;
    while let Some(line) = client.line() {
        exits += u32::from(line["event"]["name"] == "exit");
    }
    assert_eq!(exits, 2, "the end comes after the last exit");
}

fn hostile(scene: &Scene) {
    let path = path(scene);
    let (cluster, address) = served(scene.builder().status_socket(&path), 1);
    let long = format!("{{{}}}", " ".repeat(4000));
    let deep = "[".repeat(1000);
    for bad in ["GET / HTTP/1.1", "\u{0}\u{1b}[2J", "[]x", r#"{"interval_ms":1}"#, &long, &deep] {
        let mut client = Client::ask(&path, bad);
        let error = client.next("error");
        assert!(!error.as_str().unwrap().is_empty());
        let mut rest = Vec::new();
        // What the client sent beyond its line may reset the connection; nothing more is said either way.
        let _ = client.0.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    let mut bytes = UnixStream::connect(&path).unwrap();
    bytes.write_all(&[0xff, 0xfe, b'\n']).unwrap();
    let mut answer = String::new();
    bytes.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with(r#"{"error":"#), "{answer}");
    // Who only looks, or ends its line by ending.
    drop(UnixStream::connect(&path).unwrap());
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(ONCE.as_bytes()).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with(r#"{"snapshot":"#), "{answer}");
    assert_eq!(who(&address), 1);
    cluster.shutdown().unwrap();
}

/// More than a socket and a client's queue hold.
const FLOOD: u64 = 2000;

/// Makes so many events that whoever reads few is behind, and waits until they are queued for all clients. Meanwhile
/// `now_and_then` is called.
fn flood(cluster: &Cluster, path: &PathBuf, mut now_and_then: impl FnMut()) {
    (0..FLOOD).for_each(|_| cluster.setup_primary(Setup::new()).unwrap());
    let (mut settings, mut last) = (0, Instant::now());
    wait_until("the events", || {
        if let Some(Event::Setup { .. }) = cluster.next_event_timeout(DEADLINE) {
            settings += 1;
            if settings % (FLOOD / 20) == 0 || last.elapsed() > Duration::from_secs(1) {
                now_and_then();
                last = Instant::now();
            }
        }
        settings == FLOOD
    });
    // Orders come before new clients.
    Client::ask(path, ONCE).next("snapshot");
}

fn slow(scene: &Scene) {
    let path = path(scene);
    let (cluster, address) = served(scene.builder().status_socket(&path), 1);
    let mut stuck = Client::ask(&path, EVENTS);
    stuck.next("snapshot");
    flood(&cluster, &path, || ());
    let mut quick = Client::ask(&path, EVENTS);
    quick.next("snapshot");
    assert!(get(&address, "/panic").is_err());
    quick.event("listening");
    assert_eq!(who(&address), 2);
    wait_until("the stuck one to be dropped", || is_hung_up(stuck.0.get_ref()));
    // One that has not asked does not hold up the end.
    let _silent = UnixStream::connect(&path).unwrap();
    cluster.shutdown().unwrap();
    assert!(!path.exists());
}

fn is_hung_up(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).unwrap();
    polled[0].revents().contains(PollFlags::HUP)
}

fn behind(scene: &Scene) {
    let path = path(scene);
    let (cluster, _) = served(scene.builder().status_socket(&path), 1);
    let mut client = Client::ask(&path, EVENTS);
    client.next("snapshot");
    let (mut told, mut missed) = (0, 0);
    let mut read = || {
        let line = client.line().expect("the client was dropped");
        told += u64::from(line["event"]["name"] == "setup");
        missed += line["missed"].as_u64().unwrap_or(0);
        told + missed
    };
    // Who receives nothing at all for five seconds is dropped, not who receives little.
    flood(&cluster, &path, || _ = read());
    for _ in 0..4 {
        read();
        std::thread::sleep(Duration::from_secs(2));
    }
    while read() < FLOOD {}
    assert!(missed > 0 && told > 0, "{told} told, {missed} missed");
    assert_eq!(told + missed, FLOOD);
    cluster.shutdown().unwrap();
}

fn crowd(scene: &Scene) {
    let path = path(scene);
    let (cluster, _) = served(scene.builder().status_socket(&path), 1);
    let mut clients: Vec<_> = (0..16).map(|_| Client::ask(&path, EVENTS)).collect();
    clients.iter_mut().for_each(|client| drop(client.next("snapshot")));
    let mut refused = UnixStream::connect(&path).unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("16 clients are served already"), "{answer}");
    clients.truncate(8);
    let mut workers = 1;
    wait_until("room", || {
        // Events find out who has gone: more than one, since a process that another test is just starting may have a
        // copy of a socket that was closed here.
        workers = 3 - workers;
        cluster.scale(workers).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut answer = String::new();
        // It may be refused, and closed, before it asks.
        writeln!(stream, "{ONCE}").and_then(|()| stream.read_to_string(&mut answer)).is_ok()
            && answer.starts_with(r#"{"snapshot":"#)
    });
    cluster.shutdown().unwrap();
}

fn permissions(scene: &Scene) {
    let path = path(scene);
    let (cluster, _) = served(scene.builder().status_socket(&path), 1);
    let file = fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o600, rustix::process::geteuid().as_raw()));
    let mut descriptors = Vec::new();
    for worker in cluster.workers() {
        descriptors.extend(system::descriptors_of(worker.pid().unwrap()));
    }
    if scene.is_process() {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        let line = sockets.lines().find(|line| line.ends_with(path.to_str().unwrap())).unwrap();
        let inode = line.split_whitespace().nth(6).unwrap();
        let held = descriptors.iter().any(|(_, to)| *to == format!("socket:[{inode}]"));
        assert!(!held, "a worker has the socket");
    }
    if !rustix::process::geteuid().is_root() {
        not_permitted("to act as another user");
    } else {
        assert_eq!(as_nobody(&path), "PermissionDenied");
        // Even where the file lets others in, the socket does not.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(as_nobody(&path).contains("user 65534 is not the one"));
    }
    cluster.shutdown().unwrap();
}

/// What another user is told: a thread of this program, which is that user for the kernel.
fn as_nobody(path: &Path) -> String {
    let path = path.to_owned();
    let ask = move || {
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        match Client::try_ask(&path, ONCE) {
            Err(error) => format!("{:?}", error.kind()),
            Ok(mut client) => client.next("error").to_string(),
        }
    };
    std::thread::spawn(ask).join().unwrap()
}

fn refused(scene: &Scene) {
    let start = |path: &PathBuf| {
        let name = format!("{}-{}", scene.name, path.display());
        scene.another(scene.mode, &name[name.len() - 40..]).status_socket(path).launch(bodies::idle)
    };
    let long = PathBuf::from(format!("/tmp/{}", "n".repeat(120)));
    let error = scene.builder().status_socket(&long).build().unwrap_err();
    assert_eq!(error.kind(), Kind::Setting);
    assert!(error.to_string().contains("125 bytes"), "{error}");
    // A file, a directory, and a socket that somebody serves: none is touched.
    let path = path(scene);
    fs::write(&path, "precious").unwrap();
    let error = start(&path).unwrap_err();
    assert_eq!((error.kind(), error.io_kind()), (Kind::Listen, Some(ErrorKind::AddrInUse)));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(start(&path).unwrap_err().kind(), Kind::Listen);
    fs::remove_dir(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(start(&path).unwrap_err().kind(), Kind::Listen);
    assert!(UnixStream::connect(&path).is_ok(), "it was taken away");
    drop(listener);
    fs::remove_file(&path).unwrap();
    assert_eq!(start(&path.join("nowhere")).unwrap_err().kind(), Kind::Listen);
}

/// The program: one worker, and the socket that its argument names.
fn serve(scene: &Scene) {
    let path = program::args().remove(0);
    let observe = |event: &Event| {
        if let Event::Listening { address, .. } = event {
            println!("listening {address}");
        }
    };
    let builder = scene.builder().status_socket(path).workers(1).on_event(observe);
    builder.run(crate::supervising::serve).unwrap();
}

fn stale(scene: &Scene) {
    let path = path(scene);
    let start = || {
        let mut command = program::command(PROGRAM, scene.mode);
        let mut program = Program::spawn(command.arg(&path));
        program.line(|line| line.starts_with("listening "));
        program
    };
    let mut program = start();
    let first = Client::ask(&path, ONCE).next("snapshot");
    program.signal(9);
    program.wait_only();
    assert!(path.exists(), "nobody could take it away");
    let program = start();
    let second = Client::ask(&path, ONCE).next("snapshot");
    assert_ne!(first["pid"], second["pid"]);
    program.signal(15);
    program.succeed();
    assert!(!path.exists());
}

fn upgraded(scene: &Scene) {
    let path = path(scene);
    let installed = Installed::new(scene);
    let option = format!("status_socket={}", path.display());
    let mut running = installed.start(scene, &[&option]);
    let told = || Client::ask(&path, ONCE).next("snapshot");
    assert_eq!(told()["pid"], running.pid);
    system::signal(running.pid, SIGHUP);
    wait_until("a reload", || told()["report"]["reloads"] == 1);
    installed.put_script("exit 3");
    system::signal(running.pid, SIGUSR2);
    running.decided("no new program takes over");
    assert_eq!(told()["pid"], running.pid, "one that failed took the socket along");
    installed.restore();
    let mut watcher = Client::ask(&path, EVENTS);
    watcher.next("snapshot");
    running.upgrade();
    // Between the two there is a moment without a file.
    wait_until("the new program's socket", || {
        let client = Client::try_ask(&path, ONCE);
        client.is_ok_and(|mut client| client.next("snapshot")["pid"] == running.pid)
    });
    let mut exits = 0;
    while let Some(line) = watcher.line() {
        exits += u32::from(line["event"]["name"] == "exit");
    }
    assert_eq!(exits, 2, "the old program's client saw its end");
    running.stop();
    assert!(!path.exists());
}

fn unsupervised(scene: &Scene) {
    let path = path(scene);
    let cluster = scene.builder().status_socket(&path).launch(bodies::idle).unwrap();
    let mut client = Client::ask(&path, EVENTS);
    assert_eq!(client.next("snapshot")["workers"].as_array().map(Vec::len), Some(0));
    let worker = cluster.fork().unwrap();
    assert_eq!(client.event("online")["worker"], worker.id().get());
    drop(cluster);
    assert!(!path.exists(), "a cluster that is dropped takes it along");
}
