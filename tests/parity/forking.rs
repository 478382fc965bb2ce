//! What a worker is started with: settings, variables, arguments, data.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf, sync::Arc};

use bimodal::{
    Cluster, ErrorKind, Event, ExitStatus, Fork, Mode, Scheduling, Settings, Setup, State, Stdio,
    Worker, WorkerHandle,
};

use crate::{
    bodies::idle,
    support::{
        Scenario, Scene, both,
        events::{Seen, next_message, to_the_end, until_named},
        program,
    },
};

const PROCESS: &[Mode] = &[Mode::Process];

pub const SCENARIOS: &[Scenario] = &[
    both("a_start_that_fails_is_told_and_uses_up_its_id", failed_start)
        .proves(&["FORK-02", "FORK-20", "THR-40"]),
    both("a_fork_that_is_refused_adds_no_worker", refused)
        .proves(&["FORK-02", "FORK-27", "ERR-05"]),
    both("a_forked_worker_is_listed_at_once", listed).proves(&["FORK-03", "FORK-05"]),
    both("settings_are_filled_without_a_setup", filled)
        .proves(&["FORK-04"])
        .proves_in(PROCESS, &["FORK-11"]),
    both("setups_add_up", add_up).proves(&["FORK-13", "FORK-14", "FORK-16", "FORK-18"]),
    both("a_setup_that_is_refused_changes_nothing", refused_setup).proves(&["FORK-27", "ERR-05"]),
    both("arguments_arrive_one_by_one", arguments).proves(&["FORK-10", "FORK-12"]),
    both("a_forks_variables_are_its_workers_own", variables)
        .proves(&["FORK-06", "FORK-07", "FORK-09", "FORK-10", "THR-34"]),
    both("data_is_there_when_the_body_starts", data).proves(&["THR-35"]),
    both("data_comes_before_messages_that_were_sent_at_once", data_first),
    both("data_of_another_type_is_refused_and_kept", other_data),
    both("data_over_the_limit_is_refused_where_it_is_given", large_data)
        .proves_in(PROCESS, &["ERR-05"]),
    both("replacements_are_started_as_the_first_were", replacements).proves(&["FORK-10"]),
    both("the_environment_may_choose_the_policy", policy).proves(&["FORK-28", "FORK-30"]),
];

/// Started with another environment.
pub const PROGRAMS: &[Scenario] = &[both("policy", print_policy)];

/// A setup with which no worker can be started, and one that repairs it.
fn broken(scene: &Scene) -> (Setup, Setup) {
    match scene.mode {
        Mode::Process => (Setup::new().cwd("/nonexistent/directory"), Setup::new().cwd("/")),
        Mode::Thread => (Setup::new().stack_size(1 << 50), Setup::new().stack_size(1 << 20)),
    }
}

fn failed_start(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let (broken, repaired) = broken(scene);
    cluster.setup_primary(broken).unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(seen.names(Some(worker.id())), ["fork", "error", "disconnect", "exit"]);
    let error = seen.error(worker.id());
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(error.raw_os_error().is_some(), "{error}");
    assert_eq!(seen.exit(worker.id()), ExitStatus::NotStarted);
    assert!(worker.is_dead() && !worker.is_connected() && cluster.workers().is_empty());
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    cluster.setup_primary(repaired).unwrap();
    assert_eq!(cluster.fork().unwrap().id().get(), 2, "the first id is used up");
    until_named(&cluster, "online", 1);
}

fn refused(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let names = ["", "A=B", "A\0"].map(|name| Fork::new().env(name, "x"));
    let values = [Fork::new().env("A", "x\0")];
    let mut used = 0;
    for fork in names.into_iter().chain(values) {
        let error = cluster.fork_with(fork).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains("`env`"), "{error}");
        assert!(cluster.workers().is_empty());
        used += 1;
    }
    assert!(!to_the_end(&cluster).names(None).contains(&"fork"));
    assert_eq!(cluster.fork().unwrap().id().get(), used + 1);
}

