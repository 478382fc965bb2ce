//! Telling the service manager how the cluster is (sd_notify(3)), as systemd understands it.
//!
//! On the primary's loop, which also gives the sign of life that the manager's watchdog waits for: a
//! primary that is stuck is noticed. Nothing is waited for, and nothing that goes wrong here stops the
//! cluster. Without the feature `systemd`, or without a manager, every call does nothing.
//!
//! A manager that is behind has no room for more (`net.unix.max_dgram_qlen`, by default 10 datagrams). What it has to
//! know is kept then, the latest of each kind, and told as soon as it can be.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use crate::{
    clock,
    sys::{environment::take_env, process::own_pid},
};

/// The variables of a service manager.
pub(super) const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG, WATCHDOG_PID];
/// Where the manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often it wants a sign of life, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// From whom, if it says.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A manager that wants signs of life more often than this gets them as often.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// A cluster has taken the variables for itself.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The variables that a cluster has taken for itself.
pub(super) fn taken() -> &'static [&'static str] {
    if TAKEN.load(SeqCst) { &VARIABLES } else { &[] }
}

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    manager: Option<Manager>,
    watchdog: Option<Watchdog>,
    ready: bool,
    /// What was said last.
    status: String,
    /// Another process speaks.
    handed_over: bool,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// As the environment had it.
    text: OsString,
    /// What it had no room for, one of a kind.
    untold: VecDeque<String>,
    /// It was logged that the manager cannot be told.
    failing: bool,
}

/// How often the manager wants a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watchdog {
    usec: u64,
}

impl Notifier {
    /// Takes what the manager left in the environment.
    pub(crate) fn from_environment() -> Self {
        if !cfg!(feature = "systemd") {
            return Self::default();
        }
        TAKEN.store(true, SeqCst);
        let (socket, usec, pid) = (take_env(SOCKET), take_env(WATCHDOG), take_env(WATCHDOG_PID));
        let manager = socket.and_then(|text| {
            let connected = Manager::new(text.clone());
            connected.inspect_err(|error| log::warn!("{SOCKET} is ignored: {text:?}: {error}")).ok()
        });
        let watchdog = usec.and_then(|usec| Watchdog::parse(&usec, pid.as_deref()));
        Self { watchdog: watchdog.filter(|_| manager.is_some()), manager, ..Self::default() }
    }

    /// The variables from which another program finds the same manager.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        let socket = self.manager.iter().map(|manager| (SOCKET.into(), manager.text.clone()));
        let usec = |watchdog: &Watchdog| (WATCHDOG.into(), watchdog.usec.to_string().into());
        socket.chain(self.watchdog.iter().map(usec)).collect()
    }

    /// Everything serves, for the first time.
    pub(crate) fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.tell("READY=1");
        }
    }

    /// Something is exchanged while everything serves. Before that it is part of getting ready.
    pub(crate) fn reloading(&mut self) {
        if self.ready {
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_ns() / 1000));
        }
    }

    /// That is over, well or not.
    pub(crate) fn reloaded(&mut self) {
        if self.ready {
            self.tell("READY=1");
        }
    }

    pub(crate) fn stopping(&mut self) {
        self.tell("STOPPING=1");
    }

    /// That process is the service now: it speaks from here on.
    pub(crate) fn hand_over(&mut self, pid: u32) {
        self.tell(&format!("READY=1\nMAINPID={pid}"));
        self.handed_over = true;
        self.watchdog = None;
    }

    /// Whether there was no room for something.
    pub(crate) fn has_untold(&self) -> bool {
        self.manager.as_ref().is_some_and(|manager| !manager.untold.is_empty())
    }

    /// Tells what there was no room for, as far as there is room now.
    pub(crate) fn tell_again(&mut self) {
        if let Some(manager) = &mut self.manager {
            manager.flush();
        }
    }

    /// How things are, in one line.
    pub(crate) fn status(&mut self, workers: usize, restarts: u64) {
        if self.manager.is_none() {
            return;
        }
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let (some, many) = (plural(workers as u64), plural(restarts));
        let status = format!("{workers} worker{some} ready, {restarts} restart{many}");
        if status != self.status {
            self.tell(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// How often to give a sign of life, if that is wanted.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.watchdog.map(Watchdog::interval)
    }

    pub(crate) fn sign_of_life(&mut self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&mut self, state: &str) {
        if let Some(manager) = &mut self.manager
            && !self.handed_over
        {
            manager.tell(state);
        }
    }
}

impl Manager {
    fn new(text: OsString) -> io::Result<Self> {
        let address = match text.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(&text)?,
            _ => {
                let text = "it must be an absolute path or @NAME";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address, text, untold: VecDeque::new(), failing: false })
    }

    fn tell(&mut self, state: &str) {
        self.untold.retain(|untold| kind(untold) != kind(state));
        self.untold.push_back(state.to_owned());
        self.flush();
    }

    /// Tells what it has room for, in order. Nothing is kept for a manager that is not there.
    fn flush(&mut self) {
        while let Some(state) = self.untold.front() {
            match self.socket.send_to_addr(state.as_bytes(), &self.address) {
                Ok(_) => self.failing = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        log::warn!("the service manager cannot be told {state:?}: {error}");
                    }
                }
            }
            self.untold.pop_front();
        }
    }
}

