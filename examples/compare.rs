//! Processes or threads, for your own handler: it runs in both modes under the same load, and a table says how they differ.
//!
//! ```text
//! cargo run --release --example compare
//! cargo run --release --example compare -- --path /compute --workers 2 --rounds 6
//! ```
//!
//! To compare your own: put its routes into `router`, or the whole body that you give to `Cluster::run` into `app`.
//! Nothing else needs to change. Look at three things: whether a difference is beyond the noise (the column `better`), what an
//! abort does to each mode, and what the recommendation says it did not measure.

use std::time::Duration;

use axum::{
    Router,
    body::Bytes,
    http::header::CONTENT_TYPE,
    response::IntoResponse,
    routing::{get, post},
};
use bimodal::{
    Result, Worker, Workers, compare,
    compare::{Options, Progress},
    http,
    load::Request,
};
use clap::Parser;

/// A handler in both modes under the same load.
#[derive(Parser)]
#[command(name = "compare")]
struct Args {
    /// Workers of each arm; auto is one per core
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    workers: Workers,
    /// Connections of the load
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Requests per second at which latency is measured [default: half of what the slower mode can]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// What is asked for: /, /json, /compute, or mixed (GET /json nine times, POST /length once)
    #[arg(long, default_value = "/")]
    path: String,
    /// How long an arm is measured, at full load and again at the rate
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// How long an arm is loaded before that
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    warmup: f64,
    /// Arms of each mode
    #[arg(long, value_name = "N", default_value_t = 4)]
    rounds: usize,
    /// Prints all figures as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> std::process::ExitCode {
    match run(&Args::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            error.exit_code().into()
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let mut options = Options::new()
        .workers(args.workers)
        .connections(args.connections)
        .time(seconds(args.seconds))
        .warmup(seconds(args.warmup))
        .rounds(args.rounds)
        .on_progress(announce);
    options = match args.path.as_str() {
        "mixed" => options
            .request(9, Request::get("/json"))
            .request(1, Request::post("/length", "0123456789")),
        path => options.path(path),
    };
    if let Some(rate) = args.rate {
        options = options.rate(rate);
    }
    let comparison = compare(app, options)?;
    match args.json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&comparison).map_err(std::io::Error::other)?
        ),
        false => println!("{comparison}"),
    }
    Ok(())
}

/// What does not make a time is refused by the comparison: it has no such length.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn announce(progress: &Progress) {
    eprintln!("{:>3} of {}: {}", progress.done + 1, progress.of, progress.next);
}

/// What every worker does, in either mode: the body of `Cluster::run`.
async fn app(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    http::serve(listener, http::tower(router(&worker))).await
}

fn router(worker: &Worker) -> Router {
    let json = format!(r#"{{"worker":{}}}"#, worker.id());
    Router::new()
        .route("/", get(|| async { "Hello, World!\n" }))
        .route("/json", get(|| async move { ([(CONTENT_TYPE, "application/json")], json.clone()) }))
        .route("/compute", get(compute))
        .route("/length", post(length))
}

/// Something for the processor to do: 50 000 rounds of a random number generator.
async fn compute() -> impl IntoResponse {
    let next = |word: u64, _| {
        word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
    };
    format!("{:x}\n", (0..50_000).fold(1, next))
}

async fn length(body: Bytes) -> String {
    format!("{} bytes\n", body.len())
}
