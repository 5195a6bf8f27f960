//! Goroutines as the kernel states them, and whose their blocks are in the end.

use std::collections::BTreeMap;

use memtrace_common::event::{Addresses, ContextKind, HandoverKind};

use memtrace::{
    attribute::{Attributor, Reason},
    event::{Data, Direction, Event, EventBody, Handover, SocketFact},
    id::{SocketId, StreamId},
    message::{ExchangeId, Message, Protocol},
    store::Store,
};

const PID: u32 = 100;
const GOROUTINE: ContextKind = ContextKind::Goroutine;

/// Events in their order, all of one process.
#[derive(Default)]
struct Scene {
    attributor: Attributor,
    store: Option<Store>,
}

impl Scene {
    fn say(&mut self, tid: u32, body: EventBody) {
        let event = Event {
            ts_ns: 1,
            pid: PID,
            tid,
            body,
        };
        let mut out = Vec::new();
        self.attributor.step(&event, &mut out);
        let store = self.store.get_or_insert_with(|| Store::new(0));
        for fact in out {
            store.apply(fact);
        }
    }

    fn runs(&mut self, tid: u32, context: u64) {
        let kind = GOROUTINE;
        let entered = 0;
        self.say(
            tid,
            EventBody::Context {
                context,
                kind,
                entered,
            },
        );
    }

    fn made(&mut self, tid: u32, context: u64, parent: u64) {
        self.say(
            tid,
            EventBody::ContextMade {
                context,
                parent,
                kind: GOROUTINE,
            },
        );
    }

    fn allocates(&mut self, tid: u32, size: u64) {
        let type_address = 0;
        self.say(tid, EventBody::ManagedAlloc { size, type_address });
    }

    fn accepts(&mut self, tid: u32, socket: u64) {
        self.say(
            tid,
            EventBody::Accept(SocketFact {
                socket: SocketId(socket),
                fd: 5,
                addresses: Addresses::default(),
            }),
        );
    }

    fn connects(&mut self, tid: u32, socket: u64) {
        self.say(
            tid,
            EventBody::Connect(SocketFact {
                socket: SocketId(socket),
                fd: 6,
                addresses: Addresses::default(),
            }),
        );
    }

    fn moves(&mut self, tid: u32, socket: u64, direction: Direction, messages: Vec<Message>) {
        let stream = StreamId::Socket(SocketId(socket));
        if !messages.is_empty() {
            self.say(tid, EventBody::Messages { stream, messages });
        }
        self.say(
            tid,
            EventBody::Data(Data {
                direction,
                stream,
                fd: 5,
                len: 80,
                buffer: 0,
                more: false,
                unreadable: false,
            }),
        );
    }

    fn receives(&mut self, tid: u32, socket: u64, exchange: u32, target: &str) {
        let exchange = ExchangeId(exchange);
        let messages = vec![
            Message::RequestBegin { exchange },
            Message::RequestHead {
                exchange,
                method: "GET".into(),
                target: target.into(),
                protocol: Protocol::Http11,
                keep_alive: true,
                expect_continue: false,
                head_bytes: 80,
                complete: true,
            },
            Message::RequestEnd {
                exchange,
                request_bytes: 80,
            },
        ];
        self.moves(tid, socket, Direction::Recv, messages);
    }

    fn responds(&mut self, tid: u32, socket: u64, exchange: u32) {
        let exchange = ExchangeId(exchange);
        let messages = vec![
            Message::ResponseBegin { exchange },
            Message::ResponseEnd {
                exchange,
                response_bytes: 80,
                request_bytes: 80,
            },
        ];
        self.moves(tid, socket, Direction::Send, messages);
    }

    fn gives(&mut self, tid: u32, taker: u64) {
        let kind = HandoverKind::Channel;
        self.say(tid, EventBody::Wake(Handover { key: taker, kind }));
    }

    fn takes(&mut self, tid: u32, giver: u64) {
        let kind = HandoverKind::Channel;
        self.say(tid, EventBody::Woken(Handover { key: giver, kind }));
    }

    /// Bytes by route, or by reason in brackets.
    fn ends(mut self) -> BTreeMap<String, u64> {
        let mut out = Vec::new();
        self.attributor.finish(&mut out);
        let mut store = self.store.take().unwrap_or_else(|| Store::new(0));
        for fact in out {
            store.apply(fact);
        }
        store.finish();
        let endpoints = store
            .endpoints()
            .into_iter()
            .map(|(key, totals)| (key.route, totals.allocated.bytes));
        let reasons = store
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

fn reason(reason: Reason) -> String {
    format!("[{}]", reason.name())
}

/// A server whose goroutine 1 accepts, and goroutines 10 and 11 each serve a
/// connection.
fn serving() -> Scene {
    let mut scene = Scene::default();
    scene.say(0, EventBody::TraceBegin);
    for (goroutine, socket) in [(10, 50), (11, 51)] {
        scene.runs(7, 1);
        scene.accepts(7, socket);
        scene.made(7, goroutine, 1);
    }
    scene
}

#[test]
fn a_goroutine_is_followed_from_thread_to_thread() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.allocates(7, 1);
    scene.allocates(8, 10);
    // They change threads, one after a wait of the scheduler.
    scene.runs(7, 11);
    scene.runs(8, 0);
    scene.runs(8, 10);
    scene.allocates(7, 100);
    scene.allocates(8, 1_000);
    scene.responds(7, 51, 0);
    scene.responds(8, 50, 0);
    expect(scene, [("/a", 1_001), ("/b", 110)]);
}

#[test]
fn goroutines_work_for_the_request_that_made_them() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.made(7, 20, 10);
    scene.made(7, 21, 10);
    scene.runs(8, 20);
    scene.allocates(8, 1);
    scene.made(8, 22, 20);
    scene.runs(9, 22);
    scene.allocates(9, 10);
    scene.responds(7, 50, 0);
    // Late, while the next request is served by the same goroutine.
    scene.receives(7, 50, 1, "/b");
    scene.allocates(7, 100);
    scene.runs(9, 21);
    scene.allocates(9, 1_000);
    scene.responds(7, 50, 1);
    expect(scene, [("/a", 1_011), ("/b", 100)]);
}

