//! Whole clusters: several in one program, and what is left when one ends.

use bimodal::{Cluster, ErrorKind, Mode, Setup, Worker};

use crate::{
    bodies::{greet, idle},
    support::{
        Scenario, Scene, both,
        client::{greeting, wait_until_closed},
        events::{fork_listening, until_named},
        program, system, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_cluster_that_is_dropped_ends_everything", dropped),
    both("two_clusters_live_side_by_side", |scene| side_by_side(scene, scene.mode)),
    both("clusters_of_both_modes_live_side_by_side", |scene| {
        side_by_side(scene, other(scene.mode))
    }),
    both("two_clusters_run_one_after_the_other", one_after_the_other),
    both("shutdown_reports_what_was_done", reports),
    both("a_cluster_leaves_nothing_behind", leaves_nothing).proves(&["SHUT-07"]),
    both("what_belongs_to_a_process_is_refused_for_a_thread", unsuitable),
];

/// Started again by the tests above, to be alone in their process.
pub const PROGRAMS: &[Scenario] = &[both("whole_life", whole_life)];

fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Process => Mode::Thread,
        Mode::Thread => Mode::Process,
    }
}

fn dropped(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    drop(cluster);
    assert!(workers.iter().all(|worker| worker.is_dead() && !worker.is_connected()));
    if scene.is_process() {
        assert!(workers.iter().all(|worker| !system::exists(worker.pid().unwrap())));
    }
    wait_until_closed(&address);
    assert_eq!(workers[0].send(()).unwrap_err().kind(), ErrorKind::Closed);
}

fn side_by_side(scene: &Scene, mode: Mode) {
    // In a worker process of the second, the first is inert.
    let first = scene.another(scene.mode, "first").launch(greet).unwrap();
    let second = scene.another(mode, "second").launch(greet).unwrap();
    let (_, first_address) = fork_listening(&first, 2);
    let (workers, second_address) = fork_listening(&second, 2);
    assert_ne!(first_address, second_address);
    greeting(&first_address).unwrap();
    drop(first);
    assert!(workers.iter().all(|worker| !worker.is_dead()));
    for _ in 0..4 {
        greeting(&second_address).unwrap();
    }
    assert_eq!(second.shutdown().unwrap().exits["code 0"], 2);
}

fn one_after_the_other(scene: &Scene) {
    let first =
        scene.another(scene.mode, "first").workers(2).run(|_worker: Worker| async {}).unwrap();
    let second =
        scene.another(scene.mode, "second").workers(3).run(|_worker: Worker| async {}).unwrap();
    assert_eq!((first.started, second.started), (2, 3));
    let again = scene.another(scene.mode, "second").workers(1).run(|_worker: Worker| async {});
    // The one difference: a process finds its body by the name, so that each may be used once.
    match again {
        Err(error) if scene.is_process() => assert!(error.to_string().contains("name"), "{error}"),
        other => assert!(!scene.is_process() && other.is_ok(), "{other:?}"),
    }
}

fn reports(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let workers: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    until_named(&cluster, "online", 3);
    workers[2].kill().unwrap();
    until_named(&cluster, "exit", 1);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.started, report.restarts, report.forced_kills), (3, 0, 1), "{report}");
    assert_eq!((report.exits["code 0"], report.exits.values().sum::<u64>()), (2, 3), "{report}");
}

fn leaves_nothing(scene: &Scene) {
    let output = program::start("whole_life", scene.mode).succeed();
    assert_eq!(output, ["nothing is left"]);
}

/// Lives through everything once, then compares what the process has with what it had.
fn whole_life(scene: &Scene) {
    let before = (system::descriptors(), system::threads());
    let cluster = scene.builder().window(2).launch(greet).unwrap();
    let (workers, address) = fork_listening(&cluster, 3);
    for _ in 0..20 {
        greeting(&address).unwrap();
    }
    let _ = workers[0].send("127.0.0.1:1".to_owned()).unwrap();
    workers[1].kill().unwrap();
    until_named(&cluster, "exit", 2);
    fork_listening(&cluster, 1);
    greeting(&address).unwrap();
    workers[2].disconnect().unwrap();
    until_named(&cluster, "exit", 1);
    cluster.shutdown().unwrap();
    // A handle keeps the door bell of its cluster, whether there is one or not.
    drop(workers);
    wait_until("the threads to be gone", || system::threads() == before.1);
    assert_eq!(system::children(), Vec::<u32>::new());
    assert_eq!(system::descriptors(), before.0, "{:?}", system::descriptors_of(std::process::id()));
    println!("nothing is left");
}

fn unsuitable(scene: &Scene) {
    let builder = |setup: Setup| Cluster::builder(scene.mode).setup(setup);
    let set: [(&str, bimodal::Builder); 4] = [
        ("env", builder(Setup::new().env("A", "b"))),
        ("cwd", builder(Setup::new().cwd("/"))),
        ("uid", builder(Setup::new().uid(1))),
        ("gid", builder(Setup::new().gid(1))),
    ];
    for (name, builder) in set {
        match builder.build() {
            Ok(_) => assert!(scene.is_process(), "{name}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!scene.is_process() && error.kind() == ErrorKind::Setting, "{text}");
                assert!(
                    text.contains(name) && text.contains("thread") && text.contains("process"),
                    "{text}"
                );
            }
        }
    }
    let stack = builder(Setup::new().stack_size(1 << 20)).build();
    assert_eq!(stack.is_err(), scene.is_process());
}
