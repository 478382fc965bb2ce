//! The HTTP server over real sockets: one loop in a thread, raw bytes as the client.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    cell::Cell,
    future::pending,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker, ready},
    thread,
    time::{Duration, Instant},
};

use bimodal::{
    ErrorKind, Result,
    accept::{Accept, Connection, Count},
    event_loop::{self, EventLoop, Source},
    http::{self, BodyExt, Incoming, PanicPolicy, Request, Response, Server, StatusCode},
};
use socket2::SockRef;

/// Small, so that a client that does not read is felt soon (tcp(7): inherited by what is accepted).
const SEND_BUFFER: usize = 16 * 1024;

/// Longer than anything here takes; a test that waits for it fails.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the tests' side shares with the listener on the loop.
#[derive(Default)]
struct Control {
    withdrawn: AtomicBool,
    fail: AtomicBool,
    refusing: AtomicBool,
    waker: Mutex<Option<Waker>>,
    opened: AtomicUsize,
    closed: AtomicUsize,
    requests: AtomicUsize,
}

impl Control {
    fn ring(&self) {
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}

/// Counts for the tests' side.
struct Meter(Arc<Control>);

impl Count for Meter {
    fn opened(&self) {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
    }
    fn closed(&self) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
    }
    fn request(&self) {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
    }
}

struct Listener {
    source: Source<socket2::Socket>,
    control: Arc<Control>,
    meter: Rc<dyn Count>,
    accepting: bool,
}

impl Accept for Listener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Connection>>> {
        *self.control.waker.lock().unwrap() = Some(cx.waker().clone());
        if self.control.fail.load(Ordering::SeqCst) {
            return Poll::Ready(Err(std::io::Error::other("broken listener").into()));
        }
        if self.control.withdrawn.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(None));
        }
        if !self.accepting {
            return Poll::Pending;
        }
        let (stream, _) = ready!(self.source.poll_read_io(cx, socket2::Socket::accept))?;
        Poll::Ready(Ok(Some(Connection::new(stream, Some(Rc::clone(&self.meter)), true)?)))
    }

    fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
        self.control.refusing.store(!accepting, Ordering::SeqCst);
    }
}

thread_local! {
    /// Whether servers started by this thread have a neighbour, and little room to send.
    static CROWDED: Cell<bool> = const { Cell::new(false) };
}

/// Beside a task that is always runnable every short answer waits in the outbox.
async fn neighbour() {
    loop {
        event_loop::yield_now().await;
    }
}

struct Running {
    address: SocketAddr,
    control: Arc<Control>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

/// Serves on a loop of its own what `service` makes there.
fn start<S, B>(server: Server, service: impl FnOnce() -> S + Send + 'static) -> Running
where
    S: http::Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let control = Arc::<Control>::default();
    let shared = Arc::clone(&control);
    let (address, bound) = mpsc::channel();
    let crowded = CROWDED.get();
    let thread = thread::spawn(move || {
        let mut event_loop = EventLoop::new()?;
        let _neighbour = event_loop.enter(|| crowded.then(|| event_loop::spawn(neighbour())));
        let listener = event_loop.enter(|| {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            if crowded {
                SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER).unwrap();
            }
            address.send(socket.local_addr().unwrap()).unwrap();
            let source = Source::new(socket.into(), mio::Interest::READABLE).unwrap();
            let meter = Rc::new(Meter(Arc::clone(&shared)));
            Listener { source, control: shared, meter, accepting: true }
        });
        event_loop.block_on(server.serve(listener, service()))?
    });
    Running { address: bound.recv().unwrap(), control, thread: Some(thread) }
}

impl Running {
    fn withdraw(&self) {
        self.control.withdrawn.store(true, Ordering::SeqCst);
        self.control.ring();
    }

    /// Withdraws the listener and waits for `serve` to return.
    fn stop(mut self) -> Result<()> {
        self.withdraw();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let thread = self.thread.take().unwrap();
        wait_until(|| thread.is_finished());
        let result = thread.join().unwrap();
        let (opened, closed) = (&self.control.opened, &self.control.closed);
        assert_eq!(opened.load(Ordering::SeqCst), closed.load(Ordering::SeqCst));
        result
    }

