//! The stats page: one row of counters per worker, readable without asking the worker.
//!
//! A row is written by its worker alone, with relaxed stores; the primary and every worker read it.
//! Only between two workers, while nobody owns the row, the primary resets it. A reader may see the
//! counters of one row at slightly different moments, never a torn value. Rows are 128 bytes apart,
//! a pair of cache lines, because adjacent lines are fetched together. Behind all rows lie the times of requests, for
//! each slot as many counts as [`Latency`] has steps.
//!
//! The words live on the heap where memory is shared, and in a sealed memfd where it is not.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::AtomicU64,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
    time::{Duration, Instant},
};

use super::latency::{Latency, STEPS, step_of};
use crate::{
    clock,
    id::Slot,
    sys::{
        memory::SharedWords,
        thread::{CpuClock, own_thread},
    },
};

/// Words of 8 bytes from one row to the next.
const ROW: usize = 16;

#[derive(Clone, Copy)]
enum Column {
    Worker,
    Generation,
    Process,
    Beats,
    Open,
    Accepted,
    Requests,
    Busy,
    Idle,
    /// The number of the worker's CPU clock; 0 before and after its life.
    Clock,
    /// When its loop began to count, on the clock that all processes share; 0 as above.
    Begun,
    /// 1 while its loop sleeps.
    Asleep,
    /// 1 after the worker's end: it writes nowhere any more.
    Ended,
    /// The kernel's number of its loop's thread.
    Thread,
}

/// The counters of all workers of a cluster.
#[derive(Debug)]
pub struct StatsPage {
    words: SharedWords,
}

impl StatsPage {
    /// Rows on a page: slots 0 to 1023.
    pub const ROWS: usize = 1024;

    const WORDS: usize = Self::ROWS * (ROW + STEPS);

    /// A page that threads of this process share.
    pub(crate) fn heap() -> Arc<Self> {
        // Of a mapping only what is touched costs memory.
        let words = SharedWords::anonymous(Self::WORDS);
        Arc::new(Self { words: words.unwrap_or_else(|_| SharedWords::heap(Self::WORDS)) })
    }

    /// A page that processes share, and the descriptor to hand to them.
    pub(crate) fn memfd() -> io::Result<(Arc<Self>, OwnedFd)> {
        let (words, descriptor) = SharedWords::memfd("bimodal-stats", Self::WORDS)?;
        Ok((Arc::new(Self { words }), descriptor))
    }

    /// The page behind a descriptor that came from the primary.
    pub(crate) fn map(descriptor: OwnedFd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { words: SharedWords::map(descriptor, Self::WORDS)? }))
    }

    /// The row of a slot.
    ///
    /// # Panics
    ///
    /// When the slot is not below [`StatsPage::ROWS`].
    #[must_use]
    pub fn row(&self, slot: Slot) -> SlotStats {
        let read = |column| self.word(slot, column).load(Relaxed);
        let (busy_ns, idle_ns) = self.times(slot);
        SlotStats {
            slot: slot.get(),
            worker: read(Column::Worker),
            generation: read(Column::Generation),
            pid: read(Column::Process),
            thread: read(Column::Thread),
            beats: read(Column::Beats),
            connections_open: read(Column::Open),
            connections_accepted: read(Column::Accepted),
            requests: read(Column::Requests),
            busy_ns,
            idle_ns,
            cpu_ns: cpu(read(Column::Clock)).as_nanos() as u64,
        }
    }

    /// The rows that belong, or belonged last, to a worker, by slot.
    #[must_use]
    pub fn rows(&self) -> Vec<SlotStats> {
        (0..Self::ROWS).map(|slot| self.row(Slot(slot))).filter(|row| row.worker != 0).collect()
    }

    /// How long the requests of the worker in this slot took.
    ///
    /// # Panics
    ///
    /// When the slot is not below [`StatsPage::ROWS`].
    #[must_use]
    pub fn latency(&self, slot: Slot) -> Latency {
        Latency::new(|step| self.step(slot, step).load(Relaxed))
    }

    /// Connections open at the worker in this slot.
    pub(crate) fn open(&self, slot: Slot) -> u64 {
        self.word(slot, Column::Open).load(Relaxed)
    }

    /// Prepares the row of a slot that no worker owns for the worker that comes next.
    pub(crate) fn reset(&self, slot: Slot, worker: u64, generation: u32) {
        for word in 0..ROW {
            self.words.get(slot.get() * ROW + word).store(0, Relaxed);
        }
        (0..STEPS).for_each(|step| self.step(slot, step).store(0, Relaxed));
        self.word(slot, Column::Worker).store(worker, Relaxed);
        self.word(slot, Column::Generation).store(generation.into(), Relaxed);
    }

    /// The busy and idle time up to now: what passed since the last beat goes to one of them.
    fn times(&self, slot: Slot) -> (u64, u64) {
        let read = |column| self.word(slot, column).load(Relaxed);
        let (busy, idle) = (read(Column::Busy), read(Column::Idle));
        let begun = read(Column::Begun);
        if begun == 0 {
            return (busy, idle);
        }
        let rest =
            clock::monotonic_ns().saturating_sub(begun).saturating_sub(busy.saturating_add(idle));
        if read(Column::Asleep) == 1 {
            (busy, idle.saturating_add(rest))
        } else {
            (busy.saturating_add(rest), idle)
        }
    }

    /// The worker in this slot has ended: its clock may soon be somebody else's, and what it held in a
    /// region is free.
    pub(crate) fn end(&self, slot: Slot) {
        self.word(slot, Column::Clock).store(0, Relaxed);
        self.word(slot, Column::Begun).store(0, Relaxed);
        // Whoever sees this sees all that the worker did, as the primary does.
        self.word(slot, Column::Ended).store(1, Release);
    }

    /// Whether this worker has this slot and has not ended. A worker does before its body runs.
    pub(crate) fn lives(&self, slot: Slot, worker: u64) -> bool {
        let is = |column, value| self.word(slot, column).load(Acquire) == value;
        is(Column::Worker, worker) && is(Column::Ended, 0)
    }

    fn word(&self, slot: Slot, column: Column) -> &AtomicU64 {
        self.words.get(slot.get() * ROW + column as usize)
    }

    fn step(&self, slot: Slot, step: usize) -> &AtomicU64 {
        self.words.get(Self::ROWS * ROW + slot.get() * STEPS + step)
    }
}

