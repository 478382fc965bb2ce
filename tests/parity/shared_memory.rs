//! What a region is used for: numbers of every width, waiting, counters, cells.

use std::time::Duration;

use bimodal::{
    Atom, Cluster, ErrorKind, Event, Mode, Result, SharedBuffer, SharedCell, SharedCounter,
    SharedView, Waited, Worker, event_loop,
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
    both("numbers_of_every_width_are_counted_side_by_side", widths),
    both("a_wait_has_three_ends", three_ends),
    both("a_notification_wakes_as_many_as_it_says", notified),
    both("a_task_that_waits_leaves_the_loop_free", waits_on_the_loop),
    both("a_wait_that_was_dropped_takes_no_notification", dropped_waits),
    // The limit is one of a process, and in this one other scenarios wait meanwhile.
    only(&[Mode::Process], "only_so_many_tasks_wait_at_once", too_many_waits),
    both("two_workers_play_ping_pong_by_notifications", ping_pong),
    both("a_counter_goes_on_after_a_crash", counts_past_a_crash),
    both("a_counter_goes_on_after_a_reload", counts_past_a_reload),
    both("nobody_sees_half_of_what_a_cell_holds", whole_values),
    both("what_does_not_fit_into_a_region_is_an_error", misfits),
];

const WORKERS: u64 = 4;

/// Waits until all workers have come this far.
async fn meet(all: &SharedView<u64>, index: usize) -> Result<()> {
    all.add(index, 1)?;
    while all.load(index)? < WORKERS {
        event_loop::yield_now().await;
    }
    Ok(())
}

fn fork_all(cluster: &Cluster) {
    for _ in 0..WORKERS {
        cluster.fork().unwrap();
    }
}

fn widths(scene: &Scene) {
    let cluster = scene.builder().region("numbers", 5 * 8).launch(count_everywhere).unwrap();
    fork_all(&cluster);
    until_named(&cluster, "message", WORKERS as usize);
    let numbers = cluster.region("numbers").unwrap();
    let total = WORKERS * ROUNDS;
    assert_eq!(all(&numbers.view_at::<u8>(8, 8).unwrap()), [total as u8; 8]);
    assert_eq!(all(&numbers.view_at::<u16>(16, 4).unwrap()), [total as u16; 4]);
    assert_eq!(all(&numbers.view_at::<i32>(24, 2).unwrap()), [-(total as i32); 2]);
    assert_eq!(all(&numbers.view_at::<i64>(32, 1).unwrap()), [-(total as i64)]);
}

const ROUNDS: u64 = 5_001;

fn all<T: Atom>(view: &SharedView<T>) -> Vec<T> {
    (0..view.len()).map(|index| view.load(index).unwrap()).collect()
}

