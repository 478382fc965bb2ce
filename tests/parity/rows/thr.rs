//! Semantics of worker_threads.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    core(
        "THR-01",
        "`online` comes once, when the body begins; a body that returns has code 0.",
        Holds,
        Holds,
    ),
    core(
        "THR-02",
        "A worker can end with a code of its own, and nothing that follows runs.",
        Adapted("by `Worker::exit`, or by what the body returns"),
        Adapted("as in Process; a running thread is not unwound"),
    ),
    nice(
        "THR-03",
        "Which code counts is fixed: the one asked for, else 0; a failure has its own.",
        Adapted("1 for an error, 101 for a panic"),
        Adapted("1 for an error, 101 for a panic"),
    ),
    core(
        "THR-04",
        "What a worker fails with is told to the primary before `exit`; the others go on.",
        Adapted("its kind and its text"),
        Adapted("its kind and its text; then code 1 for an error, 101 for a panic"),
    ),
    nice(
        "THR-05",
        "Code in a worker may catch a panic of its own and go on, or choose its code.",
        Adapted("`catch_unwind`"),
        AS_IN_PROCESS,
    ),
    nice(
        "THR-06",
        "Whatever value a panic carries, its message or a substitute is told.",
        Adapted("as in Thread, over the channel"),
        Adapted("text, or that it was none"),
    ),
    core(
        "THR-08",
        "All that a worker sent before its end is delivered before `exit`, in order.",
        Adapted("when it ends in order, or has flushed"),
        Holds,
    ),
    nice(
        "THR-09",
        "What a worker wrote to its output is there before `exit`.",
        No("a process writes for itself"),
        Adapted("standard output belongs to the process; nothing is held back"),
    ),
    core(
        "THR-10",
        "A worker can be ended whatever it is doing.",
        Holds,
        Adapted(
            "a thread ends at its loop's next turn; one that does not get there is reported as \
         abandoned",
        ),
    ),
    nice(
        "THR-11",
        "A forced end runs no more of the worker's code.",
        Holds,
        Adapted("destructors run"),
    ),
    nice(
        "THR-12",
        "Whoever ends or tells something to a worker that has ended learns that it has.",
        Adapted("an `Err` of the kind `Closed`"),
        AS_IN_PROCESS,
    ),
    nice(
        "THR-13",
        "Killing a worker before it is online has a defined outcome.",
        Adapted("it never ran; its status says killed"),
        AS_IN_PROCESS,
    ),
    nice(
        "THR-14",
        "Dropping what holds a worker has a defined outcome.",
        No("a handle holds no process"),
        Adapted("a dropped handle changes nothing, a dropped cluster ends all"),
    ),
    core(
        "THR-15",
        "What a worker started ends with it, and the end of the program cuts all workers.",
        Adapted(
            "the end of the primary ends all workers, with their threads; programs that a worker \
             started live on",
        ),
        Adapted(
            "the end of the program ends all; a thread that a worker's code started is its own \
             and is not ended",
        ),
    ),
    nice(
        "THR-16",
        "What fails in a thread that a worker started is that worker's affair.",
        No("it is another process's affair"),
        Adapted("by its join handle"),
    ),
    nice("THR-17", "A panic while `exit` is being told is the program's own.", Holds, Holds),
    nice(
        "THR-19",
        "A worker that receives nothing does not end for that reason.",
        No("the cluster's rule holds"),
        Adapted("the cluster's rule holds: it stays"),
    ),
    core(
        "THR-20",
        "Messages wait until somebody receives, also after a receiver was dropped.",
        Holds,
        Holds,
    ),
    core(
        "THR-21",
        "What was posted before a close is received, and a close of one end is one of both.",
        Holds,
        Holds,
    ),
    nice(
        "THR-22",
        "One message can be taken without waiting, in order.",
        Adapted("`try_recv`"),
        Holds,
    ),
    core("THR-23", "Endless ping-pong neither grows the stack nor starves timers.", Holds, Holds),
    core("THR-24", "A message is what it was when it was sent.", Adapted("a copy"), Holds),
    nice(
        "THR-25",
        "A send that is refused has given nothing away.",
        Adapted("neither a descriptor nor a byte"),
        No("ownership is checked by the compiler"),
    ),
    nice(
        "THR-27",
        "What cannot be sent is refused where it is sent.",
        Adapted("an error of the kind `Codec`"),
        No("`Send` is checked by the compiler"),
    ),
    nice(
        "THR-28",
        "Ends of a channel can be sent through one, and a death meanwhile does no harm.",
        Adapted("as descriptors"),
        Holds,
    ),
    core(
        "THR-29",
        "Memory that workers share outlives the one that made it.",
        Adapted("a mapped memory file"),
        Holds,
    ),
    nice(
        "THR-30",
        "A broadcast reaches all other open members of its name, and no one else.",
        Adapted("by way of the primary"),
        Holds,
    ),
    nice(
        "THR-31",
        "A worker can send to another by id, and learns what became of it.",
        No(
            "one end of a channel, by way of the primary, does it: a send by id would be a second way",
        ),
        No("as in Process"),
    ),
    nice(
        "THR-32",
        "A worker with too much memory ends alone.",
        Adapted("by the process's limits"),
        No("a process has one allocator"),
    ),
    core(
        "THR-33",
        "What a stack overflow costs is known.",
        No("it ends that process"),
        No("it ends the program; the stack's size can be set"),
    ),
    nice(
        "THR-34",
        "The environment is a copy, unless it is shared on purpose.",
        Holds,
        Adapted("the worker's own map"),
    ),
    nice(
        "THR-35",
        "Data set before a fork is there in all later workers, as it was then.",
        Adapted("bytes of the fork"),
        Holds,
    ),
    nice(
        "THR-37",
        "What belongs to the process is not for a thread to change.",
        No("a worker has its own process"),
        Adapted("`Worker` does not offer it"),
    ),
    core("THR-38", "Signals are the main thread's.", No("each process has its own"), Holds),
    core(
        "THR-39",
        "Sockets that a worker opened are closed when it ends, after a panic too.",
        Holds,
        Holds,
    ),
    core(
        "THR-40",
        "A worker that cannot be made for want of resources is an event, and not a crash.",
        Holds,
        Holds,
    ),
    core("THR-41", "Workers that come and go leave no memory behind.", Holds, Holds),
    nice(
        "THR-42",
        "Ending a worker while it uses files is safe.",
        No("the kernel cleans up"),
        Adapted("a call in progress ends first"),
    ),
    nice(
        "THR-43",
        "The primary can read how busy a worker is and how much CPU time it has used.",
        Adapted("of its process"),
        Adapted("of its thread"),
    ),
    nice("THR-44", "Workers have names beside their ids.", Holds, Holds),
    nice(
        "THR-48",
        "The program's choice to abort on a panic is what it says.",
        No("each process aborts alone"),
        Adapted("then a panic ends the program"),
    ),
    core(
        "THR-51",
        "A listener and a connection can be moved to another worker, and are gone where they \
         were.",
        No("see the messages that carry sockets"),
        Holds,
    ),
];
