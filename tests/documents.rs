//! Every command that the documents show, executed as a reader would.
//!
//! A block of ```` ```sh ```` in one of [`documents`] is a test. Its lines are run one after the other:
//!
//! * An example runs to its end, which must be a success; one of [`ENDLESS`] is started, waited for, and told to end
//!   (SIGTERM) behind the block, or before the next one that wants its port. Nobody of it is left then.
//! * Where a comment says `or --mode thread`, the block is run in that mode as well.
//! * `curl` has to get an answer, and a good one but from `/error`. A comment behind it that ends with a digit or a brace is that answer, with any
//!   number for a number; where the path says that a worker will crash, there may be none.
//! * What takes minutes is checked, not run: that tests and benches exist, that the programs of [`LONG`] explain themselves,
//!   that the contenders have these names. They have tests of their own, or belong to a measurement.
//! * For anything else there is no rule, and the test fails: a command that nobody runs is soon wrong.
//!
//! What differs from a reader: `cargo run --release` is the program of this build, which cargo has made beside this
//! one (a plain `cargo test` does); commands run in a directory that goes afterwards, and `/tmp` is that directory, too.
//! Servers listen on port 3000, as readers want them to: one such block at a time, once that port is free. The others
//! mostly wait for something, so there are more of them at a time than cores.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
mod support;

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use libtest_mimic::Trial;
use support::{program::Program, wait_until};

/// Examples that do not end by themselves.
const ENDLESS: [&str; 6] = ["hello", "axum_router", "express_like", "lab", "sessions", "top"];

/// Examples that measure for minutes; `--help` is all that is asked of them.
const LONG: [&str; 2] = ["report", "compare"];

/// Blocks that are run at the same time.
const THREADS: usize = 6;

/// Where servers listen that are not told otherwise.
const PORT: &str = "127.0.0.1:3000";

fn main() -> ExitCode {
    let mut seen = BTreeMap::new();
    for block in documents().iter().flat_map(|document| blocks(document)) {
        // What stands in several documents is run once.
        seen.entry(block.lines.clone()).or_insert(block);
    }
    assert!(!seen.is_empty(), "no document has a command");
    let trial = |block: Block| {
        Trial::test(block.name.clone(), move || {
            block.run();
            Ok(())
        })
    };
    let trials = seen.into_values().map(trial).collect();
    support::run_trials(THREADS, trials)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents whose commands are run, those that exist.
fn documents() -> Vec<PathBuf> {
    let single = ["README.md", "examples/README.md", "examples/labs/README.md"];
    let single = single.into_iter().chain(["benches/contenders/README.md"]);
    let mut all: Vec<PathBuf> = single.map(|name| root().join(name)).collect();
    for folder in ["src/docs", "src/guide"] {
        let entries = fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path()));
    }
    all.retain(|path| path.is_file() && path.extension().is_some_and(|end| end == "md"));
    all.sort();
    all
}

/// A block of commands in a document.
struct Block {
    /// Where it is.
    name: String,
    folder: PathBuf,
    lines: Vec<String>,
}

fn blocks(document: &Path) -> Vec<Block> {
    let text = fs::read_to_string(document).unwrap();
    let name = document.strip_prefix(root()).unwrap().display();
    let mut found: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim() {
            "```sh" => {
                let name = format!("{name}:{}", number + 1);
                let folder = document.parent().unwrap().into();
                found.push(Block { name, folder, lines: Vec::new() });
                is_inside = true;
            }
            "```" => is_inside = false,
            "" => {}
            line if is_inside => found.last_mut().unwrap().lines.push(line.into()),
            _ => {}
        }
    }
    found
}

/// A line of a block: variables, the command's words, and what the comment says.
struct Line {
    variables: Vec<(String, String)>,
    command: String,
    comment: String,
}

impl Line {
    fn parse(text: &str) -> Self {
        let (command, comment) = text.split_once(" #").unwrap_or((text, ""));
        let mut command = command.trim();
        let mut variables = Vec::new();
        while let Some((first, rest)) = command.split_once(' ') {
            let Some((name, value)) = first.split_once('=').filter(|(name, _)| is_name(name))
            else {
                break;
            };
            variables.push((name.into(), value.into()));
            command = rest.trim();
        }
        Self { variables, command: command.into(), comment: comment.trim().into() }
    }

