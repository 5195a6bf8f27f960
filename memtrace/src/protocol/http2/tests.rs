//! Connections written out by hand, and the messages they must give.

use httlib_hpack::Encoder;

use super::Message::*;
use super::Side::{Client, Server};
use super::*;
use crate::message::Protocol;
use crate::protocol::http1::Bytes;

mod trouble;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// The reference encoder adds every field to its table, in the Huffman code.
pub(super) const INDEXED: u8 =
    Encoder::WITH_INDEXING | Encoder::BEST_FORMAT | Encoder::HUFFMAN_NAME | Encoder::HUFFMAN_VALUE;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block in the reference encoder's words.
pub(super) fn block(encoder: &mut Encoder<'_>, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let field = (name.as_bytes().to_vec(), value.as_bytes().to_vec(), flags);
        encoder.encode(field, &mut bytes).expect("encodes");
    }
    bytes
}

/// One connection under test, with the encoders of both ends.
pub(super) struct Wire {
    pub(super) connection: Connection,
    pub(super) client: Encoder<'static>,
    pub(super) server: Encoder<'static>,
    pub(super) out: Vec<Message>,
}

impl Wire {
    fn of(connection: Connection) -> Self {
        Wire {
            connection,
            client: Encoder::default(),
            server: Encoder::default(),
            out: Vec::new(),
        }
    }

    /// With the preface and the settings of both ends behind it.
    fn new() -> Self {
        let mut wire = Self::of(Connection::in_preface(0, ExchangeId(0)));
        wire.send(Client, PREFACE)
            .send(Client, frame(SETTINGS, 0, 0, &[0; 6]))
            .send(Server, frame(SETTINGS, 0, 0, &[]));
        assert_eq!(wire.out, [Multiplexed]);
        wire.out.clear();
        wire
    }

    fn picked_up() -> Self {
        Self::of(Connection::picked_up(ExchangeId(0)))
    }

    /// Bytes that were captured whole.
    fn send(&mut self, side: Side, bytes: impl AsRef<[u8]>) -> &mut Self {
        let payload = bytes.as_ref();
        self.cut(side, payload.len() as u64, payload)
    }

    /// Bytes of which `payload` was captured.
    fn cut(&mut self, side: Side, len: u64, payload: &[u8]) -> &mut Self {
        let tail = b"";
        let bytes = Bytes { len, payload, tail };
        self.connection.feed(side, bytes, &mut self.out);
        self
    }

    /// The frame of a request without a body.
    fn request(&mut self, stream: u32, method: &str, path: &str) -> Vec<u8> {
        let fields = [(":method", method), (":scheme", "http"), (":path", path)];
        let block = block(&mut self.client, &fields, INDEXED);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    }

    /// A header block of either end, in one frame.
    fn headers(&mut self, side: Side, stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
        let encoder = match side {
            Client => &mut self.client,
            Server => &mut self.server,
        };
        frame(
            HEADERS,
            END_HEADERS | flags,
            stream,
            &block(encoder, fields, INDEXED),
        )
    }

    fn ask(&mut self, stream: u32, path: &str) -> &mut Self {
        let bytes = self.request(stream, "GET", path);
        self.send(Client, bytes)
    }

    fn answer(&mut self, stream: u32, status: &str) -> &mut Self {
        let bytes = self.headers(Server, stream, END_STREAM, &[(":status", status)]);
        self.send(Server, bytes)
    }

    fn close(&mut self) -> &mut Self {
        self.connection.close(&mut self.out);
        self
    }

    /// What happened since the last call, in short. That several exchanges are
    /// carried is told once, before anything else, and not shown; nor are numbers.
    fn said(&mut self) -> Vec<String> {
        self.out
            .retain(|message| !matches!(message, Multiplexed | Numbered { .. }));
        self.out.drain(..).map(|message| short(&message)).collect()
    }

    /// The same without what was carried.
    fn happened(&mut self) -> Vec<String> {
        self.out
            .retain(|message| !matches!(message, Carries { .. }));
        self.said()
    }
}

