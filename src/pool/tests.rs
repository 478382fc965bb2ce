//! The pool from outside: real threads, held by gates that the tests open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use super::*;
use crate::event_loop::{self, EventLoop};

const DEADLINE: Duration = Duration::from_secs(20);

fn pool(threads: usize) -> PoolSettings {
    Pool::builder().threads(1..=threads)
}

/// Waits for a condition, and fails the test if it does not come.
#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = clock::now() + DEADLINE;
    while !condition() {
        assert!(clock::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A task that holds a thread until it is let go.
struct Held {
    task: Task<()>,
    gate: mpsc::Sender<()>,
}

impl Held {
    fn in_pool(pool: &Pool) -> Self {
        let (gate, opened) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel();
        let task = pool
            .submit(move || {
                began.send(()).unwrap();
                let _ = opened.recv();
            })
            .unwrap();
        begins.recv_timeout(DEADLINE).unwrap();
        Self { task, gate }
    }

    fn let_go(self) {
        drop(self.gate);
        self.task.wait().unwrap();
    }
}

/// Notes when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn kind<T>(result: Result<T, impl Into<Error>>) -> Option<ErrorKind> {
    result.err().map(|error| error.into().kind())
}

#[test]
fn a_task_returns_its_value_and_a_panic_is_its_callers() {
    let pool = pool(1).build().unwrap();
    assert_eq!(pool.stats().threads, 0, "no task has come");
    assert_eq!(pool.submit(|| 7).unwrap().wait().unwrap(), 7);
    let panics: [(fn(), _); 3] = [
        (|| panic!("with a text"), "panicked: with a text"),
        (|| panic!("with a {}", "form"), "panicked: with a form"),
        (|| std::panic::panic_any(7), "panicked: (no text)"),
    ];
    for (task, text) in panics {
        let error = pool.submit(task).unwrap().wait().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Panic, text));
    }
    let name = pool.submit(|| std::thread::current().name().map(str::to_owned));
    assert_eq!(name.unwrap().wait().unwrap().as_deref(), Some("bimodal-pool-1"));
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.completed, stats.panicked), (1, 2, 3), "{stats:?}");
    assert_eq!((stats.wait_time.count(), stats.run_time.count()), (5, 5));
}

/// A panic where nobody waits for one costs no thread, either.
#[test]
fn destructors_that_panic_cost_no_thread() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("a bomb");
            }
        }
    }
    let pool = pool(1).build().unwrap();
    let carried = pool.submit(|| std::panic::panic_any(Bomb)).unwrap().wait();
    assert_eq!(kind(carried), Some(ErrorKind::Panic));
    let held = Held::in_pool(&pool);
    // Nobody takes the result. Detached before it begins: later the result could be the caller's to drop.
    pool.submit(|| Bomb).unwrap().detach();
    let bomb = Bomb;
    let cancelled = pool.submit(move || std::mem::forget(bomb)).unwrap();
    cancelled.cancel();
    assert_eq!(kind(cancelled.wait()), Some(ErrorKind::Cancelled));
    held.let_go();
    assert_eq!(pool.submit(|| 1).unwrap().wait().unwrap(), 1);
    assert_eq!(pool.stats().threads, 1);
}

#[test]
fn dropping_a_future_cancels_what_is_queued_and_frees_its_place_at_once() {
    let pool = pool(1).queue(2).when_full(WhenFull::Reject).build().unwrap();
    let held = Held::in_pool(&pool);
    let dropped = Arc::new(AtomicBool::new(false));
    let inside = Dropped(dropped.clone());
    let queued = pool.run(move || drop(inside));
    assert_eq!(pool.stats().queued, 1);
    drop(queued);
    assert!(dropped.load(SeqCst), "what the closure held is gone");
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.cancelled), (0, 1));
    held.let_go();
    let detached = Arc::new(AtomicBool::new(false));
    let inside = Dropped(detached.clone());
    pool.submit(move || drop(inside)).unwrap().detach();
    wait_until("the detached task", || detached.load(SeqCst));
}

