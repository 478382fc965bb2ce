//! No request is lost while workers come and go: every one ends in a named column, and the table is asserted.
//!
//! A request is lost if its connection was refused, or ended without the answer although the request had been sent.
//! A kept connection that was closed before the next request is an ordinary end, and so is one whose client was held
//! up by its machine for longer than a drain promises to wait.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Address, Cluster, Decision, Event, Health, Mode, Recycle, Restart, Rollout, Scheduling,
};

use crate::{
    supervising::{decision, served},
    support::{
        Scenario, Scene, both,
        client::{Answer, Client},
        events::until,
        ledger::Ledger,
        only, system, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("reloads_lose_nothing_under_round_robin", |scene| reloads(scene, Scheduling::RoundRobin)),
    both("reloads_lose_nothing_under_least_connections", |scene| {
        reloads(scene, Scheduling::LeastConnections);
    }),
    both("reloads_lose_nothing_under_shared", |scene| reloads(scene, Scheduling::Shared)),
    both("reloads_lose_nothing_under_reuse_port", |scene| reloads(scene, Scheduling::ReusePort)),
    both("recycling_loses_nothing", recyclings),
    both("scaling_loses_nothing", scalings),
    // What a killed thread had on its loop ends with it, too, but a thread is killed only between two turns.
    only(&[Mode::Process], "kills_lose_only_what_the_killed_held", kills),
];

/// Clients of each kind.
const KEEPING: usize = 3;
const NEW: usize = 2;

/// For how long a drain waits for the next request of a connection, and for the first one.
const NEXT: Duration = Duration::from_millis(250);
const FIRST: Duration = Duration::from_secs(1);

/// What the clients saw.
#[derive(Default)]
struct Books {
    /// Requests on kept connections, and on connections of their own.
    kept: Ledger,
    new: Ledger,
    /// Which client lost a request on a connection of which worker.
    lost: Mutex<Vec<(usize, u64)>>,
    stop: AtomicBool,
}

impl Books {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn answered(&self) -> u64 {
        self.kept.get("ok").min(self.new.get("ok"))
    }

    /// Waits until every kind of client got some more answers.
    fn pass(&self) {
        let before = self.answered();
        wait_until("some more answers", || self.answered() >= before + 10);
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept:\n{}new:\n{}", self.kept, self.new);
        }
    }
}

/// Ends the clients when it is dropped, also by a panic.
struct Ending<'a>(&'a Books);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Does something to a cluster while clients send requests.
fn under_load(address: &Address, work: impl FnOnce(&Books)) -> Books {
    let books = Books::default();
    thread::scope(|scope| {
        let ending = Ending(&books);
        for client in 0..KEEPING {
            let books = &books;
            scope.spawn(move || keep_asking(client, address, books));
        }
        for _ in 0..NEW {
            scope.spawn(|| ask_anew(address, &books));
        }
        books.pass();
        work(&books);
        books.pass();
        drop(ending);
    });
    books
}

/// A connection, and until when its next request will be answered even if a drain comes.
struct Promised {
    client: Client,
    since: Instant,
    time: Duration,
}

impl Promised {
    fn connect(address: &Address) -> io::Result<Self> {
        let since = Instant::now();
        Ok(Self { client: Client::connect(address)?, since, time: FIRST })
    }

    /// An answer; `None` if there is none and the request was sent too late for one to be promised.
    fn get(&mut self) -> io::Result<Option<Answer>> {
        let begun = Instant::now();
        let sent = self.client.request("/");
        let is_late = self.since.elapsed() >= self.time;
        let answer = sent.and_then(|()| self.client.answer());
        (self.since, self.time) = (begun, NEXT);
        if is_late { Ok(answer.ok()) } else { answer.map(Some) }
    }
}

/// Requests on one connection, with pauses, for as long as it lasts; then on the next one.
fn keep_asking(number: usize, address: &Address, books: &Books) {
    while books.goes_on() {
        let mut connection = match Promised::connect(address) {
            Ok(connection) => connection,
            Err(error) => return books.kept.count(format!("refused: {error}")),
        };
        let mut worker = 0;
        while books.goes_on() && !connection.client.is_closed() {
            match connection.get() {
                Ok(None) => break,
                Ok(Some(answer)) if answer.status == 200 => {
                    books.kept.count("ok");
                    worker = answer.text().parse().unwrap();
                    if answer.header("connection") == Some("close") {
                        break;
                    }
                }
                Ok(Some(answer)) => books.kept.count(format!("status {}", answer.status)),
                Err(error) => {
                    books.kept.count(format!("lost: {:?}", error.kind()));
                    books.lost.lock().unwrap().push((number, worker));
                    break;
                }
            }
            thread::sleep(Duration::from_micros(500 * number as u64));
        }
    }
}

