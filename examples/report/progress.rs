//! How far a run is: a bar with the time left on a terminal, one line per cell elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::experiment::Cell;

pub(crate) struct Progress {
    bar: ProgressBar,
    count: usize,
    done: usize,
    /// What the cells that are left should take.
    left: Duration,
    /// Measured and expected time of those that ended: their ratio corrects what is left.
    spent: Duration,
    expected: Duration,
    began: Instant,
}

impl Progress {
    pub(crate) fn new(expected: impl Iterator<Item = Duration>) -> Self {
        let (count, left) = expected.fold((0, Duration::ZERO), |(n, sum), one| (n + 1, sum + one));
        // On standard error; indicatif hides it where that is no terminal.
        let bar = ProgressBar::new(left.as_millis() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}") {
            bar.set_style(style);
        }
        let (spent, done) = (Duration::ZERO, 0);
        Self { bar, count, done, left, spent, expected: spent, began: Instant::now() }
    }

    pub(crate) fn begin(&mut self, id: &str, cell: &Cell) {
        self.began = Instant::now();
        let (next, count, left) = (self.done + 1, self.count, self.time_left().as_secs());
        let line = format!("{next}/{count} {id} {cell}, about {left} s left");
        if self.bar.is_hidden() {
            eprintln!("report: {line}");
        }
        self.bar.set_message(line);
    }

    pub(crate) fn end(&mut self, cell: &Cell) {
        self.done += 1;
        self.left = self.left.saturating_sub(cell.expected);
        self.expected += cell.expected;
        self.spent += self.began.elapsed();
        self.bar.inc(cell.expected.as_millis() as u64);
    }

    /// Tells something beside the bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("report: {line}"));
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn time_left(&self) -> Duration {
        if self.expected.is_zero() {
            return self.left;
        }
        self.left.mul_f64(self.spent.as_secs_f64() / self.expected.as_secs_f64())
    }
}
