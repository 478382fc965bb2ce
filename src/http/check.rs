//! What hyper leaves to its caller before a request may be served. Pure.
//!
//! hyper has refused already: bad request lines and header lines, versions other than 1.x, lengths
//! that are no number or contradict each other, `Transfer-Encoding` in HTTP/1.0 or without `chunked`
//! at its end.

use http::{
    HeaderMap, Request, StatusCode, Version,
    header::{HOST, TRANSFER_ENCODING},
};
use http_body::Body;

use super::{
    exchange::{Exchange, Framing},
    framing::Chunks,
};

/// How the request's body is delimited, or the answer that refuses the request.
pub(super) fn framing<B: Body>(
    request: &Request<B>,
    exchange: &Exchange,
) -> Result<Framing, StatusCode> {
    check_host(request.version(), request.headers())?;
    // Only a chunked body has no exact length, and looking a header up costs more than this.
    let length = request.body().size_hint().exact();
    if length.is_none() && request.headers().contains_key(TRANSFER_ENCODING) {
        if exchange.has_content_length() {
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
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), StatusCode> {
    let valid = match headers.get(HOST) {
        Some(host) => is_host(host.as_bytes()) && !repeats_host(headers),
        None => version == Version::HTTP_10,
    };
    if valid { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
}

fn repeats_host(headers: &HeaderMap) -> bool {
    // Most heads repeat nothing, which the two lengths tell without a look-up.
    headers.len() != headers.keys_len() && headers.get_all(HOST).iter().count() > 1
}

/// `uri-host [ ":" port ]`. An empty one is valid: the target has no authority then.
fn is_host(host: &[u8]) -> bool {
    if let Some(literal) = host.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
        return end > 0 && literal[..end].iter().all(is_literal) && is_port(&literal[end + 1..]);
    }
    let end = host.iter().position(|&byte| byte == b':').unwrap_or(host.len());
    is_name(&host[..end]) && is_port(&host[end..])
}

fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_literal(byte: &u8) -> bool {
    *byte == b':' || is_name_byte(*byte)
}

fn is_name(name: &[u8]) -> bool {
    name.iter().all(|&byte| is_name_byte(byte)) || is_escaped_name(name)
}

fn is_escaped_name(mut name: &[u8]) -> bool {
    while let Some((&byte, rest)) = name.split_first() {
        name = match (byte, rest) {
            (b'%', [a, b, rest @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            _ if is_name_byte(byte) => rest,
            _ => return false,
        };
    }
    true
}

/// `unreserved / sub-delims` of RFC 3986.
fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[usize::from(byte)]
}

static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9')
            || matches!(byte as u8, b'-' | b'.' | b'_' | b'~')
            || matches!(byte as u8, b'!' | b'$' | b'&' | b'\''..=b',' | b';' | b'=');
        byte += 1;
    }
    table
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["", "a", "a:", "a:80", "127.0.0.1:3000", "[::1]", "[::1]:80", "x_y~%20.z"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["a b", "a:b", "a/b", "u@a", "[::1", "[]", "[::1]x", "a%2", "a:80:90", "a\u{e9}"]
        {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
