//! Finds every path in a file, in use items and elsewhere, and resolves it from the crate's root.

use std::collections::BTreeMap;

use crate::lexer::{Kind, Token};
use crate::source::Source;

/// A path as it is written, a use tree taken apart.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    /// What a use item calls it here.
    name: String,
    pub(crate) line: usize,
    pub(crate) test: bool,
    /// The inline modules around it.
    inside: Vec<String>,
}

impl Path {
    /// The segments after the crate's root; `None` for a path that begins with a crate or a local name.
    pub(crate) fn resolve(&self, module: &[String]) -> Option<Vec<String>> {
        let mut base = [module, &self.inside].concat();
        let mut rest = self.segments.as_slice();
        match rest.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            _ => return None,
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

/// The names that `lib.rs` re-exports, with the module that owns each.
pub(crate) fn exports(sources: &[Source]) -> BTreeMap<String, String> {
    let root = sources.iter().filter(|source| source.module.is_empty());
    root.flat_map(paths)
        .filter_map(|path| {
            let segments = path.resolve(&[]).unwrap_or_else(|| path.segments.clone());
            (segments.len() > 1).then(|| (path.name, segments[0].clone()))
        })
        .collect()
}

/// Every path of two segments or more, and every path of a use item.
pub(crate) fn paths(source: &Source) -> Vec<Path> {
    let mut walk = Walk { source, at: 0, depth: 0, modules: Vec::new(), paths: Vec::new() };
    while walk.at < source.code.len() {
        walk.step();
    }
    walk.paths
}

struct Walk<'a> {
    source: &'a Source,
    at: usize,
    depth: usize,
    /// The inline modules that are open, with the depth outside each.
    modules: Vec<(usize, String)>,
    paths: Vec<Path>,
}

impl Walk<'_> {
    fn step(&mut self) {
        let token = &self.source.code[self.at];
        if token.is("{") {
            self.open();
        } else if token.is("}") {
            self.close();
        } else if token.is("use") && !self.source.reads(self.at + 1, &["<"]) {
            self.at += 1;
            self.tree(&[]);
            return;
        } else if token.kind == Kind::Word && self.source.reads(self.at + 1, &["::"]) {
            self.inline();
            return;
        }
        self.at += 1;
    }

    fn open(&mut self) {
        if self.at >= 2 && self.source.reads(self.at - 2, &["mod"]) {
            self.modules.push((self.depth, self.source.code[self.at - 1].text.clone()));
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.modules.pop_if(|(outside, _)| *outside == self.depth);
    }

    /// A path outside a use item: words with `::` between them.
    fn inline(&mut self) {
        let start = self.at;
        let mut segments = vec![self.text()];
        while self.is("::") && self.source.code.get(self.at + 1).is_some_and(is_word) {
            self.at += 1;
            segments.push(self.text());
        }
        // A turbofish leaves its `::` behind; the generic arguments are walked as paths of their own.
        if segments.len() > 1 {
            self.record(segments, start);
        }
    }

    /// One branch of a use tree, below `prefix`.
    fn tree(&mut self, prefix: &[String]) {
        let start = self.at;
        let mut segments = prefix.to_vec();
        loop {
            if self.is("::") {
                self.at += 1;
            } else if self.is("{") {
                return self.branches(&segments);
            } else if self.is("*") || self.source.code.get(self.at).is_some_and(is_word) {
                segments.push(self.text());
                if !self.is("::") {
                    break;
                }
            } else {
                return;
            }
        }
        self.record(segments, start);
        if self.is("as")
            && let (Some(alias), Some(path)) =
                (self.source.code.get(self.at + 1), self.paths.last_mut())
        {
            path.name.clone_from(&alias.text);
            self.at += 2;
        }
    }

    fn branches(&mut self, prefix: &[String]) {
        self.at += 1;
        while self.at < self.source.code.len() && !self.is("}") {
            let before = self.at;
            self.tree(prefix);
            // A comma, or something that no use tree has.
            self.at += usize::from(self.is(",") || self.at == before);
        }
        self.at += 1;
    }

    fn record(&mut self, segments: Vec<String>, start: usize) {
        let name = segments.last().cloned().unwrap_or_default();
        let (line, test) = (self.source.code[start].line, self.source.test[start]);
        let inside = self.modules.iter().map(|(_, name)| name.clone()).collect();
        self.paths.push(Path { segments, name, line, test, inside });
    }

    fn is(&self, text: &str) -> bool {
        self.source.reads(self.at, &[text])
    }

    /// Takes the token at hand.
    fn text(&mut self) -> String {
        self.at += 1;
        self.source.code[self.at - 1].text.clone()
    }
}

fn is_word(token: &Token) -> bool {
    token.kind == Kind::Word
}

#[cfg(test)]
mod tests {
    use super::{Source, exports, paths};

    fn written(text: &str) -> Vec<String> {
        paths(&Source::new("src/a.rs", text)).iter().map(|path| path.segments.join("::")).collect()
    }

    fn resolved(file: &str, text: &str) -> Vec<Option<String>> {
        let source = Source::new(file, text);
        let resolve = |path: &super::Path| path.resolve(&source.module);
        paths(&source).iter().map(|path| resolve(path).map(|path| path.join("::"))).collect()
    }

    #[test]
    fn a_use_tree_is_taken_apart() {
        let text = "pub use a::{self, b::{c as d, *}, e}; use f; use ::g::h as i; use {j, k::l};";
        let want = ["a::self", "a::b::c", "a::b::*", "a::e", "f", "g::h", "j", "k::l"];
        assert_eq!(written(text), want);
    }

    #[test]
    fn inline_paths_are_found() {
        let text = "fn f(x: &crate::a::B) -> impl C + use<'_> { d::e::<super::g::H>(x.y::<i::J>()) } pub(crate) fn k() {}";
        assert_eq!(written(text), ["crate::a::B", "d::e", "super::g::H", "i::J"]);
        assert_eq!(written("$crate::a::b!(\"crate::no\") // crate::no"), ["crate::a::b"]);
    }

    #[test]
    fn paths_resolve_from_the_root() {
        let text = "use crate::x::Y; use super::z; use super::super::w; use self::v; use std::io;";
        let want = [Some("x::Y"), Some("a::z"), Some("w"), Some("a::b::v"), None];
        assert_eq!(resolved("src/a/b.rs", text), want.map(|path| path.map(String::from)));
    }

    #[test]
    fn an_inline_module_is_a_level() {
        let text = "mod m { use super::n; mod o { super::super::p::q(); } } use super::r;";
        let want = ["a::n", "a::p::q", "r"].map(|path| Some(path.to_owned()));
        assert_eq!(resolved("src/a.rs", text), want);
    }

    #[test]
    fn the_root_tells_who_owns_its_names() {
        let root = "pub use error::{Error, Result as Outcome}; pub use crate::id::Slot; mod pool;";
        let exports =
            exports(&[Source::new("src/lib.rs", root), Source::new("src/a.rs", "use b::C;")]);
        let want = [("Error", "error"), ("Outcome", "error"), ("Slot", "id")];
        assert!(exports.iter().map(|(name, owner)| (name.as_str(), owner.as_str())).eq(want));
    }
}