/// Each request on a connection of its own.
fn ask_anew(address: &Address, books: &Books) {
    while books.goes_on() {
        match Promised::connect(address) {
            Err(error) => books.new.count(format!("refused: {error}")),
            Ok(mut connection) => match connection.get() {
                Ok(None) => (),
                Ok(Some(answer)) if answer.status == 200 => books.new.count("ok"),
                Ok(Some(answer)) => books.new.count(format!("status {}", answer.status)),
                Err(error) => books.new.count(format!("lost: {:?}", error.kind())),
            },
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn assert_nothing_lost(books: &Books) {
    books.kept.assert_only("ok");
    books.new.assert_only("ok");
}

#[track_caller]
fn until_all_gone_but(cluster: &Cluster, workers: usize) {
    wait_until("those that leave to be gone", || cluster.workers().len() == workers);
}

const RELOADS: usize = 20;

fn reloads(scene: &Scene, scheduling: Scheduling) {
    let (cluster, address) = served(scene.builder().scheduling(scheduling), 2);
    let books = under_load(&address, |books| {
        for _ in 0..RELOADS {
            cluster.reload().unwrap();
            decision(&cluster, "a reload", |made| *made == Decision::Reloaded);
            books.pass();
        }
    });
    assert_nothing_lost(&books);
    let report = cluster.shutdown().unwrap();
    let started = 2 + 2 * RELOADS as u64;
    assert_eq!((report.reloads, report.started), (RELOADS as u64, started), "{report}");
    assert_eq!((report.closed, report.restarts, report.hung), (0, 0, 0), "{report}");
}

const RECYCLINGS: u64 = 50;

fn recyclings(scene: &Scene) {
    let recycle = Recycle { requests: Some(30), jitter: 0.5, ..Recycle::default() };
    // Looks often.
    let health = Health { deadline: Duration::from_millis(1600), ..Health::default() };
    let rollout = Rollout { surge: 2, unavailable: 0 };
    let builder = scene.builder().health(health).recycle(recycle).rollout(rollout);
    let (cluster, address) = served(builder, 3);
    let books = under_load(&address, |_| {
        for number in 1..=RECYCLINGS {
            until(&cluster, &format!("recycling {number}"), |event| event.name() == "exit");
        }
    });
    assert_nothing_lost(&books);
    let report = cluster.shutdown().unwrap();
    assert!(report.recycled >= RECYCLINGS, "{report}");
    assert_eq!((report.closed, report.restarts, report.hung), (0, 0, 0), "{report}");
}

fn scalings(scene: &Scene) {
    let (cluster, address) = served(scene.builder(), 1);
    let books = under_load(&address, |books| {
        for _ in 0..8 {
            cluster.scale(4).unwrap();
            wait_until("four to be ready", || cluster.status().ready() == 4);
            books.pass();
            cluster.scale(1).unwrap();
            books.pass();
            until_all_gone_but(&cluster, 1);
        }
    });
    assert_nothing_lost(&books);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.started, report.closed, report.restarts), (25, 0, 0), "{report}");
}

const KILLS: usize = 20;

fn kills(scene: &Scene) {
    // Those that had just come fail as well.
    let restart = Restart { longest_delay: Duration::from_millis(100), ..Restart::default() };
    let (cluster, address) = served(scene.builder().restart(restart), 3);
    let mut killed = BTreeSet::new();
    let books = under_load(&address, |books| {
        for turn in 0..KILLS {
            let victim = cluster.workers().remove(turn % 3);
            killed.insert(victim.id().get());
            system::signal(victim.pid().unwrap(), 9);
            until(
                &cluster,
                "its end",
                |event| matches!(event, Event::Exit { worker, .. } if worker.id() == victim.id()),
            );
            wait_until("its replacement", || cluster.status().ready() == 3);
            books.pass();
        }
    });
    // A worker holds one connection of each client at most.
    let lost = books.lost.lock().unwrap();
    let distinct: BTreeSet<_> = lost.iter().collect();
    assert_eq!(distinct.len(), lost.len(), "twice by the same worker: {lost:?}");
    for (_, worker) in lost.iter() {
        assert!(*worker == 0 || killed.contains(worker), "worker {worker} lives: {lost:?}");
    }
    let lost = |ledger: &Ledger| ledger.total() - ledger.get("ok");
    assert!(lost(&books.kept) <= (KILLS * KEEPING) as u64, "{}", books.kept);
    assert!(lost(&books.new) <= (KILLS * NEW) as u64, "{}", books.new);
    for ledger in [&books.kept, &books.new] {
        assert!(!ledger.to_string().contains("refused"), "{ledger}");
        assert!(!ledger.to_string().contains("TimedOut"), "{ledger}");
        assert!(!ledger.to_string().contains("WouldBlock"), "{ledger}");
    }
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.restarts, report.exits["signal 9 (SIGKILL)"]), (20, 20), "{report}");
}
