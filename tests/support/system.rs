//! What the operating system knows: descriptors, processes, signals.

use std::{collections::BTreeSet, fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// Descriptors that this process has open (one more is open while they are counted).
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// What the descriptors of a process refer to, sorted by number.
pub fn descriptors_of(pid: u32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut descriptors: Vec<_> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        })
        .collect();
    descriptors.sort();
    descriptors
}

/// Threads of this process.
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// The processes whose parent is this one, zombies included.
pub fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The children of this process.
pub fn children() -> Vec<u32> {
    children_of(std::process::id())
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows it does not.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process exists, be it a zombie.
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The state letter of a process: `R`, `S`, `T` (stopped), `Z` (zombie) and so on.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Sends a signal to a process, if it is still there.
pub fn signal(pid: u32, signal: i32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let signal = Signal::from_named_raw(signal).unwrap();
    let _ = kill_process(pid, signal);
}

/// How many connections to this port of IPv4 have been accepted and are open: those that still wait
/// in a backlog have no inode.
pub fn accepted(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows =
        rows.filter(|row| row[1].ends_with(&local) && row[3] == ESTABLISHED && row[9] != "0");
    // By inode: what is read while others open and close sockets may have a row twice.
    rows.map(|row| row[9]).collect::<BTreeSet<_>>().len()
}
