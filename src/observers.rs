//! Who wants to see the events of one worker.
//!
//! They run on whichever thread of the program takes the event. No lock is held meanwhile, so an
//! observer may add another one, which sees the next event.

use parking_lot::Mutex;

use crate::events::Event;

/// Called with every event of one worker.
pub(crate) type Observer = Box<dyn FnMut(&Event) + Send>;

/// The observers of one worker, in the order in which they came.
#[derive(Default)]
pub(crate) struct Observers {
    list: Mutex<Vec<Observer>>,
}

impl Observers {
    pub(crate) fn add(&self, observer: Observer) {
        self.list.lock().push(observer);
    }

    pub(crate) fn show(&self, event: &Event) {
        let list = std::mem::take(&mut *self.list.lock());
        if list.is_empty() {
            return;
        }
        let mut at_work = AtWork { observers: self, list };
        at_work.list.iter_mut().for_each(|observer| observer(event));
    }

    /// Shows the last event, and lets all observers go.
    pub(crate) fn show_last(&self, event: &Event) {
        self.show(event);
        drop(std::mem::take(&mut *self.list.lock()));
    }
}

/// Observers at work; they go back to their place, also when one panics.
struct AtWork<'a> {
    observers: &'a Observers,
    list: Vec<Observer>,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut place = self.observers.list.lock();
        let added = std::mem::replace(&mut *place, std::mem::take(&mut self.list));
        place.extend(added);
    }
}
