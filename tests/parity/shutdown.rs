//! The end of a whole cluster.

use std::{os::unix::process::CommandExt as _, time::Duration};

use bimodal::{ExitStatus, Worker};

use crate::{
    acts::{Act, fork, obey},
    bodies::greet,
    support::{
        DEADLINE, Scenario, Scene, both,
        client::wait_until_closed,
        events::{fork_listening, to_the_end, until_named},
        program,
        trap::Trap,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_cluster_without_workers_is_gone_at_once", nobody).proves(&["SHUT-02", "SHUT-03"]),
    both("a_cluster_is_gone_when_the_last_worker_is", last)
        .proves(&["SHUT-01", "SHUT-02", "SHUT-03", "SHUT-04", "SHUT-10"]),
    both("a_mixture_of_workers_leaves_with_code_0", mixture)
        .proves(&["SHUT-01", "SHUT-08", "SHUT-09", "SHUT-10"]),
    both("exit_in_the_primary_waits_for_nobody", exit).proves(&["SHUT-13", "THR-15"]),
];

/// Started to see how it ends.
pub const PROGRAMS: &[Scenario] = &[both("exits_with_workers", exits_with_workers)];

fn nobody(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    assert!(cluster.wait_gone(Duration::ZERO));
    cluster.disconnect().unwrap();
    assert!(cluster.wait_gone(Duration::ZERO) && cluster.workers().is_empty());
    assert!(!to_the_end(&cluster).names(None).contains(&"exit"));
}

fn last(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().launch(obey).unwrap();
    let leaving = fork(&cluster, Act::LeaveThrough(trap.address()));
    fork(&cluster, Act::Stay);
    let gone = fork(&cluster, Act::Return(0));
    until_named(&cluster, "exit", 1);
    assert!(gone.is_dead());
    cluster.disconnect().unwrap();
    let held = trap.caught();
    until_named(&cluster, "exit", 1);
    assert!(!leaving.is_dead() && !cluster.wait_gone(Duration::from_millis(1)), "one is left");
    cluster.disconnect().unwrap();
    drop(held);
    assert!(cluster.wait_gone(DEADLINE));
    assert!(leaving.is_dead() && cluster.workers().is_empty());
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(None), ["disconnect", "exit"]);
    assert_eq!(seen.exit(leaving.id()), ExitStatus::Code(0));
}

/// What a worker does, by its id: listens, idles, listens twice, leaves by itself.
async fn various(worker: Worker) -> bimodal::Result<()> {
    match worker.id().get() % 4 {
        0 => {
            let _first = worker.listen("127.0.0.1:0").await?;
            let _second = worker.listen("127.0.0.1:0").await?;
            worker.draining().await;
        }
        1 => return greet(worker).await,
        2 => worker.draining().await,
        _ => worker.disconnect().draining().await,
    }
    Ok(())
}

fn mixture(scene: &Scene) {
    let cluster = scene.builder().launch(various).unwrap();
    let workers: Vec<_> = (0..8).map(|_| cluster.fork().unwrap()).collect();
    // Two listen once, two twice, two leave.
    let addresses = until_named(&cluster, "listening", 6).addresses();
    workers[0].disconnect().unwrap();
    cluster.disconnect().unwrap();
    cluster.disconnect().unwrap();
    assert!(cluster.wait_gone(DEADLINE));
    for worker in &workers {
        assert_eq!(worker.exit_status(), Some(ExitStatus::Code(0)), "{worker}");
        assert_eq!(worker.exited_after_disconnect(), Some(true), "{worker}");
    }
    addresses.iter().for_each(wait_until_closed);
    // What is empty can be filled again, and nothing of before is in the way.
    let last = to_the_end(&cluster);
    assert!(last.exits().all(|(_, status)| status.success()));
    fork_listening_again(&cluster);
}

fn fork_listening_again(cluster: &bimodal::Cluster) {
    loop {
        if cluster.fork().unwrap().id().get() % 4 == 1 {
            break;
        }
    }
    until_named(cluster, "listening", 1);
}

/// Ends with workers of every kind, and tells what it heard of them.
fn exits_with_workers(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let (workers, _) = fork_listening(&cluster, 3);
    for worker in workers {
        worker.on_event(|event| println!("{}", event.name()));
    }
    println!("ready");
    std::process::exit(3);
}

fn exit(scene: &Scene) {
    let mut command = program::command("exits_with_workers", scene.mode);
    let mut program = program::Program::spawn(command.process_group(0));
    assert_eq!(program.wait().code(), Some(3));
    assert_eq!(program.output, ["ready"], "nobody told of an end");
    crate::serve::assert_nobody_left(program.pid());
}
