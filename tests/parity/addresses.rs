//! Where workers can listen, and what they learn when they cannot.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bimodal::{Address, AddressKind, Event, Mode, Scheduling, Setup, Worker};
use rustix::io::Errno;

use crate::{
    orders::{Answer, Ask, Order, Party, listen, own_address, refused, udp},
    support::{
        Scenario, Scene, both,
        client::{Client, greeting, wait_until_closed},
        only, program, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("an_address_is_shared_under_round_robin", |scene| shared(scene, Scheduling::RoundRobin))
        .proves(&["LST-03"]),
    both("an_address_is_shared_under_shared", |scene| shared(scene, Scheduling::Shared))
        .proves(&["LST-03"]),
    both("an_address_is_shared_under_reuse_port", |scene| shared(scene, Scheduling::ReusePort))
        .proves(&["LST-03"]),
    both("an_address_twice_in_one_worker_leaves_the_first_in_every_worker", twice)
        .proves(&["LST-04"]),
    both("a_port_got_by_0_can_be_asked_for_by_number", by_number).proves(&["LST-07", "EVT-09"]),
    both("a_privileged_port_is_refused_under_round_robin", |scene| {
        privileged(scene, "privileged_under_round_robin");
    })
    .proves(&["LST-10"]),
    both("a_privileged_port_is_refused_under_shared", |scene| {
        privileged(scene, "privileged_under_shared");
    })
    .proves(&["LST-10"]),
    both("the_path_of_a_live_socket_is_in_use", path_in_use).proves(&["LST-11"]),
    both("foreign_addresses_and_unknown_names_are_the_askers_errors", unreachable)
        .proves(&["LST-12"]),
    both("a_name_is_resolved", resolved),
    both("a_descriptor_of_the_primary_can_be_listened_on", descriptor).proves(&["LST-18"]),
    both("a_port_alone_serves_both_families", all_addresses).proves(&["LST-19", "LST-20"]),
    both("ipv6_only_leaves_ipv4_alone_under_round_robin", |scene| {
        ipv6_only(scene, Scheduling::RoundRobin);
    })
    .proves(&["LST-21"]),
    both("ipv6_only_leaves_ipv4_alone_under_shared", |scene| ipv6_only(scene, Scheduling::Shared))
        .proves(&["LST-21"]),
    both("the_largest_backlog_counts", backlog).proves(&["LST-22"]),
    both("a_deferred_client_is_met_when_it_speaks_under_round_robin", |scene| {
        deferred(scene, Scheduling::RoundRobin);
    }),
    both("a_deferred_client_is_met_when_it_speaks_under_shared", |scene| {
        deferred(scene, Scheduling::Shared);
    }),
    both("a_deferred_client_is_met_when_it_speaks_under_reuse_port", |scene| {
        deferred(scene, Scheduling::ReusePort);
    }),
    both("an_exclusive_listener_defers_and_a_unix_socket_has_nothing_to_defer", deferred_alone),
    both("a_relative_path_starts_at_the_workers_directory", relative).proves(&["LST-23", "EVT-11"]),
    both("a_path_may_be_long", long_path).proves(&["LST-23"]),
    both("a_socket_file_of_a_killed_primary_is_replaced", stale).proves(&["LST-25"]),
    both("a_socket_file_can_be_opened_to_everybody", open_to_all).proves(&["LST-26"]),
    both("connections_of_a_unix_socket_have_no_addresses", no_addresses).proves(&["LST-27"]),
    both("an_abstract_name_is_served_and_has_no_file", abstract_name),
    both("a_listening_event_says_kind_port_and_address", facts)
        .proves(&["EVT-07", "EVT-08", "EVT-11"]),
    both("bad_settings_of_a_listener_are_refused_at_once", bad_settings).proves(&["ERR-05"]),
    // A thread has the directory of its program.
    only(&[Mode::Process], "a_worker_with_a_directory_of_its_own_listens_there", own_directory)
        .proves(&["LST-23"]),
];

/// Started again by the tests above: without rights, or to be killed.
pub const PROGRAMS: &[Scenario] = &[
    both("privileged_under_round_robin", |scene| try_privileged(scene, Scheduling::RoundRobin)),
    both("privileged_under_shared", |scene| try_privileged(scene, Scheduling::Shared)),
    both("listen_on_a_path", listen_on_a_path),
];

fn shared(scene: &Scene, scheduling: Scheduling) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), 2);
    let address = own_address(scene, 4000);
    for worker in 0..2 {
        assert_eq!(party.told(worker, listen(&address)), address);
    }
    let address = address.parse().unwrap();
    wait_until("both to serve", || greeting(&address).unwrap() == "1");
    wait_until("both to serve", || greeting(&address).unwrap() == "2");
}

