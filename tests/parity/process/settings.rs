//! What surrounds a worker process: its descriptors, environment, directory, user, standard streams.

use std::{fs, os::unix::fs::MetadataExt as _};

use bimodal::Mode;

use crate::{
    serve::{self, Server},
    support::{Scene, not_permitted, system},
};

fn start(options: &[&str]) -> Server {
    serve::start(Mode::Process, 1, options)
}

pub fn descriptors_of_a_worker(_: &Scene) {
    for (scheduling, listening) in
        [("round-robin", 0), ("least-connections", 0), ("shared", 1), ("reuse-port", 1)]
    {
        let server = start(&[&format!("scheduling={scheduling}")]);
        let pid = server.pids[0];
        let descriptors = system::descriptors_of(pid);
        let sockets = descriptors.iter().filter(|(_, to)| is_listening(to)).count();
        assert_eq!(sockets, listening, "{scheduling}: {descriptors:?}");
        let inherited = serve::inheritable();
        let own =
            descriptors.iter().filter(|(number, _)| *number > 2 && !inherited.contains(number));
        let own: Vec<_> = own.collect();
        for (number, to) in &own {
            assert!(serve::closes_on_exec(pid, *number), "{scheduling}: {number} -> {to}");
        }
        assert!(own.len() <= 12, "{scheduling}: {own:?}");
        server.stop();
    }
}

/// Whether `socket:[INODE]` is a TCP socket in state LISTEN (proc(5), tcp).
fn is_listening(to: &str) -> bool {
    let Some(inode) = to.strip_prefix("socket:[").and_then(|to| to.strip_suffix(']')) else {
        return false;
    };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| fields[3] == "0A" && fields[9] == inode)
}

pub fn environment_and_directory(_: &Scene) {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let server = start(&["env=set=for workers", &format!("cwd={directory}")]);
    let (worker, primary) = (server.pids[0], server.primary());
    let environment = |pid: u32| fs::read(format!("/proc/{pid}/environ")).unwrap();
    let has = |pid: u32| {
        environment(pid)
            .split(|byte| *byte == 0)
            .any(|variable| variable == b"BIMODAL_TEST=set=for workers")
    };
    assert!(has(worker) && !has(primary));
    let directory_of = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(directory_of(worker), fs::canonicalize(directory).unwrap());
    assert_ne!(directory_of(worker), directory_of(primary));
    server.stop();
}

/// Needs root, as changing the user does.
pub fn user_and_group(_: &Scene) {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return not_permitted("to choose a user, which takes root");
    }
    let server = start(&["uid=65534", "gid=65533"]);
    let status = fs::read_to_string(format!("/proc/{}/status", server.pids[0])).unwrap();
    let field = |name: &str| {
        let ids = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["65534"; 4]);
    assert_eq!(field("Gid:"), ["65533"; 4]);
    assert!(!field("Groups:").contains(&"0".to_owned()), "root's groups are left: {status}");
    server.get("/");
    server.stop();
}

pub fn closed_stdio(_: &Scene) {
    let server = start(&["stdio=null"]);
    let descriptors = system::descriptors_of(server.pids[0]);
    let stdio: Vec<_> = descriptors.iter().take(3).map(|(_, to)| to.as_str()).collect();
    assert_eq!(stdio, ["/dev/null"; 3]);
    server.stop();
}
