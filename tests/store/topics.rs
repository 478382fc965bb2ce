//! Publishing and subscribing.

use std::time::{Duration, Instant};

use bimodal::{event_loop::EventLoop, store::Subscription};

use super::{
    fixture::{Case, Fixture, case},
    support::{DEADLINE, wait_until},
};

pub const CASES: &[Case] = &[
    case("every_subscriber_gets_what_is_published_in_order", order),
    case("topics_are_apart", apart),
    case("nothing_is_kept_for_those_who_come_later", later),
    case("who_does_not_take_loses_the_oldest_and_knows", slow),
    case("a_subscription_is_awaited", awaited),
    case("values_of_every_size_arrive", sizes),
];

fn next(subscription: &Subscription) -> Vec<u8> {
    subscription.wait(DEADLINE).unwrap().expect("a value")
}

fn order(Fixture { store, .. }: &Fixture) {
    let subscriptions = [(); 3].map(|()| store.subscribe(b"t").wait().unwrap());
    for n in 0..300_u32 {
        store.publish(b"t", &n.to_be_bytes()).wait().unwrap();
    }
    for subscription in subscriptions {
        (0..300_u32).for_each(|n| assert_eq!(next(&subscription), n.to_be_bytes()));
        assert_eq!(subscription.missed(), 0);
    }
}

fn apart(Fixture { store, .. }: &Fixture) {
    let one = store.subscribe(b"one").wait().unwrap();
    let two = store.subscribe(b"two").wait().unwrap();
    // Patterns mean nothing.
    let star = store.subscribe(b"*").wait().unwrap();
    store.publish(b"one", b"1").wait().unwrap();
    store.publish(b"two", b"2").wait().unwrap();
    store.publish(b"*", b"3").wait().unwrap();
    assert_eq!([next(&one), next(&two), next(&star)], [b"1", b"2", b"3"]);
    for subscription in [one, two, star] {
        assert_eq!(subscription.wait(Duration::ZERO).unwrap(), None);
    }
}

fn later(Fixture { store, .. }: &Fixture) {
    store.publish(b"t", b"nobody").wait().unwrap();
    let first = store.subscribe(b"t").wait().unwrap();
    store.publish(b"t", b"1").wait().unwrap();
    assert_eq!(next(&first), b"1");
    drop(first);
    store.publish(b"t", b"nobody").wait().unwrap();
    let second = store.subscribe(b"t").wait().unwrap();
    store.publish(b"t", b"2").wait().unwrap();
    assert_eq!(next(&second), b"2");
}

fn slow(Fixture { store, .. }: &Fixture) {
    let subscription = store.subscribe(b"t").wait().unwrap();
    for n in 0..3000_u32 {
        store.publish(b"t", &n.to_be_bytes()).wait().unwrap();
    }
    let mut taken = 0;
    let mut last = None;
    wait_until("every value, taken or missed", || {
        while let Some(value) = subscription.wait(Duration::ZERO).unwrap() {
            assert!(last.as_ref() < Some(&value));
            last = Some(value);
            taken += 1;
        }
        taken + subscription.missed() == 3000
    });
    assert_eq!(last, Some(2999_u32.to_be_bytes().into()));
}

fn awaited(Fixture { store, .. }: &Fixture) {
    let mut event_loop = EventLoop::new().unwrap();
    let value = event_loop.block_on(async {
        let subscription = store.subscribe(b"t").await.unwrap();
        store.publish(b"t", b"v").await.unwrap();
        subscription.recv().await.unwrap()
    });
    assert_eq!(value.unwrap(), b"v");
    let since = Instant::now();
    let subscription = store.subscribe(b"t").wait().unwrap();
    assert_eq!(subscription.wait(Duration::from_millis(20)).unwrap(), None);
    assert!(since.elapsed() >= Duration::from_millis(20));
}

fn sizes(Fixture { store, .. }: &Fixture) {
    let topic = [b't'; 256];
    let subscription = store.subscribe(&topic).wait().unwrap();
    for size in [0, 1, 4096, 65_536] {
        let value = vec![b'v'; size];
        store.publish(&topic, &value).wait().unwrap();
        assert!(next(&subscription) == value, "{size}");
    }
}
