//! Round trips of arbitrary frames, and packets that no honest peer would send.

use std::net::SocketAddr;

use proptest::{collection::vec, option, prelude::*};

use super::*;

const MAX_MESSAGE: u64 = 1 << 20;

/// The packets of a frame, as bytes and descriptor counts.
fn packets(frame: Frame) -> Vec<(Vec<u8>, usize)> {
    let mut outgoing = Outgoing::new(frame).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = outgoing.packet() {
        assert!((1..=PACKET_LIMIT).contains(&packet.len()));
        packets.push(([packet.head, packet.body].concat(), packet.descriptors));
        outgoing.advance();
    }
    packets
}

fn only_packet(frame: Frame) -> Vec<u8> {
    let mut all = packets(frame);
    assert_eq!(all.len(), 1);
    all.remove(0).0
}

fn decode(packets: &[(Vec<u8>, usize)]) -> Result<Vec<Frame>, WireError> {
    let mut decoder = Decoder::new(MAX_MESSAGE);
    let frames = packets.iter().map(|(bytes, count)| decoder.push(bytes, given(*count)));
    frames.filter_map(Result::transpose).collect()
}

fn refused(packet: &[u8]) -> WireError {
    Decoder::new(MAX_MESSAGE).push(packet, given(0)).unwrap_err()
}

fn message(length: usize) -> Frame {
    let payload = (0..length).map(|index| index as u8).collect();
    Frame::Message {
        letter: Letter { type_name: "alloc::vec::Vec<u8>".into(), payload },
        handle: None,
        topic: None,
    }
}

fn with_handle(length: usize, kind: HandleKind) -> Frame {
    match message(length) {
        Frame::Message { letter, .. } => {
            Frame::Message { letter, handle: Some(kind), topic: Some("a topic".into()) }
        }
        frame => frame,
    }
}

/// So many descriptors, none lost.
fn given(count: usize) -> Given {
    Given { count, lost: false }
}

fn addresses() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<SocketAddr>().prop_map(Address::Tcp),
        any::<SocketAddr>().prop_map(Address::Udp),
        any::<i32>().prop_map(Address::Fd),
        vec(any::<u8>(), 0..=PATH_LIMIT).prop_map(Address::Unix),
    ]
}

fn data() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..100))
}

fn grants() -> impl Strategy<Value = Grant> {
    prop_oneof![
        (any::<u32>(), addresses())
            .prop_map(|(listener, address)| Grant::Handed { listener, address }),
        (any::<u32>(), addresses())
            .prop_map(|(listener, address)| Grant::Socket { listener, address }),
    ]
}

fn from_primary() -> impl Strategy<Value = Frame> {
    let flags = any::<([u64; 3], Option<u32>, bool, bool)>();
    let region = any::<(String, u64)>().prop_map(|(name, words)| Region { name, words });
    let welcome = (any::<u64>(), any::<[u32; 3]>(), any::<String>(), flags, vec(region, 0..4))
        .prop_map(
            |(
                worker,
                [slot, slots, generation],
                name,
                ([max_message, beat, idle_poll], core, json, data),
                regions,
            )| {
                Frame::Welcome {
                    version: VERSION,
                    worker,
                    slot,
                    slots,
                    generation,
                    name,
                    max_message,
                    beat,
                    idle_poll,
                    core,
                    json,
                    data,
                    regions,
                }
            },
        );
    prop_oneof![
        welcome,
        (any::<u32>(), grants(), data()).prop_map(|(request, grant, data)| Frame::Granted {
            request,
            grant,
            data
        }),
        (any::<u32>(), any::<Option<i32>>(), any::<String>())
            .prop_map(|(request, errno, text)| Frame::Denied { request, errno, text }),
        (any::<u32>(), vec(any::<u64>(), 1..=MAX_CONNECTIONS))
            .prop_map(|(listener, ids)| Frame::Connections { listener, ids }),
        Just(Frame::Disconnect),
        Just(Frame::Close),
        Just(Frame::Unready),
        any::<u32>().prop_map(|listener| Frame::Look { listener }),
    ]
}

