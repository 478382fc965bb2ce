//! Another program takes over, from file to file, without losing a request.
//!
//! A new primary is a stranger to the test: it is known by the number that the events tell, and it is
//! killed and waited for at the end, whatever happens.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use bimodal::{Address, Mode};

use crate::{
    service::{self, Running, SIGTTIN, SIGUSR2},
    support::{
        Scenario, Scene, both,
        client::{Client, get, wait_until_closed},
        ledger::Ledger,
        only,
        program::Program,
        system, wait_until,
    },
};

const SIGKILL: i32 = 9;

pub const SCENARIOS: &[Scenario] = &[
    both("an_upgrade_under_load_loses_no_request", under_load),
    // With threads it is the same socket as under round robin.
    only(&[Mode::Process], "an_upgrade_of_workers_that_accept_themselves_loses_nothing", |scene| {
        take_turns(scene, &["scheduling=shared"]);
    }),
    both("an_upgrade_hands_over_the_socket_of_each_slot", |scene| {
        take_turns(scene, &["scheduling=reuse-port"]);
    }),
    both("an_upgrade_may_change_the_number_of_workers_and_the_policy", other_settings),
    both("what_is_opened_during_an_upgrade_goes_along", opened_late),
    both("a_new_program_goes_on_if_the_old_one_dies", orphaned),
    both("an_address_that_the_new_program_does_not_want_is_closed", unwanted),
    both("the_file_of_a_unix_socket_goes_with_the_last_program", unix_socket),
    both("a_program_that_cannot_take_over_leaves_the_old_one_serving", broken),
    both("a_stop_ends_the_program_that_was_to_take_over", stopped),
    both("only_a_supervised_cluster_is_upgraded", unsupervised),
];

/// A program in a directory of its own, so that its file can be exchanged.
pub struct Installed {
    directory: PathBuf,
}

impl Installed {
    pub fn new(scene: &Scene) -> Self {
        let own = std::env::current_exe().unwrap();
        let name = format!("upgrade-{}-{}-{}", std::process::id(), scene.mode, scene.name);
        let directory = own.parent().unwrap().join(name);
        fs::create_dir(&directory).unwrap();
        let installed = Self { directory };
        installed.restore();
        installed
    }

    fn file(&self) -> PathBuf {
        self.directory.join("program")
    }

    /// Puts another file in the program's place, as a deployment does.
    fn put(&self, make: impl FnOnce(&Path)) {
        let next = self.directory.join("next");
        make(&next);
        fs::rename(next, self.file()).unwrap();
    }

    pub fn restore(&self) {
        self.put(|next| fs::hard_link(std::env::current_exe().unwrap(), next).unwrap());
    }

