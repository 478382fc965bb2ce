//! Broadcasts: to all other members of a name, and to nobody else.

use std::time::Duration;

use bimodal::{Broadcast, Cluster, ErrorKind, Worker};

use crate::support::{
    DEADLINE, Scenario, Scene, both,
    events::{next_message, until_named},
    wait_until,
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_broadcast_reaches_all_other_members_and_nobody_else", reaches).proves(&["THR-30"]),
    both("a_member_that_does_not_receive_loses_the_oldest", slow),
    both("a_broadcast_that_cannot_be_is_refused", refused),
];

/// What a worker tells: that it has joined, or what it was told.
type Heard = (u64, String);

/// Joins `news`, and tells what it hears. Posts what it is sent.
async fn member(worker: Worker) {
    let id = worker.id().get();
    let news = worker.broadcast("news").unwrap();
    let twin = worker.broadcast("news").unwrap();
    let other = worker.broadcast("other").unwrap();
    let _ = worker.send((id, String::from("joined"))).unwrap();
    while let Some(message) = worker.recv().await {
        match message.get::<String>().unwrap().as_str() {
            "hear" => {
                let text = news.recv().await.get::<String>().unwrap();
                assert_eq!(twin.recv().await.get::<String>().unwrap(), text);
                let _ = worker.send((id, text)).unwrap();
            }
            "post" => {
                for number in 0..100 {
                    news.post(format!("{id}:{number}")).unwrap();
                }
                // Its twin hears it, and it does not.
                assert_eq!(twin.recv().await.get::<String>().unwrap(), format!("{id}:0"));
                assert!(news.try_recv().is_none() && other.try_recv().is_none());
                let _ = worker.send((id, String::from("posted"))).unwrap();
            }
            large => {
                news.post(large.to_owned()).unwrap();
                let _ = worker.send((id, String::from("posted"))).unwrap();
            }
        }
    }
}

fn reaches(scene: &Scene) {
    let cluster = scene.builder().launch(member).unwrap();
    let ours = cluster.broadcast("news").unwrap();
    let closed = cluster.broadcast("news").unwrap();
    let elsewhere = cluster.broadcast("elsewhere").unwrap();
    let workers: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    until_named(&cluster, "message", 3);
    closed.close();
    ours.post(String::from("hello")).unwrap();
    workers.iter().for_each(|worker| assert!(worker.send("hear").is_ok()));
    let mut heard = until_named(&cluster, "message", 3).messages::<Heard>();
    heard.sort();
    let texts = heard.into_iter().map(|(_, heard)| heard);
    assert!(texts.eq((1..=3).map(|id| (id, String::from("hello")))));
    assert!(ours.try_recv().is_none() && elsewhere.try_recv().is_none());
    from_a_worker(&cluster, &ours);
    // Who has gone is passed over.
    workers[0].disconnect().unwrap();
    until_named(&cluster, "exit", 1);
    ours.post("still").unwrap();
    let large = "x".repeat(1 << 20);
    let _ = workers[1].send(large.clone()).unwrap();
    assert!(text(&ours) == large, "whole");
    assert!(elsewhere.try_recv().is_none());
}

fn from_a_worker(cluster: &Cluster, ours: &Broadcast) {
    let worker = cluster.worker(cluster.workers()[1].id()).unwrap();
    let _ = worker.send("post").unwrap();
    for number in 0..100 {
        assert_eq!(text(ours), format!("{}:{number}", worker.id()));
    }
    assert_eq!(next_message::<Heard>(cluster).1, (worker.id().get(), "posted".into()));
}

fn text(member: &Broadcast) -> String {
    member.recv_timeout(DEADLINE).expect("a message in time").get().unwrap()
}

const KEPT: u32 = 4096;
const LOST: u32 = 10;

fn slow(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let numbers = worker.broadcast("numbers").unwrap();
            (0..KEPT + LOST).for_each(|number| numbers.post(number).unwrap());
            let _ = worker.send("posted").unwrap();
            worker.draining().await;
        })
        .unwrap();
    let numbers = cluster.broadcast("numbers").unwrap();
    cluster.fork().unwrap();
    until_named(&cluster, "message", 1);
    wait_until("the last", || numbers.missed() == u64::from(LOST));
    for number in LOST..KEPT + LOST {
        assert_eq!(numbers.try_recv().unwrap().get::<u32>().unwrap(), number);
    }
    assert!(numbers.recv_timeout(Duration::from_millis(1)).is_none());
}

fn refused(scene: &Scene) {
    let cluster = scene.builder().max_message(100).launch(member).unwrap();
    for name in [String::new(), "x".repeat(257)] {
        assert_eq!(cluster.broadcast(name).unwrap_err().kind(), ErrorKind::Setting);
    }
    let small = cluster.broadcast("small").unwrap();
    let other = cluster.broadcast("small").unwrap();
    assert_eq!(small.name(), "small");
    assert_eq!(small.post("x".repeat(200)).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(other.try_recv().is_none(), "it reached nobody");
    let names: Vec<_> = (0..1023).map(|n| cluster.broadcast(n.to_string()).unwrap()).collect();
    assert_eq!(cluster.broadcast("more").unwrap_err().kind(), ErrorKind::Full);
    drop(names);
    cluster.broadcast("more").unwrap().close();
}