fn listed(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    for number in 1..=3 {
        let worker = cluster.fork().unwrap();
        assert_eq!(cluster.workers().len(), number);
        assert_eq!(cluster.worker(worker.id()).unwrap().id(), worker.id());
        assert!(worker.is_connected() && !worker.is_dead() && !worker.is_disconnecting());
        assert_eq!((worker.exited_after_disconnect(), worker.exit_status()), (None, None));
    }
    let seen = until_named(&cluster, "online", 3);
    let forks = seen.0.iter().filter(|event| event.name() == "fork");
    let states: Vec<_> =
        forks.map(|fork| (fork.worker().unwrap().id().get(), fork.state())).collect();
    let starting = Some(State::Starting);
    assert_eq!(states, [(1, starting), (2, starting), (3, starting)], "once each, with the handle");
}

fn filled(scene: &Scene) {
    let cluster = scene.builder().launch(tell_program).unwrap();
    let settings = cluster.settings();
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    assert_eq!(settings.setup.args, Some(args.clone()));
    let program = std::env::current_exe().unwrap();
    assert_eq!(settings.setup.exec, scene.is_process().then(|| program.clone()));
    cluster.fork().unwrap();
    let (_, (workers_args, workers_program)) = next_message::<(Vec<OsString>, PathBuf)>(&cluster);
    assert_eq!((workers_args, workers_program), (args, program));
}

async fn tell_program(worker: Worker) {
    let told = (worker.args().to_vec(), std::env::current_exe().unwrap());
    let _ = worker.send(told).unwrap();
}

/// The settings of the `setup` events, in order.
fn setups(seen: &Seen) -> Vec<Arc<Settings>> {
    let settings = seen.0.iter().filter_map(|event| match event {
        Event::Setup { settings } => Some(settings.clone()),
        _ => None,
    });
    settings.collect()
}

fn add_up(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let args = |settings: &Settings| settings.setup.args.clone().unwrap();
    let first = cluster.settings();
    cluster.setup_primary(Setup::new().args(["one"])).unwrap();
    let second = cluster.settings();
    assert_eq!(args(&second), ["one"], "visible when the call returns");
    let other = match scene.mode {
        Mode::Process => Setup::new().cwd("/"),
        Mode::Thread => Setup::new().stack_size(1 << 20),
    };
    cluster.setup_primary(other).unwrap();
    let third = cluster.settings();
    assert_eq!(args(&third), ["one"], "it was not mentioned");
    assert!(third.setup.cwd.is_some() || third.setup.stack_size.is_some());
    assert!(second.setup.cwd.is_none() && second.setup.stack_size.is_none());
    assert_ne!(args(&first), ["one"], "an older reference keeps the older values");
    assert_eq!(third.setup.exec, first.setup.exec);
    // Without a worker the events would end here.
    cluster.fork().unwrap();
    let told = setups(&until_named(&cluster, "online", 1));
    let same = [first, second, third];
    assert!(
        told.iter().zip(&same).all(|(told, set)| Arc::ptr_eq(told, set)),
        "in order, each once"
    );
    assert_eq!(told.len(), 3);
}

fn refused_setup(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let before = cluster.settings();
    let error = cluster.setup_primary(Setup::new().args(["x\0"])).unwrap_err();
    assert!(error.kind() == ErrorKind::Setting && error.to_string().contains("`args`"), "{error}");
    let error = cluster.setup_primary(unsuitable(scene.mode).args(["new"])).unwrap_err();
    assert!(error.to_string().contains("leave it out"), "{error}");
    assert!(Arc::ptr_eq(&before, &cluster.settings()));
    cluster.fork().unwrap();
    assert_eq!(setups(&until_named(&cluster, "online", 1)).len(), 1, "only the one at the start");
}

fn unsuitable(mode: Mode) -> Setup {
    match mode {
        Mode::Process => Setup::new().stack_size(1 << 20),
        Mode::Thread => Setup::new().stdout(Stdio::Piped),
    }
}

const ARGS: [&str; 5] = ["a b", "", "c\td", "--x=y z", "größe"];

