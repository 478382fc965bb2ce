//! How many workers a cluster runs, and why that many.
//!
//! Reads what the system allows when it is asked, on the thread that builds the cluster; keeps nothing.

mod bounds;

use std::str::FromStr;

use self::bounds::Bounds;
use crate::error::{Error, ErrorKind, Result};

/// How many workers a cluster runs.
///
/// | text | value |
/// |---|---|
/// | `auto` | [`Workers::Auto`] |
/// | `4` | [`Workers::Exactly`] |
/// | `at-most-4` | [`Workers::AtMost`] |
/// | `all-but-1` | [`Workers::AllBut`] |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Workers {
    /// One per core that this process may use: the smallest of the machine's cores, the affinity mask
    /// (sched_setaffinity(2)) and the cgroup's CPU quota, its parents' included, in whole CPUs; at
    /// least 1. [`run`](crate::Builder::run) logs which of them it was.
    #[default]
    Auto,
    /// Exactly this many, from 1 to [`Workers::MAX`].
    Exactly(usize),
    /// As [`Auto`](Self::Auto), but no more than this (Node: `Math.min(os.cpus().length, 8)`).
    AtMost(usize),
    /// As [`Auto`](Self::Auto), but this many fewer, and at least 1, to leave cores for something else
    /// (Node: `Math.max(1, os.cpus().length - 1)`).
    AllBut(usize),
}

impl Workers {
    /// The most workers a cluster runs at a time.
    pub const MAX: usize = 512;

    /// The number this stands for on this machine.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when the number is 0 or above [`Workers::MAX`].
    pub fn resolve(self) -> Result<usize> {
        self.resolve_on(&Bounds::read())
    }

    /// The number, and which bound it comes from, for the log.
    pub(crate) fn explain(self) -> Result<String> {
        let bounds = Bounds::read();
        let (number, all) = (self.resolve_on(&bounds)?, bounds.cores());
        let reason = match self {
            Self::Exactly(_) => "the program wants as many".into(),
            Self::AtMost(_) if number < all => format!("the program wants no more, of {all}"),
            Self::AllBut(_) if number < all => {
                format!("the program leaves {} of {all} free", all - number)
            }
            Self::Auto if number < all => format!("a cluster has no more, of {all}"),
            _ => bounds.reason(),
        };
        Ok(format!("{number} {}: {reason}", if number == 1 { "worker" } else { "workers" }))
    }

    fn resolve_on(self, bounds: &Bounds) -> Result<usize> {
        let all = bounds.cores();
        match self {
            Self::Auto => Ok(all.min(Self::MAX)),
            Self::AllBut(number) => Ok(all.saturating_sub(number).clamp(1, Self::MAX)),
            Self::AtMost(number @ 1..=Self::MAX) => Ok(all.min(number)),
            Self::Exactly(number @ 1..=Self::MAX) => Ok(number),
            Self::AtMost(number) | Self::Exactly(number) => Err(Error::new(
                ErrorKind::Setting,
                format!("workers is {number}; it must be from 1 to {}", Self::MAX),
            )),
        }
    }
}

impl From<usize> for Workers {
    fn from(number: usize) -> Self {
        Self::Exactly(number)
    }
}

impl FromStr for Workers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |prefix: &str| text.strip_prefix(prefix)?.parse().ok();
        let parsed = match text {
            "auto" => Some(Self::Auto),
            _ => (number("").map(Self::Exactly))
                .or_else(|| number("at-most-").map(Self::AtMost))
                .or_else(|| number("all-but-").map(Self::AllBut)),
        };
        parsed.ok_or_else(|| {
            let expected = "auto, a number, at-most-NUMBER or all-but-NUMBER";
            Error::new(ErrorKind::Setting, format!("workers is {text:?}; it must be {expected}"))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn on(cores: usize, workers: Workers) -> usize {
        workers.resolve_on(&Bounds::of(cores)).unwrap()
    }

    #[test]
    fn caps_hold_and_one_is_the_least() {
        use Workers::*;
        assert_eq!([on(8, Auto), on(8, AtMost(4)), on(2, AtMost(4))], [8, 4, 2]);
        assert_eq!([on(8, AllBut(1)), on(1, AllBut(1)), on(4, AllBut(9))], [7, 1, 1]);
        assert_eq!([on(1024, Auto), on(1024, AllBut(1))], [Workers::MAX; 2]);
        assert_eq!(on(2, Exactly(9)), 9);
    }

    #[test]
    fn counts_are_checked() {
        assert!(Workers::Auto.resolve().unwrap() >= 1);
        assert_eq!(Workers::from(3).resolve().unwrap(), 3);
        for refused in [0, Workers::MAX + 1] {
            assert!(Workers::from(refused).resolve().is_err());
            assert!(Workers::AtMost(refused).resolve().is_err());
        }
    }

    #[test]
    fn texts_are_read_and_others_named_with_the_remedy() {
        let read = |text: &str| text.parse::<Workers>();
        assert_eq!(read("auto").unwrap(), Workers::Auto);
        assert_eq!(read("3").unwrap(), Workers::Exactly(3));
        assert_eq!(read("at-most-4").unwrap(), Workers::AtMost(4));
        assert_eq!(read("all-but-1").unwrap(), Workers::AllBut(1));
        for text in ["", "many", "-1", "at-most-", "all-but-x", "auto "] {
            assert!(read(text).unwrap_err().to_string().contains("at-most-NUMBER"), "{text}");
        }
    }

    #[test]
    fn the_reason_names_what_bounds() {
        let explained = Workers::Exactly(1).explain().unwrap();
        assert_eq!(explained, "1 worker: the program wants as many");
        let auto = Workers::Auto.explain().unwrap();
        assert!(auto.contains("cores") || auto.contains("CPUs"), "{auto}");
    }
}
