//! What a worker process is started with that a thread cannot have of its own: standard streams,
//! directory, process group, another program.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use bimodal::{Handle, Setup, Stdio, Worker};
use rustix::process::{getpgid, getpgrp, getpid};

use crate::{
    bodies::idle,
    support::{
        Scene,
        events::{next_message, to_the_end, until_named},
        program, system,
    },
};

pub fn silent_workers_have_streams(scene: &Scene) {
    let cluster = scene.builder().setup(Setup::new().silent(true)).launch(echo_lines).unwrap();
    let workers: Vec<_> = (0..2).map(|_| cluster.fork().unwrap()).collect();
    let mut stdin = workers[0].take_stdin().unwrap();
    let mut stdout = BufReader::new(workers[0].take_stdout().unwrap());
    let mut stderr = BufReader::new(workers[0].take_stderr().unwrap());
    assert!(workers[0].take_stdout().is_none(), "once");
    let mut line = String::new();
    for word in ["first", "second"] {
        writeln!(stdin, "{word}").unwrap();
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("1 heard {word}\n"));
    }
    drop(stdin);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "1 heard the end\n");
    // Had the second worker inherited anything of the first's, this would not end.
    stdout.read_to_string(&mut rest).unwrap();
    assert!(until_named(&cluster, "exit", 1).exit(workers[0].id()).success());
    assert!(!workers[1].is_dead());
}

async fn echo_lines(worker: Worker) {
    for line in std::io::stdin().lines() {
        println!("{} heard {}", worker.id(), line.unwrap());
    }
    eprintln!("{} heard the end", worker.id());
}

pub fn other_workers_share_the_streams(scene: &Scene) {
    let streams = |pid: u32| system::descriptors_of(pid).into_iter().take(3).collect::<Vec<_>>();
    let cluster = scene.builder().launch(idle).unwrap();
    let worker = cluster.fork().unwrap();
    until_named(&cluster, "online", 1);
    assert!(worker.take_stdin().is_none() && worker.take_stdout().is_none());
    assert!(worker.take_stderr().is_none());
    assert_eq!(streams(worker.pid().unwrap()), streams(std::process::id()));
    // A stream alone, over `silent`.
    cluster
        .setup_primary(Setup::new().silent(true).stdin(Stdio::Null).stderr(Stdio::Inherit))
        .unwrap();
    let other = cluster.fork().unwrap();
    assert!(other.take_stdin().is_none() && other.take_stderr().is_none());
    assert!(other.take_stdout().is_some());
    until_named(&cluster, "online", 1);
    let (own, others) = (streams(std::process::id()), streams(other.pid().unwrap()));
    assert_eq!((others[0].1.as_str(), &others[2]), ("/dev/null", &own[2]));
    assert!(others[1].1.starts_with("pipe:"), "{others:?}");
}

/// What Node has a further entry in its list of streams for.
pub fn a_further_pipe(scene: &Scene) {
    let cluster = scene.builder().launch(answer_on_a_pipe).unwrap();
    let worker = cluster.fork().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let _ = worker.send_with((), theirs).unwrap();
    ours.write_all(b"question\n").unwrap();
    let mut line = String::new();
    BufReader::new(&ours).read_line(&mut line).unwrap();
    assert_eq!(line, "an answer to question\n");
    drop(ours);
    assert!(to_the_end(&cluster).exit(worker.id()).success());
}

async fn answer_on_a_pipe(worker: Worker) {
    let mut message = worker.recv().await.unwrap();
    let Some(Handle::UnixStream(pipe)) = message.take_handle().unwrap() else {
        panic!("no pipe came")
    };
    for line in BufReader::new(&pipe).lines() {
        writeln!(&pipe, "an answer to {}", line.unwrap()).unwrap();
    }
}

pub fn working_directory(scene: &Scene) {
    let cluster = scene.builder().launch(tell_directory).unwrap();
    cluster.fork().unwrap();
    assert_eq!(next_message::<PathBuf>(&cluster).1, std::env::current_dir().unwrap());
    let directory = fs::canonicalize(env!("CARGO_TARGET_TMPDIR")).unwrap();
    cluster.setup_primary(Setup::new().cwd(&directory)).unwrap();
    cluster.fork().unwrap();
    assert_eq!(next_message::<PathBuf>(&cluster).1, directory);
}

