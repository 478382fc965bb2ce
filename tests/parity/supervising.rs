//! What the scenarios of supervised clusters share: a body with routes for every fate, and decisions to
//! wait for.

use std::{hint::black_box, mem, time::Duration};

use bimodal::{
    Address, Builder, Cluster, Decision, Event, Result, Worker, event_loop,
    http::{self, Incoming, Request, service_fn},
};

use crate::{
    bodies::{ANYWHERE, step_into_traps},
    support::{
        client::get,
        events::{until, until_named},
    },
};

/// Starts a supervised cluster of [`serve`] and waits until all its workers listen.
#[track_caller]
pub fn served(builder: Builder, workers: usize) -> (Cluster, Address) {
    let cluster = builder.workers(workers).supervise(serve).unwrap();
    let address = until_named(&cluster, "listening", workers).addresses().remove(0);
    (cluster, address)
}

/// Answers with the worker's id, or does what the path asks for: `/panic`, `/sleep/MS`, `/burn/MS`, `/leak/MIB`,
/// `/ready`. Told a text, steps into that trap.
pub async fn serve(worker: Worker) -> Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    event_loop::spawn(step_into_traps(worker.clone())).detach();
    let service = move |request: Request<Incoming>| answer(worker.clone(), request);
    http::serve(listener, service_fn(service)).await
}

async fn answer(
    worker: Worker,
    request: Request<Incoming>,
) -> http::Response<http::Full<http::Bytes>> {
    let path = request.uri().path().to_owned();
    let (what, number) = path[1..].split_once('/').unwrap_or((&path[1..], "0"));
    let number: u64 = number.parse().unwrap();
    match what {
        "panic" => panic!("a panic was asked for"),
        "sleep" => event_loop::sleep(Duration::from_millis(number)).await,
        "burn" => std::thread::sleep(Duration::from_millis(number)),
        "leak" => mem::forget(black_box(vec![1_u8; (number << 20) as usize])),
        "ready" => return http::text(worker.is_ready().to_string()),
        _ => {}
    }
    http::text(worker.id().to_string())
}

/// Who answers.
#[track_caller]
pub fn who(address: &Address) -> u64 {
    get(address, "/").unwrap().text().parse().unwrap()
}

/// The next decision that `wanted` accepts; other events are skipped.
#[track_caller]
pub fn decision(cluster: &Cluster, what: &str, wanted: impl Fn(&Decision) -> bool) -> Decision {
    let mut seen = until(
        cluster,
        what,
        |event| matches!(event, Event::Decision { decision } if wanted(decision)),
    );
    let Some(Event::Decision { decision }) = seen.0.pop() else { unreachable!() };
    decision
}
