//! HTTP/2 (RFC 9113): the bytes of both directions of one connection come in,
//! where its requests and responses begin and end goes out as [`Message`]s.
//!
//! The bytes may come in pieces of any size, may be captured only in part, and
//! may start in the middle of a connection. What was not captured is passed over
//! by the lengths of its frames; where a length itself is missing, the position
//! is lost until frames open a feed again. Nothing of that is fatal, and what
//! depends on bytes that were not seen is unknown rather than wrong: a header
//! that refers to an entry of the header table (RFC 7541) which was made out of
//! sight gives the method or target [`UNKNOWN`].
//!
//! What is counted as an exchange's bytes are its HEADERS, CONTINUATION and DATA
//! frames, with their nine bytes of frame header. Pushed responses are passed
//! over. It deliberately does not know time, threads or roles (`Client` is
//! whoever sends the requests), keeps no values of other headers than those it
//! reports, and does not judge whether a peer keeps to the protocol.
//!
//! Inside: `half` walks one direction frame by frame (`frame`), `hpack` decodes
//! header blocks, `head` keeps what they say, `streams` holds the exchanges,
//! `connection` drives both directions, `recognise` tells frames from other
//! bytes.

mod connection;
mod frame;
mod half;
mod head;
mod hpack;
#[cfg(test)]
mod properties;
mod recognise;
mod streams;
#[cfg(test)]
mod tests;

pub use crate::message::{Abandoned, ExchangeId, Message, Side, UNKNOWN};
pub use connection::Connection;
pub use recognise::sender_of;

/// What a client opens a connection with (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Exchanges of one connection that are followed at once. Servers allow 100 to
/// 1000 concurrent streams; this many take 64 bytes each, 256 KiB.
pub const STREAMS_MAX: usize = 4096;

/// Bytes of one header block that are decoded; held only while it is under way.
/// Servers refuse more than 8 to 64 KiB.
pub const BLOCK_MAX: usize = 64 * 1024;

/// Size of a header table as far as it is followed, for each direction, counted
/// as 32 bytes and the kept value for each entry, which is never more than RFC
/// 7541 (4.1) counts. Entries take about 24 bytes and their kept value, so a
/// full table is smaller than this; encoders rarely use more than 4 KiB.
pub const TABLE_MAX: usize = 64 * 1024;
