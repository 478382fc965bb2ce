//! E2: what a connection costs, when connections are short.

use std::{collections::BTreeMap, time::Duration};

use bimodal::{Mode, Scheduling, load::Reuse};
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts},
    choice,
    e1_throughput::style,
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    plan::{Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    rivals,
    section::{Bar, Chart, Decision, Section, Table, count},
    server::Server,
    statistics::{Interval, interval, median, ratio},
};

const WORKERS: usize = 2;
const CONNECTIONS: usize = 64;

/// How long a connection lives: for one request, or for as many as in HttpArena's test.
const LIVES: [(&str, Reuse); 2] = [("close", Reuse::Close), ("25", Reuse::Requests(25))];

const POLICIES: [Scheduling; 3] =
    [Scheduling::RoundRobin, Scheduling::Shared, Scheduling::ReusePort];

/// `shared` once more, with an option as it is not by default, and how the arm's name ends.
const OTHERWISE: [(Mode, [&str; 2], &str); 4] = [
    (Mode::Process, ["--pin", "true"], "pinned"),
    (Mode::Thread, ["--pin", "false"], "not pinned"),
    (Mode::Process, ["--defer-accept", "false"], "not deferred"),
    (Mode::Thread, ["--defer-accept", "false"], "not deferred"),
];

const NODE: &str = "node cluster";

pub(crate) struct Churn;

