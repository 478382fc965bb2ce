//! The line of loops before a shared listening socket: with the protocol of `src/accept/README.md` no connection waits
//! while a loop that wants it sleeps. The kernel is as epoll_ctl(2) has it with `EPOLLEXCLUSIVE`.

use std::collections::VecDeque;

use loom::{
    sync::{Arc, Mutex, Notify},
    thread,
};

const LOOPS: usize = 3;

struct Kernel {
    state: Mutex<State>,
    /// What ends each loop's sleep.
    wake_ups: [Notify; LOOPS],
}

#[derive(Default)]
struct State {
    /// Connections that nobody has accepted.
    backlog: u32,
    line: VecDeque<usize>,
    /// Events for each loop.
    events: [bool; LOOPS],
    asleep: [bool; LOOPS],
    /// Requests to look that the primary has not sent.
    unsent: [bool; LOOPS],
}

impl Kernel {
    fn new() -> Self {
        Self { state: Mutex::default(), wake_ups: std::array::from_fn(|_| Notify::new()) }
    }

    /// A connection comes: the kernel marks the socket as ready for those in line, up to the first that sleeps.
    fn connect(&self) {
        let mut state = self.state.lock().unwrap();
        state.backlog += 1;
        for id in state.line.clone() {
            state.events[id] = true;
            if std::mem::take(&mut state.asleep[id]) {
                self.wake_ups[id].notify();
                return;
            }
        }
    }

    fn accept(&self) -> bool {
        let backlog = &mut self.state.lock().unwrap().backlog;
        let taken = *backlog > 0;
        *backlog -= u32::from(taken);
        taken
    }

    /// What waits already counts as an event.
    fn join_line(&self, id: usize) {
        let mut state = self.state.lock().unwrap();
        state.line.push_back(id);
        state.events[id] |= state.backlog > 0;
    }

    fn leave_line(&self, id: usize) {
        let mut state = self.state.lock().unwrap();
        state.line.retain(|other| *other != id);
        state.events[id] = false;
    }

    fn wait(&self, id: usize) {
        let mut state = self.state.lock().unwrap();
        state.asleep[id] = !state.events[id];
        if state.asleep[id] {
            drop(state);
            self.wake_ups[id].wait();
            state = self.state.lock().unwrap();
        }
        state.events[id] = false;
    }

    /// The primary asks a loop to look. A request that it has not sent stands for this one, too.
    fn ask_to_look(&self, id: usize) {
        let already = std::mem::replace(&mut self.state.lock().unwrap().unsent[id], true);
        if !already {
            self.send(id);
        }
    }

    /// What was asked leaves, and then arrives.
    fn send(&self, id: usize) {
        self.state.lock().unwrap().unsent[id] = false;
        let mut state = self.state.lock().unwrap();
        state.events[id] = true;
        if std::mem::take(&mut state.asleep[id]) {
            self.wake_ups[id].notify();
        }
    }
}

/// Takes one connection; were one forgotten, loom would find the order in which this never ends.
fn take_one(kernel: &Kernel, id: usize) {
    let mut in_line = false;
    while !kernel.accept() {
        if !std::mem::replace(&mut in_line, true) {
            kernel.join_line(id);
        }
        kernel.wait(id);
    }
    if in_line {
        kernel.leave_line(id);
    }
}

/// Explores every order with up to three preemptions; more take hours and, in models of this size, find nothing new.
fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

#[test]
fn loom_two_loops_take_two_connections() {
    model(|| {
        let kernel = Arc::new(Kernel::new());
        let loops = [0, 1].map(|id| {
            let kernel = kernel.clone();
            thread::spawn(move || take_one(&kernel, id))
        });
        kernel.connect();
        kernel.connect();
        loops.into_iter().for_each(|each| each.join().unwrap());
    });
}

#[test]
fn loom_who_gives_up_leaves_no_connection_behind() {
    model(|| {
        let kernel = Arc::new(Kernel::new());
        kernel.join_line(0);
        kernel.state.lock().unwrap().asleep[0] = true;
        let taker = thread::spawn({
            let kernel = kernel.clone();
            move || take_one(&kernel, 1)
        });
        let gives_up = thread::spawn({
            let kernel = kernel.clone();
            move || {
                // Something else has ended its sleep, or the connection that it will not take.
                kernel.state.lock().unwrap().asleep[0] = false;
                kernel.leave_line(0);
                if kernel.state.lock().unwrap().backlog > 0 {
                    kernel.ask_to_look(1);
                }
            }
        });
        kernel.connect();
        gives_up.join().unwrap();
        taker.join().unwrap();
    });
}

/// The two that sleep are woken and give up, one after its own connection came: the third may be sent one request for both.
#[test]
fn loom_who_is_asked_once_for_two_takes_both() {
    model(|| {
        let kernel = Arc::new(Kernel::new());
        for id in [0, 1] {
            kernel.join_line(id);
            kernel.state.lock().unwrap().asleep[id] = true;
        }
        let taker = thread::spawn({
            let kernel = kernel.clone();
            move || (0..2).for_each(|_| take_one(&kernel, 2))
        });
        let give_up = [0, 1].map(|id| {
            let kernel = kernel.clone();
            thread::spawn(move || {
                kernel.connect();
                kernel.leave_line(id);
                if kernel.state.lock().unwrap().backlog > 0 {
                    kernel.ask_to_look(2);
                }
            })
        });
        give_up.into_iter().for_each(|each| each.join().unwrap());
        taker.join().unwrap();
    });
}
