//! Thousands of seeded histories against the supervisor, which is pure: crashes, hangs, slow starts, late
//! looks, reloads, scalings and stops, in any order, and what must hold after every step of them.
//!
//! `BIMODAL_SEED=N cargo test --test simulate` plays one history again and prints it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../src/clock.rs"]
mod clock;
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
        Err(_) => (0..HISTORIES).for_each(|seed| play(seed, false)),
    }
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