impl Experiment for Churn {
    fn id(&self) -> &'static str {
        "E2"
    }

    fn title(&self) -> &'static str {
        "Short connections"
    }

    fn question(&self) -> &'static str {
        "What does a connection cost under each policy, and does handing over a descriptor cost more than moving a stream?"
    }

    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell> {
        let mut arms = crossed(&POLICIES);
        arms.extend(OTHERWISE.map(|(mode, _, end)| (otherwise(mode, end), Some(mode))));
        arms.extend(rivals::present(programs).map(|name| (name.to_owned(), None)));
        if programs.rival("nginx").is_some() {
            arms.push((rivals::DEFERRED.to_owned(), None));
        }
        let expected = (length(plan) + warmup(plan)) * LIVES.len() as u32;
        interleaved(&arms, plan.either(9, 2), expected + Duration::from_millis(300))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let mut found = BTreeMap::new();
        for (life, reuse) in LIVES {
            let server = start(&cell.arm, bench, reuse == Reuse::Close)?;
            let url = server.url("/plaintext");
            let load = measure::closed(&url, CONNECTIONS, length(&bench.plan))?.reuse(reuse);
            found.insert(life, measure::with_cpu(&server, &load, warmup(&bench.plan))?);
            server.stop();
        }
        Ok(serde_json::to_value(found)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found::of(results)?;
        let setup = format!(
            "`GET /plaintext`, closed loop over {CONNECTIONS} connections, {WORKERS} workers; each connection carries one request \
             (`Connection: close`), or 25 before the client closes it."
        );
        Ok(Section {
            setup,
            tables: vec![found.table()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "TLS: a handshake costs more than any hand-over.".into(),
                "Many cores: one accepting thread is then the limit (in HttpArena, 24 cores and 25 requests per connection, one accept \
                 loop answered 335 to 550 thousand requests per second, one per core 945 to 960 thousand; its pull request 1361)."
                    .into(),
            ],
            bars: found.bars(),
            decisions: vec![found.decision()],
            notes: include_str!("notes/e2.md"),
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(800, 150)
}

fn warmup(plan: &Plan) -> Duration {
    plan.millis(150, 30)
}

fn start(arm: &str, bench: &Bench<'_>, close: bool) -> Result<Server> {
    match mode_and_policy(arm) {
        Some((mode, policy)) => {
            let other = OTHERWISE.iter().find(|(mode, _, end)| arm == otherwise(*mode, end));
            let more = other.map_or(&[][..], |(_, option, _)| option);
            Server::lab(bench.programs, mode, policy, WORKERS, more)
        }
        None => rivals::start(bench.programs, arm, WORKERS, close),
    }
}

fn otherwise(mode: Mode, end: &str) -> String {
    format!("{mode}/{}/{end}", Scheduling::Shared)
}

struct Found {
    /// Each arm's rounds, by life.
    arms: Vec<(String, Vec<BTreeMap<String, Measured>>)>,
}

impl Found {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        Ok(Self { arms: results.arms().into_iter().map(arm).collect::<Result<_>>()? })
    }

    fn values(&self, arm: &str, life: &str, of: fn(&Measured) -> f64) -> Vec<f64> {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        rounds.filter_map(|lives| lives.get(life)).map(of).collect()
    }

    /// CPU time per request, with `life` `close` the same as per connection.
    fn cpu(&self, arm: &str, life: &str) -> Vec<f64> {
        self.values(arm, life, |measured| measured.cpu_us)
    }

    fn cost(&self, a: &str, b: &str) -> Option<Interval> {
        let (a, b) = (self.cpu(a, "close"), self.cpu(b, "close"));
        (!a.is_empty() && !b.is_empty()).then(|| ratio(&a, &b))
    }

    fn table(&self) -> Table {
        let head = [
            "server",
            "CPU us per connection of one request",
            "connections per second",
            "CPU us per request, 25 per connection",
            "requests per second",
            "failed",
        ];
        let mut table = Table::new("", &head);
        for (arm, rounds) in &self.arms {
            let mut row = vec![arm.clone()];
            for (life, _) in LIVES {
                row.push(format!("{:.1}", median(&self.cpu(arm, life))));
                row.push(count(median(&self.values(arm, life, |measured| measured.per_second))));
            }
            let failed = rounds.iter().flat_map(BTreeMap::values).map(Measured::failed);
            row.push(failed.sum::<u64>().to_string());
            table.row(row);
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let row = |(arm, _): &(String, _)| {
            let value = interval(&self.cpu(arm, "close"));
            BarRow { name: arm.clone(), style: style(arm), value }
        };
        let bars = Bars {
            title: "What a connection of one request costs",
            label: "CPU time of the server per connection, us",
            rows: self.arms.iter().map(row).collect(),
        };
        charts.bars("e2-connection.svg", "CPU time per connection of every server", &bars)
    }

    /// How many times as many connections per second as Node's.
    fn against_node(&self, arm: &str) -> Option<f64> {
        let rate = |arm| self.values(arm, "close", |measured: &Measured| measured.per_second);
        let (own, node) = (rate(arm), rate(NODE));
        (!own.is_empty() && !node.is_empty()).then(|| ratio(&own, &node).value)
    }

    fn meaning(&self) -> Vec<String> {
        let pairs = [
            ("process/round-robin", "process/shared", "dealing against sharing, processes"),
            ("thread/round-robin", "thread/shared", "dealing against sharing, threads"),
            (
                "process/round-robin",
                "thread/round-robin",
                "handing a descriptor over against moving a stream",
            ),
            ("thread/shared", "process/shared", "threads against processes, at one accept queue"),
            (
                "thread/shared",
                "thread/shared/not pinned",
                "threads that are pinned against those that are not",
            ),
            (
                "process/shared/pinned",
                "process/shared",
                "processes that are pinned against those that are not",
            ),
            (
                "process/shared",
                "process/shared/not deferred",
                "connections that come with their request against those that come before it, processes",
            ),
            (
                "thread/shared",
                "thread/shared/not deferred",
                "connections that come with their request against those that come before it, threads",
            ),
            ("process/shared", rivals::DEFERRED, "processes against nginx, both deferred"),
            ("thread/shared", rivals::DEFERRED, "threads against nginx, both deferred"),
        ];
        let line = |(a, b, what): (&str, &str, &str)| {
            let times = self.cost(a, b)?.times();
            let text = format!("{what} (`{a}` over `{b}`): {times} times the CPU per connection.");
            Some(text[..1].to_uppercase() + &text[1..])
        };
        pairs.into_iter().filter_map(line).collect()
    }

    fn bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for mode in ["process", "thread"] {
            let (shared, dealt) = (format!("{mode}/shared"), format!("{mode}/round-robin"));
            let aims = [(&dealt, shared.as_str(), 1.7), (&shared, "nginx", 1.2)];
            for (a, b, most) in aims {
                let cost = self.cost(a, b);
                bars.push(Bar {
                    aim: format!("`{a}`: at most {most} times the CPU per connection of {b}"),
                    measured: cost.map_or("-".into(), |cost| cost.times()),
                    met: cost.and_then(|cost| cost.at_most(most)),
                });
            }
            let times = self.against_node(&dealt);
            bars.push(Bar {
                aim: format!(
                    "`{dealt}`: at least 4 times the connections per second of Node's cluster"
                ),
                measured: times.map_or("-".into(), |times| format!("{times:.1}")),
                met: times.map(|times| times >= 4.0),
            });
        }
        bars
    }

    fn decision(&self) -> Decision {
        let is_default = |arm: &str| arm.matches('/').count() == 1;
        let ours = self.arms.iter().filter(|(arm, _)| is_default(arm));
        let cost = |arm: &String| median(&self.cpu(arm, "close"));
        let best = choice::least(ours.map(|(arm, _)| (cost(arm), arm.as_str())));
        let why = format!("the least CPU per connection: {:.1} us", best.value);
        best.decision("many short connections, short handlers", &why)
    }
}
