//! HTTP/1.1 on the event loop: hyper speaks the protocol, this module everything around it.
//!
//! Runs on the thread of the loop it is started on and knows neither workers nor modes.
//! It adds to hyper: the socket, timeouts and size limits with their answers, the request checks that
//! hyper leaves to its caller, a bound on connections, the graceful drain, and a close that does not
//! reset the last answer. Invariants:
//!
//! * A request is answered before a byte of the next one reaches hyper.
//! * After an error that leaves the end of a request uncertain the connection closes.
//! * A connection's place is counted before its task starts and until its task is dropped.
//! * A short answer (4 KiB) waits while other tasks of the turn are to run, for at most 15 others, and then they are sent one
//!   after the other, which costs less. So a handler that computes long holds up, of those answered in its turn, also
//!   some that came before it, and one that ends its process takes them along.
//!
//! A service is any [`hyper::service::Service`] of requests, for which there are two adapters:
//! [`service_fn`] for an async closure and [`tower`] for a tower service such as an axum `Router`.
//! Its futures need not be `Send`.
//!
//! HTTP clients speak first, so a server of many short connections may listen with
//! [`defer_accept`](crate::ListenOptions::defer_accept).

mod answer;
mod body;
mod check;
mod exchange;
mod framing;
mod host;
mod hub;
mod io;
mod limits;
mod outbox;
mod serve;
mod service;
mod session;

pub use body::Incoming;
pub use bytes::Bytes;
pub use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
pub use http_body::Body;
pub use http_body_util::{BodyExt, Empty, Full};
pub use hyper::service::Service;
pub use limits::PanicPolicy;
pub use serve::{Server, serve};
pub use service::{IntoReply, ServiceFn, ServiceFnFuture, Tower, TowerFuture, service_fn, tower};

// Constants, so that the texts are checked when this is compiled and not per answer.
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// 200 with a plain text.
pub fn text(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(StatusCode::OK, PLAIN_TEXT, text.into())
}

/// 200 with a JSON document, which is not checked.
pub fn json(json: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(StatusCode::OK, JSON, json.into())
}

/// An answer with this status and a plain text that says why.
pub fn status(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, PLAIN_TEXT, text.into())
}

fn reply(status: StatusCode, kind: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}
