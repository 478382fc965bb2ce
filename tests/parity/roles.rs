//! Who is primary, who is worker, and what each cannot do.

use std::net::{SocketAddr, TcpListener};

use bimodal::{ExitStatus, Mode, Scheduling, Setup, Worker};

use crate::{
    bodies::idle,
    support::{
        Scenario, Scene, both,
        events::{next_message, to_the_end},
        program,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_program_that_nobody_started_is_a_primary", primary).proves(&["DET-01", "DET-07"]),
    both("a_worker_can_do_less", less)
        .proves(&["DET-05", "EVT-26", "FORK-29"])
        .proves_in(&[Mode::Thread], &["THR-37"]),
    both("online_comes_before_the_first_step", first_step)
        .proves(&["DET-08"])
        .proves_in(&[Mode::Thread], &["FORK-21"]),
    both("a_thread_that_a_worker_starts_is_no_worker", own_thread).proves(&["DET-12"]),
    both("a_program_that_a_worker_starts_may_be_a_primary", own_cluster).proves(&["DET-13"]),
];

/// Started by a worker.
pub const PROGRAMS: &[Scenario] = &[both("own_cluster", own_cluster_program)];

fn primary(scene: &Scene) {
    let cluster = scene.builder().launch(say_role).unwrap();
    assert_eq!(bimodal::worker_of(), None);
    assert!(cluster.workers().is_empty());
    let Setup { env, cwd, uid, gid, stdout, .. } = cluster.settings().setup.clone();
    assert!(env.is_empty() && cwd.is_none() && stdout.is_none());
    assert_eq!((uid, gid), (None, None));
    assert_ne!(Scheduling::RoundRobin, Scheduling::Shared);
    cluster.fork().unwrap();
    let role = next_message::<Option<String>>(&cluster).1;
    // The one difference: what a thread is, it knows from its `Worker` alone.
    assert_eq!(role.as_deref(), scene.is_process().then_some(scene.name));
}

async fn say_role(worker: Worker) {
    let _ = worker.send(bimodal::worker_of().map(str::to_owned)).unwrap();
}

/// What these return only if the type has no method of that name.
struct Nothing;

macro_rules! absent {
    ($($name:ident)*) => { $(fn $name(&self) -> Nothing { Nothing })* };
}

/// What is the primary's, and what is the process's.
trait NotAWorkers {
    absent!(fork fork_with setup_primary settings workers worker shutdown wait_gone scheduling);
    absent!(events next_event_timeout on_event);
    absent!(abort set_current_dir set_uid set_gid umask);
}

impl NotAWorkers for Worker {}

/// The policy is chosen once.
trait NotASetups {
    absent!(scheduling);
}

impl NotASetups for Setup {}

/// It would not compile if `Worker` had one of these methods.
async fn try_everything(worker: Worker) {
    let Nothing = worker.fork();
    let Nothing = worker.fork_with();
    let Nothing = worker.setup_primary();
    let Nothing = worker.settings();
    let Nothing = worker.workers();
    let Nothing = worker.worker();
    let Nothing = worker.shutdown();
    let Nothing = worker.wait_gone();
    let Nothing = worker.scheduling();
    let Nothing = worker.events();
    let Nothing = worker.next_event_timeout();
    let Nothing = worker.on_event();
    let Nothing = worker.abort();
    let Nothing = worker.set_current_dir();
    let Nothing = worker.set_uid();
    let Nothing = worker.set_gid();
    let Nothing = worker.umask();
}

fn less(scene: &Scene) {
    let cluster = scene.builder().scheduling(Scheduling::ReusePort).launch(try_everything).unwrap();
    let Nothing = NotASetups::scheduling(&Setup::new());
    let worker = cluster.fork().unwrap();
    cluster.setup_primary(Setup::new().args(["changed"])).unwrap();
    assert_eq!(cluster.settings().scheduling, Scheduling::ReusePort);
    assert!(to_the_end(&cluster).exit(worker.id()).success());
}

fn first_step(scene: &Scene) {
    let fall = |_worker: Worker| -> std::future::Ready<()> { panic!("before there is a future") };
    let cluster = scene.builder().launch(fall).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    let names = seen.names(Some(worker.id()));
    assert_eq!(names, ["fork", "online", "error", "disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(ExitStatus::PANIC));
}

/// It would be ambiguous, and not compile, if a `Worker` could be sent to a thread.
#[allow(dead_code)]
fn a_worker_stays_on_its_thread() {
    trait Once<A> {
        fn check() {}
    }
    impl<T: ?Sized> Once<()> for T {}
    struct Sendable;
    impl<T: ?Sized + Send> Once<Sendable> for T {}
    <Worker as Once<_>>::check();
}

fn own_thread(scene: &Scene) {
    let cluster = scene.builder().launch(listen_on_a_thread).unwrap();
    let workers: Vec<_> = (0..2).map(|_| cluster.fork().unwrap()).collect();
    let first = next_message::<SocketAddr>(&cluster).1;
    let second = next_message::<SocketAddr>(&cluster).1;
    assert_ne!(first, second, "each has a socket of its own");
    for worker in &workers {
        worker.disconnect().unwrap();
    }
    let seen = to_the_end(&cluster);
    assert!(!seen.names(None).contains(&"listening"), "{seen:#?}");
}

async fn listen_on_a_thread(worker: Worker) {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = std::thread::spawn(bind).join().unwrap();
    let _ = worker.send(listener.local_addr().unwrap()).unwrap();
    idle(worker).await;
}

fn own_cluster(scene: &Scene) {
    let mode = scene.mode;
    let cluster = scene.builder().launch(move |worker| start_a_cluster(worker, mode)).unwrap();
    cluster.fork().unwrap();
    let output = next_message::<String>(&cluster).1;
    assert_eq!(output, "worker 1 of own_cluster\n");
}

async fn start_a_cluster(worker: Worker, mode: Mode) -> bimodal::Result<()> {
    let output = program::command("own_cluster", mode).output()?;
    let _ = worker.send(String::from_utf8_lossy(&output.stdout).into_owned())?;
    Ok(())
}

fn own_cluster_program(scene: &Scene) {
    let cluster = scene.builder().launch(say_who).unwrap();
    cluster.fork().unwrap();
    println!("{}", next_message::<String>(&cluster).1);
}

async fn say_who(worker: Worker) {
    let _ = worker.send(format!("worker {} of {}", worker.id(), worker.cluster())).unwrap();
}
