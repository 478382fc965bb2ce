//! What the lab answers. Runs on a worker's loop, and knows the mode only to print it.

use std::{
    hint::black_box,
    rc::Rc,
    time::{Duration, Instant},
};

use bimodal::{
    Mode, SlotStats, Worker, event_loop,
    http::{
        self, Bytes, Full, HeaderValue, Incoming, Method, Request, Response, StatusCode, Uri,
        header,
    },
};
use http_body_util::Either;
use serde::Serialize;

use super::{faults::Fault, stored};

/// The longest `/sleep` and `/burn`.
const MAX_MS: u64 = 60_000;

/// A text, or a request's body on its way back.
pub(crate) type Reply = Response<Either<Full<Bytes>, Incoming>>;

/// What the handlers of one worker share.
pub(crate) struct Lab {
    worker: Worker,
    /// Who answers, as JSON: it does not change while the worker lives.
    identity: Bytes,
}

#[derive(Serialize)]
struct Identity<'a> {
    worker: u64,
    pid: u32,
    thread: &'a str,
    mode: String,
    generation: u32,
}

impl Lab {
    pub(crate) fn new(worker: Worker, mode: Mode) -> Self {
        let identity = json(&Identity {
            worker: worker.id().get(),
            pid: std::process::id(),
            thread: worker.name(),
            mode: mode.to_string(),
            generation: worker.generation(),
        });
        Self { worker, identity }
    }

    fn stats(&self) -> Bytes {
        json(&self.worker.stats().iter().map(Row::from).collect::<Vec<_>>())
    }
}

/// A worker's counters, as `/stats` tells them.
#[derive(Serialize)]
struct Row {
    slot: usize,
    worker: u64,
    generation: u64,
    pid: u64,
    beats: u64,
    connections_open: u64,
    connections_accepted: u64,
    requests: u64,
    busy_ns: u64,
    idle_ns: u64,
    utilization: f64,
}

impl From<&SlotStats> for Row {
    fn from(stats: &SlotStats) -> Self {
        Self {
            slot: stats.slot,
            worker: stats.worker,
            generation: stats.generation,
            pid: stats.pid,
            beats: stats.beats,
            connections_open: stats.connections_open,
            connections_accepted: stats.connections_accepted,
            requests: stats.requests,
            busy_ns: stats.busy_ns,
            idle_ns: stats.idle_ns,
            utilization: stats.utilization(),
        }
    }
}

fn json<T: Serialize>(value: &T) -> Bytes {
    // Plain structs of numbers and texts always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[derive(Clone, Copy)]
enum Route {
    Identity,
    Plaintext,
    Echo,
    Sleep,
    Burn,
    Stats,
    Ready,
    Count,
    Session,
    Fault(Fault),
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Identity,
            "/plaintext" => Self::Plaintext,
            "/echo" => Self::Echo,
            "/sleep" => Self::Sleep,
            "/burn" => Self::Burn,
            "/stats" => Self::Stats,
            "/ready" => Self::Ready,
            "/count" => Self::Count,
            "/session" => Self::Session,
            _ => Self::Fault(Fault::named(path.strip_prefix("/fault/")?)?),
        })
    }

    /// The methods it takes, as an `Allow` header lists them.
    fn methods(self) -> &'static str {
        match self {
            Self::Echo => "POST",
            _ => "GET, HEAD",
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Echo => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(lab: Rc<Lab>, request: Request<Incoming>) -> Reply {
    let Some(route) = Route::of(request.uri().path()) else {
        return http::status(StatusCode::NOT_FOUND, "no such route; `lab --help` lists them\n")
            .map(Either::Left);
    };
    if !route.takes(request.method()) {
        return refuse_method(route.methods()).map(Either::Left);
    }
    reply(&lab, route, request)
        .await
        .unwrap_or_else(|reason| http::status(StatusCode::BAD_REQUEST, reason).map(Either::Left))
}

/// The answer of a route, or what is wrong with the query.
async fn reply(lab: &Lab, route: Route, request: Request<Incoming>) -> Result<Reply, String> {
    let uri = request.uri();
    let whole = match route {
        Route::Echo => return Ok(echo(request)),
        Route::Plaintext => http::text("Hello, World!"),
        Route::Identity => http::json(lab.identity.clone()),
        Route::Stats => http::json(lab.stats()),
        Route::Ready if lab.worker.is_ready() => http::text("ready\n"),
        Route::Ready => http::status(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        Route::Count => stored::count(&lab.worker).await,
        Route::Session => stored::session(&lab.worker, request.headers()).await,
        Route::Sleep => {
            let ms = number(uri, "ms", None, MAX_MS)?;
            event_loop::sleep(Duration::from_millis(ms)).await;
            http::text(format!("slept {ms} ms\n"))
        }
        Route::Burn => {
            let (query, pool) = without_pool(uri.query().unwrap_or_default());
            let ms = number_in(query, "ms", None, MAX_MS)?;
            burned(lab, ms, pool).await
        }
        Route::Fault(fault) => http::text(fault.commit(uri)?),
    };
    Ok(whole.map(Either::Left))
}

fn refuse_method(methods: &'static str) -> Response<Full<Bytes>> {
    let mut reply =
        http::status(StatusCode::METHOD_NOT_ALLOWED, format!("this route takes {methods}\n"));
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    reply
}

/// Sends the body back as it comes: a part is read when the one before it is on its way.
fn echo(request: Request<Incoming>) -> Reply {
    let (mut head, body) = request.into_parts();
    let mut reply = Response::new(Either::Right(body));
    if let Some(kind) = head.headers.remove(header::CONTENT_TYPE) {
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    reply
}

/// The query without its `&pool=1`, and whether that was there.
fn without_pool(query: &str) -> (&str, bool) {
    query.strip_suffix("&pool=1").map_or((query, false), |rest| (rest, true))
}

/// Computes in the pool, or here. What the pool does not do is an answer, too.
async fn burned(lab: &Lab, ms: u64, pool: bool) -> Response<Full<Bytes>> {
    let time = Duration::from_millis(ms);
    if !pool {
        burn(time);
    } else if let Err(error) = lab.worker.pool().run(move || burn(time)).await {
        return http::status(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
    }
    http::text(format!("burned {ms} ms{}\n", if pool { " in the pool" } else { "" }))
}

/// Computes for this long, and keeps everything else on its thread waiting.
fn burn(time: Duration) {
    let start = Instant::now();
    let mut sum = 0_u64;
    while start.elapsed() < time {
        for number in 0..1_000 {
            sum = black_box(sum.wrapping_add(number));
        }
    }
}

/// The number in a query that must be exactly `name=N`, N at most `max`. Without a query it is the default.
pub(crate) fn number(uri: &Uri, name: &str, default: Option<u64>, max: u64) -> Result<u64, String> {
    number_in(uri.query().unwrap_or_default(), name, default, max)
}

/// [`number`], in a query that is known already.
fn number_in(query: &str, name: &str, default: Option<u64>, max: u64) -> Result<u64, String> {
    let given = match query.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
        Some(text) => text.parse().ok(),
        None if query.is_empty() => default,
        None => None,
    };
    let wrong = || format!("the query is {query:?}; it must be {name}=N, N a number up to {max}\n");
    given.filter(|number| *number <= max).ok_or_else(wrong)
}
