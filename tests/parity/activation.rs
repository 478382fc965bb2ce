//! Sockets that a service manager has bound and hands over.

use std::{
    fs::File,
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixListener, process::CommandExt as _},
    },
    path::PathBuf,
    process::Command,
};

use bimodal::Address;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{
    serve::closes_on_exec,
    service::{self, Running},
    support::{
        DEADLINE, Scenario, Scene, both,
        client::{Client, get},
        program::{self, Program},
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("sockets_that_were_handed_over_are_used_by_address", by_address),
    both("what_is_handed_over_in_vain_is_said", in_vain),
    both("a_handed_over_socket_goes_on_to_the_next_program", upgraded),
    both("what_was_handed_to_somebody_else_is_left_alone", somebody_else),
];

pub const PROGRAMS: &[Scenario] = &[both("activate", activate)];

/// The manager: makes what its arguments up to `--` say, in the order of their descriptors from 3 on, and becomes
/// the service with the arguments behind and the addresses to listen on.
fn activate(scene: &Scene) {
    let args = program::args();
    let mut kinds = args.iter().take_while(|arg| *arg != "--");
    let mut made: Vec<(OwnedFd, Option<String>)> = Vec::new();
    for kind in &mut kinds {
        made.push(make(kind, made.len()));
    }
    let mut service = program::command(service::SERVICE, scene.mode);
    service.args(args.iter().skip_while(|arg| *arg != "--").skip(1));
    for (number, (fd, listen)) in (3..).zip(&made) {
        assert_eq!(fd.as_raw_fd(), number, "something else is open");
        fcntl_setfd(fd, FdFlags::empty()).unwrap();
        service.args(listen.iter().map(|listen| format!("listen={listen}")));
    }
    let pid = std::env::var("PRETENDED_PID").unwrap_or(std::process::id().to_string());
    service.env("LISTEN_PID", pid).env("LISTEN_FDS", made.len().to_string());
    panic!("{}", service.exec());
}

/// A descriptor, and where the service is to listen.
fn make(kind: &str, at: usize) -> (OwnedFd, Option<String>) {
    let tcp = |at: &str| {
        let listener = TcpListener::bind(at).unwrap();
        (listener.local_addr().unwrap(), OwnedFd::from(listener))
    };
    let (kind, rest) = kind.split_once('=').unwrap_or((kind, ""));
    match kind {
        "tcp" => {
            let (address, fd) = tcp("127.0.0.1:0");
            (fd, Some(address.to_string()))
        }
        "any" => {
            let (address, fd) = tcp("[::]:0");
            (fd, Some(format!("0.0.0.0:{}", address.port())))
        }
        "fd" => (tcp("127.0.0.1:0").1, Some(format!("fd:{}", 3 + at))),
        "unused" => (tcp("127.0.0.1:0").1, None),
        "unix" => (UnixListener::bind(rest).unwrap().into(), Some(format!("unix:{rest}"))),
        "udp" => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let listen = format!("udp:{}", socket.local_addr().unwrap());
            (socket.into(), Some(listen))
        }
        "file" => (File::open("/dev/null").unwrap().into(), None),
        other => panic!("{other} cannot be made"),
    }
}

/// The command of a manager, with nothing open but its standard streams.
fn manager(scene: &Scene, args: &[&str]) -> Command {
    let activate = program::command("activate", scene.mode);
    let mut command = Command::new("sh");
    let closed: String = (3..10).map(|number| format!(" {number}>&-")).collect();
    command.args(["-c", &format!("exec \"$@\"{closed}"), "sh"]);
    command.arg(activate.get_program()).args(activate.get_args()).args(args);
    command
}