    fn requests(&self) -> usize {
        self.control.requests.load(Ordering::SeqCst)
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, received: Vec::new() }
    }

    /// Sends `bytes` on a connection of its own and returns all that comes until it ends.
    fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.rest()
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        thread::yield_now();
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    fn more(&mut self) -> bool {
        let mut buf = [0; 4096];
        let n = self.stream.read(&mut buf).expect("an answer in time, not a reset");
        self.received.extend_from_slice(&buf[..n]);
        n > 0
    }

    /// Everything until the connection ends.
    fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// One answer with a `content-length`.
    fn answer(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "ended within a head: {:?}", self.text());
        };
        let head = String::from_utf8(self.received[..end].to_vec()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        while self.received.len() < end + length {
            assert!(self.more(), "ended within a body: {:?}", self.text());
        }
        let rest = self.received.split_off(end + length);
        String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
}

#[track_caller]
fn assert_refused(answer: &str, status: u16) {
    assert_eq!(code(answer), status, "{answer:?}");
    assert!(answer.contains("connection: close\r\n"), "{answer:?}");
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer:?}");
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// What with its head just fits into the outbox.
const LONG: usize = 3800;

type Text = Response<http::Full<http::Bytes>>;

/// `/` hello; `/echo` the body back; `/long` as much as still counts as short; `/never` no answer; `/panic`; `/fail` an
/// error.
async fn routes(
    request: Request<Incoming>,
) -> Result<Text, Box<dyn std::error::Error + Send + Sync>> {
    match request.uri().path() {
        "/echo" => Ok(http::text(request.into_body().collect().await?.to_bytes())),
        "/long" => Ok(http::text(request.uri().query().unwrap().repeat(LONG / 4))),
        "/never" => pending().await,
        "/panic" => panic!("asked to"),
        "/fail" => Err("asked to".into()),
        _ => Ok(http::text("hello")),
    }
}

fn routed(server: Server) -> Running {
    start(server, || http::service_fn(routes))
}

#[test]
fn requests_are_answered_one_after_the_other_on_a_kept_connection() {
    let running = routed(Server::new());
    let mut client = running.connect();
    for _ in 0..3 {
        let answer = client.send(GET).answer();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("date: ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    assert_eq!(running.requests(), 3);
    drop(client);
    running.stop().unwrap();
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let running = routed(Server::new());
    let mut client = running.connect();
    let wire = "\r\nPOST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in format!("{wire}{GET}").bytes() {
        client.send([byte]);
    }
    assert!(client.answer().ends_with("\r\n\r\nabc"));
    assert!(client.answer().ends_with("\r\n\r\nhello"));
    running.stop().unwrap();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let running = routed(Server::new());
    let mut client = running.connect();
    let mut wire = String::new();
    for n in 0..40 {
        wire += &format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{n:02}");
        wire += &format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{n:02}\r\n0\r\n\r\n"
        );
        wire += GET;
    }
    client.send(wire);
    for n in 0..40 {
        for _ in 0..2 {
            assert!(client.answer().ends_with(&format!("\r\n\r\n{n:02}")));
        }
        assert!(client.answer().ends_with("hello"));
    }
    assert_eq!(running.requests(), 120);
    running.stop().unwrap();
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let running = routed(Server::new());
    let mut client = running.connect();
    client.send(GET.repeat(2));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().matches("hello").count(), 2);
    // With a body that the service reads, ended by the client right behind it.
    let mut client = running.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.rest().ends_with("12345"));
    running.stop().unwrap();
}

#[test]
fn http_1_0_works() {
    let running = routed(Server::new());
    assert!(running.exchange("GET / HTTP/1.0\r\n\r\n").ends_with("hello"));
    let mut client = running.connect();
    for _ in 0..2 {
        let answer = client.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").answer();
        assert!(answer.contains("connection: keep-alive"), "{answer}");
    }
    running.stop().unwrap();
}

