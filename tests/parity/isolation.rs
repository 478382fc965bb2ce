//! What a worker may do to itself, what it leaves behind, and what is known of it meanwhile.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use bimodal::{ErrorKind, ExitStatus, Fork, Mode, Setup, Worker, event_loop};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    acts::{Act, fork, obey},
    bodies::idle,
    support::{
        DEADLINE, Scenario, Scene, both,
        client::wait_until_closed,
        events::{next_message, to_the_end, until, until_named},
        only, program, system,
        trap::{Trap, step_into},
        wait_until,
    },
};

const PROCESS: &[Mode] = &[Mode::Process];
const THREAD: &[Mode] = &[Mode::Thread];

pub const SCENARIOS: &[Scenario] = &[
    both("a_body_may_catch_its_own_panic_and_choose_its_code", caught).proves(&["THR-05"]),
    both("a_killed_worker_runs_no_more_of_its_body", killed).proves(&["THR-11"]),
    both("a_worker_may_be_killed_before_it_is_online", killed_early).proves(&["THR-13"]),
    both("what_a_worker_opened_is_closed_with_it", closed).proves(&["THR-39"]),
    both("utilization_and_cpu_time_are_the_workers_own", figures).proves(&["THR-43"]),
    both("a_shortage_of_descriptors_is_an_event", shortage).proves(&["THR-40"]),
    both("workers_that_come_and_go_leave_nothing", come_and_go).proves(&["THR-41"]),
    // What a process's own threads do is no affair of the cluster's.
    only(THREAD, "a_panic_of_a_workers_own_thread_is_the_workers_affair", own_thread)
        .proves(&["THR-16"]),
    only(THREAD, "a_thread_that_a_worker_started_is_not_ended_with_it", own_thread_goes_on)
        .proves(&["THR-15"]),
    only(THREAD, "a_worker_with_messages_it_does_not_take_stays", stays).proves(&["THR-19"]),
    only(THREAD, "a_worker_thread_leaves_signals_to_others", signals).proves(&["THR-38"]),
    only(THREAD, "a_worker_may_be_killed_while_it_uses_files", files).proves(&["THR-42"]),
    only(THREAD, "worker_threads_show_different_names", names).proves(&["THR-44"]),
    only(THREAD, "what_a_worker_wrote_is_there_before_its_exit", output).proves(&["THR-09"]),
    only(THREAD, "a_program_that_aborts_on_a_panic_does_so_for_its_workers", aborts)
        .proves(&["THR-48"]),
    // A process has one allocator.
    only(PROCESS, "a_worker_without_memory_ends_alone", memory).proves(&["THR-32"]),
];

/// Started with limits of their own.
pub const PROGRAMS: &[Scenario] = &[
    both("without_descriptors", without_descriptors),
    both("churn", churn),
    only(THREAD, "prints", prints),
    only(THREAD, "aborts_on_panic", aborts_on_panic),
];

fn caught(scene: &Scene) {
    let cluster = scene.builder().launch(catch_a_panic).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    let names = seen.names(Some(worker.id()));
    assert_eq!(names, ["fork", "online", "message", "disconnect", "exit"]);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(42));
}

async fn catch_a_panic(worker: Worker) -> i32 {
    let caught = catch_unwind(|| panic!("it was to panic"));
    let _ = worker.send(caught.is_err()).unwrap();
    42
}

/// Leaves a file when it is dropped.
struct LeavesAFile(PathBuf);

impl Drop for LeavesAFile {
    fn drop(&mut self) {
        fs::write(&self.0, "dropped").unwrap();
    }
}

fn scratch(scene: &Scene, name: &str) -> PathBuf {
    let file = format!("{name}-{}-{}", scene.mode, std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(file)
}

fn killed(scene: &Scene) {
    let file = scratch(scene, "killed");
    let cluster = scene.builder().launch(wait_with_a_guard).unwrap();
    let worker = cluster.fork_with(Fork::new().data(file.clone())).unwrap();
    until_named(&cluster, "message", 1);
    worker.kill().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(None), ["disconnect", "exit"], "nothing further was sent");
    // The one difference: a thread's destructors run.
    assert_eq!(file.exists(), !scene.is_process());
    let _ = fs::remove_file(file);
}

