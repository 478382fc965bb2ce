//! Errors.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds},
    Row, core,
};

pub const ROWS: &[Row] = &[
    core(
        "ERR-02",
        "An error that a worker's body does not handle ends that worker with code 1, and nobody \
         else.",
        Adapted("the body returns `Err`"),
        AS_IN_PROCESS,
    ),
    core(
        "ERR-05",
        "Bad settings are refused at once, and leave no half-made worker.",
        Holds,
        Holds,
    ),
    core(
        "ERR-06",
        "A send that fails says so, and nothing that asked for its outcome is lost without a \
         word.",
        Holds,
        Holds,
    ),
    core(
        "ERR-07",
        "The primary survives whatever a worker does: dying with sockets under way, garbage in \
         the channel, binds that fail, storms of refusals.",
        Holds,
        Adapted("only panics are contained"),
    ),
];