#[test]
fn a_running_task_learns_from_its_token_that_it_was_cancelled() {
    let pool = pool(1).build().unwrap();
    let until_cancelled = |token: &Token| while !token.is_cancelled() {};
    for by_dropping in [true, false] {
        let (began, begins) = mpsc::channel();
        let task = pool.submit_with(TaskOptions::new(), move |token| {
            began.send(()).unwrap();
            until_cancelled(token);
            "told"
        });
        begins.recv_timeout(DEADLINE).unwrap();
        if by_dropping {
            drop(task);
        } else {
            let task = task.unwrap();
            task.cancel();
            assert_eq!(task.wait().unwrap(), "told");
        }
    }
    let timed = TaskOptions::new().deadline(Duration::from_millis(20));
    // Begun in time, unless the machine stood still; then it expires and says so.
    match pool.submit_with(timed, until_cancelled).unwrap().wait() {
        Ok(()) => assert_eq!(pool.stats().completed, 3),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Expired),
    }
}

#[test]
fn a_task_that_has_not_begun_by_its_deadline_never_does() {
    let pool = pool(1).queue(1).build().unwrap();
    let held = Held::in_pool(&pool);
    let options = |ms| TaskOptions::new().deadline(Duration::from_millis(ms));
    // The later one first: the watching thread has to be told of each sooner one. They wait outside of the queue.
    let late = pool.run_with(options(60_000), |_| ());
    let mut event_loop = EventLoop::new().unwrap();
    for round in 1..=3 {
        let expired = pool.run_with(options(10), |_| panic!("too late"));
        let expired = event_loop.block_on(expired).unwrap();
        assert_eq!(kind(expired), Some(ErrorKind::Expired));
        assert_eq!((pool.stats().expired, pool.stats().waiting), (round, 0));
    }
    held.let_go();
    event_loop.block_on(late).unwrap().unwrap();
    let at_once = pool.submit_with(options(0), |_| panic!("too late")).unwrap();
    assert_eq!(kind(at_once.wait()), Some(ErrorKind::Expired));
}

#[test]
fn lanes_decide_who_is_next() {
    let pool = pool(1).build().unwrap();
    let held = Held::in_pool(&pool);
    let (said, heard) = mpsc::channel();
    for lane in [Lane::Background, Lane::Normal, Lane::Urgent] {
        for number in 0..6 {
            let said = said.clone();
            let options = TaskOptions::new().lane(lane);
            pool.submit_with(options, move |_| said.send((lane, number)).unwrap())
                .unwrap()
                .detach();
        }
    }
    held.let_go();
    drop(said);
    let order: Vec<_> = heard.iter().map(|(lane, _)| lane).collect();
    let place = |wanted: Lane| order.iter().position(|lane| *lane == wanted);
    assert_eq!(
        [Lane::Urgent, Lane::Normal, Lane::Background].map(place),
        [Some(0), Some(4), Some(12)]
    );
    assert_eq!(order.len(), 18);
}

#[test]
fn a_full_queue_hands_the_task_back() {
    let pool = pool(1).queue(1).when_full(WhenFull::Reject).build().unwrap();
    let held = Held::in_pool(&pool);
    let queued = pool.submit(|| 1).unwrap();
    let refused = pool.submit(|| 2).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("its queue of 1 tasks is full"), "{refused}");
    let task = refused.into_task().unwrap();
    assert_eq!(task(), 2, "it can be called");
    let mut event_loop = EventLoop::new().unwrap();
    let refused = event_loop.block_on(pool.run(|| 3)).unwrap().unwrap_err();
    assert_eq!(refused.into_task().unwrap()(), 3);
    assert_eq!(pool.stats().rejected, 2);
    held.let_go();
    assert_eq!(queued.wait().unwrap(), 1);
}

#[test]
fn a_full_queue_makes_the_caller_run_it() {
    let pool = pool(1).queue(1).when_full(WhenFull::RunInCaller).build().unwrap();
    let held = Held::in_pool(&pool);
    let queued = pool.submit(|| 1).unwrap();
    let here = std::thread::current().id();
    let ran = pool.submit(move || std::thread::current().id() == here).unwrap();
    assert!(ran.is_finished() && ran.wait().unwrap());
    let panicked = pool.submit(|| panic!("in the caller")).unwrap().wait();
    assert_eq!(kind(panicked), Some(ErrorKind::Panic));
    assert_eq!(pool.stats().in_caller, 2);
    held.let_go();
    assert_eq!(queued.wait().unwrap(), 1);
}

