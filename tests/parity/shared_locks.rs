//! Locks in a region, and what becomes of them when who holds them dies.

use std::{
    sync::{LockResult, TryLockError},
    time::{Duration, Instant},
};

use bimodal::{
    Cluster, ErrorKind, Mode, Result, SharedBuffer, SharedCell, SharedGuard, SharedMutex,
    SharedView, Worker, WorkerHandle, event_loop,
};

use crate::{
    bodies::idle,
    support::{
        DEADLINE, Scenario, Scene, both,
        events::{next_message, until_named},
        only, wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_lock_has_one_holder_at_a_time", counted),
    both("many_tasks_wait_for_one_lock", crowded),
    both("a_lock_that_is_held_says_so", held),
    both("who_waits_for_a_lock_and_is_killed_takes_it_from_nobody", killed_waiters),
    both("a_lock_of_holders_that_panic_is_poisoned", |scene| hold_and_die(scene, Death::Panic, 20)),
    // A thread cannot be killed while it runs: it releases what it holds, or is abandoned and goes on.
    only(&[Mode::Process], "a_lock_of_holders_that_are_killed_is_poisoned", |scene| {
        hold_and_die(scene, Death::Kill, 200);
    }),
    both("a_lock_that_is_held_between_two_turns_survives_a_kill", killed_between_turns),
    // As above: a thread in the midst of writing cannot be killed.
    only(&[Mode::Process], "a_writer_that_is_killed_leaves_the_old_value", killed_writers),
];

/// Where everything lies: the lock, and words that it guards.
const LOCK: usize = 0;
/// How often the lock was taken, counted without atomic steps.
const TAKEN: usize = 1;
/// 1 while a holder is at work that must not be left half done.
const HALF_DONE: usize = 2;
/// How often somebody found the lock poisoned.
const REPAIRED: usize = 3;
/// 1 when the test is over.
const OVER: usize = 4;

const BYTES: usize = 5 * 8;

fn parts(region: SharedBuffer) -> (SharedMutex, SharedView<u64>) {
    (region.mutex(LOCK).unwrap(), region.view())
}

/// The lock is held: counts that, in two steps that others could come between. First repairs what the last
/// holder left.
fn work<'a>(
    locked: LockResult<SharedGuard<'a>>,
    lock: &SharedMutex,
    words: &SharedView<u64>,
) -> SharedGuard<'a> {
    let guard = locked.unwrap_or_else(|poisoned| {
        assert_eq!(
            words.swap(HALF_DONE, 0).unwrap(),
            1,
            "poisoned, but nothing was left half done"
        );
        words.store(REPAIRED, words.load(REPAIRED).unwrap() + 1).unwrap();
        lock.clear_poison();
        poisoned.into_inner()
    });
    assert_eq!(words.load(HALF_DONE).unwrap(), 0, "half done, but nobody was told");
    let taken = words.load(TAKEN).unwrap();
    // Where many threads want a core it comes back late.
    if taken.is_multiple_of(8) {
        std::thread::yield_now();
    }
    words.store(TAKEN, taken + 1).unwrap();
    guard
}

/// What a worker of these scenarios does, as its first message says; tells how often it had the lock.
async fn obey(worker: Worker) -> Result<()> {
    let (lock, words) = parts(worker.region("lock")?);
    let role = worker.recv().await.map(|message| message.get::<String>()).transpose()?;
    let mut times = 0_u64;
    match role.as_deref() {
        Some("block") => {
            while words.load(OVER)? == 0 {
                drop(work(lock.lock(), &lock, &words));
                times += 1;
                event_loop::yield_now().await;
            }
        }
        Some("await") => {
            while words.load(OVER)? == 0 {
                drop(work(lock.lock_async().await, &lock, &words));
                times += 1;
                event_loop::yield_now().await;
            }
        }
        _ => hold(&worker, &lock, &words).await?,
    }
    let _ = worker.send(times)?;
    idle(worker).await;
    Ok(())
}

/// Takes the lock, says so, and never releases it. Told something, it panics.
async fn hold(worker: &Worker, lock: &SharedMutex, words: &SharedView<u64>) -> Result<()> {
    let locked =
        if worker.id().get().is_multiple_of(2) { lock.lock() } else { lock.lock_async().await };
    let _guard = work(locked, lock, words);
    words.store(HALF_DONE, 1)?;
    let _ = worker.send(())?;
    let told = worker.recv().await;
    assert!(told.is_none(), "it was to panic");
    Ok(())
}

