//! What the tests of all protocols ask of messages.

use std::collections::BTreeSet;

use crate::message::{ExchangeId, Message};

/// Messages in short, without what most tests do not compare.
pub(super) fn short(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| match message {
            Message::RequestBegin { exchange } => format!("begin {}", exchange.0),
            Message::RequestHead {
                exchange,
                method,
                target,
                protocol,
                complete,
                ..
            } => format!(
                "head {} {} {method} {target}{}",
                exchange.0,
                protocol.family(),
                if *complete { "" } else { " cut" }
            ),
            Message::RequestEnd {
                exchange,
                request_bytes,
            } => format!("end {} {request_bytes}", exchange.0),
            Message::ResponseBegin { exchange } => format!("answer {}", exchange.0),
            Message::ResponseHead {
                exchange, status, ..
            } => format!("status {} {status}", exchange.0),
            Message::ResponseEnd {
                exchange,
                response_bytes,
                request_bytes,
            } => format!("done {} {response_bytes} {request_bytes}", exchange.0),
            Message::RequestAbandoned { exchange, how, .. } => {
                format!("abandoned {} {how:?}", exchange.0)
            }
            Message::Carries { exchange } => format!("carries {}", exchange.0),
            Message::Numbered { exchange, number } => format!("numbered {} {number}", exchange.0),
            Message::SeriesBegin { exchange, series } => {
                format!("series {} {series:?}", exchange.0)
            }
            Message::SeriesMessageBegin { exchange, from } => {
                format!("opens {} {from:?}", exchange.0)
            }
            Message::SeriesMessage {
                exchange,
                from,
                bytes,
            } => format!("message {} {from:?} {bytes}", exchange.0),
            other => format!("{other:?}"),
        })
        .collect()
}

/// Exchanges are numbered in order; each has exactly one end, if `closed`, and
/// nothing is said of one that has not begun, or of its response after its end.
pub(super) fn each_exchange_has_one_end(messages: &[Message], closed: bool) {
    let (mut begun, mut open) = (0, BTreeSet::new());
    for message in messages {
        match message {
            Message::RequestBegin { exchange } => {
                assert_eq!(*exchange, ExchangeId(begun));
                begun += 1;
                open.insert(*exchange);
            }
            Message::ResponseEnd { exchange, .. }
            | Message::Upgraded { exchange, .. }
            | Message::RequestAbandoned { exchange, .. } => {
                assert!(open.remove(exchange), "{message:?} ends nothing");
            }
            Message::RequestHead { exchange, .. }
            | Message::RequestEnd { exchange, .. }
            | Message::MalformedRequest { exchange, .. }
            | Message::Carries { exchange }
            | Message::Numbered { exchange, .. }
            | Message::SeriesBegin { exchange, .. }
            | Message::SeriesMessageBegin { exchange, .. }
            | Message::SeriesMessage { exchange, .. }
            | Message::SeriesCut { exchange, .. }
            | Message::GrpcStatus { exchange, .. } => {
                assert!(exchange.0 < begun, "{message:?} is of nothing");
            }
            Message::Interim { exchange, .. }
            | Message::ResponseBegin { exchange }
            | Message::ResponseHead { exchange, .. }
            | Message::MalformedResponse { exchange, .. } => {
                assert!(open.contains(exchange), "{message:?} comes too late");
            }
            Message::UnmatchedResponse { .. }
            | Message::Role(_)
            | Message::Foreign(_)
            | Message::Multiplexed => {}
        }
    }
    assert!(!closed || open.is_empty(), "{open:?} have no end");
}
