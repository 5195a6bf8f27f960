//! What must hold for any bytes, however they are cut: the parser gets through,
//! gives every exchange one end, does not depend on how a stream is split, finds
//! valid exchanges exactly, and lets nothing private through.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Side::{Client, Server};
use super::*;

/// Marks what must be in no message; stands nowhere else.
const PRIVATE: u8 = b'^';

/// One thing that happens to a connection.
#[derive(Clone, Debug)]
enum Act {
    /// Bytes move; this many (at most) of them are captured.
    Send(Side, Vec<u8>, usize),
    CloseSide(Side),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Client), Just(Server)]
}

/// Pieces of which hostile streams are made: nearly HTTP, and anything else.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "Content-Type: text/event-stream\r\n",
        "Upgrade: websocket\r\n",
        "data: x\n\n",
        "\u{81}",
        "GET ",
        "POST ",
        "HEAD ",
        "CONNECT ",
        "BREW ",
        "PRI * HTTP/2.0\r\n\r\n",
        "/",
        "/a/b;c=d/e",
        "?q=",
        "x&y",
        "http://u:p@h",
        "*",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 S\r\n\r\n",
        "HTTP/1.1 204 N\r\n",
        "Content-Length: 5\r\n",
        "content-length: 0\n",
        "Content-Length: 7x\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
        "Cookie: secret\r\n",
        " folded\r\n",
        "nocolon\r\n",
        "\r\n",
        "\n",
        "\r",
        "5\r\nhello\r\n",
        "5;e=1\r\nhel",
        "0\r\n\r\n",
        "0\r\nT: v\r\n\r\n",
        "\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\n",
        "hello",
        "\u{16}\u{3}\u{1}",
        "GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]);
    prop_oneof![
        8 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bytes = vec(fragment(), 1..6).prop_map(|fragments| fragments.concat());
    let capture = prop_oneof![3 => Just(usize::MAX), 2 => 0..60usize];
    let piece = prop_oneof![2 => Just(usize::MAX), 2 => 1..9usize];
    let send = (side(), bytes, capture, piece).prop_map(|(side, bytes, capture, piece)| {
        bytes
            .chunks(piece.min(bytes.len().max(1)))
            .map(|piece| Act::Send(side, piece.to_vec(), capture))
            .collect::<Vec<_>>()
    });
    let act = prop_oneof![
        20 => send,
        1 => side().prop_map(|side| vec![Act::CloseSide(side)]),
    ];
    vec(act, 0..14).prop_map(|acts| acts.concat())
}

/// The capture of `bytes` as the kernel makes it: first bytes, and last ones.
fn capture(bytes: &[u8], limit: usize) -> (&[u8], &[u8]) {
    if bytes.len() <= limit {
        return (bytes, &[]);
    }
    (&bytes[..limit], &bytes[bytes.len().saturating_sub(8)..])
}

fn connection(picked_up: bool) -> Connection {
    if picked_up {
        Connection::picked_up()
    } else {
        Connection::new()
    }
}

fn read(picked_up: bool, acts: &[Act]) -> Vec<Message> {
    let mut connection = connection(picked_up);
    let mut out = Vec::new();
    for act in acts {
        match act {
            Act::Send(side, bytes, limit) => {
                let (payload, tail) = capture(bytes, *limit);
                let len = bytes.len() as u64;
                connection.feed(*side, Bytes { len, payload, tail }, &mut out);
            }
            Act::CloseSide(side) => connection.close_side(*side, &mut out),
        }
    }
    connection.close(&mut out);
    out
}

/// How a generated message carries its body.
#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, bool),
}

impl Body {
    fn head_line(&self) -> String {
        match self {
            Body::None => String::new(),
            Body::Length(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
            Body::Chunked(..) => "TRANSFER-encoding: Chunked\r\n".to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Body::None => Vec::new(),
            Body::Length(bytes) => bytes.clone(),
            Body::Chunked(chunks, extras) => {
                let mut bytes = Vec::new();
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:X}", chunk.len()).as_bytes());
                    if *extras {
                        bytes.extend_from_slice(b";e=\"");
                        bytes.extend_from_slice(&[PRIVATE; 3]);
                        bytes.push(b'"');
                    }
                    bytes.extend_from_slice(b"\r\n");
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n");
                if *extras {
                    bytes.extend_from_slice(b"Trailer: ");
                    bytes.extend_from_slice(&[PRIVATE; 5]);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"\r\n");
                bytes
            }
        }
    }
}