/// The counters of one worker at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotStats {
    /// The worker's slot.
    pub slot: usize,
    /// The worker's id; 0 in a row that was never used.
    pub worker: u64,
    /// How many workers have had this slot, this one included.
    pub generation: u64,
    /// The worker's process id.
    pub pid: u64,
    /// The kernel's number of the thread that the worker's loop runs on (gettid(2)): in a worker process
    /// the process id.
    pub thread: u64,
    /// Turns of the worker's event loop that ended in sleep: the sign of life.
    pub beats: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Connections accepted since the worker started.
    pub connections_accepted: u64,
    /// Requests answered since the worker started.
    pub requests: u64,
    /// Nanoseconds the loop spent working up to now, also in a turn that does not end (Node:
    /// `eventLoopUtilization().active`).
    pub busy_ns: u64,
    /// Nanoseconds the loop spent waiting up to now (Node: `eventLoopUtilization().idle`).
    pub idle_ns: u64,
    /// Nanoseconds of CPU time that the worker's process, or its thread, has used so far, read from
    /// the system's clock: it runs on while the worker is stuck. 0 before it is online and after its
    /// end.
    pub cpu_ns: u64,
}

impl SlotStats {
    /// The share of time the loop worked, from 0 to 1 (Node: `eventLoopUtilization().utilization`).
    #[must_use]
    pub fn utilization(&self) -> f64 {
        let total = self.busy_ns.saturating_add(self.idle_ns);
        if total == 0 { 0.0 } else { self.busy_ns as f64 / total as f64 }
    }
}

fn cpu(clock: u64) -> Duration {
    CpuClock::from_number(clock).and_then(CpuClock::read).unwrap_or_default()
}

/// A worker's own row, to write. Only the worker's loop thread holds one.
#[derive(Clone, Debug)]
pub(crate) struct SlotMeter {
    page: Arc<StatsPage>,
    slot: Slot,
    answers: Rc<RefCell<Vec<Answered>>>,
}

/// Requests whose time is counted when the loop next looks at the clock: the time of a turn is that of its begin.
/// Those that came and were answered in one turn are one entry.
#[derive(Clone, Copy, Debug)]
struct Answered {
    asked: Instant,
    /// The time of the turn in which they were answered.
    turn: Instant,
    requests: u64,
}

impl SlotMeter {
    /// The row of `slot`, now owned by the calling worker, whose CPU time this clock shows.
    pub(crate) fn new(page: Arc<StatsPage>, slot: Slot, clock: Option<CpuClock>) -> Self {
        let meter = Self { page, slot, answers: Rc::default() };
        meter.set(Column::Process, std::process::id().into());
        meter.set(Column::Thread, own_thread());
        meter.set(Column::Clock, clock.map_or(0, CpuClock::number));
        meter
    }

    pub(crate) fn page(&self) -> &Arc<StatsPage> {
        &self.page
    }

    pub(crate) fn connection_opened(&self) {
        self.add(Column::Accepted, 1);
        self.add(Column::Open, 1);
    }

    pub(crate) fn connection_closed(&self) {
        self.add(Column::Open, u64::MAX);
    }

    pub(crate) fn request_answered(&self) {
        self.add(Column::Requests, 1);
    }

    /// In the loop's turn of this time, the answer to a request that came at `asked` was complete.
    pub(crate) fn request_timed(&self, asked: Instant, turn: Instant) {
        let mut answers = self.answers.borrow_mut();
        match answers.last_mut() {
            Some(last) if (last.asked, last.turn) == (asked, turn) => last.requests += 1,
            _ => answers.push(Answered { asked, turn, requests: 1 }),
        }
    }

