//! The dispatcher alone, told by the test what workers do.

use std::{future::poll_fn, net::TcpStream, os::unix::net::UnixStream, sync::Arc, task::Poll};

use super::{dispatch::DESERTED, *};
use crate::{
    config::Scheduling,
    event_loop::on_loop,
    id::{Slot, WorkerId},
};

const FIRST: WorkerId = WorkerId::new(1);
const SECOND: WorkerId = WorkerId::new(2);

fn dispatcher(scheduling: Scheduling, keep_open: bool) -> Dispatcher {
    let mut dispatcher =
        Dispatcher::new(Rules { scheduling, window: 2, keep_open }, Arc::default());
    dispatcher.join(FIRST, Slot(0));
    dispatcher.join(SECOND, Slot(1));
    dispatcher
}

/// An address that no other test has.
fn name(test: &str, number: usize) -> String {
    format!("@bimodal-{}-{test}-{number}", std::process::id())
}

fn listen(dispatcher: &mut Dispatcher, worker: WorkerId, address: &str) -> ListenerId {
    ask(dispatcher, worker, Address::Unix(address.into())).0
}

/// A worker listens; where, if it asked for any port.
fn ask(dispatcher: &mut Dispatcher, worker: WorkerId, address: Address) -> (ListenerId, Address) {
    let wanted = Wanted { address, options: ListenOptions::default().socket, data: None };
    let Grant { listener, address, .. } = dispatcher.listen(worker, wanted).unwrap();
    dispatcher.ready(worker, listener).unwrap();
    (listener, address)
}

/// Whether clients can connect.
fn is_open(address: &str) -> bool {
    use std::os::linux::net::SocketAddrExt as _;
    let name = address.strip_prefix('@').unwrap();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    UnixStream::connect_addr(&address).is_ok()
}

#[test]
fn deserted_addresses_are_kept_for_the_next_worker_within_a_bound() {
    let mut dispatcher = dispatcher(Scheduling::Shared, true);
    let (kept, shared) = (name("kept", 0), name("shared", 0));
    let listener = listen(&mut dispatcher, FIRST, &kept);
    listen(&mut dispatcher, FIRST, &shared);
    listen(&mut dispatcher, SECOND, &shared);
    dispatcher.leave(FIRST);
    let passing = |number| name("passing", number);
    for number in 0..DESERTED + 9 {
        let listener = listen(&mut dispatcher, SECOND, &passing(number));
        dispatcher.withdraw(SECOND, Some(listener));
    }
    let open = (0..DESERTED + 9).filter(|number| is_open(&passing(*number)));
    let open: Vec<_> = open.collect();
    assert_eq!(open.len(), DESERTED - 1, "one is kept for who replaces the first worker");
    assert_eq!(open[0], 10, "what was deserted first is closed first");
    assert!(is_open(&kept) && is_open(&shared));
    let next = WorkerId::new(3);
    dispatcher.join(next, Slot(0));
    assert_eq!(listen(&mut dispatcher, next, &kept), listener);
    dispatcher.leave(next);
    dispatcher.leave(SECOND);
    assert!(is_open(&kept) && is_open(&shared), "all are gone, and others will come");
    assert!(!is_open(&passing(10)), "it makes room for what is wanted more");
}

#[test]
fn what_a_worker_leaves_as_it_ends_is_bounded_too() {
    let mut dispatcher = dispatcher(Scheduling::Shared, true);
    let address = |number| name("left", number);
    for number in 0..DESERTED + 1 {
        listen(&mut dispatcher, FIRST, &address(number));
    }
    dispatcher.leave(FIRST);
    assert_eq!((0..DESERTED + 1).filter(|number| is_open(&address(*number))).count(), DESERTED);
}

#[test]
fn without_a_worker_nothing_is_kept_unless_it_is_to_be() {
    let mut dispatcher = dispatcher(Scheduling::Shared, false);
    let address = name("unkept", 0);
    let listener = listen(&mut dispatcher, FIRST, &address);
    listen(&mut dispatcher, SECOND, &address);
    dispatcher.withdraw(FIRST, Some(listener));
    assert!(is_open(&address));
    dispatcher.leave(SECOND);
    assert!(!is_open(&address));
}

/// Offers what the workers have room for, and says whom.
async fn deal(dispatcher: &mut Dispatcher, open: u64) -> (Vec<WorkerId>, Vec<Offer>) {
    let mut dealt = Vec::new();
    let poll = poll_fn(|cx| {
        dispatcher.poll(cx, &|_| open, &mut dealt);
        Poll::Ready(())
    });
    poll.await;
    dealt.into_iter().unzip()
}