/// net/http reads ahead on a goroutine of its own: the first byte of the next
/// request may be received there.
#[test]
fn the_next_request_is_its_servers_whoever_received_its_first_byte() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.made(7, 20, 10);
    scene.allocates(7, 1);
    scene.responds(7, 50, 0);
    scene.runs(8, 20);
    let exchange = ExchangeId(1);
    let begin = Message::RequestBegin { exchange };
    scene.moves(8, 50, Direction::Recv, vec![begin]);
    let head = Message::RequestHead {
        exchange,
        method: "GET".into(),
        target: "/b".into(),
        protocol: Protocol::Http11,
        keep_alive: true,
        expect_continue: false,
        head_bytes: 80,
        complete: true,
    };
    scene.moves(7, 50, Direction::Recv, vec![head]);
    scene.allocates(7, 10);
    scene.responds(7, 50, 1);
    expect(scene, [("/a", 1), ("/b", 10)]);
}

#[test]
fn one_of_a_pool_works_for_whoever_handed_it_work() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.gives(7, 30);
    scene.runs(9, 30);
    scene.allocates(9, 1);
    // The result, and the next job before the first response is sent.
    scene.gives(9, 10);
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.gives(8, 30);
    scene.allocates(9, 10);
    scene.gives(9, 11);
    scene.responds(7, 50, 0);
    scene.responds(8, 51, 0);
    expect(scene, [("/a", 1), ("/b", 10)]);
}

/// A job that lay in the channel's buffer: only its result shows whose it was.
#[test]
fn a_result_shows_whose_the_work_was() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.gives(7, 30);
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.runs(9, 30);
    scene.allocates(9, 1);
    scene.gives(9, 10);
    scene.allocates(9, 10);
    scene.gives(9, 11);
    scene.responds(7, 50, 0);
    scene.responds(8, 51, 0);
    expect(scene, [("/a", 1), ("/b", 10)]);
}

#[test]
fn a_request_takes_what_it_likes() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.made(8, 21, 11);
    // From another request's goroutine, and from one of nobody's.
    scene.gives(7, 11);
    scene.gives(7, 21);
    scene.allocates(8, 1);
    scene.runs(9, 40);
    scene.allocates(9, 10);
    scene.gives(9, 11);
    scene.runs(6, 21);
    scene.allocates(6, 100);
    scene.responds(7, 50, 0);
    scene.responds(8, 51, 0);
    expect(
        scene,
        [("/b", 101), (&reason(Reason::BackgroundThread), 10)],
    );
}

/// The connection to another server has a goroutine that writes and one that
/// reads, made by the first request that needed it.
#[test]
fn another_servers_connection_is_used_by_one_request_after_the_other() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.connects(7, 90);
    scene.made(7, 60, 10);
    scene.made(7, 61, 10);
    for (goroutine, tid, socket, target, bytes) in [
        (10, 7, 50, "/a", 1),
        (11, 8, 51, "/b", 10),
        (10, 7, 50, "/c", 100),
    ] {
        scene.runs(tid, goroutine);
        if target != "/a" {
            scene.receives(tid, socket, u32::from(target == "/c"), target);
        }
        scene.gives(tid, 60);
        scene.runs(9, 60);
        scene.moves(9, 90, Direction::Send, Vec::new());
        scene.runs(9, 61);
        scene.moves(9, 90, Direction::Recv, Vec::new());
        scene.allocates(9, bytes);
        scene.gives(9, goroutine);
        scene.responds(tid, socket, u32::from(target == "/c"));
    }
    expect(scene, [("/a", 1), ("/b", 10), ("/c", 100)]);
}

#[test]
fn what_is_taken_from_one_that_waits_counts_too() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    // The goroutine of the pool comes after the request's, which waits.
    scene.runs(9, 30);
    scene.takes(9, 10);
    scene.allocates(9, 1);
    scene.runs(7, 10);
    scene.takes(7, 30);
    scene.runs(9, 30);
    scene.allocates(9, 10);
    scene.responds(7, 50, 0);
    expect(scene, [("/a", 1), (&reason(Reason::BackgroundThread), 10)]);
}
