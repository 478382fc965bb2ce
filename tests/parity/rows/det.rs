//! Who is primary and who is worker.

use super::{
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    core(
        "DET-01",
        "A program that nobody started as a worker is a primary: `worker_of` says `None`, and \
         there is no `Worker` to be had.",
        Holds,
        Adapted("the role is the `Worker` that the body is given; nothing of the process says it"),
    ),
    nice(
        "DET-02",
        "Only a marker with a usable channel behind it makes a process a worker; an inherited or \
         invented one leaves it a primary.",
        Adapted("the channel, its protocol and the parent at its other end are checked"),
        No("there is no marker"),
    ),
    core(
        "DET-03",
        "The marker is gone before the body runs, so a program that a worker starts is a primary \
         of its own.",
        Holds,
        No("there is no marker"),
    ),
    core(
        "DET-04",
        "Neither the marker nor the channel's descriptor reaches a program that a worker starts.",
        Holds,
        No("there is no descriptor"),
    ),
    core(
        "DET-05",
        "A worker can do less: `Worker` has no fork, no setup, no table of workers, no policy, no \
         disconnect of the cluster.",
        Holds,
        Holds,
    ),
    core(
        "DET-06",
        "From its first step on a worker has the id that the primary gave it, is online and \
         connected, and nobody asked it to leave.",
        Holds,
        Holds,
    ),
    core(
        "DET-07",
        "A cluster that has forked nobody has an empty table and its settings at their defaults; \
         no two policies are the same value.",
        Holds,
        Holds,
    ),
    core(
        "DET-08",
        "`online` is told before the body's first step, so a worker whose body fails at once was \
         online.",
        Adapted("`main` up to `launch` runs before"),
        Holds,
    ),
    nice(
        "DET-12",
        "A thread that a worker starts by itself is no worker: it has no channel, and what it \
         listens on is its own.",
        Holds,
        Adapted("a thread is a worker only if the primary forked it"),
    ),
    nice(
        "DET-13",
        "A worker forks no workers of its cluster; a program that it starts may be the primary of \
         another.",
        Holds,
        Adapted("`Worker` has no `fork`"),
    ),
];
