//! Puts a load on a server (a first form).
fn main() {}
