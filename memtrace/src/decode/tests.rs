//! Records as the kernel lays them out, whole and otherwise.

use memtrace_common::event::DataHead;
use proptest::prelude::*;

use super::*;

/// The fields of a record, put where the kernel's structures have them.
struct Bytes(Vec<u8>);

impl Bytes {
    fn of(kind: Kind, flags: u16, size: usize) -> Bytes {
        Bytes(vec![0xa5; size])
            .put(offset_of!(Header, ts_ns), &77u64.to_ne_bytes())
            .put(offset_of!(Header, pid), &10u32.to_ne_bytes())
            .put(offset_of!(Header, tid), &11u32.to_ne_bytes())
            .put(offset_of!(Header, kind), &(kind as u16).to_ne_bytes())
            .put(offset_of!(Header, flags), &flags.to_ne_bytes())
    }

    fn put(mut self, at: usize, bytes: &[u8]) -> Bytes {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn body(&self) -> EventBody {
        let event = record(&self.0).unwrap();
        let event = event.event;
        assert_eq!((event.ts_ns, event.pid, event.tid), (77, 10, 11));
        // Any byte less and it is an error, not a guess.
        for cut in 0..self.0.len().min(24) {
            assert!(record(&self.0[..cut]).is_err());
        }
        event.body
    }
}

fn data_bytes(kind: Kind, flags: u16, room: usize, len: u64, payload: u32, tail: u32) -> Bytes {
    Bytes::of(kind, flags, size_of::<DataHead>() + room)
        .put(offset_of!(DataHead, inode), &5u64.to_ne_bytes())
        .put(offset_of!(DataHead, fd), &9i32.to_ne_bytes())
        .put(offset_of!(DataHead, len), &len.to_ne_bytes())
        .put(offset_of!(DataHead, payload_len), &payload.to_ne_bytes())
        .put(offset_of!(DataHead, tail), b"01234567")
        .put(offset_of!(DataHead, tail_len), &tail.to_ne_bytes())
}

fn data_of(bytes: &Bytes) -> (Data, Captured) {
    let captured = record(&bytes.0).expect("a record").captured;
    match bytes.body() {
        EventBody::Data(data) => (data, captured),
        other => panic!("{other:?}"),
    }
}

#[test]
fn allocator_records() {
    let alloc = Bytes::of(Kind::Alloc, 0, 40)
        .put(24, &0xdead_beefu64.to_ne_bytes())
        .put(32, &512u64.to_ne_bytes());
    assert_eq!(
        alloc.body(),
        EventBody::Alloc {
            addr: 0xdead_beef,
            size: 512
        }
    );
    assert_eq!(
        record(&alloc.0[..39]),
        Err(DecodeError::Short { need: 40, have: 39 })
    );
    let free = Bytes::of(Kind::Free, 0, 32).put(24, &16u64.to_ne_bytes());
    assert_eq!(free.body(), EventBody::Free { addr: 16 });
    let realloc = Bytes::of(Kind::Realloc, 0, 56)
        .put(24, &1u64.to_ne_bytes())
        .put(32, &2u64.to_ne_bytes())
        .put(40, &3u64.to_ne_bytes())
        .put(48, &4u64.to_ne_bytes());
    assert_eq!(
        realloc.body(),
        EventBody::Realloc {
            old: 1,
            addr: 2,
            size: 3,
            elapsed_ns: 4
        }
    );
}

#[test]
fn socket_records() {
    let bytes = |kind, flags| {
        Bytes::of(kind, flags, 80)
            .put(24, &99u64.to_ne_bytes())
            .put(32, &(-1i32).to_ne_bytes())
            .put(36, &104u32.to_ne_bytes())
            .put(40, &10u16.to_ne_bytes())
            .put(42, &8000u16.to_ne_bytes())
            .put(44, &50000u16.to_ne_bytes())
            .put(48, &[1; 16])
            .put(64, &[2; 16])
    };
    let socket = SocketId(99);
    let fact = SocketFact {
        socket,
        fd: -1,
        addresses: Addresses {
            family: 10,
            local_port: 8000,
            peer_port: 50000,
            reserved: 0,
            local: [1; 16],
            peer: [2; 16],
        },
    };
    assert_eq!(bytes(Kind::Accept, 0).body(), EventBody::Accept(fact));
    assert_eq!(bytes(Kind::Connect, 0).body(), EventBody::Connect(fact));
    assert_eq!(
        bytes(Kind::Shutdown, 0).body(),
        EventBody::Shutdown { socket, how: 104 }
    );
    assert_eq!(
        bytes(Kind::SocketError, 0).body(),
        EventBody::SocketError { socket, errno: 104 }
    );
    for (flags, last) in [(FLAG_LAST, true), (!FLAG_LAST, false)] {
        let close = EventBody::Close {
            socket,
            fd: -1,
            last,
        };
        assert_eq!(bytes(Kind::Close, flags).body(), close);
    }
}

#[test]
fn task_and_wait_records() {
    let task = |kind, flags| {
        Bytes::of(kind, flags, 40)
            .put(24, &20u32.to_ne_bytes())
            .put(28, &21u32.to_ne_bytes())
            .put(32, &22u64.to_ne_bytes())
    };
    for (flags, process, followed) in [
        (0, false, false),
        (FLAG_PROCESS, true, false),
        (FLAG_PROCESS | FLAG_FOLLOWED, true, true),
    ] {
        assert_eq!(
            task(Kind::Fork, flags).body(),
            EventBody::Fork {
                child_pid: 20,
                child_tid: 21,
                start_ns: 22,
                process,
                followed
            }
        );
        assert_eq!(task(Kind::Exit, flags).body(), EventBody::Exit { process });
    }
    assert_eq!(task(Kind::Exec, 0).body(), EventBody::Exec { start_ns: 22 });
    assert_eq!(task(Kind::CgroupMove, 0).body(), EventBody::CgroupMove);
    assert_eq!(Bytes::of(Kind::Mapped, 0, 24).body(), EventBody::Mapped);
    let wait = |id: u32| {
        Bytes::of(Kind::Wait, 0, 32)
            .put(24, &id.to_ne_bytes())
            .put(28, &3u32.to_ne_bytes())
    };
    assert_eq!(
        wait(2).body(),
        EventBody::Wait {
            kind: WaitKind::Poll,
            descriptors: 3
        }
    );
    assert_eq!(
        record(&wait(9).0),
        Err(DecodeError::UnknownDetail {
            kind: 10,
            detail: 9
        })
    );
}

#[test]
fn data_records_of_every_room() {
    for room in [64, 512, 4096] {
        let (data, captured) = data_of(&data_bytes(
            Kind::Recv,
            FLAG_MORE,
            room,
            room as u64,
            room as u32,
            0,
        ));
        assert_eq!(data.direction, Direction::Recv);
        assert_eq!((data.stream, data.fd), (StreamId::Socket(SocketId(5)), 9));
        assert!(data.more && !data.unreadable);
        assert_eq!(captured.payload, vec![0xa5; room]);
        assert_eq!(captured.tail, b"");
        // Only the payload's own bytes are valid.
        let (data, captured) = data_of(&data_bytes(Kind::Send, 0, room, 7, 7, 0));
        assert_eq!(data.direction, Direction::Send);
        assert_eq!(captured.payload, vec![0xa5; 7]);
    }
}

#[test]
fn tails_count_only_where_the_payload_was_cut() {
    let tail = |len, payload, tail| {
        data_of(&data_bytes(Kind::Recv, 0, 64, len, payload, tail))
            .1
            .tail
    };
    assert_eq!(tail(1000, 64, 8), b"01234567");
    assert_eq!(tail(1000, 0, 8), b"01234567");
    assert_eq!(tail(1000, 64, 0), b"");
    assert_eq!(tail(64, 64, 8), b"");
    assert_eq!(tail(7, 0, 8), b"");
    let half = data_bytes(Kind::Recv, 0, 64, 1000, 64, 5);
    assert_eq!(record(&half.0), Err(DecodeError::TailLength(5)));
}

#[test]
fn an_unreadable_part_has_no_bytes() {
    let (data, captured) = data_of(&data_bytes(Kind::Send, FLAG_UNREADABLE, 64, 1000, 64, 8));
    assert!(data.unreadable && !data.more);
    assert_eq!((data.len, captured), (1000, Captured::default()));
}

#[test]
fn plaintext_has_a_stream_of_its_own() {
    let (data, _) = data_of(&data_bytes(Kind::Recv, FLAG_TLS, 64, 7, 7, 0));
    assert_eq!(data.stream, StreamId::Tls(5));
}

#[test]
fn payload_lengths_are_not_believed() {
    for (room, len, payload) in [(64, 1000, 65), (64, 10, 11), (64, u64::MAX, u32::MAX)] {
        let bytes = data_bytes(Kind::Recv, 0, room, len, payload, 0);
        assert_eq!(
            record(&bytes.0),
            Err(DecodeError::PayloadLength {
                payload_len: payload,
                room,
                len
            })
        );
    }
}

#[test]
fn unknown_kinds_are_errors_with_a_cause() {
    let bytes = Bytes::of(Kind::Mapped, 0, 24).put(16, &999u16.to_ne_bytes());
    let error = record(&bytes.0).unwrap_err();
    assert_eq!(error, DecodeError::UnknownKind(999));
    assert_eq!(error.cause(), "record_unknown");
    assert_eq!(record(&[]).unwrap_err().cause(), "record_malformed");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0..26u16,
    ) {
        if let Some(field) = bytes.get_mut(16..18) {
            field.copy_from_slice(&kind.to_ne_bytes());
        }
        if let Ok(RawEvent { event, captured }) = record(&bytes)
            && let EventBody::Data(data) = event.body
        {
            prop_assert!(captured.payload.len() as u64 <= data.len);
            prop_assert!(captured.payload.len() <= bytes.len() - 64);
        }
    }
}
