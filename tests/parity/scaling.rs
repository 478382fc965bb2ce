//! More workers and fewer: by hand, by signal, by load.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    Address, Autoscale, Cluster, Decision, ErrorKind, Event, Scheduling, Worker, Workers,
};

use crate::{
    bodies::idle,
    supervising::{serve, served, who},
    support::{
        Scenario, Scene, both,
        client::get,
        events::{until, until_named},
        program, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_cluster_is_scaled_up_and_down", up_and_down),
    both("a_number_that_cannot_be_is_refused", refused),
    both("signals_add_a_worker_and_take_one_away", by_signal),
    both("load_adds_workers_and_its_end_takes_them_away", by_load),
    both("a_constant_load_leads_to_a_constant_number", constant_load),
];

/// Started again by the tests above, to be signalled.
pub const PROGRAMS: &[Scenario] = &[both("print_scaling", print_scaling)];

fn up_and_down(scene: &Scene) {
    let (cluster, address) = served(scene.builder().scheduling(Scheduling::RoundRobin), 1);
    cluster.scale(4).unwrap();
    until_named(&cluster, "listening", 3);
    let status = cluster.status();
    assert_eq!((status.target, status.ready()), (4, 4), "{status}");
    let served: BTreeSet<_> = (0..4).map(|_| who(&address)).collect();
    assert_eq!(served.len(), 4);
    cluster.scale(1).unwrap();
    let seen = until_named(&cluster, "exit", 3);
    assert!(seen.exits().all(|(_, status)| status.success()), "{seen:?}");
    assert_eq!(who(&address), 1, "the oldest stays");
    assert_eq!(cluster.status().target, 1);
    cluster.scale(1).unwrap();
    cluster.scale(2).unwrap();
    let seen = until_named(&cluster, "listening", 1);
    let decisions = seen.0.iter().filter(|event| event.name() == "decision").count();
    assert_eq!(decisions, 1, "the same number is no news: {seen:?}");
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.started, report.restarts), (5, 0), "{report}");
    assert_eq!((report.closed, report.forced_kills), (0, 0), "{report}");
}

fn refused(scene: &Scene) {
    let launched = scene.another(scene.mode, "launched").launch(idle).unwrap();
    let builder = scene.builder().workers(2).autoscale(Autoscale::between(1, 3));
    let cluster = builder.supervise(|worker: Worker| async move { ready(worker).await }).unwrap();
    wait_until("both to be ready", || cluster.status().ready() == 2);
    for number in [0, Workers::MAX + 1] {
        assert_eq!(cluster.scale(number).unwrap_err().kind(), ErrorKind::Setting, "{number}");
    }
    cluster.scale(9).unwrap();
    wait_until("the bounds to hold", || cluster.status().target == 3);
    let error = launched.scale(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setting);
    assert!(error.to_string().contains("supervise"), "the remedy: {error}");
    cluster.shutdown().unwrap();
}

async fn ready(worker: Worker) {
    worker.ready();
    idle(worker).await;
}

fn print_scaling(scene: &Scene) {
    let print = |event: &Event| match event {
        Event::Decision { decision: Decision::Scale { from, to } } => println!("{from} to {to}"),
        _ => println!("{}", event.name()),
    };
    let report = scene.builder().workers(1).on_event(print).run(ready).unwrap();
    println!("{report}");
}

fn by_signal(scene: &Scene) {
    const TTIN: i32 = 21;
    const TTOU: i32 = 22;
    let mut program = program::start("print_scaling", scene.mode);
    program.line(|line| line == "online");
    for expected in ["1 to 2", "2 to 3"] {
        program.signal(TTIN);
        program.line(|line| line == expected);
        program.line(|line| line == "online");
    }
    for expected in ["3 to 2", "2 to 1"] {
        program.signal(TTOU);
        program.line(|line| line == expected);
        program.line(|line| line == "exit");
    }
    // The last one stays.
    program.signal(TTOU);
    program.signal(TTIN);
    program.line(|line| line == "1 to 2");
    program.signal(15);
    let output = program.succeed();
    assert!(!output.iter().any(|line| line.ends_with("to 0")), "{output:?}");
}

/// Decides within tenths of a second.
fn rule() -> Autoscale {
    Autoscale {
        target: 0.5,
        up_after: Duration::from_millis(100),
        down_after: Duration::from_millis(600),
        ..Autoscale::between(1, 3)
    }
}

/// Keeps a loop busy, more or less, until it is told to stop.
fn keep_busy(address: &Address, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(get(address, "/burn/50").unwrap().status, 200);
    }
}

/// Stops whoever looks at it when it is dropped, also by a panic.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while six clients keep the workers busy.
fn under_load(address: &Address, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _until = Until(&stop);
        for _ in 0..6 {
            scope.spawn(|| keep_busy(address, &stop));
        }
        work();
    });
}

/// Reads events until so many workers are wanted.
#[track_caller]
fn until_scaled(cluster: &Cluster, workers: usize) {
    until(
        cluster,
        &format!("{workers} workers"),
        |event| matches!(event, Event::Decision { decision: Decision::Scale { to, .. } } if *to == workers),
    );
}

fn by_load(scene: &Scene) {
    let builder = scene.builder().workers(1).autoscale(rule());
    let cluster = builder.supervise(serve).unwrap();
    let address = until_named(&cluster, "listening", 1).addresses().remove(0);
    under_load(&address, || {
        until_scaled(&cluster, 3);
    });
    until_scaled(&cluster, 1);
    wait_until("the others to be gone", || cluster.workers().len() == 1);
    assert_eq!(who(&address), 1);
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.restarts, report.forced_kills), (0, 0), "{report}");
}

fn constant_load(scene: &Scene) {
    let builder = scene.builder().workers(1).autoscale(rule());
    let cluster = builder.supervise(serve).unwrap();
    let address = until_named(&cluster, "listening", 1).addresses().remove(0);
    under_load(&address, || {
        until_scaled(&cluster, 3);
        // Several times as long as any decision takes.
        let end = Instant::now() + Duration::from_secs(2);
        while let Some(event) =
            cluster.next_event_timeout(end.saturating_duration_since(Instant::now()))
        {
            assert_ne!(event.name(), "decision", "{event:?}");
        }
    });
    cluster.shutdown().unwrap();
}
