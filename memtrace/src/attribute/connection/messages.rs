//! The messages of a connection: requests that begin, are named, answered and end.
//!
//! In: what its bytes said, in order. Out: the requests' facts.

use super::{
    Moment,
    conn::{Conn, Exchange, Upgraded},
};
use crate::{
    attribute::{
        Attributed, ConnCount, EndedBy, Outcome, Reason, carried::Carried, process::Processes,
        series::Series,
    },
    id::RequestId,
    message::{self, Abandoned, Defect, ExchangeId, Message, Role},
};

impl Conn {
    pub(super) fn message(
        &mut self,
        message: &Message,
        request_next: &mut u32,
        moment: Moment,
        processes: &mut Processes,
        out: &mut Vec<Attributed>,
    ) {
        match *message {
            Message::RequestBegin { exchange } => {
                self.tell(out);
                let request = RequestId(*request_next);
                *request_next += 1;
                self.exchanges.push_back(Exchange {
                    id: exchange,
                    request,
                    route: String::new(),
                    request_bytes: 0,
                    head_bytes: 0,
                    responding: false,
                    handed_on: false,
                    number: None,
                });
                self.malformed = false;
                self.used = true;
                out.push(Attributed::RequestBegin {
                    request,
                    conn: self.id,
                    process: self.process,
                    ts_ns: moment.ts_ns,
                });
            }
            Message::RequestHead {
                exchange,
                ref method,
                ref target,
                protocol,
                keep_alive: _,
                expect_continue: _,
                head_bytes: _,
                complete: _,
            } => {
                let process = self.process;
                if let Some(exchange) = self.exchange_mut(exchange) {
                    let request = exchange.request;
                    let (method, route) = processes.route(process, method, target);
                    exchange.route.clone_from(&route);
                    out.push(Attributed::RequestNamed {
                        request,
                        protocol: protocol.family(),
                        method,
                        route,
                    });
                }
            }
            Message::ResponseHead {
                exchange,
                status,
                head_bytes,
            } => {
                if let Some(exchange) = self.exchange_mut(exchange) {
                    exchange.head_bytes = head_bytes;
                    let request = exchange.request;
                    out.push(Attributed::RequestStatus { request, status });
                }
            }
            Message::MalformedRequest { exchange, defect } => {
                self.malformed = true;
                out.push(Attributed::ConnCount(ConnCount::MalformedRequest));
                // What is wrong with a body is no reason to doubt its head.
                if defect != Defect::ChunkSize
                    && let Some(request) = self.request(exchange)
                {
                    out.push(Attributed::RequestVoid {
                        request,
                        reason: Reason::MalformedHead,
                    });
                }
            }
            Message::MalformedResponse { .. } => {
                out.push(Attributed::ConnCount(ConnCount::MalformedResponse));
            }
            Message::UnmatchedResponse { .. } => {
                out.push(Attributed::ConnCount(ConnCount::UnmatchedResponse));
            }
            Message::Upgraded {
                exchange,
                response_bytes,
                request_bytes,
            } => {
                out.push(Attributed::ConnCount(ConnCount::Upgraded));
                if let Some(exchange) = self.take_exchange(exchange) {
                    self.upgraded = Some(Upgraded {
                        id: exchange.id,
                        request: exchange.request,
                        route: exchange.route,
                        request_bytes,
                        response_bytes,
                    });
                }
            }
            Message::ResponseBegin { exchange } => {
                if let Some(exchange) = self.exchange_mut(exchange) {
                    exchange.responding = true;
                }
            }
            Message::ResponseEnd { .. } | Message::RequestAbandoned { .. } => {
                self.end_message(message, moment, out);
            }
            Message::Role(role) => self.role = Some(role),
            Message::Foreign(_) => {
                self.foreign = true;
                if self.role == Some(Role::Server) {
                    out.push(Attributed::ConnCount(ConnCount::NotHttp));
                }
            }
            Message::GrpcStatus { exchange, status } => {
                if let Some(request) = self.request(exchange)
                    && let Ok(status) = u16::try_from(status)
                {
                    out.push(Attributed::RequestStatus { request, status });
                }
            }
            Message::SeriesBegin { exchange, series } => {
                self.begin_series(exchange, series, moment, out);
            }
            Message::SeriesMessageBegin { exchange, .. }
            | Message::SeriesMessage { exchange, .. }
            | Message::SeriesCut { exchange, .. } => {
                if let Some(series) = self.series.as_mut().filter(|series| series.is_of(exchange)) {
                    series.message(message, request_next, self.process, moment, out);
                }
            }
            Message::RequestEnd {
                exchange,
                request_bytes,
            } => {
                if let Some(exchange) = self.exchange_mut(exchange) {
                    exchange.request_bytes = request_bytes;
                }
            }
            Message::Multiplexed => self.carried = Some(Carried::default()),
            Message::Carries { exchange } => {
                if let Some(request) = self.request(exchange) {
                    self.carried.get_or_insert_default().add(request);
                }
            }
            Message::Numbered { exchange, number } => {
                if let Some(exchange) = self.exchange_mut(exchange) {
                    exchange.number = Some(number);
                }
            }
            Message::Interim { .. } => {}
        }
    }

