//! Answers in one piece and in many, and bytes that are none.

use super::*;

/// What came of `bytes`, read in pieces of `size`: the verdict if it is complete, and how many bytes it took.
fn read(bytes: &[u8], size: usize, expect: &Expect) -> Result<(Option<Verdict>, usize), Malformed> {
    read_of(bytes, size, &Method::GET, expect)
}

fn read_of(
    bytes: &[u8],
    size: usize,
    method: &Method,
    expect: &Expect,
) -> Result<(Option<Verdict>, usize), Malformed> {
    let (mut answer, mut used, mut there) = (Answer::new(), 0, 0);
    while there < bytes.len() {
        there = (there + size).min(bytes.len());
        loop {
            match answer.read(&bytes[used..there], Asked { method, expect, keep: true })? {
                Read::More => break,
                Read::Some(count) => used += count,
                Read::All(count) => return Ok((Some(answer.verdict(expect)), used + count)),
            }
        }
    }
    let is_complete = answer.is_complete_at_end();
    Ok((is_complete.then(|| answer.verdict(expect)), used))
}

fn body(text: &str) -> Expect {
    Expect { body: Some(text.into()), ..Expect::default() }
}

#[test]
fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            "hello",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nC: d\r\n\r\n", ""),
        (
            "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        let bytes = format!("{text}HTTP/1.1 next");
        for size in 1..=bytes.len() {
            let (verdict, used) = read(bytes.as_bytes(), size, &body(expected)).unwrap();
            assert_eq!((verdict, used), (Some(Verdict::Right), text.len()), "{text} by {size}");
        }
    }
}

#[test]
fn a_body_without_a_length_ends_with_the_stream() {
    for size in [1, 7, 99] {
        let text = b"HTTP/1.1 200 OK\r\n\r\nhello";
        assert_eq!(read(text, size, &body("hello")), Ok((Some(Verdict::Right), text.len())));
        assert_eq!(read(text, size, &body("hell")), Ok((Some(Verdict::WrongBody), text.len())));
    }
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello";
    assert_eq!(read(cut, 99, &body("hello!")), Ok((None, cut.len())));
}

#[test]
fn what_has_no_body_ends_with_its_head() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let any = Expect::default();
    assert_eq!(read_of(head, 9, &Method::HEAD, &any), Ok((Some(Verdict::Right), head.len())));
    for status in [204, 304] {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
        let expect = Expect { status, ..Expect::default() };
        let read = read(head.as_bytes(), 9, &expect);
        assert_eq!(read, Ok((Some(Verdict::Right), head.len())));
    }
}

#[test]
fn what_is_not_expected_is_told() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let length = |length| Expect { length: Some(length), ..Expect::default() };
    let status = Expect { status: 503, ..Expect::default() };
    for (expect, verdict) in [
        (Expect::default(), Verdict::Right),
        (length(5), Verdict::Right),
        (length(4), Verdict::WrongBody),
        (body("hello!"), Verdict::WrongBody),
        (body("hellO"), Verdict::WrongBody),
        (body(""), Verdict::WrongBody),
        (status, Verdict::WrongStatus),
    ] {
        for size in [1, 3, 99] {
            assert_eq!(read(text, size, &expect).unwrap().0, Some(verdict), "{expect:?}");
        }
    }
}

#[test]
fn who_closes_is_known() {
    for (head, is_last) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let (mut answer, expect) = (Answer::new(), Expect::default());
        let asked = Asked { method: &Method::GET, expect: &expect, keep: false };
        assert_eq!(answer.read(head.as_bytes(), asked), Ok(Read::All(head.len())));
        assert_eq!(answer.is_last(), is_last, "{head}");
    }
}

#[test]
fn what_is_no_answer_is_malformed() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailer = format!("{chunked}0\r\n{}", "x".repeat(MAX_HEAD));
    let extension = format!("{chunked}1;{}", "x".repeat(MAX_HEAD));
    let after = format!("{chunked}1\r\nxy\r\n");
    let size = format!("{chunked}ffffffffffffffffff\r\n");
    for text in [
        "garbage\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "\0\0\0",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        &long,
        &many,
        &trailer,
        &extension,
        &after,
        &size,
    ] {
        assert_eq!(read(text.as_bytes(), 4096, &Expect::default()), Err(Malformed), "{text}");
    }
}

#[test]
fn a_body_that_is_looked_into_is_kept_up_to_a_bound() {
    let keep = |length: usize| {
        let (mut answer, expect) = (Answer::new(), Expect::default());
        let asked = Asked { method: &Method::GET, expect: &expect, keep: true };
        let text =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
        assert_eq!(answer.read(text.as_bytes(), asked), Ok(Read::All(text.len())));
        answer.kept().len()
    };
    assert_eq!(keep(MAX_KEPT), MAX_KEPT);
    assert_eq!(keep(MAX_KEPT + 1), 0);
}

mod any {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in vec(any::<u8>(), 0..512),
            size in 1_usize..64,
            has_head in any::<bool>(),
        ) {
            let head = if has_head { &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..] } else { b"" };
            let bytes = [head, &bytes].concat();
            if let Ok((_, used)) = read(&bytes, size, &Expect::default()) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
