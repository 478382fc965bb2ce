//! What is sent, and what must come back.

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use crate::error::{Error, ErrorKind, Result};

/// A class of requests: what each says, and what must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name of the class in the outcome.
    pub name: String,
    /// The method; not `CONNECT`.
    pub method: Method,
    /// Path and query; begins with `/`.
    pub path: String,
    /// Headers besides `Host` (which may be given), and without those that the driver sets itself:
    /// `Content-Length`, `Transfer-Encoding`, `Connection`.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
    /// What must come back.
    pub expect: Expect,
}

/// What an answer must be; any other is a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The status; default 200. Any other is a [`status`](super::Failures::status) failure.
    pub status: u16,
    /// The exact body, if it matters. Any other is an [`answer`](super::Failures::answer) failure.
    pub body: Option<Vec<u8>>,
    /// The body's length in bytes, if it matters. Any other is an [`answer`](super::Failures::answer) failure.
    pub length: Option<u64>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { status: 200, body: None, length: None }
    }
}

impl Request {
    /// A GET, which wants a 200. The class has the path for its name.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self {
            name: path.to_owned(),
            method: Method::GET,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            expect: Expect::default(),
        }
    }

    /// A POST, which wants a 200. The class has the path for its name.
    #[must_use]
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: Method::POST, body: body.into(), ..Self::get(path) }
    }

    /// The bytes to send to `host`, the value of the `Host` header.
    pub(super) fn encode(&self, host: &str, is_last: bool) -> Result<Vec<u8>> {
        let line = format!("{} {} HTTP/1.1\r\n", self.checked_method()?, self.checked_path()?);
        let mut bytes = line.into_bytes();
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            push(&mut bytes, "Host", host.as_bytes());
        }
        for (name, value) in &self.headers {
            let value = self.checked_header(name, value)?;
            push(&mut bytes, name, value.as_bytes());
        }
        if self.has_length() {
            push(&mut bytes, "Content-Length", self.body.len().to_string().as_bytes());
        }
        if is_last {
            push(&mut bytes, "Connection", b"close");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    /// Whether a length is sent: with a body, and where none would be remarkable (RFC 9110, 8.6).
    fn has_length(&self) -> bool {
        !self.body.is_empty() || matches!(self.method, Method::POST | Method::PUT | Method::PATCH)
    }

    fn checked_method(&self) -> Result<&Method> {
        match self.method {
            Method::CONNECT => Err(self.fault("CONNECT asks for a tunnel: choose another method")),
            _ => Ok(&self.method),
        }
    }

    fn checked_path(&self) -> Result<&str> {
        let is_path = |path: PathAndQuery| path.as_str() == self.path;
        if self.path.starts_with('/') && PathAndQuery::try_from(&*self.path).is_ok_and(is_path) {
            return Ok(&self.path);
        }
        Err(self.fault(&format!(
            "the path {:?} must begin with / and be percent-encoded, without a fragment",
            self.path
        )))
    }

    fn checked_header(&self, name: &str, value: &str) -> Result<HeaderValue> {
        const OWN: [&str; 3] = ["content-length", "transfer-encoding", "connection"];
        let lower = HeaderName::try_from(name).map_err(|error| {
            self.fault(&format!("{name:?} cannot be the name of a header: {error}"))
        })?;
        if OWN.contains(&lower.as_str()) {
            return Err(self.fault(&format!("the driver sets {name} itself: leave it out")));
        }
        HeaderValue::try_from(value)
            .map_err(|error| self.fault(&format!("the header {name} cannot be {value:?}: {error}")))
    }

    fn fault(&self, what: &str) -> Error {
        Error::new(ErrorKind::Setting, format!("request {:?}: {what}", self.name))
    }
}

fn push(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(request: &Request, is_last: bool) -> String {
        String::from_utf8(request.encode("here:80", is_last).unwrap()).unwrap()
    }

    #[test]
    fn a_request_says_what_it_must_and_no_more() {
        let get = Request::get("/a?b=c");
        assert_eq!(text(&get, false), "GET /a?b=c HTTP/1.1\r\nHost: here:80\r\n\r\n");
        let mut post = Request::post("/", "body");
        post.headers = vec![("Host".into(), "there".into()), ("X-A".into(), "b".into())];
        let head = "POST / HTTP/1.1\r\nHost: there\r\nX-A: b\r\nContent-Length: 4\r\n";
        assert_eq!(text(&post, true), format!("{head}Connection: close\r\n\r\nbody"));
        assert!(text(&Request::post("/", ""), false).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn what_would_be_another_request_is_refused() {
        let get = Request::get("/");
        let header = |name: &str, value: &str| Request {
            headers: vec![(name.into(), value.into())],
            ..get.clone()
        };
        for request in [
            Request::get(""),
            Request::get("a"),
            Request::get("/a b"),
            Request::get("/a\r\nX: y"),
            Request::get("/a#b"),
            Request { method: Method::CONNECT, ..get.clone() },
            header("Content-Length", "5"),
            header("connection", "close"),
            header("a b", "c"),
            header("a", "b\r\nc: d"),
        ] {
            let error = request.encode("here", false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting, "{request:?}");
        }
    }
}
