//! Runs a cell with its server under callgrind, and reads what was counted.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, id},
};

use bimodal::Mode;

use crate::cell::Cell;

pub(crate) const PROGRAM: &str = "valgrind";

/// Where valgrind writes what it counted: workers have it from their environment.
const LOG: &str = "INSTRUCTIONS_LOG";

/// valgrind's, and the program.
pub(crate) fn args() -> [String; 4] {
    let program = env::current_exe().expect("this program");
    [
        "--tool=callgrind".into(),
        "--callgrind-out-file=/dev/null".into(),
        format!("--log-file=%q{{{LOG}}}"),
        program.display().to_string(),
    ]
}

/// The instructions of one run.
pub(crate) fn count(cell: &Cell) -> u64 {
    let log = Log::new();
    let mut command = match cell.mode {
        Mode::Thread => Command::new(PROGRAM),
        Mode::Process => Command::new(env::current_exe().expect("this program")),
    };
    if cell.mode == Mode::Thread {
        command.args(args());
    }
    let status = command.args(cell.args()).env(LOG, &log.0).status();
    let status = status.unwrap_or_else(|error| panic!("{PROGRAM}: {error}: install valgrind"));
    let text = fs::read_to_string(&log.0).unwrap_or_default();
    assert!(status.success(), "{status}: was it built in its own folder? valgrind says:\n{text}");
    collected(&text).unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"))
}

/// From the line `==PID== Collected : N` (Callgrind's manual, "Basic Usage").
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A file that is removed.
struct Log(PathBuf);

impl Log {
    fn new() -> Self {
        Self(env::temp_dir().join(format!("bimodal-instructions-{}", id())))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Nobody wrote it if this fails.
        let _ = fs::remove_file(&self.0);
    }
}
