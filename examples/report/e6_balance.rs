//! E6: how evenly connections that stay open are spread.

use std::{collections::BTreeMap, time::Duration};

use bimodal::Scheduling;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts, Style},
    choice,
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

/// How connections come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Coming {
    AtOnce,
    /// Each only after the one before was answered.
    OneByOne,
}

const COMINGS: [Coming; 2] = [Coming::AtOnce, Coming::OneByOne];

/// What one cell found, for one number of connections.
#[derive(Serialize, Deserialize)]
struct Spread {
    coming: Coming,
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
        "How evenly are connections spread that stay open?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        interleaved(&crossed(&POLICIES), plan.either(5, 1), Duration::from_millis(500))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let mut spreads = Vec::new();
        for (coming, connections) in columns() {
            // A server for each: workers may not know yet that connections of the one before have gone.
            let server = Server::lab(bench.programs, mode, policy, WORKERS, &[])?;
            spreads.push(spread(&server, coming, connections)?);
            server.stop();
        }
        Ok(serde_json::to_value(spreads)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found::of(results)?;
        Ok(Section {
            setup: format!(
                "`lab --workers {WORKERS}`, started anew for each column; a client opens all connections at once and then sends one `GET /` on \
                 each, or opens each only after the one before was answered. The answer says which worker has it. Unevenness is the fullest worker's connections over an even share; 1 is even."
            ),
            tables: vec![found.table()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "Another kernel: under `shared` it decides who is woken for a connection."
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

/// The columns of the table: each way to come with each number of connections.
fn columns() -> impl Iterator<Item = (Coming, usize)> {
    COMINGS.into_iter().flat_map(|coming| COUNTS.map(|count| (coming, count)))
}

/// Opens so many connections, and asks on each who has it.
fn spread(server: &Server, coming: Coming, connections: usize) -> Result<Spread> {
    let mut clients = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(server.address())?;
        if coming == Coming::OneByOne {
            client.send("/")?;
            answers.push(client.answer()?);
        }
        clients.push(client);
    }
    if coming == Coming::AtOnce {
        clients.iter_mut().try_for_each(|client| client.send("/"))?;
        answers = clients.iter_mut().map(Client::answer).collect::<Result<_>>()?;
    }
    let mut workers = BTreeMap::<u64, usize>::new();
    for answer in answers {
        let identity: Identity = serde_json::from_slice(&answer)?;
        *workers.entry(identity.worker).or_default() += 1;
    }
    let mut workers: Vec<_> = workers.into_values().collect();
    workers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Spread { coming, connections, workers })
}

/// The unevenness of each arm, by column, one value per round.
struct Found {
    arms: Vec<(String, Vec<Vec<f64>>)>,
}

impl Found {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| {
            let rounds: Vec<Vec<Spread>> = results.of(arm)?;
            let column = |(coming, count): (Coming, usize)| {
                let all = rounds.iter().flatten();
                let of = all.filter(|one| (one.coming, one.connections) == (coming, count));
                of.map(Spread::unevenness).collect()
            };
            Ok((arm.to_owned(), columns().map(column).collect()))
        };
        Ok(Self { arms: results.arms().into_iter().map(arm).collect::<Result<_>>()? })
    }

    fn table(&self) -> Table {
        let head = ["arm", "16 at once", "64", "256", "16 one by one", "64", "256"];
        let mut table = Table::new("Unevenness, medians over the rounds:", &head);
        for (arm, values) in &self.arms {
            let medians = values.iter().map(|values| format!("{:.2}", median(values)));
            table.row([arm.clone()].into_iter().chain(medians));
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

    /// The arms under a policy.
    fn under(&self, policy: &str) -> impl Iterator<Item = &Vec<Vec<f64>>> {
        let of = self.arms.iter().filter(move |(arm, _)| arm.ends_with(policy));
        of.map(|(_, columns)| columns)
    }

    /// The greatest median of a policy's columns, at once and one by one.
    fn worst(&self, policy: &str, coming: Coming) -> Option<f64> {
        let at = |columns: &Vec<Vec<f64>>| match coming {
            Coming::AtOnce => columns[..COUNTS.len()].to_vec(),
            Coming::OneByOne => columns[COUNTS.len()..].to_vec(),
        };
        self.under(policy).flat_map(at).map(|values| median(&values)).reduce(f64::max)
    }

    fn meaning(&self) -> Vec<String> {
        let line = |policy: &str| {
            let at_once = self.worst(policy, Coming::AtOnce)?;
            let one_by_one = self.worst(policy, Coming::OneByOne)?;
            Some(format!(
                "`{policy}`: the fullest worker has up to {at_once:.2} times its share of connections that come at once, and \
                 {one_by_one:.2} of those that come one by one."
            ))
        };
        let lines = POLICIES.iter().filter_map(|policy| line(&policy.to_string()));
        let window = "At once, even dealing in turn is uneven when workers do not keep up: a worker with eight offers \
                      that it has not taken yet (the default window) is passed over.";
        lines.chain([window.to_owned()]).collect()
    }

    fn bar(&self) -> Bar {
        let measured = self.worst("least-connections", Coming::OneByOne);
        Bar {
            aim: "`least-connections`, one by one: the fullest worker at most 1.05 times its share"
                .into(),
            measured: measured.map_or("-".into(), |value| format!("{value:.2}")),
            met: measured.map(|value| value <= 1.05),
        }
    }

    fn decision(&self) -> Decision {
        let arms = POLICIES.map(|policy| (policy, format!("either/{policy}")));
        let worst = |(policy, arm): &'_ (Scheduling, String)| {
            self.worst(&policy.to_string(), Coming::OneByOne).map(|worst| (worst, arm.clone()))
        };
        let known: Vec<_> = arms.iter().filter_map(worst).collect();
        let best = choice::least(known.iter().map(|(worst, arm)| (*worst, arm.as_str())));
        let why = format!("the fullest worker has at most {:.2} times its share", best.value);
        best.decision("connections that live long, such as web sockets", &why)
    }
}
