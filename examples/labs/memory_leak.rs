//! Memory leak: workers that leak are replaced. Does the memory come back?
//!
//! ```text
//! cargo run --release --example labs -- memory-leak --mode process       # or --mode thread
//! ```
//!
//! **Question.** Requests leak a megabyte each. Workers are replaced (recycled) when they have leaked enough. What
//! does the program take in the end?
//! **Predict** the curve: up for ever, a saw, or flat?
//! **Look at** the memory after all workers were replaced, twice.
//! **Explanation.** The kernel takes a process's memory back when it ends, whatever the program has forgotten. When a
//! thread ends, what its worker owned is dropped, and what nobody owns any more stays.
//! **Next.** `examples/memory_monitoring`, where the worker owns what it remembers too long.

use bimodal::{Cluster, Mode, Recycle, load::usage};
use serde_json::json;

use crate::{
    client::Client,
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "memory-leak",
    about: "workers that leak memory are replaced: does the memory come back?",
    setting: "A server with 2 workers. Every request leaks 1 MiB: it allocates, writes and forgets. 64 requests come,
        half of them to each worker, and both workers are replaced for it: processes when they have more than 24 MiB
        of their own, threads, whose memory nobody can tell apart, after 24 requests. Then once more.",
    question: "What does the program take when all workers that leaked are gone?",
    choices: &[
        "about what it took at the start",
        "what it took at the start and all that was leaked",
        "something in between",
    ],
    run,
};

const BATCH: usize = 64;
const MIB: u64 = 1 << 20;

/// What the program takes at some moment.
struct Moment {
    name: &'static str,
    leaked_mib: usize,
    takes_mib: u64,
    replaced: usize,
}

fn run(mode: Mode) -> Result<Outcome> {
    let (moments, recycled) = observe(mode)?;
    let mut table =
        Table::new(&["moment", "leaked, MiB", "program takes, MiB", "workers replaced"]);
    for moment in &moments {
        let (leaked, replaced) = (moment.leaked_mib.to_string(), moment.replaced.to_string());
        table.row([moment.name.to_owned(), leaked, moment.takes_mib.to_string(), replaced]);
    }
    let [first, .., last] = &moments[..] else { return Err("nothing was measured".into()) };
    let grown = last.takes_mib.saturating_sub(first.takes_mib);
    Ok(Outcome {
        table,
        seen: match (grown * 4, last.leaked_mib as u64) {
            (little, leaked) if little < leaked => 0,
            (much, leaked) if much > 3 * leaked => 1,
            _ => 2,
        },
        expected: usize::from(mode == Mode::Thread),
        explanation: explain(mode, grown),
        next: "the other mode. Then the example memory_monitoring, whose workers own what they remember too long: see
            what a thread gives back then.",
        figures: json!({
            "recycled": recycled,
            "replaced": last.replaced,
            "leaked_mib": last.leaked_mib,
            "grown_mib": grown,
        }),
    })
}

/// The moments, and how many workers the server says that it recycled.
fn observe(mode: Mode) -> Result<(Vec<Moment>, u64)> {
    let bound = match mode {
        Mode::Process => ["--recycle-memory", "24"],
        Mode::Thread => ["--recycle-requests", "24"],
    };
    let options = ["--workers", "2", "--scheduling", "round-robin", bound[0], bound[1]];
    let mut server = Server::start(mode, &options)?;
    let pid = server.pid();
    let at = |name, batches, replaced| -> Result<Moment> {
        let takes_mib = usage::memory(pid)?.private / MIB;
        Ok(Moment { name, leaked_mib: batches * BATCH, takes_mib, replaced })
    };
    let mut moments = vec![at("start", 0, 0)?];
    for batch in 1..=2 {
        leak(&server)?;
        moments.push(at("64 requests later", batch, 2 * (batch - 1))?);
        two_replaced(&mut server)?;
        moments.push(at("both workers replaced", batch, 2 * batch)?);
    }
    Ok((moments, server.stop()?["recycled"].as_u64().unwrap_or_default()))
}

/// One request per connection, so that the workers take turns.
fn leak(server: &Server) -> Result<()> {
    for _ in 0..BATCH {
        Client::connect(server.address)?.get("/fault/leak-memory?mib=1")?;
    }
    Ok(())
}

fn two_replaced(server: &mut Server) -> Result<()> {
    for _ in 0..2 {
        server
            .event(|event| event["event"] == "exit" && event["exited_after_disconnect"] == true)?;
    }
    Ok(())
}

/// What the library says to a bound on the memory of threads.
fn refusal() -> String {
    let bound = Recycle { memory: Some(24 * MIB), ..Recycle::default() };
    let settings = Cluster::builder(Mode::Thread).recycle(bound).build();
    settings.map_or_else(|error| error.to_string(), |_| String::new())
}

fn explain(mode: Mode, grown: u64) -> String {
    match mode {
        Mode::Process => format!(
            "The kernel takes all memory of a process back when it ends, whatever the program has lost track of. The
                cluster reads from outside what each worker has for itself, and replaced all of them twice; in the end
                the program took {grown} MiB more than at the start. The new worker starts before the old one drains,
                so no request waits for it."
        ),
        Mode::Thread => format!(
            "Threads of a process share one heap. When a worker thread ends, what its body owned is dropped; what was
                forgotten belongs to nobody: all workers were replaced twice, and the program still takes {grown} MiB
                more than at the start. Nobody can say whose memory it is either; asking for the bound of processes is
                refused ({}). Against leaks like these only a new process helps: the whole program's, by whoever
                supervises that.",
            refusal()
        ),
    }
}