/// A message in short: its name, its exchange, and what else it says.
pub(super) fn short(message: &Message) -> String {
    match message {
        RequestBegin { exchange } => format!("begin {}", exchange.0),
        RequestHead {
            exchange,
            method,
            target,
            protocol,
            keep_alive: _,
            expect_continue,
            head_bytes,
            complete,
        } => {
            let flag = |set: bool, text: &'static str| if set { text } else { "" };
            format!(
                "head {} {method} {target} {head_bytes}{}{}{}",
                exchange.0,
                flag(*protocol == Protocol::Grpc, " grpc"),
                flag(*expect_continue, " expect"),
                flag(!complete, " cut"),
            )
        }
        RequestEnd {
            exchange,
            request_bytes,
        } => format!("end {} {request_bytes}", exchange.0),
        Interim { exchange, status } => format!("interim {} {status}", exchange.0),
        ResponseBegin { exchange } => format!("answer {}", exchange.0),
        ResponseHead {
            exchange,
            status,
            head_bytes: _,
        } => format!("status {} {status}", exchange.0),
        ResponseEnd {
            exchange,
            response_bytes,
            request_bytes,
        } => format!("done {} {response_bytes} {request_bytes}", exchange.0),
        UnmatchedResponse { status } => format!("unmatched {status:?}"),
        RequestAbandoned {
            exchange,
            how,
            request_bytes,
            response_bytes,
            status,
        } => format!(
            "abandoned {} {how:?} {request_bytes} {response_bytes} {status:?}",
            exchange.0
        ),
        Carries { exchange } => format!("carries {}", exchange.0),
        GrpcStatus { exchange, status } => format!("grpc {} {status}", exchange.0),
        other => panic!("HTTP/2 has no {other:?}"),
    }
}

#[test]
fn an_exchange_has_a_beginning_and_an_end() {
    // One request, one response, with the bytes of their frames.
    let mut wire = Wire::new();
    let request = wire.request(1, "GET", "/a?q=secret");
    let sent = request.len();
    wire.send(Client, request);
    assert_eq!(
        wire.said(),
        [
            "begin 0".to_owned(),
            "carries 0".to_owned(),
            format!("head 0 GET /a?q {sent}"),
            format!("end 0 {sent}"),
        ]
    );
    let head = wire.headers(Server, 1, 0, &[(":status", "200"), ("server", "x")]);
    let answered = head.len() + 9 + 5;
    wire.send(Server, head);
    assert_eq!(wire.said(), ["answer 0", "carries 0", "status 0 200"]);
    wire.send(Server, frame(DATA, END_STREAM, 1, b"hello"));
    assert_eq!(
        wire.said(),
        ["carries 0".to_owned(), format!("done 0 {answered} {sent}")]
    );
    assert!(wire.close().said().is_empty());
}

#[test]
fn streams_interleave() {
    // Three requests in one feed, answered in another order and in pieces.
    let mut wire = Wire::new();
    let requests = [
        wire.request(1, "GET", "/1"),
        wire.request(3, "HEAD", "/2"),
        wire.request(5, "GET", "/1"),
    ];
    let sent = requests.each_ref().map(Vec::len);
    wire.send(Client, requests.concat());
    let heads: Vec<String> = wire
        .happened()
        .into_iter()
        .filter(|line| line.starts_with("head"))
        .map(|line| line.rsplit_once(' ').expect("bytes").0.to_owned())
        .collect();
    assert_eq!(heads, ["head 0 GET /1", "head 1 HEAD /2", "head 2 GET /1"]);
    // Both status codes stand in the static table: one byte each.
    let mut answers = wire.headers(Server, 5, 0, &[(":status", "200")]);
    answers.extend(wire.headers(Server, 3, END_STREAM, &[(":status", "404")]));
    answers.extend(frame(DATA, 0, 5, &[0; 100]));
    wire.send(Server, answers);
    assert_eq!(
        wire.said(),
        [
            "answer 2",
            "carries 2",
            "status 2 200",
            "answer 1",
            "carries 1",
            "status 1 404",
            &format!("done 1 10 {}", sent[1]),
        ]
    );
    wire.send(Server, frame(DATA, END_STREAM, 5, &[0; 50]));
    let answered = 10 + 109 + 59;
    assert_eq!(
        wire.said(),
        [
            "carries 2".to_owned(),
            format!("done 2 {answered} {}", sent[2])
        ]
    );
    wire.close();
    let said = format!("abandoned 0 NoResponse {} 0 None", sent[0]);
    assert_eq!(wire.said(), [said]);
}

