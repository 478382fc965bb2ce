//! What was measured, as it is kept: one file per experiment, one JSON object per line, one line per cell.
//!
//! A line is written at once, whole, and only after its cell has ended. What a crash tore off is dropped when the file is
//! read, and cut off before the next line is written.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Result, clock, experiment::Cell, machine::Machine, plan::Plan, programs::Programs};

/// Under what a cell was run. Cells of one experiment are compared only when all of it is the same but the time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Seconds since 1970 at its start.
    pub(crate) at: u64,
    pub(crate) commit: String,
    pub(crate) quick: bool,
    /// The cargo profile.
    pub(crate) profile: String,
    pub(crate) machine: Machine,
    /// Rivals with their versions, and which are absent.
    pub(crate) rivals: Vec<String>,
}

impl Run {
    pub(crate) fn now(programs: &Programs, plan: &Plan) -> Result<Self> {
        Ok(Self {
            at: clock::seconds(),
            commit: commit(&programs.root),
            quick: plan.quick,
            profile: programs.profile.clone(),
            machine: Machine::here()?,
            rivals: programs.lines(),
        })
    }

    fn is_alike(&self, other: &Self) -> bool {
        (&self.commit, self.quick, &self.profile) == (&other.commit, other.quick, &other.profile)
    }
}

/// The commit, with `+` behind it when files that are known to git differ from it.
fn commit(root: &Path) -> String {
    let git = |args: &[&str]| {
        let said = Command::new("git").current_dir(root).args(args).output().ok()?;
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    let changed = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!REPORT.md",
        ":!benches/results",
    ];
    match (git(&["rev-parse", "--short=10", "HEAD"]), git(&changed)) {
        (Some(head), Some(changes)) if changes.is_empty() => head,
        (Some(head), _) => format!("{head}+"),
        (None, _) => "unknown".to_owned(),
    }
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    arm: String,
    round: u32,
    /// Seconds since 1970 at its end.
    at: u64,
    /// How many cells the experiment has in all, in both modes.
    of: usize,
    run: Run,
    /// Which part of all cores' time the machine's host took meanwhile, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stolen: Option<f64>,
    value: Value,
}

/// What came of a cell.
pub(crate) struct Outcome {
    pub(crate) value: Value,
    /// Which part of all cores' time the machine's host took meanwhile, if it is known.
    pub(crate) stolen: Option<f64>,
}

/// All results of one place.
pub(crate) struct Store {
    folder: PathBuf,
    records: BTreeMap<String, Vec<Record>>,
}

impl Store {
    /// Reads what there is.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                records.insert(id.unwrap_or_default(), read(&path)?);
            }
        }
        Ok(Self { folder: folder.to_owned(), records })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.jsonl"))
    }

    /// Whether a cell has a result of a run like this one.
    pub(crate) fn has(&self, id: &str, run: &Run, cell: &Cell) -> bool {
        let is_it = |record: &Record| {
            record.arm == cell.arm && record.round == cell.round && record.run.is_alike(run)
        };
        self.records.get(id).is_some_and(|records| records.iter().any(is_it))
    }

    /// Keeps a result of an experiment that has so many cells.
    pub(crate) fn append(
        &mut self,
        (id, of): (&str, usize),
        run: &Run,
        cell: &Cell,
        Outcome { value, stolen }: Outcome,
    ) -> Result<()> {
        let record = Record {
            arm: cell.arm.clone(),
            round: cell.round,
            at: clock::seconds(),
            of,
            run: run.clone(),
            stolen,
            value,
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        OpenOptions::new().create(true).append(true).open(self.path(id))?.write_all(&line)?;
        self.records.entry(id.to_owned()).or_default().push(record);
        Ok(())
    }

    /// The results of the latest run, and of those like it, that an experiment has.
    pub(crate) fn latest(&self, id: &str) -> Option<Results> {
        let records = self.records.get(id)?;
        let (run, of) = (records.last()?.run.clone(), records.last()?.of);
        let alike = || records.iter().filter(|record| record.run.is_alike(&run));
        let cells = alike().map(|record| (record.arm.clone(), record.value.clone())).collect();
        let stolen = alike().filter_map(|record| record.stolen).collect();
        Some(Results { run, of, cells, stolen })
    }
}

/// Forgets an experiment's results, also such that cannot be read.
pub(crate) fn forget(folder: &Path, id: &str) -> Result<()> {
    match fs::remove_file(folder.join(format!("{id}.jsonl"))) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Reads the lines that are whole, and cuts off a torn one at the end.
fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < bytes.len() {
        eprintln!("report: {}: the last line is torn and dropped", path.display());
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
    }
    let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parse = |(number, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| {
            format!("{}:{}: {error}; `--fresh` forgets it", path.display(), number + 1).into()
        })
    };
    lines.enumerate().map(parse).collect()
}

/// From where on times say more about the neighbours than about what was measured.
const DISTURBED: f64 = 0.02;

/// What one experiment has to write its section from.
pub(crate) struct Results {
    pub(crate) run: Run,
    /// How many cells there would be in all.
    of: usize,
    /// Arm and value, in the order in which they were measured.
    cells: Vec<(String, Value)>,
    /// Of each cell of which it is known.
    stolen: Vec<f64>,
}

impl Results {
    /// Whether no cell is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.cells.len() >= self.of
    }

    /// How many cells there are, for people.
    pub(crate) fn extent(&self) -> String {
        match self.is_complete() {
            true => format!("{} cells", self.of),
            false => format!("**Incomplete**: {} of {} cells", self.cells.len(), self.of),
        }
    }

    /// How much the machine's host took from the cells, for people, if it is known.
    pub(crate) fn disturbance(&self) -> Option<String> {
        let worst = self.stolen.iter().copied().reduce(f64::max)?;
        let mean = self.stolen.iter().sum::<f64>() / self.stolen.len() as f64;
        let taken = format!("{:.1} % of the cores' time", mean * 100.0);
        let worst = match self.stolen.len() {
            1 => String::new(),
            _ => format!(", {:.1} % in the worst cell", worst * 100.0),
        };
        let doubt = if mean > DISTURBED { "**Doubt:** the" } else { "The" };
        Some(format!("{doubt} machine's host took {taken} meanwhile{worst}."))
    }

    /// The arms that have results, in the order of their first.
    pub(crate) fn arms(&self) -> Vec<&str> {
        let mut arms = Vec::new();
        for (arm, _) in &self.cells {
            if !arms.contains(&arm.as_str()) {
                arms.push(arm.as_str());
            }
        }
        arms
    }

    /// The values of an arm, one per round.
    pub(crate) fn of<T: DeserializeOwned>(&self, arm: &str) -> Result<Vec<T>> {
        let values = self.cells.iter().filter(|(of, _)| of == arm);
        let parse = |(arm, value): &(String, Value)| {
            serde_json::from_value(value.clone()).map_err(|error| {
                format!("the result of {arm} cannot be read: {error}; `--fresh` forgets it").into()
            })
        };
        values.map(parse).collect()
    }
}
