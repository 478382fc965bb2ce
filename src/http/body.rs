//! The bodies of a request and of its answer.
//!
//! [`Incoming`] may be read on any thread and carries what the answer must know about it in one
//! atomic. `Reply` stays on the loop and tells the exchange when it ended.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::exchange::Exchange;
use crate::{Error, ErrorKind};

/// What became of a request's body, for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    TooLarge,
    Broken,
}

/// A request's body, as it arrives.
///
/// It ends with an error when it is longer than the server's limit
/// ([`ErrorKind::TooLarge`]), is malformed ([`ErrorKind::Protocol`]), or its connection ends first
/// ([`ErrorKind::Closed`]). Nothing is read from the connection until the body is.
pub struct Incoming {
    inner: hyper::body::Incoming,
    /// How much more may come; only an unannounced length can exceed it.
    left: u64,
    verdict: Option<Arc<AtomicU8>>,
}

impl Incoming {
    pub(super) fn new(inner: hyper::body::Incoming, max: Option<u64>) -> Self {
        let unannounced = inner.size_hint().exact().is_none();
        let verdict = unannounced.then(Arc::default);
        Self { inner, left: max.unwrap_or(u64::MAX), verdict }
    }

    /// Where to look for the verdict later; none for a body that cannot fail the request.
    pub(super) fn verdict(&self) -> Option<Arc<AtomicU8>> {
        self.verdict.clone()
    }

    fn fail(&self, verdict: Verdict, error: Error) -> Error {
        if let Some(shared) = &self.verdict {
            shared.store(verdict as u8, Ordering::Release);
        }
        error
    }

    fn broken(&self, cause: hyper::Error) -> Error {
        let kind = if is_cut_short(&cause) { ErrorKind::Closed } else { ErrorKind::Protocol };
        self.fail(Verdict::Broken, Error::caused(kind, "the request's body cannot be read", cause))
    }
}

/// What a shared verdict says now.
pub(super) fn read_verdict(shared: Option<&Arc<AtomicU8>>) -> Verdict {
    match shared.map_or(0, |shared| shared.load(Ordering::Acquire)) {
        0 => Verdict::Fine,
        1 => Verdict::TooLarge,
        _ => Verdict::Broken,
    }
}

fn is_cut_short(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(cause)) => return Poll::Ready(Some(Err(self.broken(cause)))),
            Some(Ok(frame)) => frame,
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = self.left.checked_sub(length) else {
            let error = Error::new(
                ErrorKind::TooLarge,
                "the request's body is longer than http::Server::max_body_bytes",
            );
            return Poll::Ready(Some(Err(self.fail(Verdict::TooLarge, error))));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

pin_project! {
    /// An answer's body: the service's, or none.
    pub(super) struct Reply<B> {
        #[pin]
        body: Option<B>,
        ending: Ending,
    }
}

/// Tells the exchange, when dropped, that the answer's body has ended.
struct Ending(Rc<Exchange>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.answer_ends();
    }
}

impl<B> Reply<B> {
    pub(super) fn new(body: Option<B>, exchange: Rc<Exchange>) -> Self {
        Self { body, ending: Ending(exchange) }
    }
}

impl<B> Body for Reply<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else { return Poll::Ready(None) };
        match this.ending.0.limits().panic_policy.run(|| body.poll_frame(cx)) {
            Some(frame) => frame.map_err(Into::into),
            None => Poll::Ready(Some(Err("the answer's body panicked".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
