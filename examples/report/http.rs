//! One request at a time, for what needs no load: a small blocking client.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::Result;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// No answer that is asked for here is longer.
const MAX_BODY: usize = 1 << 20;

/// A connection that is kept open.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a GET; the answer is read by [`Client::answer`].
    pub(crate) fn send(&mut self, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: report\r\n\r\n");
        Ok(self.stream.get_mut().write_all(request.as_bytes())?)
    }

    /// The body of the next answer, which must be a 200 with a length.
    pub(crate) fn answer(&mut self) -> Result<Vec<u8>> {
        let status = self.line()?;
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let length = length.filter(|length| *length <= MAX_BODY);
        let mut body = vec![0; length.ok_or("an answer without a length, or a very long one")?];
        self.stream.read_exact(&mut body)?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()).into());
        }
        Ok(body)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        // A line that is longer than this is no head of the lab.
        let read = (&mut self.stream).take(8 << 10).read_line(&mut line)?;
        if read == 0 {
            return Err("the connection was closed before the answer".into());
        }
        Ok(line.trim_end().to_owned())
    }
}
