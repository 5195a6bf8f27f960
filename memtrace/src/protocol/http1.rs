//! HTTP/1.0 and HTTP/1.1: the bytes of both directions of one connection come
//! in, where its requests and responses begin and end goes out as [`Message`]s.
//!
//! The bytes may come in pieces of any size, may be captured only in part, and
//! may start in the middle of a connection. Whatever they are, the parser never
//! fails: what it cannot place is counted or passed over, and it picks up again
//! at the next message. Its memory is bounded, and small between messages.
//!
//! The parser also masks: [`Connection::feed_masking`] overwrites private content
//! as it goes. It steps on the masked form of each byte, and masking twice
//! changes nothing, so masked bytes give the same messages as the original ones.
//!
//! It deliberately does not know time, threads or roles: `Client` is whoever
//! sends the requests, and which end is traced is the caller's business. It does
//! not judge whether a message is valid beyond what its framing needs, since
//! servers differ in what they refuse.
//!
//! Inside: `half` walks one direction with the byte machines `head` (`target`,
//! `fields`), `chunk` and `probe`; `connection` drives both directions;
//! `exchange` matches requests with responses, `framing` decides what follows a
//! head, `gap` handles what was not captured.

mod canvas;
mod chunk;
mod connection;
mod exchange;
mod fields;
mod framing;
mod gap;
mod half;
mod head;
mod probe;
#[cfg(test)]
mod properties;
mod target;
#[cfg(test)]
mod tests;

pub use crate::message::{Abandoned, Defect, ExchangeId, Message, Side};
pub use connection::Connection;

/// Stands for each byte of a masked value.
pub const VALUE_MASK: u8 = b'x';

/// Stands for each byte of a masked name: of a query parameter that may be a
/// value, of a header whose colon was not in the same piece, of an unknown
/// method.
pub const NAME_MASK: u8 = b'*';

/// Stands for a byte that made a message malformed.
pub const BAD_MASK: u8 = 0;

/// Exchanges of one connection that may wait for their responses. Servers read
/// ahead by a buffer at most (16 KiB hold about 400 of the smallest requests);
/// this many take 48 KiB.
pub const PIPELINE_MAX: usize = 1024;

/// The bytes of one call, or of one part of a vectored call.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// Bytes moved.
    pub len: u64,
    /// The first of them; fewer than `len` if cut, empty if they could not be
    /// seen.
    pub payload: &'a [u8],
    /// The last of them (8 at most) if `payload` was cut, else empty.
    pub tail: &'a [u8],
}

/// Is this a method known by name (the IANA registry and a few common ones)?
pub fn is_known_method(method: &str) -> bool {
    probe::known_method(method.as_bytes()).is_some()
}

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nothing recognised so far.
    Unknown,
    /// A request or a response was recognised.
    Http1,
    /// Something else.
    NotHttp(Other),
}

/// Protocols that are recognised and not followed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Other {
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS.
    Tls,
}
