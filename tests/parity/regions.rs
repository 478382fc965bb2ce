//! Memory that the primary and all workers share.

use std::{cell::Cell, rc::Rc};

use bimodal::{ErrorKind, Event, ExitStatus, Result, SharedBuffer, Worker, event_loop};

use crate::{
    bodies::{ANYWHERE, idle},
    support::{
        Scenario, Scene, both,
        events::{next_message, until_named},
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("a_region_is_the_same_memory_for_all", seen_by_all).proves(&["THR-29"]),
    both("workers_that_count_together_lose_nothing", counted).proves(&["THR-29"]),
    both("a_region_outlives_whoever_wrote_it", outlives).proves(&["THR-29"]),
    both("a_replacement_goes_on_where_the_crashed_worker_was", restarted).proves(&["THR-29"]),
    both("a_cluster_has_as_many_regions_as_it_may", many),
    both("a_region_that_is_not_there_is_an_error", absent),
    both("a_region_that_cannot_be_is_refused", refused),
];

fn seen_by_all(scene: &Scene) {
    let cluster = scene.builder().region("numbers", 20).region("more", 8).launch(next).unwrap();
    let numbers = cluster.region("numbers").unwrap();
    assert_eq!((numbers.len(), numbers.byte_len()), (3, 24));
    numbers.store(2, u64::MAX).unwrap();
    let workers = [cluster.fork().unwrap(), cluster.fork().unwrap()];
    for (turn, worker) in workers.iter().chain(&workers).enumerate() {
        // The worker reads what the primary or the other worker wrote last, and writes the next.
        let _ = worker.send(()).unwrap();
        assert_eq!(next_message::<(u64, u64)>(&cluster), (worker.id(), (turn as u64, u64::MAX)));
        assert_eq!(numbers.load(0).unwrap(), turn as u64 + 1);
    }
    assert_eq!(cluster.region("more").unwrap().load(0).unwrap(), 0, "it is another memory");
    let elsewhere = numbers.clone();
    std::thread::spawn(move || elsewhere.store(1, 9).unwrap()).join().unwrap();
    assert_eq!(numbers.load(1).unwrap(), 9);
}

/// With every message takes the number that is there and leaves the next.
async fn next(worker: Worker) -> Result<()> {
    let numbers = worker.region("numbers")?;
    while worker.recv().await.is_some() {
        let found = numbers.add(0, 1)?;
        let _ = worker.send((found, numbers.load(2)?))?;
    }
    Ok(())
}

const WORKERS: u64 = 4;
const ROUNDS: u64 = 50_000;

fn counted(scene: &Scene) {
    let cluster = scene.builder().region("counters", 5 * 8).launch(count).unwrap();
    for _ in 0..WORKERS {
        cluster.fork().unwrap();
    }
    until_named(&cluster, "message", WORKERS as usize);
    let counters = cluster.region("counters").unwrap();
    let found: Vec<_> = (0..5).map(|index| counters.load(index).unwrap()).collect();
    let all = WORKERS * ROUNDS;
    assert_eq!(found, [WORKERS, all, all, all.wrapping_neg(), 0b1111]);
}

/// Counts in four ways at the same time as all others.
async fn count(worker: Worker) -> Result<()> {
    let counters = worker.region("counters")?;
    counters.add(0, 1)?;
    while counters.load(0)? < WORKERS {
        event_loop::yield_now().await;
    }
    for _ in 0..ROUNDS {
        counters.add(1, 1)?;
        increment(&counters, 2)?;
        counters.sub(3, 1)?;
        counters.or(4, 1 << worker.slot().get())?;
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

fn increment(counters: &SharedBuffer, index: usize) -> Result<()> {
    let mut seen = counters.load(index)?;
    loop {
        let found = counters.compare_exchange(index, seen, seen + 1)?;
        if found == seen {
            return Ok(());
        }
        seen = found;
    }
}

fn outlives(scene: &Scene) {
    let cluster = scene.builder().region("past", 4 * 8).launch(write_and_end).unwrap();
    let past = cluster.region("past").unwrap();
    let killed = cluster.fork().unwrap();
    until_named(&cluster, "message", 1);
    killed.kill().unwrap();
    assert!(until_named(&cluster, "exit", 1).exit(killed.id()).killed());
    let panicked = cluster.fork().unwrap();
    let status = until_named(&cluster, "exit", 1).exit(panicked.id());
    assert_eq!(status, ExitStatus::Code(ExitStatus::PANIC));
    assert_eq!([0, 1, 2].map(|index| past.load(index).unwrap()), [0, 101, 102]);
    // In the place of the others.
    let last = cluster.fork().unwrap();
    assert_eq!((last.slot(), last.generation()), (killed.slot(), 3));
    assert_eq!(next_message::<[u64; 3]>(&cluster), (last.id(), [101, 102, 0]));
    cluster.shutdown().unwrap();
    assert_eq!([1, 2, 3].map(|index| past.load(index).unwrap()), [101, 102, 103]);
}

/// The first waits to be killed, the second panics, the third tells what they wrote.
async fn write_and_end(worker: Worker) -> Result<()> {
    let past = worker.region("past")?;
    let found = [1, 2, 3].map(|index| past.load(index).unwrap_or(u64::MAX));
    past.store(worker.id().get() as usize, 100 + worker.id().get())?;
    assert!(worker.id().get() != 2, "the second was to panic");
    let _ = worker.send(found)?;
    idle(worker).await;
    Ok(())
}

fn restarted(scene: &Scene) {
    let told = Rc::new(Cell::new(None));
    let seen = told.clone();
    let observer = move |event: &Event| {
        if let Event::Message { message, .. } = event {
            seen.set(Some(message.peek::<u64>().unwrap()));
        }
    };
    let builder = scene.builder().workers(1).region("lives", 1).on_event(observer);
    let report = builder.run(crash_twice).unwrap();
    assert_eq!((report.started, report.restarts), (3, 2), "{report}");
    assert_eq!(told.get(), Some(2));
}

async fn crash_twice(worker: Worker) -> Result<()> {
    let _listener = worker.listen(ANYWHERE).await?;
    let lives = worker.region("lives")?.add(0, 1)?;
    assert!(lives >= 2, "the first two were to crash");
    let _ = worker.send(lives)?;
    Ok(())
}

const MOST: usize = 32;

fn many(scene: &Scene) {
    let declare = |count: usize| {
        let names = (0..count).map(name_of).enumerate();
        names.fold(scene.builder(), |builder, (number, name)| {
            builder.region(name, if number == 0 { 1 << 30 } else { 8 * number })
        })
    };
    let error = declare(MOST + 1).build().unwrap_err();
    assert!(error.to_string().contains("33 regions are declared"), "{error}");
    let cluster = declare(MOST).launch(add_everywhere).unwrap();
    for _ in 0..2 {
        cluster.fork().unwrap();
    }
    until_named(&cluster, "message", 2);
    for number in 0..MOST {
        let region = cluster.region(&name_of(number)).unwrap();
        assert_eq!(region.load(region.len() - 1).unwrap(), 2 * (number as u64 + 1));
    }
}

/// Adds its number to the last word of each region.
async fn add_everywhere(worker: Worker) -> Result<()> {
    for number in 0..MOST {
        let region = worker.region(&name_of(number))?;
        region.add(region.len() - 1, number as u64 + 1)?;
    }
    let _ = worker.send(())?;
    idle(worker).await;
    Ok(())
}

fn name_of(number: usize) -> String {
    format!("{number:0128}")
}

fn absent(scene: &Scene) {
    let cluster = scene.builder().region("here", 8).launch(ask_for_too_much).unwrap();
    let unknown = cluster.region("there").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Setting);
    let unknown = unknown.to_string();
    assert!(unknown.contains("\"there\"") && unknown.contains("Builder::region"), "{unknown}");
    let outside = cluster.region("here").unwrap().add(1, 1).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::Range);
    cluster.fork().unwrap();
    // A worker is told the same, and lives on.
    let (_, told) = next_message::<[String; 2]>(&cluster);
    assert_eq!(told, [unknown, outside.to_string()]);
    assert_eq!(next_message::<u64>(&cluster).1, 0);
}

async fn ask_for_too_much(worker: Worker) -> Result<()> {
    let here = worker.region("here")?;
    let unknown = worker.region("there").map(|_| ()).unwrap_err();
    let outside = here.add(1, 1).unwrap_err();
    let _ = worker.send([unknown.to_string(), outside.to_string()])?;
    let _ = worker.send(here.load(0)?)?;
    idle(worker).await;
    Ok(())
}

fn refused(scene: &Scene) {
    let builder = || scene.builder().workers(1);
    for (builder, cause) in [
        (builder().region("a", 0), "0 bytes"),
        (builder().region("a", (1 << 30) + 1), "1073741825 bytes"),
        (builder().region("a", usize::MAX), "from 1 to 1073741824"),
        (builder().region("", 8), "a region's name has 0 bytes"),
        (builder().region("x".repeat(129), 8), "a region's name has 129 bytes"),
        (builder().region("a", 8).region("b", 8).region("a", 16), "\"a\" is declared twice"),
    ] {
        let error = builder.launch(idle).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        assert!(error.to_string().contains(cause), "{error}");
    }
}
