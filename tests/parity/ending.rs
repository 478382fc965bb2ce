//! Disconnect, kill, exit codes: from both sides, at every moment.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use bimodal::{
    Connection, ErrorKind, Event, ExitStatus, Fork, Mode, Scheduling, Signal, State, Worker,
    event_loop,
};

use crate::{
    acts::{Act, fork, obey},
    bodies::{greet, keep},
    support::{
        DEADLINE, Scenario, Scene, both,
        client::{Client, greeting},
        events::{fork_listening, next_message, to_the_end, until, until_named},
        only,
        trap::Trap,
        wait_until,
    },
};

const PROCESS: &[Mode] = &[Mode::Process];

pub const SCENARIOS: &[Scenario] = &[
    both("disconnect_is_known_at_once_and_the_worker_stays_listed", at_once)
        .proves(&["LIFE-01", "LIFE-02", "LIFE-03", "LIFE-04", "EVT-06"]),
    both("a_worker_finishes_its_own_work_before_it_leaves", own_work)
        .proves(&["LIFE-07", "LIFE-08", "LIFE-29"]),
    both("a_worker_may_choose_its_code_when_it_is_asked_to_leave", |scene| {
        asked(scene, Act::ExitWhenAsked(42), 42);
    })
    .proves(&["LIFE-10"]),
    both("a_worker_that_is_leaving_may_kill_itself_twice", |scene| {
        asked(scene, Act::KillItselfWhenAsked, 0);
    })
    .proves(&["LIFE-23"]),
    both("a_worker_that_disconnects_itself_was_asked_to_in_every_event", by_itself)
        .proves(&["LIFE-11", "EVT-24"]),
    both("both_sides_may_disconnect_at_the_same_moment", crossing).proves(&["LIFE-14"]),
    both("disconnects_and_kills_of_the_dead_change_nothing", dead).proves(&["LIFE-16", "THR-12"]),
    both("kill_may_be_called_while_disconnect_is_told", kill_in_observer).proves(&["LIFE-42"]),
    both("kill_does_not_wait_and_counts_as_not_asked_for", kill)
        .proves(&["LIFE-17", "LIFE-39"])
        .proves_in(PROCESS, &["LIFE-40"]),
    both("kill_with_a_signal_is_obeyed_or_refused", signals)
        .proves(&["LIFE-18"])
        .proves_in(PROCESS, &["LIFE-21"]),
    both("sigterm_can_be_answered_while_connected", terminate).proves(&["LIFE-20"]),
    both("a_worker_that_kills_itself_waits_for_no_connection", kill_itself).proves(&["LIFE-22"]),
    both("nothing_runs_after_exit", exit).proves(&["LIFE-25", "THR-02", "THR-03"]),
    both("a_dropped_handle_changes_nothing_and_a_dropped_cluster_ends_all", drops)
        .proves(&["LIFE-35", "LIFE-36"])
        .proves_in(&[Mode::Thread], &["LIFE-09", "THR-14"]),
    // An abort ends the process it happens in.
    only(PROCESS, "a_worker_that_aborts_takes_nobody_along", abort).proves(&["LIFE-27"]),
];

/// Greets until it is asked to leave, then steps into the trap that is its data.
async fn greet_then_trap(worker: Worker) -> bimodal::Result<()> {
    let trap: String = worker.data()?;
    greet(worker).await?;
    crate::support::trap::step_into(&trap);
    Ok(())
}

fn at_once(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().launch(greet_then_trap).unwrap();
    let fork = || cluster.fork_with(Fork::new().data(trap.address())).unwrap();
    let (leaves, stays) = (fork(), fork());
    let address = until_named(&cluster, "listening", 2).addresses().remove(0);
    assert!(!leaves.is_disconnecting());
    assert_eq!(leaves.disconnect().unwrap().id(), leaves.id(), "it goes on with the same worker");
    assert_eq!(leaves.exited_after_disconnect(), Some(true));
    assert!(leaves.is_disconnecting() && !stays.is_disconnecting());
    let held = trap.caught();
    assert_eq!(leaves.state(), State::Draining);
    assert!(leaves.is_connected() && !leaves.is_dead());
    assert_eq!(cluster.workers().len(), 2, "it is listed for as long as there is something of it");
    for _ in 0..20 {
        assert_eq!(greeting(&address).unwrap(), stays.id().to_string());
    }
    drop(held);
    until_named(&cluster, "exit", 1);
    assert!(cluster.worker(leaves.id()).is_none() && !leaves.is_disconnecting());
    drop((stays.kill(), trap));
}

