//! Reads every file under `src/` and fails on what the compiler cannot see: an arrow between layers that runs up or
//! sideways, and what only one place may do. Every finding names its file, line, rule and remedy.
//!
//! `tidy/lexer.rs` cuts source into tokens, `tidy/source.rs` knows what is test code, `tidy/paths.rs` resolves paths,
//! `tidy/layers.rs` holds the table of layers, `tidy/rules.rs` the rest.

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use source::Source;

#[test]
fn the_source_keeps_its_rules() {
    let mut sources = Vec::new();
    read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), "src", &mut sources);
    assert!(sources.iter().any(|source| source.file == "src/lib.rs"), "no source was read");
    let findings: Vec<_> = check(sources).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

fn check(mut sources: Vec<Source>) -> Vec<rules::Finding> {
    source::exempt_test_files(&mut sources);
    let exports = paths::exports(&sources);
    let mut findings = Vec::new();
    for source in &sources {
        layers::check(source, &exports, &mut findings);
        rules::check(source, &mut findings);
    }
    findings
}

fn read(directory: &Path, name: &str, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            read(&path, &name, sources);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            sources.push(Source::new(&name, &text));
        }
    }
}

/// What the rules find in files given as `(name, text)`, as `file:line rule`.
#[cfg(test)]
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let sources = files.iter().map(|(name, text)| Source::new(name, text)).collect();
    let findings = check(sources);
    findings.iter().map(|each| format!("{}:{} {}", each.file, each.line, each.rule)).collect()
}
