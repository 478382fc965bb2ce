//! One file of the crate: its tokens, and which of them are test code or excused from the rule on panics.

use crate::lexer::{Kind, Token, lex};

/// A file, read once, judged by every rule.
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) file: String,
    /// The module that the file is: empty for `lib.rs`.
    pub(crate) module: Vec<String>,
    pub(crate) code: Vec<Token>,
    pub(crate) comments: Vec<Token>,
    /// For each token of `code`: is it compiled for tests only?
    pub(crate) test: Vec<bool>,
    /// For each token of `code`: does an `#[expect]` of clippy's give the reason for a panic?
    pub(crate) excused: Vec<bool>,
}

impl Source {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let (comments, code): (Vec<_>, Vec<_>) =
            lex(text).into_iter().partition(|token| token.kind == Kind::Comment);
        let test = marked(&code, is_test);
        let excused = marked(&code, excuses_panic);
        Self { file: file.to_owned(), module: module(file), code, comments, test, excused }
    }

    /// Does `code` have the words and marks `texts` at `at`?
    pub(crate) fn reads(&self, at: usize, texts: &[&str]) -> bool {
        reads(&self.code, at, texts)
    }

    /// The modules in files of their own that this file declares for tests only.
    fn test_modules(&self) -> impl Iterator<Item = Vec<String>> {
        (0..self.code.len()).filter(|&at| self.test[at] && self.reads(at, &["mod"])).filter_map(
            |at| {
                let name = self.code.get(at + 1)?.text.clone();
                self.reads(at + 2, &[";"]).then(|| [self.module.clone(), vec![name]].concat())
            },
        )
    }
}

/// Marks the files that are modules for tests only, and the files below them.
pub(crate) fn exempt_test_files(sources: &mut [Source]) {
    let modules: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        if modules.iter().any(|module| source.module.starts_with(module)) {
            source.test.fill(true);
        }
    }
}

fn reads(code: &[Token], at: usize, texts: &[&str]) -> bool {
    let tokens = code.get(at..at + texts.len());
    tokens.is_some_and(|tokens| tokens.iter().zip(texts).all(|(token, text)| token.is(text)))
}

fn module(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<_> = path.split('/').map(String::from).collect();
    if matches!(module.last().map(String::as_str), Some("lib" | "mod")) {
        module.pop();
    }
    module
}

/// Marks the items whose attribute `wanted` accepts; an attribute of the file marks the whole file.
fn marked(code: &[Token], wanted: impl Fn(&str) -> bool) -> Vec<bool> {
    let mut marks = vec![false; code.len()];
    for at in 0..code.len() {
        let inner = reads(code, at, &["#", "!", "["]);
        if !inner && !reads(code, at, &["#", "["]) {
            continue;
        }
        let open = at + 1 + usize::from(inner);
        let close = closing(code, open);
        let text: String = code[open + 1..close].iter().map(|token| token.text.as_str()).collect();
        if wanted(&text) {
            let end = if inner { code.len() } else { item_end(code, close + 1) };
            marks[at..end].fill(true);
        }
    }
    marks
}

/// Where the bracket at `open` closes.
fn closing(code: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in code.iter().enumerate().skip(open) {
        depth += nesting(token);
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// Past the item that begins at `start`, perhaps with further attributes: its `;` or the brace that ends it.
fn item_end(code: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in code.iter().enumerate().skip(start) {
        depth += nesting(token);
        if depth < 0 {
            return at;
        }
        if depth == 0 && (token.is(";") || token.is("}")) {
            return at + 1;
        }
    }
    code.len()
}

fn nesting(token: &Token) -> i32 {
    let is_one_of = |marks: [&str; 3]| marks.into_iter().any(|mark| token.is(mark));
    i32::from(is_one_of(["(", "[", "{"])) - i32::from(is_one_of([")", "]", "}"]))
}

/// Is an item with this attribute, written without spaces, compiled for tests only?
fn is_test(attribute: &str) -> bool {
    attribute == "test" || inside(attribute, "cfg").is_some_and(holds_only_in_tests)
}

fn holds_only_in_tests(predicate: &str) -> bool {
    if let Some(all) = inside(predicate, "all") {
        return arguments(all).into_iter().any(holds_only_in_tests);
    }
    if let Some(any) = inside(predicate, "any") {
        return arguments(any).into_iter().all(holds_only_in_tests);
    }
    predicate == "test"
}

fn excuses_panic(attribute: &str) -> bool {
    inside(attribute, "expect").is_some_and(|lints| {
        ["clippy::unwrap_used", "clippy::expect_used"].iter().any(|lint| lints.contains(lint))
    })
}

/// What stands between the parentheses of `name(...)`.
fn inside<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

fn arguments(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let top = list.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    top.filter(|argument| !argument.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Source, is_test, module};

    /// The words of `text` that are not test code.
    fn shipped(text: &str) -> Vec<String> {
        let source = Source::new("src/a.rs", text);
        let kept = source.code.iter().zip(&source.test).filter(|(_, test)| !**test);
        kept.map(|(token, _)| token.text.clone()).filter(|text| text.len() > 1).collect()
    }

    #[test]
    fn a_file_is_a_module() {
        assert!(module("src/lib.rs").is_empty());
        assert_eq!(module("src/error.rs"), ["error"]);
        assert_eq!(module("src/backend/mod.rs"), ["backend"]);
        assert_eq!(module("src/backend/process/spawn.rs"), ["backend", "process", "spawn"]);
    }

    #[test]
    fn an_attribute_can_mean_tests_only() {
        for yes in [
            "test",
            "cfg(test)",
            "cfg(all(loom,test))",
            "cfg(all(test,not(loom)))",
            "cfg(any(test,))",
        ] {
            assert!(is_test(yes), "{yes}");
        }
        for no in [
            "cfg(not(test))",
            "cfg(any(test,loom))",
            "cfg(all(loom,not(test)))",
            "cfg(loom)",
            "tested",
        ] {
            assert!(!is_test(no), "{no}");
        }
    }

    #[test]
    fn a_test_item_ends_where_it_ends() {
        assert_eq!(shipped("#[cfg(test)] mod tests { fn aa() {} } bb"), ["bb"]);
        assert_eq!(
            shipped("#[cfg(test)] #[inline] fn aa(x: [u8; 2]) -> cc { { dd } ee } bb"),
            ["bb"]
        );
        assert_eq!(shipped("#[cfg(test)] use aa::ab; use bb"), ["use", "bb"]);
        assert_eq!(
            shipped("struct aa { bb: cc, #[cfg(test)] dd: ee } ff"),
            ["struct", "aa", "bb", "cc", "ff"]
        );
        assert!(shipped("#![cfg(test)] fn aa() {} bb").is_empty());
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_test_code() {
        let mut sources = [
            Source::new("src/pool/mod.rs", "#[cfg(test)] mod tests; mod queue;"),
            Source::new("src/pool/tests.rs", "fn aa() {}"),
            Source::new("src/pool/tests/deep.rs", "fn aa() {}"),
            Source::new("src/pool/queue.rs", "fn aa() {}"),
        ];
        super::exempt_test_files(&mut sources);
        let tests = sources.map(|source| source.test.iter().all(|test| *test));
        assert_eq!(tests, [false, true, true, false]);
    }
}
