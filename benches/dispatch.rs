//! What deciding and encoding cost, without the system calls around them: who gets the next connection, a frame to
//! bytes and back, a step of the supervisor. Less than a minute.
//!
//! ```text
//! cargo bench --bench dispatch
//! ```
//!
//! | group | one step is |
//! |---|---|
//! | `pick` | a policy's choice among so many workers, all with room, loads apart |
//! | `encode`, `decode` | a frame to its packets and back; only [`Mode::Process`](bimodal::Mode) pays it |
//! | `supervise/look` | every worker has been looked at, all are well: what a cluster pays several times in `Health::deadline` |
//! | `supervise/replace` | a worker has crashed, its replacement is started and gets ready |
//!
//! These modules are pure and private. They are compiled into this bench, as `tests/simulate.rs` does it, so that
//! measuring them needs no door in the library.

#![allow(dead_code, unused_imports, unreachable_pub)]
#![expect(clippy::expect_used, reason = "a bench that cannot measure has to stop")]

#[path = "../src/address.rs"]
mod address;
#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/config.rs"]
mod config;
#[path = "../src/dice.rs"]
mod dice;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/id.rs"]
mod id;
#[path = "../src/schedule/mod.rs"]
mod schedule;
#[path = "../src/supervise/mod.rs"]
mod supervise;
#[path = "../src/wire/mod.rs"]
mod wire;
#[path = "../src/workers/mod.rs"]
mod workers;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use id::WorkerId;
use schedule::{Candidate, LeastConnections, RoundRobin, Schedule};
use supervise::{Action, Ending, Happening, Health, Policy, Restart, Seat, Sight, Supervisor};
use wire::{Decoder, Frame, Given, Letter, Outgoing};

const WORKERS: [u64; 4] = [1, 4, 16, 64];

/// The limit on messages of a decoder, in bytes.
const LARGEST: u64 = 1 << 20;

fn main() {
    let time = Duration::from_millis(500);
    let criterion = Criterion::default().sample_size(20).warm_up_time(time).measurement_time(time);
    let mut criterion = criterion.configure_from_args();
    measure_policies(&mut criterion);
    measure_codec(&mut criterion);
    measure_looks(&mut criterion);
    measure_replacements(&mut criterion);
    criterion.final_summary();
}

fn measure_policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for workers in WORKERS {
        let mut candidates = candidates(workers);
        let mut policies: [(&str, Box<dyn Schedule>); 2] = [
            ("round_robin", Box::<RoundRobin>::default()),
            ("least_connections", Box::<LeastConnections>::default()),
        ];
        for (name, policy) in &mut policies {
            group.bench_function(BenchmarkId::new(*name, workers), |bencher| {
                bencher.iter(|| {
                    let index = policy.pick(&candidates).expect("all have room");
                    // As a connection that stays would: the next choice is another one.
                    candidates[index].load += 1;
                    index
                });
            });
        }
    }
    group.finish();
}

fn candidates(workers: u64) -> Vec<Candidate> {
    let candidate =
        |worker| Candidate { worker: WorkerId::new(worker), load: worker * 7 % 5, room: 4 };
    (1..=workers).map(candidate).collect()
}

fn measure_codec(criterion: &mut Criterion) {
    for (name, frame) in frames() {
        let packets = packets(frame.clone());
        let bytes: usize = packets.iter().map(|(packet, _)| packet.len()).sum();
        assert_eq!(decode(&packets), frame, "what is encoded is decoded");
        let mut group = criterion.benchmark_group("encode");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| frame.clone(), encode, criterion::BatchSize::SmallInput);
        });
        group.finish();
        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(&packets)));
        group.finish();
    }
}

