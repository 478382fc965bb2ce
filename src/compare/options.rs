//! What a comparison is made with: chosen, checked.
//!
//! The comparing program, its arms and their workers all pass the same `Options`, as they are the same program; what was
//! resolved on the way (the number of workers) goes to an arm with its order.

use std::{fmt, time::Duration};

use super::fault;
use crate::{
    builder::Builder,
    config::{Mode, Workers},
    error::{Error, ErrorKind, Result},
    load::Request,
};

/// The region by which a fault is ordered; no name for a program's own.
pub(super) const REGION: &str = "bimodal.compare";

type Settings = Box<dyn Fn(Builder) -> Builder>;
type Observer = Box<dyn FnMut(&Progress)>;

/// The choices of a [comparison](fn@crate::compare).
#[must_use = "options compare nothing"]
pub struct Options {
    pub(super) name: String,
    pub(super) workers: Workers,
    pub(super) path: String,
    pub(super) requests: Vec<(u32, Request)>,
    pub(super) connections: usize,
    pub(super) rate: Option<f64>,
    pub(super) time: Duration,
    pub(super) warmup: Duration,
    pub(super) rounds: usize,
    pub(super) listen_within: Duration,
    settings: Option<Settings>,
    pub(super) observer: Option<Observer>,
}

/// How far a comparison is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Arms that have ended.
    pub done: usize,
    /// Arms in all.
    pub of: usize,
    /// What the next one is for.
    pub next: String,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            name: "compare".into(),
            workers: Workers::Auto,
            path: "/".into(),
            requests: Vec::new(),
            connections: 64,
            rate: None,
            time: Duration::from_secs(2),
            warmup: Duration::from_millis(500),
            rounds: 4,
            listen_within: Duration::from_secs(10),
            settings: None,
            observer: None,
        }
    }

    /// The comparison's name, and that of the clusters in its arms: 1 to 128 bytes. Default `compare`. A program that
    /// compares twice gives each its own: an arm finds its comparison by it.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// How many workers each arm has. Default [`Workers::Auto`].
    pub fn workers(self, workers: impl Into<Workers>) -> Self {
        Self { workers: workers.into(), ..self }
    }

    /// What is asked for with GET, on the first TCP address that the app listens on: a path, with a query if there is
    /// one. Default `/`. It must answer 200.
    pub fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// One kind of requests, drawn by weight among all kinds; instead of [`path`](Self::path).
    pub fn request(mut self, weight: u32, request: Request) -> Self {
        self.requests.push((weight, request));
        self
    }

    /// Connections of the load, from 1 to 10 000. Default 64.
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Requests per second at which latency is measured, the same in both modes. Default: half the smaller of the two
    /// capacities, which two further arms find first.
    pub fn rate(self, per_second: f64) -> Self {
        Self { rate: Some(per_second), ..self }
    }

    /// How long each arm is measured, once at full load and once at the rate; from 100 ms to 10 min. Default 2 s.
    pub fn time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// How long an arm is loaded before it is measured, at most 1 min. Default 500 ms.
    pub fn warmup(self, time: Duration) -> Self {
        Self { warmup: time, ..self }
    }

    /// How many arms each mode has, from 2 to 32, in the order A B B A. Default 4. The ranges of 4 rounds of two modes
    /// that do not differ lie apart in one comparison of 35.
    pub fn rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    /// How long all workers of an arm may take until they listen, and until one that failed is replaced; at most
    /// 10 min. Default 10 s.
    pub fn listen_within(self, time: Duration) -> Self {
        Self { listen_within: time, ..self }
    }

    /// Further settings of the clusters in the arms, such as regions, a pool, a store or a scheduling policy:
    /// [`Settings::mode`](crate::Settings::mode) of `builder.build()` says in which mode. The name and the number of
    /// workers are chosen after it, and an arm is never an [init](Builder::reap_orphans).
    pub fn cluster(self, settings: impl Fn(Builder) -> Builder + 'static) -> Self {
        Self { settings: Some(Box::new(settings)), ..self }
    }

    /// Called before each arm, in the comparing program.
    pub fn on_progress(self, observer: impl FnMut(&Progress) + 'static) -> Self {
        Self { observer: Some(Box::new(observer)), ..self }
    }

    /// The cluster of an arm, as arm and worker build it.
    pub(super) fn builder(&self, mode: Mode, workers: usize) -> Builder {
        let builder = Builder::new(mode);
        let builder = self.settings.iter().fold(builder, |builder, settings| settings(builder));
        builder.name(&self.name).workers(workers).region(REGION, fault::BYTES).reap_orphans(false)
    }

    /// Checks what can be checked before anything starts.
    pub(super) fn check(&self) -> Result<()> {
        let seconds = |setting, time: Duration, least, most| {
            within(setting, time.as_secs_f64(), least, most, "seconds")
        };
        within("name (its length)", self.name.len() as f64, 1.0, 128.0, "bytes")?;
        within("connections", self.connections as f64, 1.0, 10_000.0, "connections")?;
        within("rounds", self.rounds as f64, 2.0, 32.0, "rounds")?;
        within("rate", self.rate.unwrap_or(1.0), 0.1, 10_000_000.0, "requests per second")?;
        seconds("time", self.time, 0.1, 600.0)?;
        seconds("warmup", self.warmup, 0.0, 60.0)?;
        seconds("listen_within", self.listen_within, 0.01, 600.0)?;
        self.workers.resolve()?;
        self.check_path()
    }

    fn check_path(&self) -> Result<()> {
        let graphic = self.path.bytes().all(|byte| byte.is_ascii_graphic());
        if self.path.starts_with('/') && graphic && self.path.len() <= 8192 {
            return Ok(());
        }
        let text = format!(
            "path is {:?}; it must begin with `/` and have at most 8192 visible ASCII characters: encode others as %XX",
            self.path
        );
        Err(Error::new(ErrorKind::Setting, text))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("workers", &self.workers)
            .field("path", &self.path)
            .field("connections", &self.connections)
            .field("rate", &self.rate)
            .field("time", &self.time)
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

fn within(setting: &str, value: f64, least: f64, most: f64, unit: &str) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let text = format!("{setting} is {value}; it must be from {least} to {most} {unit}");
    Err(Error::new(ErrorKind::Setting, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let new = Options::new;
        assert!(new().check().is_ok());
        for (setting, options) in [
            ("name", new().name("")),
            ("name", new().name("x".repeat(129))),
            ("connections", new().connections(0)),
            ("connections", new().connections(10_001)),
            ("rounds", new().rounds(1)),
            ("rounds", new().rounds(33)),
            ("rate", new().rate(0.0)),
            ("rate", new().rate(f64::NAN)),
            ("rate", new().rate(f64::INFINITY)),
            ("time", new().time(Duration::from_millis(99))),
            ("warmup", new().warmup(Duration::from_secs(61))),
            ("listen_within", new().listen_within(Duration::ZERO)),
            ("workers", new().workers(0)),
            ("path", new().path("")),
            ("path", new().path("x")),
            ("path", new().path("/a b")),
            ("path", new().path("/a\r\nHost: x")),
        ] {
            let error = options.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            let text = error.to_string();
            assert!(text.starts_with(setting) && text.contains("must"), "{text}");
        }
    }

    #[test]
    fn the_programs_settings_reach_both_modes_and_the_names_are_the_comparisons() {
        let options = Options::new().cluster(|builder| builder.name("other").window(3));
        for mode in [Mode::Process, Mode::Thread] {
            let settings = options.builder(mode, 2).build().unwrap();
            assert_eq!((settings.mode, settings.window, settings.workers), (mode, 3, 2));
            assert_eq!(settings.name, "compare");
            assert!(settings.regions.contains_key(REGION));
        }
    }
}
