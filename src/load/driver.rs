//! One thread of a load: its event loop, and what is due when. What happens on a connection is in `exchange`.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use super::{
    arrival::{Share, Source, Until, nanos, part},
    outcome::Outcome,
    plan::Plan,
    slot::Slot,
    tally::Tally,
};
use crate::{
    clock,
    sys::{thread, timer::Timer},
};

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// What is read at once, and what a loop's turn reads of one connection at most is a few times that.
const SCRATCH: usize = 64 << 10;

/// How long no connection is tried after one has failed, so that a server that is gone does not keep the driver busy.
const PAUSE: u64 = 10_000_000;

/// How the program sees a driver, and ends it. Written once per turn of its loop.
#[derive(Default)]
pub(super) struct Gauge {
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) is_over: AtomicBool,
    /// Written by the program.
    pub(super) is_stopped: AtomicBool,
}

/// One thread of a load.
pub(super) struct Driver {
    pub(super) plan: Arc<Plan>,
    pub(super) poll: Poll,
    timer: Timer,
    /// What the timer is set to.
    timer_at: u64,
    gauge: Arc<Gauge>,
    pub(super) slots: Vec<Slot>,
    /// Slots that may be given a request, in the order in which they became free.
    pub(super) free: VecDeque<usize>,
    /// Since when there has been a free slot without a break.
    pub(super) free_since: u64,
    /// Slots that are not to be tried before a time, in the order of the times.
    pub(super) paused: VecDeque<(u64, usize)>,
    /// Slots that were given requests since the last flush.
    pub(super) given: Vec<usize>,
    /// Tokens of connections that had more to read than one turn's share.
    pub(super) unread: Vec<Token>,
    /// Requests under way.
    pub(super) flying: usize,
    pub(super) source: Source,
    pub(super) tally: Tally,
    pub(super) scratch: Box<[u8]>,
    /// A counted field's text.
    pub(super) field: String,
    begin: u64,
    end: u64,
    sweep_at: u64,
    has_begun: bool,
    has_closed: bool,
}

