//! E7: what a fault in one worker costs the others, and how long.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Mode, Scheduling,
    load::{Arrival, Load, Outcome, Reuse, Until, usage},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Grid, GridCell, Lines, Series, Shade, Style},
    experiment::{Bench, Cell, Experiment},
    http::Client,
    measure::{self, Beat},
    plan::{MODES, Plan, interleaved},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
    server::Server,
    statistics::median,
};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 64;
const PER_SECOND: f64 = 1_000.0;

/// Each fault, with the route that commits it.
const FAULTS: [(&str, &str); 8] = [
    ("panic", "/fault/panic"),
    ("abort", "/fault/abort"),
    ("segfault", "/fault/segfault"),
    ("stack-overflow", "/fault/stack-overflow"),
    ("exit", "/fault/exit"),
    ("spin", "/fault/spin"),
    ("leak-fd", "/fault/leak-fd?n=10000"),
    ("leak-memory", "/fault/leak-memory?mib=80"),
];

/// What the last one leaks.
const LEAKED_MIB: f64 = 80.0;

/// Descriptors that each process of the lab may have when its worker leaks them.
const DESCRIPTORS: u64 = 256;

/// Bytes of memory from which a worker process is replaced, in MiB as an argument.
const RECYCLE_MIB: &str = "64";

/// Connections that are opened after the fault, to see whether they are answered; how long that may take; and how long
/// before the end of the load, whose connections keep their descriptors.
const FRESH: u64 = 16;
const FRESH_TIMEOUT: Duration = Duration::from_millis(200);
const FRESH_BEFORE_END: Duration = Duration::from_millis(300);

/// A piece of the timeline.
const BEAT: Duration = Duration::from_millis(50);

pub(crate) struct Faults;

/// How long each part is, in milliseconds.
struct Times {
    before: u64,
    after: u64,
    deadline: u64,
    patience: u64,
}

impl Times {
    fn of(quick: bool) -> Self {
        match quick {
            false => Self { before: 500, after: 2_000, deadline: 500, patience: 200 },
            true => Self { before: 200, after: 1_100, deadline: 300, patience: 100 },
        }
    }
}

/// What one fault came to.
#[derive(Serialize, Deserialize)]
struct Found {
    scheduled: u64,
    failures: BTreeMap<String, u64>,
    /// Connections that broke.
    lost_connections: u64,
    /// The whole program has ended.
    ended: bool,
    /// Workers that ended, or were given up.
    gone: u64,
    /// Seconds from the fault to the last worker that listened anew.
    restored: Option<f64>,
    /// Of [`FRESH`] connections after it, those that were answered.
    fresh: u64,
    /// Bytes that the lab occupies in the end beyond those before the fault; of a lab that has ended nothing.
    grown: Option<i64>,
    timeline: Vec<Beat>,
}

impl Found {
    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn survivors(&self) -> u64 {
        if self.ended { 0 } else { (WORKERS as u64).saturating_sub(self.gone) }
    }
}

