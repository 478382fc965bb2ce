//! Messages: what does it cost to tell somebody, against counting in shared memory?
//!
//! ```text
//! cargo run --release --example labs -- messages --mode process       # or --mode thread
//! ```
//!
//! **Question.** All workers count together: with a message to the primary for each count, or with an atomic addition
//! to one shared word. How many times as long does the message take?
//! **Predict** the order of magnitude, and whether the mode matters.
//! **Look at** the times, and at the difference between the modes.
//! **Explanation.** A message is made, queued and taken, and now and then somebody has to be woken; between processes
//! it is encoded and goes through the kernel.
//! **Next.** `examples/counter` shows which of them survive a crash.

use bimodal::Mode;
use serde_json::json;

use crate::{
    counting::{Counting, Way},
    exercise::{Exercise, Outcome, Result},
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "messages",
    about: "what does a message cost, against an addition to a shared number?",
    setting: "One worker per core, all counting at once, in three ways: with a message to the primary for each count,
        with an atomic addition to one number in memory that they share, and with one to a number of each worker's
        own.",
    question: "How many times as long as an addition to the one shared number does a message take?",
    choices: &["less than 3 times", "3 to 10 times", "more than 10 times"],
    run,
};

/// Each way, how often each worker counts in a round, and its name.
const WAYS: [(Way, u64, &str); 3] = [
    (Way::Messages, 5_000, "a message to the primary"),
    (Way::Together, 200_000, "one shared number"),
    (Way::Apart, 200_000, "a number of its own"),
];
const ROUNDS: usize = 3;

fn run(mode: Mode) -> Result<Outcome> {
    let counting = Counting::start(mode)?;
    let (mut ns, mut counted, mut due) = ([f64::MAX; WAYS.len()], [0; WAYS.len()], [0; WAYS.len()]);
    for _ in 0..ROUNDS {
        for (at, (way, times, _)) in WAYS.iter().enumerate() {
            let round = counting.round(*way, *times)?;
            counted[at] += round.counted;
            due[at] += round.due;
            // The best round is the one that others disturbed least.
            ns[at] = ns[at].min(round.each_ns);
        }
    }
    let workers = counting.workers();
    counting.end()?;
    let mut table = Table::new(&["each counts with", "counts", "found", "ns per count"]);
    for (at, (.., name)) in WAYS.iter().enumerate() {
        let [due, counted] = [due[at], counted[at]].map(|count| count.to_string());
        table.row([(*name).into(), due, counted, format!("{:.1}", ns[at])]);
    }
    let ratio = ns[0] / ns[1];
    Ok(Outcome {
        table,
        seen: usize::from(ratio >= 3.0) + usize::from(ratio >= 10.0),
        expected: 2,
        explanation: explain(mode, ns, counted.iter().sum(), due.iter().sum()),
        next: "the other mode. Then the example counter: which count survives a crash.",
        figures: json!({
            "workers": workers,
            "counted": counted,
            "due": due,
            "ns": { "message": ns[0], "together": ns[1], "apart": ns[2] },
        }),
    })
}

fn explain(mode: Mode, [message, together, apart]: [f64; 3], counted: u64, due: u64) -> String {
    let way = match mode {
        Mode::Process => "is encoded, written to a socket and read from it",
        Mode::Thread => "moves into a queue and out of it, without a copy",
    };
    format!(
        "A message {way}, it is taken by one receiver, and now and then a sleeper has to be woken: {message:.0} ns. An
            addition to the shared number is one instruction that waits until the line of the cache is here:
            {together:.1} ns, so {:.0} of them fit into one message. On a number of its own a worker waits for nobody:
            {apart:.1} ns. Found were {counted} of {due} counts: each way is exact. Count in shared memory, and send
            what somebody has to act on.",
        message / together
    )
}
