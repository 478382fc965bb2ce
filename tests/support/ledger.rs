//! A table of outcomes: every attempt ends in one named column, and the whole table is asserted.

use std::{collections::BTreeMap, fmt, io, sync::Mutex};

/// Counts outcomes from any thread.
#[derive(Debug, Default)]
pub struct Ledger {
    columns: Mutex<BTreeMap<String, u64>>,
}

impl Ledger {
    pub fn count(&self, outcome: impl Into<String>) {
        *self.columns.lock().unwrap().entry(outcome.into()).or_default() += 1;
    }

    /// `ok` for a success, else the kind of the error.
    pub fn note<T>(&self, outcome: &io::Result<T>) {
        match outcome {
            Ok(_) => self.count("ok"),
            Err(error) => self.count(format!("{:?}", error.kind())),
        }
    }

    pub fn get(&self, outcome: &str) -> u64 {
        self.columns.lock().unwrap().get(outcome).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.columns.lock().unwrap().values().sum()
    }

    /// Fails unless this is the only column; shows the whole table.
    #[track_caller]
    pub fn assert_only(&self, outcome: &str) {
        assert_eq!(self.get(outcome), self.total(), "not every outcome is `{outcome}`:\n{self}");
        assert!(self.total() > 0, "nothing was attempted");
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (outcome, count) in &*self.columns.lock().unwrap() {
            writeln!(f, "{count:>8}  {outcome}")?;
        }
        Ok(())
    }
}