#[test]
fn a_full_queue_drops_the_oldest_of_the_lowest_lane() {
    let pool = pool(1).queue(2).when_full(WhenFull::DropOldest).build().unwrap();
    let held = Held::in_pool(&pool);
    let submit = |lane| pool.submit_with(TaskOptions::new().lane(lane), |_| ());
    let first = submit(Lane::Normal).unwrap();
    let second = submit(Lane::Urgent).unwrap();
    let third = submit(Lane::Urgent).unwrap();
    assert_eq!(kind(first.wait()), Some(ErrorKind::Full));
    assert_eq!(kind(submit(Lane::Normal)), Some(ErrorKind::Full), "it would drop an urgent one");
    let fourth = submit(Lane::Urgent).unwrap();
    assert_eq!(kind(second.wait()), Some(ErrorKind::Full));
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.dropped, stats.rejected), (2, 2, 1));
    held.let_go();
    third.wait().unwrap();
    fourth.wait().unwrap();
}

#[test]
fn whoever_finds_the_queue_full_waits_for_a_place() {
    let pool = pool(1).queue(1).build().unwrap();
    let held = Held::in_pool(&pool);
    let queued = pool.submit(|| 1).unwrap();
    let submitted = Arc::new(AtomicBool::new(false));
    let blocked = std::thread::spawn({
        let (pool, submitted) = (pool.clone(), submitted.clone());
        move || {
            let task = pool.submit(|| 2).unwrap();
            submitted.store(true, SeqCst);
            task.wait().unwrap()
        }
    });
    wait_until("a thread that waits for a place", || pool.stats().waiting == 1);
    assert!(!submitted.load(SeqCst) && pool.stats().queued == 1);
    // A place that becomes free by a cancellation counts, too.
    drop(queued);
    wait_until("its place", || submitted.load(SeqCst));
    assert_eq!((pool.stats().queued, pool.stats().waiting), (1, 0));
    held.let_go();
    assert_eq!(blocked.join().unwrap(), 2);
}

#[test]
fn a_future_that_waits_for_a_place_does_not_hold_up_its_loop() {
    let pool = pool(1).queue(1).build().unwrap();
    let held = Held::in_pool(&pool);
    let mut event_loop = EventLoop::new().unwrap();
    let sum = event_loop
        .block_on(async {
            let waiting: Vec<_> = (0..50).map(|number| pool.run(move || number)).collect();
            assert_eq!((pool.stats().queued, pool.stats().waiting), (1, 49));
            event_loop::sleep(Duration::from_millis(1)).await;
            held.let_go();
            let mut sum = 0;
            for run in waiting {
                sum += run.await.unwrap();
            }
            sum
        })
        .unwrap();
    assert_eq!(sum, 49 * 50 / 2);
}

/// A pool of one thread whose queue is full of tasks that submit to it and wait.
#[test]
fn tasks_that_wait_for_tasks_of_their_own_pool_get_on() {
    let pool = pool(1).queue(1).build().unwrap();
    fn count(pool: &Pool, depth: usize) -> usize {
        let (inner, other) = (pool.clone(), pool.clone());
        if depth == 0 {
            return 1;
        }
        let one = pool.submit(move || count(&inner, depth - 1)).unwrap();
        let two = pool.submit(move || count(&other, depth - 1)).unwrap();
        one.wait().unwrap() + two.wait().unwrap()
    }
    let inner = pool.clone();
    let result = pool.submit(move || count(&inner, 6)).unwrap().wait_timeout(DEADLINE);
    assert_eq!(result.unwrap().unwrap(), 64);
}

#[test]
fn threads_come_when_they_are_needed_and_go_when_they_are_not() {
    let pool = Pool::builder().threads(1..=3).keep_alive(Duration::from_millis(1));
    let pool = pool.name("coming").build().unwrap();
    let held: Vec<_> = (0..3).map(|_| Held::in_pool(&pool)).collect();
    assert_eq!(pool.stats().threads, 3);
    let queued = pool.submit(|| ()).unwrap();
    assert_eq!((pool.stats().threads, pool.stats().queued), (3, 1));
    held.into_iter().for_each(Held::let_go);
    queued.wait().unwrap();
    wait_until("all threads but one to go", || pool.stats().threads == 1);
    pool.submit(|| ()).unwrap().wait().unwrap();
    let many: Vec<_> = (0..1_000).map(|number| pool.submit(move || number).unwrap()).collect();
    let sum: usize = many.into_iter().map(|task| task.wait().unwrap()).sum();
    assert_eq!(sum, 999 * 1_000 / 2);
}

