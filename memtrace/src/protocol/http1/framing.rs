//! What follows a head: nothing, a body of some length, chunks, everything until
//! the end, another protocol, or nobody knows. A head comes in, the state of its
//! direction and the messages it gives go out.

use super::chunk::Chunk;
use super::connection::Connection;
use super::exchange::{Method, Sending};
use super::fields::Framing;
use super::half::State;
use super::head::{Head, Start, method_name};
use super::{Defect, Http2Start, Message, Side, Verdict};
use crate::message::{Protocol, Series as Kind};

/// How the end of a head is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its empty line was seen.
    Seen,
    /// The bytes that it was cut from end in an empty line.
    Inferred,
    /// It is not.
    Unknown,
}

/// What a request's head says, apart from how it is framed.
#[derive(Debug)]
pub(in crate::protocol) struct RequestFacts {
    /// `None`: not known by name, or not captured.
    pub(in crate::protocol) method: Option<&'static str>,
    /// Reduced; see [`crate::protocol::target`].
    pub(in crate::protocol) target: String,
    pub(in crate::protocol) protocol: Protocol,
    pub(in crate::protocol) keep_alive: bool,
    pub(in crate::protocol) head_bytes: u64,
}

impl Connection {
    /// A request opens whose head has another form than HTTP/1's; its response
    /// has not.
    pub(in crate::protocol) fn open_request(&mut self, out: &mut Vec<Message>) {
        self.begin(Side::Client, out);
    }

    /// `bytes` more of such a head.
    pub(in crate::protocol) fn count_head(&mut self, bytes: u64) {
        self.count(Side::Client, bytes);
    }

    /// Such a head is complete, or as complete as it was captured.
    pub(in crate::protocol) fn end_foreign_head(
        &mut self,
        facts: RequestFacts,
        content_length: Option<u64>,
        complete: bool,
        out: &mut Vec<Message>,
    ) {
        let framing = Framing {
            content_length: content_length.or(complete.then_some(0)),
            ..Framing::default()
        };
        let ended = if complete {
            Ended::Seen
        } else {
            Ended::Unknown
        };
        self.end_request_head(facts, &framing, ended, out);
    }

    /// No request is under way: the next byte from the client opens one.
    pub(in crate::protocol) fn awaits_request(&self) -> bool {
        self.receiving.is_none()
    }

    pub(super) fn end_head(
        &mut self,
        side: Side,
        head: Head,
        ended: Ended,
        out: &mut Vec<Message>,
    ) {
        let framing = head.framing();
        match head.start {
            Start::Request {
                method,
                target,
                minor_version,
            } => {
                let facts = RequestFacts {
                    method,
                    target,
                    protocol: if minor_version == 0 {
                        Protocol::Http10
                    } else {
                        Protocol::Http11
                    },
                    keep_alive: !framing.close && (minor_version > 0 || framing.keep_alive),
                    head_bytes: head.bytes,
                };
                self.end_request_head(facts, &framing, ended, out);
            }
            Start::Response { status } => {
                self.end_response_head(status, head.bytes, &framing, ended, out);
            }
            Start::Awaited => self.half(side).state = State::LOST,
        }
    }

    fn end_request_head(
        &mut self,
        facts: RequestFacts,
        framing: &Framing,
        ended: Ended,
        out: &mut Vec<Message>,
    ) {
        let Some(request) = &mut self.receiving else {
            self.client.state = State::LOST;
            return;
        };
        let method = match facts.method {
            Some("HEAD") => Method::Head,
            Some("CONNECT") => Method::Connect,
            Some("GET" | "OPTIONS" | "TRACE" | "DELETE") => Method::Bodyless,
            Some(_) | None => Method::Other,
        };
        let id = request.id;
        if let Some(exchange) = self.queue.back_mut().filter(|last| last.id == id) {
            exchange.method = method;
        }
        out.push(Message::RequestHead {
            exchange: id,
            method: method_name(facts.method),
            target: facts.target,
            protocol: facts.protocol,
            keep_alive: facts.keep_alive,
            expect_continue: framing.expect_continue,
            head_bytes: facts.head_bytes,
            complete: ended == Ended::Seen,
        });
        if framing.expect_continue {
            request.expecting = Some(request.bytes);
        }
        // Only a head that was seen whole can be told to have no body at all.
        let is_bodyless = match (method, ended) {
            (_, Ended::Seen) => true,
            (Method::Head | Method::Connect | Method::Bodyless, Ended::Inferred) => true,
            (Method::Other, Ended::Inferred) | (_, Ended::Unknown) => false,
        };
        let lost = State::Seek {
            chunked: framing.chunked,
            probe: None,
        };
        match (framing.content_length, ended) {
            _ if method == Method::Connect => {
                self.end_request(out);
                self.client.state = State::LOST;
            }
            (_, Ended::Unknown) => self.client.state = lost,
            _ if framing.chunked => self.client.state = State::Chunked(Chunk::new()),
            _ if framing.other_coding => {
                self.malformed(Side::Client, Defect::TransferEncoding, out);
            }
            _ if framing.bad_length => self.malformed(Side::Client, Defect::ContentLength, out),
            (Some(0), _) => self.end_message(Side::Client, out),
            (Some(length), _) => self.client.state = State::Length(length),
            (None, _) if is_bodyless => self.end_message(Side::Client, out),
            (None, _) => self.client.state = lost,
        }
    }

