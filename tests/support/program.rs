//! The test program started again, to be a primary of its own that a test may signal or kill.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use bimodal::Mode;

use super::{DEADLINE, wait_until};

/// What `--program NAME MODE` on the command line asks for.
pub fn asked_for() -> Option<(String, Mode)> {
    let mut args = std::env::args().skip_while(|arg| arg != "--program").skip(1);
    Some((args.next()?, args.next()?.parse().ok()?))
}

/// The arguments of a program behind its name and mode.
pub fn args() -> Vec<String> {
    std::env::args().skip_while(|arg| arg != "--program").skip(3).collect()
}

/// The command that runs a program of this test program.
pub fn command(name: &str, mode: Mode) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--program", name, &mode.to_string()]);
    command
}

/// Starts a program of this test program.
pub fn start(name: &str, mode: Mode) -> Program {
    Program::spawn(&mut command(name, mode))
}

/// A program that runs. It is killed when this is dropped; its output is kept, and shown if the test fails.
pub struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
    /// Lines that were read so far.
    pub output: Vec<String>,
}

impl Program {
    /// Starts any program, with its output captured.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self {
            child,
            lines: read_lines(stdout),
            errors: Some(read_all(stderr)),
            output: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output that `wanted` accepts.
    #[track_caller]
    pub fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let Some(line) = self.line_within(DEADLINE, wanted) else {
            let output = std::mem::take(&mut self.output);
            panic!("the line did not come; output: {output:#?}\n{}", self.give_up());
        };
        line
    }

    /// [`Program::line`], if it comes within this time.
    pub fn line_within(&mut self, time: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).ok()?;
            self.output.push(line.clone());
            if wanted(&line) {
                return Some(line);
            }
        }
    }

    /// Sends a signal to the program itself.
    pub fn signal(&self, signal: i32) {
        super::system::signal(self.pid(), signal);
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; then all its output is in `output`.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.wait_only();
        self.output.extend(self.lines.iter());
        status
    }

    /// Waits for its end, though others may still write to its output.
    #[track_caller]
    pub fn wait_only(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the program", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// What it wrote to its standard error. Only once it and its workers have ended.
    pub fn errors(&mut self) -> String {
        self.errors.take().map_or_else(String::new, |thread| thread.join().unwrap())
    }

    /// Waits for its end, which must be a success; returns its output.
    #[track_caller]
    pub fn succeed(mut self) -> Vec<String> {
        let status = self.wait();
        assert!(
            status.success(),
            "{status}; output: {:#?}\n{}",
            self.output.clone(),
            self.errors()
        );
        std::mem::take(&mut self.output)
    }

    fn give_up(&mut self) -> String {
        let _ = self.child.kill();
        self.errors()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait();
        if std::thread::panicking() {
            let errors = self.errors.take().map(|thread| thread.join());
            eprintln!("the program: {status:?}, output: {:#?}\n{errors:#?}", self.output);
        }
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn read_all(mut stderr: ChildStderr) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