fn arguments(scene: &Scene) {
    let cluster = scene.builder().setup(Setup::new().args(ARGS)).launch(tell_args).unwrap();
    cluster.fork().unwrap();
    cluster.fork_with(Fork::new().env("A", "b")).unwrap();
    for _ in 0..2 {
        let (args, of_process) = next_message::<(Vec<OsString>, Vec<OsString>)>(&cluster).1;
        assert_eq!(args, ARGS);
        assert_eq!(of_process == ARGS, scene.is_process(), "{of_process:?}");
    }
    cluster.setup_primary(Setup::new().args(["later"])).unwrap();
    cluster.fork().unwrap();
    assert_eq!(next_message::<(Vec<OsString>, Vec<OsString>)>(&cluster).1.0, ["later"]);
}

async fn tell_args(worker: Worker) {
    let of_process: Vec<_> = std::env::args_os().skip(1).collect();
    let _ = worker.send((worker.args().to_vec(), of_process)).unwrap();
}

/// What `Worker::env` says of the names in a message, and what the process's environment does.
type Told = Vec<(Option<OsString>, Option<OsString>)>;

async fn tell_variables(worker: Worker) {
    while let Some(message) = worker.recv().await {
        let names: Vec<String> = message.get().unwrap();
        let tell = |name: &String| (worker.env(name), std::env::var_os(name));
        let told: Told = names.iter().map(tell).collect();
        assert!(worker.vars().all(|(name, value)| worker.env(name).as_deref() == Some(value)));
        let _ = worker.send(told).unwrap();
    }
}

fn ask_for(cluster: &Cluster, worker: &WorkerHandle, names: &[&str]) -> Told {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let _ = worker.send(names).unwrap();
    next_message::<Told>(cluster).1
}

fn variables(scene: &Scene) {
    const OWN: &str = "BIMODAL_TEST_OWN";
    let cluster = scene.builder().launch(tell_variables).unwrap();
    let bytes = OsString::from_vec(vec![b'a', 0xff, b'=', b'b']);
    let fork = Fork::new().env(OWN, "replaced").env(OWN, bytes.clone()).env("PATH", "/elsewhere");
    let first = cluster.fork_with(fork).unwrap();
    let second = cluster.fork_with(Fork::new().env(OWN, "")).unwrap();
    let third = cluster.fork().unwrap();
    let inherited = std::env::var_os("PATH");
    let expected = [
        (&first, Some(bytes), Some("/elsewhere".into())),
        (&second, Some(OsString::new()), inherited.clone()),
        (&third, None, inherited.clone()),
    ];
    for (worker, own, path) in expected {
        let told = ask_for(&cluster, worker, &[OWN, "PATH"]);
        assert_eq!([&told[0].0, &told[1].0], [&own, &path]);
        // The one difference: the environment of a process that others share stays as it is.
        let of_process = if scene.is_process() { [own, path] } else { [None, inherited.clone()] };
        assert_eq!([&told[0].1, &told[1].1], of_process.each_ref());
    }
    assert_eq!(std::env::var_os(OWN), None);
    if scene.is_process() {
        cluster.setup_primary(Setup::new().env(OWN, "later")).unwrap();
        assert_eq!(ask_for(&cluster, &third, &[OWN])[0], (None, None), "it is as it was");
        let fourth = cluster.fork().unwrap();
        assert_eq!(ask_for(&cluster, &fourth, &[OWN])[0].0, Some("later".into()));
        let fifth = cluster.fork_with(Fork::new().env(OWN, "the fork's")).unwrap();
        assert_eq!(ask_for(&cluster, &fifth, &[OWN])[0].1, Some("the fork's".into()));
    }
}

fn data(scene: &Scene) {
    let cluster = scene.builder().launch(echo_data).unwrap();
    let mut table = vec![7_u8; 4 << 20];
    for number in 0..3_u8 {
        table[0] = number;
        let fork = Fork::new().data("another value").data((table.clone(), "name".to_owned()));
        cluster.fork_with(fork).unwrap();
    }
    table[0] = 99;
    let seen = to_the_end(&cluster);
    let mut numbers: Vec<_> =
        seen.messages::<(u8, usize)>().into_iter().map(|(_, it)| it).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [(0, table.len()), (1, table.len()), (2, table.len())]);
}

/// The data is there before anything is awaited.
fn echo_data(worker: Worker) -> impl Future<Output = ()> {
    let (table, name): (Vec<u8>, String) = worker.data().unwrap();
    assert_eq!(name, "name");
    assert!(worker.data::<String>().unwrap_err().to_string().contains("already"));
    async move {
        let _ = worker.send((table[0], table.len())).unwrap();
    }
}

