//! The examples that keep something in a store.

use std::{fs, path::PathBuf};

use bimodal::Address;

use crate::{
    ends_with, has, program, run_with,
    support::{
        Scene,
        client::{Answer, Client},
        program::Program,
        wait_until,
    },
};

/// A directory for the store, which is removed.
struct Directory(PathBuf);

impl Directory {
    fn new(scene: &Scene) -> Self {
        let name = format!("bimodal-{}-{}-{}", scene.name, scene.mode, std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn args(&self) -> [&str; 2] {
        ["--directory", self.0.to_str().unwrap()]
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn sessions(scene: &Scene) {
    explains_itself("sessions");
    let directory = Directory::new(scene);
    run_with("sessions", scene, &directory.args(), |address| {
        let nobody = ask(address, "GET", "/", "", "");
        assert_eq!(nobody.as_ref().map(|answer| answer.status), Some(401));
        let refused = ask(address, "POST", "/login", "", "name=<script>");
        assert_eq!(refused.map(|answer| answer.status), Some(400));
        let (cookie, other) = (log_in(address, "ada"), log_in(address, "grace"));
        assert_ne!(cookie, other);
        greets(address, &cookie, "ada");
        // Both workers end; whoever replaces them knows both users.
        for _ in 0..2 {
            assert!(
                ask(address, "POST", "/crash", &cookie, "").is_none(),
                "no answer from the dead"
            );
            greets(address, &cookie, "ada");
        }
        greets(address, &other, "grace");
        let goodbye = ask(address, "POST", "/logout", &cookie, "").unwrap();
        assert!(goodbye.header("set-cookie").unwrap().contains("Max-Age=0"));
        assert_eq!(ask(address, "GET", "/", &cookie, "").map(|answer| answer.status), Some(401));
        greets(address, &other, "grace");
    });
}

/// Returns the cookie as a browser sends it back.
fn log_in(address: &Address, name: &str) -> String {
    let answer = ask(address, "POST", "/login", "", &format!("name={name}")).unwrap();
    assert_eq!(answer.status, 200);
    let cookie = answer.header("set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Path=/; Max-Age=3600");
    assert_eq!(pair.len(), "session=".len() + 32);
    pair.into()
}

fn greets(address: &Address, cookie: &str, name: &str) {
    wait_until("an answer from a worker that lives", || {
        let Some(answer) = ask(address, "GET", "/", cookie, "") else { return false };
        assert!(
            answer.text().starts_with(&format!("hello {name}, from worker ")),
            "{}",
            answer.text()
        );
        true
    });
}

/// An answer, unless the worker ended instead.
fn ask(address: &Address, method: &str, path: &str, cookie: &str, body: &str) -> Option<Answer> {
    let mut client = Client::connect(address).ok()?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}");
    let request = format!("{head}\r\nCookie: theme=dark; {cookie}\r\n\r\n{body}");
    client.send(request.as_bytes()).ok()?;
    client.answer().ok()
}

pub fn counter(scene: &Scene) {
    explains_itself("counter");
    let directory = Directory::new(scene);
    // The store is there from before the second time.
    for stored in [4400, 8800] {
        let told = ends_with("counter", scene, &directory.args());
        assert_eq!(told.iter().filter(|line| line.ends_with(": 1000")).count(), 4, "{told:#?}");
        for line in [
            "4 workers counted 4400 times in all, one of them crashed and began anew",
            "a variable of worker 5: 1000",
            "messages to the primary: 4400",
            "the SharedBuffer: 4400",
        ] {
            has(&told, line);
        }
        has(&told, &format!("the Store: {stored}, with what earlier runs counted"));
    }
}

fn explains_itself(example: &str) {
    let help = Program::spawn(std::process::Command::new(program(example)).arg("--help")).succeed();
    assert!(help.iter().any(|line| line.contains("--mode <process|thread>")), "{help:#?}");
}
