//! axum on tokio's multi-threaded runtime: one listener, tasks stolen between N worker threads.

use std::io;

use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use contenders::{BODY, Options, announce};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    let options = Options::from_args(&[]);
    let runtime =
        Builder::new_multi_thread().worker_threads(options.workers).enable_io().build()?;
    // As a spawned task the accept loop runs on a worker thread: N threads serve, main only waits.
    runtime.block_on(async { runtime.spawn(serve(options)).await.map_err(io::Error::other)? })
}

async fn serve(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    announce(listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // A connection that is already gone refuses the option; reading from it will tell.
        let _ = stream.set_nodelay(true);
    });
    let router = Router::new().route("/plaintext", get(|| async { BODY }));
    axum::serve(listener, router).await
}