#[test]
fn dropping_the_last_handle_cancels_what_waits_and_ends_the_threads() {
    let pool = pool(2).build().unwrap();
    let held = Held::in_pool(&pool);
    let core = Arc::downgrade(&pool.handle.core);
    let (ended, ends) = mpsc::channel();
    let running = pool.submit_with(TaskOptions::new(), move |token| {
        while !token.is_cancelled() {}
        ended.send(()).unwrap();
        5
    });
    let queued = pool.submit(|| ()).unwrap();
    let timed = TaskOptions::new().deadline(DEADLINE);
    let watched = pool.submit_with(timed, |_| ()).unwrap();
    let Held { task, gate } = held;
    drop(gate);
    drop(pool);
    assert_eq!(ends.try_recv(), Ok(()), "dropping has waited for it");
    assert_eq!(running.unwrap().wait().unwrap(), 5);
    for task in [queued, watched, task] {
        let _ = task.wait();
    }
    wait_until("everything of the pool to be gone", || core.strong_count() == 0);
}

#[test]
fn a_task_that_does_not_end_holds_nobody_up() {
    let pool = pool(1).stop_timeout(Duration::from_millis(5)).build().unwrap();
    let held = Held::in_pool(&pool);
    let queued = pool.submit(|| ()).unwrap();
    drop(pool);
    assert_eq!(kind(queued.wait()), Some(ErrorKind::Cancelled));
    assert!(!held.task.is_finished());
    held.let_go();
}

/// The last handle may be in a task, on a thread that must not wait for itself.
#[test]
fn the_last_handle_may_be_dropped_by_a_task() {
    let pool = pool(1).stop_timeout(DEADLINE).build().unwrap();
    let (gate, opened) = mpsc::channel::<()>();
    let last = pool.clone();
    let task = pool.submit(move || {
        opened.recv().unwrap();
        drop(last);
    });
    drop(pool);
    gate.send(()).unwrap();
    assert!(task.unwrap().wait_timeout(DEADLINE / 2).is_ok(), "it waited for itself");
}

/// Whatever races with a cancellation: each task is counted once, and the pool goes on.
#[test]
fn a_storm_of_cancellations_loses_nothing() {
    const EACH: usize = 5_000;
    let pool = pool(2).queue(64).build().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for parity in 0..3 {
            let (pool, ran) = (&pool, &ran);
            scope.spawn(move || {
                for number in 0..EACH {
                    let ran = ran.clone();
                    let options = TaskOptions::new().lane(Lane::ALL[number % 3]);
                    let task = pool.run_with(options, move |_| ran.fetch_add(1, SeqCst));
                    if number % 3 != parity {
                        drop(task);
                    } else {
                        wait_for(task);
                    }
                }
            });
        }
    });
    wait_until("the pool to be at rest", || {
        let stats = pool.stats();
        stats.completed + stats.cancelled == 3 * EACH as u64
    });
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.waiting, stats.running), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.completed, ran.load(SeqCst) as u64);
    assert_eq!(stats.wait_time.count(), stats.completed);
    assert!(stats.completed >= EACH as u64 && stats.cancelled > 0, "{stats:?}");
}

/// Waits for a future on this thread.
fn wait_for<F, T>(run: Run<F, T>) -> T {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(run).unwrap().unwrap()
}

#[test]
fn threads_may_use_the_cores_that_the_builder_may() {
    let all = Cores::current().unwrap();
    let pool = pool(1).build().unwrap();
    // As if a pinned loop submitted the first task.
    let pinned = std::thread::spawn(move || {
        let first = core_affinity::get_core_ids().unwrap()[0];
        assert!(core_affinity::set_for_current(first));
        pool.submit(Cores::current).unwrap().wait().unwrap()
    });
    assert_eq!(pinned.join().unwrap(), Some(all));
    let first = core_affinity::get_core_ids().unwrap()[0].id;
    let on_one = Pool::builder().cores([first]).build().unwrap();
    let seen = on_one.submit(Cores::current).unwrap().wait().unwrap();
    assert_eq!(seen, Cores::of(&[first]));
}