/// Content of a body: private bytes among others that look like heads.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(vec![PRIVATE; 7]),
        Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        Just(b"\r\n0\r\n\r\n".to_vec()),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn body() -> impl Strategy<Value = Body> {
    let chunk = content().prop_filter("a chunk holds something", |chunk| !chunk.is_empty());
    prop_oneof![
        Just(Body::None),
        content().prop_map(Body::Length),
        (vec(chunk, 0..4), any::<bool>())
            .prop_map(|(chunks, extras)| Body::Chunked(chunks, extras)),
    ]
}

/// A valid exchange with what must be found in it.
#[derive(Clone, Debug)]
struct Planned {
    method: &'static str,
    request: Vec<u8>,
    interim: usize,
    status: u16,
    response: Vec<u8>,
}

prop_compose! {
    fn planned()(
        method in prop::sample::select(vec!["GET", "HEAD", "POST", "DELETE", "PROPFIND"]),
        request_body in body(),
        interim in 0..3usize,
        status in prop::sample::select(vec![200u16, 201, 204, 304, 404, 500]),
        response_body in body(),
        blank in any::<bool>(),
    ) -> Planned {
        let private = |prefix: &str, count: usize, suffix: &str| {
            [prefix.as_bytes(), &vec![PRIVATE; count], suffix.as_bytes()].concat()
        };
        let mut request = if blank { b"\r\n".to_vec() } else { Vec::new() };
        request.extend(format!("{method} /a/b;v=").bytes());
        request.extend(private("", 4, "/c?page="));
        request.extend(private("", 4, "&"));
        request.extend(private("", 9, "&last= HTTP/1.1\r\nHost: "));
        request.extend(private("", 9, "\r\nCookie:"));
        request.extend(private("", 40, "\r\n"));
        request.extend(request_body.head_line().bytes());
        request.extend(private("Content-Type: text/plain; charset=", 5, "\r\n\r\n"));
        request.extend(request_body.bytes());
        let mut response = b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n".repeat(interim);
        response.extend(format!("HTTP/1.1 {status} Reason\r\nSet-Cookie: ").bytes());
        response.extend(private("", 20, "\r\n"));
        let response_body = match response_body {
            Body::None => Body::Length(Vec::new()),
            body => body,
        };
        response.extend(format!("{}\r\n", response_body.head_line()).bytes());
        if method != "HEAD" && status != 204 && status != 304 {
            response.extend(response_body.bytes());
        }
        Planned { method, request, interim, status, response }
    }
}

/// A connection's valid exchanges, in batches that the client pipelines.
fn batches() -> impl Strategy<Value = Vec<Vec<Planned>>> {
    vec(vec(planned(), 1..4), 1..4)
}

/// Sends each batch of requests, then its responses, in pieces of these sizes.
fn acts_of(batches: &[Vec<Planned>], pieces: &[usize]) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut sizes = pieces.iter().copied().cycle();
    for batch in batches {
        let requests = batch.iter().flat_map(|planned| planned.request.clone());
        let responses = batch.iter().flat_map(|planned| planned.response.clone());
        for (side, bytes) in [
            (Client, requests.collect::<Vec<u8>>()),
            (Server, responses.collect()),
        ] {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
                let (piece, after) = rest.split_at(size);
                acts.push(Act::Send(side, piece.to_vec(), usize::MAX));
                rest = after;
            }
        }
    }
    acts
}

/// Sizes of pieces: large ones, or down to one byte.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(1..200usize, 1..20), vec(1..4usize, 1..5), Just(vec![1]),]
}

/// Everything that was found out about an exchange.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    method: String,
    request_bytes: u64,
    interim: usize,
    status: u16,
    response_bytes: u64,
}

