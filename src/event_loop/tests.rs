//! The loop from the outside, with real descriptors, clocks and threads.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::thread;

use mio::Interest;

use super::*;

const MS: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(20);

fn new_loop() -> EventLoop {
    EventLoop::new().unwrap()
}

/// Runs `future` on a fresh loop, with a limit.
fn run<F: Future>(future: F) -> F::Output {
    let mut event_loop = new_loop();
    event_loop.block_on(async { timeout(DEADLINE, future).await.unwrap() }).unwrap()
}

fn stream_pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

fn source(stream: UnixStream) -> Source<UnixStream> {
    Source::new(stream, Interest::READABLE | Interest::WRITABLE).unwrap()
}

async fn read_some(source: &Source<UnixStream>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1024];
    let read = source.read_io(|mut stream| stream.read(&mut buffer)).await?;
    Ok(buffer[..read].to_vec())
}

/// A task that is always runnable.
fn spin() -> impl Future<Output = ()> {
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Records that it was dropped, and whether a loop was current then.
struct DropFlag(Rc<Cell<Option<bool>>>);

impl Drop for DropFlag {
    fn drop(&mut self) {
        self.0.set(Some(core::with_entered(|_| ()).is_some()));
    }
}

fn drop_flag() -> (DropFlag, Rc<Cell<Option<bool>>>) {
    let seen = Rc::default();
    (DropFlag(Rc::clone(&seen)), seen)
}

#[test]
fn a_task_gives_its_output_to_the_joiner() {
    assert_eq!(run(async { spawn(async { 7 }).await }), Ok(7));
}

#[test]
fn a_detached_task_runs_on() {
    let done = Rc::new(Cell::new(false));
    let seen = Rc::clone(&done);
    run(async move {
        spawn(async move { seen.set(true) }).detach();
        yield_now().await;
    });
    assert!(done.get());
}

#[test]
fn dropping_the_handle_drops_the_future_at_once() {
    run(async {
        let (flag, dropped) = drop_flag();
        let task = spawn(async move {
            let _flag = flag;
            pending::<()>().await;
        });
        yield_now().await;
        assert!(!task.is_finished());
        drop(task);
        assert_eq!(dropped.get(), Some(true));
    });
}

#[test]
fn a_task_may_drop_its_own_handle() {
    run(async {
        let (flag, dropped) = drop_flag();
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let cell = Rc::clone(&own);
        let task = spawn(async move {
            let _flag = flag;
            drop(cell.take());
            pending::<()>().await;
        });
        own.replace(Some(task));
        yield_now().await;
        assert_eq!(dropped.get(), Some(true));
    });
}

#[test]
fn tasks_may_spawn_and_cancel_from_destructors() {
    struct SpawnAtDrop(Option<JoinHandle<()>>, Rc<Cell<bool>>);
    impl Drop for SpawnAtDrop {
        fn drop(&mut self) {
            drop(self.0.take());
            let ran = Rc::clone(&self.1);
            spawn(async move { ran.set(true) }).detach();
        }
    }
    let ran = Rc::new(Cell::new(false));
    let at_end = Rc::new(Cell::new(false));
    let mut event_loop = new_loop();
    event_loop
        .block_on(async {
            let guard = SpawnAtDrop(Some(spawn(pending())), Rc::clone(&ran));
            let task = spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            yield_now().await;
            drop(task);
            yield_now().await;
            let last = SpawnAtDrop(Some(spawn(pending())), Rc::clone(&at_end));
            let last = async move {
                let _last = last;
                pending::<()>().await;
            };
            spawn(last).detach();
        })
        .unwrap();
    assert!(ran.get());
    drop(event_loop);
    assert!(!at_end.get(), "a closed loop runs nothing");
}

#[test]
fn a_waker_of_a_finished_task_does_not_wake_the_next_one_in_its_slot() {
    run(async {
        let stolen: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = Rc::clone(&stolen);
        let first = poll_fn(move |cx| {
            keep.replace(Some(cx.waker().clone()));
            Poll::Ready(())
        });
        spawn(first).await.unwrap();
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        let _second = spawn(poll_fn(move |_| -> Poll<()> {
            count.set(count.get() + 1);
            Poll::Pending
        }));
        yield_now().await;
        let waker = stolen.take().unwrap();
        waker.wake_by_ref();
        thread::spawn(move || waker.wake()).join().unwrap();
        yield_now().await;
        yield_now().await;
        assert_eq!(polls.get(), 1);
    });
}

#[test]
fn urgent_tasks_go_first_and_do_not_starve_the_others() {
    run(async {
        let order: Rc<RefCell<Vec<&str>>> = Rc::default();
        let (slow, fast) = (Rc::clone(&order), Rc::clone(&order));
        let tasks = [
            spawn(async move { slow.borrow_mut().push("ordinary") }),
            spawn_urgent(async move { fast.borrow_mut().push("urgent") }),
        ];
        yield_now().await;
        assert_eq!(*order.borrow(), ["urgent", "ordinary"]);
        drop(tasks);
        let _busy = spawn_urgent(spin());
        spawn(async {}).await.unwrap();
    });
}

#[test]
fn a_busy_task_starves_neither_timers_nor_sources() {
    run(async {
        let polls = Rc::new(Cell::new(0_usize));
        let count = Rc::clone(&polls);
        let _busy = spawn(poll_fn(move |cx| -> Poll<()> {
            count.set(count.get() + 1);
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let before = (current_stats().turns, polls.get());
        yield_now().await;
        let after = (current_stats().turns, polls.get());
        assert!(after.1 - before.1 <= TASK_POLLS_PER_TURN * (after.0 - before.0) as usize);

        spawn(sleep(2 * MS)).await.unwrap();
        let (near, far) = stream_pair();
        let near = source(near);
        let reader = spawn(async move { read_some(&near).await });
        yield_now().await;
        (&far).write_all(b"x").unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), b"x");
    });
}

#[test]
fn a_task_that_the_root_wakes_for_an_event_runs_in_the_same_turn() {
    run(async {
        let (near, far) = stream_pair();
        let near = source(near);
        assert!(timeout(MS, read_some(&near)).await.is_err(), "nothing is there yet");
        (&far).write_all(b"x").unwrap();
        read_some(&near).await.unwrap();
        let turn = current_stats().turns;
        assert_eq!(spawn(async { current_stats().turns }).await, Ok(turn));
    });
}

#[test]
fn yielding_continues_in_the_next_turn() {
    run(async {
        let task = spawn(async {
            let before = current_stats().turns;
            yield_now().await;
            current_stats().turns - before
        });
        assert_eq!(task.await, Ok(1));
    });
}

#[test]
fn sleep_is_never_early_and_timers_fire_in_order() {
    run(async {
        let start = clock::now();
        let order: Rc<RefCell<Vec<u64>>> = Rc::default();
        let tasks: Vec<_> = [9, 3, 6]
            .map(|ms| {
                let order = Rc::clone(&order);
                spawn(async move {
                    sleep_until(start + ms as u32 * MS).await;
                    assert!(clock::now() >= start + ms as u32 * MS);
                    order.borrow_mut().push(ms);
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [3, 6, 9]);
    });
}

#[test]
fn a_waiting_sleep_follows_its_resets() {
    run(async {
        let mut timer = sleep(Duration::from_secs(3600));
        let mut resets = 0;
        poll_fn(|cx| {
            if resets == 0 {
                assert!(Pin::new(&mut timer).poll(cx).is_pending());
                timer.reset(now() + MS);
                timer.reset(now() + 3 * MS);
            }
            resets += 1;
            Pin::new(&mut timer).poll(cx)
        })
        .await;
        assert!(clock::now() >= timer.deadline());
        timer.reset(now() + MS);
        (&mut timer).await;
        assert!(clock::now() >= timer.deadline());
    });
}

#[test]
fn timeout_ends_what_takes_too_long() {
    run(async {
        let (flag, dropped) = drop_flag();
        let slow = async move {
            let _flag = flag;
            pending::<()>().await;
        };
        assert!(timeout(MS, slow).await.is_err());
        assert!(dropped.get().is_some());
        assert_eq!(timeout(Duration::MAX, async { 1 }).await, Ok(1));
    });
}

#[test]
fn an_interval_skips_what_it_missed() {
    run(async {
        let start = now();
        let mut beat = interval(2 * MS);
        assert_eq!(beat.tick().await, start + 2 * MS);
        // The loop is blocked over several ticks.
        while clock::now() < start + 9 * MS {
            thread::yield_now();
        }
        yield_now().await;
        beat.tick().await;
        let next = beat.tick().await;
        assert!(next >= start + 10 * MS);
        assert_eq!((next - start).as_nanos() % (2 * MS).as_nanos(), 0);
    });
}

#[test]
fn a_source_waits_for_data_and_sees_the_end() {
    run(async {
        let (near, far) = stream_pair();
        let near = source(near);
        let reader = spawn(async move {
            let first = read_some(&near).await.unwrap();
            let end = read_some(&near).await.unwrap();
            (first, end)
        });
        yield_now().await;
        (&far).write_all(b"hello").unwrap();
        yield_now().await;
        drop(far);
        assert_eq!(reader.await, Ok((b"hello".to_vec(), Vec::new())));
    });
}

#[test]
fn a_full_source_waits_for_room_and_sees_a_hang_up() {
    run(async {
        let (near, mut far) = stream_pair();
        let near = source(near);
        let writer = spawn(async move {
            loop {
                if let Err(error) = near.write_io(|mut stream| stream.write(&[0; 65536])).await {
                    return error.kind();
                }
            }
        });
        yield_now().await;
        assert!(!writer.is_finished());
        let mut buffer = vec![0; 1 << 20];
        while far.read(&mut buffer).is_ok() {}
        // The writer continues; `run` limits the wait.
        while far.read(&mut buffer).is_err() {
            yield_now().await;
        }
        drop(far);
        assert_eq!(writer.await, Ok(io::ErrorKind::BrokenPipe));
    });
}

#[test]
fn an_event_for_a_source_that_is_gone_is_ignored() {
    run(async {
        let (a, b) = stream_pair();
        let (first, stale) = {
            let first = source(a);
            let token = first.token();
            (first.into_inner(), token)
        };
        let second = source(b);
        second.clear_readable();
        assert_ne!(second.token(), stale);
        current().mark_ready(stale, true, true);
        let readable = poll_fn(|cx| Poll::Ready(second.poll_readable(cx).is_ready())).await;
        assert!(!readable);
        // Deregistered: the same descriptor can be registered again.
        drop(source(first));
    });
}

#[test]
fn a_source_can_be_refused() {
    run(async {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Source::new(file, Interest::READABLE).is_err());
        assert!(current().sources.borrow().is_empty());
    });
}

#[test]
fn wake_ups_from_four_threads_are_not_lost() {
    const ROUNDS: usize = 20_000;
    run(async {
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let sent = Arc::new(AtomicUsize::new(0));
                let (to_thread, wakers) = crossbeam_channel::bounded::<Waker>(1);
                let counter = Arc::clone(&sent);
                let ringer = thread::spawn(move || {
                    for waker in wakers {
                        counter.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                });
                let mut asked = 0;
                let task = spawn(poll_fn(move |cx| {
                    // Each answer must arrive before the next question; a lost wake-up hangs the test.
                    if sent.load(Ordering::Relaxed) == asked {
                        if asked == ROUNDS {
                            return Poll::Ready(());
                        }
                        asked += 1;
                        to_thread.send(cx.waker().clone()).unwrap();
                    }
                    Poll::Pending
                }));
                (task, ringer)
            })
            .collect();
        for (task, ringer) in tasks {
            task.await.unwrap();
            ringer.join().unwrap();
        }
    });
}

#[test]
fn the_last_of_many_wake_ups_of_one_task_counts() {
    const WAKES: usize = 20_000;
    run(async {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut ringers = Vec::new();
        poll_fn(|cx| {
            if ringers.is_empty() {
                ringers.extend((0..4).map(|_| {
                    let (sent, waker) = (Arc::clone(&sent), cx.waker().clone());
                    thread::spawn(move || {
                        for _ in 0..WAKES {
                            sent.fetch_add(1, Ordering::Relaxed);
                            waker.wake_by_ref();
                        }
                    })
                }));
            }
            let all = sent.load(Ordering::Relaxed) == 4 * WAKES;
            if all { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}

#[test]
fn the_remote_ends_a_sleep_and_many_rings_are_one() {
    let mut event_loop = new_loop();
    let remote = event_loop.remote();
    for _ in 0..100 {
        remote.wake();
    }
    event_loop.turn(None).unwrap();
    event_loop.turn(Some(clock::now())).unwrap();
    let ringer = thread::spawn(move || remote.wake());
    event_loop.turn(None).unwrap();
    ringer.join().unwrap();
}

#[test]
fn a_turn_ends_at_its_limit() {
    let mut event_loop = new_loop();
    let until = clock::now() + 3 * MS;
    event_loop.turn(Some(until)).unwrap();
    assert!(clock::now() >= until);
    assert_eq!(event_loop.stats().turns, 1);
}

#[derive(Default)]
struct CountingHook {
    refuse: Cell<bool>,
    before: Cell<u32>,
    after: Cell<u32>,
}

impl SleepHook for CountingHook {
    fn before_sleep(&self) -> bool {
        assert_eq!(self.before.get(), self.after.get());
        self.before.set(self.before.get() + 1);
        !self.refuse.get()
    }

    fn after_sleep(&self) {
        self.after.set(self.after.get() + 1);
        assert_eq!(self.before.get(), self.after.get());
    }
}

#[test]
fn hooks_are_asked_only_before_a_real_sleep() {
    let mut event_loop = new_loop();
    let hook = Rc::new(CountingHook::default());
    let second = Rc::new(CountingHook::default());
    let (guard, _second_guard) =
        event_loop.enter(|| (on_sleep(Rc::clone(&hook) as _), on_sleep(Rc::clone(&second) as _)));

    event_loop.turn(Some(clock::now())).unwrap();
    let task = event_loop.enter(|| spawn(spin()));
    event_loop.turn(None).unwrap();
    assert_eq!(hook.before.get(), 0, "no sleep, no question");
    drop(task);
    event_loop.turn(Some(clock::now())).unwrap();

    event_loop.turn(Some(clock::now() + 2 * MS)).unwrap();
    assert_eq!((hook.before.get(), hook.after.get(), second.after.get()), (1, 1, 1));

    hook.refuse.set(true);
    event_loop.turn(None).unwrap();
    assert_eq!((hook.after.get(), second.before.get()), (2, 1), "the second is not asked");

    drop(guard);
    event_loop.turn(Some(clock::now() + 2 * MS)).unwrap();
    assert_eq!((hook.before.get(), second.after.get()), (2, 2));
}

#[test]
fn a_hook_that_makes_work_keeps_the_loop_awake() {
    struct Spawner(Rc<Cell<bool>>);
    impl SleepHook for Spawner {
        fn before_sleep(&self) -> bool {
            let ran = Rc::clone(&self.0);
            spawn(async move { ran.set(true) }).detach();
            true
        }
        fn after_sleep(&self) {}
    }
    let ran = Rc::new(Cell::new(false));
    let mut event_loop = new_loop();
    let _guard = event_loop.enter(|| on_sleep(Rc::new(Spawner(Rc::clone(&ran)))));
    event_loop.turn(None).unwrap();
    assert!(ran.get());
}

#[test]
fn tasks_outlive_a_block_on() {
    let mut event_loop = new_loop();
    let (flag, dropped) = drop_flag();
    let task = event_loop.enter(|| {
        spawn(async move {
            sleep(MS).await;
            let _flag = flag;
            sleep(MS).await;
            5
        })
    });
    event_loop.block_on(yield_now()).unwrap();
    assert_eq!(dropped.get(), None);
    assert_eq!(event_loop.block_on(task).unwrap(), Ok(5));
    assert_eq!(dropped.get(), Some(true));
}

#[test]
fn a_waker_of_an_earlier_block_on_is_void() {
    let mut event_loop = new_loop();
    let old = event_loop.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone()))).unwrap();
    event_loop.enter(|| old.wake_by_ref());
    event_loop.turn(Some(clock::now() + 2 * MS)).unwrap();
    assert!(event_loop.stats().idle >= MS, "the turn has slept");
}

#[test]
fn a_panic_leaves_a_loop_that_can_be_dropped() {
    let mut event_loop = new_loop();
    let (flag, dropped) = drop_flag();
    let (near, _far) = stream_pair();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        event_loop.block_on(async {
            spawn(async move {
                let (_flag, source) = (flag, source(near));
                sleep(Duration::from_secs(3600)).await;
                drop(source);
            })
            .detach();
            yield_now().await;
            spawn(async { panic!("expected by the test") }).detach();
            pending::<()>().await;
        })
    }));
    assert!(panicked.is_err());
    assert!(core::with_entered(|_| ()).is_none(), "no loop is current after the panic");
    assert_eq!(dropped.get(), None);
    drop(event_loop);
    assert_eq!(dropped.get(), Some(true));
}

#[test]
fn a_panicked_task_is_gone_when_the_loop_goes_on() {
    let mut event_loop = new_loop();
    let task = event_loop.enter(|| spawn(async { panic!("expected by the test") }));
    assert!(catch_unwind(AssertUnwindSafe(|| event_loop.turn(None))).is_err());
    assert!(task.is_finished());
    assert!(event_loop.block_on(task).unwrap().is_err());
}

#[test]
fn what_outlives_the_loop_does_nothing() {
    let mut event_loop = new_loop();
    let remote = event_loop.remote();
    let (near, _far) = stream_pair();
    let (waker, task, timer, source) = event_loop
        .block_on(async {
            let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
            (waker, spawn(pending::<()>()), sleep(MS), source(near))
        })
        .unwrap();
    drop(event_loop);
    remote.wake();
    waker.wake_by_ref();
    assert!(task.is_finished());
    drop((waker, task, timer, source));
}

#[test]
fn wakers_of_other_executors_may_call_back() {
    /// Wakes by ringing the loop from within a wake-up.
    struct Relay(Remote, AtomicUsize);
    impl Wake for Relay {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.wake();
            drop(sleep(MS));
            spawn(async {}).detach();
        }
    }
    let mut event_loop = new_loop();
    let relay = Arc::new(Relay(event_loop.remote(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&relay));
    let mut timer = event_loop.enter(|| sleep(MS));
    let mut cx = Context::from_waker(&waker);
    assert!(event_loop.enter(|| Pin::new(&mut timer).poll(&mut cx)).is_pending());
    let limit = clock::now() + DEADLINE;
    while relay.1.load(Ordering::Relaxed) == 0 && clock::now() < limit {
        event_loop.turn(Some(limit)).unwrap();
    }
    assert_eq!(relay.1.load(Ordering::Relaxed), 1);
    assert!(event_loop.enter(|| Pin::new(&mut timer).poll(&mut cx)).is_ready());
}

#[test]
fn loops_nest() {
    let mut outer = new_loop();
    let result = outer.block_on(async {
        let inner = run(async { spawn(async { 1 }).await.unwrap() });
        inner + spawn(async { 2 }).await.unwrap()
    });
    assert_eq!(result.unwrap(), 3);
}

#[test]
fn busy_and_idle_time_are_told_apart() {
    run(async {
        let start = current_stats();
        sleep(10 * MS).await;
        let slept = current_stats().since(&start);
        assert!(slept.idle >= 9 * MS, "{slept:?}");
        let until = clock::now() + 10 * MS;
        while clock::now() < until {}
        yield_now().await;
        let worked = current_stats().since(&start);
        assert!(worked.busy >= 9 * MS, "{worked:?}");
        assert!(worked.utilization() > 0.0 && worked.utilization() < 1.0);
    });
    assert_eq!(LoopStats::default().utilization(), 0.0);
}

#[test]
#[should_panic(expected = "no event loop on this thread")]
fn without_a_loop_the_message_is_clear() {
    let _ = now();
}

#[test]
fn room_is_told_of_while_it_is_watched_and_no_longer() {
    let mut event_loop = new_loop();
    let (near, mut far) = stream_pair();
    let source = event_loop.enter(|| Source::new(near, Interest::READABLE).unwrap());
    let mut is_told_of_room = || {
        source.clear_writable();
        // The peer takes what there is: to the kernel that is news for whoever writes.
        source.get_ref().write_all(&[0; 64]).unwrap();
        far.read_exact(&mut [0; 64]).unwrap();
        event_loop.turn(Some(clock::now() + MS)).unwrap();
        source.poll_writable(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    assert!(!is_told_of_room());
    source.watch_room().unwrap();
    assert!(is_told_of_room());
    source.unwatch_room().unwrap();
    assert!(!is_told_of_room());
}
