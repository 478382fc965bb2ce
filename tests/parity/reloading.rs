//! Replacing everybody while somebody always serves.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bimodal::{
    Address, Cluster, Decision, Event, Mode, Rollout, Worker, event_loop,
    http::{self, Incoming, Request, service_fn},
};

use crate::{
    bodies::{ANYWHERE, idle},
    supervising::{decision, served, who},
    support::{
        Scenario, Scene, both,
        client::get,
        events::{Seen, until, until_named},
        only,
        program::{self, Program},
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_reload_replaces_everybody_one_by_one", one_by_one),
    both("a_first_new_worker_that_fails_breaks_the_reload_off", canary),
    both("a_first_new_worker_that_does_not_get_ready_breaks_the_reload_off", slow_canary),
    both("a_later_new_worker_that_fails_leaves_a_mixture_that_serves", mixture),
    both("an_old_worker_that_fails_meanwhile_does_not_break_a_reload_off", old_one_fails),
    both("reloads_that_come_together_become_one_more", together),
    both("a_surge_replaces_several_at_a_time_once_the_first_is_ready", surge),
    both("where_workers_may_be_missing_the_old_one_leaves_first", unavailable),
    both("sighup_reloads", by_signal),
    // A thread runs the program that is in memory.
    only(&[Mode::Process], "a_reload_runs_the_program_file_as_it_is_now", new_file),
    only(&[Mode::Process], "a_program_file_that_does_not_run_breaks_the_reload_off", broken_file),
    only(
        &[Mode::Process],
        "a_program_file_of_another_protocol_breaks_the_reload_off",
        other_protocol,
    ),
];

/// Started again by the tests above.
pub const PROGRAMS: &[Scenario] = &[both("say_version", say_version)];

/// Reads events up to the end of a reload, good or bad.
#[track_caller]
fn until_reloaded(cluster: &Cluster) -> Seen {
    until(cluster, "the end of a reload", |event| {
        matches!(
            event,
            Event::Decision { decision: Decision::Reloaded | Decision::ReloadFailed { .. } }
        )
    })
}

/// Which decisions there were.
fn decisions(seen: &Seen) -> Vec<String> {
    let made = seen.0.iter().filter_map(|event| match event {
        Event::Decision { decision } => Some(decision.to_string()),
        _ => None,
    });
    made.collect()
}

#[track_caller]
fn failed(seen: &Seen) -> String {
    match seen.0.last() {
        Some(Event::Decision { decision: Decision::ReloadFailed { cause } }) => cause.clone(),
        other => panic!("{other:?}"),
    }
}

/// The workers that were not told to leave, by id.
fn staying(cluster: &Cluster) -> Vec<u64> {
    let workers = cluster.status().workers;
    let stay = workers.iter().filter(|it| it.state < bimodal::State::Draining);
    stay.map(|it| it.worker.get()).collect()
}

fn one_by_one(scene: &Scene) {
    let (cluster, address) = served(scene.builder(), 3);
    cluster.reload().unwrap();
    let mut under_way = 0_i32;
    let seen = until(&cluster, "a reload", |event| {
        under_way += i32::from(event.name() == "fork") - i32::from(event.name() == "listening");
        assert!(under_way <= 1, "one at a time");
        let status = cluster.status();
        assert!(status.ready() >= 3, "{status}: {event:?}");
        matches!(event, Event::Decision { decision: Decision::Reloaded })
    });
    assert_eq!(decisions(&seen), ["every worker is replaced", "every worker was replaced"]);
    assert!(staying(&cluster).iter().eq(&[4, 5, 6]), "{:?}", cluster.status());
    wait_until("the old ones to be gone", || cluster.workers().len() == 3);
    assert!(who(&address) > 3);
    let status = cluster.status();
    assert!(!status.reloading && status.workers.iter().all(|it| it.restarts == 0), "{status:?}");
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.reloads, report.started, report.restarts), (1, 6, 0), "{report}");
    assert_eq!((report.exits["code 0"], report.closed), (6, 0), "{report}");
}

/// What later workers are to do: the region's first word counts them, the second says from which on, the third
/// up to which, the fourth what.
const FATES: usize = 4 * 8;
const PANIC: u64 = 1;
const WAIT: u64 = 2;

async fn meet_fate(worker: Worker) -> bimodal::Result<()> {
    let fates = worker.region("fates")?;
    let number = fates.add(0, 1)? + 1;
    let is_meant = || Ok::<_, bimodal::Error>(number >= fates.load(1)? && number <= fates.load(2)?);
    match fates.load(3)? {
        PANIC => assert!(!is_meant()?, "the new one is broken"),
        WAIT => {
            while is_meant()? {
                event_loop::sleep(Duration::from_millis(1)).await;
            }
        }
        _ => {}
    }
    let _listener = worker.listen(ANYWHERE).await?;
    idle(worker).await;
    Ok(())
}

