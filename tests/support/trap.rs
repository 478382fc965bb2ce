//! Workers that are stuck: one that steps into a trap blocks its whole loop until it is let go.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
};

use super::wait_until;

/// Where workers get stuck. The test knows when one is, and lets it go by dropping the stream.
pub struct Trap {
    listener: TcpListener,
}

impl Trap {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// What a worker gives to [`step_into`].
    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Waits until one more worker is stuck. Dropping the stream lets it go.
    #[track_caller]
    pub fn caught(&self) -> TcpStream {
        let mut stream = None;
        wait_until("a worker in the trap", || {
            stream = self.listener.accept().ok();
            stream.is_some()
        });
        stream.unwrap().0
    }
}

/// In a worker: blocks the thread until the test lets it go.
pub fn step_into(address: &str) {
    let _ = TcpStream::connect(address).unwrap().read(&mut [0]);
}
