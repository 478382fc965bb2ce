//! A server that tests start as a program of its own, and what the system says of it from outside.
//!
//! The program prints one line per event, and at the end its report or its error. Its options are
//! `key=value` arguments, see [`options`].

#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    convert::Infallible,
    fs,
    os::unix::process::CommandExt as _,
    process::{Command, exit},
    time::{Duration, Instant},
};

use bimodal::{
    Address, Builder, Event, Mode, Result, Setup, Stdio, Worker, event_loop,
    http::{self, Bytes, Full, Incoming, Request, Response},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{
    Scene,
    client::get,
    program::{self, Program},
    system, wait_until,
};

/// The name of the program.
pub const SERVE: &str = "serve";

/// The program: a supervised server.
pub fn serve(scene: &Scene) {
    let run = options(scene.builder()).on_event(print).run(body);
    match run {
        Ok(report) => println!("report {report:?}"),
        Err(error) => {
            println!("failed {:?} {error}", error.kind());
            exit(1);
        }
    }
}

/// Options from the command line. `nofile=N` limits descriptors of the program itself, at once.
fn options(builder: Builder) -> Builder {
    program::args().iter().fold(builder, |builder, option| {
        let (key, value) = option.split_once('=').unwrap();
        let number = || value.parse::<usize>().unwrap();
        match key {
            "workers" => builder.workers(number()),
            "scheduling" => builder.scheduling(value.parse().unwrap()),
            "window" => builder.window(number()),
            "grace" => builder.shutdown_timeout(Duration::from_millis(number() as u64)),
            "env" => builder.setup(Setup::new().env("BIMODAL_TEST", value)),
            "cwd" => builder.setup(Setup::new().cwd(value)),
            "uid" => builder.setup(Setup::new().uid(number() as u32)),
            "gid" => builder.setup(Setup::new().gid(number() as u32)),
            "stdio" => builder.setup(Setup::new().stdio(Stdio::Null)),
            "nofile" => {
                limit(std::process::id(), Resource::Nofile, Some(number() as u64));
                builder
            }
            _ => panic!("unknown option {option}"),
        }
    })
}

fn print(event: &Event) {
    match event {
        Event::Fork { worker } => println!("fork {} {}", worker.id(), worker.pid().unwrap_or(0)),
        Event::Listening { worker, address } => println!("listening {} {address}", worker.id()),
        Event::Exit { worker, status } => println!("exit {} {status}", worker.id()),
        Event::Error { error, .. } => println!("error {error}"),
        _ => {}
    }
}

async fn body(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let service = move |request: Request<Incoming>| answer(worker.clone(), request);
    http::serve(listener, http::service_fn(service)).await
}

async fn answer(
    worker: Worker,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    Ok(http::text(match path.strip_prefix("/sleep/") {
        Some(time) => {
            event_loop::sleep(Duration::from_millis(time.parse().unwrap_or(0))).await;
            "slept".into()
        }
        None => reply(&worker, path),
    }))
}

fn reply(worker: &Worker, path: &str) -> String {
    match path {
        "/spin" => loop {
            std::hint::spin_loop();
        },
        "/panic" => panic!("a panic was asked for"),
        "/thread" => std::thread::current().name().unwrap_or_default().into(),
        "/marker" => format!("{:?}", std::env::var_os("BIMODAL_WORKER")),
        // The limit that binds the primary, set by somebody of the same user.
        "/processes/limit" => limited_processes(Some(1)),
        "/processes/free" => limited_processes(rustix::process::getrlimit(Resource::Nproc).maximum),
        "/grandchild" => {
            let command = program::command("ordinary", Mode::Process).output().unwrap();
            String::from_utf8_lossy(&command.stdout).into_owned()
        }
        _ => format!("{} {}", worker.id(), std::process::id()),
    }
}

fn limited_processes(soft: Option<u64>) -> String {
    format!("{:?}", limit(std::os::unix::process::parent_id(), Resource::Nproc, soft))
}

/// The descriptors that every program started by this one inherits, whoever left them open: of those,
/// a worker has no say.
pub fn inheritable() -> Vec<i32> {
    let own = std::process::id();
    let numbers = system::descriptors_of(own).into_iter().map(|(number, _)| number);
    numbers.filter(|number| *number > 2 && !closes_on_exec(own, *number)).collect()
}

/// Whether a descriptor of a process is close-on-exec; true for one that is not there any more.
pub fn closes_on_exec(pid: u32, number: i32) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_none_or(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & O_CLOEXEC != 0)
}

