//! Events for tests: one of each kind, any at all, and plausible ones.

use memtrace_common::event::{Addresses, ContextKind, CounterKind, HandoverKind, WaitKind};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::event::{Data, Direction, Event, EventBody, Handover, Origin, ProcessFact, SocketFact};
use crate::id::{ProcessId, SocketId, StreamId};
use crate::message::{
    Abandoned, Defect, ExchangeId, Foreign, Message, Protocol, Role, Series, Side,
};

pub(super) fn alloc(ts_ns: u64, pid: u32, tid: u32, addr: u64, size: u64) -> Event {
    Event {
        ts_ns,
        pid,
        tid,
        body: EventBody::Alloc { addr, size },
    }
}

pub(super) fn free(ts_ns: u64, pid: u32, tid: u32, addr: u64) -> Event {
    Event {
        ts_ns,
        pid,
        tid,
        body: EventBody::Free { addr },
    }
}

/// At least one event of each kind, with flags set and not.
pub(super) fn every_kind() -> Vec<Event> {
    let fact = SocketFact {
        socket: SocketId(88_123),
        fd: 11,
        addresses: Addresses {
            family: 2,
            local_port: 8000,
            peer_port: 50_123,
            reserved: 0,
            local: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            peer: [10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        },
    };
    let data = Data {
        direction: Direction::Recv,
        stream: StreamId::Socket(fact.socket),
        fd: -1,
        len: 5000,
        buffer: 0x5566_0000_2000,
        more: true,
        unreadable: false,
    };
    let handover = Handover {
        key: 0x7f00_1234_0000,
        kind: HandoverKind::Pipe,
        amount: 8,
        alone: true,
    };
    let socket = fact.socket;
    let bodies = vec![
        EventBody::TraceBegin,
        EventBody::Process(ProcessFact {
            process: ProcessId::new(4711, 123_456_789),
            parent_pid: 1,
            exe: "/usr/bin/python3".into(),
            comm: "gunicorn: wörker".into(),
            runtime: "cpython 3.11".into(),
            allocators: vec!["glibc (/usr/lib/libc.so.6)".into(), String::new()],
            tls: vec!["OpenSSL (/usr/lib/libssl.so.3)".into()],
            origin: Origin::Joined,
            trouble: vec!["probes refused".into()],
            probed_after_ns: 2_345_678,
        }),
        EventBody::OpenSocket {
            fact,
            accepted: true,
        },
        EventBody::Accept(fact),
        EventBody::Connect(fact),
        EventBody::Messages {
            stream: data.stream,
            messages: every_message(),
        },
        EventBody::Data(data),
        EventBody::Data(Data {
            direction: Direction::Send,
            stream: StreamId::Tls(0x5566_0000_1230),
            buffer: 0,
            more: false,
            unreadable: true,
            ..data
        }),
        EventBody::TlsEnd {
            session: 0x5566_0000_1230,
        },
        EventBody::TlsCall {
            session: 0x5566_0000_1230,
            fd: -1,
            handshake: true,
        },
        EventBody::Wake(handover),
        EventBody::Sleep(handover),
        EventBody::Woken(handover),
        EventBody::Counter {
            kind: CounterKind::RequestHeap,
            value: 4096,
            peak: 2 << 20,
        },
        EventBody::ManagedAlloc {
            size: 48,
            type_address: 0x4c_5e00,
        },
        EventBody::TypeName {
            type_address: 0x4c_5e00,
            name: "[]uint8".into(),
        },
        EventBody::Alloc {
            addr: 0x5000,
            size: 64,
        },
        EventBody::Realloc {
            old: 0x5000,
            addr: 0x5000,
            size: 70,
            elapsed_ns: 900,
        },
        EventBody::Realloc {
            old: 0x5000,
            addr: 0x6000,
            size: 700,
            elapsed_ns: 1900,
        },
        EventBody::Free { addr: 0x6000 },
        EventBody::Free { addr: u64::MAX },
        EventBody::Shutdown { socket, how: 1 },
        EventBody::Close {
            socket,
            fd: 11,
            last: true,
        },
        EventBody::SocketError { socket, errno: 104 },
        EventBody::Wait {
            kind: WaitKind::Select,
            descriptors: 17,
        },
        EventBody::Fork {
            child_pid: 4712,
            child_tid: 4712,
            start_ns: 987_654_321,
            process: true,
            followed: false,
        },
        EventBody::Exec {
            start_ns: 987_654_321,
        },
        EventBody::Exit { process: true },
        EventBody::Mapped,
        EventBody::CgroupMove,
        EventBody::Context {
            context: 0x7f00_1234_5670,
            entered: 3,
            kind: ContextKind::Python,
        },
        EventBody::ContextMade {
            context: 77,
            parent: 76,
            kind: ContextKind::Goroutine,
        },
        EventBody::Clock,
        EventBody::Loss {
            cause: "ring_full_alloc".into(),
            total: 17,
        },
        EventBody::TraceEnd {
            why: "interrupted".into(),
        },
    ];
    let event = |(index, body)| Event {
        // Not in order of time: the ring is filled by several processors.
        ts_ns: 5_000_000_000 + (index as u64 % 4) * 700,
        pid: 4711,
        tid: 4711 + index as u32 % 3,
        body,
    };
    bodies.into_iter().enumerate().map(event).collect()
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn socket() -> impl Strategy<Value = SocketId> {
    prop_oneof![(0..50u64), any::<u64>()].prop_map(SocketId)
}

fn socket_fact() -> impl Strategy<Value = SocketFact> {
    let ends = (any::<[u8; 16]>(), any::<[u8; 16]>(), 0..=16usize);
    let ports = (any::<u16>(), any::<u16>(), any::<u16>());
    (socket(), any::<i32>(), ports, ends).prop_map(
        |(socket, fd, ports, (local, mut peer, keep))| {
            peer[keep..].fill(0);
            SocketFact {
                socket,
                fd,
                addresses: Addresses {
                    family: ports.0,
                    local_port: ports.1,
                    peer_port: ports.2,
                    reserved: 0,
                    local,
                    peer,
                },
            }
        },
    )
}

fn stream() -> impl Strategy<Value = StreamId> {
    prop_oneof![
        socket().prop_map(StreamId::Socket),
        any::<u64>().prop_map(StreamId::Tls),
    ]
}

fn data() -> impl Strategy<Value = Data> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (stream(), any::<i32>(), any::<u64>(), any::<u64>(), flags).prop_map(
        |(stream, fd, len, buffer, (recv, more, unreadable))| Data {
            direction: if recv {
                Direction::Recv
            } else {
                Direction::Send
            },
            stream,
            fd,
            len,
            buffer,
            more,
            unreadable,
        },
    )
}

/// At least one message of each kind.
fn every_message() -> Vec<Message> {
    let exchange = ExchangeId(3);
    vec![
        Message::Role(Role::Server),
        Message::RequestBegin { exchange },
        Message::RequestHead {
            exchange,
            method: "GET".into(),
            target: "/users/1?page=".into(),
            protocol: Protocol::Http11,
            keep_alive: true,
            expect_continue: false,
            head_bytes: 77,
            complete: true,
        },
        Message::RequestEnd {
            exchange,
            request_bytes: 77,
        },
        Message::Carries { exchange },
        Message::Interim {
            exchange,
            status: 100,
        },
        Message::ResponseBegin { exchange },
        Message::ResponseHead {
            exchange,
            status: 200,
            head_bytes: 90,
        },
        Message::SeriesBegin {
            exchange,
            series: Series::ServerSentEvents,
        },
        Message::SeriesMessage {
            exchange,
            from: Side::Server,
            bytes: 40,
        },
        Message::SeriesMessageBegin {
            exchange,
            from: Side::Client,
        },
        Message::SeriesCut {
            exchange,
            from: Side::Client,
        },
        Message::GrpcStatus {
            exchange,
            status: 5,
        },
        Message::ResponseEnd {
            exchange,
            response_bytes: u64::MAX,
            request_bytes: 77,
        },
        Message::Upgraded {
            exchange,
            response_bytes: 1,
            request_bytes: 2,
        },
        Message::MalformedRequest {
            exchange,
            defect: Defect::ChunkSize,
        },
        Message::MalformedResponse {
            exchange,
            defect: Defect::StatusLine,
        },
        Message::UnmatchedResponse { status: Some(500) },
        Message::Multiplexed,
        Message::Numbered {
            exchange,
            number: 7,
        },
        Message::Carries { exchange },
        Message::RequestAbandoned {
            exchange,
            how: Abandoned::ResetByClient,
            request_bytes: 5,
            response_bytes: 6,
            status: None,
        },
        Message::Foreign(Foreign::Tls),
    ]
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let message = (
        proptest::sample::select(every_message()),
        any::<u32>(),
        text(),
    )
        .prop_map(|(mut message, number, text)| {
            if let Message::RequestHead {
                exchange, target, ..
            } = &mut message
            {
                *exchange = ExchangeId(number);
                *target = text;
            }
            message
        });
    vec(message, 0..6)
}

fn context_kind() -> impl Strategy<Value = ContextKind> {
    prop_oneof![
        Just(ContextKind::Python),
        Just(ContextKind::Greenlet),
        Just(ContextKind::Task),
        Just(ContextKind::Goroutine),
        Just(ContextKind::Node),
        Just(ContextKind::Job)
    ]
}

fn handover() -> impl Strategy<Value = Handover> {
    let kind = prop_oneof![
        Just(HandoverKind::Futex),
        Just(HandoverKind::Pipe),
        Just(HandoverKind::EventFd),
        Just(HandoverKind::Channel),
        Just(HandoverKind::Stream),
        Just(HandoverKind::SocketPair)
    ];
    (any::<u64>(), kind, any::<u32>(), any::<bool>()).prop_map(|(key, kind, amount, alone)| {
        let is_channel = matches!(kind, HandoverKind::Channel | HandoverKind::Stream);
        Handover {
            key,
            kind,
            amount: if is_channel { 0 } else { amount },
            alone: alone && !is_channel,
        }
    })
}

fn of_runtimes() -> impl Strategy<Value = EventBody> {
    let counter = prop_oneof![
        Just(CounterKind::ThreadAllocated),
        Just(CounterKind::RequestHeap)
    ];
    prop_oneof![
        (any::<u64>(), context_kind()).prop_map(|(context, kind)| EventBody::Context {
            context,
            entered: context as u32,
            kind
        }),
        (any::<u64>(), any::<u64>(), context_kind()).prop_map(|(context, parent, kind)| {
            EventBody::ContextMade {
                context,
                parent,
                kind,
            }
        }),
        handover().prop_map(EventBody::Wake),
        handover().prop_map(EventBody::Sleep),
        handover().prop_map(EventBody::Woken),
        (counter, any::<u64>(), any::<u64>()).prop_map(|(kind, value, peak)| EventBody::Counter {
            kind,
            value,
            peak
        }),
        any::<(u64, u64)>()
            .prop_map(|(size, type_address)| EventBody::ManagedAlloc { size, type_address }),
        (any::<u64>(), text())
            .prop_map(|(type_address, name)| EventBody::TypeName { type_address, name }),
        any::<u64>().prop_map(|session| EventBody::TlsEnd { session }),
        any::<(u64, i32, bool)>().prop_map(|(session, fd, handshake)| EventBody::TlsCall {
            session,
            fd,
            handshake
        }),
    ]
}

fn process() -> impl Strategy<Value = ProcessFact> {
    let origin = prop_oneof![
        Just(Origin::Attached),
        Just(Origin::Joined),
        Just(Origin::Started)
    ];
    (
        (any::<u32>(), any::<u64>(), any::<u32>()),
        (text(), text(), text()),
        (vec(text(), 0..4), vec(text(), 0..4)),
        origin,
        vec(text(), 0..4),
        any::<u64>(),
    )
        .prop_map(
            |(ids, texts, (allocators, tls), origin, trouble, probed_after_ns)| ProcessFact {
                process: ProcessId {
                    pid: ids.0,
                    start_ns: ids.1,
                },
                parent_pid: ids.2,
                exe: texts.0,
                comm: texts.1,
                runtime: texts.2,
                allocators,
                tls,
                origin,
                trouble,
                probed_after_ns,
            },
        )
}

fn any_body() -> impl Strategy<Value = EventBody> {
    let addr = || prop_oneof![(0..20u64).prop_map(|n| n * 16), any::<u64>()];
    let wait = prop_oneof![
        Just(WaitKind::Epoll),
        Just(WaitKind::Poll),
        Just(WaitKind::Select),
        Just(WaitKind::Accept)
    ];
    prop_oneof![
        (addr(), any::<u64>()).prop_map(|(addr, size)| EventBody::Alloc { addr, size }),
        addr().prop_map(|addr| EventBody::Free { addr }),
        (addr(), addr(), any::<u64>(), any::<u64>()).prop_map(|(old, addr, size, elapsed_ns)| {
            EventBody::Realloc {
                old,
                addr,
                size,
                elapsed_ns,
            }
        }),
        socket_fact().prop_map(EventBody::Accept),
        socket_fact().prop_map(EventBody::Connect),
        data().prop_map(EventBody::Data),
        (socket(), any::<u32>()).prop_map(|(socket, how)| EventBody::Shutdown { socket, how }),
        (socket(), any::<i32>(), any::<bool>()).prop_map(|(socket, fd, last)| EventBody::Close {
            socket,
            fd,
            last
        }),
        (socket(), any::<u32>())
            .prop_map(|(socket, errno)| EventBody::SocketError { socket, errno }),
        (wait, any::<u32>()).prop_map(|(kind, descriptors)| EventBody::Wait { kind, descriptors }),
        (
            any::<u32>(),
            any::<u32>(),
            any::<u64>(),
            any::<bool>(),
            any::<bool>()
        )
            .prop_map(|(child_pid, child_tid, start_ns, process, followed)| {
                EventBody::Fork {
                    child_pid,
                    child_tid,
                    start_ns,
                    process,
                    followed,
                }
            }),
        any::<u64>().prop_map(|start_ns| EventBody::Exec { start_ns }),
        any::<bool>().prop_map(|process| EventBody::Exit { process }),
        Just(EventBody::Mapped),
        Just(EventBody::CgroupMove),
        Just(EventBody::Clock),
        of_runtimes(),
        (stream(), messages())
            .prop_map(|(stream, messages)| EventBody::Messages { stream, messages }),
        process().prop_map(EventBody::Process),
        (socket_fact(), any::<bool>())
            .prop_map(|(fact, accepted)| EventBody::OpenSocket { fact, accepted }),
        (text(), any::<u64>()).prop_map(|(cause, total)| EventBody::Loss { cause, total }),
        Just(EventBody::TraceBegin),
        text().prop_map(|why| EventBody::TraceEnd { why }),
    ]
}

/// Any event, with a thread that may or may not have been there before.
pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let id = || prop_oneof![0..4u32, any::<u32>()];
    let ts_ns = prop_oneof![0..10_000u64, any::<u64>()];
    (ts_ns, id(), id(), any_body()).prop_map(|(ts_ns, pid, tid, body)| Event {
        ts_ns,
        pid,
        tid,
        body,
    })
}

/// What allocators do: few addresses, sizes and threads, over and over, so that
/// every list of recent blocks fills, overflows and is searched.
pub(super) fn busy_events() -> impl Strategy<Value = Vec<Event>> {
    let step = (
        0..5000u64,
        prop_oneof![8 => 0..3u32, 1 => 0..600u32],
        0..400u64,
        0..400u64,
        0..200u64,
        0..9u8,
    );
    vec(step, 0..2500).prop_map(|steps| {
        let mut ts_ns = 1 << 40;
        let mut events = Vec::with_capacity(steps.len());
        for (pause, thread, old, addr, size, choice) in steps {
            ts_ns = ts_ns + pause - 200;
            let addr = 0x10_0000 + addr * 48;
            let body = match choice {
                0..4 => EventBody::Alloc { addr, size },
                4..8 => EventBody::Free { addr },
                _ => EventBody::Realloc {
                    old: 0x10_0000 + old / 2 * 2 * 48,
                    addr,
                    size,
                    elapsed_ns: pause,
                },
            };
            events.push(Event {
                ts_ns,
                pid: 50,
                tid: 50 + thread,
                body,
            });
        }
        events
    })
}
