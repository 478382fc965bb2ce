//! False sharing: each worker adds to a number of its own. Does it matter where the numbers are?
//!
//! ```text
//! cargo run --release --example labs -- false-sharing --mode process       # or --mode thread
//! ```
//!
//! **Question.** No worker touches another's number. Is there a difference between numbers side by side and numbers
//! that are 128 bytes apart?
//! **Predict** which is faster, by how much, and whether the mode matters.
//! **Look at** the time of one addition.
//! **Explanation.** Cores own memory by the line, usually 64 bytes. Numbers in one line are one thing to the
//! hardware: it has to travel to the core that writes next.
//! **Next.** The exercise `messages`.

use std::time::{Duration, Instant};

use bimodal::Mode;
use serde_json::json;

use crate::{
    counting::{Counting, Way},
    exercise::{Exercise, Outcome, Result},
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "false-sharing",
    about: "does it matter where the numbers are that only one worker each adds to?",
    setting: "One worker per core, all adding at once to memory that they share. First each to a number of its own, the
        numbers side by side, 8 bytes each. Then the same, with the numbers 128 bytes apart. Last all to one number.",
    question: "What is slower: a number of one's own side by side with the others', or 128 bytes apart?",
    choices: &[
        "the same: no number has two writers",
        "side by side",
        "apart: it needs more lines of the cache",
    ],
    run,
};

/// How often each worker adds in a round.
const TIMES: u64 = 100_000;

/// Rounds go on for so long.
const TIME: Duration = Duration::from_secs(2);
const LEAST_ROUNDS: usize = 3;

const WAYS: [(Way, &str); 3] = [
    (Way::Adjacent, "own number, side by side"),
    (Way::Apart, "own number, 128 bytes apart"),
    (Way::Together, "one number for all"),
];

/// A difference that is more than noise.
const MARGIN: f64 = 1.2;

fn run(mode: Mode) -> Result<Outcome> {
    let counting = Counting::start(mode)?;
    let (mut times, mut counted, mut due) = ([const { Vec::new() }; WAYS.len()], 0, 0);
    let began = Instant::now();
    while times[0].len() < LEAST_ROUNDS || began.elapsed() < TIME {
        for ((way, _), times) in WAYS.iter().zip(&mut times) {
            let round = counting.round(*way, TIMES)?;
            (counted, due) = (counted + round.counted, due + round.due);
            times.push(round.each_ns);
        }
    }
    let workers = counting.workers();
    counting.end()?;
    let ns = times.map(median);
    let mut table = Table::new(&["all add to", "ns per addition"]);
    for ((_, name), ns) in WAYS.iter().zip(ns) {
        table.row([(*name).into(), format!("{ns:.1}")]);
    }
    let ratio = ns[0] / ns[1];
    Ok(Outcome {
        table,
        seen: if ratio > MARGIN { 1 } else { usize::from(ratio < 1.0 / MARGIN) * 2 },
        expected: 1,
        explanation: explain(ns, counted, due),
        next: "the other mode: a line of the cache knows neither processes nor threads. Then the exercise messages.",
        figures: json!({
            "workers": workers,
            "additions": { "counted": counted, "due": due },
            "ns": { "adjacent": ns[0], "apart": ns[1], "together": ns[2] },
        }),
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn explain([adjacent, apart, together]: [f64; 3], counted: u64, due: u64) -> String {
    format!(
        "A core owns memory by the line of its cache, usually 64 bytes, and must own it to write. Numbers side by side
            lie in one line: it travels to whichever core writes next, though nobody needs what the other wrote. That
            took {adjacent:.1} ns per addition, {:.1} times the {apart:.1} ns with a line (and its neighbour, which is
            fetched with it) for each. One number for all took {together:.1} ns: false sharing costs what sharing
            costs. None of {due} additions was lost ({counted} were found): it is slow, not wrong. Processes that map
            the same memory share its lines as threads do.",
        adjacent / apart
    )
}
