//! The server that suffers: a process of its own, which says what happens on its standard output, a line for each
//! event: `listening WORKER ADDRESS`, `exit WORKER`.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{self, Child, ChildStdout, Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, Event, Health, Mode, Recycle, Restart, Result, Worker, http,
    load::{Arrival, Expect, Load, Request, Reuse, Until},
};
use rustix::process::{
    Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit,
};

use crate::{SILENCE, fault::Fault};

pub(crate) const WORKERS: usize = 2;

/// The argument that makes this program the server; the mode follows, and the process that it belongs to.
const ROLE: &str = "--server";

/// Open descriptors per process, at most.
const DESCRIPTORS: u64 = 512;

/// How long each step against a worker that hangs may take.
const STEP: Duration = Duration::from_millis(100);

/// Memory of its own that a worker process may have, in bytes.
const MEMORY: u64 = 32 << 20;

/// More than requests can be under way at this rate and with this timeout, however many connections are stuck.
const CONNECTIONS: usize = 160;

/// Connections that are opened after the fault, beside those of the load.
pub(crate) const NEWCOMERS: usize = 64;

const PER_SECOND: f64 = 250.0;

/// Requests on one connection: new ones come all the time.
const REUSE: u32 = 20;

/// How long a request may take: a server that does not answer costs no more.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Far more than any start or repair takes: past it something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any load that is not stopped before.
const LONG: Duration = Duration::from_secs(3600);

/// The mode of the server that the command line asks for, if it does.
pub(crate) fn asked_for() -> Option<Mode> {
    let mut args = env::args().skip_while(|arg| arg != ROLE).skip(1);
    let mode = args.next()?.parse().expect("a mode");
    // A worker process belongs to its primary already.
    if bimodal::worker_of().is_none() {
        end_with(&args.next().expect("a process"));
    }
    Some(mode)
}

/// Lets the kernel kill this process when the bench ends in any way.
fn end_with(owner: &str) {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("a signal");
    let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    assert_eq!(parent.as_deref(), Some(owner), "the bench has ended");
}

/// Serves until it ends of a fault, or is killed. In a worker process it does not return.
pub(crate) fn run(mode: Mode) -> ExitCode {
    // What is said of a panic costs more than all the rest.
    std::panic::set_hook(Box::new(|_| {}));
    limit(Resource::Core, 0);
    limit(Resource::Nofile, DESCRIPTORS);
    let now = Duration::ZERO;
    let restart = Restart { first_delay: now, longest_delay: now, ..Restart::default() };
    let memory = (mode == Mode::Process).then_some(MEMORY);
    let builder = Cluster::builder(mode)
        .name("isolation")
        .workers(WORKERS)
        .restart(restart)
        .health(Health { deadline: SILENCE, patience: STEP })
        .recycle(Recycle { memory, ..Recycle::default() })
        .on_event(say);
    builder.run(serve).expect("the cluster starts");
    ExitCode::SUCCESS
}

fn limit(resource: Resource, count: u64) {
    let limit = Rlimit { current: Some(count), maximum: Some(count) };
    setrlimit(resource, limit).expect("a lower limit than the one there is");
}

fn say(event: &Event) {
    match event {
        Event::Listening { worker, address } => println!("listening {} {address}", worker.id()),
        Event::Exit { worker, .. } => println!("exit {}", worker.id()),
        _ => {}
    }
}

async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let answer = async |request: http::Request<http::Incoming>| {
        if let Some(fault) = request.uri().path().strip_prefix("/fault/").and_then(Fault::named) {
            fault.commit();
        }
        http::text("Hello, World!")
    };
    http::serve(listener, http::service_fn(answer)).await
}

/// A server, seen from the program that measures it. It is killed in the end; its worker processes go with it. To be
/// started on the main thread: it ends when the thread does that started it.
pub(crate) struct Server {
    child: Child,
    events: Receiver<Said>,
    address: String,
    /// The workers that were there at first and have not ended.
    survivors: Vec<u64>,
}

/// What was waited for, or that it does not come.
type Outcome<T> = std::result::Result<T, Never>;

/// What a line says.
enum Said {
    Listening(u64, String),
    Exit(u64),
}

/// Why a worker was not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Never {
    /// The program has ended.
    Ended,
    /// It goes on as if nothing had happened.
    Unnoticed,
}

impl Server {
    /// A server whose workers all listen.
    pub(crate) fn start(mode: Mode) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args([ROLE, &mode.to_string(), &process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // What it says of its faults.
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let events = read(child.stdout.take().expect("a pipe"));
        let (address, survivors) = (String::new(), Vec::new());
        let mut server = Self { child, events, address, survivors };
        while server.survivors.len() < WORKERS {
            let (worker, address) = server.next_listening(PATIENCE).expect("its workers listen");
            server.address = address;
            server.survivors.push(worker);
        }
        server
    }

    /// The load that it has: it goes on until it is stopped.
    pub(crate) fn load(&self) -> Load {
        self.requests()
            .arrival(Arrival::Constant { per_second: PER_SECOND })
            .connections(CONNECTIONS)
            .reuse(Reuse::Requests(REUSE))
            .until(Until::Elapsed(LONG))
    }

    /// Clients that come at the same time, one request each: how many of them are answered.
    pub(crate) fn welcome(&self) -> u64 {
        let all = self.requests().connections(NEWCOMERS).until(Until::Requests(NEWCOMERS as u64));
        all.run().expect("the load runs").completed()
    }

    fn requests(&self) -> Load {
        let expect = Expect { body: Some(b"Hello, World!".to_vec()), ..Expect::default() };
        let load = Load::new(&format!("http://{}", self.address)).expect("an address");
        load.request(1, Request { expect, ..Request::get("/") }).timeout(TIMEOUT)
    }

    /// Lets one worker do it. How long it takes until another one listens in its place, if it does within `patience`.
    pub(crate) fn suffer(&mut self, fault: Fault, patience: Duration) -> Outcome<Duration> {
        // What came before is not of this fault.
        self.survivors();
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        let request = format!("GET /fault/{} HTTP/1.1\r\nHost: here\r\n\r\n", fault.name());
        let start = Instant::now();
        stream.write_all(request.as_bytes()).expect("the server reads");
        self.next_listening(patience)?;
        Ok(start.elapsed())
    }

    /// How many of the first workers have not ended.
    pub(crate) fn survivors(&mut self) -> usize {
        while self.next_listening(Duration::ZERO).is_ok() {}
        self.survivors.len()
    }

    /// Who listens next, and where. Keeps count of those who end meanwhile.
    fn next_listening(&mut self, patience: Duration) -> Outcome<(u64, String)> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Said::Listening(worker, address)) => return Ok((worker, address)),
                Ok(Said::Exit(worker)) => self.survivors.retain(|survivor| *survivor != worker),
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(Never::Unnoticed),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.survivors.clear();
                    return Err(Never::Ended);
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if these fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server says, until it says nothing any more.
fn read(output: ChildStdout) -> Receiver<Said> {
    let (sender, events) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
            if let Some(said) = Said::parse(&line)
                && sender.send(said).is_err()
            {
                return;
            }
        }
    });
    events
}

impl Said {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (event, worker) = (words.next()?, words.next()?.parse().ok()?);
        match event {
            "listening" => Some(Self::Listening(worker, words.next()?.to_owned())),
            "exit" => Some(Self::Exit(worker)),
            _ => None,
        }
    }
}
