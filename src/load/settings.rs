//! What a load is: its settings, which are checked when it starts.

use std::time::Duration;

use super::{
    arrival::{Arrival, Until},
    outcome::Outcome,
    plan::{Plan, Target},
    request::Request,
    running::Running,
};
use crate::error::Result;

/// How long a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Until one side closes it.
    KeepAlive,
    /// For this many requests; then the driver closes it and opens another one.
    Requests(u32),
    /// For one request, which says `Connection: close`.
    Close,
}

/// A load to put on a server.
///
/// The settings are checked by [`run`](Self::run) and [`start`](Self::start), whose error names the setting and the
/// remedy.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is run or started"]
pub struct Load {
    pub(super) target: Target,
    pub(super) classes: Vec<(u32, Request)>,
    pub(super) arrival: Arrival,
    pub(super) connections: usize,
    pub(super) until: Until,
    pub(super) warmup: Duration,
    pub(super) reuse: Reuse,
    pub(super) pipeline: usize,
    pub(super) timeout: Duration,
    pub(super) threads: usize,
    pub(super) count_by: Option<String>,
    pub(super) seed: u64,
}

impl Load {
    /// A load on the server of `url`, `http://HOST[:PORT][/PATH]`; the port is 80 if there is none.
    ///
    /// It asks for the path with GET, in one class "default", unless [`request`](Self::request) is called.
    ///
    /// # Errors
    ///
    /// `Setting` for any other text, and for `https`: a connection in TLS measures the TLS.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self {
            target: Target::parse(url)?,
            classes: Vec::new(),
            arrival: Arrival::Closed,
            connections: 64,
            until: Until::Elapsed(Duration::from_secs(10)),
            warmup: Duration::ZERO,
            reuse: Reuse::KeepAlive,
            pipeline: 1,
            timeout: Duration::from_secs(30),
            threads: 1,
            count_by: None,
            seed: 1,
        })
    }

    /// Adds a class of requests, instead of GETs of the URL's path. Each request is of a class that is drawn
    /// by weight.
    pub fn request(mut self, weight: u32, request: Request) -> Self {
        self.classes.push((weight, request));
        self
    }

    /// When requests are sent; default [`Arrival::Closed`].
    pub fn arrival(self, arrival: Arrival) -> Self {
        Self { arrival, ..self }
    }

    /// How many connections there are at most, each opened when it is first needed; default 64. Requests take
    /// turns on those that are free.
    pub fn connections(self, count: usize) -> Self {
        Self { connections: count, ..self }
    }

    /// When it ends; default after 10 s. Requests that are under way then are waited for, up to their
    /// [timeout](Self::timeout).
    pub fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }

    /// How long it goes on before anything counts; default not at all.
    pub fn warmup(self, time: Duration) -> Self {
        Self { warmup: time, ..self }
    }

    /// How long a connection is used; default [`Reuse::KeepAlive`].
    pub fn reuse(self, reuse: Reuse) -> Self {
        Self { reuse, ..self }
    }

    /// How many requests are under way on one connection at most; default 1. If one of them breaks the connection,
    /// those behind it are `closed` failures.
    pub fn pipeline(self, depth: usize) -> Self {
        Self { pipeline: depth, ..self }
    }

    /// How long a request may take, from when it was due; default 30 s. It is noticed up to a twentieth of that later,
    /// at least 1 ms and at most 100 ms, and costs the connection.
    pub fn timeout(self, time: Duration) -> Self {
        Self { timeout: time, ..self }
    }

    /// How many threads there are; default 1. Connections and rate are split between them.
    pub fn threads(self, count: usize) -> Self {
        Self { threads: count, ..self }
    }

    /// Counts the expected answers by a field of their JSON object, in [`Outcome::workers`]. Bodies up to 64 KiB are
    /// looked into.
    pub fn count_by(self, field: &str) -> Self {
        Self { count_by: Some(field.to_owned()), ..self }
    }

    /// Where chance begins, for the classes of requests and for [`Arrival::Poisson`]; default 1. The same seed gives
    /// the same requests at the same times.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Puts the load on the server and waits for the end.
    ///
    /// A server that cannot be reached is no error: its requests are failures of the outcome.
    ///
    /// # Errors
    ///
    /// `Setting` for one that cannot hold, `Io` if a host's name does not resolve or the system has no
    /// descriptors or threads left, `Panic` if a thread of the driver panicked.
    pub fn run(&self) -> Result<Outcome> {
        self.start()?.wait()
    }

    /// Puts the load on the server, in threads of its own.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn start(&self) -> Result<Running> {
        Running::start(Plan::check(self)?)
    }
}
