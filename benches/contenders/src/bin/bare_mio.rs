//! The floor: the bare loop, which answers every read with one fixed response and parses nothing.

use std::io::{self, ErrorKind, Read, Write};

use contenders::bare::{self, Serve};
use contenders::{BODY, Options};
use mio::event::Event;
use mio::net::TcpStream;

fn main() -> io::Result<()> {
    let options = Options::from_args(&["--close", "--pin"]);
    let close = options.close;
    bare::run(options, move || {
        let answer: &'static str = answer(close).leak();
        move |stream| Fixed { stream, answer, close }
    })
}

fn answer(close: bool) -> String {
    let connection = if close { "connection: close\r\n" } else { "" };
    let length = BODY.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n{connection}\r\n{BODY}"
    )
}

struct Fixed {
    stream: TcpStream,
    answer: &'static str,
    close: bool,
}

impl Serve for Fixed {
    /// One read is enough under edge triggering: it takes less than the buffer, so the queue was empty, and what comes
    /// later is a new edge.
    fn serve(&mut self, event: &Event) -> bool {
        let mut request = [0; 4096];
        let goes_on = match self.stream.read(&mut request) {
            Ok(0) => false,
            Ok(_) => {
                let answer = self.answer.as_bytes();
                matches!(self.stream.write(answer), Ok(written) if written == answer.len())
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        goes_on && !self.close && !event.is_read_closed()
    }
}
