//! Messages within one exchange: a WebSocket's, or server-sent events.
//!
//! In: what was said of a series. Out: each message as a request of its own, on
//! the route of the request that opened the series; that one ends where the
//! series begins.
//!
//! - A message that was received is a request `MESSAGE`. It is answered by what
//!   is sent until it ends: when the next one begins, when a thread that has
//!   answered waits for new events, or with the connection. Its duration is from
//!   its first byte to the last that moved for it, its own or its answer's.
//! - A message that is sent while none is being answered is a request `PUSH`, an
//!   event a request `EVENT`: begun with its first byte and ended with its last.
//!   Work of which nobody knew whose it was is proven to be its by that; work
//!   that was clearly for another request (a message handed on to others) stays
//!   that one's.

use crate::{
    attribute::{Attributed, EndedBy, Outcome, ProcessIndex, connection::Moment},
    id::{ConnId, RequestId},
    message::{ExchangeId, Message, Protocol, Series as Kind, Side},
};

/// A series under way.
#[derive(Debug)]
pub struct Series {
    exchange: ExchangeId,
    /// The request that opened it.
    pub opener: RequestId,
    conn: ConnId,
    kind: Kind,
    route: String,
    /// The message that was received last, until it ends.
    received: Option<Open>,
    /// The message that is being sent on the server's own account.
    pushed: Option<Open>,
    /// What the bytes that are about to be stated were sent for.
    wrote: Option<RequestId>,
}

/// A message that has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    request: RequestId,
    /// When a byte last moved for it, ns.
    last_ns: u64,
    request_bytes: u64,
    response_bytes: u64,
    /// It was moved whole.
    whole: bool,
    answered: bool,
}

impl Open {
    fn end(self, ended_by: EndedBy, out: &mut Vec<Attributed>) {
        out.push(Attributed::RequestEnd {
            request: self.request,
            outcome: if self.whole {
                Outcome::Complete
            } else {
                Outcome::Aborted(ended_by)
            },
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            ts_ns: self.last_ns,
        });
    }
}

impl Series {
    /// A series begins; the request that opened it is over.
    pub fn new(
        exchange: ExchangeId,
        opener: RequestId,
        conn: ConnId,
        kind: Kind,
        route: String,
    ) -> Self {
        Series {
            exchange,
            opener,
            conn,
            kind,
            route,
            received: None,
            pushed: None,
            wrote: None,
        }
    }

    /// Whether it is part of this exchange.
    pub fn is_of(&self, exchange: ExchangeId) -> bool {
        self.exchange == exchange
    }

    /// The message that was received last, until it ends.
    pub fn current(&self) -> Option<RequestId> {
        self.received.map(|open| open.request)
    }

    /// Whether a message has been answered and has not ended.
    pub fn is_answered(&self) -> bool {
        self.received.is_some_and(|open| open.answered)
    }

    /// What the bytes that were just sent were for, and whether that is over.
    pub fn take_wrote(&mut self) -> Option<(RequestId, bool)> {
        let request = self.wrote.take()?;
        let open = [self.received, self.pushed];
        let over = !open.iter().flatten().any(|open| open.request == request);
        Some((request, over))
    }

    /// One of the messages about series.
    pub fn message(
        &mut self,
        message: &Message,
        request_next: &mut u32,
        process: ProcessIndex,
        moment: Moment,
        out: &mut Vec<Attributed>,
    ) {
        let ts_ns = moment.ts_ns;
        match *message {
            Message::SeriesMessageBegin {
                from: Side::Client, ..
            } => {
                self.end_received(out);
                self.received = Some(self.begin("MESSAGE", request_next, process, ts_ns, out));
            }
            Message::SeriesMessageBegin {
                from: Side::Server, ..
            } => match &mut self.received {
                Some(open) => {
                    open.last_ns = ts_ns;
                    self.wrote = Some(open.request);
                }
                None => {
                    let method = match self.kind {
                        Kind::WebSocket => "PUSH",
                        Kind::ServerSentEvents => "EVENT",
                    };
                    let open = self.begin(method, request_next, process, ts_ns, out);
                    self.wrote.get_or_insert(open.request);
                    self.pushed = Some(open);
                }
            },
            Message::SeriesMessage {
                from: Side::Client,
                bytes,
                ..
            } => {
                if let Some(open) = &mut self.received {
                    open.request_bytes = bytes;
                    open.last_ns = ts_ns;
                    open.whole = true;
                }
            }
            Message::SeriesMessage {
                from: Side::Server,
                bytes,
                ..
            } => {
                if let Some(mut open) = self.pushed.take() {
                    open.response_bytes = bytes;
                    open.last_ns = ts_ns;
                    open.whole = true;
                    self.wrote.get_or_insert(open.request);
                    open.end(EndedBy::Server, out);
                } else if let Some(open) = &mut self.received {
                    open.response_bytes = open.response_bytes.saturating_add(bytes);
                    open.last_ns = ts_ns;
                    open.answered = true;
                    self.wrote = Some(open.request);
                }
            }
            Message::SeriesCut {
                from: Side::Server, ..
            } => {
                if let Some(open) = self.pushed.take() {
                    open.end(EndedBy::Server, out);
                }
            }
            _ => {}
        }
    }

    /// The message that was received last is over.
    pub fn end_received(&mut self, out: &mut Vec<Attributed>) {
        if let Some(open) = self.received.take() {
            open.end(EndedBy::Client, out);
        }
    }

    /// The series is over.
    pub fn end(mut self, ended_by: EndedBy, out: &mut Vec<Attributed>) {
        for open in [self.received.take(), self.pushed.take()]
            .into_iter()
            .flatten()
        {
            open.end(ended_by, out);
        }
    }

    fn begin(
        &self,
        method: &str,
        request_next: &mut u32,
        process: ProcessIndex,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) -> Open {
        let request = RequestId(*request_next);
        *request_next += 1;
        out.push(Attributed::RequestBegin {
            request,
            conn: self.conn,
            process,
            ts_ns,
        });
        let protocol = match self.kind {
            Kind::WebSocket => Protocol::WebSocket,
            Kind::ServerSentEvents => Protocol::ServerSentEvent,
        };
        out.push(Attributed::RequestNamed {
            request,
            protocol: protocol.family(),
            method: method.to_owned(),
            route: self.route.clone(),
        });
        Open {
            request,
            last_ns: ts_ns,
            request_bytes: 0,
            response_bytes: 0,
            whole: false,
            answered: false,
        }
    }
}

#[cfg(test)]
mod tests;
