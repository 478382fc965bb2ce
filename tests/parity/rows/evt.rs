//! Events.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    core(
        "EVT-01",
        "The events of a worker come in the order of its life: fork, online, listening, \
         disconnect, exit.",
        Holds,
        Holds,
    ),
    core(
        "EVT-02",
        "Each event of a worker is told at its handle first and directly after that at the \
         cluster.",
        Holds,
        Holds,
    ),
    core(
        "EVT-03",
        "The cluster's events name the worker and add the address to `listening`, the message and \
         its handle to `message`, the status to `exit`; `setup` has the settings.",
        Holds,
        Holds,
    ),
    core(
        "EVT-04",
        "The handle's events have the address for `listening`, the message and its handle for \
         `message`, the status for `exit`, and nothing for the others.",
        Holds,
        Holds,
    ),
    core(
        "EVT-05",
        "A worker's state, as an event tells it, is the one that the event leads to.",
        Adapted("the event says it; the worker itself may be further by then"),
        AS_IN_PROCESS,
    ),
    nice(
        "EVT-06",
        "A worker's state tells one that was asked to leave from one that was not.",
        Adapted("`Draining` lies between the request and the end"),
        AS_IN_PROCESS,
    ),
    core(
        "EVT-07",
        "`listening` says host, port and kind of the address in one value.",
        Holds,
        Holds,
    ),
    core(
        "EVT-08",
        "The kind of an address is IPv4, IPv6, Unix or UDP, and no magic number.",
        Holds,
        Holds,
    ),
    core(
        "EVT-09",
        "The port that is told is the one that was bound, also where 0 was asked for.",
        Holds,
        Holds,
    ),
    nice("EVT-11", "A Unix socket is told by its absolute path, and has no port.", Holds, Holds),
    core(
        "EVT-12",
        "`listening` comes once for each listener of each worker, and again for one that is \
         closed and opened again.",
        Holds,
        Holds,
    ),
    core("EVT-14", "`online` comes once per worker, ahead of all its messages.", Holds, Holds),
    core("EVT-16", "No worker has two `disconnect` or two `exit` events.", Holds, Holds),
    core(
        "EVT-17",
        "`disconnect` and `exit` come in an order to rely on.",
        Adapted("Node leaves it open; here `disconnect` is first"),
        AS_IN_PROCESS,
    ),
    core(
        "EVT-18",
        "Whoever handles the last event of a worker does not find it in the table any more.",
        Holds,
        Holds,
    ),
    core(
        "EVT-19",
        "A worker that dies while a socket is on its way to it has both last events.",
        Adapted("Node forgets `disconnect`; here both always come"),
        AS_IN_PROCESS,
    ),
    core(
        "EVT-20",
        "A stranger that keeps a dead worker's end of the channel open delays nothing.",
        Adapted("the end of the process is the end of its channel"),
        No("cannot happen"),
    ),
    core(
        "EVT-21",
        "`exit` has a code for a worker that ended by itself and a signal for one that was ended \
         by it, never both.",
        Holds,
        Adapted(
            "never a signal; a panic has a code; `Killed`, `Abandoned` and `NotStarted` have none",
        ),
    ),
    nice("EVT-22", "What `exit` said can be asked of the handle later.", Holds, Holds),
    core("EVT-23", "At `exit` the worker's process is reaped or its thread joined.", Holds, Holds),
    core(
        "EVT-24",
        "Whether a worker left because it was asked to is decided when `disconnect` and `exit` \
         are told.",
        Holds,
        Holds,
    ),
    core(
        "EVT-25",
        "A worker learns of its own disconnect.",
        Adapted("before its channel closes, so that it can still send until its body returns"),
        AS_IN_PROCESS,
    ),
    core(
        "EVT-26",
        "Inside a worker nothing tells `online`, `listening`, `exit` or any event of the cluster.",
        Holds,
        Holds,
    ),
    core(
        "EVT-28",
        "What fails at the process or the channel is told on the side that has to know.",
        Adapted("as the result of the call or as an `error` event"),
        AS_IN_PROCESS,
    ),
    core(
        "EVT-29",
        "An error that nobody listens for ends neither primary nor worker.",
        Adapted("Node ends the program; here a send to a dead worker is an `Err`"),
        AS_IN_PROCESS,
    ),
    nice(
        "EVT-31",
        "A panic in an observer of the primary's has a defined end, and no worker is left behind.",
        Adapted("it goes through the call that takes the event, and the cluster's end ends all"),
        AS_IN_PROCESS,
    ),
    core(
        "EVT-33",
        "A worker's `online` comes first, then its messages, then one `error` at most, and `exit` \
         last.",
        Adapted("with `disconnect` ahead of `exit`"),
        Holds,
    ),
];
