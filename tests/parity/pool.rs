//! The pool for heavy work: one that all worker threads share, one of its own in each worker process.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bimodal::{
    Cluster, ErrorKind, Result, Worker, WorkerHandle, event_loop,
    pool::{Lane, Pool, PoolSettings, PoolStats, Run, TaskOptions, Token, WhenFull},
};

use crate::{
    bodies::{ANYWHERE, greet_all, idle},
    pinning::own_cores,
    support::{
        Scenario, Scene, both,
        client::greeting,
        events::{fork_listening, next_message, until_named},
        trap::{self, Trap},
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("heavy_work_in_the_pool_delays_no_request", delays_nobody),
    both("a_panic_in_the_pool_is_its_callers", panics),
    both("a_storm_of_cancellations_in_a_worker_loses_nothing", storm),
    both("a_full_pool_hands_tasks_back", |scene| saturate(scene, WhenFull::Reject)),
    both("a_full_pool_makes_futures_wait", |scene| saturate(scene, WhenFull::Wait)),
    both("a_full_pool_runs_tasks_in_the_caller", |scene| saturate(scene, WhenFull::RunInCaller)),
    both("a_full_pool_drops_the_oldest_task", |scene| saturate(scene, WhenFull::DropOldest)),
    both("what_a_killed_worker_had_queued_never_runs", killed),
    both("worker_threads_share_a_pool_and_processes_have_their_own", shared_or_own),
    both("pool_threads_keep_off_the_cores_of_pinned_loops", keep_off),
    both("a_task_that_does_not_end_holds_up_no_end", endless),
];

fn one_thread() -> PoolSettings {
    Pool::builder().threads(1..=1).stop_timeout(Duration::from_millis(10))
}

/// Forks a worker whose first message is a trap, and waits until a thread of its pool is in there.
fn fork_with_busy_pool(cluster: &Cluster, trap: &Trap) -> (WorkerHandle, TcpStream) {
    let worker = cluster.fork().unwrap();
    let _ = worker.send(trap.address()).unwrap();
    (worker, trap.caught())
}

/// Sends a thread of the worker's pool into the trap that the next message names.
async fn keep_pool_busy(worker: &Worker) -> Run<impl FnOnce(), ()> {
    let trap: String = worker.recv().await.unwrap().get().unwrap();
    worker.pool().run(move || trap::step_into(&trap))
}

fn delays_nobody(scene: &Scene) {
    let cluster = scene.builder().pool(one_thread()).launch(greet_beside_work).unwrap();
    let (workers, address) = fork_listening(&cluster, 1);
    let trap = Trap::new();
    let _ = workers[0].send(trap.address()).unwrap();
    let working = trap.caught();
    for _ in 0..3 {
        assert_eq!(greeting(&address).unwrap(), workers[0].id().to_string());
    }
    drop(working);
    assert_eq!(next_message::<String>(&cluster).1, "done");
}

async fn greet_beside_work(worker: Worker) -> Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    let heavy = worker.clone();
    event_loop::spawn(async move {
        keep_pool_busy(&heavy).await.await.unwrap();
        heavy.send("done".to_owned()).map(drop).unwrap();
    })
    .detach();
    greet_all(worker, listener).await
}

fn panics(scene: &Scene) {
    let cluster = scene.builder().pool(one_thread()).launch(panic_twice).unwrap();
    let worker = cluster.fork().unwrap();
    for _ in 0..2 {
        let told = next_message::<(bool, String)>(&cluster).1;
        assert_eq!(told, (true, "panicked: a bug in a task".into()));
    }
    assert_eq!(next_message::<(u64, u64, usize)>(&cluster).1, (1, 2, 1));
    assert!(!worker.is_dead());
}

async fn panic_twice(worker: Worker) -> Result<()> {
    for _ in 0..2 {
        let error = worker.pool().run(|| panic!("a bug in a task")).await.unwrap_err();
        let _ = worker.send((error.kind() == ErrorKind::Panic, error.to_string()))?;
    }
    worker.pool().run(|| ()).await?;
    let stats = worker.pool().stats();
    let _ = worker.send((stats.completed, stats.panicked, stats.threads))?;
    idle(worker).await;
    Ok(())
}

const STORM: u64 = 4_000;

fn storm(scene: &Scene) {
    let pool = Pool::builder().threads(1..=2).queue(16);
    let cluster = scene.builder().pool(pool).launch(cancel_most).unwrap();
    cluster.fork().unwrap();
    let (awaited, ran, completed, cancelled) = next_message::<(u64, u64, u64, u64)>(&cluster).1;
    assert_eq!(awaited, STORM / 4);
    assert_eq!(ran, completed);
    assert_eq!(completed + cancelled, STORM, "each task has ended in one way");
    assert!(completed >= awaited && cancelled > 0, "{completed} {cancelled}");
}

