//! The store of a cluster, as workers and the primary find it. What the store itself promises is tested in
//! `tests/store`.

#[cfg(feature = "store-lmdb")]
use bimodal::store::Lmdb;
use bimodal::{Builder, ErrorKind, ExitStatus, Mode, Result, Setup, Worker, store::Storage};

use crate::{
    bodies::idle,
    support::{
        DEADLINE, Scenario, Scene, both,
        events::{next_message, until_named},
        only,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    #[cfg(feature = "store-lmdb")]
    both("a_store_is_the_same_for_all_and_outlives_workers", shared),
    #[cfg(feature = "store-lmdb")]
    both("what_one_worker_publishes_the_others_receive", published),
    #[cfg(feature = "redis")]
    both("two_primaries_meet_in_redis", meet),
    // Threads have a store without a choice.
    only(&[Mode::Thread], "threads_share_a_store_by_default", by_default),
    // It is what is not there.
    only(&[Mode::Process], "processes_have_no_store_by_default", no_default),
    both("a_store_that_cannot_be_opened_is_an_error", unopened),
];

/// A place that workers find: what the scenario makes, a worker is given.
const PLACE: &str = "BIMODAL_TEST_STORE";

fn at(scene: &Scene, builder: Builder, place: &str, storage: fn(String) -> Storage) -> Builder {
    let place = std::env::var(PLACE).unwrap_or_else(|_| place.into());
    let builder = builder.store(storage(place.clone()));
    // A thread runs the very body that this program has made.
    if scene.is_process() { builder.setup(Setup::new().env(PLACE, place)) } else { builder }
}

#[cfg(feature = "store-lmdb")]
fn in_directory(scene: &Scene) -> (Builder, Directory) {
    let directory = Directory::new(scene);
    let storage = |place: String| Storage::Lmdb(Lmdb::new(place));
    (at(scene, scene.builder(), directory.0.to_str().unwrap(), storage), directory)
}

#[cfg(feature = "store-lmdb")]
fn shared(scene: &Scene) {
    let (builder, _directory) = in_directory(scene);
    let cluster = builder.launch(count).unwrap();
    let store = cluster.store().unwrap();
    let workers = [cluster.fork().unwrap(), cluster.fork().unwrap()];
    for (turn, worker) in workers.iter().chain(&workers).enumerate() {
        let _ = worker.send(()).unwrap();
        assert_eq!(next_message::<i64>(&cluster), (worker.id(), turn as i64 + 1));
        assert_eq!(store.add(b"n", 0).wait().unwrap(), turn as i64 + 1);
    }
    workers[0].kill().unwrap();
    until_named(&cluster, "exit", 1);
    let next = cluster.fork().unwrap();
    let _ = next.send(()).unwrap();
    assert_eq!(next_message::<i64>(&cluster), (next.id(), 5));
    cluster.shutdown().unwrap();
    assert_eq!(store.get(b"n").wait().unwrap().unwrap(), b"5");
}

/// With every message counts one on.
async fn count(worker: Worker) -> Result<()> {
    let store = worker.store()?;
    while worker.recv().await.is_some() {
        let _ = worker.send(store.add(b"n", 1).await?)?;
    }
    Ok(())
}

#[cfg(feature = "store-lmdb")]
fn published(scene: &Scene) {
    let (builder, _directory) = in_directory(scene);
    let cluster = builder.launch(hear).unwrap();
    let workers = [cluster.fork().unwrap(), cluster.fork().unwrap()];
    until_named(&cluster, "message", 2);
    let heard = cluster.store().unwrap().subscribe(b"news").wait().unwrap();
    let _ = workers[0].send(()).unwrap();
    let messages = until_named(&cluster, "message", 2).messages::<String>();
    let mut told: Vec<_> =
        messages.into_iter().map(|(worker, text)| (worker.get(), text)).collect();
    told.sort();
    assert_eq!(told, [(1, "from worker 1".into()), (2, "from worker 1".into())]);
    assert_eq!(heard.wait(DEADLINE).unwrap().unwrap(), b"from worker 1");
}

/// Tells what it hears, and says something when it is told to.
#[cfg(feature = "store-lmdb")]
async fn hear(worker: Worker) -> Result<()> {
    let store = worker.store()?;
    let news = store.subscribe(b"news").await?;
    let _ = worker.send(())?;
    if worker.id().get() == 1 && worker.recv().await.is_some() {
        store.publish(b"news", b"from worker 1").await?;
    }
    let _ = worker.send(String::from_utf8_lossy(&news.recv().await?).into_owned())?;
    idle(worker).await;
    Ok(())
}

/// Each with workers of its own, as on two machines.
#[cfg(feature = "redis")]
fn meet(scene: &Scene) {
    let worker = std::env::var_os(PLACE).is_some();
    if !worker && !crate::server::is_there() {
        return;
    }
    let directory = Directory::new(scene);
    let server = (!worker).then(|| crate::server::Server::start(&directory.0));
    let url = server.as_ref().map_or_else(String::new, crate::server::Server::url);
    let launch =
        |builder: Builder| at(scene, builder, &url, Storage::Redis).launch(add_many).unwrap();
    let clusters = [launch(scene.builder()), launch(scene.another(scene.mode, "elsewhere"))];
    let fork = |cluster: &bimodal::Cluster| [cluster.fork().unwrap(), cluster.fork().unwrap()];
    clusters.iter().for_each(|cluster| drop(fork(cluster)));
    let hears = clusters[1].store().unwrap().subscribe(b"news").wait().unwrap();
    clusters.iter().for_each(|cluster| drop(until_named(cluster, "message", 2)));
    for cluster in &clusters {
        assert_eq!(cluster.store().unwrap().add(b"n", 0).wait().unwrap(), 200);
    }
    clusters[0].store().unwrap().publish(b"news", b"hello").wait().unwrap();
    assert_eq!(hears.wait(DEADLINE).unwrap().unwrap(), b"hello");
}

#[cfg(feature = "redis")]
async fn add_many(worker: Worker) -> Result<()> {
    let store = worker.store()?;
    for _ in 0..50 {
        store.add(b"n", 1).await?;
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

fn by_default(scene: &Scene) {
    let cluster = scene.builder().launch(count).unwrap();
    assert_eq!(cluster.settings().store, Some(Storage::Memory));
    for n in 1..=2 {
        let _ = cluster.fork().unwrap().send(()).unwrap();
        assert_eq!(next_message::<i64>(&cluster).1, n);
    }
    assert_eq!(cluster.store().unwrap().get(b"n").wait().unwrap().unwrap(), b"2");
    // Another cluster has another one.
    let other = scene.another(Mode::Thread, "other").launch(count).unwrap();
    assert_eq!(other.store().unwrap().get(b"n").wait().unwrap(), None);
}

fn no_default(scene: &Scene) {
    let cluster = scene.builder().launch(complain).unwrap();
    let error = cluster.store().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setting);
    let text = error.to_string();
    for named in ["`.store(Storage::Lmdb(", "`store-lmdb`", "no default"] {
        assert!(text.contains(named), "{text}");
    }
    let worker = cluster.fork().unwrap();
    assert_eq!(next_message::<String>(&cluster), (worker.id(), text));
    let error = scene.builder().store(Storage::Memory).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setting);
    let text = error.to_string();
    for named in ["`Storage::Memory`", "a store of its own", "`store-lmdb`", "use thread mode"] {
        assert!(text.contains(named), "{text}");
    }
}

async fn complain(worker: Worker) -> Result<()> {
    let _ = worker.send(worker.store().unwrap_err().to_string())?;
    idle(worker).await;
    Ok(())
}

/// The worker fails with the reason; the primary goes on.
fn unopened(scene: &Scene) {
    let builder = scene.builder();
    #[cfg(feature = "redis")]
    let builder = builder.store(Storage::Redis("http://:secret@nowhere".into()));
    #[cfg(not(feature = "redis"))]
    if !scene.is_process() {
        return;
    }
    let cluster = builder.launch(count).unwrap();
    let shown = format!("{:?}", cluster.settings());
    assert!(!shown.contains("secret"), "{shown}");
    let told = cluster.store().unwrap_err().to_string();
    let worker = cluster.fork().unwrap();
    let seen = until_named(&cluster, "exit", 1);
    assert_eq!(seen.exit(worker.id()), ExitStatus::Code(1));
    assert!(seen.error(worker.id()).to_string().contains(&told), "{seen:?}");
}

/// A directory that is removed by whoever has made it.
#[cfg(any(feature = "store-lmdb", feature = "redis"))]
struct Directory(std::path::PathBuf);

#[cfg(any(feature = "store-lmdb", feature = "redis"))]
impl Directory {
    fn new(scene: &Scene) -> Self {
        let name = format!("bimodal-parity-{}-{}-{}", std::process::id(), scene.mode, scene.name);
        let path = std::env::temp_dir().join(name);
        if std::env::var_os(PLACE).is_none() {
            std::fs::create_dir(&path).unwrap();
        }
        Self(path)
    }
}

#[cfg(any(feature = "store-lmdb", feature = "redis"))]
impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os(PLACE).is_none() {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }
}