#[test]
fn requests_that_no_server_may_accept_are_refused_and_the_connection_closes() {
    let running = routed(Server::new());
    let chunked = "transfer-encoding: chunked\r\n";
    let cases = [
        ("missing Host", 400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("two Hosts", 400, "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".into()),
        ("two Hosts in 1.0", 400, "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n".into()),
        ("Host list", 400, "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".into()),
        ("Host with path", 400, "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n".into()),
        ("Host with user", 400, "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n".into()),
        ("Host with bad port", 400, "GET / HTTP/1.1\r\nhost: a:x\r\n\r\n".into()),
        ("bad version", 400, "GET / HTTP/9.9\r\nhost: a\r\n\r\n".into()),
        ("no version", 400, "GET /\r\nhost: a\r\n\r\n".into()),
        ("bad method", 400, "G@T / HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("space before colon", 400, "GET / HTTP/1.1\r\nhost : a\r\n\r\n".into()),
        ("obs-fold", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n".into()),
        ("bare CR", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n".into()),
        ("NUL", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n".into()),
        ("no colon", 400, "GET / HTTP/1.1\r\nhost: a\r\nx\n\r\n\r\n".into()),
        ("bad length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".into()),
        ("signed length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na".into()),
        ("length list", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\na".into()),
        (
            "two lengths",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into(),
        ),
        (
            "length before coding",
            400,
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n{chunked}\r\n0\r\n\r\n"),
        ),
        (
            "length after coding",
            400,
            format!("POST / HTTP/1.1\r\nhost: a\r\n{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            400,
            format!("POST / HTTP/1.1\r\nhost: a\r\n{chunked}{chunked}\r\n0\r\n\r\n"),
        ),
        (
            "chunked, chunked",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"
                .into(),
        ),
        (
            "chunked not last",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n".into(),
        ),
        (
            "unknown coding",
            501,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
                .into(),
        ),
        ("coding in 1.0", 400, format!("POST / HTTP/1.0\r\n{chunked}\r\n0\r\n\r\n")),
        (
            "bad chunk",
            400,
            format!("POST /echo HTTP/1.1\r\nhost: a\r\n{chunked}\r\nxyz\r\nabc\r\n0\r\n\r\n"),
        ),
    ];
    for (name, status, wire) in cases {
        // A second request behind it must not be answered.
        let answer = running.exchange(wire + GET);
        println!("{name}: {answer:?}");
        assert_refused(&answer, status);
    }
    assert!(
        running.exchange("GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n").contains("hello")
    );
    running.stop().unwrap();
}

#[test]
fn a_kept_connection_distinguishes_a_length_of_the_request_before() {
    let running = routed(Server::new());
    let mut client = running.connect();
    client.send(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 19\r\n\r\n\r\ncontent-length: 1\r\n",
    );
    client.send(
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    );
    client.send(
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n",
    );
    for _ in 0..3 {
        assert_eq!(code(&client.answer()), 200);
    }
    running.stop().unwrap();
}

#[test]
fn a_head_over_the_limit_is_answered_with_431() {
    let running = routed(Server::new().max_head_bytes(16 * 1024));
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    assert_refused(&running.exchange(long), 431);
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_refused(&running.exchange(many), 431);
    let fits = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(16 * 1024 - 40));
    assert_eq!(code(&running.connect().send(fits).answer()), 200);
    running.stop().unwrap();
}

#[test]
fn a_body_over_the_limit_is_answered_with_413() {
    let running = routed(Server::new().max_body_bytes(100_000));
    let post = |more: &str, n: usize| {
        format!("POST /echo HTTP/1.1\r\nhost: a\r\n{more}\r\n{}", "x".repeat(n))
    };
    // Known too large: the whole of it is sent all the same, and the answer is still read.
    assert_refused(&running.exchange(post("content-length: 500000\r\n", 500_000)), 413);
    let expecting = post("content-length: 500000\r\nexpect: 100-continue\r\n", 0);
    assert_refused(&running.exchange(expecting), 413);
    let chunk = |n: usize| format!("{n:x}\r\n{}\r\n", "x".repeat(n));
    let chunked = post("transfer-encoding: chunked\r\n", 0);
    let exactly = format!("{chunked}{}{}0\r\n\r\n", chunk(60_000), chunk(40_000));
    let answer = running.connect().send(exactly).answer();
    assert!(answer.contains("content-length: 100000\r\n"));
    let over = format!("{chunked}{}{}0\r\n\r\n", chunk(60_000), chunk(40_001));
    assert_refused(&running.exchange(over), 413);
    running.stop().unwrap();
}

#[test]
fn the_body_limit_can_be_lifted_and_the_body_answers_late() {
    let running = routed(Server::new().max_body_bytes(None));
    let body = "x".repeat(12 * 1024 * 1024);
    let mut client = running.connect();
    client.send(format!(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(client.answer().ends_with(&body));
    let mut client = running.connect();
    client.send(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n",
    );
    assert!(client.answer().starts_with("HTTP/1.1 100 "));
    assert!(client.send("ok").answer().ends_with("ok"));
    running.stop().unwrap();
}

#[test]
fn an_over_long_body_ends_a_service_that_has_not_answered() {
    let running = start(Server::new().max_body_bytes(10), || {
        http::service_fn(|request: Request<Incoming>| async move {
            let _ = request.into_body().collect().await;
            pending::<Text>().await
        })
    });
    let wire = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n";
    assert_refused(&running.exchange(wire), 413);
    running.stop().unwrap();
}

#[test]
fn a_head_that_stalls_is_answered_with_408_and_silence_with_nothing() {
    let running = routed(Server::new().header_timeout(Duration::from_millis(60)));
    assert_refused(&running.exchange("GET / HTTP/1.1\r\nho"), 408);
    assert_eq!(running.exchange(""), "");
    // The second request of a connection has the same limit.
    let mut client = running.connect();
    client.send(GET).answer();
    client.send("GET");
    assert_refused(&client.rest(), 408);
    running.stop().unwrap();
}

#[test]
fn an_idle_connection_ends_silently_after_its_time() {
    let running = routed(Server::new().keep_alive_timeout(Duration::from_millis(150)));
    let mut client = running.connect();
    let mut last = Instant::now();
    for _ in 0..3 {
        client.send(GET).answer();
        last = Instant::now();
    }
    assert_eq!(client.rest(), "");
    assert!(last.elapsed() >= Duration::from_millis(140), "{:?}", last.elapsed());
    running.stop().unwrap();
}

#[test]
fn a_body_that_stalls_is_answered_with_408() {
    let running = routed(Server::new().request_timeout(Duration::from_millis(60)));
    for framing in ["content-length: 5", "transfer-encoding: chunked"] {
        let wire = format!("POST /echo HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n1\r\n");
        assert_refused(&running.exchange(wire), 408);
    }
    // A service may take longer than that once the request is there.
    let slow = start(Server::new().request_timeout(Duration::from_millis(30)), || {
        http::service_fn(|_| async {
            event_loop::sleep(Duration::from_millis(120)).await;
            http::text("late")
        })
    });
    assert!(slow.connect().send(GET).answer().ends_with("late"));
    slow.stop().unwrap();
    running.stop().unwrap();
}

#[test]
fn an_error_of_the_service_is_answered_with_500() {
    let running = routed(Server::new());
    assert_refused(&running.exchange("GET /fail HTTP/1.1\r\nhost: a\r\n\r\n"), 500);
    // The answer survives a body that nobody read.
    let body = "x".repeat(600_000);
    let wire =
        format!("POST /fail HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert_refused(&running.exchange(wire), 500);
    running.stop().unwrap();
}

#[test]
fn the_panic_policy_decides_what_a_panic_ends() {
    let panic = "GET /panic HTTP/1.1\r\nhost: a\r\n\r\n";
    let running = routed(Server::new().panic_policy(PanicPolicy::Request));
    assert_refused(&running.exchange(panic), 500);
    assert_eq!(code(&running.connect().send(GET).answer()), 200);
    running.stop().unwrap();

    let mut running = routed(Server::new());
    let _ = running.exchange(panic);
    let thread = running.thread.take().unwrap();
    wait_until(|| thread.is_finished());
    assert!(thread.join().is_err());
    assert_eq!(running.control.closed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_drain_closes_the_idle_and_lets_the_busy_finish() {
    let gate = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&gate);
    let running = start(Server::new(), move || {
        http::service_fn(move |request: Request<Incoming>| {
            let open = Arc::clone(&open);
            async move {
                while request.uri().path() == "/slow" && !open.load(Ordering::SeqCst) {
                    event_loop::sleep(Duration::from_millis(1)).await;
                }
                http::text(request.into_body().collect().await.unwrap().to_bytes())
            }
        })
    });
    let mut idle = running.connect();
    idle.send(GET).answer();
    let mut fresh = running.connect();
    let mut slow = running.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut uploading = running.connect();
    uploading.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
    let mut started = running.connect();
    started.send(GET).answer();
    started.send("GET / HTTP");
    wait_until(|| running.control.opened.load(Ordering::SeqCst) == 5);
    // Answered behind all of the above, so that the loop has seen them.
    running.connect().send(GET).answer();

    running.withdraw();
    assert_eq!(idle.rest(), "");
    assert_eq!(fresh.rest(), "");
    assert!(!running.thread.as_ref().unwrap().is_finished());
    gate.store(true, Ordering::SeqCst);
    uploading.send("cd");
    started.send("/1.1\r\nhost: a\r\n\r\n");
    for client in [&mut slow, &mut uploading, &mut started] {
        let last = client.rest();
        assert_eq!(code(&last), 200);
        assert!(last.contains("connection: close\r\n"), "{last}");
    }
    running.stop().unwrap();
}

#[test]
fn a_drain_serves_a_request_that_has_arrived() {
    for _ in 0..20 {
        let running = routed(Server::new());
        let mut client = running.connect();
        client.send(GET);
        wait_until(|| running.control.opened.load(Ordering::SeqCst) == 1);
        running.withdraw();
        assert!(client.rest().ends_with("hello"));
        running.stop().unwrap();
    }
}

#[test]
fn a_drain_answers_the_next_request_of_a_connection_that_is_in_use() {
    let running = routed(Server::new());
    let mut used = running.connect();
    for _ in 0..10 {
        used.send(GET).answer();
    }
    running.withdraw();
    let last = loop {
        let answer = used.send(GET).answer();
        if answer.contains("connection: close") {
            break answer;
        }
    };
    assert!(last.ends_with("hello"), "{last}");
    assert_eq!(used.rest(), "");
    running.stop().unwrap();
}

#[test]
fn at_the_bound_connections_wait_until_one_ends() {
    let running = routed(Server::new().max_connections(2));
    let mut first = running.connect();
    first.send(GET).answer();
    let mut second = running.connect();
    second.send(GET).answer();
    wait_until(|| running.control.refusing.load(Ordering::SeqCst));
    let mut third = running.connect();
    third.send(GET);
    third.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(third.stream.read(&mut [0]).is_err());
    drop(first);
    third.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(third.answer().ends_with("hello"));
    running.stop().unwrap();
}

#[test]
fn an_error_of_the_listener_ends_the_server() {
    let mut running = routed(Server::new());
    let mut client = running.connect();
    client.send(GET).answer();
    running.control.fail.store(true, Ordering::SeqCst);
    running.control.ring();
    assert_eq!(running.join().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_setting_that_cannot_hold_is_named() {
    let mut running = routed(Server::new().header_timeout(Duration::ZERO));
    let error = running.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setting);
    assert!(error.to_string().contains("`header_timeout`"), "{error}");
}

#[test]
fn a_dropped_server_closes_its_connections() {
    let closed = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&closed);
    let control = Arc::<Control>::default();
    let meter = Arc::clone(&control);
    let (address, bound) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut event_loop = EventLoop::new().unwrap();
        event_loop
            .block_on(async move {
                let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                address.send(socket.local_addr().unwrap()).unwrap();
                let source = Source::new(socket.into(), mio::Interest::READABLE).unwrap();
                let count = Rc::new(Meter(Arc::clone(&meter)));
                let listener = Listener { source, control: meter, meter: count, accepting: true };
                let serving = event_loop::spawn(http::serve(listener, http::service_fn(routes)));
                while !stop.load(Ordering::SeqCst) {
                    event_loop::sleep(Duration::from_millis(1)).await;
                }
                drop(serving);
            })
            .unwrap();
    });
    let address = bound.recv().unwrap();
    let mut client = Running { address, control, thread: None }.connect();
    client.send(GET).answer();
    closed.store(true, Ordering::SeqCst);
    assert_eq!(client.rest(), "");
    wait_until(|| thread.is_finished());
    thread.join().unwrap();
}

#[test]
fn services_may_be_local_to_the_thread_and_routers() {
    let running = start(Server::new(), || {
        let count = Rc::new(Cell::new(0));
        http::service_fn(move |_| {
            let count = Rc::clone(&count);
            async move {
                event_loop::yield_now().await;
                count.set(count.get() + 1);
                http::text(count.get().to_string())
            }
        })
    });
    let mut client = running.connect();
    assert!(client.send(GET).answer().ends_with("\r\n\r\n1"));
    assert!(client.send(GET).answer().ends_with("\r\n\r\n2"));
    running.stop().unwrap();

    let running = start(Server::new().max_body_bytes(3), || {
        use axum::{Router, routing};
        let echo = |body: axum::body::Bytes| async move { body };
        http::tower(
            Router::new()
                .route("/", routing::get(|| async { "hello" }))
                .route("/echo", routing::post(echo)),
        )
    });
    let mut client = running.connect();
    assert!(client.send(GET).answer().ends_with("hello"));
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert!(client.send(post).answer().ends_with("abc"));
    assert_eq!(code(&client.send("PUT / HTTP/1.1\r\nhost: a\r\n\r\n").answer()), 405);
    running.stop().unwrap();
}

fn get_long(n: usize) -> String {
    format!("GET /long?{n:04} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// The body that [`get_long`] is answered with.
fn long(n: usize) -> String {
    format!("{n:04}").repeat(LONG / 4)
}

/// Twenty clients, while another one holds the loop up: what they ask until the barrier is answered in one turn.
fn in_one_turn(running: &Running, go: &Barrier) -> (Vec<Client>, Client) {
    let mut clients: Vec<Client> = (0..20).map(|_| running.connect()).collect();
    for client in &mut clients {
        client.send(GET).answer();
    }
    let mut holding = running.connect();
    holding.send("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n");
    go.wait();
    (clients, holding)
}

/// A service that holds its loop up at `/hold`, until the tests' side has met it at the barrier twice.
fn holding(server: Server) -> (Running, Arc<Barrier>) {
    let go = Arc::new(Barrier::new(2));
    let held = Arc::clone(&go);
    let running = start(server, move || {
        http::service_fn(move |request: Request<Incoming>| {
            if request.uri().path() == "/hold" {
                held.wait();
                held.wait();
            }
            routes(request)
        })
    });
    (running, go)
}

#[test]
fn the_answers_of_one_turn_all_arrive_each_at_its_client() {
    let (running, go) = holding(Server::new());
    let (mut clients, _holding) = in_one_turn(&running, &go);
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get_long(n));
    }
    go.wait();
    for (n, client) in clients.iter_mut().enumerate() {
        assert!(client.answer().ends_with(&format!("\r\n\r\n{}", long(n))));
    }
    running.stop().unwrap();
}

#[test]
fn what_was_answered_before_a_panic_of_the_same_turn_is_sent() {
    let (mut running, go) = holding(Server::new());
    let (mut clients, _holding) = in_one_turn(&running, &go);
    let mut last = clients.pop().unwrap();
    // The kernel tells of them in this order (epoll(7): its ready list is a queue).
    for client in &mut clients {
        client.send(GET);
    }
    last.send("GET /panic HTTP/1.1\r\nhost: a\r\n\r\n");
    go.wait();
    for client in &mut clients {
        assert!(client.rest().ends_with("hello"));
    }
    assert_eq!(last.rest(), "");
    assert!(running.thread.take().unwrap().join().is_err());
}

#[test]
fn a_client_that_reads_late_gets_all_its_answers_in_order() {
    let running = routed(Server::new());
    let mut client = running.connect();
    let requests = 120;
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for n in 0..requests {
            writer.write_all(get_long(n).as_bytes()).unwrap();
        }
    });
    // More than nobody reads: some of them wait for the client.
    wait_until(|| running.requests() >= 8);
    for n in 0..requests {
        assert!(client.answer().ends_with(&format!("\r\n\r\n{}", long(n))));
    }
    writing.join().unwrap();
    running.stop().unwrap();
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let running = routed(Server::new().keep_alive_timeout(Duration::from_millis(150)));
    let client = running.connect();
    SockRef::from(&client.stream).set_recv_buffer_size(4096).unwrap();
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let request = get_long(0);
        // Ends when the server has closed the connection.
        while writer.write_all(request.as_bytes()).is_ok() {}
    });
    wait_until(|| running.control.closed.load(Ordering::SeqCst) == 1);
    writing.join().unwrap();
    running.stop().unwrap();
}

/// The kernel says that there is room when a third of its buffer is free: this one empties less than that in the time.
#[test]
fn a_client_that_reads_little_is_not_given_up() {
    const PATIENCE: Duration = Duration::from_secs(2);
    const BYTES: usize = 32 << 20;
    let server = Server::new().keep_alive_timeout(PATIENCE);
    let running = start(server, || http::service_fn(|_| async { http::text(vec![b'x'; BYTES]) }));
    let mut client = running.connect();
    client.send(GET);
    let (begun, mut part) = (Instant::now(), vec![0; 128 << 10]);
    while begun.elapsed() < 2 * PATIENCE {
        client.stream.read_exact(&mut part).expect("it is not given up");
        client.received.extend_from_slice(&part);
        thread::sleep(PATIENCE / 8);
    }
    assert!(client.answer().len() > BYTES);
    running.stop().unwrap();
}

#[test]
fn beside_a_busy_task_nothing_is_different() {
    CROWDED.set(true);
    requests_are_answered_one_after_the_other_on_a_kept_connection();
    a_request_may_arrive_byte_by_byte();
    pipelined_requests_are_answered_in_order();
    a_half_closed_client_gets_its_answers();
    http_1_0_works();
    requests_that_no_server_may_accept_are_refused_and_the_connection_closes();
    a_head_over_the_limit_is_answered_with_431();
    a_body_over_the_limit_is_answered_with_413();
    a_head_that_stalls_is_answered_with_408_and_silence_with_nothing();
    an_idle_connection_ends_silently_after_its_time();
    a_body_that_stalls_is_answered_with_408();
    an_error_of_the_service_is_answered_with_500();
    the_panic_policy_decides_what_a_panic_ends();
    a_drain_closes_the_idle_and_lets_the_busy_finish();
    a_drain_serves_a_request_that_has_arrived();
    a_drain_answers_the_next_request_of_a_connection_that_is_in_use();
    services_may_be_local_to_the_thread_and_routers();
    the_answers_of_one_turn_all_arrive_each_at_its_client();
    a_client_that_reads_late_gets_all_its_answers_in_order();
    a_client_that_reads_nothing_is_given_up();
}

#[test]
fn helpers() {
    let reply = http::status(StatusCode::NOT_FOUND, "nothing here");
    assert_eq!(reply.status(), StatusCode::NOT_FOUND);
    assert_eq!(http::json("{}").headers()[http::header::CONTENT_TYPE], "application/json");
    assert_eq!(http::text("").headers()[http::header::CONTENT_TYPE], "text/plain; charset=utf-8");
}