async fn tell_directory(worker: Worker) {
    let _ = worker.send(std::env::current_dir().unwrap()).unwrap();
}

pub fn process_groups(scene: &Scene) {
    let cluster = scene.builder().launch(tell_group).unwrap();
    let group = |own: bool| {
        cluster.setup_primary(Setup::new().process_group(own)).unwrap();
        cluster.fork().unwrap();
        next_message::<(i32, i32)>(&cluster).1
    };
    cluster.fork().unwrap();
    let ours = getpgrp().as_raw_pid();
    assert_eq!(next_message::<(i32, i32)>(&cluster).1.1, ours, "without a setting");
    let (pid, own) = group(true);
    assert_eq!(pid, own);
    assert_eq!(group(false).1, ours);
}

async fn tell_group(worker: Worker) {
    let group = getpgid(None).unwrap().as_raw_pid();
    let _ = worker.send((getpid().as_raw_pid(), group)).unwrap();
}

pub fn another_program(scene: &Scene) {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("exec-{}", std::process::id()));
    let cluster = scene.builder().setup(Setup::new().exec(&copy)).launch(tell_program).unwrap();
    fs::hard_link(std::env::current_exe().unwrap(), &copy).unwrap();
    cluster.fork().unwrap();
    assert_eq!(next_message::<PathBuf>(&cluster).1, copy);
    // What is no worker of the cluster never says that it is online.
    cluster.setup_primary(Setup::new().exec("/bin/true").args(["x"])).unwrap();
    let stranger = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(Some(stranger.id())), ["fork", "disconnect", "exit"]);
    fs::remove_file(copy).unwrap();
}

async fn tell_program(worker: Worker) {
    let _ = worker.send(std::env::current_exe().unwrap()).unwrap();
}

/// A primary that ends while its workers idle, spin, and refuse to leave.
pub fn primary_to_end(scene: &Scene) {
    let cluster = scene.builder().launch(busy_by_id).unwrap();
    for _ in 0..3 {
        println!("worker {}", cluster.fork().unwrap().id());
    }
    let seen = until_named(&cluster, "message", 3);
    drop(seen);
    let stubborn = cluster.workers().pop().unwrap();
    stubborn.disconnect().unwrap();
    until_named(&cluster, "message", 1);
    println!("ready");
    let mut end = String::new();
    std::io::stdin().read_line(&mut end).unwrap();
    match end.trim() {
        "return" => std::mem::forget(cluster),
        "exit" => std::process::exit(3),
        "abort" => std::process::abort(),
        _ => panic!("it was to panic"),
    }
}

async fn busy_by_id(worker: Worker) {
    let _ = worker.send(()).unwrap();
    match worker.id().get() {
        1 => idle(worker).await,
        2 => {
            bimodal::event_loop::sleep(std::time::Duration::from_millis(1)).await;
            loop {
                std::hint::spin_loop();
            }
        }
        _ => {
            worker.draining().await;
            let _ = worker.send(()).unwrap();
            std::future::pending().await
        }
    }
}

pub fn the_end_of_the_primary_ends_all(scene: &Scene) {
    for end in ["return", "exit", "abort", "panic", "SIGKILL", "SIGTERM"] {
        let command = program::command("primary_to_end", scene.mode);
        let mut child = Command::new(command.get_program())
            .args(command.get_args())
            .process_group(0)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        let workers = system::children_of(child.id());
        assert_eq!(workers.len(), 3, "{end}");
        match end.parse::<bimodal::Signal>() {
            Ok(signal) => system::signal(child.id(), signal.number()),
            Err(_) => writeln!(child.stdin.as_ref().unwrap(), "{end}").unwrap(),
        }
        child.wait().unwrap();
        crate::serve::assert_nobody_left(child.id());
    }
}