fn frames() -> [(&'static str, Frame); 6] {
    let ids = |count| (0..count).collect();
    let letter =
        |bytes| Letter { type_name: "alloc::string::String".into(), payload: vec![b'x'; bytes] };
    let message = |bytes| Frame::Message { letter: letter(bytes), handle: None, topic: None };
    [
        ("connections_1", Frame::Connections { listener: 1, ids: ids(1) }),
        ("connections_64", Frame::Connections { listener: 1, ids: ids(64) }),
        ("adopted_64", Frame::Adopted { ids: ids(64) }),
        ("message_100_bytes", message(100)),
        ("messages_16_of_100_bytes", Frame::Messages { letters: vec![letter(100); 16] }),
        ("message_256_kib", message(256 << 10)),
    ]
}

/// Goes through the packets as whoever sends them does; how many bytes that were.
fn encode(frame: Frame) -> usize {
    let mut outgoing = Outgoing::new(frame).expect("within all limits");
    let mut bytes = 0;
    while let Some(packet) = outgoing.packet() {
        bytes += black_box(packet.parts()).iter().map(|part| part.len()).sum::<usize>();
        outgoing.advance();
    }
    bytes
}

/// The packets, each with how many descriptors come with it.
fn packets(frame: Frame) -> Vec<(Vec<u8>, usize)> {
    let mut outgoing = Outgoing::new(frame).expect("within all limits");
    let mut packets = Vec::new();
    while let Some(packet) = outgoing.packet() {
        packets.push(([packet.head, packet.body].concat(), packet.descriptors));
        outgoing.advance();
    }
    packets
}

fn decode(packets: &[(Vec<u8>, usize)]) -> Frame {
    let mut decoder = Decoder::new(LARGEST);
    let mut push = |(packet, count): &(Vec<u8>, usize)| {
        decoder.push(packet, Given { count: *count, lost: false }).expect("an honest packet")
    };
    packets.iter().find_map(&mut push).expect("the packets of a whole frame")
}

/// A supervisor whose workers are all ready, and the time they got ready at.
struct World {
    supervisor: Supervisor,
    now: Instant,
    /// The last id that was given.
    last: u64,
    actions: Vec<Action>,
}

impl World {
    fn new(workers: u64) -> Self {
        let policy = Policy {
            workers: workers as usize,
            restart: Some(Restart { starts_at_once: workers as usize, ..Restart::default() }),
            health: Some(Health::default()),
            ..Policy::default()
        };
        let now = Instant::now();
        let supervisor = Supervisor::new(policy, now);
        let mut world = Self { supervisor, now, last: 0, actions: Vec::new() };
        world.tell(Happening::Start);
        world.fork_all();
        assert_eq!(world.last, workers, "every seat is filled");
        world
    }

    fn tell(&mut self, happening: Happening) {
        self.supervisor.handle(self.now, happening, &mut self.actions);
    }

    /// Starts whom the supervisor wants started; they are ready at once.
    fn fork_all(&mut self) {
        let forks = |action| match action {
            Action::Fork(seat) => Some(seat),
            _ => None,
        };
        let seats: Vec<Seat> = self.actions.drain(..).filter_map(forks).collect();
        for seat in seats {
            self.last += 1;
            let worker = WorkerId::new(self.last);
            self.tell(Happening::Forked { worker, seat: Some(seat) });
            self.tell(Happening::Ready { worker });
        }
    }

    /// All have beaten since the last look.
    fn look(&mut self, workers: u64, beats: u64) {
        let sight = Sight { beats, requests: beats, memory: None, busy_ns: beats };
        let seen = (1..=workers).map(|worker| (WorkerId::new(worker), sight)).collect();
        self.now += Health::default().interval();
        self.tell(Happening::Seen { workers: seen, waiting: false });
        assert!(self.actions.iter().all(|action| matches!(action, Action::Look)), "all are well");
        self.actions.clear();
    }

    /// The last that was started has lived for long enough, and crashes.
    fn replace(&mut self) {
        let crashed = WorkerId::new(self.last);
        self.now += Restart::default().healthy * 2;
        let ending = Ending::Crashed("signal 11".into());
        self.tell(Happening::Ended { worker: crashed, ending });
        self.fork_all();
        assert_eq!(self.last, crashed.get() + 1, "one is started for the one that crashed");
    }
}

fn measure_looks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("supervise/look");
    for workers in WORKERS {
        let (mut world, mut beats) = (World::new(workers), 0);
        group.bench_function(workers.to_string(), |bencher| {
            bencher.iter(|| {
                beats += 1;
                world.look(workers, beats);
            });
        });
    }
    group.finish();
}

fn measure_replacements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("supervise/replace");
    for workers in WORKERS {
        let mut world = World::new(workers);
        group.bench_function(workers.to_string(), |bencher| bencher.iter(|| world.replace()));
    }
    group.finish();
}