    fn end_response_head(
        &mut self,
        status: u16,
        head_bytes: u64,
        framing: &Framing,
        ended: Ended,
        out: &mut Vec<Message>,
    ) {
        self.verdict = Verdict::Http1;
        if self.sending != Sending::First {
            self.answer_unrecognised(head_bytes, out);
        }
        if status >= 200 {
            self.settle_request(out);
        }
        let to_http2 = status == 101 && framing.http2;
        let upgrade = match (self.sending, self.queue.front_mut()) {
            (Sending::First, Some(exchange)) => {
                let connect = exchange.method == Method::Connect;
                let upgrade = status == 101 || (connect && (200..300).contains(&status));
                if (100..200).contains(&status) && (!upgrade || to_http2) {
                    out.push(Message::Interim {
                        exchange: exchange.id,
                        status,
                    });
                } else {
                    exchange.status = Some(status);
                    out.push(Message::ResponseHead {
                        exchange: exchange.id,
                        status,
                        head_bytes,
                    });
                }
                upgrade
            }
            (Sending::First | Sending::Nobody | Sending::Unmatched, _) => {
                self.overflow = self.overflow.saturating_sub(1);
                out.push(Message::UnmatchedResponse {
                    status: Some(status),
                });
                status == 101
            }
        };
        if upgrade {
            self.upgrade(framing, to_http2, out);
        } else if (100..200).contains(&status) {
            self.after_interim(status, ended);
        } else {
            self.frame_response(status, framing, ended, out);
        }
    }

    /// A response to bytes that were not recognised as a request: if they were
    /// the first of the connection, they must have been one all the same.
    fn answer_unrecognised(&mut self, head_bytes: u64, out: &mut Vec<Message>) {
        if !self.whole || self.next > 0 {
            return;
        }
        if let State::Seek { probe, .. } = &mut self.client.state
            && let Some(probe) = probe.take()
        {
            self.count(Side::Client, probe.bytes().len() as u64);
        }
        if self.unrecognised_bytes == 0 {
            return;
        }
        let id = self.new_exchange(out);
        out.push(Message::MalformedRequest {
            exchange: id,
            defect: Defect::NotHttp1,
        });
        if let Some(exchange) = self.queue.front_mut() {
            exchange.received = true;
            exchange.request_bytes = self.unrecognised_bytes;
            exchange.response_bytes = head_bytes;
        }
        self.begin_response(out);
    }

    fn after_interim(&mut self, status: u16, ended: Ended) {
        if status == 100
            && let (Some(request), Some(first)) = (&mut self.receiving, self.queue.front())
            && request.id == first.id
        {
            request.expecting = None;
        }
        self.server.state = match ended {
            Ended::Seen | Ended::Inferred => State::Boundary,
            Ended::Unknown => State::LOST,
        };
        if self.sending == Sending::Unmatched {
            self.sending = Sending::Nobody;
        }
    }

    fn upgrade(&mut self, framing: &Framing, to_http2: bool, out: &mut Vec<Message>) {
        let mut start = None;
        if self.sending == Sending::First
            && let Some(exchange) = self.queue.pop_front()
        {
            if self
                .receiving
                .as_ref()
                .is_some_and(|request| request.id == exchange.id)
            {
                self.end_request(out);
            }
            let request_bytes = self.request_bytes(&exchange);
            if to_http2 {
                start = Some(Http2Start::Upgrade {
                    exchange: exchange.id,
                    request_bytes,
                    response_bytes: exchange.response_bytes,
                });
            } else {
                out.push(Message::Upgraded {
                    exchange: exchange.id,
                    response_bytes: exchange.response_bytes,
                    request_bytes,
                });
            }
            if framing.websocket {
                self.begin_series(exchange.id, Kind::WebSocket, false, out);
            }
        }
        self.sending = Sending::Nobody;
        self.client.state = State::Ignore;
        self.close_side(Side::Server, out);
        if let Some(start) = start {
            self.hand_over(start);
        }
    }

    /// The final response shows that the server is through with a request whose
    /// end cannot be told from its own bytes.
    fn settle_request(&mut self, out: &mut Vec<Message>) {
        let (Sending::First, Some(request), Some(first)) =
            (self.sending, &self.receiving, self.queue.front())
        else {
            return;
        };
        if request.id != first.id {
            return;
        }
        // A client that was not told to continue may keep its body to itself.
        let keeps_body = request.expecting == Some(request.bytes);
        if keeps_body || matches!(self.client.state, State::Seek { .. }) {
            self.end_request(out);
            if keeps_body {
                self.client.state = State::LOST;
            }
        }
    }

    fn frame_response(
        &mut self,
        status: u16,
        framing: &Framing,
        ended: Ended,
        out: &mut Vec<Message>,
    ) {
        let to_head = self.sending == Sending::First
            && self
                .queue
                .front()
                .is_some_and(|exchange| exchange.method == Method::Head);
        let lost = State::Seek {
            chunked: framing.chunked,
            probe: None,
        };
        let bodyless = to_head || matches!(status, 204 | 304);
        if framing.event_stream
            && !bodyless
            && self.sending == Sending::First
            && let Some(exchange) = self.queue.front()
        {
            self.begin_series(exchange.id, Kind::ServerSentEvents, framing.coded, out);
        }
        match (framing.content_length, ended) {
            (_, Ended::Unknown) if bodyless => {
                self.leave_message(Side::Server, out);
                self.server.state = State::LOST;
            }
            (_, Ended::Unknown) => self.server.state = lost,
            _ if bodyless => self.end_message(Side::Server, out),
            _ if framing.chunked => self.server.state = State::Chunked(Chunk::new()),
            _ if framing.other_coding => self.server.state = State::UntilClose,
            _ if framing.bad_length => self.malformed(Side::Server, Defect::ContentLength, out),
            (Some(0), _) => self.end_message(Side::Server, out),
            (Some(length), _) => self.server.state = State::Length(length),
            (None, Ended::Seen) => self.server.state = State::UntilClose,
            (None, Ended::Inferred) => self.server.state = lost,
        }
    }
}
