//! The driver and a cluster, in both modes.

use std::time::Duration;

use bimodal::{
    Address, Result, Worker, http,
    load::{Arrival, Expect, Load, Request, Reuse, Until, usage},
};

use crate::support::{Scenario, Scene, both, events::fork_listening};

pub const SCENARIOS: &[Scenario] = &[
    both("a_cluster_is_driven_and_its_workers_are_counted", counted),
    both("a_cluster_uses_cpu_and_memory", used),
];

async fn body(worker: Worker) -> Result<()> {
    let listener = worker.listen("127.0.0.1:0").await?;
    let text = format!(r#"{{"worker":{}}}"#, worker.id());
    http::serve(listener, http::service_fn(move |_| std::future::ready(http::text(text.clone()))))
        .await
}

fn load(address: &Address) -> Load {
    Load::new(&format!("http://{address}/")).unwrap().connections(8)
}

fn counted(scene: &Scene) {
    let cluster = scene.builder().launch(body).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let expect = Expect { length: Some(r#"{"worker":1}"#.len() as u64), ..Expect::default() };
    let load = load(&address)
        .request(1, Request { expect, ..Request::get("/") })
        .until(Until::Requests(2000))
        .count_by("worker");
    let open = load.clone().arrival(Arrival::Poisson { per_second: 4000.0 });
    let every = [load.clone(), load.clone().reuse(Reuse::Close), load.pipeline(4).threads(2), open];
    for load in every {
        let outcome = load.run().unwrap();
        assert_eq!(outcome.completed(), 2000, "{}", outcome.failures());
        assert_eq!(outcome.workers.values().sum::<u64>(), 2000);
        let ids: Vec<_> = workers.iter().map(|worker| worker.id().to_string()).collect();
        assert!(outcome.workers.keys().all(|id| ids.contains(id)), "{:?}", outcome.workers);
        assert!(outcome.cpu > Duration::ZERO && !outcome.lag.is_empty());
    }
    cluster.shutdown().unwrap();
}

fn used(scene: &Scene) {
    let cluster = scene.builder().launch(body).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    let pid = std::process::id();
    let before = usage::cpu(pid).unwrap();
    let outcome = load(&address).until(Until::Requests(3000)).run().unwrap();
    let after = usage::cpu(pid).unwrap();
    assert_eq!(outcome.completed(), 3000, "{}", outcome.failures());
    let spent = after.since(&before);
    assert!(spent > Duration::ZERO);
    // Nothing turns negative, whoever of this test program's threads came and went.
    assert_eq!(before.since(&before), Duration::ZERO);
    if !scene.is_process() {
        let workers = after.of_threads("bimodal-").since(&before.of_threads("bimodal-"));
        assert!(workers > Duration::ZERO && workers <= spent);
    }
    let memory = usage::memory(pid).unwrap();
    let least = if scene.is_process() { 3 } else { 1 };
    assert!(memory.processes >= least, "{memory:?}");
    assert!(memory.threads > memory.processes && memory.descriptors > 3 * memory.processes);
    assert!(memory.pss > 0 && memory.private <= memory.rss && memory.pss <= memory.rss);
    cluster.shutdown().unwrap();
}