/// What a notice is about: a later one makes an earlier one needless.
fn kind(state: &str) -> Option<&str> {
    state.split('=').next()
}

impl Watchdog {
    /// `None` if it is not for this process, or malformed.
    fn parse(usec: &OsStr, pid: Option<&OsStr>) -> Option<Self> {
        let pid = pid.map(|pid| pid.to_str().and_then(|pid| pid.parse::<i32>().ok()));
        if pid.is_some_and(|pid| pid != Some(own_pid())) {
            return None;
        }
        let usec = usec.to_str().and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0);
        if usec.is_none() {
            log::warn!("{WATCHDOG} is ignored: it is no number of microseconds");
        }
        Some(Self { usec: usec? })
    }

    /// Twice as often as is wanted.
    fn interval(self) -> Duration {
        Duration::from_micros(self.usec / 2).max(LEAST_INTERVAL)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn watchdog(usec: &str, pid: Option<&str>) -> Option<Watchdog> {
        Watchdog::parse(OsStr::new(usec), pid.map(OsStr::new))
    }

    fn pair(name: &str) -> (UnixDatagram, Notifier) {
        let name = format!("bimodal-notify-{}-{name}", std::process::id());
        let manager = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&manager).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier {
            manager: Some(Manager::new(format!("@{name}").into()).unwrap()),
            ..Notifier::default()
        };
        (manager, notifier)
    }

    fn said(manager: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    const FILLER: &str = "FILLER=1";

    /// Leaves no room for more.
    fn fill(manager: &UnixDatagram) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = manager.local_addr().unwrap();
        while socket.send_to_addr(FILLER.as_bytes(), &address).is_ok() {}
    }

    #[test]
    fn a_manager_is_told_what_is_new() {
        let (manager, mut notifier) = pair("new");
        notifier.reloading();
        notifier.reloaded();
        notifier.ready();
        notifier.ready();
        notifier.status(1, 0);
        notifier.status(1, 0);
        notifier.status(2, 1);
        notifier.hand_over(77);
        notifier.stopping();
        let heard: Vec<_> = std::iter::from_fn(|| said(&manager)).collect();
        let expected = [
            "READY=1",
            "STATUS=1 worker ready, 0 restarts",
            "STATUS=2 workers ready, 1 restart",
            "READY=1\nMAINPID=77",
        ];
        assert_eq!(heard, expected);
    }

    #[test]
    fn a_manager_that_is_gone_or_stuck_costs_nothing() {
        let (manager, mut notifier) = pair("stuck");
        notifier.ready();
        (0..10_000).for_each(|_| notifier.reloaded());
        drop(manager);
        notifier.reloaded();
    }

    #[test]
    fn what_a_manager_had_no_room_for_it_hears_later() {
        let (manager, mut notifier) = pair("behind");
        notifier.ready();
        assert_eq!(said(&manager).unwrap(), "READY=1");
        fill(&manager);
        notifier.reloading();
        (1..100).for_each(|workers| notifier.status(workers, 0));
        (0..100).for_each(|_| notifier.sign_of_life());
        notifier.hand_over(77);
        notifier.stopping();
        let mut heard = Vec::new();
        while notifier.has_untold() {
            heard.extend(said(&manager));
            notifier.tell_again();
        }
        heard.extend(std::iter::from_fn(|| said(&manager)));
        heard.retain(|said| said != FILLER);
        assert!(heard[0].starts_with("RELOADING=1\n"), "{heard:?}");
        let rest = ["STATUS=99 workers ready, 0 restarts", "WATCHDOG=1", "READY=1\nMAINPID=77"];
        assert_eq!(heard[1..], rest);
    }

    #[test]
    fn hostile_addresses_are_refused() {
        for bad in ["", "@", "relative", "vsock:2:1", "/with\0nul"] {
            assert!(Manager::new(bad.into()).is_err(), "{bad:?}");
        }
        assert!(Manager::new("/".repeat(200).into()).is_err());
    }

    #[test]
    fn a_watchdog_is_for_one_process_and_waits_for_a_time() {
        let own = own_pid().to_string();
        assert_eq!(watchdog("3000000", None), Some(Watchdog { usec: 3_000_000 }));
        assert_eq!(
            watchdog("3000000", Some(&own)).unwrap().interval(),
            Duration::from_millis(1500)
        );
        assert_eq!(watchdog("1", None).unwrap().interval(), LEAST_INTERVAL);
        for (usec, pid) in
            [("5", Some("1")), ("5", Some("x")), ("0", None), ("", None), ("-1", None)]
        {
            assert_eq!(watchdog(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}
