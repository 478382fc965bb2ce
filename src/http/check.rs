//! What hyper leaves to its caller before a request may be served. Pure.
//!
//! hyper has refused already: bad request lines and header lines, versions other than 1.x, lengths
//! that are no number or contradict each other, `Transfer-Encoding` in HTTP/1.0 or without `chunked`
//! at its end.

use http::{HeaderMap, Request, StatusCode, Version, header::TRANSFER_ENCODING};
use http_body::Body;

use super::{
    exchange::{Exchange, Framing},
    framing::Chunks,
    host::Host,
};

/// How the request's body is delimited, or the answer that refuses the request.
pub(super) fn framing<B: Body>(
    request: &Request<B>,
    exchange: &Exchange,
) -> Result<Framing, StatusCode> {
    let head = exchange.take_head();
    check_host(request.version(), head.host)?;
    // Only a chunked body has no exact length, and looking a header up costs more than this.
    let length = request.body().size_hint().exact();
    if length.is_none() && request.headers().contains_key(TRANSFER_ENCODING) {
        if head.content_length {
            // Two ends for one body: whoever forwarded this may have used the other.
            return Err(StatusCode::BAD_REQUEST);
        }
        check_codings(request.headers())?;
        return Ok(Framing::Chunked(Chunks::START));
    }
    let length = length.unwrap_or(0);
    match exchange.limits().max_body_bytes {
        Some(max) if length > max => Err(StatusCode::PAYLOAD_TOO_LARGE),
        _ => Ok(Framing::Length(length)),
    }
}

/// `chunked`, once, is the only coding served; hyper has seen that it is the last one.
fn check_codings(headers: &HeaderMap) -> Result<(), StatusCode> {
    let mut chunked = 0;
    for line in headers.get_all(TRANSFER_ENCODING) {
        for coding in line.as_bytes().split(|&byte| byte == b',') {
            match coding.trim_ascii() {
                b"" => {}
                coding if coding.eq_ignore_ascii_case(b"chunked") => chunked += 1,
                _ => return Err(StatusCode::NOT_IMPLEMENTED),
            }
        }
    }
    if chunked == 1 { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
}

/// RFC 9112 3.2: one valid `Host`; only HTTP/1.0 may lack it.
fn check_host(version: Version, host: Host) -> Result<(), StatusCode> {
    match host {
        Host::Valid => Ok(()),
        Host::Absent if version == Version::HTTP_10 => Ok(()),
        Host::Absent | Host::Refused => Err(StatusCode::BAD_REQUEST),
    }
}
