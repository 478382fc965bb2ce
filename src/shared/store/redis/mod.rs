//! The store on a Redis server: for many machines.
//!
//! Every call becomes a command, checked and encoded on the caller's thread, and goes through a queue to
//! the store's one thread (`line`), which sends what waits together over its one connection. Each
//! subscription has a thread and a connection of its own (`listening`).
//!
//! Invariants: what is answered with `Ok` the server has answered; a call is sent at most once, never
//! again after a connection broke; while the server is away calls fail at once or by their deadline.

mod line;
mod listening;

use std::{collections::BTreeSet, fmt, sync::Arc, thread, time::Duration};

use ::redis::{Client, Cmd, IntoConnectionInfo as _, ProtocolVersion, Value, cmd};

use super::{Answer, Store, Subscription, answer::Promise, check, queue::Queue};
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
};
use line::{Job, Line};

/// Keys that the server looks at in one step of a scan; others have their turn between steps.
const SCAN_STEP: u32 = 1000;

/// Absent is not a value: each of the two has a flag in front of it.
const COMPARE_AND_SET: &str = "
local found = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
  if found ~= ARGV[2] then return 0 end
elseif found then
  return 0
end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
elseif ARGV[5] == '0' then
  redis.call('SET', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1";

/// A [`Store`] on a Redis server, for many processes on many machines (feature `redis`).
///
/// Keys and topics are Redis' own, so that other programs can share them: give them a prefix. A clone is the
/// same store, with one connection, which is there once it is needed, and again after the server was away.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    queue: Arc<Queue<Job>>,
}

impl RedisStore {
    /// The store on the server at this address: `redis://[user:password@]host[:port][/database]`, or
    /// `redis+unix:///path`. The server need not be there yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when that is no such address; [`ErrorKind::Io`] when the thread cannot be
    /// started.
    pub fn open(url: &str) -> Result<Self> {
        let client = client(url).map_err(|error| {
            // Without the address, which may hold a password.
            let text = format!(
                "the address of the Redis server cannot be used ({}); it is like redis://host:6379 or redis+unix:///path",
                error.category()
            );
            Error::new(ErrorKind::Setting, text)
        })?;
        let queue = Arc::new(Queue::new());
        let (line, jobs) = (Line::new(client.clone()), queue.clone());
        let thread = thread::Builder::new().name("bimodal-redis".into());
        let started = thread.spawn(move || line.run(&jobs));
        started.context(ErrorKind::Io, || "start the thread of a Redis store".into())?;
        Ok(Self { shared: Arc::new(Shared { client, queue }) })
    }

    /// Sends a command, and answers with what `read` makes of the reply.
    fn ask<T: Send + 'static>(&self, command: &Cmd, read: fn(Value) -> Option<T>) -> Answer<T> {
        let (promise, answer) = Answer::promised();
        let job = Job::new(command, promise.deadline(), move |reply| {
            let read = |reply| read(reply).ok_or_else(strange);
            promise.keep(reply.and_then(read));
            None
        });
        Answer::of(self.push(job).map(|()| answer))
    }

    fn push(&self, job: Job) -> Result<()> {
        let bytes = job.bytes();
        self.shared.queue.push(job, bytes)
    }
}

fn client(url: &str) -> ::redis::RedisResult<Client> {
    let info = url.into_connection_info()?;
    // The older protocol, whatever the address says: replies are read as it has them.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(5));
    let tcp = info.tcp_settings().clone().set_nodelay(true).set_keepalive(keepalive);
    Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.shared.client.get_connection_info().addr().to_string();
        f.debug_struct("RedisStore").field("address", &address).finish_non_exhaustive()
    }
}

