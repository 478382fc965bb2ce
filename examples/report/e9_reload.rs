//! E9: what clients notice of rolling reloads.

use std::time::{Duration, Instant};

use bimodal::load::{Arrival, Load, Reuse};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    chart::{BarRow, Bars, Charts, Style},
    experiment::{Bench, Cell, Experiment},
    measure::{self, Measured},
    plan::{MODES, POLICIES, Plan, crossed, interleaved, mode_and_policy},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, count, time},
    server::Server,
    statistics::{interval, median},
};

const WORKERS: usize = 4;

/// Requests per second on connections that stay open, and on connections of their own.
const KEPT: (f64, usize) = (300.0, 32);
const FRESH: (f64, usize) = (100.0, 32);

pub(crate) struct Reload;

/// What came of the requests of one cell.
#[derive(Serialize, Deserialize)]
struct Found {
    planned: usize,
    /// Seconds from each SIGHUP to the decision that all workers are new.
    reloads: Vec<f64>,
    kept: Measured,
    fresh: Measured,
}

impl Found {
    fn lost(&self) -> u64 {
        self.kept.failed() + self.fresh.failed()
    }

    fn answered(&self) -> u64 {
        self.kept.completed + self.fresh.completed
    }
}

impl Experiment for Reload {
    fn id(&self) -> &'static str {
        "E9"
    }

    fn title(&self) -> &'static str {
        "Rolling reloads"
    }

    fn question(&self) -> &'static str {
        "All workers are replaced, again and again, under load: how many requests are lost?"
    }

    fn cells(&self, plan: &Plan, _: &Programs) -> Vec<Cell> {
        interleaved(&crossed(&POLICIES), 1, length(plan) + Duration::from_millis(300))
    }

    fn run(&self, cell: &Cell, bench: &Bench<'_>) -> Result<Value> {
        let (mode, policy) = mode_and_policy(&cell.arm).ok_or("an arm without mode and policy")?;
        let more = ["--events", "json"];
        let server = Server::lab(bench.programs, mode, policy, WORKERS, &more)?;
        let length = length(&bench.plan);
        let kept = load(&server, KEPT, Reuse::KeepAlive, length)?.start()?;
        let fresh = load(&server, FRESH, Reuse::Close, length)?.start()?;
        let planned = planned(&bench.plan);
        let reloads = reload(&server, planned, Instant::now() + length);
        let (kept, fresh) = (kept.wait()?, fresh.wait()?);
        server.stop();
        let [kept, fresh] = [kept, fresh].map(|outcome| Measured::new(&outcome, None));
        Ok(serde_json::to_value(Found { planned, reloads, kept, fresh })?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let all = All::of(results)?;
        Ok(Section {
            setup: format!(
                "`lab --workers {WORKERS}`; {} requests per second on connections that stay open and {} per second on a connection \
                 each, in an open loop, `GET /plaintext`. Meanwhile the lab gets SIGHUP, as soon as the reload before is over: one \
                 worker after the other gets a successor, and leaves when that is ready. *Lost* is every request without \
                 the expected answer, also one that waited too long.",
                KEPT.0, FRESH.0
            ),
            tables: vec![all.table()],
            charts: vec![all.chart(charts)?],
            meaning: all.meaning(),
            overturn: vec![
                "Requests that take longer than workers may drain (`Shutdown::drain`): they are cut off.".to_owned(),
                "A client that sends on a connection in the moment in which the server closes it: HTTP/1.1 cannot rule that out, \
                 and a client that does not try again loses the request."
                    .to_owned(),
            ],
            bars: all.bar().into_iter().collect(),
            decisions: all.decision().into_iter().collect(),
            notes: include_str!("notes/e9.md"),
        })
    }
}

fn length(plan: &Plan) -> Duration {
    plan.millis(7_000, 1_500)
}

fn planned(plan: &Plan) -> usize {
    plan.either(20, 4)
}

fn load(
    server: &Server,
    (per_second, connections): (f64, usize),
    reuse: Reuse,
    length: Duration,
) -> Result<Load> {
    let load = measure::closed(&server.url("/plaintext"), connections, length)?;
    Ok(load.arrival(Arrival::Constant { per_second }).reuse(reuse).timeout(Duration::from_secs(5)))
}

/// Reloads so often, or until `end`; how long each took.
fn reload(server: &Server, times: usize, end: Instant) -> Vec<f64> {
    let one = |_| {
        let begin = Instant::now();
        server.signal(Signal::HUP);
        loop {
            let (at, line) = server.line_by(end)?;
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            match event["decision"].as_str() {
                Some("reloaded") => return Some((at - begin).as_secs_f64()),
                Some("reload failed") => return None,
                _ => {}
            }
        }
    };
    (0..times).map_while(one).collect()
}

