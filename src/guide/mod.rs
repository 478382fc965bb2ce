#![doc = include_str!("00_front.md")]
// Text only: nothing here can be called, and every snippet in Rust is run by the tests, but for those that would serve
// for ever, which are compiled. `tests/guide.rs` sees to it that the front page leads to every chapter, that each ends
// with questions, and that every correction names its source.

#[doc = include_str!("01_why.md")]
pub mod why {}

#[doc = include_str!("02_port_sharing.md")]
pub mod port_sharing {}

#[doc = include_str!("03_primary_and_workers.md")]
pub mod primary_and_workers {}

#[doc = include_str!("04_events.md")]
pub mod events {}

#[doc = include_str!("05_messages.md")]
pub mod messages {}

#[doc = include_str!("06_scheduling.md")]
pub mod scheduling {}

#[doc = include_str!("07_crash_and_restart.md")]
pub mod crash_and_restart {}

#[doc = include_str!("08_shutdown_and_reload.md")]
pub mod shutdown_and_reload {}

#[doc = include_str!("09_health.md")]
pub mod health {}

#[doc = include_str!("10_shared_state.md")]
pub mod shared_state {}

#[doc = include_str!("11_pools.md")]
pub mod pools {}

#[doc = include_str!("12_sessions.md")]
pub mod sessions {}

#[doc = include_str!("13_worker_threads.md")]
pub mod worker_threads {}

#[doc = include_str!("14_process_managers.md")]
pub mod process_managers {}

#[doc = include_str!("15_when_neither.md")]
pub mod when_neither {}

#[doc = include_str!("16_limits.md")]
pub mod limits {}

#[doc = include_str!("17_corrections.md")]
pub mod corrections {}
