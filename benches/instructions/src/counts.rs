//! The figures, those of the file and those of now, and what is to be said when they differ.

use std::{collections::BTreeMap, fmt::Write as _, fs, process::Command};

use serde::{Deserialize, Serialize};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.json");

/// By how many per cent a figure may grow.
const MARGIN: u64 = 15;

const BLESS: &str = "cd benches/instructions && BIMODAL_BLESS=1 cargo run --release --locked";

/// What was counted, and with what.
#[derive(Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Another compiler makes other code: what to look at first when a figure changes without a reason.
    rustc: String,
    valgrind: String,
    /// By path and mode.
    instructions: BTreeMap<String, u64>,
}

impl Counts {
    /// Those of now.
    pub(crate) fn new(instructions: impl Iterator<Item = (String, u64)>) -> Self {
        Self {
            rustc: version("rustc"),
            valgrind: version("valgrind"),
            instructions: instructions.collect(),
        }
    }

    /// Those of the file.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{FILE}: {error}"))
    }

    /// Makes them those of the file.
    pub(crate) fn write(&self) {
        let text = serde_json::to_string_pretty(self).expect("numbers by name");
        fs::write(FILE, text + "\n").unwrap_or_else(|error| panic!("{FILE}: {error}"));
    }

    /// What is wrong with them, given those of before: nothing, or a text that says how to accept it.
    pub(crate) fn complaints(&self, before: &Self) -> String {
        let mut text = String::new();
        for (path, &now) in &self.instructions {
            let was = before.instructions.get(path).copied();
            if let Some(complaint) = complaint(path, was, now) {
                let _ = writeln!(text, "{complaint}");
            }
        }
        for path in before.instructions.keys().filter(|path| !self.instructions.contains_key(*path))
        {
            let _ = writeln!(text, "{path}: in {FILE}, but it is not measured any more");
        }
        if !text.is_empty() {
            let _ = write!(text, "{}To accept what is:\n    {BLESS}", self.tools_changed(before));
        }
        text
    }

    fn tools_changed(&self, before: &Self) -> String {
        let pairs = [(&before.rustc, &self.rustc), (&before.valgrind, &self.valgrind)];
        let changed = pairs.into_iter().filter(|(before, now)| before != now);
        changed
            .map(|(before, now)| format!("The figures are of {before}; this is {now}.\n"))
            .collect()
    }
}

/// What is wrong with one figure.
fn complaint(path: &str, before: Option<u64>, now: u64) -> Option<String> {
    let Some(before) = before else {
        return Some(format!("{path}: {now} instructions, and {FILE} has no figure for it"));
    };
    let percent = now as f64 / before as f64 * 100.0 - 100.0;
    let change = format!("{path}: {before} instructions before, {now} now ({percent:+.1} %)");
    if now * 100 > before * (100 + MARGIN) {
        return Some(format!("{change}; it may grow by {MARGIN} %"));
    }
    if now * 100 < before * (100 - MARGIN) {
        println!("{change}: so that it stays there,\n    {BLESS}");
    }
    None
}

fn version(program: &str) -> String {
    match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("{program}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, instructions: &[(&str, u64)]) -> Counts {
        let instructions = instructions.iter().map(|(path, count)| (path.to_string(), *count));
        let valgrind = "valgrind-3.19.0".into();
        Counts { rustc: rustc.into(), valgrind, instructions: instructions.collect() }
    }

    #[test]
    fn a_figure_may_grow_by_the_margin_and_no_more() {
        let before = counts("rustc 1", &[("request/thread", 1000)]);
        let complaints = |now| counts("rustc 1", &[("request/thread", now)]).complaints(&before);
        assert_eq!(complaints(1150), "");
        assert_eq!(complaints(100), "");
        let text = complaints(1151);
        let change = "request/thread: 1000 instructions before, 1151 now (+15.1 %)";
        assert!(text.contains(change) && text.contains(BLESS), "{text}");
    }

    #[test]
    fn a_figure_without_another_is_a_complaint() {
        let (few, more) = (counts("a", &[("b", 1)]), counts("a", &[("b", 1), ("c", 1)]));
        assert!(few.complaints(&more).contains("c: in "));
        assert!(more.complaints(&few).contains("c: 1 instructions, and "));
    }

    #[test]
    fn another_compiler_is_named_where_something_is_wrong() {
        let before = counts("rustc 1", &[("b", 100)]);
        assert_eq!(counts("rustc 2", &[("b", 100)]).complaints(&before), "");
        let text = counts("rustc 2", &[("b", 200)]).complaints(&before);
        assert!(text.contains("The figures are of rustc 1; this is rustc 2."), "{text}");
    }
}
