//! The server of an exercise: the example `lab`, as a child of this program, so that whatever it dies of the exercise
//! goes on and tells.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, ChildStderr, ChildStdout, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bimodal::Mode;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::Value;

use crate::{client::Client, exercise::Result, lab};

/// The first argument of this program when it is the server; the second is the process it belongs to.
const SERVE: &str = "serve";

/// Longer than anything takes that an exercise waits for.
const PATIENCE: Duration = Duration::from_secs(9);

/// The server's whole life, in a process that was started to be it; none in any other.
pub(crate) fn take_over() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != SERVE {
        return None;
    }
    let owner = args.next().and_then(|pid| pid.to_str()?.parse().ok());
    // A worker process belongs to its primary already.
    if bimodal::worker_of().is_none() && !end_with(owner) {
        eprintln!(
            "labs: {SERVE} is what an exercise starts, and who started this is gone: name an exercise"
        );
        return Some(ExitCode::FAILURE);
    }
    Some(lab::start(std::iter::once(OsString::from("labs serve")).chain(args)))
}

/// Lets the kernel kill this process when its parent ends in any way; false where that has happened already.
fn end_with(owner: Option<i32>) -> bool {
    set_parent_process_death_signal(Some(Signal::KILL)).is_ok()
        && getppid().map(Pid::as_raw_nonzero).map(i32::from) == owner
}

/// A lab that runs. Dropped, it is killed, with its workers.
pub(crate) struct Server {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Option<JoinHandle<String>>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a lab with these options, and waits until all its workers listen. To be called on the main thread: the
    /// child ends when the thread does that started it.
    pub(crate) fn start(mode: Mode, options: &[&str]) -> Result<Self> {
        Self::start_at("127.0.0.1:0", mode, options)
    }

    /// [`start`](Self::start) at a known address.
    pub(crate) fn start_at(address: &str, mode: Mode, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SERVE, &std::process::id().to_string(), "--mode", &mode.to_string()]);
        command.args(["--events", "json", "--listen", address]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = child.stdout.take().map(read_lines).ok_or("a child without an output")?;
        let errors = child.stderr.take().map(read_all);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, lines, errors, address };
        server.address = server.first_address()?;
        Ok(server)
    }

    fn first_address(&mut self) -> Result<SocketAddr> {
        let url = self.next(|line| Some(line.strip_prefix("listening on http://")?.to_owned()));
        match url.as_deref().ok().and_then(|line| line.split(' ').next()?.parse().ok()) {
            Some(address) => Ok(address),
            None => Err(format!("the server did not start: {}", self.give_up()).into()),
        }
    }

    /// Waits for the next event that `wanted` accepts; those before it are gone.
    pub(crate) fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.next(|line| serde_json::from_str(line).ok().filter(&wanted))
    }

    fn next<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.map_err(|_| "an event of the server's did not come")?;
            if let Some(found) = wanted(&line) {
                return Ok(found);
            }
        }
    }

    /// One client per connection, each with the number of its worker.
    pub(crate) fn clients(&self, count: usize) -> Result<Vec<(u64, Client)>> {
        let connect = |_| {
            let mut client = Client::connect(self.address)?;
            Ok((client.worker()?, client))
        };
        (0..count).map(connect).collect()
    }

    /// The primary's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // The number is a child's that was not waited for: it is nobody else's.
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal)?)
    }

    /// How the program has ended, if it does so within this time.
    pub(crate) fn ended(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + within;
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it in good order. Returns its report, as the lab prints it.
    pub(crate) fn stop(mut self) -> Result<Value> {
        self.signal(Signal::TERM)?;
        let report = self.event(|event| event["event"] == "report")?;
        self.ended(PATIENCE)?;
        Ok(report)
    }

    /// Kills it, and returns what it wrote to its standard error.
    fn give_up(&mut self) -> String {
        let _ = self.child.kill();
        let text = self.errors.take().and_then(|thread| thread.join().ok());
        text.unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let all = BufReader::new(stdout).lines().map_while(std::result::Result::ok);
        for line in all {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What the faults of the lab print is for whoever asks why it did not start, not for a lesson.
fn read_all(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
