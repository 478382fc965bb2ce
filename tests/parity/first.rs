//! A program that is process 1 of a namespace, as in a container.

use std::process::Command;

use bimodal::{Event, Worker};

use crate::support::{
    Scenario, Scene, both, not_permitted,
    program::{self, Program},
    system, wait_until,
};

pub const SCENARIOS: &[Scenario] = &[
    both("process_1_reaps_orphans_and_steals_no_exit_status", orphans),
    both("process_1_ends_as_the_program_does", ends_as_the_program),
    both("process_1_passes_signals_on", passes_signals_on),
    both("process_1_with_threads_stays_as_it_was", with_threads),
    both("process_1_can_be_kept", kept),
    both("a_container_is_not_upgraded", not_upgraded),
];

pub const PROGRAMS: &[Scenario] = &[
    both("make_orphans", make_orphans),
    both("abort_after_run", abort_after_run),
    both("tell_who_i_am", tell_who_i_am),
];

/// Starts a program as process 1 of a namespace of its own, if that is permitted.
fn start(scene: &Scene, name: &str, args: &[&str]) -> Option<Program> {
    let unshare = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let tried = Command::new("unshare").args(unshare).arg("true").output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        not_permitted(&format!("a process namespace: {tried:?}"));
        return None;
    }
    let program = program::command(name, scene.mode);
    let mut command = Command::new("unshare");
    command.args(unshare).arg(program.get_program()).args(program.get_args()).args(args);
    Some(Program::spawn(&mut command))
}

fn make_orphans(scene: &Scene) {
    println!("before {}", std::process::id());
    let on_event = |event: &Event| {
        if event.name() == "online" {
            keep_a_status();
        }
    };
    let report = scene.builder().workers(2).on_event(on_event).run(async |worker: Worker| {
        for _ in 0..3 {
            let orphan = orphan();
            wait_until("the orphan to be reaped", || !system::exists(orphan));
            println!("reaped for worker {}", worker.id());
        }
        keep_a_status();
    });
    let report = report.unwrap();
    println!("{:?}, started {}, after {}", report.exits, report.started, std::process::id());
    std::process::exit(23);
}

/// A process that ends a moment after its parent.
fn orphan() -> u32 {
    let script = "sleep 0.02 >/dev/null & echo $!";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A child of one's own whose status is asked for late.
fn keep_a_status() {
    let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    wait_until("a child that has ended", || system::state(child.id()) == Some('Z'));
    // Time enough for a thief.
    let orphan = orphan();
    wait_until("the orphan to be reaped", || !system::exists(orphan));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    println!("kept a status");
}

fn orphans(scene: &Scene) {
    let Some(mut program) = start(scene, "make_orphans", &[]) else { return };
    let status = program.wait();
    let (output, errors) = (program.output.clone(), program.errors());
    assert_eq!(status.code(), Some(23), "{output:#?}\n{errors}");
    let count = |start: &str| output.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("before 1"), count("reaped"), count("kept")), (1, 6, 4), "{output:#?}");
    let last = output.last().unwrap();
    assert!(last.starts_with(r#"{"code 0": 2}, started 2, after "#), "{last}");
    assert!(!last.ends_with("after 1"), "it was to go on in a child");
}

fn abort_after_run(scene: &Scene) {
    scene.builder().workers(1).run(async |_| {}).unwrap();
    std::process::abort();
}

fn ends_as_the_program(scene: &Scene) {
    let Some(mut program) = start(scene, "abort_after_run", &[]) else { return };
    let status = program.wait();
    assert_eq!(status.code(), Some(128 + 6), "{}", program.errors());
}

/// Serves until it is told to stop; `keep` and `thread` say in which way it is not to step aside.
fn tell_who_i_am(scene: &Scene) {
    env_logger::Builder::new().filter_level(log::LevelFilter::Warn).init();
    let args = program::args();
    let has = |arg: &str| args.iter().any(|given| given == arg);
    let (keep, done) = std::sync::mpsc::channel::<()>();
    if has("thread") {
        std::thread::spawn(move || done.recv());
    }
    let builder = scene.builder().workers(1).reap_orphans(!has("keep"));
    let on_event = |event: &Event| match event {
        Event::Decision { decision } => println!("decided {decision}"),
        event => println!("{} in {}", event.name(), std::process::id()),
    };
    let report = builder.on_event(on_event).run(async |worker: Worker| {
        let _listener = worker.listen("127.0.0.1:0").await.unwrap();
        worker.draining().await;
    });
    println!("{:?}", report.unwrap().exits);
    drop(keep);
}

/// The program's process 1, by its number out here.
fn first_of(program: &Program) -> u32 {
    let children = system::children_of(program.pid());
    *children.first().expect("unshare has no child")
}

/// Runs the program up to a SIGTERM to its process 1. In which process it ran, and its errors.
fn until_told(mut program: Program) -> (u32, String) {
    let line = program.line(|line| line.starts_with("listening in "));
    system::signal(first_of(&program), 15);
    let status = program.wait();
    let errors = program.errors();
    assert_eq!(status.code(), Some(0), "{:#?}\n{errors}", program.output);
    assert_eq!(program.output.last().unwrap(), r#"{"code 0": 1}"#);
    (line.rsplit(' ').next().unwrap().parse().unwrap(), errors)
}

fn passes_signals_on(scene: &Scene) {
    let Some(program) = start(scene, "tell_who_i_am", &[]) else { return };
    let (pid, errors) = until_told(program);
    assert_ne!(pid, 1);
    assert_eq!(errors, "");
}

fn with_threads(scene: &Scene) {
    let Some(program) = start(scene, "tell_who_i_am", &["thread"]) else { return };
    let (pid, errors) = until_told(program);
    assert_eq!(pid, 1);
    assert!(errors.contains("reaps no orphans: other threads are running"), "{errors}");
}

fn kept(scene: &Scene) {
    let Some(program) = start(scene, "tell_who_i_am", &["keep"]) else { return };
    let (pid, errors) = until_told(program);
    assert_eq!((pid, errors.as_str()), (1, ""));
}

fn not_upgraded(scene: &Scene) {
    for args in [&[][..], &["keep"]] {
        let Some(mut program) = start(scene, "tell_who_i_am", args) else { return };
        program.line(|line| line.starts_with("listening in "));
        system::signal(first_of(&program), 12);
        let refusal = "process 1 ends with this program; replace the container";
        program.line(|line| line.starts_with("decided ") && line.ends_with(refusal));
        system::signal(first_of(&program), 15);
        assert!(program.wait().success(), "{}", program.errors());
    }
}
