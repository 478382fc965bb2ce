//! Fork and settings.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    core(
        "FORK-01",
        "`fork` returns at once with a handle; ids begin at 1, increase by one, and none is given \
         twice.",
        Holds,
        Holds,
    ),
    nice("FORK-02", "A start that fails uses up its id.", Holds, Holds),
    core(
        "FORK-03",
        "When `fork` returns, the handle is in the table, starting, connected, not dead, and \
         nobody asked its worker to leave.",
        Holds,
        Holds,
    ),
    core(
        "FORK-04",
        "Without a setup the first fork sets up with the defaults, which can be read from then \
         on.",
        Adapted("`launch` does, so they can be read before the first fork"),
        AS_IN_PROCESS,
    ),
    core(
        "FORK-05",
        "The event `fork` comes once per fork, from the cluster only, with the handle, and never \
         before the call has returned.",
        Holds,
        Holds,
    ),
    core(
        "FORK-06",
        "What a fork adds to the environment wins over what the worker inherits; other workers do \
         not see it.",
        Holds,
        Adapted("a map of the worker's own; the environment of the process stays as it is"),
    ),
    nice(
        "FORK-07",
        "The environment's values are strings by their type, and an entry without a value cannot \
         be written.",
        Holds,
        Holds,
    ),
    nice(
        "FORK-09",
        "The environment is copied at the fork: what either side changes later, only that side \
         sees.",
        Holds,
        Adapted("the worker's own map is the copy"),
    ),
    nice(
        "FORK-10",
        "Only what is said at the fork itself differs from worker to worker; all else is what the \
         last setup said.",
        Adapted("a fork may override more than the environment"),
        AS_IN_PROCESS,
    ),
    core(
        "FORK-11",
        "A worker runs the primary's program with the primary's arguments, as they are at the \
         time of the setup.",
        Holds,
        No("a worker is a body within the program"),
    ),
    core(
        "FORK-12",
        "Configured arguments arrive one by one, with their spaces.",
        Holds,
        Adapted("the worker's context has them"),
    ),
    core(
        "FORK-13",
        "Setups add up: what one does not mention stays as it was, and defaults fill only what \
         none mentioned.",
        Holds,
        Holds,
    ),
    nice(
        "FORK-14",
        "Each setup makes new settings; whoever holds older ones sees no change in them.",
        Holds,
        Holds,
    ),
    core(
        "FORK-16",
        "What a setup changed can be read when the call returns, its event comes later.",
        Holds,
        Holds,
    ),
    nice(
        "FORK-18",
        "One `setup` event per setup, the implied one included, in the order of the calls, each \
         with the settings of its call.",
        Holds,
        Holds,
    ),
    core(
        "FORK-19",
        "A worker starts in the configured directory, and without one in the primary's.",
        Holds,
        No("a process has one working directory"),
    ),
    core(
        "FORK-20",
        "A worker that cannot be started has an `error` with the cause and an `exit`, and never \
         an `online`; its handle is dead and out of the table.",
        Adapted("in the order fork, error, disconnect, exit, with the status \"not started\""),
        Adapted("the same when no thread can be made"),
    ),
    nice(
        "FORK-21",
        "A worker that breaks right at its start ends with a code that says so.",
        Adapted("a `main` that ends before the cluster has its own code; a body that fails has 1"),
        Adapted("a panic before the first await has the code of any panic"),
    ),
    core(
        "FORK-22",
        "Workers share the primary's standard streams; of silent ones the handle has streams to \
         read and write.",
        Holds,
        No("a process has one set of standard streams; no sink per worker is offered"),
    ),
    nice(
        "FORK-23",
        "A list of streams overrides `silent`; a fork without room for the channel adds no \
         worker.",
        Adapted("a later setting of one stream overrides `silent`; the channel is in no list"),
        No("a process has one set of standard streams"),
    ),
    nice(
        "FORK-24",
        "A further pipe is a stream in both directions between the primary and the worker.",
        Adapted("one end of a pair of Unix sockets is sent with a message"),
        No("a process has one table of descriptors"),
    ),
    nice(
        "FORK-25",
        "A worker can run as another user and group.",
        Holds,
        No("credentials are the process's"),
    ),
    core(
        "FORK-26",
        "How messages are encoded is set for the cluster; an encoding that does not exist is \
         refused.",
        Adapted("a type chooses it at the setup"),
        Adapted("none is needed, values are moved"),
    ),
    nice(
        "FORK-27",
        "A setting of the wrong kind is refused where it is used, and leaves no half-made worker.",
        Adapted("by its type, or by the builder"),
        AS_IN_PROCESS,
    ),
    core(
        "FORK-28",
        "The environment can choose the policy; otherwise it is the default one, round-robin.",
        Holds,
        Adapted("the default is `shared`, as with `NODE_CLUSTER_SCHED_POLICY=none`"),
    ),
    core(
        "FORK-29",
        "The first fork freezes the policy, for workers that run and for those to come.",
        Holds,
        Holds,
    ),
    nice(
        "FORK-30",
        "There is no invalid policy.",
        Adapted("by its type; a name that means none is an error"),
        AS_IN_PROCESS,
    ),
    nice(
        "FORK-31",
        "Workers belong to the primary's process group, so the terminal's signals reach them as \
         well.",
        Holds,
        No("one process"),
    ),
];
