//! Runs one of the Criterion benches of this package and reads what it found.
//!
//! Every run keeps its files in a directory of its own, so that no figure of an earlier run is taken for one of this. The bench
//! is built by cargo in the profile of this program and started without cargo, so that it ends with this program.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    child::{self, Guard},
    experiment::Bench,
    results::Results,
    section,
    statistics::{Interval, median},
};

/// What a bench measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// By Criterion's names, such as `fork_to_listening/process`.
    pub(crate) figures: BTreeMap<String, Figure>,
    /// What scripts print that measure the same elsewhere, by their names.
    pub(crate) scripts: BTreeMap<String, Printed>,
}

/// The median time of one iteration, in ns, and Criterion's bootstrapped 95 % interval of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// One figure of a script, as it prints it: `node cluster fork_to_listening: 97.1 ms (90 to 130)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Printed {
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// What stands behind the unit, such as a range.
    pub(crate) remark: String,
}

/// Builds the bench and runs what the filter lets through, a regular expression over Criterion's names.
pub(crate) fn run(name: &str, filter: &str, bench: &Bench<'_>) -> Result<Run> {
    let home = Home::new(name)?;
    let mut command = child::command(build(name, bench)?);
    command.args(["--bench", "--noplot", filter]).env("CRITERION_HOME", &home.0);
    if bench.plan.quick {
        command.arg("--quick");
    } else {
        // Less than half of Criterion's own times, and enough for its samples.
        command.args(["--warm-up-time", "1", "--measurement-time", "2"]);
    }
    let said = home.0.join("said");
    command.stderr(fs::File::create(&said)?);
    let output = output(&mut command).map_err(|error| {
        let said = fs::read_to_string(&said).unwrap_or_default();
        format!("the bench {name}: {error}; it said: {}", said.trim())
    })?;
    let figures = figures_under(&home.0)?;
    if figures.is_empty() {
        return Err(format!("the bench {name} has nothing that {filter:?} lets through").into());
    }
    Ok(Run { figures, scripts: printed(&output) })
}

/// Runs a script of the contenders with this interpreter.
pub(crate) fn script(interpreter: &Path, script: &Path, arguments: &[&str]) -> Result<Run> {
    let mut command = child::command(interpreter);
    command.arg(script).args(arguments);
    let output = output(&mut command).map_err(|error| format!("{}: {error}", script.display()))?;
    let scripts = printed(&output);
    if scripts.is_empty() {
        return Err(format!("{}: it printed no figures", script.display()).into());
    }
    Ok(Run { scripts, ..Run::default() })
}

/// What a command of [`child::command`] prints that ends well.
fn output(command: &mut Command) -> Result<String> {
    let mut guard = Guard::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut output = String::new();
    if let Some(stdout) = &mut guard.child().stdout {
        stdout.read_to_string(&mut output)?;
    }
    let status = guard.wait()?;
    if status.success() { Ok(output) } else { Err(format!("it failed: {status}").into()) }
}

/// Where cargo puts the bench that it has built.
fn build(name: &str, bench: &Bench<'_>) -> Result<PathBuf> {
    let mut command = child::command("cargo");
    command
        .args(["bench", "--no-run", "--quiet", "--all-features", "--bench", name])
        .args(["--profile", &bench.programs.profile, "--target-dir"])
        .arg(target()?)
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(&bench.programs.root);
    let output = output(&mut command).map_err(|error| format!("building {name}: {error}"))?;
    let found = output.lines().find_map(|line| built(line, name));
    found.ok_or_else(|| format!("cargo does not say where it put the bench {name}").into())
}

/// Cargo's folder in which this program is.
fn target() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    let target = exe.ancestors().nth(3).ok_or("this program is not in a target folder")?;
    Ok(target.to_owned())
}

/// The program that a line of cargo's speaks of, if it is that bench.
fn built(line: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_it = message["target"]["kind"][0] == "bench" && message["target"]["name"] == name;
    is_it.then_some(message["executable"].as_str()?.into())
}

/// A directory of this run; it is removed.
struct Home(PathBuf);