fn twice(scene: &Scene) {
    let mut party = Party::of(scene.builder().scheduling(Scheduling::RoundRobin), 2);
    let address = own_address(scene, 4000);
    for worker in 0..2 {
        party.told(worker, listen(&address));
        let again = party.tell(worker, listen(&address));
        refused(&again, Errno::ADDRINUSE);
    }
    party.await_named("listening", 2);
    let address = address.parse().unwrap();
    let turns: Vec<_> = (0..4).map(|_| greeting(&address).unwrap()).collect();
    assert_eq!(turns, ["1", "2", "1", "2"]);
}

fn by_number(scene: &Scene) {
    let mut party = Party::of(scene.builder().scheduling(Scheduling::RoundRobin), 2);
    let address = party.listening(0, "127.0.0.1:0");
    assert_ne!(address.port(), Some(0));
    assert_eq!(party.listening(1, &address.to_string()), address);
    refused(&party.tell(0, listen(&address.to_string())), Errno::ADDRINUSE);
    party.await_named("listening", 2);
    assert_eq!(party.seen.addresses(), vec![address.clone(); 2]);
    let mut turns: Vec<_> = (0..2).map(|_| greeting(&address).unwrap()).collect();
    turns.sort();
    assert_eq!(turns, ["1", "2"]);
}

/// Runs as a user without rights: in both policies it is the primary's that count.
fn privileged(scene: &Scene, name: &str) {
    let mut command = program::command(name, scene.mode);
    if rustix::process::geteuid().is_root() {
        let mut lowered = std::process::Command::new("setpriv");
        lowered.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        lowered.arg("--bounding-set=-all").arg(command.get_program()).args(command.get_args());
        command = lowered;
    }
    let mut program = program::Program::spawn(&mut command);
    program.line(|line| line == "refused");
    program.line(|line| line == "listening elsewhere");
    program.succeed();
}

fn try_privileged(scene: &Scene, scheduling: Scheduling) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), 1);
    refused(&party.tell(0, listen("127.0.0.1:81")), Errno::ACCESS);
    println!("refused");
    party.listening(0, "127.0.0.1:0");
    println!("listening elsewhere");
}

fn path_in_use(scene: &Scene) {
    let directory = Scratch::new(scene);
    let path = directory.file("s");
    let mut party = Party::new(scene, 1);
    let taken = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = Address::Unix(path.clone()).to_string();
    refused(&party.tell(0, listen(&address)), Errno::ADDRINUSE);
    assert!(UnixStream::connect(&path).is_ok(), "the live one was replaced");
    drop(taken);
    // A process that another test forks has the socket until it runs its program.
    wait_until("the path to be free", || party.tell(0, listen(&address)).is_ok());
}

fn unreachable(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    refused(&party.tell(0, listen("192.0.2.1:4000")), Errno::ADDRNOTAVAIL);
    let refusal = party.tell(0, listen("no-such-host.invalid:4000")).unwrap_err();
    assert_eq!(refusal.kind, "Listen");
    assert!(refusal.text.contains("no-such-host.invalid:4000"), "{refusal:?}");
    // Nobody else notices, and it can go on.
    for worker in 0..2 {
        party.listening(worker, "127.0.0.1:0");
    }
}

fn resolved(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    // In capitals it is left to the resolver.
    let address = party.listening(0, "LOCALHOST:0");
    assert!(address.tcp().unwrap().ip().is_loopback());
    greeting(&address).unwrap();
}

fn descriptor(scene: &Scene) {
    let mut party = Party::new(scene, 2);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Address::Tcp(listener.local_addr().unwrap());
    for worker in 0..2 {
        let order = listen(&format!("fd:{}", listener.as_raw_fd()));
        assert_eq!(party.told(worker, order).parse::<Address>().unwrap(), at);
    }
    greeting(&at).unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    let client = TcpStream::connect(at.tcp().unwrap()).unwrap();
    for number in [file.as_raw_fd(), client.as_raw_fd()] {
        refused(&party.tell(0, listen(&format!("fd:{number}"))), Errno::INVAL);
    }
    for number in [-1, i32::MAX] {
        refused(&party.tell(0, listen(&format!("fd:{number}"))), Errno::BADF);
    }
    // What the program opened stays its own, and open.
    drop(party);
    assert!(file.metadata().is_ok());
    let waiting = Client::connect(&at).unwrap();
    listener.set_nonblocking(false).unwrap();
    listener.accept().unwrap();
    drop((waiting, client));
}

