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
            Ok(framing) => {
                exchange.request_begins(framing);
                let max = exchange.limits().max_body_bytes;
                let request = request.map(|body| Incoming::new(body, max));
                let verdict = request.body().verdict();
                match guard(&exchange, || self.service.call(request)) {
                    Ok(call) => Answer { call: Some(call), refusal: None, verdict, exchange },
                    Err(refusal) => Answer::refuse(refusal, exchange),
                }
            }
            Err(refusal) => {
                exchange.request_begins(Framing::Refused);
                Answer::refuse(refusal, exchange)
            }
        }
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

impl<F> Answer<F> {
    fn refuse(status: StatusCode, exchange: Rc<Exchange>) -> Self {
        Self { call: None, refusal: Some(status), verdict: None, exchange }
    }
}

impl<F, B, E> Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The service's answer, or the status that stands for it.
    fn poll_call(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<B>, StatusCode>> {
        let mut this = self.as_mut().project();
        if let Some(status) = *this.refusal {
            return Poll::Ready(Err(status));
        }
        if this.exchange.timed_out() {
            return Poll::Ready(Err(StatusCode::REQUEST_TIMEOUT));
        }
        let Some(call) = this.call.as_mut().as_pin_mut() else { return Poll::Pending };
        let polled = match guard(this.exchange, || call.poll(cx)) {
            Ok(polled) => polled,
            Err(status) => return Poll::Ready(Err(status)),
        };
        match (polled, read_verdict(this.verdict.as_ref())) {
            (Poll::Ready(Ok(answer)), _) => Poll::Ready(Ok(answer)),
            (_, Verdict::TooLarge) => Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE)),
            (Poll::Ready(Err(_)), Verdict::Broken) => Poll::Ready(Err(StatusCode::BAD_REQUEST)),
            (Poll::Ready(Err(error)), Verdict::Fine) => {
                log::error!("http: the service failed: {}", error.into());
                Poll::Ready(Err(StatusCode::INTERNAL_SERVER_ERROR))
            }
            (Poll::Pending, _) => Poll::Pending,
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

/// Runs the service's code under the panic policy.
fn guard<T>(exchange: &Exchange, run: impl FnOnce() -> T) -> Result<T, StatusCode> {
    exchange.limits().panic_policy.run(run).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}
