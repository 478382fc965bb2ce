//! An axum `Router`, unchanged, on every core. axum comes without its default features: no tokio is involved.
//!
//! ```text
//! cargo run --release --example axum_router -- --mode thread     # or --mode process
//! curl http://127.0.0.1:3000/greet/world
//! curl http://127.0.0.1:3000/worker                              # `served` is this worker's own count
//! curl -d 'any text' http://127.0.0.1:3000/length
//! ```
//!
//! Look at `served`: every worker builds its own router, so state is per worker in both modes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::IntoResponse,
    routing::{get, post},
};
use bimodal::{Cluster, Event, Mode, Result, Worker, http};

/// What the handlers of one worker share. axum asks for `Send`, so the `Worker` itself stays outside.
struct Counter {
    worker: u64,
    served: AtomicU64,
}

fn main() -> Result<()> {
    let mode = Mode::from_args_or_env()?;
    let report = Cluster::builder(mode).on_event(announce).run(serve)?;
    println!("{report}");
    Ok(())
}

fn announce(event: &Event) {
    if let Event::Listening { worker, address } = event {
        println!("{worker} listens on http://{address}");
    }
}

async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:3000").await?;
    let counter = Counter { worker: worker.id().get(), served: AtomicU64::new(0) };
    http::serve(listener, http::tower(router(counter))).await
}

fn router(counter: Counter) -> Router {
    Router::new()
        .route("/greet/{name}", get(greet))
        .route("/worker", get(describe))
        .route("/length", post(length))
        .with_state(Arc::new(counter))
}

async fn greet(State(counter): State<Arc<Counter>>, Path(name): Path<String>) -> String {
    counter.served.fetch_add(1, Relaxed);
    format!("hello {name}, from worker {}\n", counter.worker)
}

async fn describe(State(counter): State<Arc<Counter>>) -> impl IntoResponse {
    let served = counter.served.fetch_add(1, Relaxed) + 1;
    let json = format!(r#"{{"worker":{},"served":{served}}}"#, counter.worker);
    ([(CONTENT_TYPE, "application/json")], json)
}

async fn length(State(counter): State<Arc<Counter>>, body: Bytes) -> String {
    counter.served.fetch_add(1, Relaxed);
    format!("{} bytes\n", body.len())
}
