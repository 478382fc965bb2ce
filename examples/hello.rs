//! The same server on every core, as worker processes or as pinned threads:
//!
//! ```text
//! cargo run --release --example hello -- --mode thread     # or --mode process
//! curl http://127.0.0.1:3000                               # again and again: who answers?
//! ps -eLo pid,ppid,lwp,comm,args | grep hello              # what are the workers?
//! ```

use bimodal::{Cluster, Event, Mode, Worker, http};

fn main() -> bimodal::Result<()> {
    let mode = Mode::from_args_or_env()?; // the only line that differs
    let cluster = Cluster::builder(mode).on_event(|event| {
        if let Event::Listening { worker, address } = event {
            println!("{worker} listens on http://{address}");
        }
    });
    let report = cluster.run(|worker: Worker| async move {
        let listener = worker.listen("127.0.0.1:3000").await?;
        let hello = format!("hello from worker {}\n", worker.id());
        let answer = move |_| std::future::ready(http::text(hello.clone()));
        http::serve(listener, http::service_fn(answer)).await
    })?;
    println!("{report}");
    Ok(())
}
