//! How workers end, by their own wish and by another's.

use std::time::Duration;

use bimodal::{ErrorKind, ExitStatus, Signal, State, Worker, event_loop};

use crate::{
    bodies::{greet, step_into_traps},
    support::{
        Scenario, Scene, both,
        client::greeting,
        events::{fork_listening, next_message, to_the_end, until_named},
        trap::Trap,
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_worker_disconnected_by_the_primary_leaves_in_order", by_primary).proves(&["LIFE-13"]),
    both("a_worker_disconnects_itself", by_itself),
    both("a_worker_disconnected_before_it_is_online_leaves_in_order", before_online)
        .proves(&["LIFE-15"]),
    both("a_worker_that_leaves_listens_no_more", listens_no_more).proves(&["LST-51"]),
    both("a_killed_worker_says_so_and_the_others_live", kill),
    both("a_worker_that_ends_itself_has_code_0", kill_itself),
    both("a_body_that_returns_has_code_0", |scene| code(scene, "return", 0)).proves(&["THR-01"]),
    both("a_body_that_fails_has_code_1", |scene| code(scene, "fail", 1))
        .proves(&["LIFE-26", "ERR-02", "THR-03"]),
    both("a_body_that_panics_has_code_101", |scene| code(scene, "panic", 101))
        .proves(&["LIFE-26", "EVT-21", "THR-03"]),
    both("a_task_that_panics_has_code_101", |scene| code(scene, "panic in a task", 101))
        .proves(&["LIFE-26"]),
    both("a_worker_that_does_not_leave_is_closed_after_the_timeout", overdue).proves(&["SHUT-11"]),
    both("a_stuck_worker_can_be_got_rid_of", stuck)
        .proves(&["LIFE-17", "LIFE-18", "LIFE-19", "THR-10", "EVT-21"]),
];

fn by_primary(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    for _ in 0..3 {
        // A second and a third time change nothing, also when the worker has gone meanwhile.
        let _ = workers[0].disconnect();
    }
    assert_eq!(workers[0].exited_after_disconnect(), Some(true));
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.names(Some(workers[0].id())), ["disconnect", "exit"]);
    assert_eq!(seen.exit(workers[0].id()), ExitStatus::Code(0));
    assert!(workers[0].is_dead() && !workers[1].is_dead());
    assert_eq!(workers[1].exited_after_disconnect(), None);
    for _ in 0..5 {
        assert_eq!(greeting(&address).unwrap(), "2");
    }
}

fn by_itself(scene: &Scene) {
    let cluster = scene.builder().launch(leave_when_told).unwrap();
    let worker = cluster.fork().unwrap();
    assert_eq!(worker.exited_after_disconnect(), None);
    let _ = worker.send(()).unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert!(seen.messages::<bool>().iter().all(|(_, drains)| *drains));
}

async fn leave_when_told(worker: Worker) {
    worker.recv().await;
    worker.disconnect();
    worker.disconnect();
    worker.draining().await;
    assert!(worker.recv().await.is_none());
    let _ = worker.send(worker.is_draining()).unwrap();
}

fn before_online(scene: &Scene) {
    let cluster = scene.builder().launch(look_first).unwrap();
    let worker = cluster.fork().unwrap();
    worker.disconnect().unwrap();
    let seen = to_the_end(&cluster);
    let names = seen.names(Some(worker.id()));
    assert_eq!(names, ["fork", "online", "message", "disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert!(!seen.messages::<bool>()[0].1, "it knew of it before it began");
}

/// Looks before anything is awaited whether it is to leave, and tells when it is.
fn look_first(worker: Worker) -> impl Future<Output = ()> {
    let at_first = worker.is_draining();
    async move {
        worker.draining().await;
        let _ = worker.send(at_first).unwrap();
    }
}

fn listens_no_more(scene: &Scene) {
    let cluster = scene.builder().launch(listen_while_leaving).unwrap();
    let worker = cluster.fork().unwrap();
    worker.disconnect().unwrap();
    assert!(next_message::<bool>(&cluster).1);
    to_the_end(&cluster);
}

async fn listen_while_leaving(worker: Worker) {
    worker.draining().await;
    let error = worker.listen("127.0.0.1:0").await.unwrap_err();
    let _ = worker.send(error.kind() == ErrorKind::Disconnecting).unwrap();
}

fn kill(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    workers[1].kill().unwrap();
    let seen = until_named(&cluster, "exit", 1);
    let status = seen.exit(workers[1].id());
    assert!(status.killed() && !status.success(), "{status}");
    assert_eq!(seen.names(Some(workers[1].id())), ["disconnect", "exit"]);
    assert_eq!(workers[1].exited_after_disconnect(), Some(false));
    for _ in 0..9 {
        assert_ne!(greeting(&address).unwrap(), "2");
    }
    cluster.disconnect().unwrap();
    assert!(to_the_end(&cluster).exits().all(|(_, status)| status.success()));
}

fn kill_itself(scene: &Scene) {
    let cluster = scene.builder().launch(end_at_once).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

async fn end_at_once(worker: Worker) {
    worker.kill();
    std::future::pending::<()>().await;
}

fn code(scene: &Scene, how: &str, code: i32) {
    let cluster = scene.builder().launch(end_as_told).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(how.to_owned()).unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(code));
    let error: &[_] = if code == 0 { &[] } else { &["error"] };
    let names = [&["fork", "online"], error, &["disconnect", "exit"]].concat();
    assert_eq!(seen.names(Some(worker.id())), names);
    assert_eq!(worker.exited_after_disconnect(), Some(false), "nobody asked it to leave");
}

async fn end_as_told(worker: Worker) -> Result<(), String> {
    let how = worker.recv().await.unwrap().get::<String>().unwrap();
    match how.as_str() {
        "fail" => Err("it was to fail".into()),
        "panic" => panic!("it was to panic"),
        "panic in a task" => {
            event_loop::spawn(async { panic!("a task was to panic") }).detach();
            std::future::pending().await
        }
        _ => Ok(()),
    }
}

fn overdue(scene: &Scene) {
    let impatient = Duration::from_millis(50);
    let cluster = scene.builder().shutdown_timeout(impatient).launch(never_leave).unwrap();
    cluster.fork().unwrap();
    until_named(&cluster, "online", 1);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.closed, report.forced_kills, report.abandoned), (1, 0, 0), "{report}");
    assert_eq!(report.exits["code 0"], 1, "{report}");
}

async fn never_leave(_worker: Worker) {
    std::future::pending::<()>().await;
}

fn stuck(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().launch(step_into_traps).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(trap.address()).unwrap();
    let held = trap.caught();
    // It cannot notice either, so it stays.
    worker.kill_with(Signal::Term).unwrap();
    let other = cluster.fork().unwrap();
    until_named(&cluster, "online", 2);
    assert!(!worker.is_dead() && cluster.worker(worker.id()).is_some());
    assert_eq!(worker.exited_after_disconnect(), None, "nobody asked it to disconnect");
    other.disconnect().unwrap();
    worker.disconnect().unwrap();
    wait_until("the withdrawal", || worker.state() == State::Draining);
    worker.kill().unwrap();
    let seen = to_the_end(&cluster);
    // Not by SIGTERM, which came first. The one difference: a thread cannot be ended from outside, it is left behind.
    let expected = if scene.is_process() { ExitStatus::Signal(9) } else { ExitStatus::Abandoned };
    assert_eq!(seen.exit(worker.id()), expected);
    drop(held);
}
