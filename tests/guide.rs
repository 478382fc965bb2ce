//! Holds the guide together: the front page leads to every chapter, in order, each chapter leads to the next, ends with
//! questions that have answers, has a snippet that is compiled and a bearable length, and every correction names its source.
//!
//! That the snippets run, the doctests see to; that links between items hold, rustdoc does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

/// Lines of a chapter, shortest and longest. The appendix is a table, and may be what it is.
const LINES: std::ops::RangeInclusive<usize> = 100..=260;

/// Questions of a chapter.
const QUESTIONS: std::ops::RangeInclusive<usize> = 3..=6;

/// What a source names: a manual page, a standard, a documentation, a file of somebody's source.
const SOURCES: [&str; 9] =
    ["documentation", "RFC ", "lib/", ".js`", "(2)", "(3)", "(5)", "(7)", "the snippet itself"];

struct Chapter {
    file: String,
    module: String,
    text: String,
}

fn guide() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide"))
}

/// All chapters but the front page, in order.
fn chapters() -> Vec<Chapter> {
    let mut files: Vec<String> = fs::read_dir(guide())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "00_front.md")
        .collect();
    files.sort();
    files.into_iter().map(chapter).collect()
}

fn chapter(file: String) -> Chapter {
    let text = fs::read_to_string(guide().join(&file)).unwrap();
    let module = file.trim_end_matches(".md")[3..].to_string();
    Chapter { file, module, text }
}

#[test]
fn the_front_page_leads_to_every_chapter_in_order() {
    let front = fs::read_to_string(guide().join("00_front.md")).unwrap();
    let table: Vec<_> = front.lines().filter(|line| line.contains("](crate::guide::")).collect();
    let chapters = chapters();
    assert!(chapters.len() >= 17, "only {} chapters", chapters.len());
    for (row, chapter) in table.iter().zip(&chapters) {
        let link = format!("(crate::guide::{})", chapter.module);
        assert!(row.contains(&link), "the front page has {row:?} where {link} should be");
        let [_, _, _, line, _] = cells(row)[..] else { panic!("not a row of three: {row:?}") };
        assert!(!line.is_empty(), "{} has no line on the front page", chapter.file);
    }
}

#[test]
fn every_chapter_is_a_module() {
    let modules = fs::read_to_string(guide().join("mod.rs")).unwrap();
    for Chapter { file, module, .. } in chapters() {
        let lines = format!("#[doc = include_str!(\"{file}\")]\npub mod {module} {{}}");
        assert!(modules.contains(&lines), "src/guide/mod.rs lacks\n{lines}");
    }
}

#[test]
fn every_chapter_leads_to_the_next() {
    let chapters = chapters();
    for (chapter, next) in chapters.iter().zip(&chapters[1..]) {
        let last = chapter.text.trim_end().lines().last().unwrap();
        let link = format!("(crate::guide::{})", next.module);
        let leads = last.starts_with("Next: ") && last.contains(&link);
        assert!(leads, "{} ends with {last:?}, not with a link to {link}", chapter.file);
    }
}

#[test]
fn every_chapter_ends_with_questions() {
    for Chapter { file, text, .. } in chapters() {
        let (_, asked) = text.split_once("\n# Questions\n").expect(&file);
        assert!(!asked.contains("\n# "), "{file}: the questions are not the last section");
        let questions: Vec<_> = asked.split("<details><summary>").skip(1).collect();
        assert!(QUESTIONS.contains(&questions.len()), "{file} has {} questions", questions.len());
        for question in questions {
            let (question, rest) = question.split_once("</summary>\n\n").expect(&file);
            let (answer, _) = rest.split_once("\n\n</details>\n").expect(&file);
            assert!(!question.is_empty() && answer.len() > 20, "{file}: {question:?}: {answer:?}");
        }
    }
}

#[test]
fn every_chapter_has_a_snippet_that_is_compiled_and_a_bearable_length() {
    for Chapter { file, text, .. } in chapters() {
        let lines = text.lines().count();
        assert!(LINES.contains(&lines), "{file} has {lines} lines, not {LINES:?}");
        let fences: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("```")).collect();
        let mut opened = fences.iter().step_by(2); // each second fence closes
        assert!(opened.any(|kind| ["", "no_run"].contains(kind)), "{file} has no snippet in Rust");
    }
}

#[test]
fn every_correction_names_its_source() {
    let text = fs::read_to_string(guide().join("17_corrections.md")).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    let rows: Vec<_> = rows.into_iter().filter(|row| !row.starts_with("|---")).collect();
    let (headings, claims): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.starts_with("| what is written "));
    assert!(headings.len() >= 6 && claims.len() >= 40, "{} claims", claims.len());
    for row in claims {
        let [_, claim, truth, source, _, _] = cells(row)[..] else {
            panic!("not a row of claim, truth, source and how to see it: {row:?}")
        };
        assert!(!claim.is_empty() && !truth.is_empty(), "{row:?}");
        assert!(SOURCES.iter().any(|kind| source.contains(kind)), "no source: {row:?}");
    }
}

/// The cells of a row of a table, with what is outside of its first and last bar.
fn cells(row: &str) -> Vec<&str> {
    row.split('|').map(str::trim).collect()
}