fn all_addresses(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    let address = party.listening(0, ":0");
    let port = address.port().unwrap();
    assert!(port != 0 && address.tcp().unwrap().ip().is_unspecified(), "{address}");
    greeting(&at("127.0.0.1", port)).unwrap();
    if TcpListener::bind("[::1]:0").is_ok() {
        assert_eq!(address.kind(), Some(AddressKind::Ipv6));
        greeting(&at("[::1]", port)).unwrap();
        // As text it is the same.
        let port = party.listening(0, "[::]:0").port().unwrap();
        greeting(&at("127.0.0.1", port)).unwrap();
    } else {
        assert_eq!(address.kind(), Some(AddressKind::Ipv4));
    }
}

fn at(host: &str, port: u16) -> Address {
    format!("{host}:{port}").parse().unwrap()
}

fn ipv6_only(scene: &Scene, scheduling: Scheduling) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), 2);
    let ask = Ask { address: "[::]:0".into(), ipv6_only: true, ..Ask::default() };
    // Another test may have the port on one of the IPv4 addresses: the next one then.
    wait_until("a port that is free for IPv4", || {
        let ports = [0, 1].map(|worker| {
            party.told(worker, Order::Listen(ask.clone())).parse::<Address>().unwrap().port()
        });
        let port = ports[0].unwrap();
        greeting(&at("[::1]", port)).unwrap();
        ports[0] == ports[1] && TcpListener::bind(("0.0.0.0", port)).is_ok()
    });
}

/// The workers greet whoever they meet.
fn deferred(scene: &Scene, scheduling: Scheduling) {
    let mut party = Party::of(scene.builder().scheduling(scheduling), 2);
    let address = own_address(scene, 4000);
    for worker in 0..2 {
        assert_eq!(party.told(worker, Order::Listen(deferring(&address))), address);
    }
    meet_when_they_speak(&address.parse().unwrap());
}

fn deferred_alone(scene: &Scene) {
    let directory = Scratch::new(scene);
    let mut party = Party::of(scene.builder(), 1);
    let alone = Ask { exclusive: true, ..deferring("127.0.0.1:0") };
    meet_when_they_speak(&party.told(0, Order::Listen(alone)).parse().unwrap());
    let path = Address::Unix(directory.file("s"));
    party.told(0, Order::Listen(deferring(&path.to_string())));
    assert_eq!(greeting(&path).unwrap(), "1");
}

fn deferring(address: &str) -> Ask {
    Ask { address: address.into(), defer_accept: true, keep: true, ..Ask::default() }
}

/// Silent clients are met after a second, which the kernel counts: never much earlier, whatever the machine does. Those
/// that speak are met, too, though not one is silent for as long.
fn meet_when_they_speak(address: &Address) {
    let silent: Vec<_> =
        (0..4).map(|_| (Instant::now(), Client::connect(address).unwrap())).collect();
    for _ in 0..4 {
        let mut speaks = Client::connect(address).unwrap();
        speaks.send(b"hello").unwrap();
        speaks.line().unwrap();
    }
    for (connected, mut client) in silent {
        client.line().unwrap();
        let waited = connected.elapsed();
        assert!(waited > Duration::from_millis(900), "met after {waited:?}");
    }
}

/// A Unix socket says at once that its backlog is full.
fn backlog(scene: &Scene) {
    let directory = Scratch::new(scene);
    let path = directory.file("s");
    let builder = scene.builder().scheduling(Scheduling::RoundRobin).window(1);
    let mut party = Party::of(builder, 3);
    let ask = |backlog| {
        Order::Listen(Ask {
            address: Address::Unix(path.clone()).to_string(),
            backlog: Some(backlog),
            ignore: true,
            ..Ask::default()
        })
    };
    party.told(0, ask(1));
    let mut held = Vec::new();
    fill(&path, &mut held);
    let small = held.len();
    assert!(small < 10, "{small} fit");
    // A window for each worker more, and a backlog of 20.
    party.told(1, ask(20));
    wait_until("room for 19 more", || {
        fill(&path, &mut held);
        held.len() >= small + 19
    });
    // A smaller one takes nothing back: there is one window more.
    party.told(2, ask(1));
    let before = held.len();
    wait_until("room for one more", || {
        fill(&path, &mut held);
        held.len() > before
    });
}

