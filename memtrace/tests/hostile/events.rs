//! Events for the properties: every kind, any identity, few addresses and
//! sockets, so that frees, reallocations and duplicates meet.
//!
//! Out: sequences of events. [`traces`] keeps sizes and times small enough for
//! sums to be exact and payloads as the kernel half states them; [`noise`] keeps
//! to nothing but the types.

use memtrace::event::{
    Captured, Data, Direction, Event, EventBody, Handover, Origin, ProcessFact, RawEvent,
    SocketFact,
};
use memtrace::id::{ProcessId, SocketId, StreamId};
use memtrace_common::event::{Addresses, ContextKind, CounterKind, HandoverKind, WaitKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Pieces of conversations: whole messages, parts of them, other protocols.
const PIECES: &[&str] = &[
    "GET /users/7?id=3 HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "HEAD /a HTTP/1.1\r\n\r\n",
    "POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT h:1 HTTP/1.1\r\n\r\n",
    "BREW /pot HTTP/1.1\r\n\r\n",
    "GET /\u{1b}[31m/\u{202e} HTTP/1.1\r\n\r\n",
    "GET /a b c\r\n\r\n",
    "POST /bad HTTP/1.1\r\nContent-Length: 7x\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 999999 What\r\n\r\n",
    "GET ",
    "/a?b=c",
    " HTTP/1.1\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "\r\n0\r\n\r\n",
    "FFFFFFFFFFFFFFFF\r\n",
    "hello",
    "*1\r\n$4\r\nPING\r\n",
];

/// Bounds within which a sequence stays.
#[derive(Clone, Copy)]
struct Bounds {
    /// Sizes, pauses and lengths up to 2^64.
    huge: bool,
}

fn small_or_any(bounds: Bounds, small: std::ops::Range<u64>) -> BoxedStrategy<u64> {
    if bounds.huge {
        prop_oneof![6 => small, 1 => Just(u64::MAX), 1 => any::<u64>()].boxed()
    } else {
        small.boxed()
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (1..12_u64).prop_map(|block| block * 0x40),
        1 => Just(0),
        1 => Just(u64::MAX),
    ]
}

fn size(bounds: Bounds) -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..5_000_u64,
        1 => Just(1 << 40),
        1 => small_or_any(bounds, 1..2),
    ]
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 10..13_u32, 1 => Just(0), 1 => Just(u32::MAX)]
}

fn socket() -> impl Strategy<Value = SocketId> {
    prop_oneof![20 => 1..5_u64, 1 => Just(u64::MAX)].prop_map(SocketId)
}

