//! The thread of a store, and its connection: sends what waits as one pipeline and gives each reply to
//! whoever asked.
//!
//! A connection that fails is given up with all that was sent over it. The next one is tried at once, and after
//! that no sooner than a time that doubles with each failure; meanwhile every call fails at once.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use ::redis::{Client, Cmd, Connection, ConnectionLike as _, RedisError, Value};

use super::super::{
    answer::DEADLINE,
    operation::{not_a_number, overflow},
    queue::Queue,
};
use crate::{
    clock,
    error::{Error, ErrorKind, Result},
};

/// How long a connection may take to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// Between two attempts, at first and at last.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A connection that was not used for so long is tried before it is trusted: servers and what is between
/// close those that are idle.
const IDLE: Duration = Duration::from_secs(1);

/// Commands that are sent together.
const BATCH: usize = 256;

/// A command, and what becomes of its reply: perhaps a command that follows.
pub(super) struct Job {
    packed: Vec<u8>,
    deadline: Instant,
    then: Box<dyn FnOnce(Result<Value>) -> Option<Self> + Send>,
}

impl Job {
    pub(super) fn new(
        command: &Cmd,
        deadline: Instant,
        then: impl FnOnce(Result<Value>) -> Option<Self> + Send + 'static,
    ) -> Self {
        Self { packed: command.get_packed_command(), deadline, then: Box::new(then) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.packed.len()
    }

    fn fail(self, error: Error) {
        // No command follows an error.
        let _ = (self.then)(Err(error));
    }
}

pub(super) struct Line {
    client: Client,
    connection: Option<Connection>,
    used: Instant,
    retry: Retry,
}

/// When the next connection may be tried, and why the last one failed.
struct Retry {
    pause: Duration,
    failed: Option<(Instant, RedisError)>,
}

impl Line {
    pub(super) fn new(client: Client) -> Self {
        let retry = Retry { pause: RETRY.0, failed: None };
        Self { client, connection: None, used: clock::now(), retry }
    }

    /// Runs until the queue is closed.
    pub(super) fn run(mut self, queue: &Queue<Job>) {
        let mut following = VecDeque::new();
        loop {
            // With steps to do, only what is there already.
            let until = (!following.is_empty()).then(clock::now);
            let Some(mut waiting) = queue.take(until) else { return };
            waiting.append(&mut following);
            while !waiting.is_empty() {
                let rest = waiting.split_off(waiting.len().min(BATCH));
                let batch = std::mem::replace(&mut waiting, rest);
                following.extend(self.exchange(batch));
            }
        }
    }

    /// Sends commands, and returns those that follow from their replies.
    fn exchange(&mut self, mut batch: VecDeque<Job>) -> Vec<Job> {
        let now = clock::now();
        // Whoever asked has been told already.
        batch.retain(|job| now < job.deadline);
        let mut following = Vec::new();
        if batch.is_empty() {
            return following;
        }
        let failed = self.converse(&mut batch, &mut following);
        if let Err(error) = failed {
            batch.into_iter().for_each(|job| job.fail(self.away(&error)));
        }
        following
    }

    /// Leaves in the batch what has no reply.
    fn converse(
        &mut self,
        batch: &mut VecDeque<Job>,
        following: &mut Vec<Job>,
    ) -> Result<(), RedisError> {
        let mut connection = self.connect()?;
        let packed: Vec<_> = batch.iter().map(|job| job.packed.as_slice()).collect();
        connection.send_packed_command(&packed.concat())?;
        while let Some(job) = batch.pop_front() {
            match connection.recv_response() {
                Ok(reply) => following.extend((job.then)(checked(reply))),
                Err(error) => {
                    batch.push_front(job);
                    return Err(error);
                }
            }
        }
        self.used = clock::now();
        self.connection = Some(connection);
        Ok(())
    }

    /// The connection, if it is still good, or another.
    fn connect(&mut self) -> Result<Connection, RedisError> {
        let now = clock::now();
        if let Some(mut connection) = self.connection.take()
            && (now < self.used + IDLE || connection.check_connection())
        {
            return Ok(connection);
        }
        if let Some((until, error)) = &self.retry.failed
            && now < *until
        {
            return Err(error.clone());
        }
        let connected = connect(&self.client);
        match &connected {
            Ok(_) => self.retry = Retry { pause: RETRY.0, failed: None },
            Err(error) => self.retry.again(error.clone()),
        }
        connected
    }

    /// The error of a call whose command has no reply.
    fn away(&self, error: &RedisError) -> Error {
        let address = self.client.get_connection_info().addr();
        let text = match &self.retry.failed {
            Some(_) => format!(
                "the Redis server at {address} is away, and nothing was done; look whether it runs ({error})"
            ),
            None => format!(
                "the connection to the Redis server at {address} failed, so a write may or may not have happened: look what holds, and ask again ({error})"
            ),
        };
        let kind = match error {
            error if error.is_timeout() => io::ErrorKind::TimedOut,
            error if error.is_connection_refusal() => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::NotConnected,
        };
        Error::caused(ErrorKind::Io, text, io::Error::from(kind))
    }
}

impl Retry {
    fn again(&mut self, error: RedisError) {
        self.failed = Some((clock::now() + self.pause, error));
        self.pause = (self.pause * 2).min(RETRY.1);
    }
}

/// A connection on which nothing waits for ever.
pub(super) fn connect(client: &Client) -> Result<Connection, RedisError> {
    let connection = client.get_connection_with_timeout(CONNECT)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.set_write_timeout(Some(DEADLINE))?;
    Ok(connection)
}

/// A reply, or the error that the server replied with.
fn checked(reply: Value) -> Result<Value> {
    let Value::ServerError(error) = reply else { return Ok(reply) };
    let (code, details) = (error.code(), error.details().unwrap_or_default());
    let text = format!("the Redis server refused: {code} {details}");
    Err(match code {
        "ERR" if details.contains("not an integer") => not_a_number(),
        "ERR" if details.contains("would overflow") => overflow(),
        "WRONGTYPE" => Error::new(ErrorKind::Type, text),
        "OOM" => Error::new(ErrorKind::Full, text),
        _ => Error::new(ErrorKind::Io, text),
    })
}