impl Home {
    fn new(bench: &str) -> Result<Self> {
        let name = format!("{bench}-{}", std::process::id());
        // Below target/, where what a killed run leaves is in nobody's way.
        let path = target()?.join("report").join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What is left there harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every `new/benchmark.json` below, with the `estimates.json` beside it.
fn figures_under(directory: &Path) -> Result<BTreeMap<String, Figure>> {
    let mut figures = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && path.ends_with("new") {
            figures.extend([figure_in(&path)?]);
        } else if path.is_dir() {
            figures.extend(figures_under(&path)?);
        }
    }
    Ok(figures)
}

fn figure_in(directory: &Path) -> Result<(String, Figure)> {
    let read = |name: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(directory.join(name))?)?)
    };
    let median = &read("estimates.json")?["median"];
    let positive = |value: &Value| value.as_f64().filter(|number| *number > 0.0);
    let interval = &median["confidence_interval"];
    let figure = positive(&median["point_estimate"])
        .zip(positive(&interval["lower_bound"]))
        .zip(positive(&interval["upper_bound"]))
        .map(|((median, low), high)| Figure { median, low, high });
    let name = read("benchmark.json")?["full_id"].as_str().map(str::to_owned);
    name.zip(figure).ok_or_else(|| format!("no median in {}", directory.display()).into())
}

/// The lines of scripts among those that were printed.
fn printed(output: &str) -> BTreeMap<String, Printed> {
    output.lines().filter_map(printed_line).collect()
}

fn printed_line(line: &str) -> Option<(String, Printed)> {
    let (name, rest) = line.strip_prefix("node ")?.split_once(": ")?;
    let mut words = rest.splitn(3, ' ');
    let value = words.next()?.parse().ok()?;
    let unit = words.next()?.to_owned();
    let remark = words.next().unwrap_or_default().to_owned();
    Some((format!("node {name}"), Printed { value, unit, remark }))
}

impl Run {
    /// All rounds of these arms as one: of each figure the median of its medians, with the widest interval.
    pub(crate) fn of(results: &Results, arms: &[&str]) -> Result<Self> {
        let mut figures = BTreeMap::<String, Vec<Figure>>::new();
        let mut all = Self::default();
        for arm in arms {
            for run in results.of::<Self>(arm)? {
                run.figures.into_iter().for_each(|(name, figure)| {
                    figures.entry(name).or_default().push(figure);
                });
                all.scripts.extend(run.scripts);
            }
        }
        all.figures = figures.into_iter().map(|(name, of)| (name, Figure::over(&of))).collect();
        Ok(all)
    }

    /// The figure of this name, if there is one.
    pub(crate) fn get(&self, name: &str) -> Option<Figure> {
        self.figures.get(name).copied()
    }

    /// The figure of this name as a cell of a table.
    pub(crate) fn cell(&self, name: &str) -> String {
        self.get(name).map_or_else(|| "-".to_owned(), Figure::cell)
    }

    /// What a script printed under this name, as a cell of a table.
    pub(crate) fn script_cell(&self, name: &str) -> String {
        let cell = |Printed { value, unit, remark }: &Printed| format!("{value} {unit} {remark}");
        self.scripts.get(name).map_or_else(|| "-".to_owned(), |line| cell(line).trim().to_owned())
    }
}

impl Figure {
    fn over(rounds: &[Self]) -> Self {
        let medians: Vec<_> = rounds.iter().map(|figure| figure.median).collect();
        Self {
            median: median(&medians),
            low: rounds.iter().map(|figure| figure.low).fold(f64::MAX, f64::min),
            high: rounds.iter().map(|figure| figure.high).fold(f64::MIN, f64::max),
        }
    }

    /// `2.60 ms [2.50 ms, 2.70 ms]`.
    pub(crate) fn cell(self) -> String {
        let [median, low, high] =
            [self.median, self.low, self.high].map(|ns| section::time(ns / 1e9));
        format!("{median} [{low}, {high}]")
    }

    /// In a unit that has so many ns.
    pub(crate) fn per(self, unit: f64) -> Interval {
        Interval { value: self.median / unit, low: self.low / unit, high: self.high / unit }
    }

    /// How many times this is the other, with the widest interval that both allow.
    pub(crate) fn times(self, other: Self) -> Interval {
        Interval {
            value: self.median / other.median,
            low: self.low / other.high,
            high: self.high / other.low,
        }
    }
}
