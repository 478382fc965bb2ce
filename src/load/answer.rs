//! Reads answers from the bytes of a connection, piece by piece, and checks them. Pure.
//!
//! A head is parsed when all of it is there, so the caller keeps the bytes of one that is not; of a body nothing is kept,
//! unless it is looked into.

use std::mem::MaybeUninit;

use http::Method;
use httparse::{ParserConfig, Response, Status};

use super::request::Expect;

/// A head that is longer is malformed; also a line of a chunked body.
const MAX_HEAD: usize = 16 << 10;

/// A head with more headers is malformed.
const MAX_HEADERS: usize = 64;

/// A body that is longer is not looked into.
const MAX_KEPT: usize = 64 << 10;

/// The bytes are no answer, and nothing that follows on this connection can be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a piece of an answer amounted to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes were taken; the answer goes on.
    Some(usize),
    /// So many bytes were taken, and the answer is complete.
    All(usize),
    /// Nothing was taken: what is there makes no sense without what follows.
    More,
}

/// What a complete answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    WrongStatus,
    WrongBody,
}

/// What the request was.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) expect: &'a Expect,
    /// Whether the body is looked into afterwards.
    pub(super) keep: bool,
}

/// Where the next byte belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    /// In a body, of which this much is left.
    Body(u64),
    /// In a body that ends with the connection.
    Rest,
    ChunkSize,
    /// In a chunk, of which this much is left.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    End,
}

/// An answer that is being read.
pub(super) struct Answer {
    at: At,
    status: u16,
    /// The server closes the connection after it.
    is_last: bool,
    /// Bytes of the body so far.
    received: u64,
    /// The body is not the expected one.
    differs: bool,
    kept: Vec<u8>,
}

impl Answer {
    pub(super) fn new() -> Self {
        Self {
            at: At::Head,
            status: 0,
            is_last: false,
            received: 0,
            differs: false,
            kept: Vec::new(),
        }
    }

    /// Forgets what was read: another answer begins.
    pub(super) fn clear(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Self { kept, ..Self::new() };
    }

    /// Whether the server closes the connection after this answer.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// The body, if it was to be kept and is not too long.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Takes from the front of `bytes` what belongs to this answer.
    pub(super) fn read(&mut self, bytes: &[u8], asked: Asked<'_>) -> Result<Read, Malformed> {
        let mut used = 0;
        while self.at != At::End {
            match self.step(&bytes[used..], asked)? {
                Some(step) => used += step,
                None if used > 0 => return Ok(Read::Some(used)),
                None => return Ok(Read::More),
            }
        }
        Ok(Read::All(used))
    }

    /// The stream has ended: whether that completes the answer.
    pub(super) fn is_complete_at_end(&self) -> bool {
        self.at == At::Rest
    }

    /// What the complete answer was.
    pub(super) fn verdict(&self, expect: &Expect) -> Verdict {
        let length = expect.body.as_ref().map(|body| body.len() as u64);
        let is_off = |length: Option<u64>| length.is_some_and(|length| length != self.received);
        if self.status != expect.status {
            Verdict::WrongStatus
        } else if self.differs || is_off(length) || is_off(expect.length) {
            Verdict::WrongBody
        } else {
            Verdict::Right
        }
    }

    /// One step on; `None` when that needs more bytes.
    fn step(&mut self, bytes: &[u8], asked: Asked<'_>) -> Result<Option<usize>, Malformed> {
        match self.at {
            At::Head => self.head(bytes, asked.method),
            At::Body(left) => Ok(self.body(bytes, left, asked, |left| match left {
                0 => At::End,
                left => At::Body(left),
            })),
            At::Chunk(left) => Ok(self.body(bytes, left, asked, |left| match left {
                0 => At::ChunkEnd,
                left => At::Chunk(left),
            })),
            At::Rest => Ok(self.body(bytes, u64::MAX, asked, |_| At::Rest)),
            At::ChunkSize => self.chunk_size(bytes),
            At::ChunkEnd => self.chunk_end(bytes),
            At::Trailers => self.trailer(bytes),
            At::End => Ok(None),
        }
    }

