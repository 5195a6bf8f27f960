//! What must hold for any bytes, however they are cut: the parser gets through,
//! gives every exchange one end, does not depend on how a stream is split, finds
//! valid exchanges exactly, and where bytes were not captured says nothing that
//! is not so. Header blocks are made by another implementation's encoder.

use std::collections::BTreeMap;

use httlib_hpack::Encoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::Side::{Client, Server};
use super::tests::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INDEXED, PADDED, PING,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use super::*;
use crate::protocol::http1::Bytes;

/// One exchange as both ends would have it.
#[derive(Clone, Debug)]
struct Planned {
    method: &'static str,
    path: &'static str,
    status: &'static str,
    extra: Option<(String, String)>,
    body: usize,
    answer: usize,
    /// How fields enter the header table.
    flags: u8,
    /// The request's block is cut into frames here.
    split: usize,
    padding: u8,
    /// A change of the table's size opens the request's block.
    table: Option<u32>,
}

fn planned() -> impl Strategy<Value = Planned> {
    let methods = prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "HEAD"]);
    let paths = prop::sample::select(vec!["/", "/a", "/b/c", "/users/17", "/x?y=1", "/long/er"]);
    let statuses = prop::sample::select(vec!["200", "204", "302", "404", "418", "503"]);
    let flags = prop::sample::select(vec![
        INDEXED,
        INDEXED & !Encoder::HUFFMAN_VALUE,
        Encoder::BEST_FORMAT | Encoder::HUFFMAN_VALUE,
        Encoder::NEVER_INDEXED | Encoder::HUFFMAN_NAME,
        Encoder::WITH_INDEXING,
    ]);
    let extra = prop::option::of(("x-[a-f]{1,3}", "[ -~]{0,40}"));
    let table = prop::option::weighted(0.1, prop_oneof![Just(0), 0..200_u32, Just(4096)]);
    (
        (methods, paths, statuses, extra),
        (
            0..2000_usize,
            0..2000_usize,
            flags,
            0..40_usize,
            0..20_u8,
            table,
        ),
    )
        .prop_map(
            |((method, path, status, extra), (body, answer, flags, split, padding, table))| {
                Planned {
                    method,
                    path,
                    status,
                    extra,
                    body,
                    answer,
                    flags,
                    split,
                    padding,
                    table,
                }
            },
        )
}

/// What one end sends in one call.
#[derive(Clone, Debug)]
struct Sent {
    side: Side,
    bytes: Vec<u8>,
}

/// The frames of these exchanges, as many of them at once as `width`.
fn conversation(plan: &[Planned], width: usize) -> Vec<Sent> {
    let mut client = Encoder::with_dynamic_size(4096);
    let mut server = Encoder::with_dynamic_size(4096);
    let mut sent = vec![
        Sent {
            side: Client,
            bytes: [&PREFACE[..], &frame(SETTINGS, 0, 0, &[0; 6])].concat(),
        },
        Sent {
            side: Server,
            bytes: frame(SETTINGS, 0, 0, &[]),
        },
    ];
    for (round, plans) in plan.chunks(width).enumerate() {
        let stream = |n: usize| u32::try_from((round * width + n) * 2 + 1).expect("few streams");
        for (n, planned) in plans.iter().enumerate() {
            let mut bytes = request(&mut client, planned, stream(n));
            if planned.body > 0 {
                bytes.extend(frame(DATA, END_STREAM, stream(n), &vec![1; planned.body]));
            }
            sent.push(Sent {
                side: Client,
                bytes,
            });
        }
        let mut answers = Vec::new();
        for (n, planned) in plans.iter().enumerate().rev() {
            answers.extend(frame(WINDOW_UPDATE, 0, stream(n), &[0, 0, 1, 0]));
            let flags = planned.flags;
            let mut head = block(&mut server, &[(":status", planned.status)], flags);
            if let Some((name, value)) = &planned.extra {
                head.extend(block(&mut server, &[(name, value)], flags));
            }
            let end = if planned.answer == 0 { END_STREAM } else { 0 };
            answers.extend(frame(HEADERS, END_HEADERS | end, stream(n), &head));
        }
        for (n, planned) in plans.iter().enumerate() {
            if planned.answer > 0 {
                let body = vec![2; planned.answer];
                answers.extend(frame(DATA, END_STREAM, stream(n), &body));
            }
        }
        sent.push(Sent {
            side: Server,
            bytes: answers,
        });
    }
    sent
}

