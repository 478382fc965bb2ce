//! Under `shared` the kernel wakes one worker for a connection: what becomes of it if that one does not take it.

use std::{future::poll_fn, task::Poll, time::Duration};

use bimodal::{
    Address, Cluster, Event, Mode, Result, Scheduling, Worker, WorkerHandle, event_loop,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    bodies::{greet_all, say},
    support::{
        Scenario, Scene, both,
        client::{Client, greeting},
        events::{fork_listening, next_message, to_the_end, until},
        only, program, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_worker_that_does_not_wait_holds_no_connection_up", busy_with_one),
    both("a_wait_that_is_given_up_leaves_no_connection_behind", given_up),
    both("a_shortage_where_connections_are_accepted_is_an_event_and_passes", shortage)
        .proves(&["LST-39"]),
    // All threads have the same descriptors.
    only(&[Mode::Process], "a_worker_without_descriptors_leaves_connections_to_others", passed_on)
        .proves(&["LST-39"]),
];

pub const PROGRAMS: &[Scenario] = &[
    both("run_out_of_descriptors_in_workers", run_out),
    both("one_of_two_runs_out", one_runs_out),
];

const ANYWHERE: &str = "127.0.0.1:0";

/// Each has one connection at a time, and does not wait for more meanwhile, though its loop sleeps.
fn busy_with_one(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::Shared).launch(one_at_a_time).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    let mut first = Client::connect(&address).unwrap();
    let busy = first.line().unwrap();
    for _ in 0..20 {
        assert_ne!(greeting(&address).unwrap(), busy, "it has one already");
    }
    drop(first);
    // Both are free again, and both get some.
    let of_both = || {
        let clients: [_; 2] = [(); 2].map(|()| Client::connect(&address).unwrap());
        clients.map(|mut client| client.line().unwrap())
    };
    (0..20).for_each(|_| drop(of_both()));
}

async fn one_at_a_time(worker: Worker) -> Result<()> {
    let mut listener = worker.listen(ANYWHERE).await?;
    while let Some(connection) = listener.accept().await? {
        say(&connection, &worker).await;
        let _ = connection.read(&mut [0]).await;
    }
    Ok(())
}

/// One of two is woken for a connection, and does not take it but gives up.
fn given_up(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::Shared).launch(give_up).unwrap();
    let (_, address) = fork_listening(&cluster, 1);
    // It is the first in line.
    assert_eq!(next_message::<String>(&cluster).1, "waiting");
    fork_listening(&cluster, 1);
    // While the first one is awake anyway, it is not the one that is woken.
    wait_until("a connection that the first one was woken for", || {
        assert_eq!(greeting(&address).unwrap(), "2");
        let told = cluster.next_event_timeout(Duration::from_millis(5));
        matches!(told, Some(Event::Message { .. }))
    });
}

async fn give_up(worker: Worker) -> Result<()> {
    let mut listener = worker.listen(ANYWHERE).await?;
    if worker.id().get() == 2 {
        return greet_all(worker, listener).await;
    }
    let mut waiting = Box::pin(listener.accept());
    let mut asked = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        assert!(waiting.as_mut().poll(cx).is_pending());
        let _ = worker.send("waiting").unwrap();
        Poll::Pending
    })
    .await;
    drop(waiting);
    let _ = worker.send("woken")?;
    worker.draining().await;
    Ok(())
}

fn shortage(scene: &Scene) {
    let mut program = program::start("run_out_of_descriptors_in_workers", scene.mode);
    let address: Address = program.line(|line| line.starts_with("at "))[3..].parse().unwrap();
    let mut client = Client::connect(&address).unwrap();
    let told = program.line(|line| line.starts_with("error: "));
    assert!(told.contains(&format!("cannot accept connections on {address}")), "{told}");
    assert!(told.contains("os error 24"), "{told}");
    assert_eq!(client.line().unwrap(), "1");
}

fn run_out(scene: &Scene) {
    let (cluster, starved) = with_one_starved(scene, 1);
    let seen = until(&cluster, "an error", |event| event.name() == "error");
    let _ = starved.send(()).unwrap();
    if let Some(Event::Error { worker: None, error }) = seen.0.last() {
        println!("error: {error}");
    }
    to_the_end(&cluster);
}

/// Says where so many workers listen, of which the first can open no more descriptors.
fn with_one_starved(scene: &Scene, workers: usize) -> (Cluster, WorkerHandle) {
    let cluster = scene.builder().scheduling(Scheduling::Shared).launch(starve).unwrap();
    let (mut workers, address) = fork_listening(&cluster, workers);
    let starved = workers.swap_remove(0);
    let _ = starved.send(()).unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "no descriptors");
    println!("at {address}");
    (cluster, starved)
}

/// Greets; can open no more descriptors from one message to the next.
async fn starve(worker: Worker) -> Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    let asked = worker.clone();
    event_loop::spawn(async move {
        let before = getrlimit(Resource::Nofile);
        while asked.recv().await.is_some() {
            setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
            let _ = asked.send("no descriptors").unwrap();
            asked.recv().await;
            setrlimit(Resource::Nofile, before).unwrap();
        }
    })
    .detach();
    greet_all(worker, listener).await
}

fn passed_on(scene: &Scene) {
    let mut program = program::start("one_of_two_runs_out", scene.mode);
    let address: Address = program.line(|line| line.starts_with("at "))[3..].parse().unwrap();
    // While the other one is awake anyway, it is not the one that is woken.
    wait_until("a connection that the other one was woken for", || {
        assert_eq!(greeting(&address).unwrap(), "2");
        program.line_within(Duration::from_millis(5), |line| line == "error").is_some()
    });
    // It tries again after a while, and is woken again: now and then one of these is for it.
    for _ in 0..50 {
        assert_eq!(greeting(&address).unwrap(), "2");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn one_runs_out(scene: &Scene) {
    let (cluster, _) = with_one_starved(scene, 2);
    until(&cluster, "an error", |event| event.name() == "error");
    println!("error");
    to_the_end(&cluster);
}
