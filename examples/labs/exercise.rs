//! What an exercise is, and what it found.

use bimodal::Mode;
use serde_json::Value;

use crate::table::Table;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A question that is answered by running something.
pub(crate) struct Exercise {
    /// On the command line.
    pub(crate) name: &'static str,
    /// The question in one line, without its answer.
    pub(crate) about: &'static str,
    /// What will be run.
    pub(crate) setting: &'static str,
    pub(crate) question: &'static str,
    /// The predictions to choose from.
    pub(crate) choices: &'static [&'static str],
    /// Runs it: at most ten seconds, with nothing left behind.
    pub(crate) run: fn(Mode) -> Result<Outcome>,
}

/// What happened.
pub(crate) struct Outcome {
    pub(crate) table: Table,
    /// The choice that the figures agree with.
    pub(crate) seen: usize,
    /// The choice that holds in this mode.
    pub(crate) expected: usize,
    /// Why, with the figures.
    pub(crate) explanation: String,
    /// What to try next.
    pub(crate) next: &'static str,
    /// The figures again, for programs.
    pub(crate) figures: Value,
}