fn found(messages: &[Message]) -> BTreeMap<ExchangeId, Found> {
    let mut all: BTreeMap<ExchangeId, Found> = BTreeMap::new();
    for message in messages {
        match message {
            Message::RequestHead {
                exchange, method, ..
            } => all.entry(*exchange).or_default().method.clone_from(method),
            Message::RequestEnd {
                exchange,
                request_bytes,
            } => all.entry(*exchange).or_default().request_bytes = *request_bytes,
            Message::Interim { exchange, .. } => all.entry(*exchange).or_default().interim += 1,
            Message::ResponseHead {
                exchange, status, ..
            } => all.entry(*exchange).or_default().status = *status,
            Message::ResponseEnd {
                exchange,
                response_bytes,
                request_bytes,
            } => {
                let found = all.entry(*exchange).or_default();
                assert_eq!(found.request_bytes, *request_bytes);
                found.response_bytes = *response_bytes;
            }
            Message::RequestBegin { .. } | Message::ResponseBegin { .. } => {}
            Message::Upgraded { .. }
            | Message::MalformedRequest { .. }
            | Message::MalformedResponse { .. }
            | Message::UnmatchedResponse { .. }
            | Message::RequestAbandoned { .. }
            | Message::Role(_)
            | Message::Foreign(_)
            | Message::Carries { .. }
            | Message::Numbered { .. }
            | Message::GrpcStatus { .. }
            | Message::Multiplexed
            | Message::SeriesBegin { .. }
            | Message::SeriesMessageBegin { .. }
            | Message::SeriesMessage { .. }
            | Message::SeriesCut { .. } => panic!("a valid connection gave {message:?}"),
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives, the parser gets through it, numbers exchanges in order
    /// and gives each exactly one end.
    #[test]
    fn every_exchange_has_one_end(acts in acts(), picked_up: bool) {
        let mut begun = 0;
        let mut open = BTreeMap::new();
        for message in read(picked_up, &acts) {
            match message {
                Message::RequestBegin { exchange } => {
                    prop_assert_eq!(exchange, ExchangeId(begun));
                    begun += 1;
                    open.insert(exchange, ());
                }
                Message::ResponseEnd { exchange, .. }
                | Message::Upgraded { exchange, .. }
                | Message::RequestAbandoned { exchange, .. } => {
                    prop_assert_eq!(open.remove(&exchange), Some(()));
                }
                Message::RequestHead { exchange, .. }
                | Message::RequestEnd { exchange, .. }
                | Message::MalformedRequest { exchange, .. } => {
                    prop_assert!(exchange.0 < begun);
                }
                Message::Interim { exchange, .. }
                | Message::ResponseBegin { exchange }
                | Message::ResponseHead { exchange, .. }
                | Message::MalformedResponse { exchange, .. } => {
                    prop_assert!(open.contains_key(&exchange));
                }
                Message::SeriesBegin { exchange, .. }
                | Message::SeriesMessageBegin { exchange, .. }
                | Message::SeriesMessage { exchange, .. }
                | Message::SeriesCut { exchange, .. } => prop_assert!(exchange.0 < begun),
                Message::UnmatchedResponse { .. } => {}
                Message::Role(_)
                | Message::Foreign(_)
                | Message::Carries { .. }
                | Message::Numbered { .. }
                | Message::Multiplexed
                | Message::GrpcStatus { .. } => prop_assert!(false, "{message:?}"),
            }
        }
        prop_assert!(open.is_empty());
    }

    /// Bytes that are all noise, and lengths that are, too.
    #[test]
    fn noise_is_survived(noise in vec((side(), vec(any::<u8>(), 0..40), any::<u64>()), 0..12), picked_up: bool) {
        let mut connection = connection(picked_up);
        let mut out = Vec::new();
        for (side, payload, len) in &noise {
            let bytes = Bytes { len: *len, payload, tail: payload };
            connection.feed(*side, bytes, &mut out);
        }
        connection.close(&mut out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Valid exchanges are found exactly: how many, their methods, statuses and
    /// byte counts, in any pieces, pipelined or not.
    #[test]
    fn valid_exchanges_are_found(batches in batches(), pieces in pieces()) {
        let found = found(&read(false, &acts_of(&batches, &pieces)));
        let planned: Vec<&Planned> = batches.iter().flatten().collect();
        prop_assert_eq!(found.len(), planned.len());
        for (planned, found) in planned.iter().zip(found.into_values()) {
            let blank = planned.request.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            prop_assert_eq!(found, Found {
                method: planned.method.to_owned(),
                request_bytes: (planned.request.len() - blank) as u64,
                interim: planned.interim,
                status: planned.status,
                response_bytes: planned.response.len() as u64,
            });
        }
    }

    /// How a stream is split changes nothing.
    #[test]
    fn splits_change_no_message(batches in batches(), pieces in pieces()) {
        let whole = read(false, &acts_of(&batches, &[usize::MAX]));
        let split = read(false, &acts_of(&batches, &pieces));
        prop_assert_eq!(split, whole);
    }

    /// No private byte gets through, wherever the capture begins and however it
    /// is cut.
    #[test]
    fn nothing_private_gets_through(
        batches in batches(),
        pieces in pieces(),
        skipped in 0..8usize,
        limit in prop_oneof![Just(usize::MAX), 0..300usize],
        picked_up: bool,
    ) {
        let mut acts = acts_of(&batches, &pieces);
        acts.drain(..skipped.min(acts.len()));
        for act in &mut acts {
            if let Act::Send(_, _, captured) = act {
                *captured = limit;
            }
        }
        let said = format!("{:?}", read(picked_up, &acts));
        prop_assert!(!said.contains(char::from(PRIVATE)), "{}", said);
    }
}
