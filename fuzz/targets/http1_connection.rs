//! Any conversation gets through the HTTP/1 parser, and each exchange has one
//! end.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::protocol::http1::{Connection, ExchangeId, Message};
use memtrace_fuzz::conversation::{Act, acts};

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(picked_up) = input.arbitrary() else {
        return;
    };
    let Ok(acts) = acts(&mut input) else { return };
    let mut connection = if picked_up {
        Connection::picked_up()
    } else {
        Connection::new()
    };
    let mut messages = Vec::new();
    for act in &acts {
        match act {
            Act::Move {
                side,
                len,
                payload,
                tail,
            } => connection.feed(*side, Act::bytes(*len, payload, tail), &mut messages),
            Act::Close(side) => connection.close_side(*side, &mut messages),
        }
    }
    connection.close(&mut messages);

    let (mut begun, mut open) = (0, BTreeSet::new());
    for message in &messages {
        match message {
            Message::RequestBegin { exchange } => {
                assert_eq!(*exchange, ExchangeId(begun));
                begun += 1;
                open.insert(*exchange);
            }
            Message::ResponseEnd { exchange, .. }
            | Message::Upgraded { exchange, .. }
            | Message::RequestAbandoned { exchange, .. } => assert!(open.remove(exchange)),
            Message::RequestHead { exchange, .. }
            | Message::RequestEnd { exchange, .. }
            | Message::MalformedRequest { exchange, .. } => assert!(exchange.0 < begun),
            Message::Interim { exchange, .. }
            | Message::ResponseBegin { exchange }
            | Message::ResponseHead { exchange, .. }
            | Message::MalformedResponse { exchange, .. } => assert!(open.contains(exchange)),
            Message::SeriesBegin { exchange, .. }
            | Message::SeriesMessageBegin { exchange, .. }
            | Message::SeriesMessage { exchange, .. }
            | Message::SeriesCut { exchange, .. } => assert!(exchange.0 < begun),
            Message::UnmatchedResponse { .. } => {}
            Message::Role(_)
            | Message::Foreign(_)
            | Message::Carries { .. }
            | Message::GrpcStatus { .. } => panic!("HTTP/1 alone says no {message:?}"),
        }
    }
    assert!(open.is_empty());
});
