//! A small blocking client: bytes over TCP or a Unix socket, and as much HTTP/1.1 as tests need.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use bimodal::Address;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

use super::{DEADLINE, wait_until};

/// A connection to a server; every wait on it has a deadline.
pub struct Client {
    stream: Stream,
    /// Received and not used yet.
    buffer: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, as received.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    pub fn connect(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, DEADLINE)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            other => return Err(io::Error::other(format!("{other} takes no connections"))),
        };
        let client = Self { stream, buffer: Vec::new() };
        client.set_patience(DEADLINE)?;
        Ok(client)
    }

    /// How long a read waits.
    pub fn set_patience(&self, time: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(time)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(time)),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends a GET; [`Client::answer`] reads what comes.
    pub fn request(&mut self, path: &str) -> io::Result<()> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
    }

    /// A GET and its answer; the connection stays open.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request(path)?;
        self.answer()
    }

    /// The next answer: with a `content-length`, or chunked.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let mut answer = Answer {
            status: status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?,
            head,
            body: Vec::new(),
        };
        answer.body = match answer.header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) => self.take(length)?,
            Some(Err(error)) => return Err(io::Error::other(error)),
            None if answer.header("transfer-encoding").is_some() => self.chunks()?,
            None => Vec::new(),
        };
        Ok(answer)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.take(size)?);
            self.take(2)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// A line without its end.
    pub fn line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\n") {
                break at + 1;
            }
            self.more()?;
        };
        let line: Vec<u8> = self.buffer.drain(..end).collect();
        Ok(String::from_utf8(line).map_err(io::Error::other)?.trim_end().to_owned())
    }

    /// Exactly so many bytes.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.more() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the other side has closed the connection, as far as is known here by now.
    pub fn is_closed(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match &self.stream {
            Stream::Tcp(stream) => recv(stream, &mut [0_u8; 1], flags),
            Stream::Unix(stream) => recv(stream, &mut [0_u8; 1], flags),
        };
        match peeked {
            Ok((_, there)) => there == 0,
            Err(error) => error != Errno::AGAIN,
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        let read = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut chunk)?,
            Stream::Unix(stream) => stream.read(&mut chunk)?,
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}

/// One GET on a connection of its own.
pub fn get(address: &Address, path: &str) -> io::Result<Answer> {
    let mut client = Client::connect(address)?;
    client.send(
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    client.answer()
}

/// Connects and reads one line: what a server that greets every connection says.
pub fn greeting(address: &Address) -> io::Result<String> {
    Client::connect(address)?.line()
}

/// Waits until nobody listens any more. A process that is being forked meanwhile has the socket too,
/// until it runs its program.
#[track_caller]
pub fn wait_until_closed(address: &Address) {
    wait_until("nobody to listen", || Client::connect(address).is_err());
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
