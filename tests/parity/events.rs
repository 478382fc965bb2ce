//! Events, ids and what handles know.

use bimodal::{Event, State, Worker};

use crate::{
    bodies::{greet, idle},
    support::{
        Scenario, Scene, both,
        events::{fork_listening, to_the_end, until_named},
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("events_come_once_each_and_in_order", in_order).proves(&["EVT-01", "EVT-16"]),
    both("ids_increase_and_slots_are_taken_again", ids).proves(&["FORK-01"]),
    both("a_handle_knows_where_its_worker_is", handle),
    both("a_worker_knows_who_it_is", who).proves(&["DET-06", "THR-44"]),
    both("a_slow_reader_learns_what_it_missed", missed),
    both("events_end_when_nobody_is_left", end),
];

fn in_order(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let workers: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    let mut seen = until_named(&cluster, "listening", 3);
    cluster.disconnect().unwrap();
    seen.0.extend(to_the_end(&cluster).0);
    assert!(matches!(&seen.0[0], Event::Setup { settings } if settings.name == scene.name));
    let names = seen.names(None);
    assert_eq!(names.iter().filter(|name| **name == "setup").count(), 1);
    assert_eq!(names.len(), 1 + 3 * 5, "{seen:#?}");
    for worker in workers {
        let names = seen.names(Some(worker.id()));
        assert_eq!(names, ["fork", "online", "listening", "disconnect", "exit"]);
        assert!(seen.exit(worker.id()).success());
    }
}

fn ids(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let first: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    let numbers: Vec<_> = first.iter().map(|worker| worker.id().get()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    first[1].disconnect().unwrap();
    until_named(&cluster, "exit", 1);
    assert!(cluster.worker(first[1].id()).is_none());
    let fourth = cluster.fork().unwrap();
    assert_eq!(fourth.id().get(), 4, "an id is never reused");
    assert_eq!((fourth.slot(), fourth.generation()), (first[1].slot(), 2));
    let numbers: Vec<_> = cluster.workers().iter().map(|worker| worker.id().get()).collect();
    assert_eq!(numbers, [1, 3, 4]);
}

fn handle(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    let worker = cluster.fork().unwrap();
    assert!(worker.is_connected() && !worker.is_dead());
    assert_eq!((worker.to_string(), worker.name()), ("worker 1".into(), "bimodal-worker-1".into()));
    until_named(&cluster, "listening", 1);
    assert_eq!(worker.state(), State::Listening);
    assert_eq!(worker.pid() == Some(std::process::id()), !scene.is_process());
    worker.disconnect().unwrap();
    let seen = to_the_end(&cluster);
    assert_eq!(worker.state(), State::Gone);
    assert!(!worker.is_connected() && worker.is_dead());
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert!(seen.exit(worker.id()).success());
}

fn who(scene: &Scene) {
    let cluster = scene.builder().launch(tell_who).unwrap();
    let workers: Vec<_> = (0..2).map(|_| cluster.fork().unwrap()).collect();
    let told = to_the_end(&cluster).messages::<(u64, usize, u32, String, String)>();
    assert_eq!(told.len(), workers.len(), "{told:?}");
    for (id, who) in told {
        let worker = workers.iter().find(|worker| worker.id() == id).unwrap();
        let expected = (id.get(), worker.slot().get(), 1, worker.name(), scene.name.to_owned());
        assert_eq!(who, expected);
    }
}

async fn tell_who(worker: Worker) {
    assert!(worker.is_connected() && !worker.is_draining());
    let (name, cluster) = (worker.name().to_owned(), worker.cluster().to_owned());
    let who = (worker.id().get(), worker.slot().get(), worker.generation(), name, cluster);
    let _ = worker.send(who).unwrap();
}

const SENT: u64 = 100;
const WORKERS: u64 = 6;

fn missed(scene: &Scene) {
    let cluster = scene.builder().event_queue(16).launch(talk).unwrap();
    // Nobody reads, and the workers get to their ends all the same.
    for _ in 0..WORKERS {
        let worker = cluster.fork().unwrap();
        wait_until("the end of the worker", || worker.is_dead());
    }
    let seen = to_the_end(&cluster);
    let messages = seen.names(None).into_iter().filter(|name| *name == "message");
    assert_eq!(messages.count() as u64, WORKERS * SENT, "messages are never dropped");
    let told = seen.0.iter().map(|event| match event {
        Event::Missed { count } => *count,
        _ => 1,
    });
    // setup, then of each: fork, online, the messages, disconnect, exit
    assert_eq!(told.sum::<u64>(), 1 + WORKERS * (SENT + 4), "{seen:#?}");
    assert!(seen.names(None).contains(&"missed"));
}

async fn talk(worker: Worker) {
    for number in 0..SENT {
        let _ = worker.send(number).unwrap();
    }
}

fn end(scene: &Scene) {
    let cluster = scene.builder().launch(greet).unwrap();
    fork_listening(&cluster, 2);
    cluster.disconnect().unwrap();
    assert_eq!(to_the_end(&cluster).exits().count(), 2);
    assert!(cluster.events().next().is_none(), "nobody is left");
    // A cluster that is empty can be filled again.
    fork_listening(&cluster, 1);
    // Whichever of several readers gets the last event, they all learn that it was the last.
    std::thread::scope(|scope| {
        let readers =
            [(); 3].map(|()| scope.spawn(|| cluster.events().map(|event| event.name()).collect()));
        cluster.disconnect().unwrap();
        let names: Vec<Vec<_>> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert_eq!(names.concat().iter().filter(|name| **name == "exit").count(), 1, "{names:?}");
    });
}