/// At every number of four words at the same time as all others: neighbours must not disturb each other.
async fn count_everywhere(worker: Worker) -> Result<()> {
    let numbers = worker.region("numbers")?;
    let (bytes, shorts) = (numbers.view_at::<u8>(8, 8)?, numbers.view_at::<u16>(16, 4)?);
    let (ints, long) = (numbers.view_at::<i32>(24, 2)?, numbers.view_at::<i64>(32, 1)?);
    meet(&numbers, 0).await?;
    for _ in 0..ROUNDS {
        (0..8).try_for_each(|index| bytes.add(index, 1).map(drop))?;
        (0..4).try_for_each(|index| increment(&shorts, index))?;
        (0..2).try_for_each(|index| ints.sub(index, 1).map(drop))?;
        long.sub(0, 1)?;
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

fn increment(numbers: &SharedView<u16>, index: usize) -> Result<()> {
    let mut seen = numbers.load(index)?;
    loop {
        let found = numbers.compare_exchange(index, seen, seen.wrapping_add(1))?;
        if found == seen {
            return Ok(());
        }
        seen = found;
    }
}

/// What a worker tells of a wait.
fn name(waited: Waited) -> String {
    format!("{waited:?}")
}

fn three_ends(scene: &Scene) {
    let cluster = scene.builder().region("flags", 8).launch(wait_three_times).unwrap();
    let flags = cluster.region("flags").unwrap().view::<i32>();
    flags.store(1, -7).unwrap();
    cluster.fork().unwrap();
    let mut woken = 0;
    wait_until("the worker asleep", || {
        woken += flags.notify(1, 1).unwrap();
        woken > 0
    });
    let (_, ends) = next_message::<[String; 4]>(&cluster);
    assert_eq!(ends, ["NotEqual", "TimedOut", "TimedOut", "Notified"]);
    assert_eq!(
        (woken, flags.notify(1, 1).unwrap(), flags.notify(0, usize::MAX).unwrap()),
        (1, 0, 0)
    );
}

/// The thread sleeps: the worker has nothing else to do.
async fn wait_three_times(worker: Worker) -> Result<()> {
    let flags = worker.region("flags")?.view::<i32>();
    let soon = Some(Duration::from_millis(1));
    let ends = [
        flags.wait(1, 7, None)?,
        flags.wait(0, 0, soon)?,
        flags.wait_async(0, 0, soon)?.await?,
        flags.wait(1, -7, None)?,
    ];
    let _ = worker.send(ends.map(name))?;
    idle(worker).await;
    Ok(())
}

fn notified(scene: &Scene) {
    let cluster = scene.builder().region("flags", 8).launch(wait_once).unwrap();
    let flags = cluster.region("flags").unwrap().view::<u32>();
    fork_all(&cluster);
    // Half of them block their threads, the others await.
    until_named(&cluster, "online", WORKERS as usize);
    flags.store(1, 1).unwrap();
    let mut woken = 0;
    for count in [1, 2, usize::MAX] {
        let mut these = 0;
        let wanted = count.min(WORKERS as usize - woken);
        wait_until("sleepers", || {
            these += flags.notify(0, count.min(wanted - these)).unwrap();
            these == wanted
        });
        woken += these;
        for _ in 0..these {
            assert_eq!(next_message::<String>(&cluster).1, "Notified");
        }
    }
    assert_eq!((woken, flags.notify(0, usize::MAX).unwrap()), (4, 0));
}

async fn wait_once(worker: Worker) -> Result<()> {
    let flags = worker.region("flags")?.view::<u32>();
    // Whoever blocks has said before that it is online.
    while flags.load(1)? == 0 {
        event_loop::yield_now().await;
    }
    let end = match worker.slot().get() % 2 {
        0 => flags.wait(0, 0, None)?,
        _ => flags.wait_async(0, 0, None)?.await?,
    };
    let _ = worker.send(name(end))?;
    idle(worker).await;
    Ok(())
}

fn waits_on_the_loop(scene: &Scene) {
    let cluster = scene.builder().region("flags", 8).launch(answer_while_waiting).unwrap();
    let worker = cluster.fork().unwrap();
    for turn in 0..10_u64 {
        let _ = worker.send(turn).unwrap();
        assert_eq!(next_message::<u64>(&cluster).1, turn, "it waits, and answers");
    }
    let flags = cluster.region("flags").unwrap().view::<u32>();
    flags.store(0, 1).unwrap();
    flags.notify(0, usize::MAX).unwrap();
    // Whichever came first: the change, or the wait.
    let (_, end) = next_message::<String>(&cluster);
    assert!(["Notified", "NotEqual"].contains(&end.as_str()), "{end}");
}

async fn answer_while_waiting(worker: Worker) -> Result<()> {
    let flags = worker.region("flags")?.view::<u32>();
    let waiting = flags.wait_async(0, 0, None)?;
    let teller = worker.clone();
    event_loop::spawn(async move {
        let _ = teller.send(name(waiting.await?))?;
        Ok::<_, bimodal::Error>(())
    })
    .detach();
    while let Some(message) = worker.recv().await {
        let _ = worker.send(message.get::<u64>()?)?;
    }
    Ok(())
}

fn dropped_waits(scene: &Scene) {
    let cluster = scene.builder().region("flags", 8).launch(drop_waits).unwrap();
    let flags = cluster.region("flags").unwrap().view::<u32>();
    cluster.fork().unwrap();
    next_message::<()>(&cluster);
    // Until the one that is left has fallen asleep nobody may be there to be woken.
    let end = wait_for(&cluster, || assert!(flags.notify(0, 1).unwrap() <= 1));
    assert_eq!(end, "Notified");
    wait_until("no thread that sleeps", || flags.notify(0, usize::MAX).unwrap() == 0);
}

/// The next text; does something again and again until it comes.
fn wait_for(cluster: &Cluster, again: impl Fn()) -> String {
    let mut text = None;
    wait_until("a text", || {
        again();
        if let Some(Event::Message { message, .. }) = cluster.next_event_timeout(Duration::ZERO) {
            text = Some(message.get().unwrap());
        }
        text.is_some()
    });
    text.unwrap()
}

/// Begins to wait a hundred times and drops all but one, some in the midst of falling asleep.
async fn drop_waits(worker: Worker) -> Result<()> {
    let flags = worker.region("flags")?.view::<u32>();
    let left = flags.wait_async(0, 0, None)?;
    for turn in 0..100 {
        let waiting = flags.wait_async(0, 0, None)?;
        if turn % 3 == 0 {
            event_loop::yield_now().await;
        }
        drop(waiting);
    }
    let _ = worker.send(())?;
    let _ = worker.send(name(left.await?))?;
    idle(worker).await;
    Ok(())
}

fn too_many_waits(scene: &Scene) {
    let cluster = scene.builder().region("flags", 8).launch(wait_too_often).unwrap();
    cluster.fork().unwrap();
    let (_, (count, kind)) = next_message::<(usize, String)>(&cluster);
    assert_eq!((count, kind.as_str()), (128, "Full"));
    assert_eq!(next_message::<String>(&cluster).1, "TimedOut", "there is room again");
}

async fn wait_too_often(worker: Worker) -> Result<()> {
    let flags = worker.region("flags")?.view::<u32>();
    let mut waits = Vec::new();
    let error = loop {
        match flags.wait_async(0, 0, None) {
            Ok(waiting) => waits.push(waiting),
            Err(error) => break error,
        }
    };
    let _ = worker.send((waits.len(), format!("{:?}", error.kind())))?;
    waits.clear();
    let soon = Some(Duration::from_millis(1));
    let waiting = loop {
        match flags.wait_async(0, 0, soon) {
            Ok(waiting) => break waiting,
            // A thread that was told to stop takes a moment.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
        }
        event_loop::yield_now().await;
    };
    let _ = worker.send(name(waiting.await?))?;
    idle(worker).await;
    Ok(())
}

const TURNS: u32 = 1_000;

fn ping_pong(scene: &Scene) {
    let cluster = scene.builder().region("ball", 8).launch(play).unwrap();
    cluster.fork().unwrap();
    cluster.fork().unwrap();
    until_named(&cluster, "message", 2);
    assert_eq!(cluster.region("ball").unwrap().view::<u32>().load(0).unwrap(), 2 * TURNS);
}

/// The one of slot 0 makes even numbers odd, the other one odd ones even: one awaits, the other blocks.
async fn play(worker: Worker) -> Result<()> {
    let ball = worker.region("ball")?.view::<u32>();
    let own = worker.slot().get() as u32;
    for turn in 0..TURNS {
        let mine = 2 * turn + own;
        loop {
            let seen = ball.load(0)?;
            if seen == mine {
                break;
            }
            match own {
                0 => ball.wait_async(0, seen, Some(DEADLINE))?.await?,
                _ => ball.wait(0, seen, Some(DEADLINE))?,
            };
        }
        ball.store(0, mine + 1)?;
        ball.notify(0, 1)?;
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

const SHARDS: usize = 3;

fn counts_past_a_crash(scene: &Scene) {
    let bytes = SharedCounter::bytes(SHARDS);
    let cluster = scene.builder().region("hits", bytes).launch(hit_and_stay).unwrap();
    let hits = cluster.region("hits").unwrap().counter(0, SHARDS).unwrap();
    fork_all(&cluster);
    until_named(&cluster, "message", WORKERS as usize);
    assert_eq!(hits.sum(), WORKERS * ROUNDS);
    // One is killed and one panics; who has their slots adds to their shards.
    let workers = cluster.workers();
    workers[0].kill().unwrap();
    let _ = workers[1].send(()).unwrap();
    let seen = until_named(&cluster, "exit", 2);
    assert_eq!(seen.exits().count(), 2);
    cluster.fork().unwrap();
    cluster.fork().unwrap();
    until_named(&cluster, "message", 2);
    assert_eq!(hits.sum(), (WORKERS + 2) * ROUNDS);
    let shards = cluster.region("hits").unwrap();
    let shards: Vec<_> = (0..SHARDS).map(|shard| shards.load(16 * shard).unwrap()).collect();
    // Slot 3 counts where slot 0 does; slots 0 and 1 had two workers.
    assert_eq!(shards, [3 * ROUNDS, 2 * ROUNDS, ROUNDS]);
}

fn hit(worker: &Worker) -> Result<()> {
    let shard = worker.region("hits")?.counter(0, SHARDS)?.at(worker.slot().get());
    (0..ROUNDS).for_each(|_| shard.add(1));
    Ok(())
}

async fn hit_and_stay(worker: Worker) -> Result<()> {
    hit(&worker)?;
    worker.ready();
    let _ = worker.send(())?;
    assert!(worker.recv().await.is_none(), "it was to panic");
    Ok(())
}

fn counts_past_a_reload(scene: &Scene) {
    let builder = scene.builder().workers(2).region("hits", SharedCounter::bytes(SHARDS));
    let cluster = builder.supervise(hit_and_stay).unwrap();
    let hits = cluster.region("hits").unwrap().counter(0, SHARDS).unwrap();
    until_named(&cluster, "message", 2);
    assert_eq!(hits.sum(), 2 * ROUNDS);
    cluster.reload().unwrap();
    let (mut counted, mut ended) = (0, 0);
    while (counted, ended) != (2, 2) {
        match cluster.next_event_timeout(DEADLINE).expect("the reload did not end") {
            Event::Message { .. } => counted += 1,
            Event::Exit { .. } => ended += 1,
            _ => {}
        }
    }
    assert_eq!(hits.sum(), 4 * ROUNDS);
    cluster.stop().unwrap();
}

const VALUE: usize = 1000;

fn whole_values(scene: &Scene) {
    let bytes = SharedCell::bytes(VALUE);
    let cluster = scene.builder().region("value", 8 + bytes).launch(write_and_read).unwrap();
    let value = cluster.region("value").unwrap().cell(8, VALUE).unwrap();
    fork_all(&cluster);
    let (mut done, mut last) = (0, 0);
    while done < WORKERS {
        last = whole(&value, last);
        done += u64::from(cluster.next_event_timeout(Duration::ZERO).is_some_and(|event| {
            assert_ne!(event.name(), "exit");
            event.name() == "message"
        }));
    }
    assert_eq!(whole(&value, last), (WORKERS * WRITES) as u32);
}

const WRITES: u64 = 500;

/// Reads a value, which is one number again and again, and not one from before `last`.
fn whole(cell: &SharedCell, last: u32) -> u32 {
    let bytes = cell.read();
    let mut numbers =
        bytes.chunks_exact(4).map(|bytes| u32::from_ne_bytes(bytes.try_into().unwrap()));
    let first = numbers.next().unwrap();
    assert!(first >= last && numbers.all(|number| number == first), "{bytes:?}");
    first
}

async fn write_and_read(worker: Worker) -> Result<()> {
    let region = worker.region("value")?;
    let value = region.cell(8, VALUE)?;
    meet(&region, 0).await?;
    let mut last = 0;
    for _ in 0..WRITES {
        value.update(|bytes| {
            let number = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) + 1;
            bytes.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&number.to_ne_bytes()));
        });
        last = whole(&value, last);
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

fn misfits(scene: &Scene) {
    let cluster = scene.builder().region("small", 128).launch(try_misfits).unwrap();
    let here = misfit_texts(&cluster.region("small").unwrap());
    assert_eq!(here.len(), 8);
    cluster.fork().unwrap();
    // A worker is told the same, and lives on.
    assert_eq!(next_message::<Vec<String>>(&cluster).1, here);
    assert_eq!(next_message::<u64>(&cluster).1, 0);
}

fn misfit_texts(small: &SharedBuffer) -> Vec<String> {
    let view = small.view::<u32>();
    let errors = [
        small.view_at::<u16>(1, 1).map(drop),
        small.view_at::<u64>(0, 17).map(drop),
        small.counter(0, 2).map(drop),
        small.mutex(128).map(drop),
        small.mutex(4).map(drop),
        small.cell(0, 60).map(drop),
        view.store(32, 1),
        view.wait(32, 0, None).map(drop),
    ];
    let errors = errors.map(Result::unwrap_err);
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Range), "{errors:?}");
    errors.iter().map(ToString::to_string).collect()
}

async fn try_misfits(worker: Worker) -> Result<()> {
    let small = worker.region("small")?;
    let _ = worker.send(misfit_texts(&small))?;
    let sum = (0..small.len()).map(|index| small.load(index)).sum::<Result<u64>>()?;
    let _ = worker.send(sum)?;
    idle(worker).await;
    Ok(())
}
