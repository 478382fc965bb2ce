//! A server under measurement: started on a port of its own choice, ended with everything it started.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bimodal::{Mode, Scheduling};
use rustix::process::Signal;

use crate::{Result, child, child::Guard, programs::Programs};

/// How long a server may take to listen. Node on a busy machine takes more than a second.
const READY: Duration = Duration::from_secs(20);

/// How long it may take to end after SIGTERM before it is killed.
const STOP: Duration = Duration::from_secs(3);

/// How many of the last lines of its standard error are kept, to tell why it failed.
const KEPT: usize = 20;

/// A server that listens.
pub(crate) struct Server {
    guard: Guard,
    address: SocketAddr,
    lines: Receiver<(Instant, String)>,
}

impl Server {
    /// Starts the lab with two arguments that every arm has, and more.
    pub(crate) fn lab(
        programs: &Programs,
        mode: Mode,
        scheduling: Scheduling,
        workers: usize,
        more: &[&str],
    ) -> Result<Self> {
        let mut command = child::command(&programs.lab);
        command.args(["--mode", &mode.to_string(), "--scheduling", &scheduling.to_string()]);
        command.args(["--workers", &workers.to_string(), "--listen", "127.0.0.1:0"]);
        command.args(more);
        Self::start(&mut command)
    }

    /// Starts any command of [`child::command`] that prints `listening on http://ADDR:PORT`.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What a worker says when it fails on purpose would fill the pipe.
        command.env("RUST_LOG", "error").env("RUST_BACKTRACE", "0");
        let mut guard = Guard::start(command)?;
        let lines = read_lines(guard.child().stdout.take().ok_or("its output is not a pipe")?);
        let errors = Tail::of(guard.child().stderr.take().ok_or("its errors are not a pipe")?);
        match listening(&lines) {
            Some(address) => Ok(Self { guard, address, lines }),
            None => {
                drop(guard);
                let (command, tail) = (format!("{command:?}"), errors.text());
                Err(format!("{command}: it never said `listening on`; its errors: {tail}").into())
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDR:PORT` and this path, which begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The process that was started; workers are its children.
    pub(crate) fn pid(&self) -> u32 {
        self.guard.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.guard.signal(signal);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.guard.has_ended()
    }

    /// The next line that it prints by then, with the time at which it came.
    pub(crate) fn line_by(&self, end: Instant) -> Option<(Instant, String)> {
        self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).ok()
    }

    /// SIGTERM, and SIGKILL for what is left after a while. Whether it ended by itself.
    pub(crate) fn stop(self) -> bool {
        self.signal(Signal::TERM);
        self.guard.ends_within(STOP)
    }
}

/// The address in the line that says it, unless the server ends before.
fn listening(lines: &Receiver<(Instant, String)>) -> Option<SocketAddr> {
    let end = Instant::now() + READY;
    loop {
        let (_, line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
        if let Some(rest) = line.strip_prefix("listening on http://") {
            return rest.split([' ', ',']).next()?.parse().ok();
        }
    }
}

fn read_lines(output: impl Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// The last lines of a stream, which a thread reads to its end.
struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    _reader: JoinHandle<()>,
}

impl Tail {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Self { lines, _reader: reader }
    }

    fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}