fn request(client: &mut Encoder<'static>, planned: &Planned, stream: u32) -> Vec<u8> {
    let mut head = Vec::new();
    if let Some(size) = planned.table {
        client
            .update_max_dynamic_size(size, &mut head)
            .expect("encodes");
    }
    let fields = [
        (":method", planned.method),
        (":scheme", "http"),
        (":path", planned.path),
    ];
    head.extend(block(client, &fields, planned.flags));
    if let Some((name, value)) = &planned.extra {
        head.extend(block(client, &[(name, value)], planned.flags));
    }
    let end = if planned.body == 0 { END_STREAM } else { 0 };
    let (first, rest) = head.split_at(planned.split.min(head.len()));
    let mut payload = vec![planned.padding];
    payload.extend(first);
    payload.extend(vec![0; usize::from(planned.padding)]);
    let mut bytes = if rest.is_empty() {
        return frame(HEADERS, end | PADDED | END_HEADERS, stream, &payload);
    } else {
        frame(HEADERS, end | PADDED, stream, &payload)
    };
    bytes.extend(frame(CONTINUATION, END_HEADERS, stream, rest));
    bytes
}

/// Feeds it in pieces of these sizes, captured up to this many bytes each.
fn run(connection: &mut Connection, sent: &[Sent], pieces: &[(usize, usize)]) -> Vec<Message> {
    let mut out = Vec::new();
    let mut cuts = pieces.iter().cycle();
    for Sent { side, bytes } in sent {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (size, captured) = cuts.next().copied().unwrap_or((usize::MAX, usize::MAX));
            let (piece, after) = rest.split_at(size.clamp(1, rest.len()));
            rest = after;
            let bytes = Bytes {
                len: piece.len() as u64,
                payload: &piece[..captured.min(piece.len())],
                tail: &[],
            };
            connection.feed(*side, bytes, &mut out);
        }
    }
    connection.close(&mut out);
    out
}

fn whole() -> Connection {
    Connection::in_preface(0, ExchangeId(0))
}

/// Each exchange opens once, then ends once, and is not heard of outside.
fn assert_lifecycles(messages: &[Message]) {
    let mut open: BTreeMap<u32, bool> = BTreeMap::new();
    for message in messages {
        let (exchange, ends) = match message {
            Message::RequestBegin { exchange } => {
                assert!(open.insert(exchange.0, true).is_none(), "{message:?}");
                continue;
            }
            Message::ResponseEnd { exchange, .. } | Message::RequestAbandoned { exchange, .. } => {
                (exchange, true)
            }
            // May come after the end.
            Message::RequestEnd { .. }
            | Message::UnmatchedResponse { .. }
            | Message::Multiplexed => continue,
            Message::RequestHead { exchange, .. }
            | Message::Interim { exchange, .. }
            | Message::ResponseBegin { exchange }
            | Message::ResponseHead { exchange, .. }
            | Message::Carries { exchange }
            | Message::Numbered { exchange, .. }
            | Message::GrpcStatus { exchange, .. } => (exchange, false),
            other => panic!("HTTP/2 has no {other:?}"),
        };
        assert_eq!(
            open.get(&exchange.0),
            Some(&true),
            "{message:?} is of an open exchange"
        );
        if ends {
            open.insert(exchange.0, false);
        }
    }
    assert!(open.values().all(|open| !open), "every exchange ends");
}

/// Methods, targets and codes of the exchanges, in the order of their requests.
fn heads(messages: &[Message]) -> BTreeMap<u32, (String, String, Option<u16>)> {
    let mut heads = BTreeMap::new();
    for message in messages {
        match message {
            Message::RequestHead {
                exchange,
                method,
                target,
                ..
            } => {
                heads.insert(exchange.0, (method.clone(), target.clone(), None));
            }
            Message::ResponseHead {
                exchange, status, ..
            } => {
                if let Some(head) = heads.get_mut(&exchange.0) {
                    head.2 = Some(*status);
                }
            }
            _ => {}
        }
    }
    heads
}

fn shown(path: &str) -> &str {
    if path == "/x?y=1" { "/x?y" } else { path }
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![
        DATA,
        HEADERS,
        RST_STREAM,
        SETTINGS,
        PUSH_PROMISE,
        PING,
        GOAWAY,
        WINDOW_UPDATE,
        CONTINUATION,
        0x2a,
    ]);
    let framed = (kinds, any::<u8>(), 0..12_u32, vec(any::<u8>(), 0..60))
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    prop_oneof![
        4 => framed,
        1 => vec(any::<u8>(), 0..100),
        1 => Just(PREFACE.to_vec()),
        1 => Just(vec![0xff; 40]),
    ]
}