    fn head(&mut self, bytes: &[u8], method: &Method) -> Result<Option<usize>, Malformed> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut headers,
        );
        match parsed {
            Ok(Status::Complete(end)) => {
                self.begin(&response, method)?;
                Ok(Some(end))
            }
            Ok(Status::Partial) => more(bytes),
            Err(_) => Err(Malformed),
        }
    }

    fn begin(&mut self, response: &Response<'_, '_>, method: &Method) -> Result<(), Malformed> {
        let status = response.code.ok_or(Malformed)?;
        match status {
            101 => return Err(Malformed), // nobody asked for another protocol
            100..200 => return Ok(()),    // the answer proper follows
            _ => self.status = status,
        }
        let framing = Framing::of(response)?;
        let has_body = *method != Method::HEAD && !matches!(status, 204 | 304);
        self.at = match framing {
            _ if !has_body => At::End,
            Framing { is_chunked: true, .. } => At::ChunkSize,
            Framing { length: Some(0), .. } => At::End,
            Framing { length: Some(length), .. } => At::Body(length),
            Framing { length: None, .. } => At::Rest,
        };
        self.is_last = !framing.is_kept || self.at == At::Rest;
        Ok(())
    }

    fn body(
        &mut self,
        bytes: &[u8],
        left: u64,
        asked: Asked<'_>,
        next: impl FnOnce(u64) -> At,
    ) -> Option<usize> {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if taken == 0 {
            return None;
        }
        self.look_at(&bytes[..taken], asked);
        self.at = next(left - taken as u64);
        Some(taken)
    }

    /// Compares a piece of the body with what is expected there, and keeps it if somebody wants it.
    fn look_at(&mut self, piece: &[u8], asked: Asked<'_>) {
        if let Some(body) = &asked.expect.body {
            let from = usize::try_from(self.received).unwrap_or(usize::MAX);
            self.differs |= body.get(from..).is_none_or(|rest| !rest.starts_with(piece));
        }
        self.received = self.received.saturating_add(piece.len() as u64);
        if asked.keep && self.received <= MAX_KEPT as u64 {
            self.kept.extend_from_slice(piece);
        } else {
            self.kept.clear();
        }
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        match httparse::parse_chunk_size(bytes) {
            Ok(Status::Complete((end, size))) => {
                self.at = if size == 0 { At::Trailers } else { At::Chunk(size) };
                Ok(Some(end))
            }
            Ok(Status::Partial) => more(bytes),
            Err(_) => Err(Malformed),
        }
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.at = At::ChunkSize;
                Ok(Some(2))
            }
            [] | [b'\r'] => Ok(None),
            _ => Err(Malformed),
        }
    }

    fn trailer(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(end) = memchr::memchr(b'\n', bytes) else { return more(bytes) };
        if matches!(&bytes[..end], [] | [b'\r']) {
            self.at = At::End;
        }
        Ok(Some(end + 1))
    }
}

/// More is needed than these bytes, which must not be too many already.
fn more(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    if bytes.len() < MAX_HEAD { Ok(None) } else { Err(Malformed) }
}

/// Where a body ends, by its head (RFC 9112, 6.3). What contradicts itself is malformed.
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
    is_kept: bool,
}

impl Framing {
    fn of(response: &Response<'_, '_>) -> Result<Self, Malformed> {
        let is_kept = response.version == Some(1);
        let mut framing = Self { length: None, is_chunked: false, is_kept };
        for header in response.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                framing.set_length(header.value)?;
            } else if is("transfer-encoding") {
                framing.is_chunked =
                    is_word(header.value, b"chunked").then_some(true).ok_or(Malformed)?;
            } else if is("connection") {
                framing.connection(header.value);
            }
        }
        if framing.is_chunked && framing.length.is_some() { Err(Malformed) } else { Ok(framing) }
    }

    fn set_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| is_number).ok_or(Malformed)?;
        let length = text.parse().map_err(|_| Malformed)?;
        let is_same = self.length.is_none_or(|other| other == length);
        self.length = Some(length);
        if is_same { Ok(()) } else { Err(Malformed) }
    }

    fn connection(&mut self, value: &[u8]) {
        for word in value.split(|byte| *byte == b',') {
            if is_word(word, b"close") {
                self.is_kept = false;
            } else if is_word(word, b"keep-alive") {
                self.is_kept = true;
            }
        }
    }
}

fn is_word(text: &[u8], word: &[u8]) -> bool {
    text.trim_ascii().eq_ignore_ascii_case(word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
