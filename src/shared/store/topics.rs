//! Who in this process subscribes to which topic.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;

use super::subscription::{Feed, Subscription};

/// The topics of one store, with the queues of their subscribers.
#[derive(Default)]
pub(super) struct Topics {
    by_name: Mutex<HashMap<Vec<u8>, Vec<Arc<Feed>>>>,
}

/// A place among a topic's subscribers, until it is dropped.
pub(super) struct Membership {
    topics: Arc<Topics>,
    topic: Vec<u8>,
    feed: Arc<Feed>,
}

impl Topics {
    pub(super) fn subscribe(self: &Arc<Self>, topic: &[u8]) -> Subscription {
        let (feed, membership) = self.join(topic);
        Subscription::new(feed, membership)
    }

    pub(super) fn join(self: &Arc<Self>, topic: &[u8]) -> (Arc<Feed>, Membership) {
        let feed = Arc::new(Feed::default());
        self.by_name.lock().entry(topic.into()).or_default().push(feed.clone());
        let membership =
            Membership { topics: self.clone(), topic: topic.into(), feed: feed.clone() };
        (feed, membership)
    }

    /// Gives a value to all who subscribe; so many before it were lost.
    pub(super) fn deliver(&self, topic: &[u8], value: &[u8], lost: u64) {
        let feeds = self.by_name.lock().get(topic).cloned().unwrap_or_default();
        feeds.iter().for_each(|feed| feed.push(value.into(), lost));
    }

    /// Ends all subscriptions, behind what waits for them.
    #[cfg(feature = "store-lmdb")]
    pub(super) fn close(&self) {
        let by_name = self.by_name.lock();
        let feeds: Vec<_> = by_name.values().flatten().cloned().collect();
        drop(by_name);
        feeds.iter().for_each(|feed| feed.close());
    }

    /// Whether anybody subscribes to the topic.
    #[cfg(feature = "store-lmdb")]
    pub(super) fn has(&self, topic: &[u8]) -> bool {
        self.by_name.lock().contains_key(topic)
    }

    /// Whether nobody subscribes to anything.
    #[cfg(feature = "store-lmdb")]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.lock().is_empty()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut by_name = self.topics.by_name.lock();
        let Some(feeds) = by_name.get_mut(&self.topic) else { return };
        feeds.retain(|feed| !Arc::ptr_eq(feed, &self.feed));
        if feeds.is_empty() {
            by_name.remove(&self.topic);
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("topics", &self.by_name.lock().len()).finish()
    }
}
