//! Ports: channels between any two places of a cluster.

use std::time::Duration;

use bimodal::{ErrorKind, Event, Mode, Port, Worker, event_loop};

use crate::{
    bodies::{fork_stuck, get_stuck, idle},
    support::{
        DEADLINE, Scenario, Scene, both,
        events::{next_message, until_named},
        only,
        trap::Trap,
    },
};

/// Where a value is copied by being encoded.
const PROCESS: &[Mode] = &[Mode::Process];

pub const SCENARIOS: &[Scenario] = &[
    both("two_workers_talk_over_a_channel_of_their_own", between_workers).proves(&["THR-28"]),
    both("a_channel_made_by_a_worker_reaches_the_primary", from_a_worker),
    both("a_port_keeps_what_nobody_has_received", keeps).proves(&["THR-20", "THR-22"]),
    both("what_was_posted_before_a_close_is_received", closed).proves(&["THR-21"]),
    both("endless_ping_pong_leaves_time_for_timers", ping_pong).proves(&["THR-23"]),
    both("a_worker_that_dies_with_a_port_harms_nobody", dies).proves(&["THR-28"]),
    // A moved value is the very value.
    only(PROCESS, "a_value_is_what_it_was_when_it_was_sent", captured).proves(&["THR-24"]),
];

/// The port of the next message to this worker.
async fn next_port(worker: &Worker) -> Port {
    let mut message = worker.recv().await.unwrap();
    message.take_handle().unwrap().unwrap().try_into().unwrap()
}

/// Sends what comes back, one more, until the channel ends.
async fn count_up(worker: Worker) {
    let port = next_port(&worker).await;
    while let Some(message) = port.recv().await {
        if port.send(message.get::<u32>().unwrap() + 1).is_err() {
            return;
        }
    }
    let _ = worker.send("the end").unwrap();
    idle(worker).await;
}

fn number(port: &Port) -> u32 {
    port.recv_timeout(DEADLINE).expect("a message in time").get().unwrap()
}

fn between_workers(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            if worker.id().get() == 1 {
                return count_up(worker).await;
            }
            let port = next_port(&worker).await;
            // A port through a port.
            let (near, far) = worker.channel().unwrap();
            let _ = port.send(1_u32).unwrap();
            assert_eq!(port.recv().await.unwrap().get::<u32>().unwrap(), 2);
            let _ = worker.send_with("far", far).unwrap();
            let message = near.recv().await.unwrap().get::<String>().unwrap();
            let _ = worker.send(message).unwrap();
        })
        .unwrap();
    let (one, other) = cluster.channel().unwrap();
    for port in [one, other] {
        let _ = cluster.fork().unwrap().send_with("port", port).unwrap();
    }
    let mut seen = until_named(&cluster, "message", 1);
    let Some(Event::Message { mut message, .. }) = seen.0.pop() else { unreachable!() };
    let far = Port::try_from(message.take_handle().unwrap().unwrap()).unwrap();
    let _ = far.send("hello").unwrap();
    let mut texts = [next_message::<String>(&cluster).1, next_message::<String>(&cluster).1];
    texts.sort();
    assert_eq!(texts, ["hello", "the end"]);
}

fn from_a_worker(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let (near, far) = worker.channel().unwrap();
            let _ = worker.send_with(1_u8, far).unwrap();
            while let Some(message) = near.recv().await {
                let _ = near.send(message.get::<u32>().unwrap() * 2).unwrap();
            }
        })
        .unwrap();
    cluster.fork().unwrap();
    let mut seen = until_named(&cluster, "message", 1);
    let Some(Event::Message { mut message, .. }) = seen.0.pop() else { unreachable!() };
    let port = Port::try_from(message.take_handle().unwrap().unwrap()).unwrap();
    for value in 0..100 {
        let _ = port.send(value).unwrap();
        assert_eq!(number(&port), 2 * value);
    }
    port.close();
    until_named(&cluster, "exit", 1);
}

fn keeps(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let port = next_port(&worker).await;
            // A receiver that gives up takes nothing with it.
            let first = port.try_recv().unwrap().get::<u32>().unwrap();
            assert_eq!(first, 0);
            drop(port.recv());
            let _ = worker.send_with(1_u8, port).unwrap();
        })
        .unwrap();
    let (near, far) = cluster.channel().unwrap();
    (0..50_u32).for_each(|value| assert!(near.send(value).is_ok()));
    let _ = cluster.fork().unwrap().send_with("port", far).unwrap();
    let mut seen = until_named(&cluster, "message", 1);
    let Some(Event::Message { mut message, .. }) = seen.0.pop() else { unreachable!() };
    let far = Port::try_from(message.take_handle().unwrap().unwrap()).unwrap();
    for value in 1..50 {
        assert_eq!(far.try_recv().unwrap().get::<u32>().unwrap(), value);
    }
    assert!(far.try_recv().is_none());
}

const MANY: u32 = 10_000;

fn closed(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let port = next_port(&worker).await;
            (0..MANY).for_each(|value| assert!(port.send(value).is_ok()));
            port.close();
            idle(worker).await;
        })
        .unwrap();
    let (near, far) = cluster.channel().unwrap();
    let _ = cluster.fork().unwrap().send_with("port", far).unwrap();
    (0..MANY).for_each(|value| assert_eq!(number(&near), value));
    assert!(near.recv_timeout(DEADLINE).is_none());
    assert!(near.is_closed());
    assert_eq!(near.send(1_u32).unwrap_err().kind(), ErrorKind::Closed);
    near.close();
}

fn ping_pong(scene: &Scene) {
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            let (one, other) = worker.channel().unwrap();
            let _ = one.send(0_u32).unwrap();
            for port in [one, other] {
                event_loop::spawn(async move {
                    while let Some(message) = port.recv().await {
                        let _ = port.send(message.get::<u32>().unwrap() + 1);
                    }
                })
                .detach();
            }
            for _ in 0..20 {
                event_loop::sleep(Duration::from_millis(1)).await;
            }
            let _ = worker.send("in time").unwrap();
        })
        .unwrap();
    cluster.fork().unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "in time");
}

fn dies(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            get_stuck(&worker).await;
            idle(worker).await;
        })
        .unwrap();
    let (worker, _stuck) = fork_stuck(&cluster, &trap);
    let (near, far) = cluster.channel().unwrap();
    let (inner, outer) = cluster.channel().unwrap();
    let _ = near.send_with(1_u8, outer).unwrap();
    let _ = worker.send_with("under way", far).unwrap();
    worker.kill().unwrap();
    until_named(&cluster, "exit", 1);
    // Both ends that were under way are closed, the one within the other, too.
    for port in [near, inner] {
        assert!(port.recv_timeout(DEADLINE).is_none());
        assert!(port.is_closed());
    }
}

fn captured(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let (near, far) = cluster.channel().unwrap();
    let value = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(1));
    let _ = near.send(Watched(value.clone())).unwrap();
    value.store(2, std::sync::atomic::Ordering::SeqCst);
    let message = far.recv_timeout(DEADLINE).unwrap();
    let Watched(received) = message.get().unwrap();
    assert_eq!(received.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A value that can change after it was sent.
#[derive(serde::Serialize, serde::Deserialize)]
struct Watched(#[serde(with = "through")] std::sync::Arc<std::sync::atomic::AtomicU32>);

mod through {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Arc<AtomicU32>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(value.load(SeqCst))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<AtomicU32>, D::Error> {
        Ok(Arc::new(AtomicU32::new(u32::deserialize(from)?)))
    }
}
