//! Flushes the outlets of ends that live on no event loop: those of ports.
//!
//! A port may be on any thread, and may be dropped, while the kernel has not taken all that was sent
//! through it. Then its outlet comes here, to a thread that lives as long as there is something to
//! carry. What it carries is bounded by what each port may have under way.

use std::{
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    task::{Context, Poll},
};

use mio::Interest;
use parking_lot::Mutex;

use super::{Outlet, flusher::Flusher};
use crate::event_loop::{EventLoop, Mailbox, Postbox, Source, mailbox};

/// An outlet and its end, kept open until all has left.
type Load = (Outlet, Arc<OwnedFd>);

/// The way to the thread, while there is one.
static COURIER: Mutex<Option<Postbox<Load>>> = Mutex::new(None);

/// Carries what an outlet holds. What cannot be carried, for want of a thread, is lost, and receipts
/// say so.
pub(super) fn carry(outlet: Outlet, end: Arc<OwnedFd>) {
    let mut courier = COURIER.lock();
    let post = courier.get_or_insert_with(|| mailbox().0);
    let Err(load) = post.post((outlet, end)) else { return };
    let (post, loads) = mailbox();
    let outlet = load.0.clone();
    // Both ends are here.
    let _ = post.post(load);
    let thread = std::thread::Builder::new().name("bimodal-courier".into());
    match thread.spawn(move || work(loads)) {
        Ok(_) => *courier = Some(post),
        Err(error) => {
            log::error!("what was left in a port is lost, no thread can start: {error}");
            outlet.close();
        }
    }
}

fn work(loads: Mailbox<Load>) {
    let worked = EventLoop::new().and_then(|mut event_loop| {
        let mut carried = Vec::new();
        event_loop.block_on(poll_fn(|cx| poll(&loads, &mut carried, cx)))
    });
    if let Err(error) = worked {
        log::error!("what was left in ports is lost: {error}");
        std::iter::from_fn(|| loads.try_next()).for_each(|(outlet, _)| outlet.close());
    }
}

/// Ready when there is nothing left to carry; then no load is posted any more.
fn poll(loads: &Mailbox<Load>, carried: &mut Vec<Carried>, cx: &mut Context<'_>) -> Poll<()> {
    while let Poll::Ready(Some((outlet, end))) = loads.poll_next(cx) {
        match Carried::new(outlet, end) {
            Ok(load) => carried.push(load),
            Err(error) => log::error!("what was left in a port is lost: {error}"),
        }
    }
    carried.retain_mut(|load| !load.poll(cx));
    if !carried.is_empty() {
        return Poll::Pending;
    }
    let mut courier = COURIER.lock();
    if let Poll::Ready(Some(load)) = loads.poll_next(cx) {
        drop(courier);
        carried.extend(Carried::new(load.0, load.1).ok());
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    *courier = None;
    Poll::Ready(())
}

struct Carried {
    source: Source<Arc<OwnedFd>>,
    flusher: Flusher,
}

impl Carried {
    fn new(outlet: Outlet, end: Arc<OwnedFd>) -> io::Result<Self> {
        let source = Source::new(end, Interest::WRITABLE).inspect_err(|_| outlet.close())?;
        Ok(Self { source, flusher: Flusher::new(outlet) })
    }

    /// Whether nothing is left of it.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        match self.flusher.poll(&self.source, cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => self.flusher.outlet().unwatch(),
            Poll::Ready(Err(fault)) => {
                log::warn!("what was left in a port is lost: {fault}");
                self.flusher.outlet().close();
                true
            }
        }
    }
}
