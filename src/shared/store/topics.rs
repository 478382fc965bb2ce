//! Who in this process subscribes to which topic.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::subscription::{Feed, Subscription};

type ByName = HashMap<Vec<u8>, Vec<Arc<Feed>>>;

/// The topics of one store, with the queues of their subscribers.
#[derive(Default)]
pub(super) struct Topics {
    by_name: Mutex<ByName>,
    /// Called when the last subscriber of a topic has left, before another can come.
    deserted: Option<Box<dyn Fn(&[u8]) + Send + Sync>>,
}

/// Ends with its subscription.
struct Membership {
    topics: Arc<Topics>,
    topic: Vec<u8>,
    feed: Arc<Feed>,
}

impl Topics {
    pub(super) fn subscribe(self: &Arc<Self>, topic: &[u8]) -> Subscription {
        let feed = Arc::new(Feed::default());
        self.by_name.lock().entry(topic.into()).or_default().push(feed.clone());
        let (topics, topic) = (self.clone(), topic.into());
        Subscription::new(feed.clone(), Membership { topics, topic, feed })
    }

    /// Gives a value to all who subscribe; so many before it were lost.
    pub(super) fn deliver(&self, topic: &[u8], value: &[u8], lost: u64) {
        let feeds = self.by_name.lock().get(topic).cloned().unwrap_or_default();
        feeds.iter().for_each(|feed| feed.push(value.into(), lost));
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut by_name = self.topics.by_name.lock();
        let Some(feeds) = by_name.get_mut(&self.topic) else { return };
        feeds.retain(|feed| !Arc::ptr_eq(feed, &self.feed));
        if feeds.is_empty() {
            by_name.remove(&self.topic);
            if let Some(deserted) = &self.topics.deserted {
                deserted(&self.topic);
            }
        }
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("topics", &self.by_name.lock().len()).finish()
    }
}
