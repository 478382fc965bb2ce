//! What the lab keeps in the store, whichever worker answers.

use crate::{
    Lab, start,
    support::{
        Scene,
        client::{Answer, Client},
    },
};

pub fn stored(scene: &Scene) {
    if !scene.is_process() {
        let lab = start(scene.mode, &["--scheduling", "round-robin"]);
        counts_and_knows(&lab);
        lab.stop();
        return;
    }
    // Without a directory processes have no store: the route says what is missing.
    let lab = start(scene.mode, &[]);
    let answer = lab.get("/count");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("`store-lmdb`"), "{}", answer.text());
    lab.stop();
    #[cfg(feature = "store-lmdb")]
    {
        let directory = format!("{}/lab-store-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let lab = start(scene.mode, &["--scheduling", "round-robin", "--store", &directory]);
        counts_and_knows(&lab);
        lab.stop();
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// In turn, by two workers.
fn counts_and_knows(lab: &Lab) {
    for count in 1..=4 {
        assert_eq!(lab.get("/count").text(), format!("{count}\n"));
    }
    let first = visit(lab, "");
    assert_eq!(first.text(), "visit 1\n");
    let cookie = first.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=3600"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    for visits in 2..=4 {
        assert_eq!(visit(lab, &pair).text(), format!("visit {visits}\n"));
    }
    // An id that the lab has not given is none.
    let invented = format!("lab={:032x}", 7);
    let answer = visit(lab, &invented);
    assert_eq!(answer.text(), "visit 1\n");
    assert!(!answer.header("set-cookie").unwrap().starts_with(&invented));
}

fn visit(lab: &Lab, cookie: &str) -> Answer {
    let mut client = Client::connect(&lab.address).unwrap();
    let request = format!("GET /session HTTP/1.1\r\nHost: test\r\nCookie: a=b; {cookie}\r\n\r\n");
    client.send(request.as_bytes()).unwrap();
    client.answer().unwrap()
}
