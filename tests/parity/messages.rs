//! Messages between the primary and its workers.

use bimodal::{ErrorKind, Flow, Mode, Worker};
use serde::{Deserialize, Serialize};

use crate::{
    bodies::{fork_stuck, get_stuck, idle},
    support::{
        Scenario, Scene, both,
        events::{next_message, to_the_end, until_named},
        trap::Trap,
        wait_until,
    },
};

/// Where a message is cut into frames.
const PROCESS: &[Mode] = &[Mode::Process];

pub const SCENARIOS: &[Scenario] = &[
    both("ten_thousand_messages_keep_their_order_both_ways", order),
    both("messages_sent_before_the_worker_is_online_arrive", early).proves(&["MSG-01"]),
    both("a_worker_that_leaves_takes_what_was_sent_before", before_leaving)
        .proves(&["MSG-34", "LIFE-15"]),
    both("five_megabytes_arrive_ahead_of_the_workers_own_disconnect", before_its_own)
        .proves(&["MSG-34"]),
    both("eight_mebibytes_make_the_round", large).proves_in(PROCESS, &["MSG-15"]),
    both("a_structured_value_makes_the_round", structured),
    both("a_wrong_type_is_an_error_that_names_both", wrong_type),
    both("a_message_to_a_dead_worker_is_refused", dead).proves(&["EVT-29", "THR-12"]),
    both("a_sender_is_slowed_then_refused_then_goes_on", pressure),
    both("a_message_over_the_limit_is_refused_where_it_is_encoded", too_large),
    both("messages_of_several_workers_are_told_apart", several).proves(&["MSG-13"]),
];

/// Sends every `T` back as it is.
async fn echo<T: Serialize + serde::de::DeserializeOwned + Send + 'static>(worker: Worker) {
    while let Some(message) = worker.recv().await {
        let _ = worker.send(message.get::<T>().unwrap()).unwrap();
    }
}

fn order(scene: &Scene) {
    let cluster = scene.builder().launch(echo::<u32>).unwrap();
    let worker = cluster.fork().unwrap();
    for number in 0..10_000_u32 {
        let _ = worker.send(number).unwrap();
    }
    let numbers = until_named(&cluster, "message", 10_000).messages::<u32>();
    assert!(numbers.into_iter().map(|(_, number)| number).eq(0..10_000));
}

fn early(scene: &Scene) {
    let cluster = scene.builder().launch(late_reader).unwrap();
    let worker = cluster.fork().unwrap();
    for number in 0..100_u32 {
        let _ = worker.send(number).unwrap();
    }
    // It was online, and had told so, before it took the first.
    next_message::<String>(&cluster);
    let _ = worker.send(100_u32).unwrap();
    let numbers = until_named(&cluster, "message", 101).messages::<u32>();
    assert!(numbers.into_iter().map(|(_, number)| number).eq(0..=100));
}

async fn late_reader(worker: Worker) {
    let _ = worker.send("online").unwrap();
    echo::<u32>(worker).await;
}

fn before_leaving(scene: &Scene) {
    let cluster = scene.builder().launch(echo::<u32>).unwrap();
    let worker = cluster.fork().unwrap();
    for number in 0..100_u32 {
        let _ = worker.send(number).unwrap();
    }
    worker.disconnect().unwrap();
    let numbers = to_the_end(&cluster).messages::<u32>();
    assert!(numbers.into_iter().map(|(_, number)| number).eq(0..100));
}

fn before_its_own(scene: &Scene) {
    const COUNT: usize = 50;
    let cluster = scene
        .builder()
        .launch(|worker: Worker| async move {
            for number in 0..COUNT {
                let _ = worker.send(vec![number as u8; 100_000]).unwrap();
            }
            worker.disconnect().draining().await;
        })
        .unwrap();
    let worker = cluster.fork().unwrap();
    let seen = to_the_end(&cluster);
    assert!(seen.exit(worker.id()).success());
    let sent = (0..COUNT).map(|number| vec![number as u8; 100_000]);
    assert!(seen.messages::<Vec<u8>>().into_iter().map(|(_, bytes)| bytes).eq(sent));
}