/// A worker listens, and so many clients connect.
fn serve(
    dispatcher: &mut Dispatcher,
    worker: WorkerId,
    address: &Address,
    clients: usize,
) -> (ListenerId, Address, Vec<TcpStream>) {
    let (listener, address) = ask(dispatcher, worker, address.clone());
    let connect = |_| TcpStream::connect(address.tcp().unwrap()).unwrap();
    let clients = (0..clients).map(connect).collect();
    (listener, address, clients)
}

#[test]
fn a_worker_that_comes_back_still_owes_its_answers() {
    on_loop(async || {
        let mut dispatcher = dispatcher(Scheduling::RoundRobin, true);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let (listener, address, _clients) = serve(&mut dispatcher, FIRST, &anywhere, 9);
        let (to, mut first) = deal(&mut dispatcher, 0).await;
        assert_eq!(to, [FIRST; 2], "the window");
        dispatcher.withdraw(FIRST, Some(listener));
        serve(&mut dispatcher, FIRST, &address, 0);
        assert!(deal(&mut dispatcher, 0).await.0.is_empty(), "a window that it has already");
        dispatcher.adopted(FIRST, listener, 1);
        assert_eq!(deal(&mut dispatcher, 0).await.0, [FIRST]);
        // The other old one comes back: it is dealt again, and one of the new ones is still unanswered.
        dispatcher.returned(FIRST, first.pop().unwrap());
        assert_eq!(deal(&mut dispatcher, 0).await.0, [FIRST]);
        assert!(deal(&mut dispatcher, 0).await.0.is_empty());
        serve(&mut dispatcher, SECOND, &address, 0);
        assert_eq!(deal(&mut dispatcher, 0).await.0, [SECOND; 2]);
    });
}

#[test]
fn what_is_owed_outlives_the_listener_and_not_the_worker() {
    on_loop(async || {
        let mut dispatcher = dispatcher(Scheduling::RoundRobin, false);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let (closed, _, _clients) = serve(&mut dispatcher, FIRST, &anywhere, 2);
        let (_, first) = deal(&mut dispatcher, 0).await;
        dispatcher.withdraw(FIRST, Some(closed));
        let (_, address, _others) = serve(&mut dispatcher, FIRST, &anywhere, 5);
        assert!(deal(&mut dispatcher, 0).await.0.is_empty(), "the listener is a new one");
        for offer in first {
            dispatcher.returned(FIRST, offer);
        }
        assert_eq!(deal(&mut dispatcher, 0).await.0, [FIRST; 2]);
        dispatcher.leave(FIRST);
        dispatcher.join(FIRST, Slot(0));
        let (_, _, _more) = serve(&mut dispatcher, FIRST, &address, 2);
        assert_eq!(deal(&mut dispatcher, 0).await.0, [FIRST; 2]);
    });
}

#[test]
fn what_a_worker_says_of_its_load_is_any_number() {
    on_loop(async || {
        let mut dispatcher = dispatcher(Scheduling::LeastConnections, true);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let (_, address, _clients) = serve(&mut dispatcher, FIRST, &anywhere, 3);
        serve(&mut dispatcher, SECOND, &address, 0);
        assert_eq!(deal(&mut dispatcher, u64::MAX).await.0.len(), 3);
        assert!(deal(&mut dispatcher, u64::MAX).await.0.is_empty());
    });
}

#[test]
fn however_often_a_worker_leaves_the_line_the_others_look_once() {
    let mut dispatcher = dispatcher(Scheduling::Shared, false);
    let address = name("line", 0);
    let listener = listen(&mut dispatcher, FIRST, &address);
    listen(&mut dispatcher, SECOND, &address);
    // Of a Unix socket nobody knows whether anything waits.
    for _ in 0..100 {
        dispatcher.left(FIRST, listener, None);
    }
    assert!(dispatcher.take_looks().into_iter().eq([(SECOND, listener)]));
    dispatcher.left(FIRST, listener, None);
    assert_eq!(dispatcher.take_looks().len(), 1, "a new reason");
    dispatcher.set_room(SECOND, listener, Some(0));
    dispatcher.left(FIRST, listener, None);
    assert!(dispatcher.take_looks().is_empty(), "it is full");
}

#[test]
fn nobody_leaves_a_line_for_datagrams() {
    let mut dispatcher = dispatcher(Scheduling::Shared, false);
    let options = SocketOptions { datagram: true, ..UdpOptions::default().socket };
    let mut bind = |worker| {
        let address = "udp:127.0.0.1:0".parse().unwrap();
        let grant = dispatcher.listen(worker, Wanted { address, options, data: None }).unwrap();
        grant.listener
    };
    let listener = bind(FIRST);
    assert_eq!(bind(SECOND), listener);
    dispatcher.left(FIRST, listener, Some(std::io::ErrorKind::Other.into()));
    assert!(dispatcher.take_failures().is_empty());
    dispatcher.withdraw(FIRST, Some(listener));
    assert!(dispatcher.take_looks().is_empty());
}