fn from_worker() -> impl Strategy<Value = Frame> {
    let options = (any::<u32>(), any::<[bool; 6]>()).prop_map(|(backlog, flags)| {
        let [datagram, defer_accept, ipv6_only, reuse_address, readable_all, writable_all] = flags;
        ListenOptions {
            backlog,
            datagram,
            defer_accept,
            ipv6_only,
            reuse_address,
            readable_all,
            writable_all,
        }
    });
    prop_oneof![
        (any::<u64>(), any::<u32>()).prop_map(|(worker, pid)| Frame::Hello {
            version: VERSION,
            worker,
            pid
        }),
        Just(Frame::Online),
        Just(Frame::Ready),
        (any::<u32>(), addresses(), options, data()).prop_map(
            |(request, address, options, data)| Frame::Listen { request, address, options, data }
        ),
        any::<u32>().prop_map(|listener| Frame::Listening { listener }),
        any::<u32>().prop_map(|listener| Frame::Unlisten { listener }),
        any::<(u32, Option<i32>)>().prop_map(|(listener, errno)| Frame::Left { listener, errno }),
        vec(any::<u64>(), 1..=100).prop_map(|ids| Frame::Adopted { ids }),
        vec(any::<u64>(), 1..=100).prop_map(|ids| Frame::Refused { ids }),
        (any::<u32>(), any::<Option<u32>>())
            .prop_map(|(listener, connections)| Frame::Room { listener, connections }),
        any::<bool>().prop_map(|voluntary| Frame::Leaving { voluntary }),
        any::<String>().prop_map(|topic| Frame::Join { topic }),
        any::<String>().prop_map(|topic| Frame::Leave { topic }),
        option::of((any::<bool>(), any::<String>())).prop_map(|failure| Frame::Finished {
            failure: failure.map(|(panicked, text)| Failure { panicked, text })
        }),
        (any::<u32>(), any::<u64>()).prop_map(|(messages, bytes)| Frame::Taken { messages, bytes }),
    ]
}

fn frames() -> impl Strategy<Value = Frame> {
    prop_oneof![
        3 => from_primary(),
        3 => from_worker(),
        1 => prop_oneof![0..100_usize, 60_000..200_000_usize].prop_map(message),
        1 => (prop_oneof![0..100_usize, 60_000..200_000_usize], handles())
            .prop_map(|(length, kind)| with_handle(length, kind)),
        1 => vec((any::<u8>(), vec(any::<u8>(), 0..100)), 1..20).prop_map(|letters| {
            let letter = |(name, payload)| Letter { type_name: format!("{name}").into(), payload };
            Frame::Messages { letters: letters.into_iter().map(letter).collect() }
        }),
    ]
}

fn handles() -> impl Strategy<Value = HandleKind> {
    use HandleKind::*;
    prop::sample::select(vec![TcpStream, TcpListener, UnixStream, UnixListener, UdpSocket, Port])
}

/// Feeds packets to a decoder that is used on after errors, and checks what it holds after each.
fn feed(packets: &[(Vec<u8>, usize)]) {
    let mut decoder = Decoder::new(MAX_MESSAGE);
    let mut arrived = 0;
    for (packet, descriptors) in packets {
        arrived += packet.len();
        let _ = decoder.push(packet, given(*descriptors));
        if let Some(partial) = &decoder.partial {
            assert!(partial.letter.payload.capacity() <= 2 * arrived);
            assert!(partial.letter.payload.capacity() <= partial.total);
            assert!(partial.total as u64 <= MAX_MESSAGE);
        }
    }
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were_sent(sent in vec(frames(), 1..6)) {
        let wire: Vec<_> = sent.iter().cloned().flat_map(packets).collect();
        for frame in &sent {
            let packets = packets(frame.clone());
            prop_assert_eq!(packets[0].1, frame.descriptors());
            prop_assert!(packets[1..].iter().all(|(_, descriptors)| *descriptors == 0));
        }
        prop_assert_eq!(decode(&wire), Ok(sent));
    }

    #[test]
    fn garbage_is_survived(wire in vec((vec(any::<u8>(), 0..300), 0..3_usize), 0..20)) {
        feed(&wire);
    }

    #[test]
    fn a_known_kind_with_garbage_is_survived(
        wire in vec((0..22_u8, vec(prop_oneof![Just(0_u8), any::<u8>()], 0..100), 0..3_usize), 0..20),
    ) {
        let packet = |(kind, rest, descriptors)| ([vec![kind], rest].concat(), descriptors);
        feed(&wire.into_iter().map(packet).collect::<Vec<_>>());
    }

    #[test]
    fn flipped_bits_are_survived(
        sent in vec(frames(), 1..4),
        flips in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u32), 1..8),
    ) {
        let mut wire: Vec<_> = sent.into_iter().flat_map(packets).collect();
        for (packet, byte, bit) in flips {
            let (bytes, _) = packet.get_mut(&mut wire[..]);
            // Early bytes are tags and counts, the ones worth flipping.
            let near = byte.index(bytes.len().min(64));
            bytes[near] ^= 1_u8 << bit;
        }
        feed(&wire);
    }

    #[test]
    fn a_cut_or_longer_packet_is_an_error(
        frame in prop_oneof![from_primary(), from_worker()],
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = only_packet(frame.clone());
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert!(Decoder::new(0).push(cut, given(frame.descriptors())).is_err());
        bytes.push(0);
        let longer = Decoder::new(0).push(&bytes, given(frame.descriptors()));
        prop_assert_eq!(longer, Err(WireError::Trailing { bytes: 1 }));
    }

    #[test]
    fn a_wrong_number_of_descriptors_is_an_error(frame in frames(), more in 1..4_usize) {
        let mut wire = packets(frame.clone());
        let last = wire.len() - 1;
        wire[last].1 += more;
        let error = decode(&wire).unwrap_err();
        prop_assert!(matches!(error, WireError::Descriptors { .. }), "{}", error);
        if frame.descriptors() > 0 {
            wire[0].1 = 0;
            prop_assert!(decode(&wire).is_err());
        }
    }

    #[test]
    fn nothing_comes_between_the_parts_of_a_message(
        length in 2 * PACKET_LIMIT..6 * PACKET_LIMIT,
        other in frames(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut wire = packets(message(length));
        let at = 1 + at.index(wire.len() - 1);
        wire.insert(at, packets(other).remove(0));
        let error = decode(&wire).unwrap_err();
        prop_assert!(matches!(error, WireError::Interrupted { .. }), "{}", error);
    }

    #[test]
    fn lost_and_repeated_parts_are_noticed(
        length in 3 * PACKET_LIMIT..6 * PACKET_LIMIT,
        at in any::<prop::sample::Index>(),
    ) {
        let wire = packets(message(length));
        let at = at.index(wire.len());
        let mut lost = wire.clone();
        lost.remove(at);
        prop_assert!(decode(&lost).map_or(true, |frames| frames.is_empty()));
        let mut repeated = wire;
        repeated.insert(at, repeated[at].clone());
        prop_assert!(decode(&repeated).is_err());
    }
}