struct All(Vec<(String, Vec<Found>)>);

impl All {
    fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        Ok(Self(results.arms().into_iter().map(arm).collect::<Result<_>>()?))
    }

    fn cells(&self) -> impl Iterator<Item = &Found> {
        self.0.iter().flat_map(|(_, cells)| cells)
    }

    fn table(&self) -> Table {
        let head = [
            "arm",
            "reloads",
            "answered",
            "lost",
            "on connections that stay open",
            "on a connection each",
            "one reload",
            "p99",
            "slowest",
        ];
        let mut table = Table::new("", &head);
        for (arm, cells) in &self.0 {
            cells.iter().for_each(|found| table.row(found.row(arm)));
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let row = |(arm, cells): &(String, Vec<Found>)| {
            let (mode, policy) = mode_and_policy(arm)?;
            let times: Vec<_> =
                cells.iter().flat_map(|found| &found.reloads).map(|time| time * 1e3).collect();
            let (name, style) = (arm.clone(), Style::policy(mode, policy));
            Some(BarRow { name, style, value: interval(&times) })
        };
        let bars = Bars {
            title: "Replacing four workers, one after the other",
            label: "ms from SIGHUP to the last successor, median with its interval",
            rows: self.0.iter().filter(|(_, cells)| has_reloads(cells)).filter_map(row).collect(),
        };
        charts.bars("e9-reload.svg", "milliseconds that one reload takes under each policy", &bars)
    }

    fn lost(&self) -> u64 {
        self.cells().map(Found::lost).sum()
    }

    fn reloads(&self) -> (usize, usize) {
        let done = self.cells().map(|found| found.reloads.len()).sum();
        (done, self.cells().map(|found| found.planned).sum())
    }

    fn meaning(&self) -> Vec<String> {
        let answered: u64 = self.cells().map(Found::answered).sum();
        let (done, planned) = self.reloads();
        let mut lines = vec![format!(
            "{done} of {planned} reloads went through; of {} requests {} were lost.",
            count((answered + self.lost()) as f64),
            self.lost()
        )];
        for mode in MODES {
            let of = self.0.iter().filter(|(arm, _)| arm.starts_with(&format!("{mode}/")));
            let times: Vec<_> =
                of.flat_map(|(_, cells)| cells).flat_map(|found| found.reloads.clone()).collect();
            if !times.is_empty() {
                lines.push(format!(
                    "{mode}: a reload takes {} in the median.",
                    time(median(&times))
                ));
            }
        }
        lines.extend(measure::doubt(self.cells().flat_map(|found| [&found.kept, &found.fresh])));
        lines
    }

    fn bar(&self) -> Option<Bar> {
        let (done, planned) = self.reloads();
        (planned > 0).then(|| Bar {
            aim: "E9: rolling reloads under load lose no request, in both modes under every policy"
                .to_owned(),
            measured: format!("{} lost, {done} of {planned} reloads", self.lost()),
            met: Some(self.lost() == 0 && done == planned),
        })
    }

    fn decision(&self) -> Option<Decision> {
        let clean =
            |(_, cells): &&(String, Vec<Found>)| cells.iter().all(|found| found.lost() == 0);
        let arms: Vec<_> = self.0.iter().filter(clean).map(|(arm, _)| arm.as_str()).collect();
        let modes = MODES.map(|mode| mode.to_string());
        let modes = modes.iter().filter(|mode| arms.iter().any(|arm| arm.starts_with(*mode)));
        let modes: Vec<_> = modes.cloned().collect();
        let all = arms.len() == self.0.len();
        (!modes.is_empty()).then(|| Decision {
            need: "a new configuration without an outage".to_owned(),
            mode: modes.join(" or "),
            scheduling: if all { "any".to_owned() } else { arms.join(", ") },
            why: "no request was lost".to_owned(),
        })
    }
}

fn has_reloads(cells: &[Found]) -> bool {
    cells.iter().any(|found| !found.reloads.is_empty())
}

impl Found {
    fn row(&self, arm: &str) -> Vec<String> {
        let kinds = |measured: &Measured| {
            let kinds = measured.failures.iter().map(|(kind, count)| format!("{count} {kind}"));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            if kinds.is_empty() { "0".to_owned() } else { kinds }
        };
        vec![
            arm.to_owned(),
            format!("{} of {}", self.reloads.len(), self.planned),
            count(self.answered() as f64),
            self.lost().to_string(),
            kinds(&self.kept),
            kinds(&self.fresh),
            time(median(&self.reloads)),
            time(self.kept.p99.max(self.fresh.p99)),
            time(self.kept.max.max(self.fresh.max)),
        ]
    }
}
