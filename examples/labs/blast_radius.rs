//! Blast radius: who else is hit when a handler crashes?
//!
//! ```text
//! cargo run --release --example labs -- blast-radius --mode process       # or --mode thread
//! ```
//!
//! **Question.** Four workers hold twelve connections. One handler panics, or aborts, or calls `exit`: how many
//! connections are lost?
//! **Predict** it for each of the three, and for each mode, before you run it.
//! **Look at** the column of lost connections, and whether a new client is answered.
//! **Explanation.** A panic unwinds one stack, and the worker's boundary catches it there. Abort, segfault and `exit`
//! end a process: with threads there is only one.
//! **Next.** `examples/crash_restart` shows how the replacement is paced.

use std::time::Duration;

use bimodal::Mode;
use serde::Serialize;
use serde_json::json;

use crate::{
    client::Client,
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "blast-radius",
    about: "who else is hit when a handler panics, aborts or exits?",
    setting: "A server with 4 workers holds 12 open connections, 3 per worker, all idle. One more client sends a
        request whose handler panics. A server like it gets one whose handler aborts, and a third one whose handler
        calls `exit`. Each time all 12 connections are used once more, and a new client connects.",
    question: "Which of the connections of the other workers are lost?",
    choices: &[
        "none, whatever the fault",
        "all when it aborts or exits, none when it panics",
        "all",
    ],
    run,
};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 12;
const FAULTS: [&str; 3] = ["panic", "abort", "exit"];

/// What one fault did.
#[derive(Serialize)]
struct Damage {
    fault: &'static str,
    /// How the worker ended, or the program with it.
    status: String,
    /// Connections of the worker that it happened in, this client's own not counted.
    own: usize,
    lost_of_own: usize,
    lost_of_others: usize,
    program_ended: bool,
    new_client_answered: bool,
}

fn run(mode: Mode) -> Result<Outcome> {
    let damages = FAULTS.iter().map(|fault| strike(mode, fault)).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(&[
        "fault",
        "seen as",
        "lost: its own",
        "lost: others'",
        "program",
        "new client",
    ]);
    for damage in &damages {
        table.row([
            damage.fault.into(),
            damage.status.clone(),
            format!("{} of {}", damage.lost_of_own, damage.own),
            format!("{} of {}", damage.lost_of_others, CONNECTIONS - damage.own),
            if damage.program_ended { "ended" } else { "goes on" }.into(),
            if damage.new_client_answered { "answered" } else { "refused" }.into(),
        ]);
    }
    let others: Vec<_> = damages.iter().map(|damage| damage.lost_of_others).collect();
    Ok(Outcome {
        table,
        seen: match others[..] {
            [0, 0, 0] => 0,
            [0, _, _] => 1,
            _ => 2,
        },
        expected: usize::from(mode == Mode::Thread),
        explanation: explain(mode, &damages),
        next: "the other mode. Then the example crash_restart: how fast a worker is replaced that crashes again and
            again.",
        figures: json!({ "damages": damages }),
    })
}

fn strike(mode: Mode, fault: &'static str) -> Result<Damage> {
    // In turn, so that every worker has the same number of connections.
    let policy = ["--workers", &WORKERS.to_string(), "--scheduling", "round-robin"];
    let mut server = Server::start(mode, &policy)?;
    let mut clients = server.clients(CONNECTIONS)?;
    let mut culprit = Client::connect(server.address)?;
    let victim = culprit.worker()?;
    // Nobody answers it: it ends with the worker.
    let _ = culprit.get(&format!("/fault/{fault}"));
    let ends_all = mode == Mode::Thread && fault != "panic";
    let patience = Duration::from_secs(if ends_all { 5 } else { 0 });
    let status = match server.ended(patience)? {
        Some(status) => status.to_string(),
        None => {
            let exit = server.event(|event| event["event"] == "exit")?;
            exit["status"].as_str().unwrap_or_default().to_owned()
        }
    };
    let mut lost = [0, 0];
    let own = clients.iter().filter(|(worker, _)| *worker == victim).count();
    for (worker, client) in &mut clients {
        lost[usize::from(*worker != victim)] += usize::from(client.worker().is_err());
    }
    Ok(Damage {
        fault,
        status,
        own,
        lost_of_own: lost[0],
        lost_of_others: lost[1],
        new_client_answered: server.clients(1).is_ok(),
        program_ended: server.ended(Duration::ZERO)?.is_some(),
    })
}

fn explain(mode: Mode, damages: &[Damage]) -> String {
    let of = |fault: &str| damages.iter().find(|damage| damage.fault == fault);
    let lost = |fault: &str| of(fault).map_or(0, |each| each.lost_of_own + each.lost_of_others);
    let (panic, abort) = (lost("panic"), lost("abort"));
    let panicked = format!(
        "A panic unwinds the stack of one loop up to the boundary around its worker: {panic} of {CONNECTIONS}
            connections were that worker's, and went with it, as its memory did. A replacement took its place."
    );
    match mode {
        Mode::Process => format!(
            "{panicked} An abort or an `exit` ends one process, and here a process is one worker: {abort} connections
                again. The listening socket belongs to the primary, so a new client never noticed."
        ),
        Mode::Thread => format!(
            "{panicked} Abort, segfault, stack overflow and `exit` are the kernel's words to a process, and all workers
                are in the same one: {abort} of {CONNECTIONS} were lost, and there was nobody left to accept. Whoever
                runs threads needs somebody outside who starts the program again."
        ),
    }
}
