//! The machine that a result comes from.

use std::{fs, process::Command, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::Result;

/// What has to be known of a machine to judge a figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Those that this program may use.
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// The soft limit of open files; `None` is no limit.
    pub(crate) open_files: Option<u64>,
    pub(crate) backlog: String,
    pub(crate) compiler: String,
}

impl Machine {
    pub(crate) fn here() -> Result<Self> {
        let rustc = Command::new("rustc").arg("--version").output();
        let compiler = rustc.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism()?.get(),
            memory_mib: memory_mib(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            open_files: getrlimit(Resource::Nofile).current,
            backlog: first_line("/proc/sys/net/core/somaxconn"),
            compiler: compiler.unwrap_or_else(|_| "unknown".to_owned()),
        })
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let files = self.open_files.map_or("no".to_owned(), |files| files.to_string());
        format!(
            "{} cores of {}, {} MiB of memory, Linux {}, limit of open files: {files}, somaxconn {}, {}",
            self.cores, self.cpu, self.memory_mib, self.kernel, self.backlog, self.compiler
        )
    }
}

/// The time of all cores since the machine started, in ticks (`cpu` in proc_stat(5)).
#[derive(Clone, Copy)]
pub(crate) struct CoreTime {
    all: u64,
    /// What a virtual machine's host took while there was something to do here.
    stolen: u64,
}

impl CoreTime {
    /// `None` where the kernel does not say.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The last of the eight is what was stolen; guests' time, behind them, is counted among the others already.
    fn parse(text: &str) -> Option<Self> {
        let ticks = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>().ok()?;
        (ticks.len() == 8).then(|| Self { all: ticks.iter().sum(), stolen: ticks[7] })
    }

    /// Which part of the time since then was stolen; `None` of no time.
    pub(crate) fn stolen_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some(self.stolen.saturating_sub(before.stolen) as f64 / all as f64)
    }
}

/// Raises the limit of open files as far as it may go, for this program and all that it starts.
pub(crate) fn raise_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// How many files one process may have open.
pub(crate) fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn memory_mib() -> u64 {
    let total = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    total.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The value behind `NAME :` in a file of such lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
