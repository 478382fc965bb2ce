//! The values a program chooses: mode, scheduling, standard streams; and limits that several layers keep.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    str::FromStr,
    time::Duration,
};

use crate::error::{Error, ErrorKind, Result};
pub use crate::{
    address::{Address, AddressKind},
    workers::Workers,
};

/// The most regions of a cluster: their descriptors reach a worker with one packet, beside the stats page.
pub(crate) const MAX_REGIONS: usize = 32;

/// The longest time that an idle loop looks again before it sleeps.
pub(crate) const MAX_IDLE_POLL: Duration = Duration::from_millis(10);

/// What a worker is: the one value that changes how a program uses its cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Each worker is a child process: own memory, own descriptors; a crash ends that worker only
    /// (Node: `cluster`).
    Process,
    /// Each worker is a thread pinned to a core: shared memory, messages move without a copy; a
    /// panic ends that worker only, an abort ends the program (Node: `worker_threads`).
    Thread,
}

impl Mode {
    /// The environment variable that [`Mode::from_args_or_env`] reads.
    pub const VARIABLE: &'static str = "BIMODAL_MODE";

    /// The mode named by `--mode process|thread` on the command line, else by the environment
    /// variable `BIMODAL_MODE`, else [`Mode::Process`], which is what Node's `cluster` does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when the value is missing or is neither `process` nor `thread`.
    pub fn from_args_or_env() -> Result<Self> {
        Self::choose(std::env::args_os().skip(1), std::env::var_os(Self::VARIABLE))
    }

    fn choose(args: impl Iterator<Item = OsString>, variable: Option<OsString>) -> Result<Self> {
        match named_in(args)?.or(variable) {
            Some(value) => value.to_string_lossy().parse(),
            None => Ok(Self::Process),
        }
    }
}

/// The value of the last `--mode VALUE` or `--mode=VALUE` before a `--`.
fn named_in(args: impl Iterator<Item = OsString>) -> Result<Option<OsString>> {
    let mut args = args.take_while(|arg| arg != "--");
    let mut named = None;
    while let Some(arg) = args.next() {
        if arg == "--mode" {
            let missing =
                || Error::new(ErrorKind::Setting, "--mode needs a value: process or thread");
            named = Some(args.next().ok_or_else(missing)?);
        } else if let Some(value) = arg.to_string_lossy().strip_prefix("--mode=") {
            named = Some(value.into());
        }
    }
    Ok(named)
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "process" => Ok(Self::Process),
            "thread" => Ok(Self::Thread),
            _ => Err(unknown("mode", text, "process or thread")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Process => "process",
            Self::Thread => "thread",
        })
    }
}

/// Who gets the next connection (Node: `cluster.schedulingPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduling {
    /// The primary accepts and deals connections out in turn: even, at the price of a hand-over per
    /// connection. The default of [`Mode::Process`] (Node: `SCHED_RR`).
    RoundRobin,
    /// The primary accepts and offers each connection to the worker with the fewest open ones: even
    /// also when connections live long.
    LeastConnections,
    /// Whichever worker is free takes the next connection from the one accept queue, the kernel's: nothing
    /// waits behind a busy worker, and idle ones take turns. The default of [`Mode::Thread`] (Node:
    /// `SCHED_NONE`).
    Shared,
    /// One `SO_REUSEPORT` socket per worker; the kernel hashes connections onto them (socket(7)).
    /// Cheapest, and the most uneven with few connections or slow requests.
    ReusePort,
}

impl Scheduling {
    /// The environment variable that chooses the policy where the program does not, by the name that
    /// `FromStr` reads, or by Node's: `rr` or `none` (Node: `NODE_CLUSTER_SCHED_POLICY`).
    pub const VARIABLE: &'static str = "BIMODAL_SCHEDULING";

    /// What the value of [`Scheduling::VARIABLE`] asks for.
    pub(crate) fn from_variable(value: &OsStr) -> Result<Self> {
        match value.to_str() {
            Some("rr") => Ok(Self::RoundRobin),
            Some("none") => Ok(Self::Shared),
            _ => value.to_string_lossy().parse().map_err(|error| {
                let text = format!("the environment variable `{}`", Self::VARIABLE);
                Error::caused(ErrorKind::Setting, text, error)
            }),
        }
    }
}

impl FromStr for Scheduling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "round-robin" => Ok(Self::RoundRobin),
            "least-connections" => Ok(Self::LeastConnections),
            "shared" => Ok(Self::Shared),
            "reuse-port" => Ok(Self::ReusePort),
            _ => Err(unknown(
                "scheduling",
                text,
                "round-robin, least-connections, shared or reuse-port",
            )),
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Shared => "shared",
            Self::ReusePort => "reuse-port",
        })
    }
}

/// Where the standard streams of a worker process go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdio {
    /// Where the primary's go. The default.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// Through a pipe to the worker's handle: [`WorkerHandle::take_stdin`] and its siblings. A pipe
    /// that nobody reads fills, and then the worker waits.
    ///
    /// [`WorkerHandle::take_stdin`]: crate::WorkerHandle::take_stdin
    Piped,
}

/// Whether workers live in the primary's memory. Backends answer it, so that nothing else has to
/// ask for the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// A value can be moved to a worker.
    Shared,
    /// A value must be encoded, a socket passed as a descriptor.
    Separate,
}

fn unknown(what: &str, got: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Setting, format!("{what} is {got:?}; it must be {expected}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn choose(args: &[&str], variable: Option<&str>) -> Result<Mode> {
        Mode::choose(args.iter().map(OsString::from), variable.map(OsString::from))
    }

    #[test]
    fn the_command_line_wins_over_the_environment_over_the_default() {
        assert_eq!(choose(&["--mode", "thread"], Some("process")).unwrap(), Mode::Thread);
        assert_eq!(choose(&["--mode=thread", "x"], None).unwrap(), Mode::Thread);
        assert_eq!(choose(&["x"], Some("thread")).unwrap(), Mode::Thread);
        assert_eq!(choose(&["--", "--mode", "thread"], None).unwrap(), Mode::Process);
    }

    #[test]
    fn a_bad_mode_is_named_with_the_remedy() {
        for args in [&["--mode"][..], &["--mode", "fibre"], &["--mode="]] {
            let error = choose(args, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            assert!(error.to_string().contains("process or thread"), "{error}");
        }
    }

    #[test]
    fn texts_survive_a_round_trip() {
        for mode in [Mode::Process, Mode::Thread] {
            assert_eq!(mode.to_string().parse::<Mode>().unwrap(), mode);
        }
        use Scheduling::*;
        for policy in [RoundRobin, LeastConnections, Shared, ReusePort] {
            assert_eq!(policy.to_string().parse::<Scheduling>().unwrap(), policy);
        }
    }

    #[test]
    fn the_variable_knows_nodes_names_and_names_itself() {
        let read = |value: &str| Scheduling::from_variable(OsStr::new(value));
        assert_eq!(read("rr").unwrap(), Scheduling::RoundRobin);
        assert_eq!(read("none").unwrap(), Scheduling::Shared);
        assert_eq!(read("reuse-port").unwrap(), Scheduling::ReusePort);
        let error = read("RR").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains("BIMODAL_SCHEDULING"), "{error}");
    }
}
