//! The monitor `top` as a program, watching the lab, in both modes.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod serve;
mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use bimodal::{Address, Mode};
use serde_json::Value;
use support::{
    DEADLINE, Scenario, Scene, both, client::get, not_permitted, only, program::Program, wait_until,
};

const SCENARIOS: &[Scenario] = &[
    both("one_table_fits_80_columns_and_has_every_worker", once),
    both("one_object_is_json", json),
    both("tables_follow_and_events_are_between_them_until_the_cluster_ends", stream),
    both("a_terminal_is_drawn_on_and_given_back", terminal),
    // What follows needs no cluster, and so has no modes.
    only(&[Mode::Thread], "without_a_cluster_it_says_what_is_missing", nobody),
    only(&[Mode::Thread], "what_a_stranger_says_does_not_reach_the_terminal_as_it_is", stranger),
];

fn main() -> ExitCode {
    support::run(SCENARIOS, &[])
}

/// A lab with two workers and a status socket.
struct Lab {
    program: Program,
    address: Address,
    socket: PathBuf,
}

impl Lab {
    fn start(scene: &Scene) -> Self {
        let socket = socket(scene);
        let mut command = Command::new(example("lab"));
        command.args(["--mode", &scene.mode.to_string(), "--workers", "2"]);
        command.args(["--listen", "127.0.0.1:0", "--status-socket"]).arg(&socket).process_group(0);
        let mut program = Program::spawn(&mut command);
        let ready = program.line(|line| line.starts_with("listening on http://"));
        let address = ready["listening on http://".len()..].split(' ').next().unwrap();
        Self { program, address: address.parse().unwrap(), socket }
    }

    fn stop(self) {
        self.program.signal(15);
        let pid = self.program.pid();
        self.program.succeed();
        serve::assert_nobody_left(pid);
        assert!(!self.socket.exists());
    }
}

fn socket(scene: &Scene) -> PathBuf {
    let name =
        format!("bimodal-top-{}-{}-{}.sock", std::process::id(), scene.mode, scene.name.len());
    std::env::temp_dir().join(name)
}

fn top(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(example("top"));
    command.arg(socket).args(args);
    command
}

fn once(scene: &Scene) {
    let lab = Lab::start(scene);
    let told = Program::spawn(&mut top(&lab.socket, &["--once", "--interval", "100"])).succeed();
    assert!(told[0].starts_with("lab: 2 of 2 ready   mode "), "{told:#?}");
    assert!(told[0].contains(&format!("pid {}", lab.program.pid())), "{told:#?}");
    let at = told.iter().position(|line| line.starts_with("WORKER STATE")).unwrap();
    for (line, worker) in told[at + 1..].iter().zip(["1", "2"]) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((words.len(), &words[..3]), (11, &[worker, "listening", "1"][..]), "{told:#?}");
        assert_eq!(words[8] == "-", !scene.is_process(), "threads have no memory of their own");
        assert_eq!(line.chars().count(), told[at].chars().count(), "{told:#?}");
    }
    assert!(told.iter().all(|line| line.chars().count() <= 80), "{told:#?}");
    lab.stop();
}

fn json(scene: &Scene) {
    let lab = Lab::start(scene);
    let args = ["--once", "--json", "--interval", "100"];
    let told = Program::spawn(&mut top(&lab.socket, &args)).succeed();
    let [line] = &told[..] else { panic!("{told:#?}") };
    let told: Value = serde_json::from_str(line).unwrap();
    assert_eq!(told["snapshot"]["workers"].as_array().map(Vec::len), Some(2), "{told}");
    lab.stop();
}

fn stream(scene: &Scene) {
    let lab = Lab::start(scene);
    let mut watcher = Program::spawn(&mut top(&lab.socket, &["--interval", "100"]));
    watcher.line(|line| line.starts_with("WORKER "));
    assert!(get(&lab.address, "/fault/panic").is_err());
    let exit = watcher.line(|line| line.contains(" exit "));
    assert!(exit.contains("code 101 (panic)"), "{exit}");
    let replaced = |line: &str| line.split_whitespace().take(3).eq(["3", "listening", "2"]);
    watcher.line(replaced);
    lab.stop();
    assert!(watcher.wait().success());
}

