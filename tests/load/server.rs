//! A server made by hand: a thread per connection, which does what the test wants.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use bimodal::load::{Load, Until};

use crate::support::DEADLINE;

/// An answer with nothing in it.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A server, which ends when it is dropped: all its connections must be closed by then, or be soon.
pub struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves each connection with `serve`, which gets its number too, from 0.
    pub fn new(serve: impl Fn(Peer, u64) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let acceptor = std::thread::spawn({
            let (accepted, is_over, serve) = (accepted.clone(), is_over.clone(), Arc::new(serve));
            move || {
                let mut threads = Vec::new();
                for stream in listener.incoming().map(Result::unwrap) {
                    if is_over.load(SeqCst) {
                        break;
                    }
                    let (number, serve) = (accepted.fetch_add(1, SeqCst), serve.clone());
                    // The driver may close whenever it likes.
                    threads.push(std::thread::spawn(move || {
                        let _ = serve(Peer::new(stream), number);
                    }));
                }
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            }
        });
        Self { address, accepted, is_over, acceptor: Some(acceptor) }
    }

    /// Gives each request the same answer.
    pub fn answering(answer: &'static str) -> Self {
        Self::new(move |mut peer, _| {
            while peer.request()?.is_some() {
                peer.send(answer)?;
            }
            Ok(())
        })
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A load of so many requests on one connection.
    pub fn load(&self, requests: u64) -> Load {
        Load::new(&self.url()).unwrap().connections(1).until(Until::Requests(requests))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        // The acceptor waits for a connection.
        let _ = TcpStream::connect(self.address);
        self.acceptor.take().unwrap().join().unwrap();
    }
}

/// The server's end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    rest: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, rest: Vec::new() }
    }

    /// The head of the next request, which has no body; `None` at the end.
    pub fn request(&mut self) -> io::Result<Option<String>> {
        loop {
            let end = self.rest.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.rest.drain(..end + 4).collect();
                return Ok(Some(String::from_utf8(head).unwrap()));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk)? {
                0 => return Ok(None),
                count => self.rest.extend_from_slice(&chunk[..count]),
            }
        }
    }

    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }

    /// Waits until the driver closes.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        while self.request()?.is_some() {}
        Ok(())
    }
}

/// An answer with this body.
pub fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The path of a request.
pub fn path(request: &str) -> &str {
    request.split(' ').nth(1).unwrap()
}
