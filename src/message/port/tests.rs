use std::{task::Context, task::Waker, thread};

use super::*;
use crate::{
    event_loop::{EventLoop, spawn, timeout},
    message::Codec,
    wire::HandleKind,
};

const LIMIT: Duration = Duration::from_secs(20);

fn packings() -> [Packing; 2] {
    let packing = |memory| Packing { memory, codec: Codec::MessagePack, max_bytes: 1 << 20 };
    [packing(Memory::Shared), packing(Memory::Separate)]
}

fn each(f: impl Fn(Port, Port)) {
    for packing in packings() {
        let (one, other) = Port::pair(packing).unwrap();
        f(one, other);
    }
}

fn on_loop(f: impl AsyncFnOnce()) {
    EventLoop::new().unwrap().block_on(async { timeout(LIMIT, f()).await }).unwrap().unwrap();
}

fn number(message: Option<Message>) -> u32 {
    message.unwrap().get().unwrap()
}

#[test]
fn what_was_sent_before_the_close_is_received_then_the_end() {
    each(|one, other| {
        for count in 0..10_000_u32 {
            let _ = one.send(count).unwrap();
        }
        one.close();
        (0..10_000).for_each(|count| assert_eq!(number(other.recv_timeout(LIMIT)), count));
        assert!(other.recv_timeout(LIMIT).is_none());
        assert!(other.is_closed());
        let refused = other.send(7_u32).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Closed);
        assert_eq!(refused.into_value().0, 7);
    });
}

#[test]
fn a_port_travels_with_what_waits_in_it() {
    for packing in packings() {
        let (one, other) = Port::pair(packing).unwrap();
        let (carried, far) = Port::pair(packing).unwrap();
        (0..5_u32).for_each(|count| assert_eq!(far.send(count).unwrap(), Flow::Go));
        assert_eq!(number(carried.try_recv()), 0);
        let _ = one.send_with("port", carried).unwrap();
        let mut message = other.recv_timeout(LIMIT).unwrap();
        assert_eq!(message.handle_kind(), Some(HandleKind::Port));
        let carried = Port::try_from(message.take_handle().unwrap().unwrap()).unwrap();
        (1..5).for_each(|count| assert_eq!(number(carried.recv_timeout(LIMIT)), count));
        let _ = carried.send("back").unwrap();
        assert_eq!(far.recv_timeout(LIMIT).unwrap().get::<String>().unwrap(), "back");
        drop(carried);
        assert!(far.recv_timeout(LIMIT).is_none());
    }
}

#[test]
fn a_port_with_something_unsent_is_refused_and_given_back() {
    let (one, _other) = Port::pair(packings()[1]).unwrap();
    let (carried, far) = Port::pair(packings()[1]).unwrap();
    for _ in 0..50 {
        let _ = carried.send(vec![1_u8; 100_000]).unwrap();
    }
    let refused = one.send_with(1_u8, carried).unwrap_err();
    assert!(refused.to_string().contains("has not left yet"), "{refused}");
    let (value, handle) = refused.into_value();
    assert_eq!(value, 1);
    let carried = Port::try_from(handle.unwrap()).unwrap();
    let _ = carried.send(vec![2_u8]).unwrap();
    for _ in 0..50 {
        assert_eq!(far.recv_timeout(LIMIT).unwrap().get::<Vec<u8>>().unwrap().len(), 100_000);
    }
    assert_eq!(far.recv_timeout(LIMIT).unwrap().get::<Vec<u8>>().unwrap(), [2]);
}

#[test]
fn a_wait_ends_with_a_message_with_the_end_or_with_the_time() {
    each(|one, other| {
        assert!(other.try_recv().is_none());
        assert!(other.recv_timeout(Duration::from_millis(1)).is_none());
        assert!(!other.is_closed());
        let sender = thread::spawn(move || {
            let _ = one.send(1_u32).unwrap();
            assert_eq!(number(one.recv_timeout(LIMIT)), 2);
        });
        assert_eq!(number(other.recv_timeout(LIMIT)), 1);
        let _ = other.send(2_u32).unwrap();
        assert!(other.recv_timeout(LIMIT).is_none());
        sender.join().unwrap();
    });
}

#[test]
fn a_task_that_waits_is_woken_by_a_message_and_by_the_end() {
    each(|one, other| {
        on_loop(async || {
            let reader = spawn(async move {
                let mut count = 0;
                while let Some(message) = other.recv().await {
                    count += message.get::<u32>().unwrap();
                }
                count
            });
            event_loop::yield_now().await;
            for _ in 0..1000 {
                let _ = one.send(1_u32).unwrap();
            }
            event_loop::yield_now().await;
            let _ = one.send(1_u32).unwrap();
            let closer = thread::spawn(move || drop(one));
            assert_eq!(reader.await.unwrap(), 1001);
            closer.join().unwrap();
        });
    });
}

#[test]
fn a_full_mailbox_does_not_keep_a_timer_waiting() {
    each(|one, other| {
        on_loop(async || {
            let feeder = spawn(async move {
                while one.send(1_u32).is_ok() {
                    let _ = one.send(1_u32);
                    event_loop::yield_now().await;
                }
            });
            let eater = spawn(async move {
                let mut streak = 0;
                while streak < 3 * MESSAGES_PER_TURN {
                    other.recv().await.unwrap();
                    let _ = other.recv().await;
                    streak += 1;
                }
            });
            event_loop::sleep(Duration::from_millis(1)).await;
            eater.await.unwrap();
            feeder.await.unwrap();
        });
    });
}

#[test]
fn garbage_ends_a_port() {
    let (ours, theirs) = crate::sys::channel::seqpacket_pair().unwrap();
    let port = Port::of(ours, packings()[1]);
    rustix::io::write(&theirs, &[0xff; 9]).unwrap();
    assert!(port.recv_timeout(LIMIT).is_none());
    let _ = port.recv_timeout(LIMIT);
    let mut waiting = Box::pin(port.recv());
    let polled = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready(), "it has ended for good");
}

#[test]
fn two_tasks_that_wait_lose_nothing() {
    each(|one, other| {
        on_loop(async || {
            let other = std::rc::Rc::new(other);
            let taken = std::rc::Rc::new(Cell::new(0));
            let waiting = [(); 2].map(|()| {
                let (other, taken) = (other.clone(), taken.clone());
                spawn(async move {
                    let message = other.recv().await;
                    taken.set(taken.get() + number(message));
                })
            });
            event_loop::yield_now().await;
            let _ = one.send(1_u32).unwrap();
            while taken.get() == 0 {
                event_loop::yield_now().await;
            }
            drop(waiting);
            let _ = one.send(2_u32).unwrap();
            assert_eq!((number(other.recv().await), taken.get()), (2, 1));
        });
    });
}