/// Its characters have 1 to 4 bytes, so that each kind is cut somewhere.
fn large(scene: &Scene) {
    let cluster = scene.builder().launch(echo::<String>).unwrap();
    let worker = cluster.fork().unwrap();
    let text = "aö€\u{1F980}".repeat((8 << 20) / 10);
    for _ in 0..2 {
        let _ = worker.send(text.clone()).unwrap();
    }
    for _ in 0..2 {
        assert!(next_message::<String>(&cluster).1 == text, "the text changed on its way");
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u64,
    note: Option<String>,
    lines: Vec<Line>,
    ratio: f64,
    nothing: Option<()>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Line {
    Empty,
    Text(String),
    Pair { left: i8, right: [u16; 3] },
}

fn structured(scene: &Scene) {
    let order = Order {
        number: u64::MAX,
        note: Some("größe".into()),
        lines: vec![
            Line::Empty,
            Line::Text(String::new()),
            Line::Pair { left: -128, right: [0, 1, u16::MAX] },
        ],
        ratio: f64::INFINITY,
        nothing: None,
    };
    let cluster = scene.builder().launch(echo::<Order>).unwrap();
    let _ = cluster.fork().unwrap().send(order.clone()).unwrap();
    assert_eq!(next_message::<Order>(&cluster).1, order);
}

fn wrong_type(scene: &Scene) {
    let cluster = scene.builder().launch(ask_for_another_type).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(7_u32).unwrap();
    let (_, (is_type, text)) = next_message::<(bool, String)>(&cluster);
    assert!(is_type, "{text}");
    assert!(text.contains("u32") && text.contains("Vec<alloc::string::String>"), "{text}");
    let mut seen = until_named(&cluster, "message", 1);
    let Some(bimodal::Event::Message { message, .. }) = seen.0.pop() else { panic!("{seen:?}") };
    assert!(message.is::<u32>() && !message.is::<i32>());
    let error = message.get::<i32>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Type);
    assert!(error.to_string().contains("u32") && error.to_string().contains("i32"), "{error}");
}

async fn ask_for_another_type(worker: Worker) {
    let Some(message) = worker.recv().await else { return };
    let error = message.get::<Vec<String>>().unwrap_err();
    let _ = worker.send((error.kind() == ErrorKind::Type, error.to_string())).unwrap();
    let _ = worker.send(8_u32).unwrap();
    idle(worker).await;
}

fn dead(scene: &Scene) {
    let cluster = scene.builder().launch(idle).unwrap();
    let worker = cluster.fork().unwrap();
    worker.disconnect().unwrap();
    until_named(&cluster, "exit", 1);
    assert_eq!(worker.send(1_u32).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(worker.disconnect().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(worker.kill().unwrap_err().kind(), ErrorKind::Closed);
}

/// More than this many messages are never under way.
const PLENTY: u32 = 1 << 20;

fn pressure(scene: &Scene) {
    let trap = Trap::new();
    let cluster = scene.builder().launch(count_after_the_trap).unwrap();
    let (worker, stuck) = fork_stuck(&cluster, &trap);
    let mut slow_at = None;
    let full_at = (0..PLENTY).find(|number| match worker.send(*number) {
        Ok(Flow::Go) => {
            assert!(slow_at.is_none(), "nothing was taken since it was slow");
            false
        }
        Ok(Flow::Slow) => {
            slow_at.get_or_insert(*number);
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            true
        }
    });
    let (slow_at, full_at) = (slow_at.expect("never slow"), full_at.expect("never full"));
    assert!(slow_at < full_at);
    drop(stuck);
    let mut sent = full_at;
    wait_until("room for more", || {
        let sends = worker.send(sent);
        sent += u32::from(sends.is_ok());
        matches!(sends, Ok(Flow::Go))
    });
    worker.disconnect().unwrap();
    assert_eq!(next_message::<u32>(&cluster).1, sent, "what was not refused arrives");
}

async fn count_after_the_trap(worker: Worker) {
    let mut count = 0_u32;
    get_stuck(&worker).await;
    while let Some(message) = worker.recv().await {
        assert_eq!(message.get::<u32>().unwrap(), count);
        count += 1;
    }
    let _ = worker.send(count).unwrap();
}

fn too_large(scene: &Scene) {
    let cluster = scene.builder().max_message(1000).launch(echo::<String>).unwrap();
    let worker = cluster.fork().unwrap();
    let sent = worker.send("x".repeat(2000));
    // The one difference: a value that is moved has no encoded size.
    match sent {
        Err(error) if scene.is_process() => assert_eq!(error.kind(), ErrorKind::TooLarge),
        other => assert!(!scene.is_process() && other.is_ok(), "{other:?}"),
    }
    let _ = worker.send("x".repeat(900)).unwrap();
    let expected = if scene.is_process() { 900 } else { 2000 };
    assert_eq!(next_message::<String>(&cluster).1.len(), expected);
}

fn several(scene: &Scene) {
    let cluster = scene.builder().launch(echo::<u64>).unwrap();
    let workers: Vec<_> = (0..3).map(|_| cluster.fork().unwrap()).collect();
    for _ in 0..10 {
        for worker in &workers {
            let _ = worker.send(worker.id().get()).unwrap();
        }
    }
    let messages = until_named(&cluster, "message", 30).messages::<u64>();
    assert!(messages.iter().all(|(worker, number)| worker.get() == *number), "{messages:?}");
}