/// Submits many tasks, awaits each fourth and drops the futures of the others: some were never polled, some wait for a
/// place, some are queued, some run.
async fn cancel_most(worker: Worker) -> Result<()> {
    let pool = worker.pool();
    let ran = Arc::new(AtomicU64::new(0));
    let mut awaited = 0;
    for round in 0..STORM / 64 + 1 {
        let first = round * 64;
        let submit = |_| {
            let ran = ran.clone();
            pool.run(move || ran.fetch_add(1, SeqCst))
        };
        let runs: Vec<_> = (first..STORM.min(first + 64)).map(submit).collect();
        for (number, run) in runs.into_iter().enumerate() {
            match number % 4 {
                0 => drop(run),
                1 => awaited += u64::from(run.await.is_ok()),
                2 => drop(event_loop::spawn(run)),
                _ => {
                    let _ = event_loop::timeout(Duration::ZERO, run).await;
                }
            }
        }
    }
    let at_rest = |stats: &PoolStats| stats.queued + stats.waiting + stats.running == 0;
    while !at_rest(&pool.stats()) || pool.stats().completed + pool.stats().cancelled < STORM {
        event_loop::yield_now().await;
    }
    let stats = pool.stats();
    let _ = worker.send((awaited, ran.load(SeqCst), stats.completed, stats.cancelled))?;
    idle(worker).await;
    Ok(())
}

fn saturate(scene: &Scene, policy: WhenFull) {
    let pool = one_thread().queue(2).when_full(policy);
    let cluster = scene.builder().pool(pool).launch(fill_the_pool).unwrap();
    let trap = Trap::new();
    let (_, busy) = fork_with_busy_pool(&cluster, &trap);
    let full = next_message::<Vec<usize>>(&cluster).1;
    drop(busy);
    let outcomes = next_message::<Vec<String>>(&cluster).1;
    let outcomes: Vec<_> = outcomes.iter().map(String::as_str).collect();
    let (queued, waiting, rejected, dropped, in_caller) =
        (full[0], full[1], full[2], full[3], full[4]);
    assert_eq!(queued, 2, "as many as the queue takes, under any policy");
    let here = "ran in the caller";
    match policy {
        WhenFull::Wait => {
            assert_eq!((waiting, rejected, dropped, in_caller), (2, 0, 0, 0));
            assert_eq!(outcomes, ["ran", "ran", "ran", "ran"]);
        }
        WhenFull::Reject => {
            assert_eq!((waiting, rejected, dropped, in_caller), (0, 2, 0, 0));
            assert_eq!(outcomes, ["ran", "ran", "handed back", "handed back"]);
        }
        WhenFull::RunInCaller => {
            assert_eq!((waiting, rejected, dropped, in_caller), (0, 0, 0, 2));
            assert_eq!(outcomes, ["ran", "ran", here, here]);
        }
        WhenFull::DropOldest => {
            assert_eq!((waiting, rejected, dropped, in_caller), (0, 0, 2, 0));
            assert_eq!(outcomes, ["dropped", "dropped", "ran", "ran"]);
        }
    }
}

/// Submits two tasks more than the queue takes, says how the pool is then, and what became of them.
async fn fill_the_pool(worker: Worker) -> Result<()> {
    let busy = keep_pool_busy(&worker).await;
    let here = std::thread::current().id();
    let submit = |_| worker.pool().run(move || std::thread::current().id() == here);
    let runs: Vec<_> = (0..4).map(submit).collect();
    let stats = worker.pool().stats();
    let counts = [stats.rejected, stats.dropped, stats.in_caller].map(|count| count as usize);
    let full = [&[stats.queued, stats.waiting][..], &counts].concat();
    let _ = worker.send(full)?;
    busy.await?;
    let mut outcomes = Vec::new();
    for run in runs {
        outcomes.push(match run.await {
            Ok(false) => "ran",
            Ok(true) => "ran in the caller",
            Err(error) => match (error.kind(), error.into_task()) {
                (ErrorKind::Full, Some(_)) => "handed back",
                (ErrorKind::Full, None) => "dropped",
                _ => "failed",
            },
        });
    }
    let _ = worker.send(Vec::from_iter(outcomes.into_iter().map(str::to_owned)))?;
    idle(worker).await;
    Ok(())
}

const QUEUED: usize = 100;

