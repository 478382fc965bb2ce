//! Lifetime.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    nice(
        "LIFE-01",
        "`disconnect` lets its caller go on with the same worker.",
        Adapted("it gives the same handle back"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-02",
        "From the call of `disconnect` on, the handle says that its worker leaves because it was \
         asked to.",
        Holds,
        Holds,
    ),
    core(
        "LIFE-03",
        "A worker that leaves is listed for as long as there is something of it.",
        Adapted(
            "Node drops it at once; here after its last event, and its state says that it leaves",
        ),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-04",
        "After `disconnect` no further connection is given to the worker.",
        Adapted("a worker that accepts for itself stops at its loop's next turn"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-06",
        "Connections that a worker has are served to their end while it leaves.",
        Holds,
        Holds,
    ),
    core(
        "LIFE-07",
        "Connections and timers of the worker's own do not hold the disconnect up, yet are not \
         cut.",
        Adapted(
            "the withdrawal and the news wait for none; the body decides which it waits for, \
             within the grace period, and `disconnect` is told behind it",
        ),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-08",
        "A worker that was asked to leave ends when its own work is done.",
        Adapted("when the body returns"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-09",
        "A worker that loses its primary ends at once with code 0, and abandons what it has.",
        Holds,
        Adapted("the end of the primary kills its threads, which have no code: `Killed`"),
    ),
    nice(
        "LIFE-10",
        "What a worker does about its disconnect happens before it is made to end, and may choose \
         the exit code.",
        Holds,
        Holds,
    ),
    core(
        "LIFE-11",
        "A worker that disconnects itself waits until the primary knows, so that the primary sees \
         it as asked for in every event.",
        Holds,
        Holds,
    ),
    core(
        "LIFE-13",
        "A second `disconnect` does no harm.",
        Adapted("Node ends the worker with code 1; here nothing changes"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-14",
        "When both sides disconnect at the same moment, both end well, with code 0.",
        Adapted("write errors after the end began are not told"),
        Holds,
    ),
    core(
        "LIFE-15",
        "A worker that is asked to leave before it is online still starts, without knowing of it \
         at first, takes its messages, and leaves with code 0.",
        Adapted("the body is called ahead of the news; its first await may come behind it"),
        AS_IN_PROCESS,
    ),
    nice(
        "LIFE-16",
        "`disconnect` and `kill` of a dead worker change nothing.",
        Adapted("an `Err` of the kind `Closed`; whether it was asked to leave stays as it was"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-17",
        "`kill` does not wait for a worker to drain, and its exit does not count as asked for.",
        Holds,
        Adapted("the loop's next turn ends the worker"),
    ),
    core(
        "LIFE-18",
        "`kill` with a choice of how is obeyed, and `exit` says how.",
        Adapted(
            "SIGTERM asks to drain, so the code is 0; SIGINT is the primary's; `exit` names any \
             other",
        ),
        Adapted("`Signal::Term` asks to drain, `Signal::Kill` ends; others are refused"),
    ),
    core(
        "LIFE-19",
        "A worker that spins can be got rid of by force.",
        Adapted("by `kill`, which is SIGKILL; it does not answer `Signal::Term`"),
        Adapted(
            "a thread cannot be ended from outside; it is left behind and reported as abandoned",
        ),
    ),
    core(
        "LIFE-20",
        "A worker can hear that it is being told to end, act on it while it is connected, and \
         choose its code.",
        Holds,
        Adapted("it observes the request, not a signal"),
    ),
    nice(
        "LIFE-21",
        "A signal that does not exist cannot be sent.",
        Adapted("by its type"),
        No("no signals"),
    ),
    core(
        "LIFE-22",
        "`kill` inside a worker counts as asked for, does not wait for connections, and has code \
         0.",
        Holds,
        Holds,
    ),
    nice(
        "LIFE-23",
        "`kill` inside a worker that is leaving already ends it with code 0; a second one changes \
         nothing.",
        Holds,
        Holds,
    ),
    core(
        "LIFE-25",
        "A worker that ends itself with a code has that code at `exit`, after one `disconnect`, \
         and was not asked to.",
        Holds,
        Adapted("only this worker ends"),
    ),
    core(
        "LIFE-26",
        "A body that fails or panics has a code that says which, and was not asked to leave.",
        Adapted("1 for an error, 101 for a panic"),
        Adapted("1 for an error, 101 for a panic, which is caught"),
    ),
    core(
        "LIFE-27",
        "A worker that aborts ends by SIGABRT and takes nobody along.",
        Holds,
        No("an abort ends the program"),
    ),
    core(
        "LIFE-28",
        "Whether a worker left because it was asked to: yes after `disconnect` from either side \
         and its own `kill`, no after everything else.",
        Holds,
        Holds,
    ),
    core(
        "LIFE-29",
        "A worker is connected from the fork to the end of its channel, and not any more when \
         `disconnect` is told.",
        Adapted("at the handle; the worker's own says so while it drains, until its end"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-30",
        "A worker is dead when its status is known: at `exit`, and not yet at the `disconnect` \
         before.",
        Adapted(
            "`Event::state` says so; the worker itself may be dead already when the program takes \
             `disconnect`",
        ),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-31",
        "However the primary ends, each worker notices and ends.",
        Holds,
        No("they are one process"),
    ),
    core(
        "LIFE-32",
        "A worker that is busy when the primary goes does not outlive it.",
        Adapted("the kernel ends it"),
        No("they are one process"),
    ),
    core(
        "LIFE-33",
        "A worker that is leaving when the primary goes does not outlive it.",
        Adapted("Node leaves an orphan; here it ends as all others do"),
        No("they are one process"),
    ),
    nice(
        "LIFE-34",
        "A worker that sends after the primary has gone gets an error and does not crash.",
        Adapted("as at the end of the channel"),
        No("they are one process"),
    ),
    nice(
        "LIFE-35",
        "A worker cannot drop its channel alone.",
        Adapted("not offered: `disconnect` and `kill` are the ways out"),
        AS_IN_PROCESS,
    ),
    nice(
        "LIFE-36",
        "The primary cannot drop a worker's channel alone.",
        Adapted("not offered: dropping a handle changes nothing, dropping the cluster ends all"),
        AS_IN_PROCESS,
    ),
    core(
        "LIFE-39",
        "A connection that a worker has accepted ends with it, and is given to nobody else.",
        Holds,
        Adapted("a panic drops the worker's sockets"),
    ),
    core(
        "LIFE-40",
        "A dead worker gets no connections, whoever holds its channel.",
        Adapted("the end of its process takes it off every listener"),
        No("cannot happen"),
    ),
    nice("LIFE-42", "`kill` while `disconnect` is being told is safe.", Holds, Holds),
];
