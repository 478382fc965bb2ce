//! Raw operating system calls: the only place with `unsafe`, and it decides nothing.
//!
//! Callable from any thread of the primary and of the workers unless an item says otherwise. It knows no
//! type of the crate: it takes borrowed descriptors, gives owned ones, and fails with [`std::io::Error`].
//!
//! What every platform must provide:
//!
//! * [`channel`]: a connected pair that keeps packets apart and in order and carries descriptors *with* their
//!   packet. Linux has `SOCK_SEQPACKET`; elsewhere a stream with a length before every packet would do.
//! * [`process`]: a child that inherits one named descriptor and no other, that does not outlive the thread
//!   that started it, and a descriptor that becomes readable when it ends. Linux has `PDEATHSIG` and pidfds;
//!   elsewhere the channel's end of file and `SIGCHLD` have to serve.
//! * [`environment`]: reading and removing the marker that makes a process a worker, and adopting the
//!   descriptor it names.
//! * [`descriptor`]: duplicating a descriptor that is known by its number.
//! * [`epoll`]: waking one of several loops that wait for the same descriptor. Where that does not exist, all wake.
//! * [`first`]: splitting a process in two, and leaving its first half with nothing. Only where there are process
//!   namespaces.
//! * [`memory`]: words that several processes share and that nobody can shrink under a reader. Linux has
//!   sealed memfds; elsewhere an unlinked file that is handed to nobody but the workers.
//! * `lmdb` (feature `store-lmdb`): opening an environment; the same everywhere.
//! * [`socket`]: how many connections wait to be accepted. It may be left out elsewhere.
//! * [`futex`]: sleeping until another process changes a word. Elsewhere a short sleep and another look would
//!   do.
//! * [`thread`]: a thread's shown name and signal mask, and clocks of the CPU time of others. All of it may be
//!   left out elsewhere.
//! * `timer` (feature `compare`): a descriptor that becomes readable at a time. Linux has timerfds; elsewhere the
//!   event loop's own timeout.
//!
//! Invariants: every descriptor made here is close-on-exec from birth; nothing here blocks but the waits of
//! [`futex`] (channels are non-blocking); an interrupted call is repeated here, so no caller sees `EINTR`.

pub(crate) mod channel;
pub(crate) mod descriptor;
pub(crate) mod environment;
pub(crate) mod epoll;
pub(crate) mod first;
pub(crate) mod futex;
#[cfg(feature = "store-lmdb")]
pub(crate) mod lmdb;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod thread;
#[cfg(feature = "compare")]
pub(crate) mod timer;