/// Connects until the backlog is full, and stays connected.
fn fill(path: &Path, held: &mut Vec<socket2::Socket>) {
    let address = socket2::SockAddr::unix(path).unwrap();
    loop {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => held.push(socket),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                return;
            }
        }
    }
}

fn relative(scene: &Scene) {
    let directory = Scratch::new(scene);
    let path = directory.file("s");
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let address = format!("unix:{}", up.join(path.strip_prefix("/").unwrap()).display());
    let mut party = Party::new(scene, 1);
    let told = party.listening(0, &address);
    let Address::Unix(absolute) = &told else { panic!("{told}") };
    assert!(absolute.is_absolute(), "{told}");
    assert_eq!(absolute.canonicalize().unwrap(), path.canonicalize().unwrap());
    assert_eq!((told.kind(), told.port()), (Some(AddressKind::Unix), None));
    party.await_named("listening", 1);
    assert_eq!(party.seen.addresses()[0], told);
    greeting(&told).unwrap();
    drop(party);
    assert!(!path.exists(), "the file is left behind");
}

fn own_directory(scene: &Scene) {
    let directory = Scratch::new(scene);
    let mut party = Party::of(scene.builder().setup(Setup::new().cwd(directory.file(""))), 1);
    let told = party.listening(0, "unix:s");
    assert_eq!(told, Address::Unix(directory.file("s")));
    assert!(directory.file("s").exists());
    greeting(&told).unwrap();
    drop(party);
    assert!(!directory.file("s").exists(), "the file is left behind");
}

fn long_path(scene: &Scene) {
    let directory = Scratch::new(scene);
    let deep = directory.file(&"d".repeat(180));
    let mut party = Party::new(scene, 2);
    fs::create_dir(&deep).unwrap();
    let path = deep.join("s");
    for worker in 0..2 {
        let told = party.listening(worker, &format!("unix:{}", path.display()));
        assert_eq!(told, Address::Unix(path.clone()));
    }
    // A client is under the same limit, and has the same way out.
    let open = fs::File::open(&deep).unwrap();
    let short = format!("/proc/self/fd/{}/s", open.as_raw_fd());
    greeting(&Address::Unix(short.into())).unwrap();
    let too_long = format!("unix:{}", directory.file(&"n".repeat(120)).display());
    refused(&party.tell(0, listen(&too_long)), Errno::NAMETOOLONG);
    party.told(0, Order::Ping);
    drop(party);
    assert!(!path.exists(), "the file is left behind");
}

fn stale(scene: &Scene) {
    let directory = Scratch::new(scene);
    let path = directory.file("s");
    let run = || {
        let mut command = program::command("listen_on_a_path", scene.mode);
        let mut program = program::Program::spawn(command.arg(&path));
        program.line(|line| line == "listening");
        program
    };
    drop(run());
    assert!(path.exists(), "it was killed");
    let second = run();
    greeting(&Address::Unix(path)).unwrap();
    drop(second);
}

fn listen_on_a_path(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    party.listening(0, &format!("unix:{}", program::args()[0]));
    println!("listening");
    // Until it is killed.
    let _ = std::io::stdin().read(&mut [0]);
    loop {
        std::thread::park();
    }
}

fn open_to_all(scene: &Scene) {
    let directory = Scratch::new(scene);
    let path = directory.file("s");
    let ask = |address: String| Order::Listen(Ask { address, open_to_all: true, ..Ask::default() });
    let mut party = Party::new(scene, 1);
    party.told(0, ask(format!("unix:{}", path.display())));
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o666, 0o666, "{mode:o}");
    let refusal = party.tell(0, ask(format!("unix:@{}", scene.name)));
    refused(&refusal, Errno::INVAL);
}

fn no_addresses(scene: &Scene) {
    let directory = Scratch::new(scene);
    let path = directory.file("s");
    let builder = scene.builder().scheduling(Scheduling::RoundRobin);
    let cluster = builder.launch(tell_addresses).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(path.to_str().unwrap().to_owned()).unwrap();
    crate::support::events::until_named(&cluster, "listening", 1);
    assert_eq!(greeting(&Address::Unix(path)).unwrap(), "None None");
}