/// The service, and all addresses that each of its workers listens on.
#[track_caller]
fn start(command: &mut Command, addresses: usize) -> (Running, Vec<Address>) {
    let mut program = Program::spawn(command);
    let mut lines = Vec::new();
    for _ in 0..2 * addresses {
        lines.push(program.line(|line| line.contains(" listening ")));
    }
    let address = |line: &String| line.rsplit(' ').next().unwrap().parse().unwrap();
    let mut all: Vec<Address> = lines.iter().map(address).collect();
    all.sort_by_key(ToString::to_string);
    all.dedup();
    assert_eq!(all.len(), addresses, "{lines:#?}");
    let address = all[0].clone();
    (Running::known(program, address), all)
}

/// A path for a socket, whose file goes with it.
struct Path(PathBuf);

impl Path {
    fn new(scene: &Scene) -> Self {
        let name = format!("bimodal-{}-{}-{}", std::process::id(), scene.mode, scene.name);
        Self(std::env::temp_dir().join(name))
    }

    fn arg(&self) -> String {
        format!("unix={}", self.0.display())
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who answers on an address.
#[track_caller]
fn who(address: &Address) -> String {
    match reachable(address) {
        Address::Udp(address) => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.send_to(b"who", address).unwrap();
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
        address => get(&address, "/").unwrap().text().to_owned(),
    }
}

/// Where a client finds what listens on all addresses.
fn reachable(address: &Address) -> Address {
    match address.tcp() {
        Some(at) if at.ip().is_unspecified() => format!("127.0.0.1:{}", at.port()).parse().unwrap(),
        _ => address.clone(),
    }
}

fn by_address(scene: &Scene) {
    let path = Path::new(scene);
    let sockets = ["tcp", &path.arg(), "any", "udp", "fd", "--"];
    let (running, addresses) = start(&mut manager(scene, &sockets), 5);
    for address in &addresses {
        assert_eq!(who(address), running.pid.to_string(), "{address}");
    }
    for number in 3..8 {
        assert!(closes_on_exec(running.pid, number), "{number} would be inherited");
    }
    let tcp = addresses.iter().find(|address| address.tcp().is_some()).unwrap();
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        let answer = get(&reachable(tcp), &format!("/variable/{name}")).unwrap();
        assert_eq!(answer.text(), "None", "{name}");
    }
    assert_eq!(running.stop(), "", "nothing is wrong with that");
    assert!(path.0.exists(), "the file is the manager's");
}

fn in_vain(scene: &Scene) {
    let mut command = manager(scene, &["tcp", "file", "unused", "--"]);
    command.env("LISTEN_FDNAMES", "web:strange:admin");
    let (mut running, _) = start(&mut command, 1);
    assert_eq!(running.who(), running.pid);
    running.warned("nobody listens on descriptor 5 (admin, 127.0.0.1:");
    let errors = running.stop();
    let strange = "descriptor 4 (strange), which was handed over, is not used: it is no socket";
    assert!(errors.contains(strange), "{errors}");
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

fn upgraded(scene: &Scene) {
    let path = Path::new(scene);
    let sockets = ["tcp", &path.arg(), "any", "udp", "fd", "--"];
    let (mut running, addresses) = start(&mut manager(scene, &sockets), 5);
    for _ in 0..2 {
        running.upgrade();
        running.listened(2 * addresses.len());
        for address in &addresses {
            assert_eq!(who(address), running.pid.to_string(), "{address}");
        }
    }
    assert_eq!(running.stop(), "");
    assert!(path.0.exists(), "the file is the manager's");
}

fn somebody_else(scene: &Scene) {
    let mut command = manager(scene, &["unused", "--"]);
    command.env("PRETENDED_PID", "1");
    let (running, addresses) = start(&mut command, 1);
    assert!(Client::connect(&addresses[0]).is_ok());
    assert!(!closes_on_exec(running.pid, 3), "it is not to be touched");
    let seen = get(&running.address, "/variable/LISTEN_PID").unwrap();
    assert_eq!(seen.text(), if scene.is_process() { "None" } else { r#"Some("1")"# });
    assert_eq!(running.stop(), "");
}
