//! Descriptor exhaustion: a handler leaks descriptors until there are none. Who is still served?
//!
//! ```text
//! cargo run --release --example labs -- descriptors --mode process       # or --mode thread
//! ```
//!
//! **Question.** One of two workers has used up all descriptors that it may have. A new client connects: what does it
//! see?
//! **Predict** that, and whether the clients that are connected already notice.
//! **Look at** the rows of the new clients.
//! **Explanation.** The table of descriptors, and its limit, belong to a process (getrlimit(2), RLIMIT_NOFILE).
//! **Next.** `ulimit -n`, and the line "Max open files" of `/proc/PID/limits`.

use std::{io, time::Duration};

use bimodal::Mode;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    client::Client,
    exercise::{Exercise, Outcome, Result},
    server::Server,
    table::Table,
};

pub(crate) const EXERCISE: Exercise = Exercise {
    name: "descriptors",
    about: "a handler leaks descriptors until there are none: who is still served?",
    setting: "A server with 2 workers. Each of its processes may have 256 descriptors open. 8 clients are connected
        when a handler of one worker opens files and forgets them until the kernel refuses. Then the 8 ask again, and
        8 new clients connect and ask, with half a second of patience each.",
    question: "What do the new clients see?",
    choices: &[
        "an answer: the other worker serves them",
        "nothing: they are connected, and wait",
        "a refused connection",
    ],
    run,
};

const LIMIT: u64 = 256;
const CLIENTS: usize = 8;
const PATIENCE: Duration = Duration::from_millis(500);

/// What became of requests.
#[derive(Clone, Copy, Default, Serialize)]
struct Fates {
    answered: usize,
    /// Connected, and nothing came.
    waiting: usize,
    /// Not connected, or cut.
    failed: usize,
}

#[derive(Serialize)]
struct Found {
    /// What the handler said that leaked.
    leaked: String,
    /// Of clients that were connected before.
    known: Fates,
    new: Fates,
}

fn run(mode: Mode) -> Result<Outcome> {
    let found = observe(mode)?;
    let mut table = Table::new(&["clients", "answered", "waiting", "failed"]);
    for (name, fates) in [("connected before", found.known), ("new", found.new)] {
        let cells = [fates.answered, fates.waiting, fates.failed].map(|count| count.to_string());
        table.row([name.to_owned()].into_iter().chain(cells));
    }
    Ok(Outcome {
        table,
        seen: match found.new {
            Fates { answered: CLIENTS, .. } => 0,
            Fates { waiting: 1.., .. } => 1,
            _ => 2,
        },
        expected: usize::from(mode == Mode::Thread),
        explanation: explain(mode, &found),
        next: "the other mode. Then `grep 'open files' /proc/self/limits`: how far are your servers from it?",
        figures: json!(found),
    })
}

fn observe(mode: Mode) -> Result<Found> {
    let server = Server::start(mode, &["--workers", "2", "--scheduling", "round-robin"])?;
    let mut clients = server.clients(CLIENTS)?;
    limit(&server, &mut clients)?;
    let mut culprit = Client::connect(server.address)?;
    let leaked = culprit.get("/fault/leak-fd?n=1000")?;
    let (mut known, mut new) = (Fates::default(), Fates::default());
    clients.iter_mut().for_each(|(_, client)| known.count(ask(client)));
    // They stay connected: who gives up makes room for the next.
    let mut newcomers = Vec::new();
    for _ in 0..CLIENTS {
        match Client::connect(server.address) {
            Ok(mut client) => {
                new.count(ask(&mut client));
                newcomers.push(client);
            }
            Err(error) => new.count(Err(error)),
        }
    }
    drop((newcomers, clients, culprit));
    server.stop()?;
    Ok(Found { leaked: String::from_utf8_lossy(&leaked).trim().to_owned(), known, new })
}

/// Limits every process of the server from now on.
fn limit(server: &Server, clients: &mut [(u64, Client)]) -> Result<()> {
    let mut pids = vec![u64::from(server.pid())];
    for (_, client) in clients {
        let identity: Value = serde_json::from_slice(&client.get("/")?)?;
        pids.extend(identity["pid"].as_u64());
    }
    let limit = Rlimit { current: Some(LIMIT), maximum: getrlimit(Resource::Nofile).maximum };
    for pid in pids {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        prlimit(Some(pid.ok_or("a worker without a process")?), Resource::Nofile, limit)?;
    }
    Ok(())
}

fn ask(client: &mut Client) -> io::Result<()> {
    client.set_patience(PATIENCE)?;
    client.get("/plaintext").map(drop)
}

impl Fates {
    fn count(&mut self, answer: io::Result<()>) {
        match answer.map_err(|error| error.kind()) {
            Ok(()) => self.answered += 1,
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => self.waiting += 1,
            Err(_) => self.failed += 1,
        }
    }
}

fn explain(mode: Mode, Found { leaked, known, new }: &Found) -> String {
    let common = format!(
        "The handler told: {leaked:?}. What is open stays open: {} of {CLIENTS} connected clients were answered. A new
            connection needs a new descriptor.",
        known.answered
    );
    match mode {
        Mode::Process => format!(
            "{common} The table of descriptors belongs to a process. The primary had descriptors left and accepted; the
                worker without any could not receive the connection, the primary offered it to the other one, and {}
                of {CLIENTS} new clients were answered. Half the workers do all the work now: that is what a bound on
                requests or age (recycling) is for.",
            new.answered
        ),
        Mode::Thread => format!(
            "{common} The table of descriptors belongs to the process, and all workers are in it: nobody can accept,
                and {} of {CLIENTS} new clients waited in the kernel's backlog, connected by the kernel and unknown to
                the server. They are not refused either, so that a check which only connects finds it healthy.",
            new.waiting
        ),
    }
}