proptest! {
    #[test]
    fn valid_exchanges_are_found_exactly(
        plan in vec(planned(), 1..30),
        width in 1..8_usize,
        pieces in vec((1..600_usize, Just(usize::MAX)), 1..20),
    ) {
        let messages = run(&mut whole(), &conversation(&plan, width), &pieces);
        assert_lifecycles(&messages);
        let heads = heads(&messages);
        prop_assert_eq!(heads.len(), plan.len());
        for ((method, target, status), planned) in heads.values().zip(&plan) {
            prop_assert_eq!(method, planned.method);
            prop_assert_eq!(target, shown(planned.path));
            prop_assert_eq!(status.map(|status| status.to_string()), Some(planned.status.to_owned()));
        }
        let mut answered = vec![0; plan.len()];
        for message in &messages {
            if let Message::ResponseEnd { exchange, response_bytes, .. } = message {
                answered[exchange.0 as usize] = *response_bytes;
            }
        }
        for (bytes, planned) in answered.iter().zip(&plan) {
            let body = if planned.answer > 0 { planned.answer as u64 + 9 } else { 0 };
            prop_assert!(*bytes > body, "{bytes} bytes");
        }
    }

    #[test]
    fn splits_change_no_message(
        plan in vec(planned(), 1..20),
        width in 1..8_usize,
        pieces in vec((1..300_usize, Just(usize::MAX)), 1..20),
    ) {
        let sent = conversation(&plan, width);
        let without_carries = |messages: Vec<Message>| -> Vec<Message> {
            let told = |message: &Message| !matches!(message, Message::Carries { .. });
            messages.into_iter().filter(told).collect()
        };
        let at_once = run(&mut whole(), &sent, &[]);
        let in_pieces = run(&mut whole(), &sent, &pieces);
        prop_assert_eq!(without_carries(at_once), without_carries(in_pieces));
    }

    #[test]
    fn what_was_not_captured_makes_nothing_wrong(
        plan in vec(planned(), 1..30),
        width in 1..8_usize,
        pieces in vec((1..3000_usize, 0..2000_usize), 1..20),
    ) {
        let messages = run(&mut whole(), &conversation(&plan, width), &pieces);
        assert_lifecycles(&messages);
        // Exchanges may be missing: the others come in their order.
        let mut rest = plan.iter();
        for (method, target, status) in heads(&messages).values() {
            let fits = |planned: &Planned| {
                (method == UNKNOWN || method == planned.method)
                    && (target == UNKNOWN || target == shown(planned.path))
                    && status.is_none_or(|status| status.to_string() == planned.status)
            };
            prop_assert!(rest.any(fits), "{method} {target} {status:?}");
        }
    }

    #[test]
    fn a_connection_picked_up_late_knows_what_it_saw(
        plan in vec(planned(), 2..30),
        width in 1..8_usize,
        late in 0..30_usize,
    ) {
        let sent = conversation(&plan, width);
        // Calls, not pieces of them: frames open what is seen first.
        let late = 2 + late % (sent.len() - 2);
        let mut connection = Connection::picked_up(ExchangeId(0));
        let mut messages = Vec::new();
        for Sent { side, bytes } in &sent[late..] {
            let bytes = Bytes { len: bytes.len() as u64, payload: bytes, tail: &[] };
            connection.feed(*side, bytes, &mut messages);
        }
        connection.close(&mut messages);
        assert_lifecycles(&messages);
        let first = sent[..late].iter().filter(|sent| sent.side == Client).count() - 1;
        let heads = heads(&messages);
        prop_assert_eq!(heads.len(), plan.len() - first);
        for ((method, target, status), planned) in heads.values().zip(&plan[first..]) {
            prop_assert!(method == UNKNOWN || method == planned.method);
            prop_assert!(target == UNKNOWN || target == shown(planned.path));
            prop_assert!(status.is_none_or(|status| status.to_string() == planned.status));
        }
    }

    #[test]
    fn noise_is_survived(
        acts in vec((any::<bool>(), vec(hostile(), 1..6), 0..400_usize, any::<bool>()), 1..40),
        picked_up in any::<bool>(),
    ) {
        let mut connection = if picked_up {
            Connection::picked_up(ExchangeId(7))
        } else {
            whole()
        };
        let mut out = Vec::new();
        for (client, parts, captured, lose) in acts {
            let bytes = parts.concat();
            let payload = &bytes[..captured.min(bytes.len())];
            let len = bytes.len() as u64;
            let side = if client { Client } else { Server };
            sender_of(payload, len);
            connection.feed(side, Bytes { len, payload, tail: &[] }, &mut out);
            if lose {
                connection.lose();
            }
        }
        connection.close(&mut out);
        assert_lifecycles(&out);
    }
}
