//! The rules besides the layers: what only one place may do, and what no file may hold.

use std::collections::BTreeSet;
use std::fmt;

use crate::lexer::{Kind, Token};
use crate::paths::paths;
use crate::source::Source;

/// A rule that a line breaks.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    remedy: String,
}

impl Finding {
    pub(crate) fn new(source: &Source, line: usize, rule: &'static str, remedy: String) -> Self {
        Self { file: source.file.clone(), line, rule, remedy }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.remedy)
    }
}

/// Applies every rule of this module.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let mut find = |lines: BTreeSet<usize>, rule, remedy: &str| {
        let found = lines.into_iter().map(|line| Finding::new(source, line, rule, remedy.into()));
        findings.extend(found);
    };
    if source.module.first().is_none_or(|top| top != "sys") {
        let lines = lines(source, |at| source.reads(at, &["unsafe"]));
        find(
            lines,
            "unsafe",
            "only `sys` may be unsafe: put the call there, behind a safe function",
        );
    }
    if source.module != ["clock"] {
        find(clock_reads(source), "clock", "only `clock` reads time: call `crate::clock::now()`");
    }
    let sleeps = calls(source, "thread", "sleep");
    find(
        sleeps,
        "sleep",
        "a sleeping thread serves nobody: wait for the condition with a deadline",
    );
    find(
        tickets(source),
        "ticket",
        "say what holds now; plans and ticket numbers go to the tracker",
    );
    let remedy = "return an error, or give the local reason in a comment on the line above or in `#[expect(...)]`";
    find(panics(source), "panic", remedy);
}

fn lines(source: &Source, wanted: impl Fn(usize) -> bool) -> BTreeSet<usize> {
    (0..source.code.len()).filter(|&at| wanted(at)).map(|at| source.code[at].line).collect()
}

/// Where a path has the segments `owner::name`, in use items too.
fn calls(source: &Source, owner: &str, name: &str) -> BTreeSet<usize> {
    let found = paths(source)
        .into_iter()
        .filter(|path| path.segments.windows(2).any(|pair| pair == [owner, name]));
    found.map(|path| path.line).collect()
}

fn clock_reads(source: &Source) -> BTreeSet<usize> {
    let mut found = lines(source, |at| source.reads(at, &[".", "elapsed", "("]));
    found.extend(calls(source, "Instant", "now"));
    found.extend(calls(source, "SystemTime", "now"));
    found
}

fn tickets(source: &Source) -> BTreeSet<usize> {
    let literals = source.code.iter().filter(|token| token.kind == Kind::Literal);
    let prose = source.comments.iter().chain(literals).filter(|token| has_plan(&token.text));
    let numbered = source.comments.iter().filter(|token| has_number(&token.text));
    prose.chain(numbered).map(|token| token.line).collect()
}

fn has_plan(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| ["TODO", "FIXME", "XXX"].contains(&word))
}

fn has_number(text: &str) -> bool {
    text.split('#').skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
}

/// Calls that panic, outside tests, whose reason nobody gives.
fn panics(source: &Source) -> BTreeSet<usize> {
    let reasons = reason_lines(source);
    lines(source, |at| {
        let panics =
            source.reads(at, &[".", "unwrap", "(", ")"]) || source.reads(at, &[".", "expect", "("]);
        let begins = source.code[statement_start(&source.code, at)].line;
        let reasoned =
            [source.code[at].line, begins].iter().any(|line| reasons.contains(&(line - 1)));
        panics && !source.test[at] && !source.excused[at] && !reasoned
    })
}

/// The lines that hold a plain comment and nothing else: documentation is for the caller and gives no local reason.
fn reason_lines(source: &Source) -> BTreeSet<usize> {
    let coded: BTreeSet<_> = source.code.iter().map(|token| token.line).collect();
    let plain = source.comments.iter().filter(|token| !is_documentation(token));
    plain.map(|token| token.line).filter(|line| !coded.contains(line)).collect()
}

fn is_documentation(comment: &Token) -> bool {
    ["///", "//!", "/**", "/*!"].iter().any(|opening| comment.text.starts_with(opening))
}