fn own_work(scene: &Scene) {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = scene.builder().launch(work_on).unwrap();
    let address = elsewhere.local_addr().unwrap().to_string();
    let worker = cluster.fork_with(Fork::new().data(address)).unwrap();
    assert!(worker.is_connected());
    let (mut connection, _) = elsewhere.accept().unwrap();
    worker.disconnect().unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "leaving");
    assert!(worker.is_connected() && !worker.is_dead(), "until its work is done");
    connection.write_all(b".").unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    assert_eq!(seen.names(Some(worker.id())), ["message", "disconnect", "exit"]);
    let mut received = String::new();
    connection.read_to_string(&mut received).unwrap();
    assert_eq!(received, "behind the disconnect");
}

async fn work_on(worker: Worker) {
    let stream = TcpStream::connect(worker.data::<String>().unwrap()).unwrap();
    let connection = Connection::from_stream(stream).unwrap();
    // It does not wait for this.
    event_loop::spawn(event_loop::sleep(10 * DEADLINE)).detach();
    worker.draining().await;
    assert!(worker.is_connected(), "as long as it runs");
    let _ = worker.send("leaving").unwrap();
    assert_eq!(connection.read(&mut [0]).await.unwrap(), 1, "it may finish");
    connection.write_all(b"behind the disconnect").await.unwrap();
    let _ = worker.send("done").unwrap();
}

