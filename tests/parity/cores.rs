//! How many workers `auto` means, where something bounds the cores.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use bimodal::Workers;

use crate::support::{
    Scenario, Scene, both,
    program::{self, Program},
    wait_until,
};

pub const SCENARIOS: &[Scenario] = &[
    both("the_affinity_mask_bounds_the_workers", by_mask),
    both("a_quota_of_a_parent_cgroup_bounds_the_workers", by_quota),
    both("a_cap_on_the_workers_is_named", by_cap),
];

pub const PROGRAMS: &[Scenario] = &[both("count_workers", count)];

/// Runs a cluster of so many workers, which end at once, and logs to its standard error.
fn count(scene: &Scene) {
    let workers: Workers = program::args()[0].parse().unwrap();
    env_logger::Builder::new().filter_level(log::LevelFilter::Info).init();
    let report = scene.builder().workers(workers).run(async |_| {}).unwrap();
    println!("started {}", report.started);
}

/// How many workers started, and the one line of the log that says why.
#[track_caller]
fn ask(command: &mut Command) -> (u64, String) {
    let mut program = Program::spawn(command);
    let status = program.wait();
    let errors = program.errors();
    assert!(status.success(), "{status}\n{errors}");
    let started = program.output.last().unwrap().strip_prefix("started ").unwrap();
    let lines: Vec<_> = errors.lines().filter(|line| line.contains("bimodal::builder")).collect();
    let [line] = lines[..] else { panic!("it is to be said once:\n{errors}") };
    (started.parse().unwrap(), line.rsplit("] ").next().unwrap().into())
}

fn counting(scene: &Scene, workers: &str) -> Command {
    let mut command = program::command("count_workers", scene.mode);
    command.arg(workers);
    command
}

/// The command, run by another program.
fn through(wrapper: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    wrapped
}

fn online() -> usize {
    // Of all cores, not of those that this process may use.
    let all = fs::read_dir("/sys/devices/system/cpu").unwrap().flatten();
    let is_core =
        |name: &str| name.strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok());
    all.filter(|entry| entry.file_name().to_str().is_some_and(is_core)).count()
}

fn by_mask(scene: &Scene) {
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    let core = (0..1024).find(|core| mask.is_set(*core)).unwrap().to_string();
    let (started, why) = ask(&mut through(&["taskset", "-c", &core], &counting(scene, "auto")));
    assert_eq!(started, 1);
    let all = online();
    let expected = match all {
        1 => "1 worker: the machine has as many cores".into(),
        _ => format!("1 worker: the affinity mask allows 1 of {all} cores"),
    };
    assert_eq!(why, expected);
}

fn by_cap(scene: &Scene) {
    let all = Workers::Auto.resolve().unwrap();
    let (started, why) = ask(&mut counting(scene, "all-but-1"));
    assert_eq!(started as usize, (all - 1).max(1));
    assert!(all == 1 || why.contains(&format!("the program leaves 1 of {all} free")), "{why}");
    let (started, why) = ask(&mut counting(scene, "at-most-1"));
    assert_eq!(started, 1);
    assert!(all == 1 || why.contains(&format!("wants no more, of {all}")), "{why}");
}

fn by_quota(scene: &Scene) {
    let group = match Group::new(scene) {
        Ok(group) => group,
        // A container's cgroups are often read-only; the reader has tests of its own.
        Err(error) => return eprintln!("SKIPPED: no cgroup with a quota can be made: {error}"),
    };
    // A shell moves itself into the inner group, then becomes the program.
    let script = "echo $$ > \"$0\" && exec \"$@\"";
    let procs = group.0.join("inner/cgroup.procs");
    let wrapper = ["sh", "-c", script, procs.to_str().unwrap()];
    let (started, why) = ask(&mut through(&wrapper, &counting(scene, "auto")));
    assert_eq!((started, why.as_str()), (1, expected_by_quota()));
}

fn expected_by_quota() -> &'static str {
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    match (mask.count(), online()) {
        (1, 1) => "1 worker: the machine has as many cores",
        _ => "1 worker: the cgroup's quota is 1.5 CPUs",
    }
}

/// A cgroup whose quota is 1.5 CPUs, with a group in it that has none; both go with it.
struct Group(PathBuf);

impl Group {
    fn new(scene: &Scene) -> io::Result<Self> {
        let name = format!("bimodal-{}-{}", std::process::id(), scene.mode);
        let one = Path::new("/sys/fs/cgroup/cpu");
        let root = if one.exists() { one } else { Path::new("/sys/fs/cgroup") };
        let group = Self(root.join(name));
        fs::create_dir_all(group.0.join("inner"))?;
        if one.exists() {
            fs::write(group.0.join("cpu.cfs_period_us"), "100000")?;
            fs::write(group.0.join("cpu.cfs_quota_us"), "150000")?;
        } else {
            fs::write(group.0.join("cpu.max"), "150000 100000")?;
        }
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.0.exists() {
            // The kernel lets go of a group a moment after its last process has ended.
            wait_until("the group to be empty", || fs::remove_dir(self.0.join("inner")).is_ok());
            let _ = fs::remove_dir(&self.0);
        }
    }
}