fn fated(scene: &Scene, workers: usize, rollout: Rollout) -> Cluster {
    let builder = scene.builder().workers(workers).region("fates", FATES).rollout(rollout);
    let cluster = builder.boot_timeout(Duration::from_secs(1)).supervise(meet_fate).unwrap();
    until_named(&cluster, "listening", workers);
    cluster
}

fn decree(cluster: &Cluster, from: u64, to: u64, what: u64) {
    let fates = cluster.region("fates").unwrap();
    for (index, value) in [(3, what), (2, to), (1, from)] {
        fates.store(index, value).unwrap();
    }
}

fn canary(scene: &Scene) {
    let cluster = fated(scene, 3, Rollout::default());
    decree(&cluster, 4, 4, PANIC);
    cluster.reload().unwrap();
    let cause = failed(&until_reloaded(&cluster));
    assert!(cause.contains("the new one is broken"), "{cause}");
    assert_eq!(staying(&cluster), [1, 2, 3]);
    let status = cluster.status();
    assert!(status.ready() == 3 && !status.reloading, "{status}");
    // What was broken is mended.
    cluster.reload().unwrap();
    let seen = until_reloaded(&cluster);
    assert_eq!(decisions(&seen).last().unwrap(), "every worker was replaced");
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.reloads, report.failed_reloads, report.restarts), (1, 1, 0), "{report}");
}

fn slow_canary(scene: &Scene) {
    let cluster = fated(scene, 2, Rollout::default());
    decree(&cluster, 3, 3, WAIT);
    cluster.reload().unwrap();
    let cause = failed(&until_reloaded(&cluster));
    assert!(cause.contains("not ready after"), "{cause}");
    assert_eq!(staying(&cluster), [1, 2]);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.failed_reloads, report.started, report.restarts), (1, 3, 0), "{report}");
}

fn mixture(scene: &Scene) {
    let cluster = fated(scene, 3, Rollout::default());
    decree(&cluster, 5, 5, PANIC);
    cluster.reload().unwrap();
    failed(&until_reloaded(&cluster));
    assert_eq!(staying(&cluster).len(), 3);
    assert!(staying(&cluster).contains(&4), "who got ready stays: {:?}", cluster.status());
    assert_eq!(cluster.status().ready(), 3);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.failed_reloads, report.reloads), (1, 0), "{report}");
}

fn old_one_fails(scene: &Scene) {
    let cluster = fated(scene, 2, Rollout::default());
    decree(&cluster, 3, 3, WAIT);
    cluster.reload().unwrap();
    until_named(&cluster, "online", 1);
    // One of them is being replaced, the other waits for its turn.
    for worker in cluster.workers().iter().filter(|worker| worker.id().get() <= 2) {
        worker.kill().unwrap();
    }
    until_named(&cluster, "exit", 2);
    decree(&cluster, 0, 0, 0);
    let seen = until_reloaded(&cluster);
    assert_eq!(decisions(&seen).last().unwrap(), "every worker was replaced");
    wait_until("two to be ready", || cluster.status().ready() == 2);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.reloads, report.failed_reloads), (1, 0), "{report}");
    assert_eq!(report.started, 4, "nobody was replaced twice: {report}");
}

fn together(scene: &Scene) {
    let cluster = fated(scene, 1, Rollout::default());
    decree(&cluster, 2, 2, WAIT);
    for _ in 0..10 {
        cluster.reload().unwrap();
    }
    // Requests are heard in order.
    cluster.scale(2).unwrap();
    decision(&cluster, "the last request", |made| matches!(made, Decision::Scale { .. }));
    assert!(cluster.status().reloading);
    decree(&cluster, 0, 0, 0);
    let seen = until_reloaded(&cluster);
    assert_eq!(decisions(&seen), ["every worker was replaced"]);
    let seen = until_reloaded(&cluster);
    assert_eq!(decisions(&seen), ["every worker is replaced", "every worker was replaced"]);
    assert!(!cluster.status().reloading);
    assert_eq!(cluster.shutdown().unwrap().reloads, 2);
}

/// Reloads while new workers wait until so many of them have come. How many started at the same time.
#[track_caller]
fn most_under_way(cluster: &Cluster, first: u64, at_once: i32, fewest_ready: usize) -> i32 {
    decree(cluster, first + 1, u64::MAX, WAIT);
    cluster.reload().unwrap();
    let (mut under_way, mut most) = (0_i32, 0);
    until(cluster, "a reload", |event| {
        under_way += i32::from(event.name() == "fork") - i32::from(event.name() == "listening");
        most = most.max(under_way);
        if under_way == at_once && most == at_once {
            decree(cluster, 0, 0, 0);
        }
        let status = cluster.status();
        assert!(status.ready() >= fewest_ready, "{status}: {event:?}");
        matches!(event, Event::Decision { decision: Decision::Reloaded })
    });
    most
}

fn surge(scene: &Scene) {
    let cluster = fated(scene, 4, Rollout { surge: 2, unavailable: 0 });
    assert_eq!(most_under_way(&cluster, 5, 2, 4), 2);
    assert_eq!(cluster.shutdown().unwrap().started, 8);
}

