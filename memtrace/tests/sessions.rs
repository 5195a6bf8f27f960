//! TLS sessions and event loops as the kernel states them, and whose the blocks
//! are that are made for them in the end.

use std::collections::BTreeMap;

use memtrace_common::event::{Addresses, ContextKind, WaitKind};

use memtrace::{
    attribute::Attributor,
    event::{ASYNCIO_UNTOLD, Data, Direction, Event, EventBody, Origin, ProcessFact, SocketFact},
    id::{ProcessId, SocketId, StreamId},
    message::{ExchangeId, Foreign, Message, Protocol, Role},
    store::Store,
};

const PID: u32 = 100;
const TID: u32 = 100;
const FIRST: ExchangeId = ExchangeId(0);

/// Events in their order, all of one thread.
struct Scene {
    attributor: Attributor,
    store: Store,
    entered: u32,
}

impl Scene {
    /// A program that has OpenSSL, started under trace.
    fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(trouble: Vec<String>) -> Self {
        let mut scene = Self {
            attributor: Attributor::new(),
            store: Store::new(0),
            entered: 0,
        };
        scene.say(EventBody::TraceBegin);
        scene.say(EventBody::Process(ProcessFact {
            process: ProcessId::new(PID, 1),
            parent_pid: 1,
            exe: "/usr/bin/server".into(),
            comm: "server".into(),
            runtime: "native".into(),
            allocators: vec!["glibc".into()],
            tls: vec!["OpenSSL".into()],
            origin: Origin::Started,
            trouble,
            probed_after_ns: 0,
        }));
        scene
    }

    fn say(&mut self, body: EventBody) {
        let event = Event {
            ts_ns: 1,
            pid: PID,
            tid: TID,
            body,
        };
        let mut out = Vec::new();
        self.attributor.step(&event, &mut out);
        for fact in out {
            self.store.apply(fact);
        }
    }

    fn socket(&self, socket: u64) -> SocketFact {
        SocketFact {
            socket: SocketId(socket),
            fd: socket as i32,
            addresses: Addresses::default(),
        }
    }

    fn accepts(&mut self, socket: u64) {
        self.say(EventBody::Accept(self.socket(socket)));
    }

    fn waits(&mut self) {
        let kind = WaitKind::Epoll;
        self.say(EventBody::Wait {
            kind,
            descriptors: 0,
        });
    }

    fn allocates(&mut self, size: u64) {
        self.say(EventBody::Alloc { addr: size, size });
    }

    fn moves(&mut self, stream: StreamId, direction: Direction, len: u64, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.say(EventBody::Messages { stream, messages });
        }
        let fd = match stream {
            StreamId::Socket(socket) => socket.0 as i32,
            StreamId::Tls(_) => -1,
        };
        self.say(EventBody::Data(Data {
            direction,
            stream,
            fd,
            len,
            buffer: 0,
            more: false,
            unreadable: false,
        }));
    }

    /// TLS records come in; the first of a connection say that they are.
    fn records(&mut self, socket: u64, first: bool) {
        let messages = vec![Message::Foreign(Foreign::Tls)];
        self.moves(
            StreamId::Socket(SocketId(socket)),
            Direction::Recv,
            200,
            if first { messages } else { Vec::new() },
        );
    }

    fn handshake(&mut self, session: u64) {
        self.say(EventBody::TlsCall {
            session,
            fd: -1,
            handshake: true,
        });
    }

    fn reads(&mut self, stream: StreamId, target: &str) {
        let messages = vec![
            Message::Role(Role::Server),
            Message::RequestBegin { exchange: FIRST },
            Message::RequestHead {
                exchange: FIRST,
                method: "GET".into(),
                target: target.into(),
                protocol: Protocol::Http11,
                keep_alive: true,
                expect_continue: false,
                head_bytes: 80,
                complete: true,
            },
            Message::RequestEnd {
                exchange: FIRST,
                request_bytes: 80,
            },
        ];
        self.moves(stream, Direction::Recv, 80, messages);
    }

    fn answers(&mut self, stream: StreamId) {
        let messages = vec![
            Message::ResponseBegin { exchange: FIRST },
            Message::ResponseEnd {
                exchange: FIRST,
                response_bytes: 80,
                request_bytes: 80,
            },
        ];
        self.moves(stream, Direction::Send, 80, messages);
    }

    /// The thread goes on in a Python context.
    fn enters(&mut self, context: u64) {
        self.entered += 1;
        self.say(EventBody::Context {
            context,
            kind: ContextKind::Python,
            entered: self.entered,
        });
    }

    fn makes(&mut self, context: u64) {
        self.say(EventBody::ContextMade {
            context,
            parent: 0,
            kind: ContextKind::Python,
        });
    }

    /// Bytes by route, or by reason in brackets.
    fn ends(mut self) -> BTreeMap<String, u64> {
        let mut out = Vec::new();
        self.attributor.finish(&mut out);
        for fact in out {
            self.store.apply(fact);
        }
        self.store.finish();
        let endpoints = self
            .store
            .endpoints()
            .into_iter()
            .map(|(key, totals)| (key.route, totals.allocated.bytes));
        let reasons = self
            .store
            .unattributed()
            .into_iter()
            .map(|(reason, totals)| (format!("[{}]", reason.name()), totals.allocated.bytes));
        endpoints
            .chain(reasons)
            .filter(|(_, bytes)| *bytes != 0)
            .collect()
    }
}

