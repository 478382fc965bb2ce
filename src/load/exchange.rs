//! What happens on a driver's connections: requests go out, answers come in, connections break.

use mio::{Token, event::Event};

use super::{
    answer::{Read, Verdict},
    driver::Driver,
    field,
    slot::Flight,
    tally::Loss,
};
use crate::clock;

/// Reads of one connection in one turn of the loop: others want theirs.
const MAX_READS: usize = 16;

impl Driver {
    /// Gives the requests that are due to the free slots, and sends them.
    pub(super) fn issue(&mut self, now: u64) {
        while let Some(&index) = self.free.front() {
            if self.slots[index].is_paused {
                self.slots[index].is_queued = false;
                self.free.pop_front();
                continue;
            }
            let Some(due) = self.source.take(now) else { break };
            self.tally.scheduled(due);
            if self.plan.arrival.per_second().is_some() {
                if due.counted && due.at >= self.free_since {
                    self.tally.lag.saturating_record(now - due.at);
                }
                if now - due.at >= self.plan.timeout {
                    self.tally.lost(due, Loss::TimedOut, now);
                    continue;
                }
            }
            self.free.pop_front();
            let slot = &mut self.slots[index];
            slot.is_queued = false;
            slot.push(&self.plan.classes[due.class].bytes, Flight { due, sent: now });
            self.flying += 1;
            self.given.push(index);
            self.release(index, now);
        }
        self.send(now);
    }

    /// Sends what the slots were given.
    fn send(&mut self, now: u64) {
        while let Some(index) = self.given.pop() {
            let slot = &mut self.slots[index];
            if slot.is_open() {
                self.flush(index);
            } else if slot.is_closed() && !slot.flights.is_empty() {
                let connected = slot.connect(self.plan.address, self.poll.registry(), index);
                if connected.is_err() {
                    self.refuse(index, now);
                }
            }
        }
    }

    pub(super) fn on_event(&mut self, index: usize, event: &Event) {
        if self.slots[index].is_connecting() && !self.establish(index) {
            return;
        }
        let is_ending = event.is_read_closed() || event.is_error() || event.is_write_closed();
        if event.is_writable() {
            self.flush(index);
        }
        if event.is_readable() || is_ending {
            self.read(index, event.token(), is_ending);
        }
    }

    /// Whether a connection that was begun is there.
    fn establish(&mut self, index: usize) -> bool {
        let now = clock::monotonic_ns();
        match self.slots[index].finish_connect() {
            Ok(false) => false,
            Err(_) => {
                self.refuse(index, now);
                false
            }
            Ok(true) => {
                self.tally.connections += 1;
                let flights = &mut self.slots[index].flights;
                flights.iter_mut().for_each(|flight| flight.sent = now);
                true
            }
        }
    }

    fn flush(&mut self, index: usize) {
        if self.slots[index].flush().is_err() {
            // The server may have said why before it closed.
            let token = self.slots[index].token(index);
            self.read(index, token, true);
            if self.slots[index].is_open() && self.slots[index].token(index) == token {
                self.lose(index, Loss::Reset, Loss::Reset, clock::monotonic_ns());
            }
        }
    }

    /// Reads what has come: all of it if the stream may have ended, since no further event says so.
    pub(super) fn read(&mut self, index: usize, token: Token, is_ending: bool) {
        for _ in 0..MAX_READS {
            let read = self.slots[index].read(&mut self.scratch);
            let now = clock::monotonic_ns();
            match read {
                Ok(None) => return self.issue(now),
                Ok(Some(0)) => return self.end_of_stream(index, now),
                Ok(Some(count)) => {
                    if !self.take_in(index, count, now) {
                        return self.issue(now);
                    }
                    // Less than there was room for: that was all.
                    if count < self.scratch.len() && !is_ending {
                        return self.issue(now);
                    }
                }
                Err(_) => return self.lose(index, Loss::Reset, Loss::Reset, now),
            }
        }
        self.unread.push(token);
    }

