//! E15: what supervision costs while nothing happens.

use std::time::Duration;

use bimodal::Scheduling;
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts},
    e1_throughput::style,
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    plan::{MODES, Plan, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Bar, Section, Table},
    server::Server,
    statistics::{Interval, interval, median, ratio},
};

const WORKERS: usize = 2;
const CONNECTIONS: usize = 64;

/// Health deadlines in milliseconds: one that never comes, the default, and one that makes workers beat often.
const DEADLINES: [(&str, &str); 3] = [("off", "3600000"), ("30 s", "30000"), ("1 s", "1000")];

/// The arm without supervision once more: its difference from itself is noise.
const AGAIN: &str = "off again";

pub(crate) struct Supervision;

impl Experiment for Supervision {
    fn id(&self) -> &'static str {
        "E15"
    }

    fn title(&self) -> &'static str {
        "Supervision and heartbeats"
    }

    fn question(&self) -> &'static str {
        "What do heartbeats and the primary's looks at them cost a request?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        let deadlines = || DEADLINES.map(|(name, _)| name).into_iter().chain([AGAIN]);
        let arms: Vec<_> = MODES
            .into_iter()
            .flat_map(|mode| {
                deadlines().map(move |name| (format!("{mode}/round-robin/{name}"), Some(mode)))
            })
            .collect();
        interleaved(&arms, plan.either(10, 2), length(plan) + Duration::from_millis(250))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let name = cell.arm.rsplit('/').next().unwrap_or_default();
        let deadline = DEADLINES.iter().find(|(deadline, _)| name.starts_with(deadline));
        let deadline = deadline.ok_or("an arm without a deadline")?.1;
        let more = ["--health-deadline-ms", deadline];
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &more)?;
        let load = measure::closed(&server.url("/plaintext"), CONNECTIONS, length(&bench.plan))?;
        let measured = measure::with_cpu(&server, &load, Duration::from_millis(100))?;
        server.stop();
        Ok(serde_json::to_value(measured)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found::of(results)?;
        let policy = Scheduling::RoundRobin;
        Ok(Section {
            setup: format!(
                "As E1 with {CONNECTIONS} connections and `{policy}`, with `--health-deadline-ms` of an hour (off: no worker beats in the \
                 time of a cell), 30 s (the default) and 1 s. A worker beats at every turn of its loop, and by a timer only when it would \
                 otherwise be idle for a quarter of the deadline; the primary looks at all rows of the stats page eight times per deadline."
            ),
            tables: vec![found.table()],
            charts: vec![charts.bars(
                "e15-supervision.svg",
                "CPU per request by health deadline",
                &found.bars_chart(),
            )?],
            meaning: found.meaning(),
            overturn: vec![
                "Hundreds of idle workers on one machine: each wakes up for its beat.".into(),
            ],
            bars: found.bars(),
            decisions: Vec::new(),
            notes: include_str!("notes/e15.md"),
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(500, 150)
}

struct Found {
    /// CPU us per request of each round.
    arms: Vec<(String, Vec<f64>)>,
}

impl Found {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| {
            let rounds: Vec<Measured> = results.of(arm)?;
            Ok((arm.to_owned(), rounds.iter().map(|measured| measured.cpu_us).collect()))
        };
        Ok(Self { arms: results.arms().into_iter().map(arm).collect::<Result<_>>()? })
    }

    fn of_arm(&self, arm: &str) -> Option<&Vec<f64>> {
        Some(&self.arms.iter().find(|(name, _)| name == arm)?.1)
    }

    /// How much a deadline changes, against none.
    fn change(&self, mode: &str, deadline: &str) -> Option<Interval> {
        let arm = |name| self.of_arm(&format!("{mode}/round-robin/{name}"));
        Some(ratio(arm(deadline)?, arm("off")?))
    }

    fn table(&self) -> Table {
        let head = ["arm", "CPU us per request", "against off"];
        let mut table = Table::new("", &head);
        for (arm, values) in &self.arms {
            let mut parts = arm.splitn(3, '/');
            let (mode, deadline) = (parts.next().unwrap_or(""), parts.nth(1).unwrap_or(""));
            let change = self.change(mode, deadline).filter(|_| deadline != "off");
            let change = change.as_ref().map(Interval::change).unwrap_or_default();
            table.row([arm.clone(), format!("{:.2}", median(values)), change]);
        }
        table
    }

    fn bars_chart(&self) -> Bars<'static> {
        let row = |(arm, values): &(String, Vec<f64>)| BarRow {
            name: arm.replace("/round-robin/", ", deadline "),
            style: style(arm),
            value: interval(values),
        };
        Bars {
            title: "What supervision costs a request",
            label: "CPU time of the server per request, us",
            rows: self.arms.iter().map(row).collect(),
        }
    }

    fn meaning(&self) -> Vec<String> {
        let line = |mode: bimodal::Mode| {
            let change = self.change(&mode.to_string(), "30 s")?;
            let noise = self.change(&mode.to_string(), AGAIN)?;
            let seen = change.low > 1.0 || change.high < 1.0;
            let verdict = if seen { "a difference is shown" } else { "no difference is shown" };
            Some(format!(
                "{mode}: the default deadline changes the CPU time of a request by {}; {verdict}. The same arm twice: {}.",
                change.change(),
                noise.change()
            ))
        };
        MODES.into_iter().filter_map(line).collect()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |mode: bimodal::Mode| {
            let change = self.change(&mode.to_string(), "30 s")?;
            Some(Bar {
                aim: format!(
                    "{mode}: supervision changes the CPU time of a request by less than 1 %"
                ),
                measured: change.change(),
                met: change.within(0.01),
            })
        };
        MODES.into_iter().filter_map(bar).collect()
    }
}
