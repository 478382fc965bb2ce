//! `tests/NODE.md`: every row, what becomes of it in each mode, and the scenarios that prove it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use bimodal::Mode;
use libtest_mimic::{Failed, Trial};

use super::{Cell, Importance, Row, SECTIONS};
use crate::support::{BOTH, Scenario};

/// Whether a core row without a proof is a failure, beside being visible in the table.
const CORE_ROWS_MUST_BE_PROVEN: bool = true;

const COMMAND: &str = "BIMODAL_BLESS=1 cargo test --all-features --test parity -- node_rows";

const INTRODUCTION: &str = "\
# Node's behaviours, and the tests that prove them here

What Node's `cluster` and `worker_threads` do, row by row, in this crate's words; whether it holds in each mode; and the
scenarios of `tests/parity` that prove it. What only had to be written down names its file and a phrase that must be in it.
A mode that must hold and has no proof says **missing**.
";

/// The check that the table says what the tests do. With `BIMODAL_BLESS` set it writes the table.
pub fn check(scenarios: Vec<&'static Scenario>) -> Trial {
    Trial::test("the_table_of_node_rows_is_up_to_date", move || {
        let proofs = Proofs::of(&scenarios);
        let findings = findings(&scenarios, &proofs);
        if findings.is_empty() { compare(&text(&proofs)) } else { Err(findings.join("\n").into()) }
    })
}

fn compare(text: &str) -> Result<(), Failed> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/NODE.md");
    if std::env::var_os("BIMODAL_BLESS").is_some() {
        return Ok(fs::write(file, text)?);
    }
    if fs::read_to_string(file).is_ok_and(|found| found == text) {
        return Ok(());
    }
    Err(format!("tests/NODE.md is not what the tests say. Write it anew: {COMMAND}").into())
}

/// The names of the scenarios that prove a row in a mode.
struct Proofs(BTreeMap<(&'static str, &'static str), Vec<&'static str>>);

impl Proofs {
    fn of(scenarios: &[&'static Scenario]) -> Self {
        let mut proofs = Self(BTreeMap::new());
        for scenario in scenarios {
            for (mode, row) in proven_by(scenario) {
                proofs.0.entry((row, name(mode))).or_default().push(scenario.name);
            }
        }
        proofs
    }

    fn names(&self, row: &Row, mode: Mode) -> &[&'static str] {
        self.0.get(&(row.id, name(mode))).map_or(&[], Vec::as_slice)
    }

    fn is_missing(&self, row: &Row, mode: Mode) -> bool {
        must_hold(row, mode) && self.names(row, mode).is_empty() && !row.cell(mode).is_written()
    }
}

fn proven_by(scenario: &Scenario) -> impl Iterator<Item = (Mode, &'static str)> + '_ {
    scenario.modes.iter().flat_map(|mode| scenario.rows_in(*mode).map(|row| (*mode, row)))
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Process => "process",
        Mode::Thread => "thread",
    }
}

fn must_hold(row: &Row, mode: Mode) -> bool {
    !matches!(row.cell(mode), Cell::No(_))
}

fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|(_, rows)| *rows)
}

/// What contradicts itself: names that are used twice, rows that do not exist, proofs of what does
/// not hold.
fn findings(scenarios: &[&'static Scenario], proofs: &Proofs) -> Vec<String> {
    let mut findings = Vec::new();
    let ids = rows().map(|row| row.id).collect::<Vec<_>>();
    findings.extend(twice(&ids).map(|id| format!("the row {id} is there twice")));
    let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
    findings.extend(twice(&names).map(|name| format!("two scenarios are named {name}")));
    for ((id, mode), names) in &proofs.0 {
        match rows().find(|row| row.id == *id) {
            None => findings.push(format!("{names:?} prove {id}, which is no row")),
            Some(row) => findings.extend(contradiction(row, mode, names)),
        }
    }
    if CORE_ROWS_MUST_BE_PROVEN {
        findings.extend(unproven(proofs));
    }
    findings
}

fn twice<'a>(names: &'a [&'static str]) -> impl Iterator<Item = &'static str> + 'a {
    let mut seen = BTreeSet::new();
    names.iter().copied().filter(move |name| !seen.insert(*name))
}

fn contradiction(row: &Row, mode: &str, names: &[&str]) -> Option<String> {
    let mode: Mode = mode.parse().ok()?;
    let Cell::No(reason) = row.cell(mode) else { return None };
    Some(format!(
        "{names:?} prove {} in mode {mode}, where it does not hold ({reason}): correct the row, or \
         say `proves_in`",
        row.id
    ))
}

fn unproven(proofs: &Proofs) -> impl Iterator<Item = String> + '_ {
    let core = rows().filter(|row| row.importance == Importance::Core);
    core.flat_map(|row| BOTH.iter().map(move |mode| (row, *mode)))
        .filter(|(row, mode)| proofs.is_missing(row, *mode))
        .map(|(row, mode)| format!("no scenario proves {} in mode {mode}: {}", row.id, row.claim))
}

fn text(proofs: &Proofs) -> String {
    let mut text = INTRODUCTION.to_owned();
    // Writing to a string cannot fail.
    let _ =
        write!(text, "\nGenerated, and checked by a test: `{COMMAND}`\n\n{}\n", summary(proofs));
    for (title, rows) in SECTIONS {
        let _ = write!(text, "\n## {title}\n\n");
        text += "| row | | claim | Process | Thread | tests |\n|---|---|---|---|---|---|\n";
        rows.iter().for_each(|row| text += &line(row, proofs));
    }
    text
}

fn summary(proofs: &Proofs) -> String {
    let core = rows().filter(|row| row.importance == Importance::Core).count();
    let all = rows().count();
    let mut text = format!("**{all} rows**: {core} core, {} nice.", all - core);
    for mode in BOTH {
        let required: Vec<_> = rows().filter(|row| must_hold(row, *mode)).collect();
        let missing: Vec<_> = required.iter().filter(|row| proofs.is_missing(row, *mode)).collect();
        let core = missing.iter().filter(|row| row.importance == Importance::Core).count();
        let proven = required.len() - missing.len();
        let _ = write!(
            text,
            "\n**{mode}**: {proven} of {} proven, {} missing ({core} of them core).",
            required.len(),
            missing.len(),
        );
    }
    text
}

fn line(row: &Row, proofs: &Proofs) -> String {
    let cell = |mode| match row.cell(mode) {
        Cell::Holds if proofs.is_missing(row, mode) => "**missing**".to_owned(),
        cell if proofs.is_missing(row, mode) => format!("**missing**; {cell}"),
        cell => cell.to_string(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} |\n",
        row.id,
        row.importance,
        row.claim,
        cell(Mode::Process),
        cell(Mode::Thread),
        tests(row, proofs)
    )
}

/// The scenarios that prove a row; those of one mode say which.
fn tests(row: &Row, proofs: &Proofs) -> String {
    let [process, thread] = [Mode::Process, Mode::Thread].map(|mode| proofs.names(row, mode));
    let in_process = process.iter().map(|name| {
        let only = if thread.contains(name) { "" } else { " (process)" };
        format!("`{name}`{only}")
    });
    let in_thread = thread.iter().filter(|name| !process.contains(name));
    let in_thread = in_thread.map(|name| format!("`{name}` (thread)"));
    in_process.chain(in_thread).collect::<Vec<_>>().join(", ")
}
