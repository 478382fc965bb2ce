//! The faults of a worker, and what is to be expected of each.

use std::{fs::File, hint::black_box, mem, process};

use bimodal::Mode;
use rustix::process::{Signal, getpid, kill_process};

/// More than a worker may have of its own.
const LEAKED_MIB: usize = 64;

/// A way to go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Panic,
    Abort,
    Segfault,
    StackOverflow,
    Exit,
    Spin,
    LeakMemory,
    LeakDescriptors,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Panic,
        Self::Abort,
        Self::Segfault,
        Self::StackOverflow,
        Self::Exit,
        Self::Spin,
        Self::LeakMemory,
        Self::LeakDescriptors,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Abort => "abort",
            Self::Segfault => "segfault",
            Self::StackOverflow => "stack-overflow",
            Self::Exit => "exit",
            Self::Spin => "spin",
            Self::LeakMemory => "leak-memory",
            Self::LeakDescriptors => "leak-descriptors",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether the worker is replaced: else the program ends with it, or nobody notices.
    pub(crate) fn is_repaired(self, mode: Mode) -> bool {
        match self {
            Self::Panic | Self::Spin => true,
            Self::LeakDescriptors => false,
            Self::Abort | Self::Segfault | Self::StackOverflow | Self::Exit | Self::LeakMemory => {
                mode == Mode::Process
            }
        }
    }

    /// Whether it ends the program.
    pub(crate) fn ends_all(self, mode: Mode) -> bool {
        let ends_a_process =
            matches!(self, Self::Abort | Self::Segfault | Self::StackOverflow | Self::Exit);
        ends_a_process && mode == Mode::Thread
    }

    /// Does it, on the loop of the worker. Only the leaks return.
    pub(crate) fn commit(self) {
        match self {
            Self::Panic => panic!("a fault was asked for"),
            Self::Abort => process::abort(),
            Self::Segfault => segfault(),
            Self::StackOverflow => drop(black_box(overflow(0))),
            Self::Exit => process::exit(3),
            Self::Spin => loop {
                std::hint::spin_loop();
            },
            // Written to, so that it is really taken from the system.
            Self::LeakMemory => mem::forget(black_box(vec![1_u8; LEAKED_MIB << 20])),
            Self::LeakDescriptors => {
                while let Ok(file) = File::open("/dev/null") {
                    mem::forget(file);
                }
            }
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