#[test]
fn messages_of_every_size_around_a_packet_come_back() {
    let head = packets(message(0))[0].0.len();
    for length in [0, 1, PACKET_LIMIT - head - 1, PACKET_LIMIT - head, PACKET_LIMIT - head + 1] {
        let wire = packets(message(length));
        assert_eq!(wire.len(), if length + head > PACKET_LIMIT { 2 } else { 1 });
        assert_eq!(decode(&wire), Ok(vec![message(length)]));
    }
    let wire = packets(message(MAX_MESSAGE as usize));
    assert_eq!(decode(&wire), Ok(vec![message(MAX_MESSAGE as usize)]));
}

#[test]
fn a_message_over_the_limit_says_both_sizes() {
    let mut decoder = Decoder::new(99);
    let error = decoder.push(&packets(message(100))[0].0, given(0)).unwrap_err();
    assert_eq!(error.to_string(), "a message is too long: 100, the limit is 99");
    assert!(decoder.push(&packets(message(99))[0].0, given(0)).unwrap().is_some());

    let huge = [&[kind::MESSAGE][..], &u64::MAX.to_le_bytes(), &[0; 4]].concat();
    assert!(matches!(
        Decoder::new(u64::MAX - 1).push(&huge, given(0)),
        Err(WireError::TooLong { .. })
    ));
    let mut trusting = Decoder::new(u64::MAX);
    let _ = trusting.push(&[&huge[..], b"x"].concat(), given(0));
    assert!(trusting.partial.is_none_or(|partial| partial.letter.payload.capacity() < 64));
}

