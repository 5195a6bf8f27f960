//! Long connections told as events, and what becomes of their messages.

use std::collections::HashMap;

use memtrace_common::event::{Addresses, WaitKind};

use crate::attribute::{Attributed, Attributor, Credit, Outcome, Owner, Reason};
use crate::event::{Data, Direction, Event, EventBody, SocketFact};
use crate::id::{RequestId, SocketId, StreamId};
use crate::message::{ExchangeId, Message, Protocol, Series as Kind, Side};

const FIRST: ExchangeId = ExchangeId(0);

/// A server of one thread under trace.
#[derive(Default)]
struct Trace {
    attributor: Attributor,
    out: Vec<Attributed>,
    now_ns: u64,
}

impl Trace {
    fn event(&mut self, body: EventBody) {
        self.now_ns += 10;
        let event = Event {
            ts_ns: self.now_ns,
            pid: 1,
            tid: 1,
            body,
        };
        self.attributor.step(&event, &mut self.out);
    }

    /// Bytes that amount to these messages.
    fn moved(&mut self, socket: u64, direction: Direction, messages: &[Message]) {
        let stream = StreamId::Socket(SocketId(socket));
        if !messages.is_empty() {
            self.event(EventBody::Messages {
                stream,
                messages: messages.to_vec(),
            });
            // Stated together with what they come from.
            self.now_ns -= 10;
        }
        self.event(EventBody::Data(Data {
            direction,
            stream,
            fd: 3,
            len: 5,
            buffer: 0,
            more: false,
            unreadable: false,
        }));
    }

    fn alloc(&mut self, size: u64) {
        self.event(EventBody::Alloc { addr: size, size });
    }

    fn wait(&mut self) {
        self.event(EventBody::Wait {
            kind: WaitKind::Epoll,
            descriptors: 0,
        });
    }

    /// A connection on which a request for `/s` opens a series.
    fn open(&mut self, socket: u64, series: Kind) {
        self.event(EventBody::Accept(SocketFact {
            socket: SocketId(socket),
            fd: 3,
            addresses: Addresses::default(),
        }));
        let asked = [
            Message::RequestBegin { exchange: FIRST },
            Message::RequestHead {
                exchange: FIRST,
                method: "GET".into(),
                target: "/s".into(),
                protocol: Protocol::Http11,
                keep_alive: true,
                expect_continue: false,
                head_bytes: 90,
                complete: true,
            },
            Message::RequestEnd {
                exchange: FIRST,
                request_bytes: 90,
            },
        ];
        self.moved(socket, Direction::Recv, &asked);
        let mut answered = vec![
            Message::ResponseBegin { exchange: FIRST },
            Message::ResponseHead {
                exchange: FIRST,
                status: 200,
                head_bytes: 40,
            },
        ];
        if series == Kind::WebSocket {
            answered.push(Message::Upgraded {
                exchange: FIRST,
                response_bytes: 40,
                request_bytes: 90,
            });
        }
        answered.push(Message::SeriesBegin {
            exchange: FIRST,
            series,
        });
        self.moved(socket, Direction::Send, &answered);
    }

    /// What became of each request: its name, how it ended and after how many
    /// ns, and the bytes credited to it; `None` is for no request.
    fn end(mut self) -> HashMap<Option<RequestId>, (String, u64)> {
        self.attributor.finish(&mut self.out);
        let mut told: HashMap<Option<RequestId>, (String, u64)> = HashMap::new();
        let mut begun = HashMap::new();
        let mut works: HashMap<_, u64> = HashMap::new();
        for fact in &self.out {
            match fact {
                Attributed::RequestBegin { request, ts_ns, .. } => {
                    begun.insert(*request, *ts_ns);
                }
                Attributed::RequestNamed {
                    request,
                    protocol,
                    method,
                    route,
                } => {
                    told.entry(Some(*request)).or_default().0 =
                        format!("{protocol} {method} {route}")
                }
                Attributed::RequestEnd {
                    request,
                    outcome,
                    ts_ns,
                    ..
                } => {
                    let whole = matches!(outcome, Outcome::Complete);
                    let text = &mut told.entry(Some(*request)).or_default().0;
                    let how = if whole { "whole" } else { "cut" };
                    text.push_str(&format!(" {how} {}", ts_ns - begun[request]));
                }
                Attributed::Alloc { size, credit, .. } => match credit {
                    Credit::Work(work) => *works.entry(*work).or_default() += size,
                    Credit::Reason(_) => told.entry(None).or_default().1 += size,
                },
                Attributed::WorkSettled { work, owner } => {
                    let request = match owner {
                        Owner::Request(claim) => Some(claim.request),
                        Owner::Reason(reason) => {
                            assert_ne!(*reason, Reason::Ambiguous);
                            None
                        }
                    };
                    told.entry(request).or_default().1 += works.remove(work).unwrap_or(0);
                }
                Attributed::WorkDisputed { .. } => panic!("{fact:?}"),
                _ => {}
            }
        }
        told
    }
}

