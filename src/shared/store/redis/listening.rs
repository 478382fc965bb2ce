//! A subscription: a thread and a connection that only receives.
//!
//! The thread ends with the subscription, a moment later: it looks now and then. A connection that breaks is
//! made again, as often as it takes; each time counts as one value missed, as nobody knows how many it were.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ::redis::{Client, Connection, RedisError};
use parking_lot::{Condvar, Mutex};

use super::{
    super::{Answer, Subscription, answer::Promise, subscription::Feed},
    line::{RETRY, connect},
};
use crate::{
    clock,
    error::{Context as _, Error, ErrorKind, Result},
};

/// How long a thread does not see that its subscription has ended.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn subscribe(client: Client, topic: &[u8]) -> Result<Answer<Subscription>> {
    let (promise, answer) = Answer::promised();
    let (feed, ended) = (Arc::new(Feed::default()), Arc::new(Ended::default()));
    let subscription = Subscription::new(feed.clone(), Membership(ended.clone()));
    let listener = Listener { client, topic: topic.into(), feed, ended };
    let thread = thread::Builder::new().name("bimodal-topic".into());
    let started = thread.spawn(move || listener.run(promise, subscription));
    started.context(ErrorKind::Io, || "start the thread of a subscription".into())?;
    Ok(answer)
}

/// Whether the subscription is no longer there.
#[derive(Default)]
struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

struct Membership(Arc<Ended>);

impl Drop for Membership {
    fn drop(&mut self) {
        *self.0.ended.lock() = true;
        self.0.changed.notify_all();
    }
}

struct Listener {
    client: Client,
    topic: Vec<u8>,
    feed: Arc<Feed>,
    ended: Arc<Ended>,
}

impl Listener {
    fn run(self, promise: Promise<Subscription>, subscription: Subscription) {
        let mut connection = match self.connect() {
            Ok(connection) => connection,
            Err(error) => {
                let text = format!("the Redis server cannot be subscribed at ({error})");
                return promise.keep(Err(Error::new(ErrorKind::Io, text)));
            }
        };
        promise.keep(Ok(subscription));
        loop {
            let lost = match self.receive(&mut connection) {
                Ok(()) => return,
                Err(error) => error,
            };
            log::warn!("a subscription has lost its Redis server and looks for it: {lost}");
            match self.connect_again() {
                Some(again) => connection = again,
                None => return,
            }
            self.feed.lose(1);
        }
    }

    /// A connection that has subscribed.
    fn connect(&self) -> Result<Connection, RedisError> {
        let mut connection = connect(&self.client)?;
        connection.send_packed_command(&self.command())?;
        connection.recv_response()?.extract_error()?;
        connection.set_read_timeout(Some(LOOK))?;
        Ok(connection)
    }

    fn command(&self) -> Vec<u8> {
        ::redis::cmd("SUBSCRIBE").arg(&self.topic).get_packed_command()
    }

    /// `None` once the subscription has ended.
    fn connect_again(&self) -> Option<Connection> {
        let mut pause = RETRY.0;
        loop {
            if let Ok(connection) = self.connect() {
                return Some(connection);
            }
            if self.ended.by(clock::now() + pause) {
                return None;
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Moves values into the queue until the subscription has ended.
    fn receive(&self, connection: &mut Connection) -> Result<(), RedisError> {
        let mut receiving = connection.as_pubsub();
        loop {
            match receiving.get_message() {
                Ok(message) => self.feed.push(message.get_payload_bytes().into(), 0),
                Err(error) if error.is_timeout() => {}
                Err(error) => return Err(error),
            }
            if self.ended.by(clock::now()) {
                return Ok(());
            }
        }
    }
}

impl Ended {
    /// Waits for the end, at most until then.
    fn by(&self, until: Instant) -> bool {
        let mut ended = self.ended.lock();
        while !*ended {
            if self.changed.wait_until(&mut ended, until).timed_out() {
                break;
            }
        }
        *ended
    }
}