#[test]
fn the_first_error_of_a_packet_is_named() {
    assert_eq!(refused(&[]), WireError::Empty);
    assert_eq!(refused(&[0]), WireError::Kind { got: 0 });
    assert_eq!(refused(&[200, 1, 2]), WireError::Kind { got: 200 });
    assert_eq!(refused(&[kind::CHUNK, 1]), WireError::Stray);
    assert_eq!(refused(&[kind::LISTENING, 1]), WireError::Short { what: "a listener" });
    assert_eq!(refused(&[kind::LEAVING, 2]).to_string(), "voluntary cannot be 2");
    assert_eq!(refused(&[kind::ADOPTED, 0, 0, 0, 0]), WireError::NoIds);
    let count = [&[kind::ADOPTED][..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(refused(&count), WireError::TooLong { limit: 4096, .. }));
    let not_text = [&[kind::FINISHED, 1, 0, 1, 0, 0, 0][..], &[0xff]].concat();
    assert!(matches!(refused(&not_text), WireError::NotText { .. }));
    assert!(matches!(refused(&vec![1; PACKET_LIMIT + 1]), WireError::TooLong { .. }));
}

#[test]
fn another_version_is_recognised_whatever_follows_it() {
    for kind in [kind::HELLO, kind::WELCOME] {
        let error = refused(&[kind, 0xee, 0, 1, 2, 3]);
        assert_eq!(error, WireError::Version { theirs: 0xee, ours: VERSION });
    }
}

#[test]
fn a_message_without_progress_is_refused() {
    let wire = packets(message(2 * PACKET_LIMIT));
    let mut decoder = Decoder::new(MAX_MESSAGE);
    assert_eq!(decoder.push(&wire[0].0, given(0)), Ok(None));
    assert!(matches!(decoder.push(&[kind::CHUNK], given(0)), Err(WireError::Chunk { got: 0, .. })));
    assert_eq!(
        decoder.push(&wire[1].0, given(0)),
        Err(WireError::Stray),
        "the rest is not trusted"
    );
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let text = "é".repeat(TEXT_LIMIT);
    for text in [text.clone(), format!("x{text}")] {
        let sent = Frame::Denied { request: 1, errno: None, text: text.clone() };
        let Ok(Some(Frame::Denied { text: cut, .. })) =
            Decoder::new(0).push(&only_packet(sent), given(0))
        else {
            panic!("another frame came back")
        };
        assert!(text.starts_with(&cut));
        assert!((TEXT_LIMIT - 1..=TEXT_LIMIT).contains(&cut.len()));
    }
}

#[test]
fn what_is_over_its_limit_is_not_sent() {
    let refused = |frame| Outgoing::new(frame).unwrap_err();
    let ids = |count| vec![1; count];
    let too_many = Frame::Connections { listener: 1, ids: ids(MAX_CONNECTIONS + 1) };
    assert!(matches!(refused(too_many), WireError::TooLong { got: 65, limit: 64, .. }));
    assert_eq!(refused(Frame::Connections { listener: 1, ids: ids(0) }), WireError::NoIds);
    assert!(matches!(refused(Frame::Adopted { ids: ids(4097) }), WireError::TooLong { .. }));
    assert_eq!(only_packet(Frame::Refused { ids: ids(MAX_IDS) }).len(), 5 + 8 * MAX_IDS);
    let type_name = "x".repeat(NAME_LIMIT + 1);
    let letter = Letter { type_name: type_name.into(), payload: Vec::new() };
    let message = Frame::Message { letter, handle: None, topic: None };
    assert!(matches!(refused(message), WireError::TooLong { got: 4097, limit: 4096, .. }));
    let address = Address::Unix(vec![b'x'; PATH_LIMIT + 1]);
    let options = ListenOptions::default();
    let listen = Frame::Listen { request: 1, address, options, data: None };
    assert!(matches!(refused(listen), WireError::TooLong { got: 4097, .. }));
    let address = Address::Fd(1);
    let data = Some(vec![0; DATA_LIMIT + 1]);
    let listen = Frame::Listen { request: 1, address, options, data };
    assert!(matches!(refused(listen), WireError::TooLong { got: 16_385, .. }));
}

#[test]
fn a_lost_descriptor_is_forgiven_and_a_foreign_one_is_not() {
    let lost = |count| Given { count, lost: true };
    let with = only_packet(with_handle(3, HandleKind::UdpSocket));
    let without = only_packet(message(3));
    let push = |packet: &[u8], given| Decoder::new(99).push(packet, given);
    assert!(push(&with, lost(0)).unwrap().is_some());
    assert!(push(&with, given(0)).is_err());
    assert!(push(&with, lost(1)).is_err());
    assert!(push(&with, lost(2)).is_err());
    assert!(push(&without, lost(0)).is_err());
    let mut unknown = with;
    let tag = unknown.len() - 3 - 1 - 4 - "a topic".len() - 1;
    unknown[tag] = 7;
    let what = "a kind of handle";
    assert_eq!(push(&unknown, given(1)), Err(WireError::Value { what, got: 7 }));
}

#[test]
fn messages_that_share_a_packet_are_held_to_the_limit_of_one() {
    let letter = |length| Letter { type_name: "u8".into(), payload: vec![1; length] };
    let both = only_packet(Frame::Messages { letters: vec![letter(1), letter(10)] });
    assert!(Decoder::new(10).push(&both, given(0)).is_ok());
    let error = Decoder::new(9).push(&both, given(0)).unwrap_err();
    assert!(matches!(error, WireError::TooLong { got: 10, limit: 9, .. }));
    assert!(matches!(refused(&[kind::MESSAGES]), WireError::Short { .. }));
    assert!(Outgoing::new(Frame::Messages { letters: vec![letter(SMALL + 1)] }).is_err());
}