impl Driver {
    /// A driver, and what wakes it when its gauge says that it is stopped.
    pub(super) fn new(
        plan: Arc<Plan>,
        gauge: Arc<Gauge>,
        share: &Share,
    ) -> io::Result<(Self, Waker)> {
        let (poll, timer) = (Poll::new()?, Timer::new()?);
        let descriptor = timer.as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), TIMER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let connections = part(plan.connections as u64, share) as usize;
        let names = plan.classes.iter().map(|class| class.name.as_str());
        let driver = Self {
            poll,
            timer,
            timer_at: 0,
            gauge,
            slots: (0..connections).map(|_| Slot::new()).collect(),
            free: VecDeque::with_capacity(connections),
            free_since: 0,
            paused: VecDeque::new(),
            given: Vec::new(),
            unread: Vec::new(),
            flying: 0,
            source: Source::new(plan.arrival, share, &plan.weights),
            tally: Tally::new(share.begin, names),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            field: String::new(),
            begin: share.begin,
            end: match share.until {
                Until::Elapsed(time) => share.begin.saturating_add(nanos(time)),
                Until::Requests(_) => u64::MAX,
            },
            sweep_at: 0,
            has_begun: false,
            has_closed: false,
            plan,
        };
        Ok((driver, waker))
    }

    /// Runs to the end, on the calling thread.
    pub(super) fn run(mut self) -> io::Result<Outcome> {
        thread::wake_on_time();
        let clock = thread::own_clock();
        let used = || clock.and_then(thread::CpuClock::read).unwrap_or_default();
        let mut before = used();
        let mut events = Events::with_capacity(1024);
        (0..self.slots.len()).for_each(|index| self.release(index, 0));
        loop {
            let now = clock::monotonic_ns();
            if !self.has_begun && now >= self.begin {
                self.has_begun = true;
                self.tally.connections = self.open_connections();
                before = used();
            }
            self.act(now);
            if self.is_over(now) {
                break;
            }
            self.wait(&mut events)?;
            self.handle(&events);
        }
        let cpu = used().saturating_sub(before);
        self.gauge.is_over.store(true, Relaxed);
        Ok(self.into_outcome(cpu))
    }

    /// What is due by now, apart from the events.
    fn act(&mut self, now: u64) {
        self.resume(now);
        self.issue(now);
        if now >= self.end {
            self.close_source(self.end);
        }
        if now >= self.sweep_at {
            self.sweep(now);
            self.sweep_at = now + (self.plan.timeout / 20).clamp(1_000_000, 100_000_000);
        }
        self.gauge.completed.store(self.tally.completed, Relaxed);
        self.gauge.failed.store(self.tally.failed, Relaxed);
    }

    fn is_over(&mut self, now: u64) -> bool {
        if self.gauge.is_stopped.load(Relaxed) {
            self.close_source(now);
            self.end = self.end.min(now);
            self.forget();
        }
        self.flying == 0 && self.source.next(now).is_none()
    }

    /// Nothing is due any more from `end` on, and what was due before and not sent never will be.
    fn close_source(&mut self, end: u64) {
        if !std::mem::replace(&mut self.has_closed, true) {
            let unsent = self.source.close(end);
            self.tally.unsent(&unsent);
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let now = clock::monotonic_ns();
        let next = self.source.next(now);
        let due = next.filter(|_| !self.free.is_empty());
        if let Some(at) = due.filter(|at| *at > now && *at != self.timer_at) {
            self.timer.set(at)?;
            self.timer_at = at;
        }
        let is_late = due.is_some_and(|at| at <= now) || !self.unread.is_empty();
        let paused = self.paused.front().map(|(at, _)| *at);
        let begin = Some(self.begin).filter(|_| !self.has_begun);
        let end = Some(self.end).filter(|_| !self.has_closed);
        let wake = [Some(self.sweep_at), begin, end, paused];
        let wake = wake.into_iter().flatten().min().unwrap_or(now);
        let time = if is_late { 0 } else { wake.saturating_sub(now) };
        match self.poll.poll(events, Some(Duration::from_nanos(time))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, events: &Events) {
        let woken = clock::monotonic_ns();
        for event in events {
            if let Some(index) = Slot::of(event.token(), &self.slots) {
                self.on_event(index, event);
            }
        }
        for token in std::mem::take(&mut self.unread) {
            if let Some(index) = Slot::of(token, &self.slots) {
                self.read(index, token, true);
            }
        }
        if self.plan.arrival.per_second().is_none() && woken >= self.begin && !self.has_closed {
            self.tally.lag.saturating_record(clock::monotonic_ns().saturating_sub(woken));
        }
    }

    /// Lets paused slots be tried again.
    fn resume(&mut self, now: u64) {
        while let Some(&(_, index)) = self.paused.front().filter(|(at, _)| *at <= now) {
            self.paused.pop_front();
            self.slots[index].is_paused = false;
            self.release(index, now);
        }
    }

    /// Lets a slot be given requests, if it has room for any.
    pub(super) fn release(&mut self, index: usize, now: u64) {
        let slot = &mut self.slots[index];
        let has_room =
            slot.flights.len() < self.plan.pipeline && !slot.is_used_up(self.plan.per_connection);
        if slot.is_queued || slot.is_paused || !has_room {
            return;
        }
        slot.is_queued = true;
        if self.free.is_empty() {
            self.free_since = now;
        }
        self.free.push_back(index);
    }

    /// Does not try the slot for a while.
    pub(super) fn pause(&mut self, index: usize, now: u64) {
        self.slots[index].is_paused = true;
        self.paused.push_back((now + PAUSE, index));
    }

    /// Ends what takes too long.
    fn sweep(&mut self, now: u64) {
        for index in 0..self.slots.len() {
            let oldest = self.slots[index].flights.front();
            if oldest.is_some_and(|flight| now.saturating_sub(flight.due.at) >= self.plan.timeout) {
                self.time_out(index, now);
            }
        }
    }

    fn open_connections(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.is_open()).count() as u64
    }

    /// What is under way counts no more.
    fn forget(&mut self) {
        for slot in &mut self.slots {
            slot.flights.iter().for_each(|flight| self.tally.forgotten(flight.due));
            slot.close();
        }
        self.flying = 0;
    }

    fn into_outcome(self, cpu: Duration) -> Outcome {
        self.tally.outcome(Some(self.end).filter(|end| *end < u64::MAX), cpu)
    }
}