async fn wait_with_a_guard(worker: Worker) {
    let _guard = LeavesAFile(worker.data().unwrap());
    let _ = worker.send(()).unwrap();
    worker.recv().await;
    let _ = worker.send(()).unwrap();
}

fn killed_early(scene: &Scene) {
    let cluster = scene.builder().launch(obey).unwrap();
    for _ in 0..5 {
        let worker = fork(&cluster, Act::Linger);
        worker.kill().unwrap();
        let mut seen = until_named(&cluster, "exit", 1);
        assert!(seen.exit(worker.id()).killed(), "{seen:#?}");
        assert_eq!(worker.exited_after_disconnect(), Some(false));
        seen.0.retain(|event| !matches!(event.name(), "online" | "setup"));
        assert_eq!(seen.names(None), ["fork", "disconnect", "exit"]);
    }
}

fn closed(scene: &Scene) {
    let cluster = scene.builder().launch(open_sockets).unwrap();
    for how in ["return", "panic", "kill"] {
        let worker = cluster.fork_with(Fork::new().data(how.to_owned())).unwrap();
        let address: SocketAddr = next_message(&cluster).1;
        // The kernel takes it, before anybody accepts.
        let mut client = TcpStream::connect(address).unwrap();
        let _ = worker.send(()).unwrap();
        until_named(&cluster, "message", 1);
        if how == "kill" {
            worker.kill().unwrap();
        }
        until_named(&cluster, "exit", 1);
        wait_until_closed(&address.into());
        assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap_or(0), 0, "{how}");
    }
}

async fn open_sockets(worker: Worker) {
    let how: String = worker.data().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _ = worker.send(listener.local_addr().unwrap()).unwrap();
    worker.recv().await;
    let _accepted = listener.accept().unwrap();
    let _ = worker.send(()).unwrap();
    match how.as_str() {
        "panic" => panic!("it was to panic"),
        "kill" => std::future::pending().await,
        _ => {}
    }
}

fn figures(scene: &Scene) {
    let cluster = scene.builder().launch(work_when_told).unwrap();
    let (busy, lazy) = (cluster.fork().unwrap(), cluster.fork().unwrap());
    until_named(&cluster, "online", 2);
    let before = busy.stats();
    let _ = busy.send(60_u64).unwrap();
    let utilization = next_message::<f64>(&cluster).1;
    assert!((0.0..=1.0).contains(&utilization) && utilization > 0.0, "{utilization}");
    let worked = || busy.stats().cpu_ns - before.cpu_ns >= 60_000_000;
    wait_until("the CPU time to be seen", worked);
    wait_until("the loop's time to be seen", || busy.stats().busy_ns >= 60_000_000);
    let (busy_stats, lazy_stats) = (busy.stats(), lazy.stats());
    assert_eq!((busy_stats.worker, lazy_stats.worker), (1, 2));
    assert!(busy_stats.utilization() > lazy_stats.utilization());
    assert!(lazy_stats.cpu_ns > 0 && lazy_stats.cpu_ns < busy_stats.cpu_ns);
    cluster.disconnect().unwrap();
    to_the_end(&cluster);
    assert_eq!((busy.stats().cpu_ns, busy.stats().busy_ns, busy.stats().beats), (0, 0, 0));
    let ended = cluster.stats().into_iter().find(|row| row.worker == 1).unwrap();
    assert_eq!(ended.cpu_ns, 0, "the clock may be somebody else's by now");
}

/// Keeps a core busy for as many milliseconds as a message says.
async fn work_when_told(worker: Worker) {
    while let Some(message) = worker.recv().await {
        let time = Duration::from_millis(message.get().unwrap());
        let before = worker.stats()[worker.slot().get()].cpu_ns;
        let used = || Duration::from_nanos(worker.stats()[worker.slot().get()].cpu_ns - before);
        while used() < time {}
        event_loop::sleep(Duration::from_millis(1)).await;
        let _ = worker.send(worker.utilization()).unwrap();
    }
}

