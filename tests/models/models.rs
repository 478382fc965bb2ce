//! The loom models. Each stands beside the protocol that it explores, a test whose name begins with `loom_`; here are
//! the files that have one, in the modules in which the crate has them, and nothing else of the crate. The other half of the
//! protocol in `line` is the kernel's, so its model is here. loom runs a model in every order that its threads' steps can
//! have.
//!
//! ```text
//! cd tests/models
//! cargo test
//! ```
//!
//! It has to be run in this folder, whose `.cargo/config.toml` has the flag that puts loom in.

#![allow(dead_code, reason = "the models use no more than they need")]

#[cfg(not(loom))]
compile_error!("without `--cfg loom` there are no models: run `cargo test` in tests/models");

mod line;

#[path = "../../src/event_loop"]
mod event_loop {
    mod bell;
}

#[path = "../../src/shared"]
mod shared {
    mod cell {
        mod copies;
    }
    mod mutex {
        mod state;
    }
    mod region {
        /// As in the crate; there it also knows how to be made of a worker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) struct Party(pub(super) u64);
    }
    mod word;
}