    pub fn put_script(&self, script: &str) {
        self.put(|next| {
            fs::write(next, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(next, fs::Permissions::from_mode(0o755)).unwrap();
        });
    }

    /// Puts a program that waits for the file that is returned.
    fn put_gate(&self) -> PathBuf {
        let gate = self.directory.join("gate");
        let own = std::env::current_exe().unwrap();
        // Only the new primary waits: workers of the old one run this file as well.
        let open = format!("test -n \"$BIMODAL_WORKER\" || test -e {}", gate.display());
        let wait = format!("until {open}; do sleep 0.01; done");
        self.put_script(&format!("{wait}\nexec {} \"$@\"", own.display()));
        gate
    }

    fn put_options(&self, options: &str) {
        fs::write(self.directory.join("program.options"), options).unwrap();
    }

    pub fn start(&self, scene: &Scene, options: &[&str]) -> Running {
        let mut command = Command::new(self.file());
        command.args(["--program", service::SERVICE, &scene.mode.to_string()]).args(options);
        Running::new(Program::spawn(&mut command))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Clients that ask without a pause, each time on a new connection.
struct Load {
    over: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: &Address) -> Self {
        let (over, ledger) = (Arc::new(AtomicBool::new(false)), Arc::new(Ledger::default()));
        let client = |_| {
            let (over, ledger, address) = (over.clone(), ledger.clone(), address.clone());
            std::thread::spawn(move || {
                while !over.load(SeqCst) {
                    ledger.note(&get(&address, "/"));
                }
            })
        };
        let clients = (0..4).map(client).collect();
        Self { over, ledger, clients }
    }

    /// Waits for so many answers more.
    #[track_caller]
    fn go_on(&self, answers: u64) {
        let goal = self.ledger.total() + answers;
        wait_until("answers", || self.ledger.total() >= goal);
    }

    #[track_caller]
    fn assert_nothing_lost(mut self) {
        self.over.store(true, SeqCst);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
        self.ledger.assert_only("ok");
    }
}

/// Whatever fails, nobody asks on.
impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

fn under_load(scene: &Scene) {
    take_turns(scene, &[]);
}

/// Two upgrades, one after the other, while clients ask.
fn take_turns(scene: &Scene, options: &[&str]) {
    let installed = Installed::new(scene);
    let mut running = installed.start(scene, options);
    let load = Load::start(&running.address);
    for _ in 0..2 {
        load.go_on(50);
        let mut slow = Client::connect(&running.address).unwrap();
        slow.request("/sleep/100").unwrap();
        let old = running.pid;
        running.upgrade();
        assert_ne!(running.pid, old);
        assert!(slow.answer().is_ok(), "what was under way is finished");
        assert_eq!(running.who(), running.pid, "the old one is gone");
        load.go_on(50);
    }
    load.assert_nothing_lost();
    let address = running.address.clone();
    running.stop();
    assert!(Client::connect(&address).is_err(), "nobody keeps the socket");
}

fn other_settings(scene: &Scene) {
    let installed = Installed::new(scene);
    let mut running = installed.start(scene, &["workers=3", "scheduling=reuse-port"]);
    for options in ["workers=1", "workers=2 scheduling=round-robin", "workers=4 scheduling=shared"]
    {
        installed.put_options(options);
        let load = Load::start(&running.address);
        load.go_on(20);
        running.upgrade();
        load.go_on(20);
        load.assert_nothing_lost();
        assert_eq!(running.who(), running.pid);
    }
    running.stop();
}

fn opened_late(scene: &Scene) {
    let installed = Installed::new(scene);
    let mut running = installed.start(scene, &["scheduling=reuse-port"]);
    let gate = installed.put_gate();
    system::signal(running.pid, SIGUSR2);
    running.decided("is started to take over");
    // The sockets were handed over; now there is one more.
    system::signal(running.pid, SIGTTIN);
    running.line(running.pid, "listening ");
    let load = Load::start(&running.address);
    load.go_on(50);
    fs::write(gate, "").unwrap();
    running.taken_over();
    load.go_on(50);
    load.assert_nothing_lost();
    running.stop();
}

fn orphaned(scene: &Scene) {
    let installed = Installed::new(scene);
    let mut running = installed.start(scene, &[]);
    let gate = installed.put_gate();
    system::signal(running.pid, SIGUSR2);
    running.decided("is started to take over");
    system::signal(running.pid, SIGKILL);
    running.program.wait_only();
    let mut waiting = Client::connect(&running.address).expect("nobody holds the socket");
    waiting.request("/").unwrap();
    fs::write(gate, "").unwrap();
    running.left_alone();
    assert_eq!(waiting.answer().unwrap().text(), running.pid.to_string());
    // It can be followed by a third.
    running.upgrade();
    assert_eq!(running.who(), running.pid);
    running.stop();
}

fn unwanted(scene: &Scene) {
    let installed = Installed::new(scene);
    let (one, two) = (free_port(), free_port());
    let addresses = [one, two].map(|port| format!("listen=127.0.0.1:{port}"));
    let mut running = installed.start(scene, &[&addresses[0], &addresses[1]]);
    let second: Address = format!("127.0.0.1:{two}").parse().unwrap();
    running.listened(4);
    installed.put_options("addresses=1");
    running.upgrade();
    running.warned(&format!("{second} is closed: the program before listened there"));
    wait_until_closed(&second);
    assert_eq!(running.who(), running.pid);
    running.stop();
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn unix_socket(scene: &Scene) {
    let installed = Installed::new(scene);
    let name = format!("bimodal-upgrade-{}-{}.sock", std::process::id(), scene.mode);
    let path = std::env::temp_dir().join(name);
    let listen = format!("listen=unix:{}", path.display());
    let mut running = installed.start(scene, &[&listen]);
    installed.put_script("exit 3");
    system::signal(running.pid, SIGUSR2);
    running.decided("no new program takes over");
    assert!(path.exists(), "one that failed took the file along");
    installed.restore();
    running.upgrade();
    assert_eq!(running.who(), running.pid);
    assert!(path.exists(), "the old one took the file along");
    running.stop();
    assert!(!path.exists(), "nobody took the file along");
}

fn broken(scene: &Scene) {
    let installed = Installed::new(scene);
    let mut running = installed.start(scene, &["boot=5000"]);
    let children = || system::children_of(running.program.pid()).len();
    let before = children();
    let load = Load::start(&running.address);
    let cases: [(&str, &dyn Fn()); 5] = [
        ("it ended before it was ready: exit status: 3", &|| installed.put_script("exit 3")),
        ("it ended before it was ready: signal: 6", &|| installed.put_script("kill -ABRT $$")),
        ("it was not ready within 5s", &|| installed.put_script("exec sleep 1000")),
        ("cannot run", &|| installed.put(|next| fs::write(next, "nonsense").unwrap())),
        ("cannot run", &|| fs::remove_file(installed.file()).unwrap()),
    ];
    for (cause, exchange) in cases {
        exchange();
        system::signal(running.pid, SIGUSR2);
        let line = running.decided("no new program takes over, this one goes on: ");
        assert!(line.contains(cause), "{line}");
        load.go_on(20);
        assert_eq!(running.who(), running.pid);
        assert_eq!(system::children_of(running.pid).len(), before, "{cause}: somebody is left");
    }
    installed.restore();
    running.upgrade();
    load.go_on(20);
    load.assert_nothing_lost();
    running.stop();
}

fn stopped(scene: &Scene) {
    let installed = Installed::new(scene);
    let mut running = installed.start(scene, &[]);
    installed.put_script("exec sleep 1000");
    system::signal(running.pid, SIGUSR2);
    let line = running.decided("is started to take over");
    let successor: u32 = line.split(' ').nth(3).unwrap().parse().unwrap();
    // One that is asked for meanwhile is part of the first.
    system::signal(running.pid, SIGUSR2);
    running.stop();
    assert!(!system::exists(successor));
}

fn unsupervised(scene: &Scene) {
    let cluster = scene.builder().launch(crate::bodies::idle).unwrap();
    let error = cluster.upgrade().unwrap_err();
    assert_eq!(error.kind(), bimodal::ErrorKind::Setting);
    assert!(error.to_string().contains("`upgrade`"), "{error}");
    cluster.shutdown().unwrap();
}