#[test]
fn a_body_may_follow_and_be_answered_early() {
    // The response ends before the request does.
    let mut wire = Wire::new();
    let fields = [
        (":method", "POST"),
        (":path", "/up"),
        ("expect", "100-continue"),
    ];
    let head = wire.headers(Client, 1, 0, &fields);
    let sent = head.len();
    wire.send(Client, head);
    assert_eq!(wire.happened()[1], format!("head 0 POST /up {sent} expect"));
    let interim = wire.headers(Server, 1, 0, &[(":status", "100")]);
    let answered = interim.len() + 10;
    wire.send(Server, interim).answer(1, "413");
    assert_eq!(
        wire.happened(),
        [
            "answer 0".to_owned(),
            "interim 0 100".to_owned(),
            "status 0 413".to_owned(),
            format!("done 0 {} {sent}", answered + 4),
        ]
    );
    wire.send(Client, frame(DATA, END_STREAM, 1, &[0; 1000]));
    assert_eq!(wire.said(), [format!("end 0 {}", sent + 1009)]);
}

#[test]
fn a_block_may_come_in_several_frames_with_padding_and_priority() {
    // HEADERS with padding and a dependency, and two CONTINUATION frames.
    let mut wire = Wire::new();
    let fields = [
        (":method", "PUT"),
        (":path", "/long/path"),
        ("cookie", "secret"),
    ];
    let block = block(&mut wire.client, &fields, INDEXED);
    let (first, rest) = block.split_at(4);
    let (second, third) = rest.split_at(3);
    let mut payload = vec![7, 0, 0, 0, 0, 200];
    payload.extend(first);
    payload.extend([0; 7]);
    let mut bytes = frame(HEADERS, END_STREAM | PADDED | PRIORITY, 1, &payload);
    bytes.extend(frame(CONTINUATION, 0, 1, second));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, third));
    let sent = bytes.len();
    wire.send(Client, bytes);
    assert_eq!(
        wire.happened()[1..],
        [
            format!("head 0 PUT /long/path {sent}"),
            format!("end 0 {sent}")
        ]
    );
}

#[test]
fn calls_of_grpc_end_with_their_own_status() {
    // In trailers, or in a response of trailers only.
    let mut wire = Wire::new();
    for (stream, exchange) in [(1, 0), (3, 1)] {
        let fields = [
            (":method", "POST"),
            (":path", "/pkg.Service/Call"),
            ("content-type", "application/grpc+proto"),
        ];
        let head = wire.headers(Client, stream, 0, &fields);
        wire.out.clear();
        wire.send(Client, head);
        let said = wire.happened();
        let expected = format!("head {exchange} POST /pkg.Service/Call ");
        assert!(said[1].starts_with(&expected), "{said:?}");
        assert!(said[1].ends_with(" grpc"), "{said:?}");
        wire.send(Client, frame(DATA, END_STREAM, stream, &[0; 5]));
    }
    let head = wire.headers(Server, 1, 0, &[(":status", "200")]);
    let trailers = wire.headers(Server, 1, END_STREAM, &[("grpc-status", "0")]);
    wire.out.clear();
    wire.send(Server, head)
        .send(Server, frame(DATA, 0, 1, &[0; 5]))
        .send(Server, trailers);
    let said = wire.happened();
    assert_eq!(said[..3], ["answer 0", "status 0 200", "grpc 0 0"]);
    let fields = [(":status", "200"), ("grpc-status", "12")];
    let only = wire.headers(Server, 3, END_STREAM, &fields);
    wire.send(Server, only);
    let said = wire.happened();
    assert_eq!(said[..3], ["answer 1", "status 1 200", "grpc 1 12"]);
}

