//! Signals as events of a loop: a handler only writes a byte, the loop reads it.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};

use mio::Interest;
use signal_hook::{SigId, flag, low_level};

use super::Source;

/// Takes some signals of the process over while it lives; afterwards they do again what they do by
/// default.
pub(crate) struct Signals {
    watched: Vec<Watched>,
    by_default: Arc<AtomicBool>,
}

struct Watched {
    signal: i32,
    handler: SigId,
    bytes: Source<UnixStream>,
}

impl Signals {
    /// Watches these signals on the current loop.
    pub(crate) fn new(signals: &[i32]) -> io::Result<Self> {
        let mut watching = Self { watched: Vec::new(), by_default: Arc::default() };
        for &signal in signals {
            flag::register_conditional_default(signal, watching.by_default.clone())?;
            watching.watched.push(watch(signal)?);
        }
        Ok(watching)
    }

    /// The next signal that came. Equal ones may be merged, as the kernel does (signal(7)).
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<i32> {
        let mut byte = [0];
        for watched in &self.watched {
            let read = watched.bytes.poll_read_io(cx, |mut stream| stream.read(&mut byte));
            if matches!(read, Poll::Ready(Ok(1))) {
                return Poll::Ready(watched.signal);
            }
        }
        Poll::Pending
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.by_default.store(true, SeqCst);
        for watched in &self.watched {
            low_level::unregister(watched.handler);
        }
    }
}

fn watch(signal: i32) -> io::Result<Watched> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    let bytes = Source::new(reader, Interest::READABLE)?;
    Ok(Watched { signal, handler: low_level::pipe::register(signal, writer)?, bytes })
}
