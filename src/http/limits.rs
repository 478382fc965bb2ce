//! What one peer may ask of a server, in numbers. Plain values, checked once.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{Error, ErrorKind, Result};

/// What becomes of a panic in a request's handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PanicPolicy {
    /// It escapes and the worker ends (Node: an uncaught exception). State that the panic may have
    /// left half-changed is gone with it.
    #[default]
    Worker,
    /// The request is answered with 500 if it was not yet answered, its connection closes, and the
    /// worker goes on.
    Request,
}

impl PanicPolicy {
    /// Runs the service's code; `None` when it panicked and the worker goes on.
    pub(super) fn run<T>(self, run: impl FnOnce() -> T) -> Option<T> {
        match self {
            Self::Worker => Some(run()),
            // What the panic left half-done is the service's, whose author chose this policy.
            Self::Request => catch_unwind(AssertUnwindSafe(run))
                .inspect_err(|panic| log::error!("http: the service panicked: {}", text(&**panic)))
                .ok(),
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// What hyper buffers in each direction unless told otherwise.
const HYPER_BUFFER_BYTES: usize = 400 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) max_connections: Option<usize>,
    pub(super) header_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) max_head_bytes: usize,
    pub(super) max_body_bytes: Option<u64>,
    pub(super) panic_policy: PanicPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            request_timeout: Duration::from_secs(300),
            max_head_bytes: 64 * 1024,
            max_body_bytes: Some(10 * 1024 * 1024),
            panic_policy: PanicPolicy::Worker,
        }
    }
}

impl Limits {
    /// Names the first setting that cannot hold.
    pub(super) fn check(&self) -> Result<()> {
        let refused = [
            (self.max_connections == Some(0), "max_connections", "at least 1"),
            (self.header_timeout.is_zero(), "header_timeout", "longer than zero"),
            (self.keep_alive_timeout.is_zero(), "keep_alive_timeout", "longer than zero"),
            (self.request_timeout.is_zero(), "request_timeout", "longer than zero"),
            (self.max_head_bytes == 0, "max_head_bytes", "at least 1"),
        ];
        match refused.iter().find(|(refused, ..)| *refused) {
            Some((_, name, remedy)) => Err(Error::new(
                ErrorKind::Setting,
                format!("http::Server setting `{name}` must be {remedy}"),
            )),
            None => Ok(()),
        }
    }

    /// hyper's side of them.
    pub(super) fn protocol(&self) -> hyper::server::conn::http1::Builder {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .half_close(true)
            .max_header_size(self.max_head_bytes)
            .max_buf_size(self.max_head_bytes.max(HYPER_BUFFER_BYTES));
        builder
    }
}
