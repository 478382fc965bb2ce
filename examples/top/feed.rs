//! The status socket from the reader's side: lines, and what they say.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

/// The longest line: a snapshot of a thousand workers has half a megabyte.
const LINE: u64 = 4 << 20;

/// How long the next program may take to serve the socket after an upgrade.
const GAP: Duration = Duration::from_secs(1);

/// A connection to the socket, made anew when the program was upgraded.
pub(crate) struct Feed {
    path: PathBuf,
    interval: u64,
    stream: BufReader<UnixStream>,
}

impl Feed {
    pub(crate) fn open(path: &Path, interval: u64) -> io::Result<Self> {
        let stream = connect(path, interval).map_err(|error| {
            let path = path.display();
            // Of no kind: a pipe that is broken here is not the reader's of the output.
            io::Error::other(format!(
                "{path}: {error}; is a program with this status socket running?"
            ))
        })?;
        Ok(Self { path: path.into(), interval, stream })
    }

    /// The next line, without its end; `None` when the cluster has ended.
    pub(crate) fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        if (&mut self.stream).take(LINE).read_line(&mut line)? == 0 {
            return if self.connect_again() { self.next() } else { Ok(None) };
        }
        if line.pop() != Some('\n') {
            return Err(io::Error::other("the cluster ended in the midst of a line"));
        }
        Ok(Some(line))
    }

    fn connect_again(&mut self) -> bool {
        let end = Instant::now() + GAP;
        while Instant::now() < end {
            if let Ok(stream) = connect(&self.path, self.interval) {
                self.stream = stream;
                return true;
            }
            thread::sleep(GAP / 20);
        }
        false
    }
}

fn connect(path: &Path, interval: u64) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, r#"{{"interval_ms":{interval},"events":true}}"#)?;
    Ok(BufReader::new(stream))
}

/// What a line says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Snapshot(Snapshot),
    Event(Event),
    /// So many events were dropped.
    Missed(u64),
    Error(String),
}

impl Told {
    /// An error of the cluster's is one here.
    pub(crate) fn parse(line: &str) -> io::Result<Self> {
        match serde_json::from_str(line)? {
            Self::Error(cause) => Err(io::Error::other(format!("the cluster says: {cause}"))),
            told => Ok(told),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) uptime_ms: u64,
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) mode: String,
    pub(crate) scheduling: String,
    pub(crate) target: usize,
    pub(crate) ready: usize,
    pub(crate) reloading: bool,
    pub(crate) stopping: bool,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) requests_per_second: f64,
    pub(crate) p99_us: Option<u64>,
    pub(crate) report: Report,
    pub(crate) workers: Vec<Worker>,
}

#[derive(Deserialize)]
pub(crate) struct Report {
    pub(crate) started: u64,
    pub(crate) restarts: u64,
    pub(crate) recycled: u64,
    pub(crate) hung: u64,
    pub(crate) reloads: u64,
}

#[derive(Deserialize)]
pub(crate) struct Worker {
    pub(crate) worker: u64,
    pub(crate) generation: u32,
    pub(crate) thread: u64,
    pub(crate) state: String,
    pub(crate) age_ms: u64,
    pub(crate) restarts: u64,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) connections_open: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) utilization: f64,
    pub(crate) p99_us: Option<u64>,
}

#[derive(Deserialize)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) uptime_ms: u64,
    pub(crate) worker: Option<u64>,
    pub(crate) text: String,
}