    fn words(&self) -> Vec<&str> {
        self.command.split_whitespace().collect()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

impl Block {
    fn run(&self) {
        static PORT_IN_USE: Mutex<()> = Mutex::new(());
        let _guard = self.needs_port().then(|| PORT_IN_USE.lock());
        self.run_as(|line| line.into());
        for mode in ["process", "thread"] {
            if self.lines.iter().any(|line| line.contains(&format!("# or --mode {mode}"))) {
                let other = if mode == "process" { "thread" } else { "process" };
                let (old, new) = (format!("--mode {other}"), format!("--mode {mode}"));
                self.run_as(|line| line.replacen(&old, &new, 1));
            }
        }
    }

    /// Whether a server of it listens where readers look for it.
    fn needs_port(&self) -> bool {
        let serves = |word: &str| ENDLESS.contains(&word) || word == "curl";
        self.lines.iter().any(|line| line.split_whitespace().any(serves))
    }

    fn run_as(&self, change: impl Fn(&str) -> String) {
        let mut reader = Reader::new(&self.folder);
        for line in &self.lines {
            let text = change(line);
            if !text.starts_with('#') {
                reader.follow(&Line::parse(&reader.at_home(&text)));
            }
        }
        reader.stop_all();
    }
}

/// Somebody who does what a block says.
struct Reader<'a> {
    folder: &'a Path,
    /// Where commands run; it goes with everything in it.
    home: PathBuf,
    running: Vec<(String, Program)>,
}

impl<'a> Reader<'a> {
    fn new(folder: &'a Path) -> Self {
        static READERS: AtomicUsize = AtomicUsize::new(0);
        let number = (std::process::id(), READERS.fetch_add(1, Relaxed));
        let home = std::env::temp_dir().join(format!("bimodal-reader-{}-{}", number.0, number.1));
        fs::create_dir(&home).unwrap();
        Self { folder, home, running: Vec::new() }
    }

    fn at_home(&self, text: &str) -> String {
        text.replace("/tmp/", &format!("{}/", self.home.display()))
    }

    fn follow(&mut self, line: &Line) {
        let words = line.words();
        match words[..] {
            ["cargo", "run", ..] => self.run_example(line),
            ["cargo", "test" | "bench" | "build", ..] => self.check_cargo(&words),
            ["curl", ..] => self.ask(line),
            ["node", script, ..] => self.check_script(script),
            [program, ..] if program.starts_with("target/release/") => {
                self.check_contender(&program["target/release/".len()..]);
            }
            [program] if program == ".ci/run" => assert!(root().join(program).is_file()),
            _ => panic!("there is no rule for {:?}: add one to tests/documents.rs", line.command),
        }
    }

    fn run_example(&mut self, line: &Line) {
        let words = line.words();
        let at = words.iter().position(|word| *word == "--example");
        let name = at.and_then(|at| words.get(at + 1)).expect("an example is what can be run");
        let args: Vec<_> = words.iter().skip_while(|word| **word != "--").skip(1).collect();
        let mut command = Command::new(program(name));
        command.args(args).envs(line.variables.iter().cloned()).current_dir(&self.home);
        command.process_group(0);
        if LONG.contains(name) {
            let mut help = Command::new(program(name));
            drop(Program::spawn(help.arg("--help")).succeed());
        } else if ENDLESS.contains(name) && !words.contains(&"--once") && !words.contains(&"--help")
        {
            self.start(name, command, line);
        } else {
            let program = Program::spawn(&mut command);
            let pid = program.pid();
            drop(program.succeed());
            serve::assert_nobody_left(pid);
        }
    }

