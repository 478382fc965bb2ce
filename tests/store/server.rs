//! A Redis server of a test's own, on a Unix socket, with room for 64 MB.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::support::wait_until;

const PROGRAM: &str = "redis-server";

/// Whether tests can have a server. Where everything must be tested, not having one is a failure.
pub fn is_there() -> bool {
    let found = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().is_ok();
    let required = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(found || !required, "{PROGRAM} is not on the PATH, and CI is set: install it");
    if !found {
        eprintln!("\nTHE TESTS OF REDIS ARE SKIPPED: {PROGRAM} is not on the PATH\n");
    }
    found
}

/// A server that keeps what it acknowledged in a file before it does so, until it is dropped.
pub struct Server {
    directory: PathBuf,
    child: Option<Child>,
}

impl Server {
    pub fn start(directory: &Path) -> Self {
        let mut server = Self { directory: directory.join("redis"), child: None };
        fs::create_dir(&server.directory).unwrap();
        server.start_again();
        server
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Starts it with what it held before.
    pub fn start_again(&mut self) {
        let mut command = Command::new(PROGRAM);
        command.args(["--port", "0", "--save", "", "--appendonly", "yes"]);
        // With the default, `everysec`, a write may be put off until after its reply.
        command.args(["--appendfsync", "no"]);
        command.args(["--maxmemory", "64mb"]);
        command.arg("--dir").arg(&self.directory).arg("--unixsocket").arg(self.socket());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        wait_until("the Redis server", || UnixStream::connect(self.socket()).is_ok());
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