fn statement_start(code: &[Token], at: usize) -> usize {
    let ends = |token: &Token| [";", "{", "}"].iter().any(|mark| token.is(mark));
    code[..at].iter().rposition(ends).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use crate::findings;

    fn found(file: &str, text: &str) -> Vec<String> {
        findings(&[(file, text)])
    }

    /// `rule` finds each of `bad` once in `src/pool/a.rs`, and nothing is found in any of `good`.
    fn tell_apart(rule: &str, bad: &[&str], good: &[&str]) {
        for text in bad {
            let lines = text.lines().count();
            assert_eq!(
                found("src/pool/a.rs", text),
                [format!("src/pool/a.rs:{lines} {rule}")],
                "{text}"
            );
        }
        for text in good {
            assert!(found("src/pool/a.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn unsafe_belongs_to_sys() {
        let bad = [
            "unsafe { f() }",
            "\nunsafe impl Send for X {}",
            "#[cfg(test)]\nfn f() { unsafe { g() } }",
        ];
        let good = ["// unsafe", "\"unsafe\"", "#![allow(unsafe_code)]", "/* unsafe */ safe()"];
        tell_apart("unsafe", &bad, &good);
        assert!(found("src/sys/epoll.rs", bad[0]).is_empty());
    }

    #[test]
    fn time_is_read_by_clock() {
        let bad = [
            "let t = Instant::now();",
            "let t =\n    std::time::SystemTime::now();",
            "let d = start.elapsed();",
            "#[cfg(test)]\nfn f() { Instant::now(); }",
            "let f = Instant::now;",
        ];
        let good = ["clock::now()", "// Instant::now()", "now.elapsed", "Instant::nowhere()"];
        tell_apart("clock", &bad, &good);
        assert!(found("src/clock.rs", bad[0]).is_empty());
        assert_eq!(found("src/pool/clock.rs", bad[0]), ["src/pool/clock.rs:1 clock"]);
    }

    #[test]
    fn nobody_sleeps() {
        let bad = [
            "std::thread::sleep(d);",
            "thread::sleep(d);",
            "use std::thread::{self, Builder, sleep};",
            "use std::{thread::sleep as nap};",
            "#[cfg(test)]\nfn f() { thread::sleep(d) }",
        ];
        tell_apart("sleep", &bad, &["timer::sleep(d).await", "// thread::sleep", "thread::park()"]);
    }

    #[test]
    fn no_ticket_is_mentioned() {
        let bad = [
            "// see #12",
            "/// TODO: later",
            "/*\n FIXME */",
            "//! (XXX)",
            "f(\"TODO\");",
            "f(); // fixes #1",
        ];
        let good =
            ["// worker 12", "r#\"#1\"#", "/// `#[inline]`", "// XXXXXX TODOS", "let todo = 1;"];
        tell_apart("ticket", &bad, &good);
    }

    #[test]
    fn a_panic_has_its_reason() {
        let bad = [
            "a.unwrap();",
            "a\n    .b()\n    .expect(\"c\");",
            "/// Documentation.\nfn f() { a.unwrap() }",
            "// Too far away.\nlet b = 1;\na.unwrap();",
            "g(); // Beside something else.\na.unwrap();",
            "#[expect(dead_code)]\nfn f() { a.unwrap() }",
            "#[expect(clippy::unwrap_used, reason = \"r\")]\nfn f() { a.unwrap() }\nfn g() { a.unwrap() }",
            "#[cfg(not(test))]\nfn f() { a.unwrap() }",
        ];
        let good = [
            "// The local reason.\na.unwrap();",
            "// The local reason.\nlet b = a\n    .c()\n    .expect(\"d\");",
            "a.b()\n    // The local reason.\n    .expect(\"d\");",
            "#[expect(clippy::expect_used, reason = \"r\")]\nfn f() { g(); a.expect(\"b\") }",
            "#[cfg(test)]\nmod tests { fn f() { a.unwrap() } }",
            "a.unwrap_or(b); a.expect_err; a.unwrap_or_default(); \"a.unwrap()\"",
        ];
        tell_apart("panic", &bad, &good);
    }

    #[test]
    fn a_finding_names_place_rule_and_remedy() {
        let source = crate::source::Source::new("src/pool/a.rs", "\na.unwrap()");
        let mut findings = Vec::new();
        super::check(&source, &mut findings);
        let text = findings.iter().map(ToString::to_string).collect::<String>();
        assert!(
            text.starts_with("src/pool/a.rs:2: panic: return an error, or give the local reason"),
            "{text}"
        );
    }
}