fn expect<const N: usize>(scene: Scene, expected: [(&str, u64); N]) {
    let expected: BTreeMap<String, u64> = expected
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    assert_eq!(scene.ends(), expected);
}

/// asyncio: the buffer for the plaintext is made after the records have come, and
/// the request may come with the last of the handshake.
#[test]
fn a_request_that_comes_with_the_end_of_its_handshake() {
    let session = StreamId::Tls(0x5000);
    let mut scene = Scene::new();
    scene.waits();
    scene.accepts(7);
    scene.handshake(0x5000);
    scene.waits();
    scene.records(7, true);
    scene.allocates(1);
    scene.handshake(0x5000);
    scene.waits();
    scene.records(7, false);
    scene.allocates(10);
    scene.handshake(0x5000);
    scene.allocates(100);
    scene.reads(session, "/a");
    scene.allocates(1_000);
    scene.answers(session);
    expect(scene, [("/a", 1_100), ("[tls_handshake]", 11)]);
}

/// Nothing came with it: what follows the handshake is for the connection.
#[test]
fn what_follows_a_handshake_is_no_requests_if_none_came() {
    let session = StreamId::Tls(0x5000);
    let mut scene = Scene::new();
    scene.waits();
    scene.accepts(7);
    scene.handshake(0x5000);
    scene.waits();
    scene.records(7, true);
    scene.handshake(0x5000);
    scene.allocates(1);
    scene.waits();
    scene.records(7, false);
    scene.allocates(10);
    scene.reads(session, "/a");
    scene.answers(session);
    expect(scene, [("/a", 10), ("[tls_handshake]", 1)]);
}

/// uvloop: the loop receives in its own context, and all connections of a server
/// are taken in in one other. What a handshake leaves to be done later, in a
/// context made for it, is its own connection's.
#[test]
fn connections_that_share_a_context_are_told_apart_by_what_was_received_last() {
    const LOOP: u64 = 1;
    const SERVER: u64 = 2;
    let mut scene = Scene::new();
    scene.enters(LOOP);
    scene.waits();
    for (socket, session) in [(7, 0x5000), (8, 0x6000)] {
        scene.enters(LOOP);
        scene.accepts(socket);
        scene.enters(SERVER);
        scene.handshake(session);
        scene.enters(LOOP);
        scene.waits();
    }
    // Both handshakes end in the same turn of the loop.
    for (socket, session, later, size) in [(7, 0x5000, 10, 1), (8, 0x6000, 11, 2)] {
        scene.enters(LOOP);
        scene.records(socket, true);
        scene.enters(SERVER);
        scene.handshake(session);
        scene.allocates(size);
        scene.makes(later);
    }
    for (session, later, target, size) in [(0x5000, 10, "/a", 10), (0x6000, 11, "/b", 20)] {
        scene.enters(later);
        scene.allocates(size);
        scene.reads(StreamId::Tls(session), target);
        scene.allocates(size * 10);
        scene.makes(later + 10);
    }
    for (session, task, size) in [(0x6000, 21, 2_000), (0x5000, 20, 1_000)] {
        scene.enters(task);
        scene.allocates(size);
        scene.answers(StreamId::Tls(session));
    }
    expect(
        scene,
        [("/a", 1_110), ("/b", 2_220), ("[tls_handshake]", 3)],
    );
}

/// asyncio of a version that is not known: what one thread does for two requests
/// is neither's, and what it does for one alone is that one's.
#[test]
fn tasks_that_are_not_told_apart_are_credited_to_none() {
    let client = |socket| StreamId::Socket(SocketId(socket));
    let mut scene = Scene::with(vec![format!("{ASYNCIO_UNTOLD}: CPython 4.0")]);
    scene.waits();
    scene.accepts(7);
    scene.reads(client(7), "/a");
    scene.allocates(1);
    scene.waits();
    scene.accepts(8);
    scene.reads(client(8), "/b");
    scene.allocates(10);
    scene.waits();
    scene.allocates(20);
    scene.answers(client(7));
    scene.waits();
    scene.allocates(100);
    scene.answers(client(8));
    expect(scene, [("/a", 1), ("/b", 100), ("[tasks_untold]", 30)]);
}
