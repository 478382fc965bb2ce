//! Real faults, not simulated ones. As a process a worker dies of them alone; as a thread it takes the program with
//! it in the cases of abort, segfault, stack-overflow and exit. That is the lesson.

use std::{fs::File, hint::black_box, mem, process};

use bimodal::http::Uri;
use rustix::process::{Signal, getpid, kill_process};

use super::routes::number;

/// More descriptors than any usual limit, and more memory than a machine for lessons has.
const MAX_DESCRIPTORS: u64 = 1_000_000;
const MAX_MIB: u64 = 65_536;

/// The exit code of `/fault/exit`.
const EXIT_CODE: i32 = 3;

/// A way to go wrong.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Panic,
    Abort,
    Segfault,
    StackOverflow,
    Spin,
    Exit,
    LeakFd,
    LeakMemory,
}

impl Fault {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "panic" => Self::Panic,
            "abort" => Self::Abort,
            "segfault" => Self::Segfault,
            "stack-overflow" => Self::StackOverflow,
            "spin" => Self::Spin,
            "exit" => Self::Exit,
            "leak-fd" => Self::LeakFd,
            "leak-memory" => Self::LeakMemory,
            _ => return None,
        })
    }

    /// Does it. Only the leaks return, with what leaked; an `Err` is what is wrong with the query.
    pub(crate) fn commit(self, uri: &Uri) -> Result<String, String> {
        match self {
            Self::Panic => panic!("a fault was asked for"),
            Self::Abort => process::abort(),
            Self::Segfault => segfault(),
            Self::StackOverflow => Ok(format!("{} frames\n", overflow(0))),
            Self::Spin => spin(),
            Self::Exit => process::exit(EXIT_CODE),
            Self::LeakFd => number(uri, "n", Some(1), MAX_DESCRIPTORS).map(leak_descriptors),
            Self::LeakMemory => number(uri, "mib", Some(1), MAX_MIB).map(leak_memory),
        }
    }
}

/// Dies of SIGSEGV. Rust's runtime takes the first one, to tell a stack overflow from other faults, and restores the
/// default action; the next one ends the process.
fn segfault() -> ! {
    loop {
        // It cannot fail: the signal goes to this very process.
        let _ = kill_process(getpid(), Signal::SEGV);
    }
}

/// Recurses until the guard page is hit; what is computed keeps the compiler from making a loop of it.
#[expect(unconditional_recursion, reason = "it is the fault")]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    overflow(depth + 1) + frame[0]
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn leak_descriptors(wanted: u64) -> String {
    for leaked in 0..wanted {
        match File::open("/dev/null") {
            Ok(file) => mem::forget(file),
            Err(error) => return format!("leaked {leaked} descriptors, then: {error}\n"),
        }
    }
    format!("leaked {wanted} descriptors\n")
}

/// Written to, so that it is really taken from the system.
fn leak_memory(mib: u64) -> String {
    for _ in 0..mib {
        mem::forget(black_box(vec![1_u8; 1 << 20]));
    }
    format!("leaked {mib} MiB\n")
}
