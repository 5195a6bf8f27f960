//! HTTP/1.0 and HTTP/1.1: the bytes of both directions of one connection come
//! in, where its requests and responses begin and end goes out as [`Message`]s.
//!
//! The bytes may come in pieces of any size, may be captured only in part, and
//! may start in the middle of a connection. Whatever they are, the parser never
//! fails: what it cannot place is counted or passed over, and it picks up again
//! at the next message. Its memory is bounded, and small between messages.
//!
//! Nothing private goes out: of targets only what [`target`](super::target)
//! leaves, of methods only those known by name, of everything else lengths.
//!
//! It deliberately does not know time, threads or roles: `Client` is whoever
//! sends the requests, and which end is traced is the caller's business. It does
//! not judge whether a message is valid beyond what its framing needs, since
//! servers differ in what they refuse.
//!
//! Inside: `half` walks one direction with `head` (`fields`), `chunk` and
//! `probe`; `connection` drives both directions; `exchange` matches requests with
//! responses, `framing` decides what follows a head, `series` finds messages
//! within content, `gap` handles what was not captured.

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
mod series;
#[cfg(test)]
mod tests;

pub use crate::message::{Abandoned, Defect, ExchangeId, Message, Side};
pub use connection::Connection;
pub(in crate::protocol) use framing::RequestFacts;
pub(in crate::protocol) use head::method_name;
pub(in crate::protocol) use probe::known_method;

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

impl<'a> Bytes<'a> {
    /// The payload, which a broken record may claim to be longer than what
    /// moved.
    pub fn captured(&self) -> &'a [u8] {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        self.payload.get(..len).unwrap_or(self.payload)
    }
}

/// Is this a method known by name (the IANA registry and a few common ones)?
pub fn is_known_method(method: &str) -> bool {
    known_method(method.as_bytes()).is_some()
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
    /// TLS.
    Tls,
}

/// The connection goes on in HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// How that came about.
    pub start: Http2Start,
    /// The number of the next exchange.
    pub next: ExchangeId,
    /// Captured bytes of the last feed that were still HTTP/1; what follows
    /// them is not.
    pub taken: usize,
}

/// How HTTP/2 begins on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Start {
    /// The client opened with this many bytes of its preface, without asking.
    Preface(usize),
    /// This request asked for it, and is answered in HTTP/2.
    Upgrade {
        /// Which exchange; it is not over.
        exchange: ExchangeId,
        /// Bytes of the request.
        request_bytes: u64,
        /// Bytes of the responses so far.
        response_bytes: u64,
    },
}
