//! Shutdown of the whole cluster.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    core(
        "SHUT-01",
        "`disconnect` of the cluster asks every worker that is there, and passes over those that \
         have left.",
        Holds,
        Holds,
    ),
    core(
        "SHUT-02",
        "Its completion never comes within the call, also when there is nobody.",
        Adapted("it calls nobody back: `wait_gone` and the end of the events say so"),
        AS_IN_PROCESS,
    ),
    core("SHUT-03", "At its completion the table is empty.", Holds, Holds),
    core(
        "SHUT-04",
        "It completes when the last worker has gone.",
        Adapted("Node's comes with the first"),
        AS_IN_PROCESS,
    ),
    core(
        "SHUT-07",
        "When all are gone, nothing of the cluster keeps the program alive.",
        Holds,
        Holds,
    ),
    core("SHUT-08", "Any mixture of workers leaves with code 0.", Holds, Holds),
    core("SHUT-09", "No listener outlives the last worker.", Holds, Holds),
    core(
        "SHUT-10",
        "Workers that idle or never listened leave beside those that do.",
        Holds,
        Holds,
    ),
    core(
        "SHUT-11",
        "A shutdown has a deadline.",
        Adapted("a grace period, then a kill"),
        Adapted("a grace period, then a kill; a thread that ignores it is reported"),
    ),
    nice(
        "SHUT-12",
        "A signal that tells the primary to end, ends the cluster in order.",
        Adapted("`run` drains; under `launch` the program decides"),
        AS_IN_PROCESS,
    ),
    nice("SHUT-13", "`exit` in the primary waits for nobody.", Holds, Holds),
];
