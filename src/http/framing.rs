//! Where a request's bytes end. Pure: no I/O, no clock.
//!
//! hyper parses and validates; this finds the ends, so that no byte after a request reaches
//! hyper before that request was answered. It decides nothing: bytes it does not understand are
//! left for hyper to refuse. What a head has to say of its framing and its host is noted on the way.

use memchr::memchr_iter;

use super::host::Host;

/// What a head says of its request's end and target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// It has a `Content-Length` line.
    pub(super) content_length: bool,
    pub(super) host: Host,
}

/// Finds the end of a request's head.
#[derive(Default)]
pub(super) struct HeadScan {
    /// Where the current line starts, and how far newlines were looked for.
    line: usize,
    seen: usize,
    started: bool,
    begun: bool,
    head: Head,
}

impl HeadScan {
    /// The length of the head at the front of `buf`, empty line included, once it is complete.
    /// Until then, call again with the same bytes and more behind them.
    pub(super) fn end(&mut self, buf: &[u8]) -> Option<usize> {
        let new = self.seen;
        self.seen = buf.len();
        for newline in memchr_iter(b'\n', &buf[new..]) {
            let line = &buf[self.line..new + newline];
            self.line = new + newline + 1;
            let blank = matches!(line, [] | [b'\r']);
            if blank && self.started {
                return Some(self.line);
            }
            if self.started {
                self.note(line);
            }
            // Empty lines before the request line belong to nothing (RFC 9112 2.2).
            self.started |= !blank;
        }
        self.begun = self.started || !matches!(&buf[self.line..], [] | [b'\r']);
        None
    }

    /// Whether anything but empty lines was seen by an `end` that found none.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// What the lines so far say.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    fn note(&mut self, line: &[u8]) {
        match line {
            [b'h' | b'H', b'o' | b'O', b's' | b'S', b't' | b'T', b':', value @ ..] => {
                self.head.host = self.head.host.and(value.trim_ascii());
            }
            [b'c' | b'C', ..] if is_content_length(line) => self.head.content_length = true,
            _ => {}
        }
    }
}

/// hyper refuses a space before the colon.
fn is_content_length(line: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME))
}

/// Follows a chunked body to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    Size(u64),
    /// The rest of a size line: extensions are skipped.
    SizeLine(u64),
    Data(u64),
    DataEnd,
    Trailer {
        blank: bool,
    },
    Done,
}

impl Chunks {
    pub(super) const START: Self = Self::Size(0);

    /// How many bytes at the front of `buf` still belong to the body.
    pub(super) fn take(&mut self, buf: &[u8]) -> usize {
        let mut at = 0;
        while at < buf.len() && *self != Self::Done {
            at += self.step(&buf[at..]);
        }
        at
    }

    /// Consumes at least one byte of `buf`, which has one.
    fn step(&mut self, buf: &[u8]) -> usize {
        let byte = buf[0];
        if let Self::Data(left) = *self {
            let n = left.min(buf.len() as u64);
            *self = if n == left { Self::DataEnd } else { Self::Data(left - n) };
            return n as usize;
        }
        *self = match (*self, byte) {
            (Self::Size(0) | Self::SizeLine(0), b'\n') => Self::Trailer { blank: true },
            (Self::Size(size) | Self::SizeLine(size), b'\n') => Self::Data(size),
            (Self::Size(size), _) => match char::from(byte).to_digit(16) {
                Some(digit) => Self::Size(size.saturating_mul(16).saturating_add(digit.into())),
                None => Self::SizeLine(size),
            },
            (Self::DataEnd, b'\n') => Self::START,
            (Self::Trailer { blank: true }, b'\n') => Self::Done,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { blank: true },
            (Self::Trailer { .. }, byte) if byte != b'\r' => Self::Trailer { blank: false },
            (same, _) => same,
        };
        1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn head_end(bytes: &[u8]) -> (Option<usize>, bool) {
        let mut scan = HeadScan::default();
        (scan.end(bytes), scan.head().content_length)
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_arrives() {
        let wire = b"\r\nPOST / HTTP/1.1\r\nhost: a\r\nContent-LENGTH: 4\r\n\r\nbody";
        let end = wire.len() - 4;
        assert_eq!(head_end(wire), (Some(end), true));
        let mut scan = HeadScan::default();
        for n in 1..end {
            assert_eq!(scan.end(&wire[..n]), None, "{n}");
            assert_eq!(scan.begun(), n > 2, "{n}");
        }
        assert_eq!(scan.end(wire), Some(end));
        assert!(scan.head().content_length);
    }

    #[test]
    fn bare_newlines_end_lines_too() {
        assert_eq!(head_end(b"GET / HTTP/1.1\nhost: a\n\nGET"), (Some(24), false));
        assert_eq!(head_end(b"\r\n\r\n\r\n"), (None, false));
    }

    #[test]
    fn a_chunked_body_ends_after_its_trailers() {
        let wire = b"5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\na: b\r\n\r\nGET / HTTP/1.1\r\n";
        let body = wire.len() - 16;
        let mut chunks = Chunks::START;
        assert_eq!(chunks.take(wire), body);
        assert_eq!(chunks, Chunks::Done);
        for cut in 1..body {
            let mut chunks = Chunks::START;
            assert_eq!(chunks.take(&wire[..cut]), cut);
            assert_eq!(chunks.take(&wire[cut..]), body - cut, "{cut}");
        }
    }
}
