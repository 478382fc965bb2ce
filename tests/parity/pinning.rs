//! Which cores a worker may use: one of its own if workers are pinned, otherwise those of the program.

use bimodal::{Builder, Result, Worker};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    bodies::idle,
    support::{Scenario, Scene, both, events::next_message},
};

pub const SCENARIOS: &[Scenario] = &[
    both("each_pinned_worker_has_a_core_of_its_own", each_its_own),
    both("pinning_keeps_to_the_mask", keeps_to_the_mask),
    both("pinning_can_be_left_out", left_out),
    both("threads_are_pinned_and_processes_are_not", by_default),
];

/// The cores that this thread may use.
pub fn own_cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

fn each_its_own(scene: &Scene) {
    let all = own_cores();
    let cores = cores_of_workers(scene.builder().pin(true), all.len() + 1);
    let expected: Vec<_> = all.iter().cycle().map(|core| vec![*core]).take(all.len() + 1).collect();
    assert_eq!(cores, expected, "one after the other, and from the first again");
}

fn keeps_to_the_mask(scene: &Scene) {
    let last = *own_cores().last().unwrap();
    let _mask = Mask::of(last);
    assert_eq!(cores_of_workers(scene.builder().pin(true), 2), [[last], [last]]);
}

/// Binds this thread, and what it starts, to one core. The next scene on this thread finds the mask as it was.
struct Mask {
    before: CpuSet,
}

impl Mask {
    fn of(core: usize) -> Self {
        let before = sched_getaffinity(None).unwrap();
        let mut mask = CpuSet::new();
        mask.set(core);
        sched_setaffinity(None, &mask).unwrap();
        Self { before }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.before).unwrap();
    }
}

fn left_out(scene: &Scene) {
    assert_eq!(cores_of_workers(scene.builder().pin(false), 2), [own_cores(), own_cores()]);
}

fn by_default(scene: &Scene) {
    let all = own_cores();
    let expected = if scene.is_process() { &all[..] } else { &all[..1] };
    assert_eq!(cores_of_workers(scene.builder(), 1), [expected]);
}

/// In the order in which the workers were forked.
fn cores_of_workers(builder: Builder, workers: usize) -> Vec<Vec<usize>> {
    let cluster = builder.launch(tell_cores).unwrap();
    let tell = || {
        cluster.fork().unwrap();
        next_message::<Vec<usize>>(&cluster).1
    };
    (0..workers).map(|_| tell()).collect()
}

async fn tell_cores(worker: Worker) -> Result<()> {
    let _ = worker.send(own_cores())?;
    idle(worker).await;
    Ok(())
}
