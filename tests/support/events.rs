//! Reading a cluster's events with a deadline.

use std::time::Instant;

use bimodal::{Address, Cluster, Error, Event, ExitStatus, WorkerHandle, WorkerId};

use super::DEADLINE;

/// Events that were read, in order.
#[derive(Debug, Default)]
pub struct Seen(pub Vec<Event>);

impl Seen {
    /// The names in order, of one worker or of all.
    pub fn names(&self, worker: Option<WorkerId>) -> Vec<&'static str> {
        let of =
            |event: &&Event| worker.is_none() || event.worker().map(WorkerHandle::id) == worker;
        self.0.iter().filter(of).map(Event::name).collect()
    }

    /// How this worker ended.
    #[track_caller]
    pub fn exit(&self, worker: WorkerId) -> ExitStatus {
        self.exits().find(|(id, _)| *id == worker).map(|(_, status)| status).expect("no exit event")
    }

    /// What this worker failed with.
    #[track_caller]
    pub fn error(&self, of: WorkerId) -> &Error {
        let mut errors = self.0.iter().filter_map(|event| match event {
            Event::Error { worker: Some(worker), error } if worker.id() == of => Some(error),
            _ => None,
        });
        errors.next().expect("no error event")
    }

    /// Who ended, and how.
    pub fn exits(&self) -> impl Iterator<Item = (WorkerId, ExitStatus)> + '_ {
        self.0.iter().filter_map(|event| match event {
            Event::Exit { worker, status } => Some((worker.id(), *status)),
            _ => None,
        })
    }

    /// The addresses of the `listening` events, in order.
    pub fn addresses(&self) -> Vec<Address> {
        let addresses = self.0.iter().filter_map(|event| match event {
            Event::Listening { address, .. } => Some(address.clone()),
            _ => None,
        });
        addresses.collect()
    }

    /// The values of type `T` among the messages, with their senders, in order.
    pub fn messages<T: serde::de::DeserializeOwned + 'static>(self) -> Vec<(WorkerId, T)> {
        let messages = self.0.into_iter().filter_map(|event| match event {
            Event::Message { worker, message } if message.is::<T>() => {
                Some((worker.id(), message.get().unwrap()))
            }
            _ => None,
        });
        messages.collect()
    }
}

/// Reads events up to and including the first that `last` accepts.
#[track_caller]
pub fn until(cluster: &Cluster, what: &str, mut last: impl FnMut(&Event) -> bool) -> Seen {
    let end = Instant::now() + DEADLINE;
    let mut seen = Seen::default();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Some(event) = cluster.next_event_timeout(left) else {
            panic!("waited in vain: {what}; seen: {seen:#?}");
        };
        let done = last(&event);
        seen.0.push(event);
        if done {
            return seen;
        }
    }
}

/// Reads events until `count` of this name have come.
#[track_caller]
pub fn until_named(cluster: &Cluster, name: &str, count: usize) -> Seen {
    let mut missing = count;
    until(cluster, &format!("{count} times {name}"), |event| {
        missing -= usize::from(event.name() == name);
        missing == 0
    })
}

/// Reads events until no worker is left.
#[track_caller]
pub fn to_the_end(cluster: &Cluster) -> Seen {
    let end = Instant::now() + DEADLINE;
    let mut seen = Seen::default();
    while let Some(event) =
        cluster.next_event_timeout(end.saturating_duration_since(Instant::now()))
    {
        seen.0.push(event);
    }
    assert!(Instant::now() < end, "the events did not end; seen: {seen:#?}");
    seen
}

/// The next message of type `T`; other events are skipped.
#[track_caller]
pub fn next_message<T: serde::de::DeserializeOwned + 'static>(cluster: &Cluster) -> (WorkerId, T) {
    let mut seen = until(
        cluster,
        std::any::type_name::<T>(),
        |event| matches!(event, Event::Message { message, .. } if message.is::<T>()),
    );
    let Some(Event::Message { worker, message }) = seen.0.pop() else { unreachable!() };
    (worker.id(), message.get().unwrap())
}

/// Forks `count` workers and waits until each listens once; says where the last one does.
#[track_caller]
pub fn fork_listening(cluster: &Cluster, count: usize) -> (Vec<WorkerHandle>, Address) {
    let workers: Vec<_> = (0..count).map(|_| cluster.fork().unwrap()).collect();
    let seen = until_named(cluster, "listening", count);
    (workers, seen.addresses().pop().unwrap())
}
