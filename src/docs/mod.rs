//! Chapters to read, beside the reference.
//!
//! Text only: nothing here can be called, and every snippet in Rust is compiled by the tests, those of
//! the README as well.

#[doc = include_str!("coming_from_node.md")]
pub mod coming_from_node {}

#[doc = include_str!("supervision.md")]
pub mod supervision {}

#[doc = include_str!("outside.md")]
pub mod outside {}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