fn launch(scene: &Scene) -> (Cluster, SharedMutex, SharedView<u64>) {
    let cluster = scene.builder().region("lock", BYTES).launch(obey).unwrap();
    let (lock, words) = parts(cluster.region("lock").unwrap());
    (cluster, lock, words)
}

fn fork(cluster: &Cluster, role: &str) -> WorkerHandle {
    let worker = cluster.fork().unwrap();
    let _ = worker.send(role.to_owned()).unwrap();
    worker
}

/// Lets the workers that count come to their end; says how often they had the lock.
fn end(cluster: &Cluster, words: &SharedView<u64>, counting: usize) -> u64 {
    words.store(OVER, 1).unwrap();
    (0..counting).map(|_| next_message::<u64>(cluster).1).sum()
}

/// When fewer turns are many.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

fn counted(scene: &Scene) {
    let (cluster, lock, words) = launch(scene);
    for role in ["block", "await", "block", "await"] {
        fork(&cluster, role);
    }
    let mut own = 0;
    let begun = Instant::now();
    wait_until("many turns", || {
        drop(work(lock.lock(), &lock, &words));
        own += 1;
        let taken = words.load(TAKEN).unwrap();
        // A turn gives the core away, and on a busy machine it is long until that comes back.
        taken > 5_000 || begun.elapsed() > LONG_ENOUGH && taken > own
    });
    let theirs = end(&cluster, &words, 4);
    assert_eq!(words.load(TAKEN).unwrap(), own + theirs);
    assert!(theirs > 0 && words.load(REPAIRED).unwrap() == 0 && !lock.is_poisoned());
}

const TASKS: u64 = 300;

fn crowded(scene: &Scene) {
    let cluster = scene.builder().region("lock", BYTES).launch(crowd).unwrap();
    let (lock, words) = parts(cluster.region("lock").unwrap());
    let guard = lock.lock().unwrap();
    for _ in 0..2 {
        cluster.fork().unwrap();
    }
    // All tasks wait, and the loops are free to say so.
    until_named(&cluster, "message", 2);
    drop(guard);
    until_named(&cluster, "message", 2);
    assert_eq!(words.load(TAKEN).unwrap(), 2 * TASKS);
}

/// More tasks than may sleep in the kernel.
async fn crowd(worker: Worker) -> Result<()> {
    let (lock, words) = parts(worker.region("lock")?);
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (lock, words) = (lock.clone(), words.clone());
            event_loop::spawn(async move { drop(work(lock.lock_async().await, &lock, &words)) })
        })
        .collect();
    event_loop::yield_now().await;
    let _ = worker.send(())?;
    for task in tasks {
        task.await.expect("a task was cancelled");
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

fn held(scene: &Scene) {
    let (cluster, lock, _) = launch(scene);
    let holder = fork(&cluster, "hold");
    next_message::<()>(&cluster);
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    let soon = Duration::from_millis(30);
    let start = Instant::now();
    assert!(matches!(lock.lock_timeout(soon), Err(TryLockError::WouldBlock)));
    assert!(start.elapsed() >= soon);
    // It returns from its body, and the guard is dropped.
    holder.disconnect().unwrap();
    let guard = lock.lock_timeout(DEADLINE).unwrap();
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)), "also for its own process");
    drop(guard);
    drop(lock.try_lock().unwrap());
}

fn killed_waiters(scene: &Scene) {
    let cluster = scene.builder().region("lock", BYTES).launch(wait_in_line).unwrap();
    let (lock, words) = parts(cluster.region("lock").unwrap());
    let guard = lock.lock().unwrap();
    let workers: Vec<_> = (0..6).map(|_| cluster.fork().unwrap()).collect();
    until_named(&cluster, "message", 6);
    for killed in &workers[..5] {
        killed.kill().unwrap();
    }
    until_named(&cluster, "exit", 5);
    drop(guard);
    assert_eq!(next_message::<u64>(&cluster), (workers[5].id(), 0));
    assert!(!lock.is_poisoned(), "none of them held it");
    assert_eq!(words.load(TAKEN).unwrap(), 1);
}

