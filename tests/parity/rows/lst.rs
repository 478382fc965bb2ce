//! Listening and scheduling.

use super::{
    AS_IN_PROCESS, Cell,
    Cell::{Adapted, Holds, No},
    Row, core, nice,
};

const CHAPTER: &str = "src/docs/coming_from_node.md";

const UNEVEN: Cell = Cell::Documented {
    file: CHAPTER,
    phrase: "Under `Shared` a worker that is busy takes nothing",
};

const UNEVEN_UDP: Cell =
    Cell::Documented { file: CHAPTER, phrase: "A shared UDP socket is as uneven as can be" };

const MULTICAST: Cell =
    Cell::Documented { file: CHAPTER, phrase: "A second worker cannot join the same group" };

const COST: Cell = Cell::Documented { file: "REPORT.md", phrase: "Dealing against sharing" };

pub const ROWS: &[Row] = &[
    core("LST-01", "Port 0 gives one free port to all workers.", Holds, Holds),
    core(
        "LST-02",
        "The n-th port 0 of every worker is the same, and two of one worker differ.",
        Holds,
        Holds,
    ),
    core(
        "LST-03",
        "An address is shared by all workers that ask for it, whatever the policy.",
        Holds,
        Holds,
    ),
    core(
        "LST-04",
        "An address twice in one worker is in use for the second listener, and the first goes on.",
        Holds,
        Holds,
    ),
    nice(
        "LST-07",
        "A port that came from port 0 has a defined meaning when it is asked for by number.",
        Adapted("Node refuses it; here other workers share it"),
        AS_IN_PROCESS,
    ),
    core(
        "LST-08",
        "A port that somebody else has is an error of the worker that asked; it and the primary \
         live on.",
        Holds,
        Holds,
    ),
    core(
        "LST-09",
        "A bind that failed can be tried again, by the same worker or another.",
        Holds,
        Holds,
    ),
    core(
        "LST-10",
        "A privileged port is refused for want of the primary's permission.",
        Holds,
        Holds,
    ),
    core(
        "LST-11",
        "The path of a live Unix socket is in use, and the error keeps its cause on its way.",
        Holds,
        Holds,
    ),
    nice(
        "LST-12",
        "A foreign address and a name without an address are errors of the worker that asked, and \
         of nobody else.",
        Holds,
        Holds,
    ),
    core(
        "LST-13",
        "A worker whose listen failed can leave in order, also when it makes a mess of the error.",
        Holds,
        Holds,
    ),
    core(
        "LST-14",
        "Exclusive listeners belong to their worker: port 0 differs in each, and a fixed port is \
         in use for the second.",
        Holds,
        Holds,
    ),
    core(
        "LST-15",
        "The cluster knows nothing of an exclusive listener: no event, and `disconnect` neither \
         closes it nor waits for it.",
        Holds,
        Holds,
    ),
    core(
        "LST-16",
        "With `reuse_port` the worker binds for itself, and may do so twice.",
        Holds,
        Holds,
    ),
    nice("LST-17", "An existing socket can be listened on without the primary.", Holds, Holds),
    core(
        "LST-18",
        "A descriptor to listen on is the primary's; a bad one is an error of the worker that \
         asked.",
        Holds,
        Adapted("there is one table of descriptors"),
    ),
    core("LST-19", "An address may be left out: any free port, on all interfaces.", Holds, Holds),
    core(
        "LST-20",
        "Without a host both IPv6 and IPv4 clients are served, where there is IPv6.",
        Holds,
        Holds,
    ),
    core("LST-21", "`ipv6_only` leaves the port free for IPv4.", Holds, Holds),
    nice(
        "LST-22",
        "The backlog that workers ask for reaches the kernel.",
        Adapted("the largest counts"),
        AS_IN_PROCESS,
    ),
    nice(
        "LST-23",
        "A Unix path is taken from the worker's directory, may be long, and its file goes with \
         the last user.",
        Holds,
        Holds,
    ),
    nice(
        "LST-25",
        "A socket file that a killed primary left behind does not stop the next start.",
        Adapted("it is removed if nobody listens on it"),
        AS_IN_PROCESS,
    ),
    nice("LST-26", "A worker can open its socket file to everybody.", Holds, Holds),
    core(
        "LST-27",
        "Round-robin serves Unix sockets, whose connections have no addresses.",
        Holds,
        Holds,
    ),
    core(
        "LST-28",
        "Round-robin takes exact turns over idle workers, in the order in which they got ready; \
         newcomers go last.",
        Holds,
        Holds,
    ),
    core(
        "LST-29",
        "A worker gets more only when it has taken what it was given.",
        Holds,
        Adapted("by the length of its queue"),
    ),
    core(
        "LST-30",
        "A worker that stands still keeps at most its window of connections; all others are \
         served elsewhere.",
        Adapted("its window, 8 by default"),
        AS_IN_PROCESS,
    ),
    core(
        "LST-31",
        "When no worker is free, connections wait in order for the first that is, or for one that \
         comes.",
        Holds,
        Holds,
    ),
    core(
        "LST-32",
        "What waits for workers is bounded.",
        Adapted(
            "Node accepts without end; here the primary stops, and the kernel's backlog is the queue",
        ),
        AS_IN_PROCESS,
    ),
    core(
        "LST-33",
        "A connection is the primary's until a worker takes it; refused, it goes to another, and \
         its client notices nothing.",
        Holds,
        Adapted("the refusal gives it back"),
    ),
    core(
        "LST-34",
        "A connection that nobody is left to take is closed.",
        Adapted("Node lets its client hang"),
        AS_IN_PROCESS,
    ),
    core(
        "LST-35",
        "A connection on its way to a worker that dies goes to another.",
        Adapted("Node loses it"),
        Adapted("the dead worker's queue is given out again"),
    ),
    core(
        "LST-37",
        "When the last worker leaves an address its listener and what waits there are closed; \
         later clients are refused.",
        Holds,
        Holds,
    ),
    core(
        "LST-38",
        "An address can be kept while its only worker is replaced, so that no client is refused.",
        Adapted("Node refuses meanwhile"),
        AS_IN_PROCESS,
    ),
    core(
        "LST-39",
        "When accepting fails, the primary goes on.",
        Adapted("with a pause, and an `error` event"),
        AS_IN_PROCESS,
    ),
    core("LST-40", "A worker at its limit passes connections on to others.", Holds, Holds),
    nice(
        "LST-41",
        "A limit of 0 has one meaning.",
        Adapted("no limit is `None`; 0 takes no connection"),
        AS_IN_PROCESS,
    ),
    nice("LST-43", "A worker at its limit may close connections itself, and tell.", Holds, Holds),
    nice(
        "LST-44",
        "Where workers accept for themselves, one at its limit has a defined answer to more.",
        Holds,
        Holds,
    ),
    core("LST-45", "Closing a listener withdraws its worker; the others accept.", Holds, Holds),
    core(
        "LST-46",
        "Closing ends when the connections have; the address is given up at once.",
        Holds,
        Holds,
    ),
    core("LST-48", "Listeners on port 0 that come and go in any order trip nothing.", Holds, Holds),
    core(
        "LST-51",
        "A worker that was asked to leave cannot listen, and learns why.",
        Adapted("Node says nothing; here an `Err` of the kind `Disconnecting`"),
        AS_IN_PROCESS,
    ),
    core(
        "LST-53",
        "A worker that goes while its first listener is being bound does no harm.",
        Adapted("Node throws in the primary; here the bind is one step"),
        AS_IN_PROCESS,
    ),
    core(
        "LST-54",
        "Under the shared policy the primary binds and the workers accept, without its help.",
        Holds,
        Holds,
    ),
    core("LST-55", "How uneven the shared policy is, is documented.", UNEVEN, UNEVEN),
    core(
        "LST-56",
        "Under the shared policy a stopped worker holds no connection back; waiting ones outlive \
         the death of some workers, and end with the last.",
        Holds,
        Holds,
    ),
    core("LST-57", "UDP sockets are shared, whatever the policy.", Holds, Holds),
    core(
        "LST-58",
        "UDP port 0 is the same for all workers; a datagram reaches one of them, and those that \
         are left when others close.",
        Holds,
        Holds,
    ),
    nice(
        "LST-59",
        "How uneven shared UDP is, is documented, with the alternative.",
        UNEVEN_UDP,
        UNEVEN_UDP,
    ),
    nice(
        "LST-60",
        "An exclusive UDP port is in use for a second worker; sending without a bind uses a port \
         of the worker's own.",
        Adapted("no send binds: who only sends binds port 0 with `exclusive`"),
        AS_IN_PROCESS,
    ),
    nice(
        "LST-61",
        "UDP takes `reuse_addr`, `ipv6_only` and a descriptor of the primary's, and can send from \
         the shared socket.",
        Holds,
        Holds,
    ),
    nice("LST-62", "A UDP bind that failed can be tried again.", Holds, Holds),
    core(
        "LST-63",
        "A UDP bind that is given up while it is under way leaves nothing behind.",
        Holds,
        Holds,
    ),
    nice(
        "LST-64",
        "Multicast groups with a shared socket have their limits documented.",
        MULTICAST,
        MULTICAST,
    ),
    nice(
        "LST-65",
        "Data of the first worker's can be had by all later ones of the same address.",
        Adapted("bytes beside the listener"),
        Adapted("an `Arc` beside the listener"),
    ),
    nice(
        "LST-66",
        "Options for accepted connections are applied in the worker that has them.",
        Adapted(
            "`no_delay` and `keep_alive`; `allowHalfOpen` and `pauseOnConnect` have no option: \
             each is half-open, and read when the body reads",
        ),
        AS_IN_PROCESS,
    ),
    core(
        "LST-67",
        "HTTP connections without a request do not hold a disconnect up.",
        Adapted("the HTTP server closes them; whoever speaks another protocol can do the same"),
        AS_IN_PROCESS,
    ),
    nice("LST-70", "What round-robin costs per connection is measured.", COST, COST),
    core(
        "LST-71",
        "Threads of one program share a port although the kernel would refuse a second bind.",
        No("about threads"),
        Adapted("the primary owns the socket, threads are given connections"),
    ),
];
