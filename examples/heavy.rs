//! Heavy work on the loop, and in the pool: who else waits? One worker, and two clients: one asks for `/heavy`, the
//! other for `/` again and again meanwhile.
//!
//! ```text
//! cargo run --release --example heavy -- --mode process     # or --mode thread
//! ```
//!
//! Look at the longest wait for `/`. Inline it is as long as the work: one loop does one thing at a time, however many
//! connections it has. In the pool another thread computes, and the loop answers. What stays is the computing
//! itself: it takes no less time in the pool. It ends by itself.

use std::{
    hint::black_box,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bimodal::{Cluster, Event, Mode, Result, Worker, http};
use clap::Parser;

/// Shows what heavy work costs those who wait for something else.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// How many square roots `/heavy` adds up
    #[arg(long, value_name = "N", default_value_t = 30_000_000)]
    roots: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let cluster = Cluster::builder(mode).launch(move |worker| serve(worker, args.roots))?;
    cluster.fork()?;
    let Some(address) = address(&cluster) else { return Ok(()) };
    println!("{:<16}  took       answers for /    longest wait for one", "");
    for path in ["/heavy", "/heavy?pool=1"] {
        let Seen { took, answers, longest } = look(address, path)?;
        let [took, longest] = [took, longest].map(|time| format!("{} ms", time.as_millis()));
        println!("{path:<16}  {took:<9}  {answers:<13}    {longest}");
    }
    cluster.shutdown()?;
    Ok(())
}

/// What a worker does: the same work inline and in the pool.
async fn serve(worker: Worker, roots: u32) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let answer = http::service_fn(move |request: http::Request<http::Incoming>| {
        let worker = worker.clone();
        async move {
            let sum = match (request.uri().path(), request.uri().query()) {
                ("/heavy", None) => Ok(heavy(roots)), // the loop computes, and does nothing else
                ("/heavy", Some("pool=1")) => worker.pool().run(move || heavy(roots)).await,
                _ => return http::text("at your service\n"),
            };
            match sum {
                Ok(sum) => http::text(format!("{sum}\n")),
                // The pool is full, or the work has panicked: this request fails, the worker serves on.
                Err(error) => {
                    http::status(http::StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                }
            }
        }
    });
    http::serve(listener, answer).await
}

fn heavy(roots: u32) -> f64 {
    (0..roots).map(|number| f64::from(black_box(number)).sqrt()).sum()
}

/// Where the worker listens. Nowhere in a process that was started to be the worker of another cluster.
fn address(cluster: &Cluster) -> Option<SocketAddr> {
    cluster.events().find_map(|event| match event {
        Event::Listening { address, .. } => address.tcp(),
        _ => None,
    })
}

/// What the other client saw while the work was done.
struct Seen {
    took: Duration,
    answers: u64,
    longest: Duration,
}

/// Asks for `path`, and for `/` until the answer is there.
fn look(address: SocketAddr, path: &'static str) -> Result<Seen> {
    let heavy = thread::spawn(move || ask(address, path));
    let mut seen = Seen { took: Duration::ZERO, answers: 0, longest: Duration::ZERO };
    while !heavy.is_finished() {
        seen.longest = seen.longest.max(ask(address, "/")?);
        seen.answers += 1;
    }
    seen.took = heavy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(seen)
}

/// One connection with one request: how long the answer took.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        return Err(std::io::Error::other(answer));
    }
    Ok(began.elapsed())
}
