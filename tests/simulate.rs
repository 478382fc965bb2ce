//! Thousands of seeded histories against the supervisor, which is pure: crashes, hangs, slow starts, late
//! looks, reloads, scalings and stops, in any order, and what must hold after every step of them:
//!
//! * never more workers than the most that are wanted, and the surge;
//! * who serves and could stay is not sent away; where nothing fails, never fewer serve than may be missing;
//! * no seat is filled again before its time, and that time grows as the policy says;
//! * only so many start at the same time;
//! * a stop ends, whatever is going on, and no worker is forgotten by it.
//!
//! `BIMODAL_SEED=N cargo test --test simulate` plays one history again and prints it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/dice.rs"]
mod dice;
#[path = "../src/id.rs"]
mod id;
#[path = "../src/supervise/mod.rs"]
mod supervise;

#[path = "simulate/chance.rs"]
mod chance;
#[path = "simulate/world.rs"]
mod world;

use chance::Chance;
use world::World;

/// How many histories; each has about a hundred steps.
const HISTORIES: u64 = 20_000;
const STEPS: usize = 100;

#[test]
fn what_must_hold_holds_in_every_history() {
    match std::env::var("BIMODAL_SEED") {
        Ok(seed) => play(seed.parse().expect("BIMODAL_SEED is a number"), true),
        Err(_) => play_all(),
    }
}

fn play_all() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..cores as u64 {
            scope.spawn(move || {
                (first..HISTORIES).step_by(cores).for_each(|seed| play(seed, false))
            });
        }
    });
}

fn play(seed: u64, aloud: bool) {
    let played = std::panic::catch_unwind(|| {
        let mut world = World::new(Chance::new(seed), aloud);
        (0..STEPS).for_each(|_| world.step());
        world.stop();
    });
    assert!(
        played.is_ok(),
        "history {seed} broke a promise; play it again: BIMODAL_SEED={seed} cargo test --test simulate -- --nocapture"
    );
}