impl Experiment for Faults {
    fn id(&self) -> &'static str {
        "E7"
    }

    fn title(&self) -> &'static str {
        "What a fault costs"
    }

    fn question(&self) -> &'static str {
        "A handler of one worker goes wrong under load: what do clients lose, who survives, and when is all as before?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let arm = |mode: Mode| FAULTS.map(|(fault, _)| (format!("{mode}/{fault}"), Some(mode)));
        let arms = MODES.map(arm).concat();
        let Times { before, after, .. } = Times::of(plan.quick);
        interleaved(&arms, plan.either(2, 1), Duration::from_millis(before + after + 400))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, fault) = cell.arm.split_once('/').ok_or("an arm without a fault")?;
        let path = FAULTS.iter().find(|(name, _)| *name == fault).ok_or("no such fault")?.1;
        let times = Times::of(bench.plan.quick);
        let server = start(bench, mode.parse()?, fault, &times)?;
        if fault == "leak-fd" {
            limit_descriptors(&server)?;
        }
        let found = commit(&server, path, &times)?;
        // A thread that spins keeps the lab from ending by itself.
        drop(server);
        Ok(serde_json::to_value(found)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let all = All::of(results)?;
        let Times { deadline, patience, .. } = Times::of(results.run.quick);
        Ok(Section {
            setup: format!(
                "`lab --workers {WORKERS} --scheduling least-connections`, {CONNECTIONS} connections that stay open, {PER_SECOND} requests \
                 per second `GET /plaintext` in an open loop; in its midst one request to `/fault/KIND`, which is not counted. \
                 *Lost* are connections that broke. For `spin` and `leak-memory` the health deadline is {deadline} ms \
                 instead of 30 s, and the patience of each step against a worker that hangs {patience} ms. `leak-fd` takes all of the {DESCRIPTORS} descriptors that each \
                 process may have; `leak-memory` takes {LEAKED_MIB} MiB, and worker processes are recycled from {RECYCLE_MIB} MiB \
                 (threads share theirs, so none can be recycled by it). *New* are {FRESH} connections at the end of the load."
            ),
            tables: vec![all.table()],
            charts: vec![all.matrix(charts)?, all.timeline(charts, results.run.quick)?],
            meaning: all.meaning(),
            overturn: vec![
                "A service manager that starts the program again: the end of all threads is then an outage of as long as a \
                 start takes, and of every connection."
                    .to_owned(),
                "State that workers share in memory: what a thread leaves half-written when it panics, the others find; a \
                 crash of a process leaves only what is in a region or a store."
                    .to_owned(),
            ],
            bars: all.bars(),
            decisions: all.decision().into_iter().collect(),
            notes: include_str!("notes/e7.md"),
        })
    }
}

/// Only where it has to notice something is the lab in a hurry: on a busy machine a short deadline would condemn others, too.
fn start(bench: &Bench<'_>, mode: Mode, fault: &str, times: &Times) -> Result<Server> {
    let (deadline, patience) = (times.deadline.to_string(), times.patience.to_string());
    let mut more = vec!["--events", "json", "--restart-delay-ms", "0"];
    if ["spin", "leak-memory"].contains(&fault) {
        more.extend(["--health-deadline-ms", &deadline, "--health-patience-ms", &patience]);
    }
    if mode == Mode::Process {
        more.extend(["--recycle-memory", RECYCLE_MIB]);
    }
    Server::lab(bench.programs, mode, Scheduling::LeastConnections, WORKERS, &more)
}

/// The lab's processes get by with few descriptors, and cannot raise the limit.
fn limit_descriptors(server: &Server) -> Result<()> {
    let limit = || Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    let mut pids = vec![server.pid()];
    // A child is listed at the thread that forked it.
    for entry in std::fs::read_dir(format!("/proc/{}/task", server.pid()))? {
        let text = std::fs::read_to_string(entry?.path().join("children")).unwrap_or_default();
        pids.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        prlimit(Some(pid), Resource::Nofile, limit())?;
    }
    Ok(())
}

/// Lets one worker go wrong in the midst of a load.
fn commit(server: &Server, path: &str, times: &Times) -> Result<Found> {
    let (before, after) = (Duration::from_millis(times.before), Duration::from_millis(times.after));
    let memory = usage::memory(server.pid())?.pss;
    let running = load(server, before + after)?.start()?;
    thread::sleep(before);
    let mut client = Client::connect(server.address())?;
    let asked = Instant::now();
    client.send(path)?;
    let news = News::until(server, asked + after - FRESH_BEFORE_END);
    let fresh = if server.has_ended() { 0 } else { fresh(server)? };
    let outcome = running.wait()?;
    drop(client);
    let ended = server.has_ended();
    let grown = usage::memory(server.pid()).ok().filter(|_| !ended);
    Ok(Found {
        scheduled: outcome.scheduled(),
        failures: measure::by_kind(&outcome.failures()),
        lost_connections: if ended { CONNECTIONS as u64 } else { lost(&outcome) },
        ended,
        gone: news.gone,
        restored: news.restored.filter(|_| !ended).map(|at| (at - asked).as_secs_f64()),
        fresh,
        grown: grown.map(|now| now.pss as i64 - memory as i64),
        timeline: measure::beats(&outcome, BEAT),
    })
}

