//! REPORT.md, from the sections and from what was run.

use std::fmt::Write as _;

use crate::{
    Places, Result,
    chart::Charts,
    clock,
    experiment::Experiment,
    results::{Results, Run, Store},
    section::{Bar, Decision, Section},
};

const HEAD: &str = include_str!("notes/head.md");
const THREATS: &str = include_str!("notes/threats.md");

/// One experiment with what it has.
struct Part<'a> {
    experiment: &'a dyn Experiment,
    found: Option<(Section, Results)>,
}

/// Writes the charts, and the report beside them.
pub(crate) fn write(all: &[Box<dyn Experiment>], store: &Store, places: &Places) -> Result<()> {
    let charts = Charts::new(&places.results);
    let mut parts = Vec::new();
    for experiment in all {
        let found = match store.latest(experiment.id()) {
            Some(results) => {
                let section = experiment
                    .section(&results, &charts)
                    .map_err(|error| format!("the section {}: {error}", experiment.id()))?;
                Some((whole(section, &results), results))
            }
            None => None,
        };
        parts.push(Part { experiment: experiment.as_ref(), found });
    }
    std::fs::write(&places.report, text(&parts, places.link))?;
    if let Some(readme) = &places.readme {
        std::fs::write(readme, with_table(&std::fs::read_to_string(readme)?, &parts)?)?;
    }
    Ok(())
}

/// Where the README has the table of decisions.
const MARKERS: [&str; 2] = ["<!-- decision-table -->\n", "<!-- /decision-table -->"];

/// The README with the decisions that there are now.
fn with_table(readme: &str, parts: &[Part<'_>]) -> Result<String> {
    let missing = || format!("README.md has no {} ... {}", MARKERS[0].trim(), MARKERS[1]);
    let (before, rest) = readme.split_once(MARKERS[0]).ok_or_else(missing)?;
    let (_, after) = rest.split_once(MARKERS[1]).ok_or_else(missing)?;
    let mut table = String::from("| need | mode | scheduling | measured in |\n|---|---|---|---|\n");
    for (id, row) in each(parts, |section| &section.decisions) {
        let Decision { need, mode, scheduling, .. } = row;
        let link = format!("[{id}](REPORT.md#{})", id.to_lowercase());
        let _ = writeln!(table, "| {need} | {mode} | {scheduling} | {link} |");
    }
    Ok([before, MARKERS[0], &table, MARKERS[1], after].concat())
}

fn text(parts: &[Part<'_>], link: &str) -> String {
    let mut text = String::from(HEAD);
    text += &runs(parts);
    text += &bars(parts);
    text += &decisions(parts);
    for part in parts {
        text += &section(part, link);
    }
    text + THREATS
}

/// A section of which cells are missing decides nothing.
fn whole(mut section: Section, results: &Results) -> Section {
    if !results.is_complete() {
        section.decisions.clear();
        section.bars.iter_mut().for_each(|bar| bar.met = None);
    }
    section
}

/// Where the figures come from: every run with its experiments.
fn runs(parts: &[Part<'_>]) -> String {
    let mut runs: Vec<(&Run, Vec<&str>)> = Vec::new();
    for part in parts {
        let Some((_, Results { run, .. })) = &part.found else { continue };
        let id = part.experiment.id();
        match runs.iter_mut().find(|(other, _)| other.at == run.at) {
            Some((_, ids)) => ids.push(id),
            None => runs.push((run, vec![id])),
        }
    }
    let mut text = String::from("\n## Where the figures come from\n\n");
    if runs.is_empty() {
        text += "Nothing was run yet.\n";
    }
    for (run, ids) in runs {
        let quick = if run.quick { ", **quick: not to be quoted**" } else { "" };
        let (date, machine) = (clock::date(run.at), run.machine.line());
        let (commit, profile) = (&run.commit, &run.profile);
        text += &format!(
            "* {}: {date}, commit `{commit}`, profile `{profile}`{quick}. {machine}. Rivals: {}.\n",
            ids.join(", "),
            run.rivals.join("; ")
        );
    }
    text
}

/// Every aim, with what came out.
fn bars(parts: &[Part<'_>]) -> String {
    let mut text = String::from("\n## Aims\n\n| aim | measured | | where |\n|---|---|---|---|\n");
    for (id, bar) in each(parts, |section| &section.bars) {
        let Bar { aim, measured, met } = bar;
        let met = match met {
            Some(true) => "met",
            Some(false) => "**not met**",
            None => "not decided",
        };
        let _ = writeln!(text, "| {aim} | {measured} | {met} | {} |", anchor(id));
    }
    text
}

fn decisions(parts: &[Part<'_>]) -> String {
    let mut text = String::from("\n## Which mode, which scheduling\n\n");
    text += "What depends on figures is chosen from those below.\n\n";
    text += "| need | mode | scheduling | why | where |\n|---|---|---|---|---|\n";
    for (id, row) in each(parts, |section| &section.decisions) {
        let Decision { need, mode, scheduling, why } = row;
        let _ = writeln!(text, "| {need} | {mode} | {scheduling} | {why} | {} |", anchor(id));
    }
    text
}

/// What all sections have of one kind, with the name of each one's experiment.
fn each<'a, T: 'a>(
    parts: &'a [Part<'_>],
    of: impl Fn(&'a Section) -> &'a Vec<T>,
) -> impl Iterator<Item = (&'static str, &'a T)> {
    parts.iter().flat_map(move |part| {
        let section = part.found.as_ref().map(|(section, _)| section);
        let all = section.map(&of).into_iter().flatten();
        all.map(|one| (part.experiment.id(), one))
    })
}

fn anchor(id: &str) -> String {
    format!("[{id}](#{})", id.to_lowercase())
}

fn section(part: &Part<'_>, link: &str) -> String {
    let (id, mut text) = (part.experiment.id(), String::new());
    let _ = writeln!(text, "\n<a id=\"{}\"></a>\n", id.to_lowercase());
    let _ =
        writeln!(text, "## {id}. {}\n\n{}", part.experiment.title(), part.experiment.question());
    let Some((section, results)) = &part.found else {
        return text + "\nNot run.\n";
    };
    let _ = writeln!(text, "\n{}\n", section.setup);
    let run = &results.run;
    let quick = if run.quick { " --quick" } else { "" };
    let _ =
        writeln!(text, "```sh\ncargo run --release --example report -- --only {id}{quick}\n```");
    let _ = writeln!(text, "\n{}, commit `{}`.", results.extent(), run.commit);
    if let Some(disturbance) = results.disturbance() {
        let _ = writeln!(text, "{disturbance}");
    }
    for table in &section.tables {
        let _ = write!(text, "\n{}", table.markdown());
    }
    for chart in &section.charts {
        let _ = write!(text, "\n![{}]({link}{})\n", chart.shows, chart.file);
    }
    list(&mut text, "What it means", &section.meaning);
    list(&mut text, "What would overturn it", &section.overturn);
    if !section.notes.is_empty() {
        let _ = write!(text, "\n{}", section.notes);
    }
    text
}

fn list(text: &mut String, title: &str, entries: &[String]) {
    if !entries.is_empty() {
        let _ = writeln!(text, "\n**{title}**\n");
        entries.iter().for_each(|entry| *text += &format!("* {entry}\n"));
    }
}
