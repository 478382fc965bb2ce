//! The arms of a comparison, one after the other.
//!
//! Runs in the comparing program. A mode in which an arm fails has no further arms; the other one goes on.

use super::{Comparison, Fault, Options, Progress, Side, measure, verdict};
use crate::{
    config::Mode,
    error::{Error, ErrorKind, Result},
};

/// The share of the smaller capacity at which latency is measured, where no rate was chosen.
const SHARE: f64 = 0.5;

/// A comparison under way.
struct Session<'a> {
    options: &'a mut Options,
    workers: usize,
    process: Side,
    thread: Side,
    done: usize,
}

/// Runs all arms.
pub(super) fn run(options: &mut Options) -> Result<Comparison> {
    let workers = options.workers.resolve()?;
    let (process, thread) = Default::default();
    let mut session = Session { options, workers, process, thread, done: 0 };
    let rate = session.rate()?;
    session.measure(rate);
    session.check()?;
    session.break_workers(rate);
    Ok(session.conclude(rate))
}

impl Session<'_> {
    /// The rate at which latency is measured.
    fn rate(&mut self) -> Result<f64> {
        if let Some(rate) = self.options.rate {
            return Ok(rate);
        }
        let mut least = f64::INFINITY;
        for mode in order(0) {
            let capacity = self.arm(mode, "capacity", measure::capacity);
            least = least.min(capacity.unwrap_or(f64::INFINITY));
        }
        self.check()?;
        Ok(least * SHARE)
    }

    fn measure(&mut self, rate: f64) {
        for round in 0..self.options.rounds {
            for mode in order(round) {
                let what = format!("round {}", round + 1);
                let arm = |options: &_, mode, workers| measure::round(options, mode, workers, rate);
                if let Some((round, place)) = self.arm(mode, &what, arm) {
                    self.side(mode).addresses = place.all;
                    self.side(mode).rounds.push(round);
                }
            }
        }
    }

    fn break_workers(&mut self, rate: f64) {
        for (round, fault) in Fault::ALL.into_iter().enumerate() {
            for mode in order(round) {
                self.break_worker(mode, fault, rate);
            }
        }
    }

    /// A fault that cannot be measured does not make the figures of the mode worth less.
    fn break_worker(&mut self, mode: Mode, fault: Fault, rate: f64) {
        if !self.begin(mode, fault.to_string()) {
            return;
        }
        match measure::blast(self.options, mode, self.workers, rate, fault) {
            Ok(blast) => self.side(mode).blasts.push(blast),
            Err(error) => {
                let text = format!("what {fault} does could not be measured: {error}");
                self.side(mode).broken.push(text);
            }
        }
    }

    /// Runs an arm of a mode that has not failed.
    fn arm<T>(
        &mut self,
        mode: Mode,
        what: &str,
        arm: impl FnOnce(&Options, Mode, usize) -> Result<T>,
    ) -> Option<T> {
        if !self.begin(mode, what.to_owned()) {
            return None;
        }
        match arm(self.options, mode, self.workers) {
            Ok(value) => Some(value),
            Err(error) => {
                self.side(mode).failed = Some(error.to_string());
                None
            }
        }
    }

    /// Says what comes next. Whether the mode takes part in it.
    fn begin(&mut self, mode: Mode, what: String) -> bool {
        let fixed = if self.options.rate.is_none() { 2 } else { 0 };
        let of = fixed + 2 * (self.options.rounds + Fault::ALL.len());
        let progress = Progress { done: self.done, of, next: format!("{what}, {mode}") };
        self.done += 1;
        if let Some(observer) = &mut self.options.observer {
            observer(&progress);
        }
        self.side(mode).failed.is_none()
    }

    /// An error if neither mode can be measured.
    fn check(&self) -> Result<()> {
        let (Some(process), Some(thread)) = (&self.process.failed, &self.thread.failed) else {
            return Ok(());
        };
        let text = if process == thread {
            format!("the app could be measured in neither mode: {process}")
        } else {
            format!(
                "the app could be measured in neither mode; with processes: {process}; with threads: {thread}"
            )
        };
        Err(Error::new(ErrorKind::Start, text))
    }

    fn side(&mut self, mode: Mode) -> &mut Side {
        match mode {
            Mode::Process => &mut self.process,
            Mode::Thread => &mut self.thread,
        }
    }

    fn conclude(self, rate_per_second: f64) -> Comparison {
        let Self { options, workers, process, thread, .. } = self;
        let findings = verdict::findings(&process, &thread);
        let recommendation = verdict::recommend(&process, &thread, &findings);
        Comparison {
            what: what(options),
            workers,
            connections: options.connections,
            rounds: options.rounds,
            time_s: options.time.as_secs_f64(),
            rate_per_second,
            process,
            thread,
            findings,
            recommendation,
        }
    }
}

/// A B B A: who is first in this round.
fn order(round: usize) -> [Mode; 2] {
    let mut modes = [Mode::Process, Mode::Thread];
    modes.rotate_left(round % 2);
    modes
}

fn what(options: &Options) -> String {
    let names =
        options.requests.iter().map(|(weight, request)| format!("{} x{weight}", request.name));
    let names: Vec<_> = names.collect();
    if names.is_empty() { format!("GET {}", options.path) } else { names.join(", ") }
}