fn asked(scene: &Scene, act: Act, code: i32) {
    let cluster = scene.builder().launch(obey).unwrap();
    let worker = fork(&cluster, act);
    until_named(&cluster, "online", 1);
    worker.disconnect().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(Some(worker.id())), ["disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(code));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

fn by_itself(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    for _ in 0..10 {
        let worker = fork(&cluster, Act::Leave);
        let seen = until(&cluster, "exit", |event| {
            if let Event::Disconnect { .. } | Event::Exit { .. } = event {
                assert_eq!(worker.exited_after_disconnect(), Some(true));
            }
            event.name() == "exit"
        });
        assert!(seen.exit(worker.id()).success());
    }
}

fn crossing(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    for _ in 0..20 {
        let worker = fork(&cluster, Act::Leave);
        until_named(&cluster, "online", 1);
        // It may have left already.
        let _ = worker.disconnect();
        let seen = until_named(&cluster, "exit", 1);
        assert_eq!(seen.names(None), ["disconnect", "exit"]);
        assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    }
}

fn dead(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    for (act, asked) in [(Act::Leave, true), (Act::Exit(3), false)] {
        let worker = fork(&cluster, act);
        until_named(&cluster, "exit", 1);
        let status = worker.exit_status();
        assert_eq!(worker.disconnect().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(worker.kill().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(worker.kill_with(Signal::Term).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(worker.exited_after_disconnect(), Some(asked));
        assert_eq!(worker.exit_status(), status);
    }
    fork(&cluster, Act::Leave);
    let seen = to_the_end(&cluster);
    assert!(seen.exits().all(|(_, status)| status.success()), "and nobody else is hit");
}

fn kill_in_observer(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    let worker = fork(&cluster, Act::Stay);
    let killer = worker.clone();
    worker.on_event(move |event| {
        if let Event::Disconnect { .. } = event {
            let _ = killer.disconnect();
            let _ = killer.kill();
            let _ = killer.kill();
        }
    });
    until_named(&cluster, "online", 1);
    worker.disconnect().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(Some(worker.id())), ["disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
}

fn kill(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::RoundRobin).launch(keep).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    // Held open, so that draining would never end.
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&address).unwrap()).collect();
    let served: Vec<_> = clients.iter_mut().map(|client| client.line().unwrap()).collect();
    assert!(served.iter().any(|worker| worker == "1"), "{served:?}");
    workers[0].kill().unwrap();
    assert_ne!(workers[0].exited_after_disconnect(), Some(true));
    let seen = until_named(&cluster, "exit", 1);
    assert!(seen.exit(workers[0].id()).killed());
    assert_eq!(workers[0].exited_after_disconnect(), Some(false));
    for (client, worker) in clients.iter_mut().zip(&served) {
        if worker == "1" {
            // It ends, and nobody else takes it over.
            assert_eq!(client.rest().unwrap_or_default(), b"");
        }
    }
    for _ in 0..6 {
        assert_eq!(Client::connect(&address).unwrap().line().unwrap(), "2", "the dead get nothing");
    }
    workers[1].kill().unwrap();
    to_the_end(&cluster);
}

fn signals(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    for text in ["sigkill", "SIGTERM", "quit", "SigAbrt", "10", "USR2", "hup"] {
        let signal: Signal = text.parse().unwrap();
        let worker = fork(&cluster, Act::Stay);
        until_named(&cluster, "online", 1);
        let sent = worker.kill_with(signal);
        let status = match signal {
            Signal::Term => ExitStatus::Code(0),
            _ if scene.is_process() => ExitStatus::Signal(signal.number()),
            Signal::Kill => ExitStatus::Killed,
            // The one difference: a thread has no signals of its own.
            signal => {
                let error = sent.unwrap_err();
                let text = error.to_string();
                assert!(
                    error.kind() == ErrorKind::Setting && text.contains("thread mode"),
                    "{text}"
                );
                assert!(
                    text.contains(&signal.to_string()) && text.contains("Signal::Term"),
                    "{text}"
                );
                worker.disconnect().unwrap();
                until_named(&cluster, "exit", 1);
                continue;
            }
        };
        sent.unwrap();
        assert_eq!(until_named(&cluster, "exit", 1).exit(worker.id()), status, "{text}");
        assert_eq!(worker.exited_after_disconnect(), Some(false), "{text}");
        assert!(cluster.workers().is_empty());
    }
    assert!("SIGNOSUCH".parse::<Signal>().unwrap_err().to_string().contains("SIGTERM"));
}

fn terminate(scene: &Scene) {
    let cluster = scene.builder().launch(answer_termination).unwrap();
    let worker = cluster.fork().unwrap();
    until_named(&cluster, "online", 1);
    worker.kill_with(Signal::Term).unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "told to leave");
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(9));
    assert_eq!(worker.exited_after_disconnect(), Some(false));
}

async fn answer_termination(worker: Worker) {
    worker.draining().await;
    assert!(worker.is_connected());
    let _ = worker.send("told to leave").unwrap();
    worker.exit(9).await
}

fn kill_itself(scene: &Scene) {
    let cluster = scene.builder().launch(keep_and_die_when_told).unwrap();
    let worker = cluster.fork().unwrap();
    let address = until_named(&cluster, "listening", 1).addresses().remove(0);
    let mut client = Client::connect(&address).unwrap();
    client.line().unwrap();
    let _ = worker.send(()).unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert_eq!(client.rest().unwrap_or_default(), b"", "the client is cut");
}

async fn keep_and_die_when_told(worker: Worker) -> bimodal::Result<()> {
    let told = worker.clone();
    event_loop::spawn(async move {
        told.recv().await;
        told.kill();
        told.kill();
    })
    .detach();
    keep(worker).await
}

fn exit(scene: &Scene) {
    let cluster = scene.builder().launch(exit_twice).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    let names = seen.names(Some(worker.id()));
    assert_eq!(names, ["fork", "online", "message", "disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(7));
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    assert_eq!(seen.messages::<String>()[0].1, "before");
}

async fn exit_twice(worker: Worker) -> i32 {
    let _ = worker.send("before").unwrap();
    let other = worker.clone();
    event_loop::spawn(async move { other.exit(8).await }).detach();
    worker.exit(7).await;
    #[allow(unreachable_code)]
    {
        let _ = worker.send("after").unwrap();
        9
    }
}

/// Holds a connection to the address that is its data, whoever asks it to leave.
async fn hold_a_connection(worker: Worker) {
    let _connection = TcpStream::connect(worker.data::<String>().unwrap()).unwrap();
    worker.recv().await;
    let _ = worker.send("alive").unwrap();
    std::future::pending().await
}

fn drops(scene: &Scene) {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap().to_string();
    let cluster = scene.builder().launch(hold_a_connection).unwrap();
    let id = cluster.fork_with(Fork::new().data(address)).unwrap().id();
    let (mut connection, _) = elsewhere.accept().unwrap();
    let _ = cluster.worker(id).unwrap().send(()).unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "alive", "though its handle was dropped");
    let kept = cluster.worker(id).unwrap();
    drop(cluster);
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap_or(0), 0, "what it held is closed");
    assert!(kept.is_dead() && !kept.is_connected());
    assert!(kept.exit_status().is_some_and(ExitStatus::killed), "{:?}", kept.exit_status());
    assert_eq!(kept.send(()).unwrap_err().kind(), ErrorKind::Closed);
}

fn abort(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    let bystander = fork(&cluster, Act::Stay);
    let worker = fork(&cluster, Act::Abort);
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Signal(6));
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    wait_until("the other to be online", || bystander.state() == State::Online);
    bystander.disconnect().unwrap();
    assert!(to_the_end(&cluster).exit(bystander.id()).success());
}
