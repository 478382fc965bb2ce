//! E14: what workers, their data and their connections take of the memory.

use std::{collections::BTreeMap, time::Duration};

use bimodal::{
    Mode, Scheduling,
    load::usage::{self, Memory},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Charts, Part, Stack, Style},
    experiment::{Bench, Cell, Experiment},
    http::Client,
    plan::{MODES, Plan, interleaved},
    programs::Programs,
    results::Results,
    section::{Chart, Decision, Section, Table, count},
    server::Server,
    statistics::median,
};

/// Numbers of workers; a quick run has the first and the third.
const WORKERS: [usize; 5] = [1, 2, 4, 8, 16];

/// What the lab holds, with the option for it.
const NOTHING: &str = "none";
const DATA: [(&str, Option<&str>); 3] =
    [(NOTHING, None), ("shared", Some("--data-mib")), ("private", Some("--private-mib"))];
const DATA_MIB: &str = "64";

/// The arm of idle connections, how many there should be, and the workers that have them.
const IDLE: &str = "idle";
const CONNECTIONS: u64 = 10_000;
const IDLE_WORKERS: usize = 2;

/// Descriptors that this program needs besides connections.
const SPARE: u64 = 256;

const MIB: f64 = 1_048_576.0;

pub(crate) struct MemoryUse;

/// Bytes and counts of all processes of a lab.
#[derive(Serialize, Deserialize)]
struct Taken {
    pss: u64,
    private: u64,
    processes: u64,
    threads: u64,
    /// Idle connections that were open.
    connections: u64,
    /// `pss` before they were opened.
    before: u64,
}

impl Taken {
    fn new(memory: &Memory, connections: u64, before: u64) -> Self {
        let Memory { pss, private, processes, threads, .. } = *memory;
        Self { pss, private, processes, threads, connections, before }
    }

    fn per_connection(&self) -> f64 {
        (self.pss as f64 - self.before as f64) / self.connections as f64
    }
}

impl Experiment for MemoryUse {
    fn id(&self) -> &'static str {
        "E14"
    }

    fn title(&self) -> &'static str {
        "Memory"
    }

    fn question(&self) -> &'static str {
        "How much memory does a worker more take, with and without data, and an idle connection?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let counts: &[usize] = plan.either(&WORKERS, &[1, 4]);
        let mut arms = Vec::new();
        for mode in MODES {
            for workers in counts {
                arms.extend(DATA.map(|(data, _)| (format!("{mode}/{workers}/{data}"), Some(mode))));
            }
        }
        let mut cells = interleaved(&arms, plan.either(2, 1), Duration::from_millis(400));
        let idle = MODES.map(|mode| (format!("{mode}/{IDLE}"), Some(mode)));
        cells.extend(interleaved(&idle, 1, plan.millis(3_000, 800)));
        cells
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let parts: Vec<_> = cell.arm.split('/').collect();
        let taken = match parts[..] {
            [mode, IDLE] => idle(bench, mode.parse()?)?,
            [mode, workers, data] => holding(bench, mode.parse()?, workers.parse()?, data)?,
            _ => return Err(format!("no such arm: {}", cell.arm).into()),
        };
        Ok(serde_json::to_value(taken)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let all = All::of(results)?;
        Ok(Section {
            setup: format!(
                "`lab --workers N`, without data, with {DATA_MIB} MiB that all workers share (`--data-mib`, a region), and with {DATA_MIB} \
                 MiB of each worker's own (`--private-mib`), as a program has it that loads its data in every worker; all pages are written. \
                 Read from `smaps_rollup` of all processes: in PSS a page that n processes share counts for 1/n in each, *private* \
                 pages nobody else has. Idle connections: {IDLE_WORKERS} workers, one request on each, then nothing; what the kernel keeps \
                 for a socket is not in these figures."
            ),
            tables: vec![all.table(), all.idle_table()],
            charts: vec![all.chart(charts)?],
            meaning: all.meaning(),
            overturn: vec![
                "An allocator that gives nothing back, or one with an arena per thread: what threads and processes take then grows \
                 with the load."
                    .to_owned(),
                "Data that only some workers need, or that must not outlive one of them.".to_owned(),
            ],
            bars: Vec::new(),
            decisions: all.decision().into_iter().collect(),
            notes: "",
        })
    }
}

/// What a lab takes that holds this.
fn holding(bench: &Bench<'_>, mode: Mode, workers: usize, data: &str) -> Result<Taken> {
    let option = DATA.iter().find(|(name, _)| *name == data).ok_or("no such data")?.1;
    let more: Vec<_> = option.into_iter().flat_map(|option| [option, DATA_MIB]).collect();
    let server = Server::lab(bench.programs, mode, Scheduling::LeastConnections, workers, &more)?;
    let memory = usage::memory(server.pid())?;
    server.stop();
    Ok(Taken::new(&memory, 0, memory.pss))
}

/// What a lab takes that has connections which were used once.
fn idle(bench: &Bench<'_>, mode: Mode) -> Result<Taken> {
    let wanted = bench.plan.either(CONNECTIONS, CONNECTIONS / 10).min(room()?);
    let policy = Scheduling::LeastConnections;
    let server = Server::lab(bench.programs, mode, policy, IDLE_WORKERS, &[])?;
    let before = usage::memory(server.pid())?.pss;
    let mut clients = Vec::new();
    for _ in 0..wanted {
        let mut client = Client::connect(server.address())?;
        client.send("/plaintext")?;
        client.answer()?;
        clients.push(client);
    }
    let memory = usage::memory(server.pid())?;
    drop(clients);
    server.stop();
    Ok(Taken::new(&memory, wanted, before))
}

