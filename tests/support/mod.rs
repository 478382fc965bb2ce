//! What the test programs share: scenarios that are their own workers, conditions with deadlines, a
//! small blocking client, a ledger of outcomes, and the program itself started again.
//!
//! A test program is `harness = false` and its `main` is [`run`]: a process that was started to be a
//! worker goes straight to the scenario of its cluster's name, and to nothing else.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod client;
pub mod events;
pub mod ledger;
pub mod program;
pub mod system;
pub mod trap;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bimodal::{Builder, Cluster, Mode};
use libtest_mimic::{Arguments, Trial};

/// Longer than anything here takes; a test that waits for it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Both modes.
pub const BOTH: &[Mode] = &[Mode::Process, Mode::Thread];

/// A behaviour, written once.
pub struct Scenario {
    pub name: &'static str,
    pub modes: &'static [Mode],
    /// The rows of `tests/NODE.md` that it proves.
    pub rows: &'static [&'static str],
    /// Rows that it proves in some of its modes, as they do not hold in the others.
    pub rows_of_some: (&'static [Mode], &'static [&'static str]),
    pub run: fn(&Scene),
}

impl Scenario {
    /// Names the rows of `tests/NODE.md` that the scenario proves.
    pub const fn proves(self, rows: &'static [&'static str]) -> Self {
        Self { rows, ..self }
    }

    /// Names rows that it proves in these modes only, as they do not hold in the others.
    pub const fn proves_in(self, modes: &'static [Mode], rows: &'static [&'static str]) -> Self {
        Self { rows_of_some: (modes, rows), ..self }
    }

    /// The rows that it proves in this mode.
    pub fn rows_in(&self, mode: Mode) -> impl Iterator<Item = &'static str> {
        let (modes, rows) = self.rows_of_some;
        let rows = if modes.contains(&mode) { rows } else { &[] };
        self.rows.iter().chain(rows).copied()
    }
}

/// A scenario that holds in both modes.
pub const fn both(name: &'static str, run: fn(&Scene)) -> Scenario {
    only(BOTH, name, run)
}

/// A scenario of one mode; whoever registers it says why.
pub const fn only(mode: &'static [Mode], name: &'static str, run: fn(&Scene)) -> Scenario {
    Scenario { name, modes: mode, rows: &[], rows_of_some: (&[], &[]), run }
}

/// A scenario in one mode. In a worker process it runs up to the builder's `launch` or `run`.
pub struct Scene {
    pub mode: Mode,
    pub name: &'static str,
}

impl Scene {
    /// The scenario's cluster.
    pub fn builder(&self) -> Builder {
        Cluster::builder(self.mode).name(self.name)
    }

    /// A further cluster of the scenario, here called `NAME/SUFFIX`.
    pub fn another(&self, mode: Mode, suffix: &str) -> Builder {
        Cluster::builder(mode).name(format!("{}/{suffix}", self.name))
    }

    pub fn is_process(&self) -> bool {
        self.mode == Mode::Process
    }
}

/// The whole `main` of a test program: a worker, the program `--program NAME MODE`, or the tests.
///
/// Scenarios are tests; `programs` are only run by tests, with [`program::start`].
pub fn run(
    scenarios: impl IntoIterator<Item = &'static Scenario>,
    programs: impl IntoIterator<Item = &'static Scenario>,
) -> ExitCode {
    run_with(scenarios, programs, [])
}

/// [`run`], with tests that are no scenarios.
pub fn run_with(
    scenarios: impl IntoIterator<Item = &'static Scenario>,
    programs: impl IntoIterator<Item = &'static Scenario>,
    further: impl IntoIterator<Item = Trial>,
) -> ExitCode {
    let (scenarios, programs) = (Vec::from_iter(scenarios), Vec::from_iter(programs));
    let find = |name: &str| {
        let mut all = scenarios.iter().chain(&programs).copied();
        all.find(|scenario| scenario.name == name)
    };
    if let Some(cluster) = bimodal::worker_of() {
        let name = cluster.split('/').next().unwrap_or(cluster);
        let scenario =
            find(name).unwrap_or_else(|| panic!("a worker of an unknown cluster {cluster}"));
        (scenario.run)(&Scene { mode: Mode::Process, name: scenario.name });
        panic!("the scenario {name} did not become the worker of {cluster}");
    }
    if let Some((name, mode)) = program::asked_for() {
        let scenario = find(&name).unwrap_or_else(|| panic!("no program {name}"));
        (scenario.run)(&Scene { mode, name: scenario.name });
        return ExitCode::SUCCESS;
    }
    let trials = scenarios.iter().copied().flat_map(|scenario| {
        scenario.modes.iter().map(move |mode| {
            let scene = Scene { mode: *mode, name: scenario.name };
            Trial::test(format!("{mode}::{}", scenario.name), move || {
                (scenario.run)(&scene);
                Ok(())
            })
        })
    });
    run_trials(THREADS, trials.chain(further).collect())
}

/// Waits for a condition, and fails the test if it does not come.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Trials at the same time, unless the command line says how many: they mostly wait, so more than cores.
pub const THREADS: usize = 6;

/// Runs trials, so many at a time unless the command line says how many.
pub fn run_trials(threads: usize, trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Says that this machine does not let a test do what it needs. Where `BIMODAL_TEST_ALL` is set, it fails.
#[track_caller]
pub fn not_permitted(what: &str) {
    assert!(std::env::var_os("BIMODAL_TEST_ALL").is_none(), "not permitted here: {what}");
    eprintln!("SKIPPED, not permitted here: {what}");
}
