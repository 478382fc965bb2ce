//! Measures what each mode costs and gives, beside other servers, and writes `REPORT.md` with its charts, and the table of
//! decisions in the README.
//!
//! ```text
//! cargo run --release --example report                    # every experiment, at most 25 minutes
//! cargo run --release --example report -- --quick         # the same with short cells, at most 4 minutes
//! cargo run --release --example report -- --only E4,E6    # these two; the others keep the results they have
//! cargo run --release --example report -- --render        # measures nothing, writes REPORT.md anew
//! ```
//!
//! Look at the section of the experiment in `REPORT.md`, first at "What it means", and at the tables at its end.
//!
//! An experiment is a list of cells: one arm in one round. Each finished cell is a line of `benches/results/EN.jsonl`
//! at once, so a run that was interrupted goes on where it was. Results of another commit, of another profile or of a
//! quick run do not count as done; after a change that is not committed, `--fresh` forgets what there is. A cell that fails is
//! told, left out and tried again by the next run; the exit status is then 1.
//!
//! Everything is started by the main thread and ends with this program, also when it is killed: see `child`.

mod chart;
mod child;
mod choice;
mod clock;
mod criterion;
#[path = "../../src/dice.rs"]
#[expect(dead_code, reason = "only its rolls are needed")]
mod dice;
mod document;
mod e10_counter;
mod e11_store;
mod e12_messages;
mod e13_heavy;
mod e14_memory;
mod e15_supervision;
mod e16_overload;
mod e1_throughput;
mod e2_churn;
mod e3_latency;
mod e4_slow_request;
mod e5_stuck_worker;
mod e6_balance;
mod e7_faults;
mod e8_start;
mod e9_reload;
mod experiment;
mod http;
mod machine;
mod measure;
mod model;
mod plan;
mod programs;
mod progress;
mod results;
mod rivals;
mod section;
mod server;
mod statistics;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use bimodal::Mode;
use experiment::{Bench, Experiment};
use machine::CoreTime;
use plan::Plan;
use programs::Programs;
use progress::Progress;
use results::{Outcome, Store};

/// What goes wrong here is told to a person, so a text is enough.
pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Measures what each mode costs and gives, and writes REPORT.md.
#[derive(Parser)]
#[command(name = "report")]
struct Args {
    /// Runs only these experiments; the others keep the results that they have
    #[arg(long, value_name = "E4,E5", value_delimiter = ',')]
    only: Vec<String>,
    /// Runs short cells: for a look, not for figures to quote
    #[arg(long)]
    quick: bool,
    /// Runs only the arms of this mode, and those of no mode
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Forgets the results of the chosen experiments first
    #[arg(long, conflicts_with = "render")]
    fresh: bool,
    /// Runs nothing: writes REPORT.md from the results that there are
    #[arg(long)]
    render: bool,
    /// Uses the lab and the contenders as they were built last
    #[arg(long)]
    no_build: bool,
    /// Keeps results, charts and REPORT.md here [default: benches/results, and REPORT.md beside Cargo.toml]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match child::watch_signals().and_then(|()| run(&Args::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let all = experiment::all();
    let chosen = chosen(&all, &args.only)?;
    let places = Places::of(args)?;
    let plan = Plan { quick: args.quick, mode: args.mode };
    if args.fresh {
        for experiment in &chosen {
            results::forget(&places.results, experiment.id())?;
        }
    }
    let mut store = Store::open(&places.results)?;
    let mut failed = Vec::new();
    if !args.render {
        machine::raise_open_files()?;
        failed = measure(&chosen, &plan, args.no_build, &mut store)?;
    }
    document::write(&all, &store, &places)?;
    eprintln!("report: wrote {}", places.report.display());
    match failed.as_slice() {
        [] => Ok(()),
        failed => {
            Err(format!("cells that failed, and have no result:\n{}", failed.join("\n")).into())
        }
    }
}

fn chosen<'a>(all: &'a [Box<dyn Experiment>], only: &[String]) -> Result<Vec<&'a dyn Experiment>> {
    for name in only {
        if !all.iter().any(|experiment| experiment.id().eq_ignore_ascii_case(name)) {
            let ids: Vec<_> = all.iter().map(|experiment| experiment.id()).collect();
            return Err(format!("--only {name}: there are {}", ids.join(", ")).into());
        }
    }
    let wanted =
        |id: &str| only.is_empty() || only.iter().any(|name| name.eq_ignore_ascii_case(id));
    Ok(all.iter().map(AsRef::as_ref).filter(|experiment| wanted(experiment.id())).collect())
}

/// Runs every cell that has no result yet, and tells which failed: the others still count.
fn measure(
    chosen: &[&dyn Experiment],
    plan: &Plan,
    no_build: bool,
    store: &mut Store,
) -> Result<Vec<String>> {
    let programs = Programs::find(no_build)?;
    programs.say();
    let bench = Bench { programs: &programs, plan: *plan };
    let run = results::Run::now(&programs, plan)?;
    let mut cells = Vec::new();
    for experiment in chosen {
        let all = experiment.cells(plan, &programs);
        let id = (experiment.id(), all.len());
        let left = all.into_iter().filter(|cell| plan.wants(cell) && !store.has(id.0, &run, cell));
        cells.extend(left.map(|cell| (*experiment, id, cell)));
    }
    let mut failed = Vec::new();
    let mut progress = Progress::new(cells.iter().map(|(_, _, cell)| cell.expected));
    for (experiment, id, cell) in cells {
        progress.begin(id.0, &cell);
        let before = CoreTime::now();
        let result = experiment.run(&cell, &bench);
        let stolen = CoreTime::now().zip(before).and_then(|(now, before)| now.stolen_since(before));
        match result {
            Ok(value) => store.append(id, &run, &cell, Outcome { value, stolen })?,
            Err(error) => {
                let error = format!("{} {cell}: {error}", id.0);
                progress.say(&error);
                failed.push(error);
            }
        }
        progress.end(&cell);
    }
    progress.finish();
    Ok(failed)
}

/// Where results and the report go.
pub(crate) struct Places {
    /// Results and charts.
    pub(crate) results: PathBuf,
    pub(crate) report: PathBuf,
    /// Where the table of decisions stands once more.
    pub(crate) readme: Option<PathBuf>,
    /// From the report to the charts, as a link has it; empty or with a `/` at its end.
    pub(crate) link: &'static str,
}

impl Places {
    fn of(args: &Args) -> Result<Self> {
        Ok(match &args.out {
            Some(out) => {
                let (results, report) = (out.clone(), out.join("REPORT.md"));
                Self { results, report, readme: None, link: "" }
            }
            None => {
                let root = programs::root()?;
                let (results, report) = (root.join("benches/results"), root.join("REPORT.md"));
                let readme = Some(root.join("README.md"));
                Self { results, report, readme, link: "benches/results/" }
            }
        })
    }
}