    /// The loop has looked at the clock: counts the times of requests that were answered before.
    pub(crate) fn clock_seen(&self, now: Instant) {
        self.answers.borrow_mut().retain(|answered| {
            let is_over = answered.turn < now;
            if is_over {
                let step = step_of(now.saturating_duration_since(answered.asked));
                increase(self.page.step(self.slot, step), answered.requests);
            }
            !is_over
        });
    }

    pub(crate) fn beat(&self, busy_ns: u64, idle_ns: u64) {
        self.add(Column::Beats, 1);
        self.set(Column::Busy, busy_ns);
        self.set(Column::Idle, idle_ns);
    }

    /// From now on time is counted; so much was counted before.
    pub(crate) fn begin(&self, busy_ns: u64, idle_ns: u64) {
        self.set(Column::Busy, busy_ns);
        self.set(Column::Idle, idle_ns);
        self.set(Column::Begun, clock::monotonic_ns().saturating_sub(busy_ns + idle_ns));
    }

    pub(crate) fn falls_asleep(&self) {
        self.set(Column::Asleep, 1);
    }

    pub(crate) fn wakes_up(&self, idle_ns: u64) {
        self.set(Column::Idle, idle_ns);
        self.set(Column::Asleep, 0);
    }

    fn add(&self, column: Column, amount: u64) {
        increase(self.page.word(self.slot, column), amount);
    }

    fn set(&self, column: Column, value: u64) {
        self.page.word(self.slot, column).store(value, Relaxed);
    }
}

/// A load and a store instead of a read-modify-write: the row has one writer.
fn increase(word: &AtomicU64, amount: u64) {
    word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn exercise(page: &Arc<StatsPage>) -> SlotStats {
        page.reset(Slot(3), 7, 2);
        let meter = SlotMeter::new(page.clone(), Slot(3), None);
        meter.connection_opened();
        meter.connection_opened();
        meter.connection_closed();
        meter.request_answered();
        meter.beat(30, 10);
        page.row(Slot(3))
    }

    #[test]
    fn a_row_counts_what_its_worker_did() {
        let row = exercise(&StatsPage::heap());
        assert_eq!((row.worker, row.generation, row.pid), (7, 2, std::process::id().into()));
        assert_eq!(row.thread, own_thread());
        assert_eq!((row.connections_open, row.connections_accepted, row.requests), (1, 2, 1));
        assert_eq!((row.beats, row.busy_ns, row.idle_ns), (1, 30, 10));
        assert!((row.utilization() - 0.75).abs() < 1e-9);
    }

    #[test]
    fn time_since_the_last_beat_is_idle_for_a_sleeper_and_busy_for_a_worker_that_is_stuck() {
        let page = StatsPage::heap();
        let meter = SlotMeter::new(page.clone(), Slot(0), None);
        meter.begin(0, 0);
        meter.beat(30, 10);
        let pass = || (0..1000).for_each(|_| assert!(clock::monotonic_ns() > 0));
        pass();
        let stuck = page.row(Slot(0));
        assert!(stuck.busy_ns > 30 && stuck.idle_ns == 10, "{stuck:?}");
        meter.falls_asleep();
        pass();
        let asleep = page.row(Slot(0));
        assert!(asleep.busy_ns == 30 && asleep.idle_ns > 10, "{asleep:?}");
        page.end(Slot(0));
        let ended = page.row(Slot(0));
        assert_eq!((ended.busy_ns, ended.idle_ns), (30, 10));
    }

    #[test]
    fn a_request_takes_until_the_clock_is_looked_at_after_its_turn() {
        let page = StatsPage::heap();
        let meter = SlotMeter::new(page.clone(), Slot(1), None);
        let turn = clock::now();
        let ms = |ms| Duration::from_millis(ms);
        meter.request_timed(turn, turn);
        meter.clock_seen(turn);
        assert_eq!(page.latency(Slot(1)).count(), 0, "its turn is not over");
        meter.request_timed(turn + ms(90), turn + ms(90));
        meter.clock_seen(turn + ms(80));
        let latency = page.latency(Slot(1));
        assert_eq!(latency.count(), 1);
        assert!((ms(80)..ms(101)).contains(&latency.quantile(1.0).unwrap()), "{latency:?}");
        meter.clock_seen(turn + ms(91));
        assert_eq!(page.latency(Slot(1)).count(), 2);
        assert_eq!(page.latency(Slot(0)).count() + page.latency(Slot(2)).count(), 0);
        page.reset(Slot(1), 9, 1);
        assert_eq!(page.latency(Slot(1)).count(), 0);
    }

    #[test]
    fn a_second_mapping_sees_the_same_rows() {
        let (page, descriptor) = StatsPage::memfd().unwrap();
        let mapped = StatsPage::map(descriptor).unwrap();
        let row = exercise(&page);
        assert_eq!(mapped.row(Slot(3)), row);
        assert_eq!(mapped.rows(), [row]);
        page.reset(Slot(3), 8, 3);
        assert_eq!(mapped.row(Slot(3)).connections_accepted, 0);
    }
}
