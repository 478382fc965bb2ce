//! The client of one run, a process of its own, so that what it does is not counted. An exchange begins when
//! every thread of the server sleeps: how many turns of its loops it takes does not depend on who is faster.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::cell::{Cell, Path};

/// The body of the answer to [`REQUEST`].
pub(crate) const ANSWER: &str = "Hello, World!";

/// The headers that `wrk` and `curl` send.
const REQUEST: &str =
    "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: client\r\nAccept: */*\r\n\r\n";

/// Far more than any exchange takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often all have to be seen asleep in a row.
const LOOKS: usize = 2;

const ROLE: &str = "client";

/// The arguments that [`Client::from_args`] reads.
pub(crate) fn args(cell: &Cell, watched: &[u32], address: &str) -> Vec<String> {
    let head = [ROLE, cell.path.name(), &cell.times.to_string(), address].map(str::to_owned);
    head.into_iter().chain(watched.iter().map(u32::to_string)).collect()
}

pub(crate) struct Client {
    path: Path,
    times: u64,
    address: String,
    /// The server's processes.
    watched: Vec<String>,
}

impl Client {
    /// The client that the command line asks for, if it does.
    pub(crate) fn from_args() -> Option<Self> {
        let mut args = env::args().skip(1);
        (args.next()? == ROLE).then(|| Self {
            path: Path::named(&args.next().expect("a path")),
            times: args.next().and_then(|times| times.parse().ok()).expect("a number"),
            address: args.next().expect("an address"),
            watched: args.collect(),
        })
    }

    pub(crate) fn run(&self) {
        let mut kept = (self.path == Path::Request).then(|| self.connect());
        for _ in 0..self.times {
            self.wait_until_all_sleep();
            match &mut kept {
                Some(stream) => request(stream),
                None if self.path == Path::Message => self.message(),
                None => await_end(self.connect()),
            }
        }
        self.wait_until_all_sleep();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        stream
    }

    /// Lets the server send one, and says when it is done.
    fn message(&self) {
        say_to_the_server();
        self.wait_until_all_sleep();
        say_to_the_server();
    }

    fn wait_until_all_sleep(&self) {
        let start = Instant::now();
        let mut seen = 0;
        while seen < LOOKS {
            seen = if self.watched.iter().all(|process| sleeps(process)) { seen + 1 } else { 0 };
            assert!(start.elapsed() < PATIENCE, "the server does not come to rest");
            std::thread::yield_now();
        }
    }
}

fn request(stream: &mut TcpStream) {
    stream.write_all(REQUEST.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    while !answer.ends_with(ANSWER.as_bytes()) {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).expect("an answer before the deadline");
        assert!(count > 0, "the server closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

fn await_end(mut stream: TcpStream) {
    let count = stream.read(&mut [0; 16]).expect("the end before the deadline");
    assert_eq!(count, 0, "nobody sends anything");
}

fn say_to_the_server() {
    let mut out = std::io::stdout();
    out.write_all(b".").and_then(|()| out.flush()).expect("the server reads");
}

/// Whether every thread of the process waits for something (proc_pid_stat(5): the state is what follows the name).
fn sleeps(process: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the server runs");
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("stat"))
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
    })
}
