//! What the lab keeps in the store of the cluster: the same for all workers, whichever of them ends.

use std::{io::Read as _, time::Duration};

use bimodal::{
    Result, Worker,
    http::{self, Bytes, Full, HeaderMap, HeaderValue, Response, StatusCode, header},
};

/// How long a session lives, and with it what it counts.
const LIFE: Duration = Duration::from_secs(3600);

const COOKIE: &str = "lab=";

/// Counts one on.
pub(crate) async fn count(worker: &Worker) -> Response<Full<Bytes>> {
    match add_one(worker, b"lab:count").await {
        Ok(count) => http::text(format!("{count}\n")),
        Err(error) => away(&error),
    }
}

/// Says how often this session came; whoever has none gets one.
pub(crate) async fn session(worker: &Worker, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let known = headers.get(header::COOKIE).and_then(|value| id_in(value.to_str().ok()?));
    match visit(worker, known).await {
        Ok((id, visits)) => {
            let mut reply = http::text(format!("visit {visits}\n"));
            let life = LIFE.as_secs();
            let cookie = format!("{COOKIE}{id}; HttpOnly; SameSite=Lax; Path=/; Max-Age={life}");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                reply.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            reply
        }
        Err(error) => away(&error),
    }
}

async fn visit(worker: &Worker, known: Option<&str>) -> Result<(String, u64)> {
    let store = worker.store()?;
    while let Some(id) = known {
        // An id that nobody has given does not become a session.
        let Some(found) = store.get(&key(id)).await? else { break };
        let visits = 1 + std::str::from_utf8(&found).map_or(0, |text| text.parse().unwrap_or(0));
        let next = visits.to_string();
        let swap = store.compare_and_set(&key(id), Some(&found), Some(next.as_bytes()), Some(LIFE));
        // Else another request of this session was quicker.
        if swap.await? {
            return Ok((id.into(), visits));
        }
    }
    let id = new_id()?;
    store.set(&key(&id), b"1", Some(LIFE)).await?;
    Ok((id, 1))
}

async fn add_one(worker: &Worker, key: &[u8]) -> Result<i64> {
    worker.store()?.add(key, 1).await
}

fn away(error: &bimodal::Error) -> Response<Full<Bytes>> {
    http::status(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}

fn key(id: &str) -> Vec<u8> {
    format!("lab:session:{id}").into_bytes()
}

fn new_id() -> std::io::Result<String> {
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

fn id_in(cookies: &str) -> Option<&str> {
    let id = cookies.split(';').find_map(|pair| pair.trim().strip_prefix(COOKIE))?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}
