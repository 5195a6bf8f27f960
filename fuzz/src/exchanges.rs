//! What must hold of the messages of any conversation.
//!
//! In: messages. Out: a panic if one of them is out of place.

use std::collections::BTreeSet;

use memtrace::message::{ExchangeId, Message};

/// Exchanges are numbered in order, each has one end, nothing is said of one
/// that has not begun, and of a response nothing after its end.
pub fn each_has_one_end(messages: &[Message]) {
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
            | Message::RequestAbandoned { exchange, .. } => assert!(open.remove(exchange)),
            Message::RequestHead { exchange, .. }
            | Message::RequestEnd { exchange, .. }
            | Message::MalformedRequest { exchange, .. }
            | Message::Carries { exchange }
            | Message::GrpcStatus { exchange, .. }
            | Message::SeriesBegin { exchange, .. }
            | Message::SeriesMessageBegin { exchange, .. }
            | Message::SeriesMessage { exchange, .. }
            | Message::SeriesCut { exchange, .. } => assert!(exchange.0 < begun),
            Message::Interim { exchange, .. }
            | Message::ResponseBegin { exchange }
            | Message::ResponseHead { exchange, .. }
            | Message::MalformedResponse { exchange, .. } => assert!(open.contains(exchange)),
            Message::UnmatchedResponse { .. }
            | Message::Role(_)
            | Message::Foreign(_)
            | Message::Multiplexed => {}
        }
    }
    assert!(open.is_empty());
}
