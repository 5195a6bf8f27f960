//! Events as the kernel states them, and whose the blocks are in the end.

use std::collections::BTreeMap;

use memtrace_common::event::{Addresses, ContextKind, HandoverKind, WaitKind};

use memtrace::{
    attribute::{Attributor, Reason},
    event::{Data, Direction, Event, EventBody, Handover, Origin, ProcessFact, SocketFact},
    id::{ProcessId, SocketId, StreamId},
    message::{ExchangeId, Message, Protocol},
    store::Store,
};

pub const PID: u32 = 100;
pub const GOROUTINE: ContextKind = ContextKind::Goroutine;

fn channel(key: u64) -> Handover {
    Handover {
        key,
        kind: HandoverKind::Channel,
        amount: 0,
        alone: false,
    }
}

/// Events in their order, all of one process.
#[derive(Default)]
pub struct Scene {
    attributor: Attributor,
    store: Option<Store>,
}

impl Scene {
    pub fn say(&mut self, tid: u32, body: EventBody) {
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

    pub fn runs(&mut self, tid: u32, context: u64) {
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

    pub fn made(&mut self, tid: u32, context: u64, parent: u64) {
        self.say(
            tid,
            EventBody::ContextMade {
                context,
                parent,
                kind: GOROUTINE,
            },
        );
    }

    pub fn allocates(&mut self, tid: u32, size: u64) {
        let type_address = 0;
        self.say(tid, EventBody::ManagedAlloc { size, type_address });
    }

    /// The process is described: it ran before the trace began.
    pub fn described(&mut self, runtime: &str) {
        let fact = ProcessFact {
            process: ProcessId::new(PID, 1),
            parent_pid: 1,
            exe: "/srv/server".to_owned(),
            comm: "server".to_owned(),
            runtime: runtime.to_owned(),
            allocators: Vec::new(),
            tls: Vec::new(),
            origin: Origin::Attached,
            trouble: Vec::new(),
            probed_after_ns: 0,
        };
        self.say(0, EventBody::Process(fact));
    }

    /// A thread is given a block, at an address that is its size.
    pub fn blocks(&mut self, tid: u32, size: u64) {
        self.say(tid, EventBody::Alloc { addr: size, size });
    }

    pub fn waits(&mut self, tid: u32) {
        let body = EventBody::Wait {
            kind: WaitKind::Epoll,
            descriptors: 0,
        };
        self.say(tid, body);
    }

    pub fn accepts(&mut self, tid: u32, socket: u64) {
        self.say(
            tid,
            EventBody::Accept(SocketFact {
                socket: SocketId(socket),
                fd: 5,
                addresses: Addresses::default(),
            }),
        );
    }

    pub fn connects(&mut self, tid: u32, socket: u64) {
        self.say(
            tid,
            EventBody::Connect(SocketFact {
                socket: SocketId(socket),
                fd: 6,
                addresses: Addresses::default(),
            }),
        );
    }

    pub fn moves(&mut self, tid: u32, socket: u64, direction: Direction, messages: Vec<Message>) {
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

    /// Bytes that are no message are sent.
    pub fn sends(&mut self, tid: u32, socket: u64) {
        self.moves(tid, socket, Direction::Send, Vec::new());
    }

    /// Bytes that are no message are received.
    pub fn answered(&mut self, tid: u32, socket: u64) {
        self.moves(tid, socket, Direction::Recv, Vec::new());
    }

    pub fn receives(&mut self, tid: u32, socket: u64, exchange: u32, target: &str) {
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

    pub fn responds(&mut self, tid: u32, socket: u64, exchange: u32) {
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

    pub fn gives(&mut self, tid: u32, taker: u64) {
        self.say(tid, EventBody::Wake(channel(taker)));
    }

    pub fn takes(&mut self, tid: u32, giver: u64) {
        self.say(tid, EventBody::Woken(channel(giver)));
    }

    /// The goroutine on a thread begins to answer the request of a stream.
    pub fn takes_stream(&mut self, tid: u32, number: u64) {
        let stream = Handover {
            key: number,
            kind: HandoverKind::Stream,
            amount: 0,
            alone: false,
        };
        self.say(tid, EventBody::Woken(stream));
    }

    /// Bytes by route, or by reason in brackets.
    pub fn ends(mut self) -> BTreeMap<String, u64> {
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

pub fn expect<'a>(scene: Scene, expected: impl IntoIterator<Item = (&'a str, u64)>) {
    let expected: BTreeMap<String, u64> = expected
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    assert_eq!(scene.ends(), expected);
}

pub fn reason(reason: Reason) -> String {
    format!("[{}]", reason.name())
}

/// Whole requests on a connection that carries several at once.
pub fn stream_requests(requests: &[(u32, &str)]) -> Vec<Message> {
    let mut messages = vec![Message::Multiplexed];
    for (exchange, target) in requests {
        let exchange = ExchangeId(*exchange);
        messages.extend([
            Message::RequestBegin { exchange },
            Message::Carries { exchange },
            Message::RequestHead {
                exchange,
                method: "GET".into(),
                target: (*target).into(),
                protocol: Protocol::Http2,
                keep_alive: true,
                expect_continue: false,
                head_bytes: 80,
                complete: true,
            },
            Message::RequestEnd {
                exchange,
                request_bytes: 80,
            },
        ]);
    }
    messages
}

/// Bytes of responses on such a connection, to their ends if `whole`.
pub fn stream_responses(exchanges: &[u32], whole: bool) -> Vec<Message> {
    let mut messages = Vec::new();
    for exchange in exchanges {
        let exchange = ExchangeId(*exchange);
        messages.push(Message::Carries { exchange });
        if whole {
            messages.push(Message::ResponseEnd {
                exchange,
                response_bytes: 80,
                request_bytes: 80,
            });
        }
    }
    messages
}