/// How many connections this process can have, and each of the lab's, which inherit the limit.
fn room() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let room = maximum.unwrap_or(u64::MAX).saturating_sub(SPARE);
    if room < CONNECTIONS {
        eprintln!(
            "report: the limit on descriptors allows only {room} connections; `ulimit -Hn` shows it"
        );
    }
    Ok(room)
}

/// All rounds by arm.
struct All(BTreeMap<String, Vec<Taken>>);

impl All {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        Ok(Self(results.arms().into_iter().map(arm).collect::<Result<_>>()?))
    }

    /// The median over the rounds, if there are any.
    fn at(&self, arm: &str, of: impl Fn(&Taken) -> f64) -> Option<f64> {
        let rounds = self.0.get(arm)?;
        Some(median(&rounds.iter().map(of).collect::<Vec<_>>()))
    }

    fn pss(&self, mode: Mode, workers: usize, data: &str) -> Option<f64> {
        self.at(&format!("{mode}/{workers}/{data}"), |taken| taken.pss as f64 / MIB)
    }

    fn table(&self) -> Table {
        let head = [
            "workers",
            "mode",
            "processes",
            "threads",
            "no data: PSS, MiB",
            "private",
            "64 MiB shared: PSS",
            "private",
            "64 MiB each: PSS",
            "private",
        ];
        let mut table = Table::new("", &head);
        for workers in WORKERS {
            for mode in MODES {
                let arm = |data| format!("{mode}/{workers}/{data}");
                let number = |value: Option<f64>, digits: usize| {
                    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
                };
                let plain = arm(NOTHING);
                let mut row = vec![workers.to_string(), mode.to_string()];
                row.push(number(self.at(&plain, |taken| taken.processes as f64), 0));
                row.push(number(self.at(&plain, |taken| taken.threads as f64), 0));
                for (data, _) in DATA {
                    row.push(number(self.pss(mode, workers, data), 1));
                    row.push(number(self.at(&arm(data), |taken| taken.private as f64 / MIB), 1));
                }
                if self.0.contains_key(&plain) {
                    table.row(row);
                }
            }
        }
        table
    }

    fn idle_table(&self) -> Table {
        let head = ["mode", "idle connections", "PSS before, MiB", "after", "bytes per connection"];
        let mut table = Table::new("Idle connections:", &head);
        for mode in MODES {
            let at = |of: fn(&Taken) -> f64| self.at(&format!("{mode}/{IDLE}"), of);
            let (opened, before) =
                (at(|taken| taken.connections as f64), at(|taken| taken.before as f64 / MIB));
            let (after, each) = (at(|taken| taken.pss as f64 / MIB), at(Taken::per_connection));
            if let (Some(opened), Some(before), Some(after), Some(each)) =
                (opened, before, after, each)
            {
                let mib = |value: f64| format!("{value:.1}");
                table.row([mode.to_string(), count(opened), mib(before), mib(after), count(each)]);
            }
        }
        table
    }

    /// A bar per number of workers and mode: what there is without data, what shared data adds, and what it adds to that when each
    /// has its own.
    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let bar = |workers: usize, mode: Mode| {
            let [none, shared, private] = DATA.map(|(data, _)| self.pss(mode, workers, data));
            let (none, shared, private) = (none?, shared?, private?);
            let letter = match mode {
                Mode::Process => "P",
                Mode::Thread => "T",
            };
            let parts = vec![none, (shared - none).max(0.0), (private - shared).max(0.0)];
            Some((format!("{workers} {letter}"), parts))
        };
        let bars = WORKERS.iter().flat_map(|workers| MODES.map(|mode| bar(*workers, mode)));
        let part =
            |(at, name): (usize, &str)| Part { name: name.to_owned(), style: Style::other(at) };
        let names = ["no data", "64 MiB shared", "64 MiB each"];
        let stack = Stack {
            title: "Memory of N processes (P) or threads (T)",
            label: "PSS, MiB",
            parts: names.into_iter().enumerate().map(part).collect(),
            bars: bars.flatten().collect(),
        };
        charts.stack("e14-memory.svg", "memory by number of workers, mode and data", &stack)
    }

    /// MiB for a worker more, between the fewest and the most that were measured.
    fn per_worker(&self, mode: Mode, data: &str) -> Option<f64> {
        let known = || WORKERS.iter().filter_map(|n| Some((*n, self.pss(mode, *n, data)?)));
        let ((few, least), (many, most)) = (known().next()?, known().next_back()?);
        (many > few).then(|| (most - least) / (many - few) as f64)
    }

    fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for mode in MODES {
            let [none, shared, private] = DATA.map(|(data, _)| self.per_worker(mode, data));
            if let (Some(none), Some(shared), Some(private)) = (none, shared, private) {
                lines.push(format!(
                    "{mode}: a worker more takes {none:.2} MiB without data, {shared:.2} MiB where data is shared and {private:.1} MiB where each has its own."
                ));
            }
            if let Some(each) = self.at(&format!("{mode}/{IDLE}"), Taken::per_connection) {
                lines.push(format!("{mode}: an idle connection takes {} bytes.", count(each)));
            }
        }
        lines
    }

    fn decision(&self) -> Option<Decision> {
        let [process, thread] = MODES.map(|mode| self.per_worker(mode, NOTHING));
        let (process, thread) = (process?, thread?);
        let mode = if thread < process { Mode::Thread } else { Mode::Process };
        Some(Decision {
            need: "many workers in little memory".to_owned(),
            mode: mode.to_string(),
            scheduling: "any".to_owned(),
            why: format!(
                "{process:.2} MiB for a process more, {thread:.2} MiB for a thread more; data in a region counts once in both"
            ),
        })
    }
}
