//! How a process becomes a worker, or does not: markers, the program's file, programs that end early.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use bimodal::Mode;

use crate::{
    serve::{self, Server},
    support::{
        Scene,
        program::{self, Program},
        system,
    },
};

pub fn foreign_markers_are_ignored(_: &Scene) {
    let own = std::process::id();
    // "serve" in hexadecimal; descriptor 0 is not a channel, 99 is not open.
    let markers = [
        "".into(),
        "yes".into(),
        "1:7365727665:1:99:1".into(),
        format!("1:7365727665:1:0:{own}"),
        format!("1:7365727665:1:99:{own}"),
        format!("2:7365727665:1:99:{own}"),
        format!("1:{}:1:99:{own}", "61".repeat(100_000 / 2)),
    ];
    for marker in markers {
        let mut command = serve::command(Mode::Process, &[]);
        let server = Server::spawn(command.arg("workers=1").env("BIMODAL_WORKER", &marker));
        let pid = server.pids[0];
        assert_eq!(server.get("/"), format!("1 {pid}"), "{marker}");
        server.stop();
    }
}

pub fn marker_is_gone_in_the_worker(_: &Scene) {
    let server = serve::start(Mode::Process, 1, &[]);
    assert_eq!(server.get("/marker"), "None");
    let inherited = serve::inheritable();
    assert_eq!(server.get("/grandchild"), format!("worker of None, inherited {inherited:?}\n"));
    server.stop();
}

/// A program whose worker processes end before they get to the cluster.
pub fn early(scene: &Scene) {
    if std::env::var_os("BIMODAL_WORKER").is_some() || bimodal::worker_of().is_some() {
        std::process::exit(7);
    }
    serve::serve(scene);
}

pub fn program_that_ends_early(_: &Scene) {
    let mut program = Program::spawn(program::command("early", Mode::Process).process_group(0));
    let status = program.wait();
    assert_eq!(status.code(), Some(1), "{:?}", program.output);
    let end = program.output.last().unwrap();
    assert!(end.contains("Start no worker got ready") && end.contains("code 7"), "{end}");
    let exits = program.output.iter().filter(|line| line.ends_with(" code 7")).count();
    assert!(exits >= 2, "it was retried: {:?}", program.output);
    serve::assert_nobody_left(program.pid());
}

/// This test program under a name that may be changed.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let copy = Self(path);
        copy.put();
        copy
    }

    /// The file, in its place: a second name of the same file.
    fn put(&self) {
        fs::hard_link(std::env::current_exe().unwrap(), &self.0).unwrap();
    }

    fn server(&self) -> Server {
        let command = serve::command(Mode::Process, &[]);
        Server::spawn(
            Command::new(&self.0).args(command.get_args()).process_group(0).arg("workers=2"),
        )
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It may have been removed by its test.
        let _ = fs::remove_file(&self.0);
    }
}

pub fn program_file_replaced(_: &Scene) {
    let copy = Copy::new("replaced");
    let mut server = copy.server();
    fs::remove_file(&copy.0).unwrap();
    copy.put();
    system::signal(server.pids[0], 9);
    server.next_listening();
    assert_eq!(server.pids.len(), 3);
    server.stop();
}

pub fn program_file_deleted(_: &Scene) {
    let copy = Copy::new("deleted");
    let mut server = copy.server();
    fs::remove_file(&copy.0).unwrap();
    system::signal(server.pids[0], 9);
    let error = server.program.line(|line| line.starts_with("error "));
    assert!(error.contains("No such file") && error.contains("run "), "{error}");
    assert_eq!(server.get("/"), format!("2 {}", server.pids[1]), "the other worker serves");
    copy.put();
    server.next_listening();
    server.stop();
}
