//! One run: a cluster with one worker, and a client that makes exchanges with it. Runs as a process of its own, in
//! [`Mode::Thread`] under valgrind; in [`Mode::Process`] its worker does, as another process.

use std::{
    env,
    future::ready,
    io::Read,
    process::{Command, Stdio},
    time::Duration,
};

use bimodal::{Cluster, Event, Mode, Result, Scheduling, Setup, Worker, WorkerHandle, http};

use crate::{client, valgrind};

/// Far more than any event takes: past it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// The length of a message.
const TEXT_BYTES: usize = 100;

/// What is exchanged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Accept,
    AcceptShared,
    Request,
    Message,
}

impl Path {
    pub(crate) const ALL: [Path; 4] =
        [Path::Accept, Path::AcceptShared, Path::Request, Path::Message];

    /// Its name in `counts.json`, and its cluster's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Path::Accept => "accept",
            Path::AcceptShared => "accept_shared",
            Path::Request => "request",
            Path::Message => "message",
        }
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|path| path.name() == name).expect("the name of a path")
    }
}

/// What one run does.
pub(crate) struct Cell {
    pub(crate) mode: Mode,
    pub(crate) path: Path,
    pub(crate) times: u64,
}

impl Cell {
    const ROLE: &str = "cell";

    /// The arguments that [`from_args`](Self::from_args) reads.
    pub(crate) fn args(&self) -> [String; 4] {
        let Self { mode, path, times } = self;
        [Self::ROLE.into(), mode.to_string(), path.name().into(), times.to_string()]
    }

    /// The run that the command line asks for, if it does.
    pub(crate) fn from_args() -> Option<Self> {
        let mut args = env::args().skip(1);
        (args.next()? == Self::ROLE).then(|| Self {
            mode: args.next().and_then(|mode| mode.parse().ok()).expect("a mode"),
            path: Path::named(&args.next().expect("a path")),
            times: args.next().and_then(|times| times.parse().ok()).expect("a number"),
        })
    }

    /// What a worker process has to get to.
    pub(crate) fn of_worker(name: &str) -> Self {
        Self { mode: Mode::Process, path: Path::named(name), times: 0 }
    }

    pub(crate) fn run(&self) {
        let cluster = self.launch().expect("the cluster starts");
        let worker = cluster.fork().expect("a worker starts");
        let address = address(&cluster, self.path);
        let client = Command::new(env::current_exe().expect("this program"))
            .args(client::args(self, &watched(&worker), &address))
            .stdout(Stdio::piped())
            .spawn();
        let mut client = client.expect("the client starts");
        if self.path == Path::Message {
            send_on_demand(&cluster, &worker, client.stdout.take().expect("a pipe"));
        }
        assert!(client.wait().expect("the client ends").success(), "the client failed");
        cluster.shutdown().expect("the cluster ends");
    }

    fn launch(&self) -> Result<Cluster> {
        let path = self.path;
        let scheduling = match path {
            Path::AcceptShared => Scheduling::Shared,
            _ => Scheduling::RoundRobin,
        };
        let mut builder = Cluster::builder(self.mode).name(path.name()).scheduling(scheduling);
        if self.mode == Mode::Process {
            builder = builder.setup(Setup::new().exec(valgrind::PROGRAM).args(valgrind::args()));
        }
        builder.launch(move |worker| serve(worker, path))
    }
}

async fn serve(worker: Worker, path: Path) -> Result<()> {
    if path == Path::Message {
        while let Some(message) = worker.recv().await {
            let _ = worker.send(message.get::<String>()?)?;
        }
        return Ok(());
    }
    let mut listener = worker.listen("127.0.0.1:0").await?;
    if path == Path::Request {
        return http::serve(listener, http::service_fn(|_| ready(http::text(client::ANSWER))))
            .await;
    }
    while let Some(connection) = listener.accept().await? {
        drop(connection);
    }
    Ok(())
}

/// The processes that have to be at rest before an exchange begins.
fn watched(worker: &WorkerHandle) -> Vec<u32> {
    worker.pid().into_iter().chain([std::process::id()]).collect()
}

/// Where the worker listens; a text that is no address for one that does not.
fn address(cluster: &Cluster, path: Path) -> String {
    loop {
        match next_event(cluster, PATIENCE).expect("an event before the deadline") {
            Event::Listening { address, .. } => return address.to_string(),
            Event::Online { .. } if path == Path::Message => return "none".into(),
            _ => {}
        }
    }
}

/// One message for each byte that the client says. The client waits until everybody is at rest: then the one that
/// the worker sent back is there, and nobody has to wait for it, which would count looks at the clock.
fn send_on_demand(cluster: &Cluster, worker: &WorkerHandle, mut client: impl Read) {
    let mut byte = [0];
    while client.read(&mut byte).expect("a pipe can be read") > 0 {
        let _ = worker.send("x".repeat(TEXT_BYTES)).expect("the worker takes it");
        client.read_exact(&mut byte).expect("the client says that all are at rest");
        let event = next_event(cluster, Duration::ZERO);
        assert!(matches!(event, Some(Event::Message { .. })), "not answered: {event:?}");
    }
}

fn next_event(cluster: &Cluster, patience: Duration) -> Option<Event> {
    let event = cluster.next_event_timeout(patience);
    if let Some(Event::Exit { status, .. }) = &event {
        panic!("the worker has ended: {status}");
    }
    event
}