fn opens(from: Side) -> Message {
    Message::SeriesMessageBegin {
        exchange: FIRST,
        from,
    }
}

fn message(from: Side) -> Message {
    Message::SeriesMessage {
        exchange: FIRST,
        from,
        bytes: 7,
    }
}

fn row(text: &str, bytes: u64) -> (String, u64) {
    (text.to_owned(), bytes)
}

#[test]
fn each_message_received_is_a_request_that_ends_answered() {
    let mut trace = Trace::default();
    trace.open(5, Kind::WebSocket);
    trace.alloc(1);
    trace.wait();
    for size in [100, 200] {
        trace.moved(
            5,
            Direction::Recv,
            &[opens(Side::Client), message(Side::Client)],
        );
        trace.alloc(size);
        trace.moved(
            5,
            Direction::Send,
            &[opens(Side::Server), message(Side::Server)],
        );
        trace.alloc(size * 10);
        // A second answer to the same.
        trace.moved(
            5,
            Direction::Send,
            &[opens(Side::Server), message(Side::Server)],
        );
        trace.wait();
    }
    let told = trace.end();
    assert_eq!(told[&Some(RequestId(0))], row("http/1 GET /s whole 10", 1));
    let expected = |size| row("websocket MESSAGE /s whole 40", size);
    assert_eq!(told[&Some(RequestId(1))], expected(1100));
    assert_eq!(told[&Some(RequestId(2))], expected(2200));
    assert_eq!(told.len(), 3);
}

#[test]
fn a_message_that_is_not_answered_ends_with_its_last_byte() {
    let mut trace = Trace::default();
    trace.open(5, Kind::WebSocket);
    trace.wait();
    trace.moved(5, Direction::Recv, &[opens(Side::Client)]);
    trace.alloc(3);
    trace.moved(5, Direction::Recv, &[message(Side::Client)]);
    trace.alloc(4);
    trace.wait();
    trace.now_ns += 1000;
    // The second is cut off by the close.
    trace.moved(5, Direction::Recv, &[opens(Side::Client)]);
    trace.event(EventBody::Close {
        socket: SocketId(5),
        fd: 3,
        last: true,
    });
    let told = trace.end();
    assert_eq!(
        told[&Some(RequestId(1))],
        row("websocket MESSAGE /s whole 20", 7)
    );
    assert_eq!(
        told[&Some(RequestId(2))],
        row("websocket MESSAGE /s cut 0", 0)
    );
}

#[test]
fn what_is_sent_unasked_is_proven_to_have_been_worked_for() {
    for (series, name) in [
        (Kind::WebSocket, "websocket PUSH /s whole 10"),
        (Kind::ServerSentEvents, "sse EVENT /s whole 10"),
    ] {
        let mut trace = Trace::default();
        trace.open(5, series);
        trace.wait();
        trace.alloc(50);
        trace.moved(5, Direction::Send, &[opens(Side::Server)]);
        trace.moved(5, Direction::Send, &[message(Side::Server)]);
        trace.wait();
        trace.alloc(9);
        trace.wait();
        let told = trace.end();
        assert_eq!(told[&Some(RequestId(1))], row(name, 50));
        assert_eq!(told[&None].1, 9);
    }
}

#[test]
fn a_message_handed_on_is_the_work_of_who_sent_it() {
    let mut trace = Trace::default();
    trace.open(5, Kind::WebSocket);
    trace.open(6, Kind::WebSocket);
    trace.wait();
    trace.moved(
        5,
        Direction::Recv,
        &[opens(Side::Client), message(Side::Client)],
    );
    trace.alloc(70);
    trace.moved(
        6,
        Direction::Send,
        &[opens(Side::Server), message(Side::Server)],
    );
    trace.alloc(7);
    trace.moved(
        5,
        Direction::Send,
        &[opens(Side::Server), message(Side::Server)],
    );
    trace.wait();
    let told = trace.end();
    assert_eq!(told[&Some(RequestId(2))].1, 77);
    assert_eq!(
        told[&Some(RequestId(3))],
        row("websocket PUSH /s whole 0", 0)
    );
}
