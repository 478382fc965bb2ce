//! The signals that a primary can send to a worker.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorKind, Result};

/// A signal for [`WorkerHandle::kill_with`](crate::WorkerHandle::kill_with) (Node: the argument of
/// `worker.kill`).
///
/// As text: its name, with or without `SIG`, in any case, or its number on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM: drain and leave. A supervised worker is replaced.
    Term,
    /// SIGKILL: end at once.
    Kill,
    /// SIGINT, which a worker leaves to its primary: nothing happens.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGABRT.
    Abort,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

impl Signal {
    const ALL: [(Self, &'static str, i32); 8] = [
        (Self::Term, "SIGTERM", 15),
        (Self::Kill, "SIGKILL", 9),
        (Self::Int, "SIGINT", 2),
        (Self::Quit, "SIGQUIT", 3),
        (Self::Abort, "SIGABRT", 6),
        (Self::Hup, "SIGHUP", 1),
        (Self::Usr1, "SIGUSR1", 10),
        (Self::Usr2, "SIGUSR2", 12),
    ];

    /// The signal's number, as in [`ExitStatus::Signal`](crate::ExitStatus::Signal).
    #[must_use]
    pub fn number(self) -> i32 {
        self.row().2
    }

    fn row(self) -> (Self, &'static str, i32) {
        // In the order of the declaration.
        Self::ALL[self as usize]
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().1)
    }
}

impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.to_ascii_uppercase();
        let is = |name: &str, number: i32| {
            wanted == name
                || name.strip_prefix("SIG") == Some(&wanted)
                || wanted == number.to_string()
        };
        let found = Self::ALL.into_iter().find(|(_, name, number)| is(name, *number));
        found.map(|(signal, ..)| signal).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name, _)| name).join(", ");
            Error::new(ErrorKind::Setting, format!("signal is {text:?}; it must be one of {names}"))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_in_any_case() {
        for (signal, name, number) in Signal::ALL {
            let short = name.strip_prefix("SIG").unwrap();
            let lower = name.to_lowercase();
            for text in [name, short, &lower, &short.to_lowercase(), &number.to_string()] {
                assert_eq!(text.parse::<Signal>().unwrap(), signal, "{text}");
            }
            assert_eq!((signal.to_string().as_str(), signal.number()), (name, number));
        }
    }

    #[test]
    fn an_unknown_signal_is_refused_with_the_names_that_exist() {
        for text in ["", "SIG", "SIGFOO", "0", "15 ", "SIGSIGTERM", "99"] {
            let error = text.parse::<Signal>().unwrap_err();
            assert!(error.to_string().contains("SIGTERM, SIGKILL"), "{error}");
        }
    }
}