#[test]
fn resets_say_who_gave_up() {
    // By the client, by the server, and after the whole response.
    let mut wire = Wire::new();
    for stream in [1, 3, 5] {
        let fields = [(":method", "POST"), (":path", "/")];
        let head = wire.headers(Client, stream, 0, &fields);
        wire.send(Client, head);
    }
    wire.out.clear();
    wire.send(Client, frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    assert_eq!(wire.said()[..1], ["carries 0"]);
    wire.send(Server, frame(RST_STREAM, 0, 3, &[0, 0, 0, 2]));
    let said = wire.happened();
    assert!(said[0].starts_with("abandoned 1 ResetByServer"), "{said:?}");
    wire.answer(5, "413")
        .send(Server, frame(RST_STREAM, 0, 5, &[0; 4]));
    let said = wire.happened();
    assert!(said[2].starts_with("done 2"), "{said:?}");
    assert_eq!(said.len(), 3);
    assert!(wire.close().said().is_empty());
}

#[test]
fn goaway_gives_up_what_comes_after_its_last_stream() {
    // What is not going to be processed is over; the rest goes on.
    let mut wire = Wire::new();
    wire.ask(1, "/").ask(3, "/").ask(5, "/").said();
    wire.send(Server, frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    let said = wire.said();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("abandoned 2 ResetByServer"), "{said:?}");
    wire.answer(3, "200");
    assert!(wire.happened()[2].starts_with("done 1"));
    // That of a client is about pushed streams.
    wire.send(Client, frame(GOAWAY, 0, 0, &[0; 8]));
    assert!(wire.said().is_empty());
}

#[test]
fn pushed_responses_are_passed_over_and_leave_the_table_right() {
    // The promised request is in the server's header table like everything else.
    let mut wire = Wire::new();
    wire.ask(1, "/").said();
    let mut promise = vec![0, 0, 0, 2];
    let fields = [(":method", "GET"), (":path", "/style.css"), ("x-push", "1")];
    promise.extend(block(&mut wire.server, &fields, INDEXED));
    let pushed = wire.headers(
        Server,
        2,
        END_STREAM,
        &[(":status", "302"), ("x-push", "1")],
    );
    wire.send(Server, frame(PUSH_PROMISE, END_HEADERS, 1, &promise))
        .send(Server, pushed);
    assert!(wire.said().is_empty());
    wire.answer(1, "302");
    assert_eq!(wire.happened()[..2], ["answer 0", "status 0 302"]);
}

#[test]
fn frames_of_the_connection_belong_to_nobody() {
    // Pings, settings, windows, priorities and extensions carry no exchange.
    let mut wire = Wire::new();
    wire.ask(1, "/").said();
    wire.send(Client, frame(PING, 0, 0, &[0; 8]))
        .send(Client, frame(SETTINGS, 1, 0, &[]))
        .send(Client, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]))
        .send(Client, frame(2, 0, 7, &[0; 5]))
        .send(Client, frame(0x10, 0, 0, b"u=1, i"));
    assert!(wire.said().is_empty());
    wire.answer(1, "204");
    assert_eq!(wire.happened()[1], "status 0 204");
}

#[test]
fn a_tunnel_has_an_authority_for_a_target() {
    // CONNECT has no path, and its authority is not shown.
    let mut wire = Wire::new();
    let fields = [(":method", "CONNECT"), (":authority", "db.internal:5432")];
    let head = wire.headers(Client, 1, 0, &fields);
    wire.send(Client, head);
    assert!(wire.happened()[1].starts_with("head 0 CONNECT {authority} "));
}

#[test]
fn an_upgraded_request_is_answered_on_stream_1() {
    // It came in HTTP/1.1; the next one opens stream 3.
    let mut wire = Wire::of(Connection::upgraded(ExchangeId(0), 80, 70));
    wire.send(Client, PREFACE).answer(1, "200");
    assert_eq!(wire.said(), ["carries 0", "status 0 200", "done 0 80 80"]);
    wire.ask(3, "/next");
    assert_eq!(wire.happened()[0], "begin 1");
}

#[test]
fn an_idle_connection_is_small() {
    // Thousands of connections are followed at once.
    let size = size_of::<Connection>();
    assert!(size <= 512, "{size} bytes");
}
