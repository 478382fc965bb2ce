//! The world around the program: its service manager, its container, the program it takes over from.
//!
//! What was left in the environment for the primary is taken on the main thread when the first cluster
//! starts; afterwards it is gone from there, so that neither workers nor anybody else takes it for theirs.

pub(crate) mod init;
pub(crate) mod notify;