/// Connections that broke: those that were opened in place of others, or as many as had a request under way.
fn lost(outcome: &Outcome) -> u64 {
    let failures = outcome.failures();
    let broken = failures.reset + failures.closed + failures.timed_out;
    outcome.connections.saturating_sub(CONNECTIONS as u64).max(broken)
}

fn load(server: &Server, length: Duration) -> Result<Load> {
    let load = measure::closed(&server.url("/plaintext"), CONNECTIONS, length)?;
    let arrival = Arrival::Constant { per_second: PER_SECOND };
    Ok(load.arrival(arrival).timeout(Duration::from_secs(1)))
}

/// How many new connections are answered.
fn fresh(server: &Server) -> Result<u64> {
    let load = Load::new(&server.url("/plaintext"))?.connections(FRESH as usize);
    let load = load.reuse(Reuse::Close);
    let outcome = load.until(Until::Requests(FRESH)).timeout(FRESH_TIMEOUT).run()?;
    Ok(outcome.completed())
}

/// What the lab said of its workers.
#[derive(Default)]
struct News {
    /// Workers that hung or ended, by id, each once.
    gone: u64,
    /// When the last one listened.
    restored: Option<Instant>,
}

impl News {
    fn until(server: &Server, end: Instant) -> Self {
        let (mut news, mut gone) = (Self::default(), Vec::new());
        while let Some((at, line)) = server.line_by(end) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let left = match (event["event"].as_str(), event["decision"].as_str()) {
                (Some("exit"), _) => event["worker"].as_u64(),
                (_, Some("hung")) => event["of"].as_u64(),
                (Some("listening"), _) => {
                    news.restored = Some(at);
                    None
                }
                _ => None,
            };
            gone.extend(left.filter(|worker| !gone.contains(worker)));
        }
        news.gone = gone.len() as u64;
        news
    }
}

/// All rounds by arm.
struct All(BTreeMap<String, Vec<Found>>);

