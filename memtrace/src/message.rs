//! What the bytes of a stream amount to: the language between the protocols,
//! which read bytes, and whoever has to do with requests.
//!
//! Nothing private is in it: no bodies, no header values, of targets the path
//! and the names of query parameters. Captures hold these messages instead of
//! bytes. Captures also number the variants by their position: new ones go to
//! the end.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Stands for a method or a target that cannot be known: it refers to something
/// that was not seen.
pub const UNKNOWN: &str = "{unknown}";

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The end that sends requests.
    Client,
    /// The end that sends responses.
    Server,
}

/// A request and its response, numbered within the connection from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExchangeId(pub u32);

/// What requests are spoken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// FastCGI between a web server and its application.
    FastCgi,
    /// uwsgi between a web server and its application.
    Uwsgi,
    /// The Apache JServ Protocol between a web server and its application.
    Ajp,
    /// A message of a WebSocket.
    WebSocket,
    /// A server-sent event.
    ServerSentEvent,
}

impl Protocol {
    /// Its name in reports: versions that differ in nothing but framing are one.
    pub const fn family(self) -> &'static str {
        match self {
            Protocol::Http10 | Protocol::Http11 => "http/1",
            Protocol::Http2 => "http/2",
            Protocol::Grpc => "grpc",
            Protocol::FastCgi => "fastcgi",
            Protocol::Uwsgi => "uwsgi",
            Protocol::Ajp => "ajp",
            Protocol::WebSocket => "websocket",
            Protocol::ServerSentEvent => "sse",
        }
    }
}

/// Which end of a connection the traced process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It answers requests.
    Server,
    /// It sends requests.
    Client,
}

/// What a stream carries that is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Foreign {
    /// TLS records: the messages are in the session's plaintext.
    Tls,
    /// Something unknown.
    Unknown,
}

/// A series of messages within one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Series {
    /// WebSocket messages, both ways.
    WebSocket,
    /// Server-sent events.
    ServerSentEvents,
}

/// What happened on the connection.
///
/// Each exchange opens with `RequestBegin` and has exactly one of `ResponseEnd`,
/// `Upgraded` and `RequestAbandoned`, at the latest when the connection is
/// closed. A `RequestEnd` may come later than `ResponseEnd`: a server may answer
/// before it has read the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// The method; `*` if it is not known by name, or [`UNKNOWN`].
        method: String,
        /// Path and names of query parameters; ends in `…` if it is cut. Or
        /// [`UNKNOWN`].
        target: String,
        /// The protocol.
        protocol: Protocol,
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
    /// Which end of the connection the traced process is; stated once, before
    /// anything else, if it was not clear from the beginning.
    Role(Role),
    /// The stream carries something that is not followed; stated once.
    Foreign(Foreign),
    /// Bytes of this exchange were among those just moved. Stated by protocols
    /// that carry several exchanges at once; elsewhere bytes belong to the
    /// exchange that is due.
    Carries {
        /// Which exchange.
        exchange: ExchangeId,
    },
    /// How a call ended in gRPC's own terms: counts instead of the HTTP status.
    GrpcStatus {
        /// Which exchange.
        exchange: ExchangeId,
        /// The code; 0 is OK.
        status: u32,
    },
    /// From here on the exchange (its response, or both directions after an
    /// upgrade) is a series of messages of its own.
    SeriesBegin {
        /// Which exchange.
        exchange: ExchangeId,
        /// Of which kind.
        series: Series,
    },
    /// The message of a series that opened last in this direction has been moved
    /// whole.
    SeriesMessage {
        /// Which exchange.
        exchange: ExchangeId,
        /// Who sent it.
        from: Side,
        /// Its bytes, framing included.
        bytes: u64,
    },
    /// A message of a series opens.
    SeriesMessageBegin {
        /// Which exchange.
        exchange: ExchangeId,
        /// Who sends it.
        from: Side,
    },
    /// Bytes of a series moved of which it is not known what messages they are.
    /// One that was under way is given up.
    SeriesCut {
        /// Which exchange.
        exchange: ExchangeId,
        /// Who sent them.
        from: Side,
    },
    /// From here on the stream carries several exchanges at once; which ones each
    /// call has bytes of is told with [`Message::Carries`] where the process is
    /// the server.
    Multiplexed,
    /// The number by which the protocol knows an exchange that has just begun
    /// (HTTP/2: the stream's).
    Numbered {
        /// Which exchange.
        exchange: ExchangeId,
        /// Its number.
        number: u32,
    },
}

/// How far an abandoned exchange got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Abandoned {
    /// The request was not received whole, and nothing was answered.
    PartialRequest,
    /// Nothing was answered.
    NoResponse,
    /// The response was not sent whole.
    PartialResponse,
    /// More requests waited for their responses than are followed.
    PipelineTooLong,
    /// The client gave the request up in the protocol's own words.
    ResetByClient,
    /// The server gave the request up in the protocol's own words.
    ResetByServer,
}

/// Why a message cannot be followed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Error,
)]
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
