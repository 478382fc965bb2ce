//! What bounds the cores that this process can use: the machine, the affinity mask, the cgroups.
//!
//! How many cores that makes is the standard library's to say, which looks at the mask and at the
//! quotas of the cgroup and its parents, of both versions. What is read beside is only for the reason.

use std::path::Path;

/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The cores that this process can use, and why not more.
#[derive(Debug)]
pub(super) struct Bounds {
    usable: usize,
    /// Cores of the machine that are online.
    online: Option<usize>,
    /// Cores that the affinity mask allows.
    allowed: Option<usize>,
    /// CPUs that the tightest cgroup grants.
    quota: Option<f64>,
}

impl Bounds {
    pub(super) fn read() -> Self {
        let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
        let mask = rustix::thread::sched_getaffinity(None).ok();
        Self {
            usable: num_cpus::get().min(parallelism).max(1),
            online: read(Path::new("/sys/devices/system/cpu/online")).as_deref().and_then(count),
            allowed: mask.map(|mask| mask.count() as usize),
            quota: read(Path::new("/proc/self/cgroup"))
                .and_then(|groups| tightest_quota(&groups, Path::new(CGROUPS))),
        }
    }

    #[cfg(test)]
    pub(super) fn of(cores: usize) -> Self {
        Self { usable: cores, online: Some(cores), allowed: Some(cores), quota: None }
    }

    /// At least 1.
    pub(super) fn cores(&self) -> usize {
        self.usable
    }

    /// Which bound it was.
    pub(super) fn reason(&self) -> String {
        let Self { usable, online, allowed, quota } = self;
        let fewer = |all: &Option<usize>| all.is_none_or(|all| *usable < all);
        match (quota, allowed, online) {
            (Some(quota), ..) if fewer(allowed) => format!("the cgroup's quota is {quota:.1} CPUs"),
            (_, Some(allowed), Some(online)) if allowed < online => {
                format!("the affinity mask allows {allowed} of {online} cores")
            }
            (.., Some(online)) if usable == online => "the machine has as many cores".into(),
            _ => format!("the system grants as many, of {} cores", online.unwrap_or(*usable)),
        }
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// How many numbers a list such as `0-3,8` has.
fn count(list: &str) -> Option<usize> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last.checked_sub(first)? < 1 << 20).then(|| last - first + 1)
    });
    ranges.sum()
}

/// The smallest quota on the way from this process's groups up, in CPUs. `groups` is
/// `/proc/self/cgroup`: lines of hierarchy, controllers and path (cgroups(7)).
fn tightest_quota(groups: &str, root: &Path) -> Option<f64> {
    let quotas = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let hierarchies: &[&str] = match controllers {
            "" => &[".", "unified"],
            _ if controllers.split(',').any(|controller| controller == "cpu") => {
                &["cpu", "cpu,cpuacct"]
            }
            _ => &[],
        };
        let group = Path::new(path.trim_start_matches('/'));
        let all = hierarchies.iter().flat_map(move |hierarchy| {
            group.ancestors().filter_map(move |group| quota_of(&root.join(hierarchy).join(group)))
        });
        all.collect::<Vec<_>>()
    });
    quotas.reduce(f64::min)
}

/// The quota of one group, of either version.
fn quota_of(group: &Path) -> Option<f64> {
    let (quota, period) = match read(&group.join("cpu.max")) {
        Some(limit) => {
            let (quota, period) = limit.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read(&group.join("cpu.cfs_quota_us"))?, read(&group.join("cpu.cfs_period_us"))?),
    };
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    fn bounds(usable: usize, allowed: usize, quota: Option<f64>) -> Bounds {
        Bounds { usable, online: Some(16), allowed: Some(allowed), quota }
    }

    #[test]
    fn the_tightest_bound_is_the_reason() {
        assert_eq!(bounds(16, 16, None).reason(), "the machine has as many cores");
        assert_eq!(bounds(8, 8, None).reason(), "the affinity mask allows 8 of 16 cores");
        assert_eq!(bounds(8, 8, Some(12.0)).reason(), "the affinity mask allows 8 of 16 cores");
        assert_eq!(bounds(2, 8, Some(2.5)).reason(), "the cgroup's quota is 2.5 CPUs");
        assert_eq!(bounds(1, 16, None).reason(), "the system grants as many, of 16 cores");
    }

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(count("0-3,8,10-11\n"), Some(7));
        assert_eq!(count("0\n"), Some(1));
        for bad in ["", "3-1", "a-b", "0-99999999999"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }

    /// A directory of files, removed when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("bimodal-{}-{name}", std::process::id()));
            for (file, text) in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn parents_count_in_both_versions() {
        let two =
            Tree::new("v2", &[("a/cpu.max", "150000 100000\n"), ("a/b/cpu.max", "max 100000\n")]);
        assert_eq!(tightest_quota("0::/a/b\n", &two.0), Some(1.5));
        assert_eq!(tightest_quota("0::/other\n", &two.0), None);
        let one = Tree::new(
            "v1",
            &[
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("cpu/a/cpu.cfs_quota_us", "50000\n"),
                ("cpu/a/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(tightest_quota("4:memory:/a\n2:cpu,cpuacct:/a/b\n0::/\n", &one.0), Some(0.5));
        assert_eq!(tightest_quota("2:cpu:/\n", &one.0), None);
    }
}
