//! A small blocking HTTP client, for exercises that look at single connections.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::exercise::Result;

/// Longer than any answer takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(8);

/// The longest body that is taken.
const LONGEST: usize = 1 << 20;

/// One connection that is kept.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// How long an answer may take. Default 8 s.
    pub(crate) fn set_patience(&self, time: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(time))
    }

    /// Sends a request, and does not wait for the answer.
    pub(crate) fn send(&mut self, path: &str) -> io::Result<()> {
        write!(self.stream.get_ref(), "GET {path} HTTP/1.1\r\nHost: labs\r\n\r\n")
    }

    /// The body of the next answer, which must be a success.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let status = self.line()?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(usize::MAX);
            }
        }
        if length > LONGEST {
            return Err(io::Error::other(format!("an answer of more than {LONGEST} bytes")));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(status));
        }
        Ok(body)
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.send(path)?;
        self.receive()
    }

    /// The number of the worker at the other end.
    pub(crate) fn worker(&mut self) -> Result<u64> {
        let identity: serde_json::Value = serde_json::from_slice(&self.get("/")?)?;
        Ok(identity["worker"].as_u64().ok_or("an answer of / without a worker")?)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if (&mut self.stream).take(8192).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().into())
    }
}
