//! E1: what a request on an open connection costs, at most.

use std::time::Duration;

use bimodal::Scheduling;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts, Style},
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
const COUNTS: [usize; 4] = [1, 8, 64, 256];

/// The number of connections at which aims are decided.
const AIM_AT: usize = 64;

/// The policies that are crossed with the modes.
const POLICIES: [Scheduling; 2] = [Scheduling::RoundRobin, Scheduling::Shared];

/// The same arm once more, to show what is noise.
const AGAIN: &str = "process/round-robin/again";

/// One worker alone.
const ALONE: [&str; 2] = ["process/round-robin/alone", "thread/round-robin/alone"];

/// Threads that the kernel may move.
const UNPINNED: &str = "thread/shared/not pinned";

const FLOOR: &str = "bare_mio";

pub(crate) struct Throughput;

/// What a cell found for one number of connections.
#[derive(Serialize, Deserialize)]
struct At {
    connections: usize,
    measured: Measured,
}

impl Experiment for Throughput {
    fn id(&self) -> &'static str {
        "E1"
    }

    fn title(&self) -> &'static str {
        "Peak throughput on open connections"
    }

    fn question(&self) -> &'static str {
        "What does a small request on a keep-alive connection cost, and does it matter what a worker is?"
    }

    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell> {
        let mut arms = crossed(&POLICIES);
        let more = [AGAIN].into_iter().chain(ALONE).chain([UNPINNED]);
        arms.extend(more.map(|arm| (arm.to_owned(), mode_and_policy(arm).map(|(mode, _)| mode))));
        arms.extend(rivals::present(programs).map(|name| (name.to_owned(), None)));
        if programs.rival(FLOOR).is_some() {
            arms.push((rivals::PINNED.to_owned(), None));
        }
        let expected = (length(plan) + warmup(plan)) * COUNTS.len() as u32;
        interleaved(&arms, plan.either(9, 2), expected + Duration::from_millis(150))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let server = start(&cell.arm, bench)?;
        let mut found = Vec::new();
        for connections in COUNTS {
            let load =
                measure::closed(&server.url("/plaintext"), connections, length(&bench.plan))?;
            let measured = measure::with_cpu(&server, &load, warmup(&bench.plan))?;
            found.push(At { connections, measured });
        }
        server.stop();
        Ok(serde_json::to_value(found)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found::of(results)?;
        Ok(Section {
            setup: format!(
                "`GET /plaintext`, closed loop, {WORKERS} workers (`alone`: 1), the load driver in one thread. `again` is \
                 the arm `process/round-robin` once more: what differs between the two is noise."
            ),
            tables: vec![found.table(), found.rates(), found.differences()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "A client on another machine: here it takes most of one core, so the rates are those of both together.".into(),
                "A handler that allocates much: threads share one allocator, processes do not.".into(),
                "More cores: nothing in the path of a request is shared between workers, but here it could not be seen if it were.".into(),
            ],
            bars: found.bars(),
            decisions: vec![found.decision()],
            notes: include_str!("notes/e1.md"),
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(600, 120)
}

fn warmup(plan: &Plan) -> Duration {
    plan.millis(100, 30)
}

/// The server of an arm: the lab under a policy, or a rival.
fn start(arm: &str, bench: &Bench<'_>) -> Result<Server> {
    match mode_and_policy(arm) {
        Some((mode, policy)) => {
            let workers = if ALONE.contains(&arm) { 1 } else { WORKERS };
            let more: &[_] = if arm == UNPINNED { &["--pin", "false"] } else { &[] };
            Server::lab(bench.programs, mode, policy, workers, more)
        }
        None => rivals::start(bench.programs, arm, WORKERS, false),
    }
}

/// The colour of an arm: that of its mode, or one for all others.
pub(crate) fn style(arm: &str) -> Style {
    mode_and_policy(arm).map_or(Style::other(0), |(mode, policy)| Style::policy(mode, policy))
}

struct Found {
    arms: Vec<(String, Vec<At>)>,
}

impl Found {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| {
            let rounds: Vec<Vec<At>> = results.of(arm)?;
            Ok((arm.to_owned(), rounds.into_iter().flatten().collect()))
        };
        Ok(Self { arms: results.arms().into_iter().map(arm).collect::<Result<_>>()? })
    }

    /// One value per round.
    fn values(&self, arm: &str, connections: usize, of: fn(&Measured) -> f64) -> Vec<f64> {
        let cells = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        let at = cells.filter(|at| at.connections == connections);
        at.map(|at| of(&at.measured)).collect()
    }

    fn cpu(&self, arm: &str, connections: usize) -> Vec<f64> {
        self.values(arm, connections, |measured| measured.cpu_us)
    }

    /// How many times the CPU time of `b` a request of `a` takes; nothing unless both were measured.
    fn cost(&self, a: &str, b: &str, connections: usize) -> Option<Interval> {
        let (a, b) = (self.cpu(a, connections), self.cpu(b, connections));
        (!a.is_empty() && !b.is_empty()).then(|| ratio(&a, &b))
    }

    fn table(&self) -> Table {
        let head = ["CPU us per request", "1 connection", "8", "64", "256", "failed"];
        let mut table = Table::new("", &head);
        for (arm, all) in &self.arms {
            let failed: u64 = all.iter().map(|at| at.measured.failed()).sum();
            let medians = COUNTS.map(|count| format!("{:.2}", median(&self.cpu(arm, count))));
            table.row([arm.clone()].into_iter().chain(medians).chain([failed.to_string()]));
        }
        table
    }

    fn rates(&self) -> Table {
        let head = ["requests per second", "1 connection", "8", "64", "256"];
        let mut table = Table::new("", &head);
        for (arm, _) in &self.arms {
            let rate = |connections| {
                count(median(&self.values(arm, connections, |measured| measured.per_second)))
            };
            table.row([arm.clone()].into_iter().chain(COUNTS.map(rate)));
        }
        table
    }

    fn differences(&self) -> Table {
        let head = ["CPU per request, against", "1 connection", "8", "64", "256"];
        let mut table = Table::new("", &head);
        let pairs = [
            ("thread/round-robin", "process/round-robin"),
            ("thread/shared", "process/shared"),
            (ALONE[1], ALONE[0]),
            (AGAIN, "process/round-robin"),
        ];
        for (a, b) in pairs {
            let changes = COUNTS.map(|count| self.cost(a, b, count));
            if changes.iter().all(Option::is_some) {
                let texts = changes.iter().flatten().map(Interval::change);
                table.row([format!("{a} against {b}")].into_iter().chain(texts));
            }
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let row = |(arm, _): &(String, Vec<At>)| {
            let value = interval(&self.cpu(arm, AIM_AT));
            BarRow { name: arm.clone(), style: style(arm), value }
        };
        let measured = self.arms.iter().filter(|(arm, _)| !self.cpu(arm, AIM_AT).is_empty());
        let bars = Bars {
            title: "What a small request costs, 64 keep-alive connections",
            label: "CPU time of the server per request, us",
            rows: measured.map(row).collect(),
        };
        charts.bars("e1-cpu.svg", "CPU time per request of every server", &bars)
    }

    /// Thread against process at the number of connections of the aims, under each policy.
    fn modes(&self) -> impl Iterator<Item = (String, Interval)> {
        let policy = |policy: Scheduling| {
            let (thread, process) = (format!("thread/{policy}"), format!("process/{policy}"));
            Some((policy.to_string(), self.cost(&thread, &process, AIM_AT)?))
        };
        POLICIES.into_iter().filter_map(policy)
    }

    fn meaning(&self) -> Vec<String> {
        let noise = self.cost(AGAIN, "process/round-robin", AIM_AT);
        let mut lines: Vec<_> = self
            .modes()
            .map(|(policy, change)| {
                let sure = match (change.low > 1.0, change.high < 1.0) {
                    (true, _) => "threads cost more in this run",
                    (_, true) => "threads cost less in this run",
                    _ => "no difference is shown",
                };
                let change = change.change();
                format!("`{policy}`, {AIM_AT} connections: a request to threads costs {change} against processes; {sure}.")
            })
            .collect();
        if let Some(noise) = noise {
            let change = noise.change();
            lines.push(format!(
                "The same arm twice differs by {change}: no smaller difference means anything here."
            ));
        }
        let rivals = rivals::SERVERS.map(|(name, _)| ("process/shared", name));
        let pinning =
            [("thread/shared", rivals::PINNED), (UNPINNED, FLOOR), (rivals::PINNED, FLOOR)];
        for (a, b) in rivals.into_iter().chain(pinning) {
            if let Some(cost) = self.cost(a, b, AIM_AT) {
                let times = cost.times();
                lines.push(format!(
                    "A request to `{a}` costs {times} times the CPU time of one to {b}."
                ));
            }
        }
        lines
    }

    fn bars(&self) -> Vec<Bar> {
        let mut bars: Vec<_> = self
            .modes()
            .map(|(policy, change)| Bar {
                aim: format!("modes within 5 % of each other, `{policy}`, CPU per request"),
                measured: change.change(),
                met: change.within(0.05),
            })
            .collect();
        for mode in ["process/shared", "thread/shared"] {
            for (rival, most) in [(FLOOR, 1.35), ("axum_tokio", 1.0), ("actix", 1.0)] {
                let cost = self.cost(mode, rival, AIM_AT);
                bars.push(Bar {
                    aim: format!("`{mode}`: at most {most} times the CPU per request of {rival}"),
                    measured: cost.map_or("-".into(), |cost| cost.times()),
                    met: cost.and_then(|cost| cost.at_most(most)),
                });
            }
        }
        bars
    }

    fn decision(&self) -> Decision {
        let most = self.modes().map(|(_, change)| (change.value - 1.0).abs()).fold(0.0, f64::max);
        // What may be noise is no reason.
        let alike = self.modes().all(|(_, change)| change.within(0.05) != Some(false));
        let cheaper = self.modes().map(|(_, change)| change.value).sum::<f64>() / 2.0;
        let mode = match (alike, cheaper < 1.0) {
            (true, _) => "either",
            (false, true) => "thread",
            (false, false) => "process",
        };
        Decision {
            need: "the most small requests on open connections".into(),
            mode: mode.into(),
            scheduling: "any: it decides per connection".into(),
            why: format!(
                "the modes differ by up to {:.1} % in CPU per request{}",
                most * 100.0,
                if alike { ", which may be noise" } else { "" }
            ),
        }
    }
}
