//! The table of layers, and the rule that arrows run down.

use std::collections::BTreeMap;

use crate::paths::paths;
use crate::rules::Finding;
use crate::source::Source;

/// Modules of one rank.
struct Layer {
    modules: &'static [&'static str],
    /// The ranks that they may use besides their own.
    below: &'static [usize],
    peers: Peers,
}

/// Which modules of its own rank a module may use.
#[derive(PartialEq, Eq)]
enum Peers {
    None,
    Earlier,
    All,
}

/// Every module at the root of the crate except `lib.rs`; the order is the rank.
const LAYERS: [Layer; 8] = [
    Layer { modules: &["sys", "docs", "guide"], below: &[], peers: Peers::None },
    Layer {
        modules: &[
            "error", "address", "config", "event", "id", "clock", "patience", "signal", "workers",
            "dice",
        ],
        below: &[],
        peers: Peers::All,
    },
    Layer { modules: &["supervise", "schedule", "wire"], below: &[1], peers: Peers::None },
    Layer {
        modules: &["event_loop", "pool", "shared", "load"],
        below: &[0, 1],
        peers: Peers::None,
    },
    Layer {
        modules: &["accept", "channel", "message", "worker", "http"],
        below: &[0, 1, 2, 3],
        peers: Peers::Earlier,
    },
    Layer { modules: &["backend"], below: &[0, 1, 2, 3, 4], peers: Peers::None },
    Layer {
        modules: &[
            "cluster",
            "primary",
            "outside",
            "builder",
            "setup",
            "fork",
            "events",
            "observers",
            "handle",
            "desk",
            "status",
            "status_socket",
            "supervision",
        ],
        below: &[0, 1, 2, 3, 4, 5],
        peers: Peers::All,
    },
    Layer { modules: &["compare"], below: &[0, 1, 2, 3, 4, 5, 6], peers: Peers::None },
];

/// The two backends, which must not know each other.
const BACKENDS: [&str; 2] = ["process", "thread"];

/// Finds the arrows that run up or sideways; `exports` are the names that `lib.rs` re-exports.
pub(crate) fn check(
    source: &Source,
    exports: &BTreeMap<String, String>,
    findings: &mut Vec<Finding>,
) {
    let Some(from) = source.module.first() else { return };
    if place(from).is_none() {
        let remedy = format!("give `{from}` its place in LAYERS of tests/tidy/layers.rs");
        findings.push(Finding::new(source, 1, "layer", remedy));
        return;
    }
    for path in paths(source).iter().filter(|path| !path.test) {
        let Some(to) = path.resolve(&source.module) else { continue };
        if let Some(remedy) = fault(&source.module, &to, exports) {
            findings.push(Finding::new(source, path.line, "layer", remedy));
        }
    }
}

/// What is wrong with an arrow from the module `from` to the path `to`, and what to do.
fn fault(from: &[String], to: &[String], exports: &BTreeMap<String, String>) -> Option<String> {
    let source = from.first()?;
    let name = to.first()?;
    let target = if place(name).is_some() { Some(name) } else { exports.get(name) };
    let Some(target) = target.filter(|target| place(target).is_some()) else {
        return Some(format!("`crate::{name}` is in no layer: name the module that owns it"));
    };
    if !may_use(source, target) {
        let text =
            format!("`{source}` uses `{target}`, which is not below it: move what they share down");
        return Some(format!("{text}, or hand it in from above"));
    }
    let (one, other) = (backend(from)?, backend(to)?);
    (one != other).then(|| {
        format!("`backend::{one}` uses `backend::{other}`: move what they share to `backend`")
    })
}

/// The rank of a module and its position there.
fn place(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(rank, layer)| {
        Some((rank, layer.modules.iter().position(|each| *each == module)?))
    })
}

fn may_use(from: &str, to: &str) -> bool {
    let (Some((rank, position)), Some((below, other))) = (place(from), place(to)) else {
        return false;
    };
    if rank != below {
        return LAYERS[rank].below.contains(&below);
    }
    match LAYERS[rank].peers {
        Peers::None => position == other,
        Peers::Earlier => other <= position,
        Peers::All => true,
    }
}

/// Which backend a path leads into.
fn backend(path: &[String]) -> Option<&str> {
    let [top, inner, ..] = path else { return None };
    (top == "backend" && BACKENDS.contains(&inner.as_str())).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::may_use;
    use crate::findings;

    fn is_fault(file: &str, text: &str) -> bool {
        let root = "pub use error::Error; pub use cluster::Cluster;";
        let found = findings(&[("src/lib.rs", root), (file, text)]);
        assert!(found.len() <= 1, "{found:?}");
        found.first().is_some_and(|finding| {
            assert_eq!(*finding, format!("{file}:1 layer"));
            true
        })
    }

    #[test]
    fn arrows_run_down() {
        for (from, to) in [
            ("error", "clock"),
            ("wire", "id"),
            ("event_loop", "sys"),
            ("shared", "error"),
            ("worker", "accept"),
            ("http", "worker"),
            ("http", "schedule"),
            ("backend", "http"),
            ("cluster", "handle"),
            ("handle", "cluster"),
            ("cluster", "sys"),
            ("pool", "pool"),
        ] {
            assert!(may_use(from, to), "{from} -> {to}");
        }
    }

    #[test]
    fn no_arrow_runs_up_or_sideways() {
        for (from, to) in [
            ("sys", "error"),
            ("error", "sys"),
            ("clock", "wire"),
            ("wire", "sys"),
            ("wire", "schedule"),
            ("event_loop", "wire"),
            ("event_loop", "pool"),
            ("pool", "worker"),
            ("accept", "worker"),
            ("worker", "http"),
            ("worker", "backend"),
            ("backend", "cluster"),
        ] {
            assert!(!may_use(from, to), "{from} -> {to}");
        }
    }

    #[test]
    fn arrows_are_found_however_they_are_written() {
        for text in [
            "use crate::cluster::Cluster;",
            "pub use crate::{error::Error, cluster};",
            "fn f() { crate::cluster::run() }",
            "use super::super::cluster as c;",
            "mod m { use super::super::super::cluster; }",
            "use crate::Cluster;",
            "use crate::*;",
            "use crate::{self as root};",
            "use crate::Unknown;",
        ] {
            assert!(is_fault("src/worker/drain.rs", text), "{text}");
        }
    }

    #[test]
    fn what_is_no_arrow_is_let_through() {
        for text in [
            "use crate::accept::Queue; use super::listener; use crate::Error;",
            "use std::cluster::X; use cluster::X;",
            "// crate::cluster::run()\nconst X: &str = \"crate::cluster\";",
            "#[cfg(test)]\nmod tests { use crate::cluster::Cluster; }",
        ] {
            assert!(!is_fault("src/worker/drain.rs", text), "{text}");
        }
        assert!(!is_fault("src/lib.rs", "use crate::cluster::Cluster; use crate::Unknown;"));
    }

    #[test]
    fn the_backends_do_not_know_each_other() {
        assert!(is_fault("src/backend/thread/body.rs", "use crate::backend::process::spawn;"));
        assert!(is_fault("src/backend/process/mod.rs", "use super::thread::Link;"));
        assert!(is_fault("src/backend/process/link.rs", "use super::super::thread;"));
        assert!(!is_fault("src/backend/process/mod.rs", "use super::Backend; use self::spawn::X;"));
        assert!(!is_fault("src/backend/mod.rs", "use self::process::X; use self::thread::Y;"));
    }

    #[test]
    fn a_module_without_a_layer_is_found() {
        assert!(is_fault("src/newcomer/mod.rs", ""));
    }
}
