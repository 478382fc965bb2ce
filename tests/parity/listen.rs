//! Where workers listen.

use std::{net::TcpListener, path::PathBuf};

use bimodal::{Address, ErrorKind, Scheduling, Worker};

use crate::{
    bodies::{ANYWHERE, greet_all, greet_on},
    support::{
        Scenario, Scene, both,
        client::greeting,
        events::{Seen, fork_listening, next_message, to_the_end, until_named},
        wait_until,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    both("the_nth_port_0_of_every_worker_meets", meet).proves(&["LST-01", "LST-02", "EVT-09"]),
    both("an_address_twice_in_one_worker_is_in_use", twice),
    both("a_foreign_port_is_an_error_in_the_worker", foreign).proves(&["LST-08"]),
    both("a_failed_bind_can_be_tried_again", again).proves(&["LST-09"]),
    both("ipv6_is_served", ipv6),
    both("a_unix_socket_is_served_by_round_robin", |scene| unix(scene, Scheduling::RoundRobin)),
    both("a_unix_socket_is_served_shared", |scene| unix(scene, Scheduling::Shared)),
    both("a_unix_socket_is_served_under_reuse_port", |scene| unix(scene, Scheduling::ReusePort)),
    both("a_closed_listener_leaves_the_others", closed).proves(&["LST-45"]),
    both("a_malformed_address_names_the_remedy", malformed),
];

fn meet(scene: &Scene) {
    let cluster = scene.builder().launch(listen_twice).unwrap();
    let workers: Vec<_> = (0..2).map(|_| cluster.fork().unwrap()).collect();
    let mut seen = until_named(&cluster, "listening", 4);
    let first = seen.addresses()[0].clone();
    greeting(&first).unwrap();
    cluster.disconnect().unwrap();
    seen.0.extend(to_the_end(&cluster).0);
    let ports = |worker: &bimodal::WorkerHandle| ports_of(&seen, worker.id());
    assert_eq!(ports(&workers[0]), ports(&workers[1]));
    let [first, second] = ports(&workers[0])[..] else { panic!("not two ports") };
    assert!(first != second && first != 0 && second != 0);
}

fn ports_of(seen: &Seen, id: bimodal::WorkerId) -> Vec<u16> {
    let ports = seen.0.iter().filter_map(|event| match event {
        bimodal::Event::Listening { worker, address } if worker.id() == id => {
            Some(address.tcp().unwrap().port())
        }
        _ => None,
    });
    ports.collect()
}

async fn listen_twice(worker: Worker) -> bimodal::Result<()> {
    let first = worker.listen(ANYWHERE).await?;
    let _second = worker.listen(ANYWHERE).await?;
    greet_all(worker, first).await
}

fn twice(scene: &Scene) {
    let cluster = scene.builder().launch(same_twice).unwrap();
    cluster.fork().unwrap();
    let (_, in_use) = next_message::<bool>(&cluster);
    assert!(in_use, "EADDRINUSE");
    assert!(to_the_end(&cluster).exits().all(|(_, status)| status.success()));
}

async fn same_twice(worker: Worker) -> bimodal::Result<()> {
    let first = worker.listen(ANYWHERE).await?;
    let second = worker.listen(first.address()).await;
    let _ = worker.send(second.unwrap_err().io_kind() == Some(std::io::ErrorKind::AddrInUse))?;
    Ok(())
}

fn foreign(scene: &Scene) {
    let taken = TcpListener::bind(ANYWHERE).unwrap();
    let cluster = scene.builder().launch(try_and_tell).unwrap();
    let worker = cluster.fork().unwrap();
    let _ = worker.send(taken.local_addr().unwrap().to_string()).unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "in use");
    // Neither side falls: the same worker listens elsewhere.
    let _ = worker.send(ANYWHERE.to_owned()).unwrap();
    assert_eq!(next_message::<String>(&cluster).1, "listening");
}