fn terminal(scene: &Scene) {
    let lab = Lab::start(scene);
    let shown = example("top");
    let shown =
        format!("stty cols 60 rows 12; {} {}; stty -a", shown.display(), lab.socket.display());
    let mut script = Command::new("script");
    script.args(["-qec", &shown, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = script.spawn() else {
        return not_permitted("script(1), which is not there");
    };
    let mut keys = child.stdin.take().unwrap();
    let mut screen = String::new();
    read_until(&mut child, &mut screen, "2 listening");
    keys.write_all(b"q").unwrap();
    read_until(&mut child, &mut screen, "speed");
    read_until(&mut child, &mut screen, "icanon");
    drop(keys);
    assert!(child.wait().unwrap().success());
    let (enter, leave) = (screen.find("\x1b[?1049h"), screen.find("\x1b[?25h\x1b[?1049l"));
    assert!(enter.is_some() && enter < leave, "{screen:?}");
    assert!(!screen.contains("-icanon"), "the terminal was not given back: {screen:?}");
    let row = screen.split("\x1b[K").find(|line| line.contains("WORKER ")).unwrap();
    assert_eq!(
        row.trim_matches(['\r', '\n']).chars().count(),
        60,
        "it is cut to the width: {row:?}"
    );
    lab.stop();
}

/// Reads what is shown until this is.
fn read_until(child: &mut std::process::Child, screen: &mut String, wanted: &str) {
    use std::io::Read as _;
    let end = std::time::Instant::now() + DEADLINE;
    let stdout = child.stdout.as_mut().unwrap();
    while !screen.contains(wanted) {
        assert!(std::time::Instant::now() < end, "no {wanted:?} in {screen:?}");
        let mut bytes = [0; 4096];
        let count = stdout.read(&mut bytes).unwrap();
        assert!(count > 0, "the end came first: {screen:?}");
        screen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

fn nobody(scene: &Scene) {
    let socket = socket(scene);
    let mut program = Program::spawn(&mut top(&socket, &["--once"]));
    assert_eq!(program.wait().code(), Some(1));
    let errors = program.errors();
    assert!(errors.contains("is a program with this status socket running?"), "{errors}");
    let mut program = Program::spawn(&mut top(&socket, &["--interval", "99"]));
    assert_eq!(program.wait().code(), Some(2), "{}", program.errors());
}

/// Somebody else's socket: what it says is an error, or shown without its control characters.
fn stranger(scene: &Scene) {
    let socket = socket(scene);
    let listener = UnixListener::bind(&socket).unwrap();
    for (says, expected) in
        [("nonsense\n", "expected"), ("{\"error\":\"\\u001b[2Jno\"}\n", "the cluster says: ?[2Jno")]
    {
        let mut program = Program::spawn(&mut top(&socket, &[]));
        let mut stream = asked(&listener);
        stream.write_all(says.as_bytes()).unwrap();
        assert_eq!(program.wait().code(), Some(1));
        let errors = program.errors();
        assert!(errors.contains(expected) && !errors.contains('\u{1b}'), "{errors:?}");
    }
    let program = Program::spawn(&mut top(&socket, &[]));
    let mut stream = asked(&listener);
    std::fs::remove_file(&socket).unwrap();
    let event =
        r#"{"event":{"name":"error","uptime_ms":1,"worker":1,"text":"\u001b]0;title\u0007"}}"#;
    writeln!(stream, "{event}\n{}", SNAPSHOT).unwrap();
    drop((stream, listener));
    let told = program.succeed();
    assert!(told.iter().any(|line| line.ends_with("worker 1: ?]0;title?")), "{told:#?}");
    wait_until("nothing to be left", || !socket.exists());
}

/// A client that has asked.
fn asked(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "{\"interval_ms\":1000,\"events\":true}\n");
    stream
}

const SNAPSHOT: &str = r#"{"snapshot":{"uptime_ms":1,"pid":1,"name":"x","mode":"thread","scheduling":"shared","target":0,"ready":0,"reloading":false,"stopping":false,"memory_bytes":null,"requests_per_second":0.0,"p99_us":null,"report":{"started":0,"restarts":0,"recycled":0,"hung":0,"reloads":0},"workers":[]}}"#;

/// Where an example is. A plain `cargo test` builds it; one of `--test top` alone does not.
fn example(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.ancestors().nth(2).unwrap().join("examples").join(name)
}
