//! Processes or threads, for one's own app: it is run in both modes under the same load, and the figures are laid side
//! by side.
//!
//! ```no_run
//! use bimodal::{Worker, compare, compare::Options, http};
//!
//! fn main() -> bimodal::Result<()> {
//!     let comparison = compare(app, Options::new().path("/hello").workers(2))?;
//!     println!("{comparison}");
//!     Ok(())
//! }
//!
//! // The body that one gives to `Builder::run`, unchanged.
//! async fn app(worker: Worker) -> bimodal::Result<()> {
//!     let listener = worker.listen("127.0.0.1:0").await?;
//!     let answer = |_| std::future::ready(http::text("hello\n"));
//!     http::serve(listener, http::service_fn(answer)).await
//! }
//! ```
//!
//! Each arm (one mode, one round) is a child process that runs this program again up to the comparison and supervises
//! a cluster of the app there; in [`Mode::Process`] its workers are this program once more. So memory, CPU time and the
//! start are an arm's alone, and an abort among threads ends the arm, not the comparison. The arms come one after the
//! other, in the order A B B A, so that a machine that slows down does so for both. Two arms more per mode break: a
//! task beside the app panics, or aborts, under load.
//!
//! Runs on the thread that calls [`compare`](fn@compare); the load has threads of its own ([`crate::load`]). Invariants: an
//! arm dies with the comparing program, however that ends, and its workers die with it; one arm runs at a time;
//! an arm never returns to the program.

mod arm;
mod child;
mod comparison;
mod fault;
mod inside;
mod invitation;
mod line;
mod measure;
mod options;
mod session;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod verdict;

use std::future::Future;

pub use self::{
    comparison::{Comparison, Side},
    fault::Fault,
    measure::{Blast, Round},
    options::{Options, Progress},
    table::Unit,
    verdict::{Finding, Range, Recommendation},
};
use crate::{
    backend::process::child::invited_to,
    builder,
    config::Mode,
    error::{Error, ErrorKind, Result},
    event_loop,
    worker::{Outcome, Worker},
};

/// The name of the comparison that this process was started for, if it is one of its arms; `None` in a program that
/// was started in any other way.
///
/// For a `main` that has to do something else first, such as a test program: get to that comparison directly. The
/// workers of an arm are told by [`worker_of`](crate::worker_of), and have the same name.
#[must_use]
pub fn arm_of() -> Option<&'static str> {
    invitation::invited_to()
}

/// Runs an app in both modes under the same load and says how they differ. It takes about a minute with the default
/// [`Options`].
///
/// `app` is the body that [`Builder::run`](crate::Builder::run) would get; it listens on TCP, with HTTP/1.1. Call this from
/// `main`, before threads and clusters are started: the program is started again for each arm, with the same arguments and
/// environment, and must get here each time. In an arm and in its workers it does not return. What an arm writes to its
/// standard output is dropped.
///
/// In a worker process of another cluster of the program, and in an arm of another comparison, it returns an
/// [empty](Comparison::is_empty) comparison, so that `main` gets to that other place.
///
/// # Errors
///
/// [`ErrorKind::Setting`] naming the option and the remedy, and inside a worker; [`ErrorKind::Start`] when the app could be measured in
/// neither mode, with the reason of each (that it could not be in one is part of the result); [`ErrorKind::Io`] when the
/// operating system refuses something.
pub fn compare<F, Fut>(app: F, mut options: Options) -> Result<Comparison>
where
    F: Fn(Worker) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + 'static,
{
    options.check()?;
    check_place()?;
    let body = move |worker: Worker| {
        fault::obey(&worker);
        app(worker)
    };
    if let Some(cluster) = invited_to() {
        return pass(cluster, &options, body);
    }
    if let Some(line) = invitation::accept(&options.name) {
        inside::serve(&line, |mode, workers| options.builder(mode, workers).supervise(body));
    }
    if invitation::invited_to().is_some() {
        return Ok(Comparison::empty());
    }
    builder::take_name(&options.name)?;
    session::run(&mut options)
}

/// A worker's program would not get here when it is started again, and its loop would stand still.
fn check_place() -> Result<()> {
    if !event_loop::is_entered() {
        return Ok(());
    }
    let text =
        "`compare` was called inside a worker; call it from `main`, before any cluster is started";
    Err(Error::new(ErrorKind::Setting, text))
}

/// In a worker process: becomes the worker, if it is one of an arm of this comparison.
fn pass<F, Fut>(cluster: &str, options: &Options, body: F) -> Result<Comparison>
where
    F: Fn(Worker) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + 'static,
{
    if cluster == options.name {
        // The number of workers is the primary's affair.
        let _ = options.builder(Mode::Process, 1).supervise(body)?;
        let text = "`compare` was called in a worker of its own comparison, which is one already";
        return Err(Error::new(ErrorKind::Setting, text));
    }
    Ok(Comparison::empty())
}