    /// Looks at `count` bytes that were read. Whether the connection goes on.
    fn take_in(&mut self, index: usize, count: usize, now: u64) -> bool {
        if self.slots[index].rest.is_empty() {
            let scratch = std::mem::take(&mut self.scratch);
            let used = self.answers(index, &scratch[..count], now);
            if let Some(used) = used {
                self.slots[index].rest.extend_from_slice(&scratch[used..count]);
            }
            self.scratch = scratch;
            return used.is_some();
        }
        let mut bytes = std::mem::take(&mut self.slots[index].rest);
        bytes.extend_from_slice(&self.scratch[..count]);
        let used = self.answers(index, &bytes, now);
        bytes.drain(..used.unwrap_or(bytes.len()));
        self.slots[index].rest = bytes;
        used.is_some()
    }

    /// Takes the answers from the bytes: how many bytes they are, or `None` if the connection is over.
    fn answers(&mut self, index: usize, bytes: &[u8], now: u64) -> Option<usize> {
        let mut used = 0;
        while used < bytes.len() {
            let slot = &mut self.slots[index];
            // Nobody asked for what comes now.
            let Some(flight) = slot.flights.front() else {
                self.hang_up(index, now);
                return None;
            };
            let asked = self.plan.classes[flight.due.class].asked(self.plan.count_by.is_some());
            match slot.answer.read(&bytes[used..], asked) {
                Ok(Read::More) => break,
                Ok(Read::Some(count)) => used += count,
                Ok(Read::All(count)) => {
                    used += count;
                    if !self.complete(index, bytes.len() - used, now) {
                        return None;
                    }
                }
                Err(_) => {
                    self.lose(index, Loss::Malformed, Loss::Closed, now);
                    return None;
                }
            }
        }
        Some(used)
    }

    /// An answer is complete, and `further` bytes came with it. Whether the connection goes on.
    fn complete(&mut self, index: usize, further: usize, now: u64) -> bool {
        let slot = &mut self.slots[index];
        let Some(flight) = slot.flights.pop_front() else { return false };
        self.flying -= 1;
        let mut verdict = slot.answer.verdict(&self.plan.classes[flight.due.class].expect);
        if further > 0 && slot.flights.is_empty() && verdict == Verdict::Right {
            // More came than the answer said it was.
            verdict = Verdict::WrongBody;
        }
        if self.tally.answered(flight.due, flight.sent, verdict, now) {
            self.count(index);
        }
        let slot = &mut self.slots[index];
        let is_used_up = slot.is_used_up(self.plan.per_connection) && slot.flights.is_empty();
        if slot.answer.is_last() || is_used_up {
            self.hang_up(index, now);
            return false;
        }
        slot.answer.clear();
        self.release(index, now);
        true
    }

    /// Counts who gave the answer, if that is wanted.
    fn count(&mut self, index: usize) {
        if let Some(name) = &self.plan.count_by {
            let found = field::read(self.slots[index].answer.kept(), name, &mut self.field);
            self.tally.worker(found.then_some(self.field.as_str()));
        }
    }

    fn end_of_stream(&mut self, index: usize, now: u64) {
        if self.slots[index].answer.is_complete_at_end() {
            self.complete(index, 0, now);
        }
        if self.slots[index].is_open() {
            self.hang_up(index, now);
        }
        self.issue(now);
    }

    pub(super) fn time_out(&mut self, index: usize, now: u64) {
        self.lose(index, Loss::TimedOut, Loss::Closed, now);
    }

    /// There is no connection to be had for a while.
    fn refuse(&mut self, index: usize, now: u64) {
        self.pause(index, now);
        self.lose(index, Loss::Connect, Loss::Connect, now);
    }

    /// Closes a connection; what is under way on it has no answer.
    fn hang_up(&mut self, index: usize, now: u64) {
        self.lose(index, Loss::Closed, Loss::Closed, now);
    }

    /// Closes a connection: the oldest request on it ends by `first`, those behind it by `others`.
    fn lose(&mut self, index: usize, first: Loss, others: Loss, now: u64) {
        let slot = &mut self.slots[index];
        self.flying -= slot.flights.len();
        for (place, flight) in slot.flights.iter().enumerate() {
            let loss = if place == 0 { first } else { others };
            self.tally.lost(flight.due, loss, now);
        }
        slot.close();
        self.release(index, now);
    }
}
