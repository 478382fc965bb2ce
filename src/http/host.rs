//! What a head says of its host (RFC 9112 3.2). Pure.

/// The `Host` lines of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Host {
    #[default]
    Absent,
    /// One, with a valid value.
    Valid,
    /// One that is not valid, or more than one.
    Refused,
}

impl Host {
    /// With one more line of this value.
    pub(super) fn and(self, value: &[u8]) -> Self {
        if self == Self::Absent && is_host(value) { Self::Valid } else { Self::Refused }
    }
}

/// `uri-host [ ":" port ]`. An empty one is valid: the target has no authority then.
fn is_host(host: &[u8]) -> bool {
    if let Some(literal) = host.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
        return end > 0 && literal[..end].iter().all(is_literal) && is_port(&literal[end + 1..]);
    }
    let plain = host.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(host.len());
    let end = if host.get(plain) == Some(&b'%') { name_end(host) } else { Some(plain) };
    end.is_some_and(|end| is_port(&host[end..]))
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

/// Where a name with escapes in it ends; nothing if one of them is broken.
fn name_end(host: &[u8]) -> Option<usize> {
    let mut rest = host;
    loop {
        rest = match rest {
            [b'%', a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            [b'%', ..] => return None,
            [byte, rest @ ..] if is_name_byte(*byte) => rest,
            _ => return Some(host.len() - rest.len()),
        };
    }
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

    #[test]
    fn one_valid_line_is_asked_for() {
        assert_eq!(Host::default().and(b"a"), Host::Valid);
        assert_eq!(Host::default().and(b"a/b"), Host::Refused);
        assert_eq!(Host::default().and(b"a").and(b"a"), Host::Refused);
    }
}
