//! What a process and all its descendants use: CPU time and memory, read from `/proc` (proc(5)).
//!
//! To compare, read before and after on any thread; nothing is kept between two readings. Processes and threads that go
//! away meanwhile are left out, the root process is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// The CPU time of each thread of a tree of processes, since it was started.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// By process and thread.
    threads: BTreeMap<(u32, u32), Used>,
}

#[derive(Clone, Debug)]
struct Used {
    name: String,
    time: Duration,
}

/// The memory of a tree of processes, in bytes, and what else it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// What it occupies: a page that n processes share counts for 1/n in each (`Pss`).
    pub pss: u64,
    /// What nobody else has (`Private_Clean` and `Private_Dirty`).
    pub private: u64,
    /// What is there, with shared pages counted in each process that has them (`Rss`).
    pub rss: u64,
    /// The part of `rss` that is no file's and not explicitly shared (`RssAnon`).
    pub anonymous: u64,
    /// Processes.
    pub processes: u64,
    /// Threads of all of them.
    pub threads: u64,
    /// Open descriptors of all of them.
    pub descriptors: u64,
}

/// The CPU time of a process and its descendants, per thread. It includes what the kernel did for them, and survives a
/// busy machine better than a rate does.
///
/// # Errors
///
/// `Io` if there is no such process, or it may not be looked at.
pub fn cpu(pid: u32) -> Result<Cpu> {
    let mut threads = BTreeMap::new();
    for pid in tree(pid)? {
        for (thread, path) in tasks(pid).unwrap_or_default() {
            let Some(time) = read(path.join("schedstat")).ok().and_then(|text| run_time(&text))
            else {
                continue; // it has ended
            };
            let name = read(path.join("comm")).unwrap_or_default().trim_end().to_owned();
            threads.insert((pid, thread), Used { name, time });
        }
    }
    Ok(Cpu { threads })
}

/// The memory of a process and its descendants.
///
/// # Errors
///
/// `Io` if there is no such process, or it may not be looked at, which takes the right to trace it (ptrace(2)).
pub fn memory(pid: u32) -> Result<Memory> {
    let mut all = of_process(pid).map_err(|error| unreadable(pid, error))?;
    for child in tree(pid)?.into_iter().filter(|child| *child != pid) {
        all.add(&of_process(child).unwrap_or_default());
    }
    Ok(all)
}

impl Cpu {
    /// The CPU time that was used since an earlier reading of the same tree.
    ///
    /// Threads that were started in between count in full; what those used that ended in between is not known,
    /// and left out.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let before = |id| earlier.threads.get(id).map_or(Duration::ZERO, |used| used.time);
        self.threads.iter().map(|(id, used)| used.time.saturating_sub(before(id))).sum()
    }

    /// All of it, since each thread was started.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.since(&Self::default())
    }

    /// Only the threads whose name begins like this. Names have 15 bytes; a worker thread's begins with `bimodal-`, a
    /// load driver's with `load-`.
    #[must_use]
    pub fn of_threads(&self, prefix: &str) -> Self {
        self.filter(|name| name.starts_with(prefix))
    }

    /// Only the threads whose name does not begin like this: a program that drives a load on itself leaves out
    /// `load-`.
    #[must_use]
    pub fn without_threads(&self, prefix: &str) -> Self {
        self.filter(|name| !name.starts_with(prefix))
    }

    fn filter(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let wanted = self.threads.iter().filter(|(_, used)| is_wanted(&used.name));
        Self { threads: wanted.map(|(id, used)| (*id, used.clone())).collect() }
    }
}

impl Memory {
    fn add(&mut self, other: &Self) {
        self.pss += other.pss;
        self.private += other.private;
        self.rss += other.rss;
        self.anonymous += other.anonymous;
        self.processes += other.processes;
        self.threads += other.threads;
        self.descriptors += other.descriptors;
    }
}

