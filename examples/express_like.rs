//! The Express application of Node's cluster tutorials, on axum: a JSON route, a heavy one, one that fails, and one that
//! takes its worker down.
//!
//! ```text
//! cargo run --release --example express_like -- --mode process    # or --mode thread; PORT=8080 for another port
//! curl http://127.0.0.1:3000/                 # who answers, and when
//! curl http://127.0.0.1:3000/heavy            # on the worker's loop: whoever else it serves waits
//! curl http://127.0.0.1:3000/heavy?pool=1     # in the pool: nobody else waits
//! curl http://127.0.0.1:3000/error            # 500, and the worker goes on
//! curl http://127.0.0.1:3000/crash            # no answer, and another worker takes its place
//! ```
//!
//! Look at `worker` and `pid` of several answers: with processes both differ, with threads the process stays. After
//! `/crash` one worker number is never seen again, and a new one answers.

use std::{
    hint::black_box,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use bimodal::{Cluster, Event, Mode, Result, Worker, http, pool::Pool};
use serde_json::{Value, json};

/// How many square roots `/heavy` adds up; Node's tutorials take a thousand million, for seconds of work.
const ROOTS: u32 = 50_000_000;

/// What the handlers of one worker share. axum asks for `Send`, so the `Worker` itself stays outside.
struct App {
    worker: u64,
    pool: Pool,
}

fn main() -> Result<()> {
    let mode = Mode::from_args_or_env()?;
    println!("primary {} is running", std::process::id());
    let report = Cluster::builder(mode).on_event(announce).run(serve)?;
    println!("{report}");
    Ok(())
}

/// Replacing who has died needs no code here: `run` does it.
fn announce(event: &Event) {
    match event {
        Event::Listening { worker, address } => println!("{worker} listens on http://{address}"),
        Event::Exit { worker, status } => println!("{worker} died: {status}"),
        _ => {}
    }
}

async fn serve(worker: Worker) -> Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = worker.listen(&format!("127.0.0.1:{port}")).await?;
    let app = App { worker: worker.id().get(), pool: worker.pool().clone() };
    http::serve(listener, http::tower(router(app))).await
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(hello))
        .route("/heavy", get(heavy))
        .route("/error", get(fail))
        .route("/crash", get(crash))
        .with_state(Arc::new(app))
}

async fn hello(State(app): State<Arc<App>>) -> Response {
    app.json(json!({ "message": "Hello from cluster!", "timestamp": timestamp() }))
}

async fn heavy(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> std::result::Result<Response, Failure> {
    let result = match query.as_deref() {
        Some("pool=1") => app.pool.run(roots).await?,
        _ => roots(),
    };
    Ok(app.json(json!({ "result": result })))
}

fn roots() -> f64 {
    (0..ROOTS).map(|number| f64::from(black_box(number)).sqrt()).sum()
}

async fn fail() -> std::result::Result<Response, Failure> {
    let text = std::fs::read_to_string("/no/such/file")?;
    Ok(text.into_response())
}

/// An exception that nobody catches ends a Node process; a panic ends a worker.
async fn crash() -> Response {
    panic!("Worker crashed!")
}

impl App {
    /// An answer as JSON, with who gave it.
    fn json(&self, mut answer: Value) -> Response {
        answer["worker"] = self.worker.into();
        answer["pid"] = std::process::id().into();
        ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
    }
}

/// What Express does with an error that a handler passes on: 500, and the worker goes on.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.0 }).to_string();
        (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "application/json")], body)
            .into_response()
    }
}

/// Now, as JavaScript's `toISOString` writes it.
fn timestamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

/// The date so many days after 1970-01-01, in years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day, next) = (month + 3, day - (153 * month + 2) / 5 + 1, month >= 10);
    let month = if next { month - 12 } else { month };
    (era * 400 + year + u64::from(next), month, day)
}
