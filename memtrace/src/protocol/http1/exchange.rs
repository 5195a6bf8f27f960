//! Requests matched with responses: messages that open and end come in from
//! either direction, exchanges go out, each with exactly one end.
//!
//! Responses answer requests in their order. What follows a head is decided in
//! `framing`.

use std::collections::VecDeque;

use super::connection::Connection;
use super::half::State;
use super::head::Head;
use super::{Abandoned, Defect, ExchangeId, Message, PIPELINE_MAX, Side, Verdict};

/// What of a method decides about framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Connect,
    /// Rarely has a body, and says so if it has.
    Bodyless,
    Other,
}

/// An exchange that waits for (the rest of) its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    pub(super) method: Method,
    /// The request ended or cannot be followed.
    pub(super) received: bool,
    pub(super) response_begun: bool,
    pub(super) status: Option<u16>,
    /// Final once the request is no longer being received.
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

/// The request that is being received; its exchange may be over already.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) id: ExchangeId,
    pub(super) bytes: u64,
    pub(super) malformed: bool,
    /// Bytes of the head, while the client may be waiting for a 100.
    pub(super) expecting: Option<u64>,
}

/// Whose response is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Nobody,
    /// That of the first exchange in the queue.
    First,
    /// That of a request that was not seen.
    Unmatched,
}

impl Connection {
    /// The message under way, of which the end was not seen, is over.
    pub(super) fn leave_message(&mut self, side: Side, out: &mut Vec<Message>) {
        match side {
            Side::Client => self.end_request(out),
            Side::Server => match self.sending {
                Sending::First => self.end_response(out),
                Sending::Nobody | Sending::Unmatched => self.sending = Sending::Nobody,
            },
        }
    }

    /// The message under way is complete.
    pub(super) fn end_message(&mut self, side: Side, out: &mut Vec<Message>) {
        self.leave_message(side, out);
        self.half(side).state = State::Boundary;
    }

    /// A message opens.
    pub(super) fn begin(&mut self, side: Side, out: &mut Vec<Message>) {
        match side {
            Side::Client => self.begin_request(out),
            Side::Server => self.begin_response(out),
        }
        self.half(side).state = State::Head(Box::new(Head::new(side)));
    }

    fn begin_request(&mut self, out: &mut Vec<Message>) {
        self.verdict = Verdict::Http1;
        // Few clients send a request before they have the last response.
        if self.queue.len() == 1
            && self.sending == Sending::First
            && matches!(self.server.state, State::Seek { .. })
        {
            self.end_response(out);
        }
        let id = self.new_exchange(out);
        self.receiving = Some(Receiving {
            id,
            bytes: 0,
            malformed: false,
            expecting: None,
        });
    }

    pub(super) fn new_exchange(&mut self, out: &mut Vec<Message>) -> ExchangeId {
        let id = ExchangeId(self.next);
        self.next = self.next.wrapping_add(1);
        out.push(Message::RequestBegin { exchange: id });
        if self.overflow > 0 || self.queue.len() >= PIPELINE_MAX {
            self.overflow = self.overflow.saturating_add(1);
            out.push(Message::RequestAbandoned {
                exchange: id,
                how: Abandoned::PipelineTooLong,
                request_bytes: 0,
                response_bytes: 0,
                status: None,
            });
        } else {
            self.queue.push_back(Exchange {
                id,
                method: Method::Other,
                received: false,
                response_begun: false,
                status: None,
                request_bytes: 0,
                response_bytes: 0,
            });
        }
        id
    }

    pub(super) fn begin_response(&mut self, out: &mut Vec<Message>) {
        let Some(exchange) = self.queue.front_mut() else {
            self.sending = Sending::Unmatched;
            return;
        };
        self.sending = Sending::First;
        if !exchange.response_begun {
            exchange.response_begun = true;
            out.push(Message::ResponseBegin {
                exchange: exchange.id,
            });
        }
    }

    pub(super) fn end_request(&mut self, out: &mut Vec<Message>) {
        let Some(request) = self.receiving.take() else {
            return;
        };
        if let Some(exchange) = self.queue.back_mut().filter(|last| last.id == request.id) {
            exchange.request_bytes = request.bytes;
            exchange.received = true;
        }
        if !request.malformed {
            out.push(Message::RequestEnd {
                exchange: request.id,
                request_bytes: request.bytes,
            });
        }
    }

    pub(super) fn end_response(&mut self, out: &mut Vec<Message>) {
        self.sending = Sending::Nobody;
        self.end_series();
        let Some(exchange) = self.queue.pop_front() else {
            return;
        };
        out.push(Message::ResponseEnd {
            exchange: exchange.id,
            response_bytes: exchange.response_bytes,
            request_bytes: self.request_bytes(&exchange),
        });
        self.shrink_queue();
    }

    /// An idle connection holds no room for exchanges.
    fn shrink_queue(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > 16 {
            self.queue = VecDeque::new();
        }
    }

    pub(super) fn request_bytes(&self, exchange: &Exchange) -> u64 {
        match &self.receiving {
            Some(request) if request.id == exchange.id => request.bytes,
            Some(_) | None => exchange.request_bytes,
        }
    }

    pub(super) fn abandon(&mut self, exchange: Exchange, out: &mut Vec<Message>) {
        let how = if exchange.response_begun {
            Abandoned::PartialResponse
        } else if exchange.received {
            Abandoned::NoResponse
        } else {
            Abandoned::PartialRequest
        };
        out.push(Message::RequestAbandoned {
            exchange: exchange.id,
            how,
            request_bytes: self.request_bytes(&exchange),
            response_bytes: exchange.response_bytes,
            status: exchange.status,
        });
        self.shrink_queue();
    }

    pub(super) fn malformed(&mut self, side: Side, defect: Defect, out: &mut Vec<Message>) {
        self.half(side).state = State::LOST;
        match side {
            Side::Client => {
                if let Some(request) = &mut self.receiving {
                    request.malformed = true;
                    out.push(Message::MalformedRequest {
                        exchange: request.id,
                        defect,
                    });
                    let id = request.id;
                    if let Some(exchange) = self.queue.back_mut().filter(|last| last.id == id) {
                        exchange.received = true;
                    }
                }
            }
            Side::Server => match (self.sending, self.queue.front()) {
                (Sending::First, Some(exchange)) => out.push(Message::MalformedResponse {
                    exchange: exchange.id,
                    defect,
                }),
                (Sending::First | Sending::Nobody | Sending::Unmatched, _) => {
                    self.sending = Sending::Nobody;
                }
            },
        }
    }
}