fn killed(scene: &Scene) {
    let builder = scene.builder().pool(one_thread()).region("ran", 8);
    let cluster = builder.launch(queue_or_run).unwrap();
    let trap = Trap::new();
    let (worker, busy) = fork_with_busy_pool(&cluster, &trap);
    assert_eq!(next_message::<usize>(&cluster).1, QUEUED);
    worker.kill().unwrap();
    assert!(until_named(&cluster, "exit", 1).exit(worker.id()).killed());
    drop(busy);
    // The next worker finds its own pool empty, or the shared one at work.
    let next = cluster.fork().unwrap();
    let _ = next.send(String::new()).unwrap();
    assert_eq!(next_message::<usize>(&cluster), (next.id(), 0));
    assert_eq!(cluster.region("ran").unwrap().load(0).unwrap(), 0);
}

/// Told of a trap, sends the pool there and queues tasks behind; else runs one task to its end. Says how many tasks
/// are queued then.
async fn queue_or_run(worker: Worker) -> Result<()> {
    if worker.generation() > 1 {
        worker.recv().await;
        worker.pool().run(|| ()).await?;
        let _ = worker.send(worker.pool().stats().queued)?;
        idle(worker).await;
        return Ok(());
    }
    let busy = keep_pool_busy(&worker).await;
    let ran = worker.region("ran")?;
    let count = |_| {
        let ran = ran.clone();
        worker.pool().run(move || ran.add(0, 1).map(drop))
    };
    let queued: Vec<_> = (0..QUEUED).map(count).collect();
    let _ = worker.send(worker.pool().stats().queued)?;
    busy.await?;
    drop(queued);
    Ok(())
}

fn shared_or_own(scene: &Scene) {
    let cluster = scene.builder().pool(one_thread()).launch(count_threads).unwrap();
    let mut found = Vec::new();
    for _ in 0..2 {
        let worker = cluster.fork().unwrap();
        let (from, (before, thread, after)) = next_message::<((usize, u64), String, u64)>(&cluster);
        assert_eq!((from, thread.as_str()), (worker.id(), "bimodal-pool-1"));
        found.push((before, after));
    }
    // No thread is there before the first task. Processes: each its own. Threads: the second finds what the first did.
    let second = if scene.is_process() { ((0, 0), 1) } else { ((1, 1), 2) };
    assert_eq!(found, [((0, 0), 1), second]);
}

/// Says how many threads the pool had and how many tasks it had run, what its thread is called, and how many tasks it
/// has run then.
async fn count_threads(worker: Worker) -> Result<()> {
    let before = worker.pool().stats();
    let urgent = TaskOptions::new().lane(Lane::Urgent);
    let name = |_: &Token| std::thread::current().name().unwrap_or("").to_owned();
    let name = worker.pool().run_with(urgent, name).await?;
    let after = worker.pool().stats();
    let _ = worker.send(((before.threads, before.completed), name, after.completed))?;
    idle(worker).await;
    Ok(())
}

fn keep_off(scene: &Scene) {
    let cluster = scene.builder().pin(true).workers(1).launch(tell_cores).unwrap();
    cluster.fork().unwrap();
    let (of_loop, of_pool) = next_message::<(Vec<usize>, Vec<usize>)>(&cluster).1;
    let all = own_cores();
    let others = if all.len() == 1 { &all[..] } else { &all[1..] };
    assert_eq!((&of_loop[..], &of_pool[..]), (&all[..1], others));
}

async fn tell_cores(worker: Worker) -> Result<()> {
    let of_pool = worker.pool().run(own_cores).await?;
    let _ = worker.send((own_cores(), of_pool))?;
    idle(worker).await;
    Ok(())
}

fn endless(scene: &Scene) {
    let cluster = scene.builder().pool(one_thread()).launch(leave_one_behind).unwrap();
    let trap = Trap::new();
    let (worker, mut endless) = fork_with_busy_pool(&cluster, &trap);
    worker.disconnect().unwrap();
    assert!(until_named(&cluster, "exit", 1).exit(worker.id()).success());
    // A process takes its pool with it; the threads' pool is the cluster's, and goes on.
    let goes_on = !has_ended(&mut endless);
    assert_eq!(goes_on, !scene.is_process());
    let report = cluster.shutdown().unwrap();
    assert_eq!((report.forced_kills, report.abandoned), (0, 0), "{report}");
}

/// Leaves when it is told to, whatever its pool does.
async fn leave_one_behind(worker: Worker) -> Result<()> {
    let trap: String = worker.recv().await.unwrap().get()?;
    worker.pool().submit(move || trap::step_into(&trap))?.detach();
    idle(worker).await;
    Ok(())
}

/// Whether the other side of this connection, which never sends anything, is gone.
fn has_ended(stream: &mut TcpStream) -> bool {
    use std::io::Read as _;
    stream.set_nonblocking(true).unwrap();
    matches!(stream.read(&mut [0]), Ok(0))
}