    /// The request that opens a series ends where it begins.
    pub(super) fn begin_series(
        &mut self,
        exchange: ExchangeId,
        kind: message::Series,
        moment: Moment,
        out: &mut Vec<Attributed>,
    ) {
        let upgraded = self.upgraded.take_if(|upgraded| upgraded.id == exchange);
        let opener = upgraded.or_else(|| {
            let exchange = self.take_exchange(exchange)?;
            Some(Upgraded {
                id: exchange.id,
                request: exchange.request,
                route: exchange.route,
                request_bytes: exchange.request_bytes,
                response_bytes: exchange.head_bytes,
            })
        });
        let Some(opener) = opener else { return };
        self.ended = Some(opener.request);
        out.push(Attributed::RequestEnd {
            request: opener.request,
            outcome: Outcome::Complete,
            request_bytes: opener.request_bytes,
            response_bytes: opener.response_bytes,
            ts_ns: moment.ts_ns,
        });
        let series = Series::new(exchange, opener.request, self.id, kind, opener.route);
        self.series = Some(series);
    }

    /// The two messages that end an exchange.
    pub(super) fn end_message(
        &mut self,
        message: &Message,
        moment: Moment,
        out: &mut Vec<Attributed>,
    ) {
        let (exchange, outcome, request_bytes, response_bytes) = match message {
            Message::ResponseEnd {
                exchange,
                response_bytes,
                request_bytes,
            } => (
                *exchange,
                Outcome::Complete,
                *request_bytes,
                *response_bytes,
            ),
            Message::RequestAbandoned {
                exchange,
                how,
                request_bytes,
                response_bytes,
                status: _,
            } => {
                let ended_by = match how {
                    Abandoned::ResetByClient => EndedBy::Client,
                    Abandoned::ResetByServer => EndedBy::Server,
                    Abandoned::PartialRequest
                    | Abandoned::NoResponse
                    | Abandoned::PartialResponse
                    | Abandoned::PipelineTooLong => {
                        moment.ended_by.unwrap_or_else(|| self.ended_by())
                    }
                };
                // Of a partial request the head may be whole: one that is not
                // was never named.
                let outcome = if *response_bytes == 0 {
                    Outcome::NoResponse(ended_by)
                } else {
                    Outcome::Aborted(ended_by)
                };
                (*exchange, outcome, *request_bytes, *response_bytes)
            }
            _ => return,
        };
        if let Some(series) = self.series.take_if(|series| series.is_of(exchange)) {
            series.end(moment.ended_by.unwrap_or_else(|| self.ended_by()), out);
        }
        if let Some(Exchange { request, .. }) = self.take_exchange(exchange) {
            self.ended = Some(request);
            out.push(Attributed::RequestEnd {
                request,
                outcome,
                request_bytes,
                response_bytes,
                ts_ns: moment.ts_ns,
            });
        }
    }

    /// Who ends what is under way when the connection ends.
    pub(super) fn ended_by(&self) -> EndedBy {
        if self.peer_gone {
            EndedBy::Client
        } else {
            EndedBy::Server
        }
    }

    pub(super) fn request(&self, exchange: ExchangeId) -> Option<RequestId> {
        self.exchanges
            .iter()
            .find(|other| other.id == exchange)
            .map(|exchange| exchange.request)
    }

    pub(super) fn exchange_mut(&mut self, exchange: ExchangeId) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().find(|other| other.id == exchange)
    }

    pub(super) fn take_exchange(&mut self, exchange: ExchangeId) -> Option<Exchange> {
        let at = self
            .exchanges
            .iter()
            .position(|other| other.id == exchange)?;
        self.exchanges.remove(at)
    }
}
