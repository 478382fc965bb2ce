//! Data that workers have beside the program: in memory once, or once in each worker.

use crate::{
    start,
    support::{Scene, system},
};

const MIB: u64 = 1 << 20;

pub fn shared_data_is_there_once(scene: &Scene) {
    let lab = start(scene.mode, &["--data-mib", "64"]);
    let held = memory(lab.program.pid());
    assert!((64 * MIB..128 * MIB).contains(&held), "{held} bytes");
    lab.stop();
}

pub fn private_data_is_there_in_each(scene: &Scene) {
    let lab = start(scene.mode, &["--private-mib", "32"]);
    let held = memory(lab.program.pid());
    assert!((64 * MIB..128 * MIB).contains(&held), "{held} bytes");
    lab.stop();
}

/// Bytes that the program and its workers have; a page that several have counts once.
fn memory(primary: u32) -> u64 {
    let workers = system::children_of(primary);
    workers.into_iter().chain([primary]).map(proportional).sum()
}

fn proportional(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
}