fn again(scene: &Scene) {
    let taken = TcpListener::bind(ANYWHERE).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cluster = scene.builder().launch(try_and_tell).unwrap();
    let workers = [(); 2].map(|()| cluster.fork().unwrap());
    let ask = |worker: usize| {
        let _ = workers[worker].send(address.clone()).unwrap();
        next_message::<String>(&cluster).1
    };
    assert_eq!(ask(0), "in use");
    drop(taken);
    // Another one than failed. A process that another test forks has the socket until it runs its program.
    wait_until("the address to be free", || ask(1) == "listening");
    assert_eq!(ask(0), "listening");
    drop(std::net::TcpStream::connect(&address).unwrap());
}

/// Tries every address it is told, keeps what it got, and tells how it went.
async fn try_and_tell(worker: Worker) -> bimodal::Result<()> {
    let mut listeners = Vec::new();
    while let Some(message) = worker.recv().await {
        let told = match worker.listen(&message.get::<String>()?).await {
            Ok(listener) => {
                listeners.push(listener);
                "listening"
            }
            Err(error) if error.kind() != ErrorKind::Listen => "another error",
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::AddrInUse) => "in use",
            Err(_) => "another cause",
        };
        let _ = worker.send(told)?;
    }
    Ok(())
}

fn ipv6(scene: &Scene) {
    let body = |worker| async { greet_on(worker, "[::1]:0".parse().unwrap()).await };
    let cluster = scene.builder().launch(body).unwrap();
    let (_, address) = fork_listening(&cluster, 2);
    assert!(address.tcp().unwrap().is_ipv6());
    for _ in 0..4 {
        greeting(&address).unwrap();
    }
}

fn unix(scene: &Scene, scheduling: Scheduling) {
    let path = socket_path(scene);
    let cluster = scene.builder().scheduling(scheduling).launch(on_told_socket).unwrap();
    let workers: Vec<_> = (0..2).map(|_| cluster.fork().unwrap()).collect();
    for worker in &workers {
        let _ = worker.send(path.to_str().unwrap().to_owned()).unwrap();
    }
    let addresses = until_named(&cluster, "listening", 2).addresses();
    assert_eq!(addresses, vec![Address::Unix(path.clone()); 2]);
    for _ in 0..10 {
        greeting(&addresses[0]).unwrap();
    }
    drop(cluster);
    assert!(!path.exists(), "the socket file is left behind");
}

async fn on_told_socket(worker: Worker) -> bimodal::Result<()> {
    let Some(path) = worker.recv().await else { return Ok(()) };
    greet_on(worker, Address::Unix(path.get::<String>()?.into())).await
}

fn socket_path(scene: &Scene) -> PathBuf {
    let name = format!("bimodal-{}-{}-{}.sock", std::process::id(), scene.mode, scene.name);
    std::env::temp_dir().join(name)
}

fn closed(scene: &Scene) {
    let cluster = scene.builder().launch(close_when_told).unwrap();
    let (workers, address) = fork_listening(&cluster, 2);
    let _ = workers[0].send(()).unwrap();
    next_message::<()>(&cluster);
    // What was on its way to the first is given back, so all are greeted by the second.
    for _ in 0..10 {
        assert_eq!(greeting(&address).unwrap(), workers[1].id().to_string());
    }
}

async fn close_when_told(worker: Worker) -> bimodal::Result<()> {
    let listener = worker.listen(ANYWHERE).await?;
    let greeter = bimodal::event_loop::spawn(greet_all(worker.clone(), listener));
    if worker.recv().await.is_some() {
        drop(greeter);
        let _ = worker.send(())?;
        worker.draining().await;
        return Ok(());
    }
    greeter.await.unwrap_or(Ok(()))
}

fn malformed(scene: &Scene) {
    let cluster = scene.builder().launch(listen_nowhere).unwrap();
    cluster.fork().unwrap();
    let (_, (is_setting, text)) = next_message::<(bool, String)>(&cluster);
    assert!(is_setting && text.contains("nowhere") && text.contains("IP:PORT"), "{text}");
}

async fn listen_nowhere(worker: Worker) {
    let error = worker.listen("nowhere").await.unwrap_err();
    let _ = worker.send((error.kind() == ErrorKind::Setting, error.to_string())).unwrap();
}
