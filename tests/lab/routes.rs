//! What the lab answers, the same in both modes.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Lab, start,
    support::{
        DEADLINE, Scene,
        client::{Client, get},
        wait_until,
    },
};

pub fn routes(scene: &Scene) {
    let lab = start(scene.mode, &["--scheduling", "round-robin"]);
    assert_eq!(lab.get("/plaintext").text(), "Hello, World!");
    assert_eq!(lab.get("/sleep?ms=5").text(), "slept 5 ms\n");
    assert_eq!(lab.get("/burn?ms=5").text(), "burned 5 ms\n");
    assert_eq!(lab.get("/burn?ms=5&pool=1").text(), "burned 5 ms in the pool\n");
    let identities: Vec<_> = (0..4).map(|_| lab.json("/")).collect();
    for identity in &identities {
        let worker = identity["worker"].as_u64().unwrap();
        assert_eq!(identity["thread"], json!(format!("bimodal-worker-{worker}")));
        assert_eq!(identity["mode"], json!(scene.mode.to_string()));
        assert_eq!(identity["generation"], json!(1));
        assert_eq!(identity["pid"] == json!(lab.program.pid()), !scene.is_process());
    }
    let workers: BTreeSet<_> = identities.iter().map(|who| who["worker"].as_u64()).collect();
    assert_eq!(workers.len(), 2, "in turn");
    let stats = lab.json("/stats");
    let rows = stats.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{stats}");
    assert!(rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum::<u64>() >= 7, "{stats}");
    let report = lab.stop();
    assert_eq!((&report["started"], &report["forced_kills"]), (&json!(2), &json!(0)));
}

pub fn refusals(scene: &Scene) {
    let lab = start(scene.mode, &[]);
    assert_eq!(lab.get("/nowhere").status, 404);
    assert_eq!(lab.get("/fault/unknown").status, 404);
    for query in
        ["", "?ms=", "?ms=x", "?ms=-1", "?ms=60001", "?ms=1&ms=2", "?other=1", "?ms=1&pool=2"]
    {
        for route in ["/sleep", "/burn"] {
            let answer = lab.get(&format!("{route}{query}"));
            assert_eq!(answer.status, 400, "{route}{query}");
            assert!(answer.text().contains("it must be ms=N"), "{}", answer.text());
        }
    }
    for (method, path, allow) in [
        ("POST", "/plaintext", "GET, HEAD"),
        ("GET", "/echo", "POST"),
        ("DELETE", "/", "GET, HEAD"),
    ] {
        let mut client = Client::connect(&lab.address).unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        client.send(request.as_bytes()).unwrap();
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    lab.stop();
}

/// Each part comes back before the next one is sent: nothing collects the whole.
pub fn echo_streams_8_mib(scene: &Scene) {
    const PART: usize = 64 << 10;
    const PARTS: usize = 128;
    let lab = start(scene.mode, &[]);
    let mut stream = TcpStream::connect(lab.address.tcp().unwrap()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = PART * PARTS;
    write!(stream, "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
        .unwrap();
    for number in 0..PARTS {
        let sent = vec![number as u8; PART];
        stream.write_all(&sent).unwrap();
        if number == 0 {
            let head = read_head(&mut stream);
            assert!(
                head.starts_with("HTTP/1.1 200") && head.contains(&length.to_string()),
                "{head}"
            );
        }
        let mut received = vec![0; PART];
        stream.read_exact(&mut received).unwrap();
        assert!(received == sent, "part {number} came back changed");
    }
    lab.stop();
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

pub fn several_addresses(scene: &Scene) {
    let path =
        format!("{}/lab-{}-{}.sock", env!("CARGO_TARGET_TMPDIR"), scene.mode, std::process::id());
    let lab = start(scene.mode, &["--listen", "127.0.0.1:0", "--listen", &format!("unix:{path}")]);
    let urls: Vec<_> = lab.ready.split(' ').nth(2).unwrap().split(',').collect();
    assert_eq!(urls.len(), 3, "{}", lab.ready);
    assert_ne!(urls[0], urls[1], "two listens on port 0 are two ports");
    for url in urls {
        let address = url.strip_prefix("http://").unwrap_or(url).parse().unwrap();
        assert_eq!(get(&address, "/plaintext").unwrap().text(), "Hello, World!");
    }
    lab.stop();
    assert!(!std::path::Path::new(&path).exists(), "the socket's file is left");
}

pub fn silent_clients(scene: &Scene) {
    let second = Duration::from_millis(900);
    let lab = start(scene.mode, &[]);
    assert!(met_after(&lab) > second, "the kernel counts a second");
    lab.stop();
    let lab = start(scene.mode, &["--defer-accept", "false"]);
    wait_until("a silent client to be met at once", || met_after(&lab) < second);
    lab.stop();
}

/// How long it takes until a client that says nothing has been accepted.
fn met_after(lab: &Lab) -> Duration {
    let accepted = || {
        let stats = lab.json("/stats");
        let rows = stats.as_array().unwrap().iter();
        rows.map(|row| row["connections_accepted"].as_u64().unwrap()).sum::<u64>()
    };
    let mut others = accepted();
    let begun = Instant::now();
    let _silent = Client::connect(&lab.address).unwrap();
    wait_until("the silent client to be accepted", || {
        // Asking takes a connection, too.
        others += 1;
        accepted() > others
    });
    begun.elapsed()
}