/// Its own limit on descriptors, for a while.
fn without_descriptors(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let bystander = cluster.fork().unwrap();
    until_named(&cluster, "online", 1);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum }).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = until_named(&cluster, "exit", 1);
    let error = seen.error(worker.id());
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Start, Some(24)), "{error}");
    assert_eq!(seen.names(Some(worker.id())), ["fork", "error", "disconnect", "exit"]);
    if scene.is_process() {
        cluster.setup_primary(Setup::new().silent(true)).unwrap();
        let error = cluster.fork().unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Start, Some(24)), "{error}");
        assert_eq!(cluster.workers().len(), 1, "no half-made worker");
        cluster.setup_primary(Setup::new().silent(false)).unwrap();
    }
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let next = if scene.is_process() { 4 } else { 3 };
    assert_eq!(cluster.fork().unwrap().id().get(), next, "the ids are used up");
    until_named(&cluster, "online", 1);
    assert!(!bystander.is_dead());
    println!("went on");
}

fn shortage(scene: &Scene) {
    let output = program::start("without_descriptors", scene.mode).succeed();
    assert_eq!(output.last().map(String::as_str), Some("went on"));
}

/// Starts and ends workers, one after the other, and looks at what the program has.
fn churn(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let round = |count| {
        for _ in 0..count {
            cluster.fork().unwrap().disconnect().unwrap();
            until_named(&cluster, "exit", 1);
        }
    };
    let count = if scene.is_process() { 40 } else { 300 };
    // What is made once, and what the allocator keeps.
    round(count);
    let before = (system::threads(), system::descriptors(), resident());
    round(count);
    assert_eq!((system::threads(), system::descriptors()), (before.0, before.1));
    let grown = resident().saturating_sub(before.2);
    assert!(grown < 2 << 20, "{grown} bytes more are resident");
    println!("nothing was left");
}

/// Bytes of memory that this process has resident.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn come_and_go(scene: &Scene) {
    let output = program::start("churn", scene.mode).succeed();
    assert_eq!(output.last().map(String::as_str), Some("nothing was left"));
}

fn own_thread(scene: &Scene) {
    let cluster = scene.builder().launch(join_a_panic).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    let error = seen.error(worker.id());
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Panic, "panicked: in a thread")
    );
}

async fn join_a_panic(_worker: Worker) {
    let thread = std::thread::spawn(|| assert!(std::env::args().count() == 0, "in a thread"));
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn own_thread_goes_on(scene: &Scene) {
    let trap = Trap::new();
    let (tell, told) = mpsc::channel();
    let address = trap.address();
    let body = move |_worker: Worker| {
        let (tell, address) = (tell.clone(), address.clone());
        std::thread::spawn(move || {
            step_into(&address);
            tell.send(()).unwrap();
        });
        async {}
    };
    let cluster = scene.builder().launch(body).unwrap();
    cluster.fork().unwrap();
    let held = trap.caught();
    assert!(to_the_end(&cluster).exits().all(|(_, status)| status.success()));
    drop(held);
    told.recv_timeout(DEADLINE).unwrap();
}

fn stays(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let worker = cluster.fork().unwrap();
    for number in 0..100 {
        let _ = worker.send(number).unwrap();
    }
    until_named(&cluster, "online", 1);
    wait_until("some turns of its loop", || worker.stats().beats > 0);
    assert!(!worker.is_dead() && worker.exit_status().is_none());
    worker.disconnect().unwrap();
    assert!(to_the_end(&cluster).exit(worker.id()).success());
}

fn signals(scene: &Scene) {
    let cluster = scene.builder().launch(tell_mask).unwrap();
    cluster.fork().unwrap();
    let mask = next_message::<u64>(&cluster).1;
    let blocked = |signal: i32| mask >> (signal - 1) & 1 == 1;
    for signal in [1, 2, 3, 10, 12, 14, 15, 17, 28] {
        assert!(blocked(signal), "signal {signal} may interrupt a worker");
    }
    assert!(!blocked(11) && !blocked(6), "its own faults are its own");
}

async fn tell_mask(worker: Worker) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    let _ = worker.send(u64::from_str_radix(mask.trim(), 16).unwrap()).unwrap();
}