fn data_first(scene: &Scene) {
    let cluster = scene.builder().launch(tell_first_message).unwrap();
    for _ in 0..5 {
        let worker = cluster.fork_with(Fork::new().data(vec![1_u8; 300_000])).unwrap();
        for number in 0..3_u64 {
            let _ = worker.send(number).unwrap();
        }
        assert_eq!(next_message::<(usize, u64)>(&cluster).1, (300_000, 0));
    }
}

async fn tell_first_message(worker: Worker) {
    let data: Vec<u8> = worker.data().unwrap();
    let first: u64 = worker.recv().await.unwrap().get().unwrap();
    let _ = worker.send((data.len(), first)).unwrap();
}

fn replacements(scene: &Scene) {
    let own_streams = scene.is_process();
    let setup = Setup::new().args(["as", "set"]);
    let setup = if own_streams { setup.stdout(Stdio::Piped) } else { setup };
    let observer = move |event: &Event| {
        if let Event::Fork { worker } = event {
            assert_eq!(worker.take_stdout().is_some(), own_streams);
        }
    };
    let builder = scene.builder().workers(1).setup(setup).on_event(observer);
    let report = builder.run(end_as_replacement).unwrap();
    assert_eq!((report.started, report.exits["code 0"]), (2, 1), "{report}");
}

async fn end_as_replacement(worker: Worker) -> i32 {
    assert_eq!(worker.args(), ["as", "set"]);
    if worker.generation() == 1 { 3 } else { 0 }
}

fn other_data(scene: &Scene) {
    let cluster = scene.builder().launch(ask_wrongly).unwrap();
    cluster.fork_with(Fork::new().data(5_u32)).unwrap();
    let (error, kept) = next_message::<(String, Option<u32>)>(&cluster).1;
    assert!(error.contains("`u32`") && error.contains("String`"), "{error}");
    assert_eq!(kept, Some(5));
    cluster.fork().unwrap();
    let (error, kept) = next_message::<(String, Option<u32>)>(&cluster).1;
    assert!(error.contains("no data") && error.contains("Fork::data"), "{error}");
    assert_eq!(kept, None);
}

async fn ask_wrongly(worker: Worker) {
    let error = worker.data::<String>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Type);
    let _ = worker.send((error.to_string(), worker.data::<u32>().ok())).unwrap();
}

fn large_data(scene: &Scene) {
    let cluster = scene.builder().max_message(1000).launch(idle).unwrap();
    let forked = cluster.fork_with(Fork::new().data(vec![7_u8; 2000]));
    // The one difference: what is moved has no size.
    match forked {
        Err(error) => {
            assert!(scene.is_process() && error.kind() == ErrorKind::TooLarge, "{error}");
            assert!(cluster.workers().is_empty());
        }
        Ok(_) => assert!(!scene.is_process()),
    }
}

fn print_policy(scene: &Scene) {
    match scene.builder().launch(idle) {
        Ok(cluster) => println!("{}", cluster.settings().scheduling),
        Err(error) => println!("{:?} {error}", error.kind()),
    }
    let chosen = scene.builder().scheduling(Scheduling::LeastConnections).build().unwrap();
    println!("{}", chosen.scheduling);
}

fn policy(scene: &Scene) {
    let run = |value: Option<&str>| {
        let mut command = program::command("policy", scene.mode);
        match value {
            Some(value) => command.env(Scheduling::VARIABLE, value),
            None => command.env_remove(Scheduling::VARIABLE),
        };
        let output = program::Program::spawn(&mut command).succeed();
        assert_eq!(output[1], "least-connections", "what the program chooses counts");
        output[0].clone()
    };
    let default = if scene.is_process() { "round-robin" } else { "shared" };
    for (value, policy) in [
        (None, default),
        (Some("rr"), "round-robin"),
        (Some("none"), "shared"),
        (Some("reuse-port"), "reuse-port"),
    ] {
        assert_eq!(run(value), policy);
    }
    let error = run(Some("fair"));
    assert!(error.starts_with("Setting") && error.contains("BIMODAL_SCHEDULING"), "{error}");
}
