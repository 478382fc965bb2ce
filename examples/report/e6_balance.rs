//! E6: how evenly connections that stay open are spread.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts, Style},
    experiment::{Bench, Cell, Experiment},
    http::Client,
    plan::{POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Bar, Decision, Section, Table},
    server::Server,
    statistics::{interval, median},
};

const WORKERS: usize = 8;
const COUNTS: [usize; 3] = [16, 64, 256];

pub(crate) struct Balance;

/// What one cell found, for one number of connections.
#[derive(Serialize, Deserialize)]
struct Spread {
    connections: usize,
    /// Connections of each worker that has any, the most first.
    workers: Vec<usize>,
}

impl Spread {
    /// How many times its even share the fullest worker has; workers without any count.
    fn unevenness(&self) -> f64 {
        let most = self.workers.first().copied().unwrap_or(0);
        most as f64 * WORKERS as f64 / self.connections as f64
    }
}

/// What the lab's `/` says.
#[derive(Deserialize)]
struct Identity {
    worker: u64,
}

impl Experiment for Balance {
    fn id(&self) -> &'static str {
        "E6"
    }

    fn title(&self) -> &'static str {
        "Balance of connections"
    }

    fn question(&self) -> &'static str {
        "How evenly are connections spread that stay open, when they all come at once?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        interleaved(&crossed(&POLICIES), plan.either(5, 2), Duration::from_millis(300))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &[])?;
        let spreads = COUNTS.map(|connections| spread(&server, connections));
        let spreads = spreads.into_iter().collect::<Result<Vec<_>>>()?;
        server.stop();
        Ok(serde_json::to_value(spreads)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found::of(results)?;
        Ok(Section {
            setup: format!(
                "`lab --workers {WORKERS}`; a client opens all connections at once, then sends one `GET /` on \
                 each and reads which worker answers. Unevenness is the fullest worker's connections over an even share; 1 is even."
            ),
            tables: vec![found.table()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "Connections that come one by one to idle workers: under `shared` between processes the kernel then \
                 wakes the one that waited last, again and again."
                    .to_owned(),
                "More connections than here: a hash evens out with their number (1.13 with 1024 over 8 workers \
                 in theory)."
                    .to_owned(),
            ],
            bars: vec![found.bar()],
            decisions: vec![found.decision()],
            notes: "",
        })
    }
}

/// Opens so many connections, and asks on each who has it.
fn spread(server: &Server, connections: usize) -> Result<Spread> {
    let opened = (0..connections).map(|_| Client::connect(server.address()));
    let mut clients = opened.collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.send("/")?;
    }
    let mut workers = BTreeMap::<u64, usize>::new();
    for client in &mut clients {
        let identity: Identity = serde_json::from_slice(&client.answer()?)?;
        *workers.entry(identity.worker).or_default() += 1;
    }
    let mut workers: Vec<_> = workers.into_values().collect();
    workers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Spread { connections, workers })
}

/// The unevenness of each arm, by number of connections, one value per round.
struct Found {
    arms: Vec<(String, Vec<Vec<f64>>)>,
}

impl Found {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| {
            let rounds: Vec<Vec<Spread>> = results.of(arm)?;
            let values = COUNTS.map(|count| {
                let all = rounds.iter().flatten().filter(|spread| spread.connections == count);
                all.map(Spread::unevenness).collect()
            });
            Ok((arm.to_owned(), values.to_vec()))
        };
        Ok(Self { arms: results.arms().into_iter().map(arm).collect::<Result<_>>()? })
    }

    fn table(&self) -> Table {
        let head = ["arm", "16 connections", "64", "256", "worst of all rounds"];
        let mut table = Table::new("Unevenness, medians over the rounds:", &head);
        for (arm, values) in &self.arms {
            let medians = values.iter().map(|values| format!("{:.2}", median(values)));
            let worst = values.iter().flatten().copied().fold(0.0, f64::max);
            table.row([arm.clone()].into_iter().chain(medians).chain([format!("{worst:.2}")]));
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<crate::section::Chart> {
        let row = |(arm, values): &(String, Vec<Vec<f64>>)| {
            let (mode, policy) = mode_and_policy(arm)?;
            let (name, style) = (arm.clone(), Style::policy(mode, policy));
            Some(BarRow { name, style, value: interval(&values[1]) })
        };
        let bars = Bars {
            title: "The fullest of 8 workers, 64 connections",
            label: "its connections over an even share (1 is even)",
            rows: self.arms.iter().filter_map(row).collect(),
        };
        charts.bars("e6-balance.svg", "unevenness of 64 connections under each policy", &bars)
    }

    /// The median over all rounds and counts of the arms whose name ends so.
    fn policy(&self, policy: &str) -> f64 {
        let of = self.arms.iter().filter(|(arm, _)| arm.ends_with(policy));
        median(&of.flat_map(|(_, values)| values.iter().flatten().copied()).collect::<Vec<_>>())
    }

    /// The worst of the arms under `least-connections`, with the most connections.
    fn least_connections(&self) -> Option<f64> {
        let of = self.arms.iter().filter(|(arm, _)| arm.ends_with("least-connections"));
        of.map(|(_, values)| median(&values[2])).reduce(f64::max)
    }

    fn meaning(&self) -> Vec<String> {
        let line = |policy: &&str| {
            let value = self.policy(policy);
            format!(
                "`{policy}`: the fullest worker has {value:.2} times its share (median of both modes and all counts)."
            )
        };
        let policies = ["round-robin", "least-connections", "shared", "reuse-port"];
        policies.iter().filter(|policy| !self.policy(policy).is_nan()).map(line).collect()
    }

    fn bar(&self) -> Bar {
        let measured = self.least_connections();
        Bar {
            aim: "`least-connections` with 256 connections: the fullest worker at most 1.05 times its share".into(),
            measured: measured.map_or("-".into(), |value| format!("{value:.2}")),
            met: measured.map(|value| value <= 1.05),
        }
    }

    fn decision(&self) -> Decision {
        let policies = ["least-connections", "round-robin", "shared", "reuse-port"];
        let known = policies.iter().filter(|policy| !self.policy(policy).is_nan());
        let best = known.min_by(|a, b| self.policy(a).total_cmp(&self.policy(b)));
        let best = best.copied().unwrap_or("-");
        Decision {
            need: "connections that live long, such as web sockets".into(),
            mode: "either".into(),
            scheduling: format!("`{best}`"),
            why: format!("the fullest worker has {:.2} times its share", self.policy(best)),
        }
    }
}
