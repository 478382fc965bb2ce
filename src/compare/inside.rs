//! An arm from the inside.
//!
//! Runs in the arm: the thread that called `compare` reads the cluster's events and tells the comparing program, a
//! second thread takes that program's orders. An arm never returns to the program, it ends the process: in good
//! order when the comparing program hangs up; the kernel kills it when that program dies.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::exit,
    thread,
    time::{Duration, Instant},
};

use super::{
    fault,
    line::{Line, Order, Received, Report, cut},
};
use crate::{
    clock,
    cluster::Cluster,
    config::{Address, Mode},
    error::{Error, ErrorKind, Result},
    event::ExitStatus,
    events::Event,
    id::WorkerId,
    sys::process,
};

/// How long an arm waits for its first order, which was sent before it was started.
const BEGIN: Duration = Duration::from_secs(10);

/// Is the arm: runs the cluster that `start` starts, and ends the process.
pub(super) fn serve(line: &Line, start: impl FnOnce(Mode, usize) -> Result<Cluster>) -> ! {
    let started = begin(line).and_then(|(mode, workers)| {
        // An arm may be told to abort, and that leaves nothing.
        process::forbid_core_dumps()?;
        let before = clock::now();
        Ok((start(mode, workers)?, workers, before))
    });
    match started {
        Ok((cluster, workers, before)) => attend(line, &cluster, workers, before),
        Err(error) => fail(line, error.to_string()),
    }
}

fn begin(line: &Line) -> Result<(Mode, usize)> {
    let order = line.receive(Some(clock::now() + BEGIN))?;
    let Received::Value(Order::Begin { mode, workers }) = order else {
        let text = format!("the first order of a comparison is to begin, and it was {order:?}");
        return Err(Error::new(ErrorKind::Protocol, text));
    };
    line.send(&Report::Arrived)?;
    Ok((mode.parse()?, workers))
}

/// If it cannot be sent, the end of the line says as much.
fn fail(line: &Line, text: String) -> ! {
    let _ = line.send(&Report::Failed(cut(text)));
    exit(1)
}

fn attend(line: &Line, cluster: &Cluster, workers: usize, before: Instant) -> ! {
    thread::scope(|scope| {
        scope.spawn(|| obey(line, cluster));
        let mut watch = Watch::new(line, cluster, workers, before);
        match cluster.events().try_for_each(|event| watch.see(&event)) {
            Ok(()) => exit(0),
            Err(text) => fail(line, text),
        }
    })
}

/// Does what the comparing program orders, and stops the cluster when it hangs up.
fn obey(line: &Line, cluster: &Cluster) {
    loop {
        match line.receive(None) {
            Ok(Received::Value(Order::Commit(fault))) => {
                if let Err(error) = fault::order(cluster, fault) {
                    fail(line, error.to_string());
                }
            }
            Ok(Received::Late) => {}
            Ok(Received::Value(Order::Begin { .. }) | Received::End) | Err(_) => {
                // It fails where the cluster has ended already, and then the events end, too.
                let _ = cluster.stop();
                return;
            }
        }
    }
}

/// What the events say about the cluster as a whole.
struct Watch<'a> {
    line: &'a Line,
    cluster: &'a Cluster,
    workers: usize,
    before: Instant,
    listening: BTreeSet<WorkerId>,
    /// All workers have listened.
    complete: bool,
    /// A worker has ended after a fault, and not all listen again.
    broken: bool,
    /// What a worker said last about its end.
    reason: Option<String>,
}

impl<'a> Watch<'a> {
    fn new(line: &'a Line, cluster: &'a Cluster, workers: usize, before: Instant) -> Self {
        let (complete, broken) = (false, false);
        let (listening, reason) = Default::default();
        Self { line, cluster, workers, before, listening, complete, broken, reason }
    }

    /// Takes an event in; the error says why the arm cannot go on.
    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Listening { worker, address } => self.listens(worker.id(), address),
            Event::Error { error, .. } => self.reason = Some(error.to_string()),
            Event::Disconnect { worker } => drop(self.listening.remove(&worker.id())),
            Event::Exit { worker, status } => return self.ended(worker.id(), *status),
            _ => {}
        }
        Ok(())
    }

    fn listens(&mut self, worker: WorkerId, address: &Address) {
        self.listening.insert(worker);
        let all = self.listening.len() >= self.workers;
        self.complete |= all;
        let tcp = match address {
            Address::Tcp(address) => Some(reachable(*address)),
            _ => None,
        };
        let (address, listening) = (cut(address.to_string()), self.listening.len());
        self.tell(&Report::Listening {
            address,
            tcp,
            listening,
            after: clock::now() - self.before,
        });
        if all && std::mem::take(&mut self.broken) {
            let since = fault::since(self.cluster);
            since.into_iter().for_each(|since| self.tell(&Report::Restored(since)));
        }
    }

    fn ended(&mut self, worker: WorkerId, status: ExitStatus) -> Result<(), String> {
        self.listening.remove(&worker);
        let reason = self.reason.take().map_or_else(String::new, |reason| format!(": {reason}"));
        let text = format!("worker {worker} ended with {status}{reason}");
        if !self.complete {
            return Err(format!("not all workers listened: {text}"));
        }
        self.broken |= fault::since(self.cluster).is_some();
        self.tell(&Report::Ended(cut(text)));
        Ok(())
    }

    /// A program that does not listen for so long that the line is full learns less.
    fn tell(&self, report: &Report) {
        if let Err(error) = self.line.send(report) {
            log::warn!("the comparing program is not told {report:?}: {error}");
        }
    }
}

/// Where a client on this machine reaches a listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        match &mut address {
            SocketAddr::V4(address) => address.set_ip(std::net::Ipv4Addr::LOCALHOST),
            SocketAddr::V6(address) => address.set_ip(std::net::Ipv6Addr::LOCALHOST),
        }
    }
    address
}