fn unavailable(scene: &Scene) {
    let cluster = fated(scene, 3, Rollout { surge: 0, unavailable: 1 });
    cluster.reload().unwrap();
    until(&cluster, "a reload", |event| {
        let status = cluster.status();
        assert!(status.ready() >= 2, "{status}: {event:?}");
        assert!(staying(&cluster).len() <= 3, "{:?}", status);
        matches!(event, Event::Decision { decision: Decision::Reloaded })
    });
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.reloads, report.started), (1, 6), "{report}");
}

/// Answers with its version, which is in its environment.
fn say_version(scene: &Scene) {
    env_logger::Builder::new().filter_level(log::LevelFilter::Error).init();
    let builder = scene.builder().workers(2).on_event(|event| match event {
        Event::Listening { address, .. } => println!("listening {address}"),
        Event::Decision { decision } => println!("decision {decision}"),
        _ => {}
    });
    builder.run(serve_version).unwrap();
}

async fn serve_version(worker: Worker) -> bimodal::Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    let version = std::env::var("BIMODAL_TEST_VERSION").unwrap_or_else(|_| "1".into());
    let service = move |_: Request<Incoming>| {
        let text = version.clone();
        async move { http::text(text) }
    };
    http::serve(listener, service_fn(service)).await
}

#[track_caller]
fn listening(program: &mut Program) -> Address {
    program.line(|line| line.starts_with("listening "));
    let line = program.line(|line| line.starts_with("listening "));
    line["listening ".len()..].parse().unwrap()
}

fn version(address: &Address) -> String {
    get(address, "/").unwrap().text().to_owned()
}

fn by_signal(scene: &Scene) {
    let mut program = program::start("say_version", scene.mode);
    listening(&mut program);
    program.signal(1);
    program.line(|line| line == "decision every worker was replaced");
    program.signal(15);
    program.succeed();
}

/// A copy of this program, to be replaced.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("{name}-{}", std::process::id()));
        // A link costs nothing; replacing it leaves the other name alone.
        let own = std::env::current_exe().unwrap();
        fs::hard_link(&own, &path).or_else(|_| fs::copy(&own, &path).map(drop)).unwrap();
        Self(path)
    }

    fn start(&self) -> Program {
        let mut command = Command::new(&self.0);
        Program::spawn(command.args(["--program", "say_version", "process"]))
    }

    /// Another file takes the place of this one, as an installation does it.
    fn replace(&self, script: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The next version: this very program, which knows by its environment that it is another.
fn second_version() -> String {
    let own = std::env::current_exe().unwrap();
    format!("BIMODAL_TEST_VERSION=2 exec '{}' \"$@\"", own.display())
}

fn new_file(_scene: &Scene) {
    let copy = Copy::new("new-file");
    let mut program = copy.start();
    let address = listening(&mut program);
    assert_eq!(version(&address), "1");
    copy.replace(&second_version());
    assert_eq!(version(&address), "1");
    program.signal(1);
    program.line(|line| line == "decision every worker was replaced");
    for _ in 0..4 {
        assert_eq!(version(&address), "2");
    }
    program.signal(15);
    program.succeed();
}

fn broken_file(_scene: &Scene) {
    let copy = Copy::new("broken-file");
    let mut program = copy.start();
    let address = listening(&mut program);
    let is_failure = |line: &str| line.starts_with("decision the reload is broken off");
    for (script, cause) in [("exit 3", "code 3"), ("kill -9 $$", "signal 9")] {
        copy.replace(script);
        program.signal(1);
        let line = program.line(is_failure);
        assert!(line.contains(cause), "{line}");
        assert_eq!(version(&address), "1");
    }
    fs::remove_file(&copy.0).unwrap();
    program.signal(1);
    program.line(is_failure);
    assert_eq!(version(&address), "1");
    copy.replace(&second_version());
    program.signal(1);
    program.line(|line| line == "decision every worker was replaced");
    assert_eq!(version(&address), "2");
    program.signal(15);
    program.succeed();
}

/// To the new program the marker looks as one does that a primary of another version has written.
fn other_protocol(_scene: &Scene) {
    let copy = Copy::new("other-protocol");
    let mut program = copy.start();
    let address = listening(&mut program);
    let own = std::env::current_exe().unwrap();
    let marker = "BIMODAL_WORKER=\"65535:${BIMODAL_WORKER#*:}\"";
    copy.replace(&format!("{marker} exec '{}' \"$@\"", own.display()));
    program.signal(1);
    let line = program.line(|line| line.starts_with("decision the reload is broken off"));
    assert!(line.contains("code 1"), "{line}");
    assert_eq!(version(&address), "1");
    program.signal(15);
    assert!(program.wait().success());
    let errors = program.errors();
    assert!(errors.contains("speaks version 65535") && errors.contains("SIGUSR2"), "{errors}");
}
