//! Several processes and one store: what one has written all see, and a killed one costs nothing that was
//! answered.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bimodal::store::Store;

use super::{
    fixture::{Case, Fixture, among_processes},
    programs::{PLACES, page},
    support::{program::Program, wait_until},
};

pub const CASES: &[Case] = &[
    among_processes("no_add_of_several_processes_is_lost", adds),
    among_processes("a_killed_writer_loses_nothing_that_was_answered", killed),
    among_processes("what_is_published_reaches_other_processes", topics),
    among_processes("a_killed_subscriber_holds_nobody_up", dead_subscriber),
];

const SIGKILL: i32 = 9;

fn adds(fixture: &Fixture) {
    let programs = [(); 4].map(|()| fixture.program("adds", &["n", "500"]));
    let ours = (0..200).map(|_| fixture.store.add(b"n", 1)).collect::<Vec<_>>();
    ours.into_iter().for_each(|answer| assert!(answer.wait().unwrap() > 0));
    programs.into_iter().for_each(|program| drop(program.succeed()));
    assert_eq!(fixture.store.add(b"n", 0).wait().unwrap(), 2200);
}

/// Each writer is killed in the middle of its writes; after each, all that was said so far holds.
fn killed(fixture: &Fixture) {
    const ROUNDS: u32 = 200;
    let mut ledger = Ledger::default();
    for round in 0..ROUNDS {
        let mut writer = fixture.program("ledger", &["l"]);
        writer.line(|line| line.starts_with("written"));
        // Somewhere in a step, whose parts take a few microseconds to milliseconds each.
        wait_for(Duration::from_micros(u64::from(round) * 37 % 3000));
        writer.signal(SIGKILL);
        writer.wait();
        ledger.note(&writer.output);
        ledger.check(&*fixture.store);
    }
    let keys = fixture.store.scan(b"l/page/", 100).wait().unwrap();
    assert!(keys.len() >= ledger.written.len() && ledger.steps >= i64::from(ROUNDS));
}

/// What writers were answered.
#[derive(Default)]
struct Ledger {
    counted: i64,
    /// By place, the last step that was written there.
    written: BTreeMap<i64, i64>,
    /// As the store says.
    steps: i64,
}

impl Ledger {
    fn note(&mut self, said: &[String]) {
        let steps = |word: &'static str| {
            said.iter().filter_map(move |line| line.strip_prefix(word)?.parse::<i64>().ok())
        };
        self.counted = steps("counted ").max().unwrap_or(self.counted);
        self.written.extend(steps("written ").map(|step| (step % PLACES, step)));
    }

    fn check(&mut self, store: &dyn Store) {
        self.steps = store.add(b"l/step", 0).wait().unwrap();
        let (steps, counted) = (self.steps, self.counted);
        assert!((counted..=counted + 1).contains(&steps), "{steps} steps, {counted} answered");
        for place in 0..PLACES {
            let answered = self.written.get(&place).copied();
            let key = format!("l/page/{place:02}");
            let value = store.get(key.as_bytes()).wait().unwrap();
            let holds = value.map(|value| step_of(&value));
            assert!(holds >= answered, "place {place} holds {holds:?}, answered was {answered:?}");
            assert!(holds.is_none_or(|step| step % PLACES == place && step <= steps));
        }
    }
}

/// The step of a page that is whole.
fn step_of(value: &[u8]) -> i64 {
    let end = value.iter().position(|byte| *byte == b':').expect("a page's number");
    let step = std::str::from_utf8(&value[..end]).unwrap().parse().unwrap();
    assert!(value == page(step), "the page of step {step} is torn");
    step
}

fn wait_for(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn subscribed(fixture: &Fixture, topic: &str) -> Program {
    let mut program = fixture.program("subscriber", &[topic]);
    program.line(|line| line == "ready");
    program
}

fn topics(fixture: &Fixture) {
    let programs = [(); 3].map(|()| subscribed(fixture, "t"));
    let other = subscribed(fixture, "other");
    let values: Vec<_> = (0..100).map(|n| format!("value-{n}")).collect();
    for value in values.iter().map(String::as_str).chain([""]) {
        fixture.store.publish(b"t", value.as_bytes()).wait().unwrap();
    }
    let expected: Vec<_> = values.iter().map(|value| format!("got {value}")).collect();
    for program in programs {
        let output = program.succeed();
        assert_eq!((&output[1..101], output[101].as_str()), (&*expected, "missed 0"));
    }
    fixture.store.publish(b"other", b"").wait().unwrap();
    assert_eq!(other.succeed(), ["ready", "missed 0"]);
}

fn dead_subscriber(fixture: &Fixture) {
    let mut dead = subscribed(fixture, "t");
    let alive = subscribed(fixture, "t");
    dead.signal(SIGKILL);
    dead.wait();
    let since = Instant::now();
    fixture.store.publish(b"t", b"one").wait().unwrap();
    assert!(fixture.sockets().len() <= 1, "whoever publishes clears up after the dead");
    fixture.program("leaver", &["t"]).succeed();
    for value in ["two", ""] {
        fixture.store.publish(b"t", value.as_bytes()).wait().unwrap();
    }
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(alive.succeed(), ["ready", "got one", "got two", "missed 0"]);
    wait_until("no socket that nobody reads", || {
        let published = fixture.store.publish(b"t", b"nobody").wait();
        published.is_ok() && fixture.sockets().is_empty()
    });
}
