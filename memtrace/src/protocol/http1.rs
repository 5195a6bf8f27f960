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

use thiserror::Error;

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

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that sends requests.
    Client,
    /// The end that sends responses.
    Server,
}

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

/// A request and its response, numbered within the connection from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u32);

/// Is this a method known by name (the IANA registry and a few common ones)?
pub fn is_known_method(method: &str) -> bool {
    probe::known_method(method.as_bytes()).is_some()
}

/// What happened on the connection.
///
/// Each exchange opens with `RequestBegin` and has exactly one of `ResponseEnd`,
/// `Upgraded` and `RequestAbandoned`, at the latest when the connection is
/// closed. A `RequestEnd` may come later than `ResponseEnd`: a server may answer
/// before it has read the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request opens: its first byte is there (at a position that is not
    /// certain, as many bytes as it takes to recognise a head).
    RequestBegin {
        /// The new exchange.
        exchange: ExchangeId,
    },
    /// The head of a request is complete, or as complete as it was captured.
    RequestHead {
        /// Which exchange.
        exchange: ExchangeId,
        /// The method; masked if it is not known by name.
        method: String,
        /// The target as received, with its private parts masked; ends in `…`
        /// if it is cut.
        target: String,
        /// The 1 of HTTP/1.1.
        minor_version: u8,
        /// The client lets the connection stay open.
        keep_alive: bool,
        /// The client waits for a 100 before it sends the body.
        expect_continue: bool,
        /// Bytes of the head, as far as captured.
        head_bytes: u64,
        /// The head was captured to its end. If not, the fields above tell only
        /// what was seen, and the end of the request is inferred from what
        /// follows.
        complete: bool,
    },
    /// The request is there, head and body. Malformed requests have no such
    /// message, as nobody can tell where they end.
    RequestEnd {
        /// Which exchange.
        exchange: ExchangeId,
        /// Bytes of head and body.
        request_bytes: u64,
    },
    /// An interim response (1xx, but not 101).
    Interim {
        /// Which exchange.
        exchange: ExchangeId,
        /// Its status code.
        status: u16,
    },
    /// The first byte of the first response to the request, interim or final.
    ResponseBegin {
        /// Which exchange.
        exchange: ExchangeId,
    },
    /// The head of the final response is complete, or as complete as it was
    /// captured.
    ResponseHead {
        /// Which exchange.
        exchange: ExchangeId,
        /// Its status code.
        status: u16,
        /// Bytes of the head, as far as captured.
        head_bytes: u64,
    },
    /// The response is sent, head and body: the exchange is over.
    ResponseEnd {
        /// Which exchange.
        exchange: ExchangeId,
        /// Bytes of all responses to the request, interim ones included.
        response_bytes: u64,
        /// Bytes of the request so far.
        request_bytes: u64,
    },
    /// The connection changes its protocol (101, or CONNECT that succeeded): the
    /// exchange is over as far as HTTP/1 goes, and what follows on the
    /// connection belongs to it.
    Upgraded {
        /// Which exchange.
        exchange: ExchangeId,
        /// Bytes of the responses so far.
        response_bytes: u64,
        /// Bytes of the request.
        request_bytes: u64,
    },
    /// The request cannot be followed to its end. Its exchange goes on: servers
    /// answer such requests.
    MalformedRequest {
        /// Which exchange.
        exchange: ExchangeId,
        /// What is wrong with it.
        defect: Defect,
    },
    /// The response cannot be followed to its end, which is then inferred from
    /// what follows.
    MalformedResponse {
        /// Which exchange.
        exchange: ExchangeId,
        /// What is wrong with it.
        defect: Defect,
    },
    /// A response to a request that was not seen.
    UnmatchedResponse {
        /// Its status code, if that was captured.
        status: Option<u16>,
    },
    /// The exchange is over without a whole response.
    RequestAbandoned {
        /// Which exchange.
        exchange: ExchangeId,
        /// How far it got.
        how: Abandoned,
        /// Bytes of the request.
        request_bytes: u64,
        /// Bytes of the response.
        response_bytes: u64,
        /// Status code of the response, if its head was seen.
        status: Option<u16>,
    },
}

/// How far an abandoned exchange got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abandoned {
    /// The request was not received whole, and nothing was answered.
    PartialRequest,
    /// Nothing was answered.
    NoResponse,
    /// The response was not sent whole.
    PartialResponse,
    /// More than [`PIPELINE_MAX`] requests waited for their responses; it was
    /// not followed further.
    PipelineTooLong,
}

/// Why a message cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Defect {
    /// No method opens the request.
    #[error("the method is not a token of at most 32 bytes")]
    Method,
    /// Control bytes in the target.
    #[error("the request target holds a control byte")]
    Target,
    /// The request line does not end in HTTP/1.x.
    #[error("the request line does not end in HTTP/1.x")]
    Version,
    /// The response does not open with a status line.
    #[error("the status line is not HTTP/1.x and a code")]
    StatusLine,
    /// Content-Length is no number, or several differ.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// A request whose last transfer coding is not chunked.
    #[error("the last Transfer-Encoding of the request is not chunked")]
    TransferEncoding,
    /// The chunked coding is broken.
    #[error("a chunk does not have a valid size or end")]
    ChunkSize,
    /// The head, or too much of it, was not captured.
    #[error("the head was not captured")]
    HeadNotCaptured,
    /// The connection's first bytes were no request, yet were answered with
    /// HTTP/1.
    #[error("what the response answers does not look like HTTP/1")]
    NotHttp1,
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