async fn tell_addresses(worker: Worker) -> bimodal::Result<()> {
    let Some(path) = worker.recv().await else { return Ok(()) };
    let path = PathBuf::from(path.get::<String>()?);
    let mut listener = worker.listen(&Address::Unix(path)).await?;
    while let Some(connection) = listener.accept().await? {
        let told = format!("{:?} {:?}\n", connection.peer(), connection.local());
        connection.write_all(told.as_bytes()).await?;
    }
    Ok(())
}

fn abstract_name(scene: &Scene) {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("bimodal-{}-{}", std::process::id(), scene.mode);
    let text = format!("unix:@{name}");
    let mut party = Party::new(scene, 2);
    for worker in 0..2 {
        assert_eq!(party.told(worker, listen(&text)), text);
    }
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let mut line = String::new();
    UnixStream::connect_addr(&address).unwrap().read_to_string(&mut line).unwrap();
    assert!(["1\n", "2\n"].contains(&&*line), "{line}");
    drop(party);
    wait_until("the name to be free", || UnixStream::connect_addr(&address).is_err());
}

fn facts(scene: &Scene) {
    let directory = Scratch::new(scene);
    let mut party = Party::new(scene, 1);
    let path = directory.file("s");
    let unix = format!("unix:{}", path.display());
    party.told(0, listen("127.0.0.1:0"));
    party.told(0, listen("[::1]:0"));
    party.told(0, listen(&unix));
    party.told(0, udp("127.0.0.1:0"));
    party.told(0, udp("udp:[::1]:0"));
    party.await_named("listening", 5);
    let facts: Vec<_> = party
        .seen
        .addresses()
        .iter()
        .map(|address| (address.kind().unwrap(), address.port().map(|port| port != 0)))
        .collect();
    let expected = [
        (AddressKind::Ipv4, Some(true)),
        (AddressKind::Ipv6, Some(true)),
        (AddressKind::Unix, None),
        (AddressKind::Udp4, Some(true)),
        (AddressKind::Udp6, Some(true)),
    ];
    assert_eq!(facts, expected);
    assert_eq!(party.seen.addresses()[2], Address::Unix(path));
    let known = party.seen.0.iter().all(|event| match event {
        Event::Listening { worker, .. } => worker.id() == party.workers[0].id(),
        _ => true,
    });
    assert!(known);
}

fn bad_settings(scene: &Scene) {
    let mut party = Party::new(scene, 1);
    let ask = |address: &str| Ask { address: address.into(), ..Ask::default() };
    let asks = [
        ("udp:127.0.0.1:0", ask("udp:127.0.0.1:0")),
        ("exclusive", Ask { exclusive: true, ..ask("fd:3") }),
        ("16384", Ask { data: Some(vec![b'x'; 16_385]), ..ask("127.0.0.1:0") }),
        ("data", Ask { exclusive: true, data: Some(vec![1]), ..ask("127.0.0.1:0") }),
    ];
    for (named, ask) in asks {
        let refusal = party.tell(0, Order::Listen(ask)).unwrap_err();
        assert_eq!((&*refusal.kind, refusal.errno), ("Setting", None), "{refusal:?}");
        assert!(refusal.text.contains(named), "{refusal:?}");
    }
    let refusal: Answer = party.tell(0, udp("unix:/nowhere"));
    assert_eq!(refusal.unwrap_err().kind, "Setting");
    // Of a builder's, before there is a worker.
    let error = scene.another(scene.mode, "bad").window(0).launch(crate::orders::obey);
    assert_eq!(error.unwrap_err().kind(), bimodal::ErrorKind::Setting);
    assert_eq!(party.count("listening"), 0);
    let address: SocketAddr = party.listening(0, "127.0.0.1:0").tcp().unwrap();
    drop(party);
    wait_until_closed(&address.into());
}

/// A directory for socket files, removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(scene: &Scene) -> Self {
        let name = format!("bimodal-{}-{}-{}", std::process::id(), scene.mode, scene.name);
        let short: String = name.chars().take(60).collect();
        let path = std::env::temp_dir().join(short);
        // A worker process of the scenario may come by here, too, with another id.
        if bimodal::worker_of().is_none() {
            fs::create_dir_all(&path).unwrap();
        }
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
