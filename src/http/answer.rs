//! Between hyper and the service: every request is checked before, and answered whatever happens.
//!
//! An answer that ends the connection says so (`connection: close`); those made here have no body.

use std::{
    convert::Infallible,
    error::Error as StdError,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::AtomicU8},
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use http_body::Body;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::{
    body::{Incoming, Reply, Verdict, read_verdict},
    check,
    exchange::{Exchange, Framing},
    limits::Limits,
};

/// One connection's view of the service.
pub(super) struct Guarded<S> {
    pub(super) service: Rc<S>,
    pub(super) exchange: Rc<Exchange>,
}

impl<S, B> Service<Request<hyper::body::Incoming>> for Guarded<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Reply<B>>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let exchange = Rc::clone(&self.exchange);
        match check::framing(&request, &exchange) {
            Ok(framing) => exchange.request_begins(framing),
            Err(refusal) => {
                exchange.request_begins(Framing::Refused);
                return Answer { call: None, refusal: Some(refusal), verdict: None, exchange };
            }
        }
        let Limits { max_body_bytes, panic_policy, .. } = *exchange.limits();
        let request = request.map(|body| Incoming::new(body, max_body_bytes));
        let verdict = request.body().verdict();
        let call = panic_policy.run(|| self.service.call(request));
        let refusal = call.is_none().then_some(StatusCode::INTERNAL_SERVER_ERROR);
        Answer { call, refusal, verdict, exchange }
    }
}

pin_project! {
    /// An answer on its way.
    pub(super) struct Answer<F> {
        #[pin]
        call: Option<F>,
        refusal: Option<StatusCode>,
        verdict: Option<Arc<AtomicU8>>,
        exchange: Rc<Exchange>,
    }
}

impl<F, B, E> Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The service's answer, or the status that stands for it.
    fn poll_call(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<B>, StatusCode>> {
        let this = self.project();
        if let Some(status) = *this.refusal {
            return Poll::Ready(Err(status));
        }
        if this.exchange.timed_out() {
            return Poll::Ready(Err(StatusCode::REQUEST_TIMEOUT));
        }
        let Some(call) = this.call.as_pin_mut() else { return Poll::Pending };
        let error = match this.exchange.limits().panic_policy.run(|| call.poll(cx)) {
            Some(Poll::Ready(Ok(answer))) => return Poll::Ready(Ok(answer)),
            Some(Poll::Ready(Err(error))) => Some(error),
            Some(Poll::Pending) => None,
            None => return Poll::Ready(Err(StatusCode::INTERNAL_SERVER_ERROR)),
        };
        match (read_verdict(this.verdict.as_ref()), error) {
            (Verdict::TooLarge, _) => Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE)),
            (Verdict::Broken, Some(_)) => Poll::Ready(Err(StatusCode::BAD_REQUEST)),
            (Verdict::Fine, Some(error)) => {
                log::error!("http: the service failed: {}", error.into());
                Poll::Ready(Err(StatusCode::INTERNAL_SERVER_ERROR))
            }
            (_, None) => Poll::Pending,
        }
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = Result<Response<Reply<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(answer) = self.as_mut().poll_call(cx) else { return Poll::Pending };
        let this = self.project();
        let body_failed = read_verdict(this.verdict.as_ref()) != Verdict::Fine;
        let close = answer.is_err() || body_failed || this.exchange.hub.is_draining();
        this.exchange.answer_begins();
        let mut answer = match answer {
            Ok(answer) => answer.map(|body| Reply::new(Some(body), Rc::clone(this.exchange))),
            Err(status) => bare(status, this.exchange),
        };
        if close {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}

fn bare<B>(status: StatusCode, exchange: &Rc<Exchange>) -> Response<Reply<B>> {
    let mut answer = Response::new(Reply::new(None, Rc::clone(exchange)));
    *answer.status_mut() = status;
    answer
}