impl All {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        Ok(Self(results.arms().into_iter().map(arm).collect::<Result<_>>()?))
    }

    fn rounds(&self, mode: Mode, fault: &str) -> &[Found] {
        self.0.get(&format!("{mode}/{fault}")).map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds; NaN without any.
    fn at(&self, mode: Mode, fault: &str, of: impl Fn(&Found) -> f64) -> f64 {
        median(&self.rounds(mode, fault).iter().map(of).collect::<Vec<_>>())
    }

    /// The rounds' worst.
    fn most(&self, mode: Mode, fault: &str, of: impl Fn(&Found) -> u64) -> Option<u64> {
        self.rounds(mode, fault).iter().map(of).max()
    }

    /// Whether the program ended in any round.
    fn ends(&self, mode: Mode, fault: &str) -> bool {
        self.rounds(mode, fault).iter().any(|found| found.ended)
    }

    fn restored(&self, mode: Mode, fault: &str) -> String {
        match self.at(mode, fault, |found| found.restored.unwrap_or(f64::NAN)) {
            _ if self.ends(mode, fault) => "never".to_owned(),
            seconds if seconds.is_nan() => "nobody replaced".to_owned(),
            seconds => time(seconds),
        }
    }

    /// MiB.
    fn grown(&self, mode: Mode, fault: &str) -> f64 {
        let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
        self.at(mode, fault, |found| found.grown.map_or(f64::NAN, mib))
    }

    fn table(&self) -> Table {
        let head = [
            "fault",
            "mode",
            "survivors",
            "failed",
            "of",
            "failures by kind",
            "connections lost",
            "full strength after",
            "new answered",
            "memory grown, MiB",
        ];
        let mut table =
            Table::new("Medians over the rounds; the kinds are those of the last:", &head);
        for (fault, _) in FAULTS {
            for mode in MODES {
                if let Some(last) = self.rounds(mode, fault).last() {
                    table.row(self.row(mode, fault, last));
                }
            }
        }
        table
    }

    fn row(&self, mode: Mode, fault: &str, last: &Found) -> Vec<String> {
        let at = |of: fn(&Found) -> f64| format!("{:.0}", self.at(mode, fault, of));
        let kinds = last.failures.iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let grown = self.grown(mode, fault);
        vec![
            fault.to_owned(),
            mode.to_string(),
            format!("{} of {WORKERS}", at(|found| found.survivors() as f64)),
            at(|found| found.failed() as f64),
            at(|found| found.scheduled as f64),
            if kinds.is_empty() { "none".to_owned() } else { kinds },
            at(|found| found.lost_connections as f64),
            self.restored(mode, fault),
            format!("{} of {FRESH}", at(|found| found.fresh as f64)),
            if grown.is_nan() { "-".to_owned() } else { format!("{grown:.0}") },
        ]
    }

    fn matrix(&self, charts: &Charts) -> Result<Chart> {
        let row = |(fault, _): &(&str, &str)| {
            ((*fault).to_owned(), MODES.map(|mode| self.grid_cell(mode, fault)).into())
        };
        let grid = Grid {
            title: "Who survives, and what clients lose",
            columns: MODES.map(|mode| mode.to_string()).to_vec(),
            rows: FAULTS.iter().map(row).collect(),
        };
        charts.grid(
            "e7-isolation.svg",
            "survivors and failed requests of each fault in both modes",
            &grid,
        )
    }

    fn grid_cell(&self, mode: Mode, fault: &str) -> GridCell {
        let [survivors, failed, fresh] =
            [Found::survivors, Found::failed, |found: &Found| found.fresh]
                .map(|of| self.at(mode, fault, |found| of(found) as f64));
        let grown = self.grown(mode, fault);
        let left = format!("{survivors:.0} of {WORKERS} left");
        let (words, shade) = match () {
            () if survivors.is_nan() => ("not run".to_owned(), Shade::Unknown),
            () if self.ends(mode, fault) => {
                (format!("all end, {failed:.0} requests lost"), Shade::Bad)
            }
            () if fresh < FRESH as f64 => (format!("{left}, no new connections"), Shade::Bad),
            () if grown > LEAKED_MIB / 2.0 => (format!("{left}, {grown:.0} MiB kept"), Shade::Some),
            () if failed > 0.0 => (format!("{left}, {failed:.0} requests lost"), Shade::Some),
            () => (format!("{left}, no request lost"), Shade::Good),
        };
        GridCell { words, shade }
    }

    fn timeline(&self, charts: &Charts, quick: bool) -> Result<Chart> {
        let series = MODES.map(|mode| {
            let beats = self.rounds(mode, "abort").last().map_or(&[][..], |found| &found.timeline);
            let rate = |beat: &Beat| (beat.at, beat.completed as f64 / BEAT.as_secs_f64());
            // The last one is not whole.
            let whole = beats.iter().take(beats.len().saturating_sub(1));
            let points = whole.map(rate).collect();
            Series { name: mode.to_string(), style: Style::mode(mode), points }
        });
        let lines = Lines {
            title: "One worker of four aborts under load",
            x: Axis::linear("time, s"),
            y: Axis::linear("answers per second"),
            series: series.into(),
            marks: vec![(Times::of(quick).before as f64 / 1e3, "abort".to_owned())],
        };
        charts.lines(
            "e7-crash.svg",
            "answers per second before and after an abort, in both modes",
            &lines,
        )
    }

    fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for mode in MODES {
            let run = FAULTS.iter().filter(|(fault, _)| !self.rounds(mode, fault).is_empty());
            let run: Vec<_> = run.map(|(fault, _)| *fault).collect();
            let ends = run.iter().filter(|fault| self.ends(mode, fault)).copied();
            let ends: Vec<_> = ends.collect();
            if !run.is_empty() {
                let which =
                    if ends.is_empty() { String::new() } else { format!(" ({})", ends.join(", ")) };
                lines.push(format!(
                    "{mode}: {} of {} faults end the whole program{which}.",
                    ends.len(),
                    run.len()
                ));
            }
        }
        lines.extend(["panic", "abort", "spin"].iter().filter_map(|fault| self.compare(fault)));
        for mode in MODES {
            let fresh = self.at(mode, "leak-fd", |found| found.fresh as f64);
            if !fresh.is_nan() {
                lines.push(format!(
                    "{mode}: when one worker has taken all descriptors that it can, {fresh:.0} of {FRESH} new connections are answered."
                ));
            }
            let grown = self.grown(mode, "leak-memory");
            if !grown.is_nan() {
                lines.push(format!("{mode}: of {LEAKED_MIB} MiB that leak {grown:.0} MiB are still taken in the end."));
            }
        }
        lines
    }

    /// What both modes lose by a fault.
    fn compare(&self, fault: &str) -> Option<String> {
        let lost = |mode| {
            let failed = self.at(mode, fault, |found| found.failed() as f64);
            let share =
                self.at(mode, fault, |found| found.failed() as f64 / found.scheduled as f64);
            (!failed.is_nan()).then(|| format!("{failed:.0} requests ({:.1} %)", share * 100.0))
        };
        let [process, thread] =
            MODES.map(|mode| lost(mode).map(|lost| (lost, self.restored(mode, fault))));
        let ((process, process_back), (thread, thread_back)) = (process?, thread?);
        Some(format!(
            "{fault}: processes lose {process}, back at full strength: {process_back}; threads lose {thread}, back: {thread_back}."
        ))
    }

    fn bars(&self) -> Vec<Bar> {
        let crashes = ["abort", "segfault", "stack-overflow", "exit"];
        let lost = crashes
            .iter()
            .filter_map(|fault| self.most(Mode::Process, fault, |found| found.lost_connections));
        let lost = lost.max();
        let panics = self.most(Mode::Thread, "panic", |found| found.lost_connections);
        let ended = crashes.iter().chain(&["panic"]).any(|fault| self.ends(Mode::Process, fault));
        let share = (CONNECTIONS / WORKERS) as u64;
        let bar = |what: &str, lost: Option<u64>, ended: bool| Bar {
            aim: format!(
                "E7: {what} costs no more than its worker's share of {share} connections, and nobody else ends"
            ),
            measured: lost.map_or("-".into(), |lost| {
                format!("{lost} connections{}", if ended { ", the program ended" } else { "" })
            }),
            met: lost.map(|lost| lost <= share && !ended),
        };
        vec![
            bar("the crash of a worker process", lost, ended),
            bar("the panic of a worker thread", panics, self.ends(Mode::Thread, "panic")),
        ]
    }

    fn decision(&self) -> Option<Decision> {
        let held =
            |mode: &Mode| !self.rounds(*mode, "abort").is_empty() && !self.ends(*mode, "abort");
        let modes: Vec<_> = MODES.iter().filter(|mode| held(mode)).map(Mode::to_string).collect();
        let mode = (!modes.is_empty()).then(|| modes.join(" or "))?;
        Some(Decision {
            need: "handlers that may crash: native code, deep recursion, `abort` on failure"
                .to_owned(),
            mode,
            scheduling: "any".to_owned(),
            why: "an abort ends one worker, and the others serve on".to_owned(),
        })
    }
}
