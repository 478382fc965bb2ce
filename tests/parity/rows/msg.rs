//! Messages.

use super::{
    AS_IN_PROCESS,
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

pub const ROWS: &[Row] = &[
    core(
        "MSG-01",
        "A message sent right after the fork is accepted, and there when the worker receives.",
        Holds,
        Holds,
    ),
    core(
        "MSG-03",
        "Messages keep their order in each direction, those with a socket among them.",
        Holds,
        Holds,
    ),
    core(
        "MSG-04",
        "A send tells whether to slow down; what it was told about is delivered all the same.",
        Adapted(
            "`Flow::Slow`; beyond, `Full` gives the value back; a receipt or `flush` waits until it \
             has left",
        ),
        Adapted("the same over a bounded queue; what was moved has left at once"),
    ),
    core(
        "MSG-05",
        "The completion of a send comes once, when the message was written, which says nothing \
         about its receipt.",
        Holds,
        Holds,
    ),
    core(
        "MSG-06",
        "A send over a closed channel fails.",
        Adapted("`Err` of the kind `Closed`, which gives the message back"),
        AS_IN_PROCESS,
    ),
    core("MSG-07", "A worker's sends have the same contract.", Holds, Holds),
    nice(
        "MSG-08",
        "What no encoding can express is refused where it is sent.",
        Adapted("by its type, or as an error of the kind `Codec`"),
        No("values are typed and moved"),
    ),
    nice(
        "MSG-10",
        "Values with structure of their own come back as they were sent.",
        Adapted("the encoding is exchangeable"),
        No("a moved value keeps all it has"),
    ),
    core(
        "MSG-11",
        "No message of the program's can be taken for one of the crate's, nor the other way \
         round.",
        Adapted("they are frames of different kinds"),
        Holds,
    ),
    core(
        "MSG-12",
        "An acknowledgement or a request that nobody expects is passed over; the worker works on \
         and leaves with code 0.",
        Adapted(
            "an acknowledgement for nothing is passed over; a frame that is no frame of the \
             protocol ends its worker only",
        ),
        Adapted("an acknowledgement for nothing is passed over; there are no frames"),
    ),
    core("MSG-13", "The cluster's `message` names the sender.", Holds, Holds),
    core(
        "MSG-15",
        "A message arrives whole wherever the transport cuts it.",
        Holds,
        No("nothing is cut"),
    ),
    core(
        "MSG-17",
        "A socket sent to a worker works there, and is gone at the primary at once.",
        Holds,
        Adapted("the socket is moved"),
    ),
    core("MSG-18", "A socket sent by a worker works at the primary.", Holds, Holds),
    nice(
        "MSG-19",
        "A sender may keep a copy; both ends then write to the same connection.",
        Holds,
        Adapted("by `try_clone` before the send"),
    ),
    core(
        "MSG-20",
        "A socket that is not yet acknowledged does not let later messages pass it.",
        Adapted("each frame carries its own descriptor, so that order is enough"),
        No("a moved value has no acknowledgement"),
    ),
    nice(
        "MSG-23",
        "Descriptors that the kernel cut off are noticed; what arrived of them is closed.",
        Holds,
        No("no descriptors are passed"),
    ),
    core(
        "MSG-24",
        "A sender closes its copy of a socket only when the receiver has it.",
        Adapted("it closes its own once it is sent; the kernel holds it while it is under way"),
        No("there is one copy"),
    ),
    nice(
        "MSG-25",
        "A listener can be sent; both sides then accept from the same socket.",
        Adapted("its descriptor is passed"),
        Adapted("a clone is moved"),
    ),
    nice(
        "MSG-26",
        "A UDP socket can be sent, and either side may take its datagrams.",
        Adapted("its descriptor is passed"),
        Adapted("a clone is moved"),
    ),
    nice(
        "MSG-28",
        "The connections that a sender gave away are counted until they end.",
        Adapted("as those of the worker that adopted them; the sender's close waits for none"),
        AS_IN_PROCESS,
    ),
    core(
        "MSG-29",
        "When a worker dies with a socket under way, whoever sent it learns of it.",
        Adapted("receipts of what has not left fail; sockets that were not taken are closed"),
        Adapted(
            "what was moved had left, so its receipt says sent; sockets that were not taken are \
             closed",
        ),
    ),
    core(
        "MSG-30",
        "A channel whose other end has gone can be used without harm: there are errors and \
         nothing else.",
        Holds,
        Holds,
    ),
    nice(
        "MSG-32",
        "Sends to a worker that was told to leave have a defined end.",
        Adapted("they are accepted and delivered until the channel closes"),
        AS_IN_PROCESS,
    ),
    core(
        "MSG-33",
        "What was sent before `disconnect` reaches the worker before the news of it.",
        Holds,
        Holds,
    ),
    core("MSG-34", "What a worker sent before it left in order reaches the primary.", Holds, Holds),
    core(
        "MSG-35",
        "A worker can make sure that what it sent has left it before it ends abruptly.",
        Adapted("`flush`; without it the tail may be lost"),
        No("the queue outlives the thread, all of it arrives"),
    ),
    nice(
        "MSG-36",
        "The news of a disconnect never comes within the call that asks for it, and a second call \
         has a defined answer.",
        Holds,
        Holds,
    ),
    core("MSG-37", "A worker without work stays for as long as its channel.", Holds, Holds),
    nice(
        "MSG-39",
        "A channel that stands still is noticed.",
        Adapted("the worker's missing heartbeat shows in its counters"),
        No("a queue does not stand still"),
    ),
];
