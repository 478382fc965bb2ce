//! Cookie sessions in the Store: log in, kill the worker that did it, and be still logged in.
//!
//! ```text
//! cargo run --release --example sessions -- --mode process      # or --mode thread
//! curl -c jar -b jar -d name=ada http://127.0.0.1:3000/login      # a cookie, and which worker gave it
//! curl -c jar -b jar http://127.0.0.1:3000/                       # who you are, whichever worker answers
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/crash          # the end of a worker
//! curl -c jar -b jar http://127.0.0.1:3000/                       # still logged in
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/logout
//! ```
//!
//! Look at what is not in a worker: the session. The cookie is a random number that means nothing by itself; what it stands
//! for is in the Store, for an hour after it was last used. With `--redis URL`, programs on several machines share it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bimodal::{
    Cluster, Event, Mode, Result, Worker,
    http::{
        self, Bytes, Full, HeaderValue, Incoming, Method, Request, Response, StatusCode, header,
    },
    store::{Lmdb, Storage, Store},
};
use clap::Parser;
use http_body_util::{BodyExt as _, Limited};

/// Logs in, and stays logged in whatever becomes of a worker.
#[derive(Parser)]
struct Args {
    /// What a worker is [default: the variable BIMODAL_MODE, else process]
    #[arg(long, value_name = "process|thread")]
    mode: Option<Mode>,
    /// Where sessions are kept
    #[arg(long, value_name = "DIRECTORY", default_value = "target/sessions")]
    directory: PathBuf,
    /// Keeps them on a Redis server instead: redis://host:port
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

impl Args {
    fn storage(&self) -> Storage {
        #[cfg(feature = "redis")]
        if let Some(url) = &self.redis {
            return Storage::Redis(url.clone());
        }
        Storage::Lmdb(Lmdb::new(&self.directory))
    }
}

/// How long a session lives after it was last used.
const LIFE: Duration = Duration::from_secs(3600);

const COOKIE: &str = "session";

/// The largest login form, in bytes.
const MAX_FORM: usize = 1024;

type Reply = Response<Full<Bytes>>;

fn main() -> Result<()> {
    let args = Args::parse();
    let mode = args.mode.map_or_else(Mode::from_args_or_env, Ok)?;
    let builder = Cluster::builder(mode).workers(2).store(args.storage()).on_event(announce);
    println!("{}", builder.run(serve)?);
    Ok(())
}

fn announce(event: &Event) {
    match event {
        Event::Listening { worker, address } => println!("{worker} listens on http://{address}"),
        Event::Exit { worker, status } => println!("{worker} ended with {status}"),
        _ => {}
    }
}

async fn serve(worker: Worker) -> Result<()> {
    let sessions = Arc::new(Sessions { store: worker.store()?, worker: worker.id().get() });
    let listener = worker.listen("127.0.0.1:3000").await?;
    let service = http::service_fn(move |request| answer(sessions.clone(), request));
    http::serve(listener, service).await
}

struct Sessions {
    store: Arc<dyn Store>,
    worker: u64,
}

async fn answer(sessions: Arc<Sessions>, request: Request<Incoming>) -> Reply {
    let answered = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => sessions.greet(&request).await,
        (&Method::POST, "/login") => sessions.log_in(request).await,
        (&Method::POST, "/logout") => sessions.log_out(&request).await,
        (&Method::POST, "/crash") => panic!("a bug, on demand"),
        _ => Ok(http::status(StatusCode::NOT_FOUND, "GET /, POST /login, /logout, /crash\n")),
    };
    // The store is away, or the request's body did not come.
    answered.unwrap_or_else(|error| {
        http::status(StatusCode::SERVICE_UNAVAILABLE, format!("{error}; try again\n"))
    })
}

impl Sessions {
    async fn greet(&self, request: &Request<Incoming>) -> Result<Reply> {
        let worker = self.worker;
        let Some(name) = self.name(request).await? else {
            let text = format!("you are not logged in, says worker {worker}\n");
            return Ok(http::status(StatusCode::UNAUTHORIZED, text));
        };
        Ok(http::text(format!("hello {name}, from worker {worker}\n")))
    }

    /// Always a new id: whoever knew the one before must not become this user.
    async fn log_in(&self, request: Request<Incoming>) -> Result<Reply> {
        let body = Limited::new(request.into_body(), MAX_FORM).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let Some(name) = name_in(&body) else {
            let text = "the body must be name=N, N 1 to 64 letters and digits\n";
            return Ok(http::status(StatusCode::BAD_REQUEST, text));
        };
        let id = new_id()?;
        self.store.set(&key(&id), name.as_bytes(), Some(LIFE)).await?;
        let text = format!("welcome {name}, says worker {}\n", self.worker);
        Ok(with_cookie(http::text(text), &id, LIFE))
    }

    async fn log_out(&self, request: &Request<Incoming>) -> Result<Reply> {
        if let Some(id) = id_in(request) {
            self.store.delete(&key(id)).await?;
        }
        Ok(with_cookie(http::text("goodbye\n"), "", Duration::ZERO))
    }

    /// Who is logged in, for another hour from now. Only if the session is still there: it is never brought back.
    async fn name(&self, request: &Request<Incoming>) -> Result<Option<String>> {
        let Some(id) = id_in(request) else { return Ok(None) };
        let Some(name) = self.store.get(&key(id)).await? else { return Ok(None) };
        self.store.compare_and_set(&key(id), Some(&name), Some(&name), Some(LIFE)).await?;
        Ok(String::from_utf8(name).ok())
    }
}

fn key(id: &str) -> Vec<u8> {
    format!("session:{id}").into_bytes()
}

/// 128 bits of the operating system's randomness: nobody guesses another's session.
fn new_id() -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// The id in the request's cookie, if it looks like one.
fn id_in(request: &Request<Incoming>) -> Option<&str> {
    let cookies = request.headers().get_all(header::COOKIE).iter();
    let mut pairs = cookies.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(';'));
    let id = pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

fn name_in(form: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(form).ok()?.strip_prefix("name=")?;
    let fits =
        (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| name.into())
}

/// No script reads the cookie, and no other site's form sends it. Behind TLS, add `Secure`.
fn with_cookie(mut reply: Reply, id: &str, life: Duration) -> Reply {
    let life = life.as_secs();
    let cookie = format!("{COOKIE}={id}; HttpOnly; SameSite=Lax; Path=/; Max-Age={life}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        reply.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    reply
}
