//! What the workers of the scenarios do.

use std::net::TcpStream;

use bimodal::{Address, Cluster, Connection, Listener, Result, Worker, WorkerHandle, event_loop};

use crate::support::trap::{self, Trap};

/// Where scenarios listen: any free port, the same for all workers.
pub const ANYWHERE: &str = "127.0.0.1:0";

/// Greets every connection with the worker's id and closes it. Told a text, steps into that trap.
pub async fn greet(worker: Worker) -> Result<()> {
    greet_on(worker, ANYWHERE.parse()?).await
}

/// [`greet`], somewhere else.
pub async fn greet_on(worker: Worker, address: Address) -> Result<()> {
    let listener = worker.listen(&address).await?;
    event_loop::spawn(step_into_traps(worker.clone())).detach();
    greet_all(worker, listener).await
}

pub async fn greet_all(worker: Worker, mut listener: Listener) -> Result<()> {
    while let Some(connection) = listener.accept().await? {
        say(&connection, &worker).await;
    }
    Ok(())
}

/// Greets every connection and keeps it until the other side closes it.
pub async fn keep(worker: Worker) -> Result<()> {
    let mut listener = worker.listen(ANYWHERE).await?;
    while let Some(connection) = listener.accept().await? {
        let worker = worker.clone();
        event_loop::spawn(async move {
            say(&connection, &worker).await;
            let _ = connection.read(&mut [0]).await;
        })
        .detach();
    }
    Ok(())
}

/// Does nothing until it is told to leave.
pub async fn idle(worker: Worker) {
    worker.draining().await;
}

/// Steps into the trap that the first message names.
pub async fn get_stuck(worker: &Worker) {
    trap::step_into(&worker.recv().await.unwrap().get::<String>().unwrap());
}

/// Forks a worker whose body begins with [`get_stuck`], and waits until it is. Dropping the stream lets it go.
pub fn fork_stuck(cluster: &Cluster, trap: &Trap) -> (WorkerHandle, TcpStream) {
    let worker = cluster.fork().unwrap();
    let _ = worker.send(trap.address()).unwrap();
    (worker, trap.caught())
}

/// Steps into the trap that each message names.
pub async fn step_into_traps(worker: Worker) {
    while let Some(message) = worker.recv().await {
        trap::step_into(&message.get::<String>().unwrap());
    }
}

/// The other side may have gone; that is its own affair.
pub async fn say(connection: &Connection, worker: &Worker) {
    let _ = connection.write_all(format!("{}\n", worker.id()).as_bytes()).await;
}