fn files(scene: &Scene) {
    let file = scratch(scene, "files");
    let cluster = scene.builder().launch(write_all_the_time).unwrap();
    for _ in 0..5 {
        let worker = cluster.fork_with(Fork::new().data(file.clone())).unwrap();
        until_named(&cluster, "message", 1);
        worker.kill().unwrap();
        assert_eq!(until_named(&cluster, "exit", 1).exit(worker.id()), ExitStatus::Killed);
        let length = fs::metadata(&file).unwrap().len();
        assert_eq!(length, 1 << 20, "a call in progress ends first");
    }
    fs::remove_file(file).unwrap();
}

async fn write_all_the_time(worker: Worker) {
    let file: PathBuf = worker.data().unwrap();
    let mut told = false;
    loop {
        fs::write(&file, vec![7; 1 << 20]).unwrap();
        if !std::mem::replace(&mut told, true) {
            let _ = worker.send(()).unwrap();
        }
        event_loop::yield_now().await;
    }
}

fn names(scene: &Scene) {
    let cluster = scene.builder().launch(tell_name).unwrap();
    for number in 1..=3 {
        let worker = cluster.fork().unwrap();
        let told = next_message::<(String, String)>(&cluster).1;
        assert_eq!(told, (worker.name(), format!("bimodal-w-{number}")));
    }
}

async fn tell_name(worker: Worker) {
    let own = std::thread::current().name().unwrap().to_owned();
    let shown = fs::read_to_string("/proc/thread-self/comm").unwrap().trim().to_owned();
    let _ = worker.send((own, shown)).unwrap();
}

/// Workers print, and end in different ways; the program prints when it hears of their ends.
fn prints(scene: &Scene) {
    let cluster = scene.builder().launch(print_and_end).unwrap();
    for act in ["return", "panic", "exit"] {
        let worker = cluster.fork_with(Fork::new().data(act.to_owned())).unwrap();
        until_named(&cluster, "exit", 1);
        println!("{worker} ended");
    }
}

async fn print_and_end(worker: Worker) {
    print!("{} ", worker.id());
    println!("wrote");
    match worker.data::<String>().unwrap().as_str() {
        "panic" => panic!("it was to panic"),
        "exit" => worker.exit(3).await,
        _ => {}
    }
}

fn output(scene: &Scene) {
    let output = program::start("prints", scene.mode).succeed();
    let expected = (1..=3).flat_map(|id| [format!("{id} wrote"), format!("worker {id} ended")]);
    assert_eq!(output, Vec::from_iter(expected));
}

/// What the profile's `panic = "abort"` does, too.
fn aborts_on_panic(scene: &Scene) {
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let cluster = scene.builder().launch(obey).unwrap();
    fork(&cluster, Act::Panic);
    to_the_end(&cluster);
}

fn aborts(scene: &Scene) {
    use std::os::unix::process::ExitStatusExt as _;
    let status = program::start("aborts_on_panic", scene.mode).wait();
    assert_eq!(status.signal(), Some(6));
}

fn memory(scene: &Scene) {
    let cluster = scene.builder().launch(run_out_of_memory).unwrap();
    let hungry = cluster.fork_with(Fork::new().data(true)).unwrap();
    let other = cluster.fork_with(Fork::new().data(false)).unwrap();
    let seen = until(&cluster, "its end", |event| event.name() == "exit");
    assert_eq!(seen.exit(hungry.id()), ExitStatus::Signal(6));
    assert!(!other.is_dead());
    other.disconnect().unwrap();
    assert!(to_the_end(&cluster).exit(other.id()).success());
}

async fn run_out_of_memory(worker: Worker) {
    if worker.data().unwrap() {
        let limit = Some(1 << 30);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        let mut hoard = Vec::new();
        loop {
            hoard.push(vec![1_u8; 64 << 20]);
        }
    }
    idle(worker).await;
}
