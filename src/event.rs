//! Where a worker is in its life, and how it ended.

use std::fmt;

/// Where a worker is in its life (Node: `worker.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Asked for; its body does not run yet.
    Starting,
    /// Its body runs.
    Online,
    /// It is ready for connections of at least one address.
    Listening,
    /// It is leaving: nothing new reaches it, it finishes what it has.
    Draining,
    /// Its channel is closed; it is about to end.
    Disconnected,
    /// It has ended.
    Gone,
}

/// What moves a worker on in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Online,
    Listening,
    Leave,
    Close,
    End,
}

impl State {
    /// The state that a step leads to. A life only goes forward: a step that comes late changes
    /// nothing.
    pub(crate) fn after(self, step: Step) -> Self {
        let next = match step {
            Step::Online => Self::Online,
            Step::Listening => Self::Listening,
            Step::Leave => Self::Draining,
            Step::Close => Self::Disconnected,
            Step::End => Self::Gone,
        };
        self.max(next)
    }
}

/// How a worker ended (Node: the `code` and `signal` of the `exit` event).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It ended by itself with this code: 0 for a body that returned, 1 for one that returned an
    /// error, [`ExitStatus::PANIC`] for a panic, the number that a body returned or gave to
    /// [`Worker::exit`](crate::Worker::exit), anything for `std::process::exit` in a process.
    Code(i32),
    /// This signal ended the worker's process.
    Signal(i32),
    /// It was killed on request at its loop's next turn (threads only; a killed process ends by a
    /// signal).
    Killed,
    /// It did not react to being killed and was left behind: its thread still runs, unsupervised.
    Abandoned,
    /// It could not be started.
    NotStarted,
}

impl ExitStatus {
    /// The code of a worker that panicked, as a Rust program's own.
    pub const PANIC: i32 = 101;

    /// Whether the worker's body returned without an error.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The exit code, if it ended by itself.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            _ => None,
        }
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal),
            _ => None,
        }
    }

    /// Whether it was killed: by SIGKILL as a process, on request as a thread.
    #[must_use]
    pub fn killed(self) -> bool {
        matches!(self, Self::Killed | Self::Signal(9))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(Self::PANIC) => f.write_str("code 101 (panic)"),
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}{}", signal_name(*signal)),
            Self::Killed => f.write_str("killed"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::NotStarted => f.write_str("not started"),
        }
    }
}

/// The names of the signals that usually end a process (signal(7)).
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
