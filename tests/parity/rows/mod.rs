//! What Node's `cluster` and `worker_threads` do, row by row: the claim in this crate's words, and in
//! which mode it holds.
//!
//! Which tests prove a row, the scenarios say; what only had to be written down, a file proves.
//! `tests/NODE.md` is made of both, see [`table`].

mod det;
mod err;
mod evt;
mod fork;
mod life;
mod lst;
mod msg;
mod shut;
pub mod table;
mod thr;

use std::{fmt, fs, path::Path};

use bimodal::Mode;

/// The rows by theme, in the table's order.
const SECTIONS: &[(&str, &[Row])] = &[
    ("Who is primary and who is worker", det::ROWS),
    ("Fork and settings", fork::ROWS),
    ("Events", evt::ROWS),
    ("Messages", msg::ROWS),
    ("Lifetime", life::ROWS),
    ("Listening and scheduling", lst::ROWS),
    ("Shutdown of the whole cluster", shut::ROWS),
    ("Errors", err::ROWS),
    ("Semantics of worker_threads", thr::ROWS),
];

/// One claim that a test can prove.
struct Row {
    id: &'static str,
    importance: Importance,
    claim: &'static str,
    process: Cell,
    thread: Cell,
}

/// Whether a row is required or wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Importance {
    Core,
    Nice,
}

/// What becomes of a row in one mode.
#[derive(PartialEq, Eq)]
enum Cell {
    /// The claim holds as it is written.
    Holds,
    /// Its intent holds, in this way.
    Adapted(&'static str),
    /// It asks for a text or a figure: this file of the project has this phrase.
    Documented { file: &'static str, phrase: &'static str },
    /// It does not hold, for this reason.
    No(&'static str),
}

/// Adapted in the same way as in the other mode.
const AS_IN_PROCESS: Cell = Cell::Adapted("as in Process");

const fn core(id: &'static str, claim: &'static str, process: Cell, thread: Cell) -> Row {
    Row { id, importance: Importance::Core, claim, process, thread }
}

const fn nice(id: &'static str, claim: &'static str, process: Cell, thread: Cell) -> Row {
    Row { id, importance: Importance::Nice, claim, process, thread }
}

impl Row {
    fn cell(&self, mode: Mode) -> &Cell {
        match mode {
            Mode::Process => &self.process,
            Mode::Thread => &self.thread,
        }
    }
}

impl Cell {
    /// Whether what was to be written down is there, however its lines are broken.
    fn is_written(&self) -> bool {
        let Self::Documented { file, phrase } = self else { return false };
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        text.is_ok_and(|text| words(&text).contains(&words(phrase)))
    }
}

impl fmt::Display for Importance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Nice => "nice",
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("yes"),
            Self::Adapted(how) => write!(f, "adapted: {how}"),
            Self::Documented { file, phrase } => write!(f, "to read in `{file}`: \"{phrase}\""),
            Self::No(reason) => write!(f, "no: {reason}"),
        }
    }
}