/// The process and all its descendants.
fn tree(root: u32) -> Result<BTreeSet<u32>> {
    tasks(root).map_err(|error| unreadable(root, error))?;
    let (mut found, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children(pid));
        }
    }
    Ok(found)
}

/// The children of all threads of a process; none if it is gone.
fn children(pid: u32) -> Vec<u32> {
    let tasks = tasks(pid).unwrap_or_default();
    let texts = tasks.into_iter().filter_map(|(_, path)| read(path.join("children")).ok());
    texts.flat_map(|text| numbers(&text)).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The threads of a process, with their directories.
fn tasks(pid: u32) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?.filter_map(io::Result::ok);
    let task =
        |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    Ok(entries.filter_map(task).collect())
}

/// The first figure of a `schedstat`: the time on a CPU in nanoseconds.
fn run_time(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?))
}

fn of_process(pid: u32) -> io::Result<Memory> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let (rollup, status) = (read(folder.join("smaps_rollup"))?, read(folder.join("status"))?);
    Ok(Memory {
        pss: bytes(&rollup, "Pss"),
        private: bytes(&rollup, "Private_Clean") + bytes(&rollup, "Private_Dirty"),
        rss: bytes(&rollup, "Rss"),
        anonymous: bytes(&status, "RssAnon"),
        processes: 1,
        threads: tasks(pid)?.len() as u64,
        descriptors: fs::read_dir(folder.join("fd"))?.count() as u64,
    })
}

/// The bytes of the line `NAME: N kB`; 0 if there is none.
fn bytes(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn read(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}

fn unreadable(pid: u32, error: io::Error) -> Error {
    Error::caused(ErrorKind::Io, format!("process {pid} cannot be looked at: {error}"), error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROLLUP: &str =
        "00-ff ---p 00 00:00 0 [rollup]\nRss:   8 kB\nPss:   5 kB\nPss_Dirty: 9 kB\n";

    #[test]
    fn figures_are_found_by_their_whole_name() {
        assert_eq!(bytes(ROLLUP, "Rss"), 8 << 10);
        assert_eq!(bytes(ROLLUP, "Pss"), 5 << 10);
        assert_eq!(bytes(ROLLUP, "Private"), 0);
        assert_eq!(run_time("123 4 5\n"), Some(Duration::from_nanos(123)));
        assert_eq!(run_time("x"), None);
    }

    #[test]
    fn threads_that_come_and_go_make_nothing_negative() {
        let used = |name: &str, ms| Used { name: name.into(), time: Duration::from_millis(ms) };
        let reading = |threads: &[((u32, u32), u64)]| Cpu {
            threads: threads.iter().map(|(id, ms)| (*id, used("bimodal-w-1", *ms))).collect(),
        };
        let before = reading(&[((1, 1), 50), ((1, 2), 500), ((1, 3), 9)]);
        // The second has ended, the third's number went to another thread, the fourth is new.
        let after = reading(&[((1, 1), 57), ((1, 3), 4), ((1, 4), 3)]);
        assert_eq!(after.since(&before), Duration::from_millis(10));
        assert_eq!(before.since(&after), Duration::from_millis(505));
        assert_eq!(after.of_threads("bimodal-").total(), after.total());
        assert_eq!(after.without_threads("bimodal-").total(), Duration::ZERO);
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        // Reading is work, too.
        while cpu(pid).unwrap().since(&before) < Duration::from_millis(2) {}
        let memory = memory(pid).unwrap();
        assert!(memory.pss > 0 && memory.rss >= memory.private && memory.anonymous > 0);
        assert!(memory.processes >= 1 && memory.threads >= 1 && memory.descriptors >= 3);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above any process's number (PID_MAX_LIMIT in proc(5)).
        let none = 1 << 22;
        assert_eq!(cpu(none).unwrap_err().kind(), ErrorKind::Io);
        assert!(memory(none).unwrap_err().to_string().contains("4194304"));
    }
}
