//! What a service manager is told, by a manager that listens as systemd does.

use std::{
    io,
    os::linux::net::SocketAddrExt as _,
    os::unix::net::{SocketAddr, UnixDatagram},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    service::{self, Running, SIGHUP, SIGUSR2},
    support::{
        DEADLINE, Scenario, Scene, both,
        client::get,
        program::{self, Program},
        system, wait_until,
    },
};

/// Without the feature nobody is told anything.
pub const SCENARIOS: &[Scenario] = if cfg!(feature = "systemd") { TOLD } else { &[] };

const TOLD: &[Scenario] = &[
    both("a_service_manager_hears_of_readiness_reloads_and_the_end", life),
    both("a_service_manager_hears_of_restarts", restarts),
    both("a_watchdog_hears_from_the_primarys_own_loop", watchdog),
    both("the_managers_variables_are_for_the_primary_alone", variables),
    both("a_manager_that_makes_no_sense_is_ignored", nonsense),
    both("an_upgrade_tells_the_manager_whom_to_watch", upgrade),
];

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new(scene: &Scene) -> Self {
        let name = format!("bimodal-{}-{}-{}", std::process::id(), scene.mode, scene.name);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self { socket, name }
    }

    fn command(&self, scene: &Scene) -> Command {
        let mut command = program::command(service::SERVICE, scene.mode);
        command.env("NOTIFY_SOCKET", format!("@{}", self.name));
        command
    }

    fn start(&self, scene: &Scene) -> Running {
        Running::new(Program::spawn(&mut self.command(scene)))
    }

    /// What comes within this time.
    fn heard(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 512];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.heard(DEADLINE).expect("the manager heard nothing")
    }

    /// Everything up to the first that is this, of which it is the last.
    #[track_caller]
    fn until(&self, last: &str) -> Vec<String> {
        let (mut all, end) = (Vec::new(), Instant::now() + DEADLINE);
        while all.last().is_none_or(|heard| heard != last) {
            // Signs of life may go on for ever.
            let heard = self.heard(DEADLINE).filter(|_| Instant::now() < end);
            all.push(heard.unwrap_or_else(|| panic!("no {last:?}; heard {all:#?}")));
        }
        all
    }

    /// Leaves no room for more: this manager is behind.
    fn fill(&self) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = self.socket.local_addr().unwrap();
        while socket.send_to_addr(b"FILLER=1", &address).is_ok() {}
    }
}

fn status(workers: usize, restarts: usize) -> String {
    let plural = |count| if count == 1 { "" } else { "s" };
    let (some, many) = (plural(workers), plural(restarts));
    format!("STATUS={workers} worker{some} ready, {restarts} restart{many}")
}

fn life(scene: &Scene) {
    let manager = Manager::new(scene);
    let running = manager.start(scene);
    let expected = [status(0, 0), status(1, 0), "READY=1".into(), status(2, 0)];
    assert_eq!(manager.until(&status(2, 0)), expected);
    system::signal(running.pid, SIGHUP);
    let reload = manager.next();
    let time = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reload);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1000 - time.parse::<i64>().unwrap();
    assert!((0..20_000_000).contains(&age), "{age}");
    let reloaded = manager.until("READY=1");
    assert!(reloaded.iter().all(|heard| heard.starts_with("STATUS=") || heard == "READY=1"));
    running.stop();
    let end = manager.until("STOPPING=1");
    assert!(end.iter().all(|heard| heard.starts_with("STATUS=") || heard == "STOPPING=1"));
}

fn restarts(scene: &Scene) {
    let manager = Manager::new(scene);
    let running = manager.start(scene);
    manager.until(&status(2, 0));
    get(&running.address, "/panic").unwrap_err();
    manager.until(&status(2, 1));
    running.stop();
}

fn watchdog(scene: &Scene) {
    let manager = Manager::new(scene);
    let mut command = manager.command(scene);
    command.env("WATCHDOG_USEC", "200000");
    let start = Instant::now();
    let running = Running::new(Program::spawn(&mut command));
    (0..4).for_each(|_| drop(manager.until("WATCHDOG=1")));
    // Three intervals lie between the first and the last.
    assert!(start.elapsed() > Duration::from_millis(200), "more often than every 100 ms");
    system::signal(running.pid, SIGSTOP);
    wait_until("a stopped primary", || system::state(running.pid) == Some('T'));
    // What was sent before.
    while manager.heard(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.heard(Duration::from_millis(500)), None, "a stuck primary gives signs");
    system::signal(running.pid, SIGCONT);
    manager.until("WATCHDOG=1");
    running.stop();
}

fn variables(scene: &Scene) {
    let manager = Manager::new(scene);
    let mut command = manager.command(scene);
    command.env("WATCHDOG_USEC", "60000000").env("BIMODAL_TEST_KEPT", "kept");
    let running = Running::new(Program::spawn(&mut command));
    let variable = |name| get(&running.address, &format!("/variable/{name}")).unwrap();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        assert_eq!(variable(name).text(), "None", "{name}");
    }
    assert_eq!(variable("BIMODAL_TEST_KEPT").text(), r#"Some("kept")"#);
    running.stop();
}

fn nonsense(scene: &Scene) {
    for (socket, usec) in [("nonsense", "1"), ("/nonexistent/socket", "-1"), ("vsock:1:2", "x")] {
        let mut command = program::command(service::SERVICE, scene.mode);
        command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", usec);
        let running = Running::new(Program::spawn(&mut command));
        assert_eq!(running.who(), running.pid);
        let errors = running.stop();
        assert!(errors.contains("NOTIFY_SOCKET is ignored") || errors.contains("cannot be told"));
    }
}

fn upgrade(scene: &Scene) {
    let manager = Manager::new(scene);
    let mut command = manager.command(scene);
    command.env("WATCHDOG_USEC", "200000");
    let mut running = Running::new(Program::spawn(&mut command));
    manager.until("READY=1");
    manager.fill();
    system::signal(running.pid, SIGUSR2);
    let old = running.handed_over();
    let heard = manager.until(&format!("READY=1\nMAINPID={}", running.pid));
    assert!(heard.iter().any(|heard| heard.starts_with("RELOADING=1\n")), "{heard:#?}");
    assert!(!heard.contains(&"STOPPING=1".into()), "{heard:#?}");
    running.ended_well(old);
    // The old one is gone: these are the new one's.
    assert!(!system::exists(old) || system::state(old) == Some('Z'));
    while manager.heard(Duration::from_millis(1)).is_some() {}
    manager.until("WATCHDOG=1");
    running.stop();
    let end = manager.until("STOPPING=1");
    assert!(end.iter().all(|heard| !heard.contains("MAINPID")), "{end:#?}");
}