async fn wait_in_line(worker: Worker) -> Result<()> {
    let (lock, words) = parts(worker.region("lock")?);
    assert!(lock.try_lock().is_err(), "it was to be held");
    let _ = worker.send(())?;
    drop(work(lock.lock_async().await, &lock, &words));
    let _ = worker.send(words.load(REPAIRED)?)?;
    idle(worker).await;
    Ok(())
}

#[derive(Clone, Copy)]
enum Death {
    Kill,
    Panic,
}

/// One after the other takes the lock and dies; two go on counting all the while. Each death is noticed
/// once, by whoever comes next.
fn hold_and_die(scene: &Scene, death: Death, deaths: u64) {
    let (cluster, lock, words) = launch(scene);
    for role in ["block", "await"] {
        fork(&cluster, role);
    }
    let mut victims = vec![fork(&cluster, "hold"), fork(&cluster, "hold")];
    for turn in 1..=deaths {
        let (id, ()) = next_message::<()>(&cluster);
        let at = victims.iter().position(|victim| victim.id() == id).unwrap();
        let victim = victims.swap_remove(at);
        if turn + 2 <= deaths {
            victims.push(fork(&cluster, "hold"));
        }
        match death {
            Death::Kill => victim.kill().unwrap(),
            Death::Panic => drop(victim.send("now".to_owned()).unwrap()),
        }
        wait_until("the death noticed", || words.load(REPAIRED).unwrap() == turn);
    }
    let theirs = end(&cluster, &words, 2);
    assert_eq!(words.load(TAKEN).unwrap(), theirs + deaths);
    assert!(victims.is_empty() && theirs > 0 && !lock.is_poisoned());
}

fn killed_between_turns(scene: &Scene) {
    let (cluster, lock, words) = launch(scene);
    let holder = fork(&cluster, "hold");
    next_message::<()>(&cluster);
    assert!(!lock.is_poisoned());
    holder.kill().unwrap();
    assert!(until_named(&cluster, "exit", 1).exit(holder.id()).killed());
    let locked = lock.lock_timeout(DEADLINE);
    if scene.is_process() {
        // Its guard was never dropped.
        let Err(TryLockError::Poisoned(poisoned)) = locked else { panic!("{locked:?}") };
        assert_eq!(bimodal::Error::from(poisoned).kind(), ErrorKind::Poisoned);
        let again = lock.lock_timeout(DEADLINE);
        assert!(matches!(again, Err(TryLockError::Poisoned(_))), "until it is cleared");
        drop(again);
        lock.clear_poison();
    } else {
        // The kill came between two turns of the loop, and dropped its guard.
        drop(locked.unwrap());
    }
    drop(lock.try_lock().unwrap());
    assert_eq!(words.load(HALF_DONE).unwrap(), 1, "whoever was killed finished nothing");
}

const VALUE: usize = 1000;

/// Words of the region `cell`, before the cell: who is in the midst of writing.
const WRITER: usize = 0;

fn killed_writers(scene: &Scene) {
    let bytes = 8 + SharedCell::bytes(VALUE);
    let cluster = scene.builder().region("cell", bytes).launch(die_writing).unwrap();
    let region = cluster.region("cell").unwrap();
    let cell = region.cell(8, VALUE).unwrap();
    for turn in 1..=20_u8 {
        let writer = cluster.fork().unwrap();
        wait_until("it writes", || region.load(WRITER).unwrap() == writer.id().get());
        assert_eq!(cell.read(), [turn - 1; VALUE], "readers wait for nobody");
        writer.kill().unwrap();
        until_named(&cluster, "exit", 1);
        assert_eq!(cell.read(), [turn - 1; VALUE]);
        let next = cell.clone();
        let next = std::thread::spawn(move || next.write(&[turn; VALUE]).unwrap());
        wait_until("the next writer", || next.is_finished());
        assert_eq!(cell.read(), [turn; VALUE]);
    }
}

async fn die_writing(worker: Worker) -> Result<()> {
    let region = worker.region("cell")?;
    region.cell(8, VALUE)?.update(|bytes| {
        bytes[..VALUE / 2].fill(b'x');
        // An error would be seen as one of the test: nobody says that it writes.
        let _ = region.store(WRITER, worker.id().get());
        loop {
            std::thread::park();
        }
    })
}
