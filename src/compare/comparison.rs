//! What a comparison found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    measure::{Blast, Round},
    verdict::{Finding, Recommendation},
};

/// One app in both modes under the same load. As text it is a table with a recommendation, as JSON it has all figures.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// What was asked for: a path, or the names of the requests.
    pub what: String,
    /// Workers of each arm.
    pub workers: usize,
    /// Connections of the load.
    pub connections: usize,
    /// Arms of each mode.
    pub rounds: usize,
    /// How long each load of a round took, in seconds.
    pub time_s: f64,
    /// Requests per second at which latency and CPU time were measured; 0 if there were none.
    pub rate_per_second: f64,
    /// The app with worker processes.
    pub process: Side,
    /// The app with worker threads.
    pub thread: Side,
    /// Every figure in both modes.
    pub findings: Vec<Finding>,
    /// What follows from it.
    pub recommendation: Recommendation,
}

/// The app in one mode.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Side {
    /// Why it could not be measured, if it could not. Rounds before that are kept.
    pub failed: Option<String>,
    /// Where its workers listened; the load went to the first TCP address.
    pub addresses: Vec<String>,
    /// The arms that measured.
    pub rounds: Vec<Round>,
    /// The arms that broke.
    pub blasts: Vec<Blast>,
    /// Why a fault could not be measured.
    pub broken: Vec<String>,
}

impl Comparison {
    /// Whether nothing was compared, because this process is a worker of another cluster, or an arm of another
    /// comparison, and only passes by on its way there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rounds == 0
    }

    /// What a process has that only passes by.
    pub(super) fn empty() -> Self {
        Self {
            what: String::new(),
            workers: 0,
            connections: 0,
            rounds: 0,
            time_s: 0.0,
            rate_per_second: 0.0,
            process: Side::default(),
            thread: Side::default(),
            findings: Vec::new(),
            recommendation: Recommendation {
                mode: None,
                reasons: Vec::new(),
                not_measured: Vec::new(),
            },
        }
    }
}

impl Side {
    /// Requests that failed in its rounds, by kind.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (kind, count) in self.rounds.iter().flat_map(|round| &round.failures) {
            *all.entry(kind.clone()).or_default() += count;
        }
        all
    }

    /// A cell, if there is something to show in it.
    pub(super) fn measured(&self, show: impl FnOnce(&Self) -> String) -> String {
        if self.rounds.is_empty() { "not measured".into() } else { show(self) }
    }
}
