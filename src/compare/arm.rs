//! An arm, as the comparing program holds it: its process, the line to it, and where it serves.
//!
//! Runs on the thread that called `compare`. No wait here is without a deadline.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Fault, Options,
    child::{ChildProcess, Purpose},
    line::{Line, Order, Received, Report},
};
use crate::{
    clock,
    config::Mode,
    error::{Context as _, Error, ErrorKind, Result},
    sys::channel::seqpacket_pair,
};

/// How long a program may take to get to its comparison.
const ARRIVE: Duration = Duration::from_secs(10);

/// How long an app without a TCP listener is waited for when all its workers listen on something else.
const GRACE: Duration = Duration::from_millis(500);

/// An arm whose workers all listen.
#[derive(Debug)]
pub(super) struct Arm {
    process: ChildProcess,
    /// Absent once the arm, or the comparing program, has hung up.
    line: Option<Line>,
    pub(super) place: Place,
    /// Workers that ended without having been told to, and how.
    pub(super) ended: Vec<String>,
    /// How long after the fault all listened again.
    restored: Option<Duration>,
}

/// Where an arm serves.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// Every address that a worker listens on, in the order in which they were told.
    pub(super) all: Vec<String>,
    /// From the start of the cluster until all its workers listened.
    pub(super) start: Duration,
}

impl Arm {
    /// Starts an arm and waits until all its workers listen.
    pub(super) fn start(
        options: &Options,
        mode: Mode,
        workers: usize,
        purpose: Purpose,
    ) -> Result<Self> {
        let (ours, theirs) = seqpacket_pair()
            .context(ErrorKind::Io, || "make the line to an arm of the comparison".into())?;
        let line = Line::new(ours);
        line.send(&Order::Begin { mode: mode.to_string(), workers })?;
        let process = ChildProcess::start(&options.name, &theirs, purpose)?;
        // Its end of the line is the arm's alone, so that its death hangs up.
        drop(theirs);
        let mut starting = Starting { process, line };
        starting.arrive(&options.name)?;
        let place = starting.place(options.listen_within, workers)?;
        let Starting { process, line } = starting;
        let (ended, restored) = Default::default();
        Ok(Self { process, line: Some(line), place, ended, restored })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets one of its workers commit a fault.
    pub(super) fn commit(&self, fault: Fault) -> Result<()> {
        let closed = || Error::new(ErrorKind::Closed, "the arm has ended");
        self.line.as_ref().ok_or_else(closed)?.send(&Order::Commit(fault))
    }

    /// Takes in what the arm tells until then, or until it hangs up. Whether it is still there.
    pub(super) fn listen_until(&mut self, deadline: Instant) -> Result<bool> {
        while self.hears_more(deadline)? {}
        Ok(self.line.is_some())
    }

    /// How long after the fault all workers listened again, if they do until then.
    pub(super) fn restored_until(&mut self, deadline: Instant) -> Result<Option<Duration>> {
        while self.restored.is_none() && self.hears_more(deadline)? {}
        Ok(self.restored)
    }

    /// Takes in the next thing that the arm tells, if there is one until then.
    fn hears_more(&mut self, deadline: Instant) -> Result<bool> {
        let Some(line) = &self.line else { return Ok(false) };
        match line.receive(Some(deadline))? {
            Received::Value(Report::Ended(text)) => self.ended.push(text),
            Received::Value(Report::Restored(after)) => self.restored = Some(after),
            Received::Value(Report::Failed(text)) => {
                return Err(Error::new(ErrorKind::Start, text));
            }
            Received::Value(Report::Arrived | Report::Listening { .. }) => {}
            Received::Late => return Ok(false),
            Received::End => self.line = None,
        }
        Ok(self.line.is_some())
    }

    /// How the program ended, if it has hung up.
    pub(super) fn exit(&mut self) -> Option<String> {
        self.line.is_none().then(|| self.process.ended())
    }

    /// Why an arm that has hung up cannot be measured.
    pub(super) fn lost(&mut self, when: &str) -> Error {
        self.process.lost(when)
    }

    /// Ends the arm: in good order, if it does so in time.
    pub(super) fn finish(mut self) {
        self.line = None;
        self.process.wait();
    }
}

/// An arm on its way.
struct Starting {
    process: ChildProcess,
    line: Line,
}

impl Starting {
    fn arrive(&mut self, name: &str) -> Result<()> {
        match self.line.receive(Some(clock::now() + ARRIVE))? {
            Received::Value(Report::Arrived) => Ok(()),
            Received::Value(other) => {
                let text = format!("an arm begins with that it has arrived, not with {other:?}");
                Err(Error::new(ErrorKind::Protocol, text))
            }
            Received::End => Err(self.process.lost("before it got to the comparison")),
            Received::Late => {
                let text = format!(
                    "the program, started again, did not get to the comparison {name:?} within {ARRIVE:?}; call `compare` early in `main`, with the same name each time, and before threads are started"
                );
                Err(Error::new(ErrorKind::Start, text))
            }
        }
    }

    /// Waits until all workers listen, and one of them on TCP.
    fn place(&mut self, limit: Duration, workers: usize) -> Result<Place> {
        let mut deadline = clock::now() + limit;
        let (mut tcp, mut all, mut start) = (None, Vec::new(), None);
        loop {
            match self.line.receive(Some(deadline))? {
                Received::Value(Report::Listening { address, tcp: found, listening, after }) => {
                    tcp = tcp.or(found);
                    if !all.contains(&address) {
                        all.push(address);
                    }
                    if listening >= workers && start.is_none() {
                        start = Some(after);
                        deadline = clock::now() + GRACE;
                    }
                }
                Received::Value(Report::Failed(text)) => {
                    return Err(Error::new(ErrorKind::Start, text));
                }
                Received::Value(_) => {}
                Received::Late => return Err(silent(&all, start.is_some(), limit)),
                Received::End => return Err(self.process.lost("before all workers listened")),
            }
            if let (Some(address), Some(start)) = (tcp, start) {
                return Ok(Place { address, all, start });
            }
        }
    }
}

/// Why an arm cannot be measured that told nothing further.
fn silent(all: &[String], complete: bool, limit: Duration) -> Error {
    let text = if complete {
        format!(
            "the app listens on {} only, and requests are sent over TCP; let it listen on a TCP address, too, such as 127.0.0.1:0",
            all.join(", ")
        )
    } else if all.is_empty() {
        format!(
            "the app did not listen within {limit:?}; does its body call `Worker::listen`? If it takes longer, raise `listen_within`"
        )
    } else {
        format!(
            "not all workers listened within {limit:?}; if they take longer, raise `listen_within`"
        )
    };
    Error::new(ErrorKind::Start, text)
}