/// A program that says whether it thinks that it is a worker, and what it inherited.
pub fn ordinary(_: &Scene) {
    let descriptors = system::descriptors_of(std::process::id());
    let inherited = descriptors.iter().filter(|(number, to)| *number > 2 && !to.ends_with("/fd"));
    let numbers: Vec<_> = inherited.map(|(number, _)| *number).collect();
    println!("worker of {:?}, inherited {numbers:?}", bimodal::worker_of());
}

/// A running server and its workers, as its own process group.
pub struct Server {
    pub program: Program,
    pub address: Address,
    /// The worker processes, by the number of their start.
    pub pids: Vec<u32>,
}

/// The command that starts the server in a process group of its own.
pub fn command(mode: Mode, options: &[&str]) -> Command {
    let mut command = program::command(SERVE, mode);
    command.args(options).process_group(0);
    command
}

/// Starts a server with so many workers and waits until all listen.
#[track_caller]
pub fn start(mode: Mode, workers: usize, options: &[&str]) -> Server {
    let workers = format!("workers={workers}");
    Server::spawn(command(mode, options).arg(workers))
}

impl Server {
    /// Starts the server of a [`command`] whose last argument is `workers=N`.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let workers =
            command.get_args().last().and_then(|arg| arg.to_str()?.strip_prefix("workers="));
        let workers: usize = workers.unwrap().parse().unwrap();
        let program = Program::spawn(command);
        let address = Address::Unix("not known yet".into());
        let mut server = Self { program, address, pids: Vec::new() };
        for _ in 0..workers {
            server.address = server.next_listening();
        }
        server
    }

    /// Reads up to the next worker that listens.
    #[track_caller]
    pub fn next_listening(&mut self) -> Address {
        let line = self.program.line(|line| line.starts_with("listening "));
        self.note_forks();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Reads up to the next worker that ended, and says which and how.
    #[track_caller]
    pub fn next_exit(&mut self) -> String {
        let line = self.program.line(|line| line.starts_with("exit "));
        self.note_forks();
        line.strip_prefix("exit ").unwrap().into()
    }

    fn note_forks(&mut self) {
        let forks = self.program.output.iter().filter_map(|line| line.strip_prefix("fork "));
        self.pids = forks.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    }

    pub fn primary(&self) -> u32 {
        self.program.pid()
    }

    /// What `GET path` says.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let answer = get(&self.address, path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        answer.text().into()
    }

    /// Stops the server in good order: it must succeed and leave no process. Returns its report.
    #[track_caller]
    pub fn stop(self) -> String {
        self.program.signal(15);
        self.succeed()
    }

    /// Waits for the end of a server that was told to stop, as [`Server::stop`] does.
    #[track_caller]
    pub fn succeed(mut self) -> String {
        let status = self.program.wait();
        let errors = self.program.errors();
        assert_eq!(status.code(), Some(0), "{:#?}\n{errors}", self.program.output);
        assert_nobody_left(self.primary());
        self.program.output.pop().unwrap()
    }
}

impl Drop for Server {
    /// Whatever a failed test leaves: a worker that spins, or one that is stopped.
    fn drop(&mut self) {
        for pid in group(self.primary()) {
            system::signal(pid, 9);
        }
    }
}

/// Waits until nothing of this process group runs.
#[track_caller]
pub fn assert_nobody_left(leader: u32) {
    wait_until("the end of all workers", || group(leader).is_empty());
}

/// The processes of a group that run: zombies are not counted.
pub fn group(leader: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let belongs = |pid: &u32| {
        let fields = stat(*pid).unwrap_or_default();
        fields.get(2) == Some(&leader.to_string()) && fields[0] != "Z"
    };
    pids.filter(belongs).collect()
}

/// The fields of `/proc/PID/stat` that follow the name: state, parent, group and so on (proc(5)).
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The CPU time a process has used, at 10 ms resolution.
pub fn cpu_time(pid: u32) -> Duration {
    let fields = stat(pid).unwrap();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// The CPU time a process uses while this much time passes.
pub fn cpu_time_during(pid: u32, time: Duration) -> Duration {
    let before = cpu_time(pid);
    pass(time);
    cpu_time(pid) - before
}

/// Lets time pass, where time itself is what is waited for.
pub fn pass(time: Duration) {
    let end = Instant::now() + time;
    wait_until("time to pass", || Instant::now() >= end);
}

/// Sets a soft limit of a process and returns the one before. The hard limit is the one that all
/// inherited.
pub fn limit(pid: u32, resource: Resource, soft: Option<u64>) -> Option<u64> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let limit = Rlimit { current: soft, maximum };
    prlimit(Pid::from_raw(pid as i32), resource, limit).unwrap().current
}
