//! The shapes a service may have.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;

use super::Incoming;

/// What a [`service_fn`] closure may return: an answer, or a result with one.
pub trait IntoReply {
    /// The answer's body.
    type Body: Body;
    /// Why there is no answer.
    type Error;

    /// The answer, or why there is none.
    ///
    /// # Errors
    ///
    /// When the closure returned an `Err`.
    fn into_reply(self) -> Result<Response<Self::Body>, Self::Error>;
}

impl<B: Body> IntoReply for Response<B> {
    type Body = B;
    type Error = std::convert::Infallible;

    fn into_reply(self) -> Result<Response<B>, Self::Error> {
        Ok(self)
    }
}

impl<B: Body, E> IntoReply for Result<Response<B>, E> {
    type Body = B;
    type Error = E;

    fn into_reply(self) -> Result<Response<B>, E> {
        self
    }
}

/// A service from an async closure, called once per request, that returns a `Response` or a
/// `Result` with one.
///
/// ```
/// use bimodal::http;
///
/// let hello = http::service_fn(|_request| async { http::text("hello\n") });
/// ```
pub fn service_fn<F, Fut>(call: F) -> ServiceFn<F>
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future,
    Fut::Output: IntoReply,
{
    ServiceFn { call }
}

/// The service that [`service_fn`] makes.
#[derive(Clone, Copy)]
pub struct ServiceFn<F> {
    call: F,
}

impl<F> fmt::Debug for ServiceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceFn")
    }
}

impl<F, Fut> hyper::service::Service<Request<Incoming>> for ServiceFn<F>
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future,
    Fut::Output: IntoReply,
{
    type Response = Response<<Fut::Output as IntoReply>::Body>;
    type Error = <Fut::Output as IntoReply>::Error;
    type Future = ServiceFnFuture<Fut>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        ServiceFnFuture { answer: (self.call)(request) }
    }
}

pin_project! {
    /// The future of a [`ServiceFn`].
    pub struct ServiceFnFuture<Fut> {
        #[pin]
        answer: Fut,
    }
}

impl<Fut> fmt::Debug for ServiceFnFuture<Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceFnFuture")
    }
}

impl<Fut> Future for ServiceFnFuture<Fut>
where
    Fut: Future,
    Fut::Output: IntoReply,
{
    type Output =
        Result<Response<<Fut::Output as IntoReply>::Body>, <Fut::Output as IntoReply>::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().answer.poll(cx).map(IntoReply::into_reply)
    }
}

/// A service from a `tower` one, such as an `axum::Router`. Each request gets a clone, which is
/// called once it is ready.
pub fn tower<S>(service: S) -> Tower<S>
where
    S: tower_service::Service<Request<Incoming>> + Clone,
{
    Tower { service }
}

/// The service that [`tower`] makes.
#[derive(Clone, Copy)]
pub struct Tower<S> {
    service: S,
}

impl<S> fmt::Debug for Tower<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tower")
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Tower<S>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = TowerFuture<S, S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        TowerFuture { waiting: Some((self.service.clone(), request)), called: None }
    }
}

pin_project! {
    /// The future of a [`Tower`] service.
    pub struct TowerFuture<S, Fut> {
        waiting: Option<(S, Request<Incoming>)>,
        #[pin]
        called: Option<Fut>,
    }
}

impl<S, Fut> fmt::Debug for TowerFuture<S, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TowerFuture")
    }
}

impl<S> Future for TowerFuture<S, S::Future>
where
    S: tower_service::Service<Request<Incoming>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some((service, _)) = this.waiting {
            ready!(service.poll_ready(cx))?;
        }
        if let Some((mut service, request)) = this.waiting.take() {
            this.called.set(Some(service.call(request)));
        }
        match this.called.as_mut().as_pin_mut() {
            Some(called) => called.poll(cx),
            // Polled again after an error of `poll_ready`.
            None => Poll::Pending,
        }
    }
}