fn socket_fact() -> impl Strategy<Value = SocketFact> {
    (socket(), -1..9_i32, select(vec![1_u16, 2, 10, 99])).prop_map(|(socket, fd, family)| {
        SocketFact {
            socket,
            fd,
            addresses: Addresses {
                family,
                local_port: 80,
                ..Addresses::default()
            },
        }
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

/// Bytes that moved, of which the kernel saw the first `seen`, and the last
/// eight if that is not all.
fn data() -> impl Strategy<Value = (Data, Captured)> {
    let seen = prop_oneof![6 => Just(usize::MAX), 2 => 0..50_usize];
    let beyond = prop_oneof![6 => Just(0), 1 => 0..100_u64, 1 => Just(1 << 32)];
    let flags = (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        any::<bool>(),
    );
    (payload(), seen, beyond, socket(), address(), flags).prop_map(
        |(mut payload, seen, beyond, socket, buffer, (received, more, unreadable, in_tls_call))| {
            let len = payload.len() as u64 + beyond;
            let mut tail = Vec::new();
            let seen = if unreadable { 0 } else { seen };
            if (seen as u64) < len && len >= 8 && !unreadable {
                tail = payload[payload.len().saturating_sub(8)..].to_vec();
                tail.resize(8, b'.');
            }
            payload.truncate(seen);
            let data = Data {
                direction: if received {
                    Direction::Recv
                } else {
                    Direction::Send
                },
                stream: match socket.0 {
                    // One of few sockets is a TLS session instead.
                    4 => StreamId::Tls(0x40),
                    _ => StreamId::Socket(socket),
                },
                fd: if in_tls_call { 5 } else { -1 },
                len,
                buffer,
                more,
                unreadable,
            };
            let captured = Captured {
                payload,
                tail,
                in_tls_call,
            };
            (data, captured)
        },
    )
}

/// Bytes with lengths that contradict each other.
fn contradictory_data() -> impl Strategy<Value = (Data, Captured)> {
    let tail = vec(select(b"\r\n0a".as_slice()), 0..12);
    let len = small_or_any(Bounds { huge: true }, 0..60);
    (data(), tail, len).prop_map(|((data, captured), tail, len)| {
        (Data { len, ..data }, Captured { tail, ..captured })
    })
}

fn text() -> impl Strategy<Value = String> {
    select(vec![
        "",
        "/usr/bin/python3",
        "ring_full_alloc",
        "nonsense \u{1b}]0;t\u{7}\n\u{9b}2J",
        "wörker, \"quoted\"",
    ])
    .prop_map(str::to_owned)
}

fn process(bounds: Bounds) -> impl Strategy<Value = ProcessFact> {
    let origin = select(vec![Origin::Attached, Origin::Joined, Origin::Started]);
    let start = small_or_any(bounds, 0..3);
    let probed_after_ns = small_or_any(bounds, 0..9_000_000);
    let strategy = (
        id(),
        start,
        text(),
        origin,
        vec(text(), 0..3),
        probed_after_ns,
    );
    strategy.prop_map(
        |(pid, start, exe, origin, texts, probed_after_ns)| ProcessFact {
            process: ProcessId::new(pid, start.wrapping_mul(ProcessId::TICK_NS)),
            parent_pid: 1,
            comm: exe.clone(),
            runtime: exe.clone(),
            exe,
            allocators: texts.clone(),
            tls: texts.clone(),
            origin,
            trouble: texts,
            probed_after_ns,
        },
    )
}

fn memory(bounds: Bounds) -> impl Strategy<Value = EventBody> {
    prop_oneof![
        4 => (address(), size(bounds)).prop_map(|(addr, size)| EventBody::Alloc { addr, size }),
        3 => address().prop_map(|addr| EventBody::Free { addr }),
        2 => (address(), address(), size(bounds), small_or_any(bounds, 0..5_000_000)).prop_map(
            |(old, addr, size, elapsed_ns)| EventBody::Realloc { old, addr, size, elapsed_ns }
        ),
    ]
}

fn task(bounds: Bounds) -> impl Strategy<Value = EventBody> {
    let fork = (
        id(),
        id(),
        small_or_any(bounds, 0..30_000_000),
        any::<(bool, bool)>(),
    );
    prop_oneof![
        4 => fork.prop_map(|(child_pid, child_tid, start_ns, (process, followed))| {
            EventBody::Fork { child_pid, child_tid, start_ns, process, followed }
        }),
        1 => any::<u64>().prop_map(|start_ns| EventBody::Exec { start_ns }),
        4 => any::<bool>().prop_map(|process| EventBody::Exit { process }),
        1 => Just(EventBody::Mapped),
        1 => Just(EventBody::CgroupMove),
        5 => of_runtimes(),
        2 => process(bounds).prop_map(EventBody::Process),
    ]
}

fn of_runtimes() -> impl Strategy<Value = EventBody> {
    let kind = select(vec![
        ContextKind::Python,
        ContextKind::Greenlet,
        ContextKind::Task,
        ContextKind::Goroutine,
        ContextKind::Node,
        ContextKind::Job,
    ]);
    let context = || (1..5_u64).prop_map(|context| context * 16);
    let handover = || {
        let through = select(vec![
            HandoverKind::Futex,
            HandoverKind::Pipe,
            HandoverKind::Channel,
            HandoverKind::Stream,
        ]);
        (1..4_u64, through, 0..3_u32, any::<bool>()).prop_map(|(key, kind, amount, alone)| {
            // What passes between goroutines has neither.
            let told = !matches!(kind, HandoverKind::Channel | HandoverKind::Stream);
            Handover {
                key,
                kind,
                amount: if told { amount } else { 0 },
                alone: alone && told,
            }
        })
    };
    let counter = select(vec![CounterKind::ThreadAllocated, CounterKind::RequestHeap]);
    prop_oneof![
        2 => (context(), kind.clone())
            .prop_map(|(context, kind)| EventBody::Context { context, entered: 1, kind }),
        2 => (context(), 0..5_u64, kind).prop_map(|(context, parent, kind)| {
            EventBody::ContextMade { context, parent: parent * 16, kind }
        }),
        1 => handover().prop_map(EventBody::Wake),
        1 => handover().prop_map(EventBody::Sleep),
        1 => handover().prop_map(EventBody::Woken),
        1 => (counter, 0..9_000_u64, 0..9_000_u64)
            .prop_map(|(kind, value, peak)| EventBody::Counter { kind, value, peak }),
        1 => (0..9_000_u64, 0..3_u64)
            .prop_map(|(size, type_address)| EventBody::ManagedAlloc { size, type_address }),
        1 => Just(EventBody::TypeName { type_address: 16, name: "[]uint8".to_owned() }),
        1 => Just(EventBody::TlsEnd { session: 0x40 }),
        1 => any::<(bool, bool)>().prop_map(|(used, handshake)| EventBody::TlsCall {
            session: 0x40,
            fd: if used { 5 } else { -1 },
            handshake,
        }),
    ]
}

fn about_sockets() -> impl Strategy<Value = EventBody> {
    let wait = select(vec![
        WaitKind::Epoll,
        WaitKind::Poll,
        WaitKind::Select,
        WaitKind::Accept,
    ]);
    prop_oneof![
        2 => socket_fact().prop_map(EventBody::Accept),
        1 => socket_fact().prop_map(EventBody::Connect),
        1 => (socket_fact(), any::<bool>())
            .prop_map(|(fact, accepted)| EventBody::OpenSocket { fact, accepted }),
        1 => (socket(), 0..4_u32).prop_map(|(socket, how)| EventBody::Shutdown { socket, how }),
        3 => (socket(), prop::bool::weighted(0.8))
            .prop_map(|(socket, last)| EventBody::Close { socket, fd: 5, last }),
        1 => socket().prop_map(|socket| EventBody::SocketError { socket, errno: 104 }),
        4 => (wait, 0..3_u32)
            .prop_map(|(kind, descriptors)| EventBody::Wait { kind, descriptors }),
    ]
}

fn about_the_trace(bounds: Bounds) -> impl Strategy<Value = EventBody> {
    prop_oneof![
        (text(), small_or_any(bounds, 0..9))
            .prop_map(|(cause, total)| EventBody::Loss { cause, total }),
        Just(EventBody::Clock),
        Just(EventBody::TraceBegin),
        text().prop_map(|why| EventBody::TraceEnd { why }),
    ]
}

fn sequence(
    bounds: Bounds,
    data: impl Strategy<Value = (Data, Captured)> + 'static,
) -> impl Strategy<Value = Vec<RawEvent>> {
    let without = |body| (body, Captured::default());
    let body = prop_oneof![
        12 => memory(bounds).prop_map(without),
        6 => data.prop_map(|(data, captured)| (EventBody::Data(data), captured)),
        4 => about_sockets().prop_map(without),
        3 => task(bounds).prop_map(without),
        1 => about_the_trace(bounds).prop_map(without),
    ];
    // Now and then more than the retention time passes.
    let pause = prop_oneof![8 => 0..5_000_u64, 1 => small_or_any(bounds, 0..1_500_000_000)];
    let step = (pause, prop::bool::weighted(0.05), id(), id(), body);
    vec(step, 0..80).prop_map(|steps| {
        let mut now_ns = 1_u64 << 40;
        let mut events = Vec::with_capacity(steps.len());
        for (pause, back, pid, tid, (body, captured)) in steps {
            now_ns = if back {
                now_ns.wrapping_sub(pause)
            } else {
                now_ns.wrapping_add(pause)
            };
            let ts_ns = now_ns;
            let event = Event {
                ts_ns,
                pid,
                tid,
                body,
            };
            events.push(RawEvent { event, captured });
        }
        events
    })
}

/// Sequences of facts each of which could be true.
pub fn traces() -> impl Strategy<Value = Vec<RawEvent>> {
    sequence(Bounds { huge: false }, data())
}

/// Sequences of anything that the types allow.
pub fn noise() -> impl Strategy<Value = Vec<RawEvent>> {
    sequence(Bounds { huge: true }, contradictory_data())
}