    /// Starts what does not end, and waits until it is there.
    fn start(&mut self, name: &str, mut command: Command, line: &Line) {
        if name == "top" {
            let mut top = Program::spawn(&mut command);
            top.line(|line| line.starts_with("WORKER "));
            self.running.push((name.into(), top));
            return;
        }
        self.stop_all();
        let address = address(line);
        wait_until(&format!("{address} to be free"), || TcpListener::bind(&address).is_ok());
        let server = Program::spawn(&mut command);
        self.running.push((name.into(), server));
        let mut ended = None;
        wait_until("the server", || {
            let server = &mut self.running.last_mut().unwrap().1;
            ended = server.ended();
            ended.is_some() || TcpStream::connect(&address).is_ok()
        });
        assert!(ended.is_none(), "{}: {ended:?}", line.command);
    }

    /// Ends what runs in good order, the last one first.
    fn stop_all(&mut self) {
        while let Some((name, mut program)) = self.running.pop() {
            program.signal(15);
            let status = program.wait();
            let by_signal = name == "top" && status.signal() == Some(15);
            assert!(status.success() || by_signal, "{name}: {status}; {}", program.errors());
            serve::assert_nobody_left(program.pid());
        }
    }

    fn ask(&self, line: &Line) {
        let may_say_no =
            ["/fault/", "/crash", "/error"].iter().any(|path| line.command.contains(path));
        let no = if may_say_no { "" } else { " --fail-with-body" };
        let command = line.command.replacen("curl", &format!("curl -sS --max-time 15{no}"), 1);
        let output =
            Command::new("sh").args(["-c", &command]).current_dir(&self.home).output().unwrap();
        let (told, errors) = (text(&output.stdout), text(&output.stderr));
        // Nobody answered any more: 52, 56 (curl(1)).
        let may_fail = ["/fault/", "/crash"].iter().any(|path| command.contains(path))
            && matches!(output.status.code(), Some(52 | 56));
        assert!(
            output.status.success() || may_fail,
            "{command}: {}, {told}{errors}",
            output.status
        );
        if line.comment.ends_with(|c: char| c.is_ascii_digit() || c == '}') {
            assert_eq!(shape(&told), shape(&line.comment), "{command}");
        }
    }

    fn check_cargo(&self, words: &[&str]) {
        for pair in words.windows(2) {
            let file = match pair[0] {
                "--test" => format!("tests/{}", pair[1]),
                "--bench" => format!("benches/{}", pair[1]),
                _ => continue,
            };
            let is_there = [format!("{file}.rs"), format!("{file}/main.rs")];
            let is_there = is_there.iter().any(|file| root().join(file).is_file());
            assert!(is_there, "{words:?}: there is no {file}.rs");
        }
        let has_lock = self.folder.join("Cargo.lock").is_file();
        assert!(!words.contains(&"--locked") || has_lock, "{words:?}: nothing is locked");
    }

    fn check_script(&self, script: &str) {
        let script = self.folder.join(script);
        assert!(script.is_file(), "there is no {}", script.display());
        match Command::new("node").arg("--check").arg(&script).status() {
            Ok(status) => assert!(status.success(), "{} is no script", script.display()),
            Err(_) => support::not_permitted("node, which is not installed"),
        }
    }

    fn check_contender(&self, name: &str) {
        let file = self.folder.join(format!("src/bin/{name}.rs"));
        assert!(file.is_file(), "there is no {}", file.display());
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Where a server listens.
fn address(line: &Line) -> String {
    let words = line.words();
    let listen = words.iter().position(|word| *word == "--listen").map(|at| words[at + 1]);
    let port = line.variables.iter().find(|(name, _)| name == "PORT");
    let port = port.map(|(_, port)| format!("127.0.0.1:{port}"));
    port.unwrap_or_else(|| listen.unwrap_or(PORT).into())
}

/// Where an example is.
fn program(example: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let program = deps.ancestors().nth(2).unwrap().join("examples").join(example);
    assert!(
        program.is_file(),
        "there is no example {example}; `cargo test --all-features` builds all"
    );
    program
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A text without the numbers in it.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.trim().chars() {
        match c {
            '0'..='9' if shape.ends_with('N') => {}
            '0'..='9' => shape.push('N'),
            c => shape.push(c),
        }
    }
    shape
}
