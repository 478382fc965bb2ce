//! What an experiment is: cells to run, and a section to write from their results.

use std::{fmt, time::Duration};

use bimodal::Mode;
use serde_json::Value;

use crate::{
    Result, chart::Charts, plan::Plan, programs::Programs, results::Results, section::Section,
};

/// One arm in one round: what is run, kept and resumed as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// What is measured, such as `process/shared`.
    pub(crate) arm: String,
    /// The mode, if the arm has one: `--mode` chooses by it.
    pub(crate) mode: Option<Mode>,
    /// From 0.
    pub(crate) round: u32,
    /// How long it will take, about.
    pub(crate) expected: Duration,
}

impl Cell {
    /// The one cell of an arm that has no mode and no further rounds.
    pub(crate) fn single(arm: &str, expected: Duration) -> Self {
        Self { arm: arm.to_owned(), mode: None, round: 0, expected }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, round {}", self.arm, self.round + 1)
    }
}

/// What a cell may use while it runs.
pub(crate) struct Bench<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) plan: Plan,
}

/// A question, and how it is answered.
pub(crate) trait Experiment {
    /// `E1` to `E16`: the name of its results and of its section.
    fn id(&self) -> &'static str;

    fn title(&self) -> &'static str;

    fn question(&self) -> &'static str;

    /// Every cell, in the order in which they run. An arm whose program is absent has none.
    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell>;

    /// Runs one cell. Whatever it started has ended when it returns.
    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value>;

    /// Writes the section. There is at least one result; not every cell needs to have one.
    fn section(&self, results: &Results, charts: &Charts) -> Result<Section>;
}

/// All of them, in the order of the report.
pub(crate) fn all() -> Vec<Box<dyn Experiment>> {
    vec![
        Box::new(crate::e1_throughput::Throughput),
        Box::new(crate::e2_churn::Churn),
        Box::new(crate::e3_latency::Latency),
        Box::new(crate::e4_slow_request::SlowRequest),
        Box::new(crate::e5_stuck_worker::StuckWorker),
        Box::new(crate::e6_balance::Balance),
        Box::new(crate::e7_faults::Faults),
        Box::new(crate::e8_start::Start),
        Box::new(crate::e9_reload::Reload),
        Box::new(crate::e10_counter::Counter),
        Box::new(crate::e11_store::Stores),
        Box::new(crate::e12_messages::Messages),
        Box::new(crate::e13_heavy::Heavy),
        Box::new(crate::e14_memory::MemoryUse),
        Box::new(crate::e15_supervision::Supervision),
        Box::new(crate::e16_overload::Overload),
    ]
}