impl Store for RedisStore {
    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        let get = |()| self.ask(cmd("GET").arg(key), optional);
        Answer::of(check::key(key).map(get))
    }

    fn set(&self, key: &[u8], value: &[u8], life: Option<Duration>) -> Answer<()> {
        let set = |()| {
            let mut command = cmd("SET");
            command.arg(key).arg(value);
            if let Some(life) = life {
                command.arg("PX").arg(milliseconds(life));
            }
            self.ask(&command, |_| Some(()))
        };
        Answer::of(check::set(key, value, life).map(set))
    }

    fn delete(&self, key: &[u8]) -> Answer<bool> {
        Answer::of(check::key(key).map(|()| self.ask(cmd("DEL").arg(key), flag)))
    }

    fn add(&self, key: &[u8], amount: i64) -> Answer<i64> {
        Answer::of(check::key(key).map(|()| self.ask(cmd("INCRBY").arg(key).arg(amount), number)))
    }

    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        life: Option<Duration>,
    ) -> Answer<bool> {
        let compare = |()| {
            let mut command = cmd("EVAL");
            command.arg(COMPARE_AND_SET).arg(1).arg(key);
            for value in [expected, value] {
                command.arg(u8::from(value.is_some())).arg(value.unwrap_or_default());
            }
            self.ask(command.arg(life.map_or(0, milliseconds)), flag)
        };
        Answer::of(check::compare_and_set(key, expected, value, life).map(compare))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Answer<Vec<Vec<u8>>> {
        let scan = |()| {
            let (promise, answer) = Answer::promised();
            let scan = Scan { prefix: prefix.into(), limit, found: BTreeSet::new(), promise };
            self.push(scan.step(b"0")).map(|()| answer)
        };
        Answer::of(check::scan(prefix, limit).and_then(scan))
    }

    fn publish(&self, topic: &[u8], value: &[u8]) -> Answer<()> {
        let publish = |()| self.ask(cmd("PUBLISH").arg(topic).arg(value), |_| Some(()));
        Answer::of(check::publish(topic, value).map(publish))
    }

    fn subscribe(&self, topic: &[u8]) -> Answer<Subscription> {
        let subscribe = |()| listening::subscribe(self.shared.client.clone(), topic);
        Answer::of(check::topic(topic).and_then(subscribe))
    }
}

/// A scan on its way through the keys of the server.
struct Scan {
    prefix: Vec<u8>,
    limit: usize,
    found: BTreeSet<Vec<u8>>,
    promise: Promise<Vec<Vec<u8>>>,
}

impl Scan {
    /// The next step, from where the server says.
    fn step(self, cursor: &[u8]) -> Job {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern(&self.prefix));
        command.arg("COUNT").arg(SCAN_STEP);
        let deadline = self.promise.deadline();
        Job::new(&command, deadline, move |reply| self.take(reply))
    }

    fn take(mut self, reply: Result<Value>) -> Option<Job> {
        let cursor = match reply.and_then(|reply| self.collect(reply).ok_or_else(strange)) {
            Ok(cursor) => cursor,
            Err(error) => {
                self.promise.keep(Err(error));
                return None;
            }
        };
        if cursor == b"0" {
            self.promise.keep(Ok(self.found.into_iter().collect()));
            return None;
        }
        (!self.promise.is_overdue(clock::now())).then(|| self.step(&cursor))
    }

    /// Keeps the first keys of all that come, and says where to go on.
    fn collect(&mut self, reply: Value) -> Option<Vec<u8>> {
        let Value::Array(parts) = reply else { return None };
        let [cursor, Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
        for key in keys {
            let key = bytes(key)?;
            if key.starts_with(&self.prefix) {
                self.found.insert(key);
            }
        }
        while self.found.len() > self.limit {
            self.found.pop_last();
        }
        bytes(cursor)
    }
}

/// The pattern of all that begins with a prefix.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

/// Rounded up: an entry never lives shorter than it was given.
fn milliseconds(life: Duration) -> u64 {
    u64::try_from(life.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn bytes(reply: Value) -> Option<Vec<u8>> {
    match reply {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

fn optional(reply: Value) -> Option<Option<Vec<u8>>> {
    match reply {
        Value::Nil => Some(None),
        reply => bytes(reply).map(Some),
    }
}

fn number(reply: Value) -> Option<i64> {
    match reply {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

fn flag(reply: Value) -> Option<bool> {
    number(reply).map(|number| number == 1)
}

fn strange() -> Error {
    let text = "the Redis server answered something else than its protocol has for this command";
    Error::new(ErrorKind::Protocol, text)
}
