//! The connections of the traced processes and the requests on them.
//!
//! In: socket facts. Out: the requests that begin and end, and for each fact
//! what the thread that caused it works for from then on. It knows no memory
//! and no threads.

use std::collections::{HashMap, VecDeque};

use crate::{
    attribute::{
        Attributed, ConnCount, ConnKind, Outcome, Owner, ProcessIndex, Reason, process::Processes,
    },
    event::{Data, Direction},
    id::{ConnId, RequestId, SocketId},
    protocol::{
        http1::{Abandoned, Bytes, Defect, ExchangeId, Message, Verdict},
        session::{Role, SESSIONS_MAX, Session},
    },
};

/// What a thread turns to because of a socket fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stays with what it did.
    Stay,
    /// From now on it works for this owner.
    To(Owner),
    /// It sent bytes of this request's response, so what it did until now and
    /// was unclear was for this request; it goes on with the second.
    Wrote(RequestId, AfterWrite),
}

/// What comes after bytes of a response were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The same request: its response has not ended.
    Same,
    /// The next request of a pipeline.
    Next(RequestId),
    /// Unclear: the response has ended.
    Ended,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    /// The process that last moved bytes on it.
    process: ProcessIndex,
    session: Session,
    /// Requests without a whole response, in order.
    exchanges: VecDeque<(ExchangeId, RequestId)>,
    /// The request that upgraded the connection and keeps it.
    upgraded: Option<Upgraded>,
    /// For connections on which the process is the client: the request on whose
    /// behalf bytes were last sent.
    caller: Option<RequestId>,
    malformed: bool,
    not_http_counted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Upgraded {
    request: RequestId,
    request_bytes: u64,
    response_bytes: u64,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections {
    conns: HashMap<SocketId, Conn>,
    conn_next: u32,
    request_next: u32,
    /// Connections that were not followed because there were too many.
    pub overflow: u64,
    messages: Vec<Message>,
}

impl Connections {
    /// A connection was accepted, opened, or found open.
    pub fn open(
        &mut self,
        socket: SocketId,
        process: ProcessIndex,
        kind: ConnKind,
        accepted: bool,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) {
        if kind == ConnKind::Found && self.conns.contains_key(&socket) {
            return;
        }
        // A number that is used again belongs to a new socket: the end of the
        // old one was not seen.
        self.end(socket, ts_ns, out);
        let session = match kind {
            ConnKind::Accepted => Session::accepted(),
            ConnKind::Connected => Session::connected(),
            ConnKind::Found => Session::found(accepted),
        };
        self.insert(socket, process, kind, session, out);
    }

    fn insert(
        &mut self,
        socket: SocketId,
        process: ProcessIndex,
        kind: ConnKind,
        session: Session,
        out: &mut Vec<Attributed>,
    ) {
        if self.conns.len() >= SESSIONS_MAX {
            self.overflow += 1;
            return;
        }
        let id = ConnId(self.conn_next);
        self.conn_next += 1;
        out.push(Attributed::ConnBegin { conn: id, kind });
        self.conns.insert(
            socket,
            Conn {
                id,
                process,
                session,
                exchanges: VecDeque::new(),
                upgraded: None,
                caller: None,
                malformed: false,
                not_http_counted: false,
            },
        );
    }

    /// Bytes moved. `working_for`: the request that the thread works for, if
    /// that is clear.
    pub fn data(
        &mut self,
        data: &Data,
        process: ProcessIndex,
        working_for: Option<RequestId>,
        ts_ns: u64,
        processes: &mut Processes,
        out: &mut Vec<Attributed>,
    ) -> Turn {
        if !self.conns.contains_key(&data.socket) {
            let session = Session::found(false);
            self.insert(data.socket, process, ConnKind::Found, session, out);
        }
        let Some(conn) = self.conns.get_mut(&data.socket) else {
            return Turn::Stay;
        };
        conn.process = process;
        let front = conn.exchanges.front().map(|(_, request)| *request);
        let mut messages = std::mem::take(&mut self.messages);
        if data.direction == Direction::Recv && data.len == 0 {
            conn.session.close_direction(Direction::Recv, &mut messages);
        } else {
            let bytes = Bytes {
                len: data.len,
                payload: &data.payload,
                tail: &data.tail,
            };
            conn.session.feed(data.direction, bytes, &mut messages);
        }
        for message in messages.drain(..) {
            conn.message(message, &mut self.request_next, ts_ns, processes, out);
        }
        self.messages = messages;
        conn.count_not_http(out);
        if let Some(upgraded) = &mut conn.upgraded {
            match data.direction {
                Direction::Recv => {
                    upgraded.request_bytes = upgraded.request_bytes.saturating_add(data.len);
                }
                Direction::Send => {
                    upgraded.response_bytes = upgraded.response_bytes.saturating_add(data.len);
                }
            }
            return Turn::To(Owner::Request(upgraded.request));
        }
        match conn.session.role() {
            Some(Role::Server) => conn.server_turn(data, front),
            Some(Role::Client) | None => conn.client_turn(data.direction, working_for),
        }
    }

    /// One direction was shut down by the process.
    pub fn shutdown(
        &mut self,
        socket: SocketId,
        how: u32,
        ts_ns: u64,
        processes: &mut Processes,
        out: &mut Vec<Attributed>,
    ) {
        const SHUT_RD: u32 = 0;
        let Some(conn) = self.conns.get_mut(&socket) else {
            return;
        };
        if how == SHUT_RD {
            return;
        }
        let mut messages = std::mem::take(&mut self.messages);
        conn.session.close_direction(Direction::Send, &mut messages);
        for message in messages.drain(..) {
            conn.message(message, &mut self.request_next, ts_ns, processes, out);
        }
        self.messages = messages;
    }

    /// A descriptor was closed. Returns the requests' owner-independent answer:
    /// whether the connection is gone.
    pub fn close(
        &mut self,
        socket: SocketId,
        last: bool,
        ts_ns: u64,
        out: &mut Vec<Attributed>,
    ) -> bool {
        if last && self.conns.contains_key(&socket) {
            self.end(socket, ts_ns, out);
            return true;
        }
        false
    }

    /// Whether this request is one that the connection still owes a response.
    pub fn owes(&self, socket: SocketId, request: RequestId) -> bool {
        self.conns.get(&socket).is_some_and(|conn| {
            conn.exchanges.iter().any(|(_, owed)| *owed == request)
                || conn
                    .upgraded
                    .is_some_and(|upgraded| upgraded.request == request)
        })
    }

    /// Every connection that this process used last is gone with it.
    pub fn end_process(&mut self, process: ProcessIndex, ts_ns: u64, out: &mut Vec<Attributed>) {
        let mut sockets: Vec<(ConnId, SocketId)> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.process == process)
            .map(|(socket, conn)| (conn.id, *socket))
            .collect();
        sockets.sort_unstable();
        for (_, socket) in sockets {
            self.end(socket, ts_ns, out);
        }
    }

    fn end(&mut self, socket: SocketId, ts_ns: u64, out: &mut Vec<Attributed>) {
        let Some(mut conn) = self.conns.remove(&socket) else {
            return;
        };
        let mut messages = std::mem::take(&mut self.messages);
        conn.session.close(&mut messages);
        for message in messages.drain(..) {
            conn.end_message(&message, ts_ns, out);
        }
        self.messages = messages;
        // Whatever the parser did not mention again.
        for (_, request) in conn.exchanges.drain(..) {
            out.push(Attributed::RequestEnd {
                request,
                outcome: Outcome::NoResponse,
                request_bytes: 0,
                response_bytes: 0,
                ts_ns,
            });
        }
        if let Some(upgraded) = conn.upgraded {
            out.push(Attributed::RequestEnd {
                request: upgraded.request,
                outcome: Outcome::Complete,
                request_bytes: upgraded.request_bytes,
                response_bytes: upgraded.response_bytes,
                ts_ns,
            });
        }
        out.push(Attributed::ConnEnd { conn: conn.id });
    }
}

impl Conn {
    fn message(
        &mut self,
        message: Message,
        request_next: &mut u32,
        ts_ns: u64,
        processes: &mut Processes,
        out: &mut Vec<Attributed>,
    ) {
        match message {
            Message::RequestBegin { exchange } => {
                let request = RequestId(*request_next);
                *request_next += 1;
                self.exchanges.push_back((exchange, request));
                self.malformed = false;
                out.push(Attributed::RequestBegin {
                    request,
                    conn: self.id,
                    process: self.process,
                    ts_ns,
                });
            }
            Message::RequestHead {
                exchange,
                method,
                target,
                minor_version,
                keep_alive: _,
                expect_continue: _,
                head_bytes: _,
                complete: _,
            } => {
                if let Some(request) = self.request(exchange) {
                    let (method, route) = processes.route(self.process, &method, &target);
                    out.push(Attributed::RequestNamed {
                        request,
                        protocol: if minor_version == 0 {
                            "HTTP/1.0"
                        } else {
                            "HTTP/1.1"
                        },
                        method,
                        route,
                    });
                }
            }
            Message::ResponseHead {
                exchange,
                status,
                head_bytes: _,
            } => {
                if let Some(request) = self.request(exchange) {
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
                if let Some(request) = self.take_request(exchange) {
                    self.upgraded = Some(Upgraded {
                        request,
                        request_bytes,
                        response_bytes,
                    });
                }
            }
            Message::RequestEnd { .. }
            | Message::Interim { .. }
            | Message::ResponseBegin { .. } => {}
            Message::ResponseEnd { .. } | Message::RequestAbandoned { .. } => {
                self.end_message(&message, ts_ns, out);
            }
        }
    }

    /// The two messages that end an exchange.
    fn end_message(&mut self, message: &Message, ts_ns: u64, out: &mut Vec<Attributed>) {
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
                let outcome = match how {
                    Abandoned::PartialResponse => Outcome::Aborted,
                    // Of a partial request the head may be whole: one that is
                    // not was never named.
                    Abandoned::PartialRequest
                    | Abandoned::NoResponse
                    | Abandoned::PipelineTooLong => Outcome::NoResponse,
                };
                (*exchange, outcome, *request_bytes, *response_bytes)
            }
            _ => return,
        };
        if let Some(request) = self.take_request(exchange) {
            out.push(Attributed::RequestEnd {
                request,
                outcome,
                request_bytes,
                response_bytes,
                ts_ns,
            });
        }
    }

    fn request(&self, exchange: ExchangeId) -> Option<RequestId> {
        self.exchanges
            .iter()
            .find(|(other, _)| *other == exchange)
            .map(|(_, request)| *request)
    }

    fn take_request(&mut self, exchange: ExchangeId) -> Option<RequestId> {
        let at = self
            .exchanges
            .iter()
            .position(|(other, _)| *other == exchange)?;
        self.exchanges.remove(at).map(|(_, request)| request)
    }

    fn server_turn(&self, data: &Data, front_before: Option<RequestId>) -> Turn {
        let front = self.exchanges.front().map(|(_, request)| *request);
        match data.direction {
            Direction::Recv => Turn::To(match front {
                Some(request) => Owner::Request(request),
                None if data.len == 0 => Owner::Reason(Reason::ConnectionClosed),
                None if self.malformed => Owner::Reason(Reason::MalformedHead),
                None if matches!(self.session.verdict(), Verdict::NotHttp(_)) => {
                    Owner::Reason(Reason::NotHttp)
                }
                None => Owner::Reason(Reason::BeforeFirstHead),
            }),
            Direction::Send => match front_before {
                None => Turn::Stay,
                Some(wrote) => {
                    let after = match front {
                        Some(same) if same == wrote => AfterWrite::Same,
                        Some(next) => AfterWrite::Next(next),
                        None => AfterWrite::Ended,
                    };
                    Turn::Wrote(wrote, after)
                }
            },
        }
    }

    /// What comes back on a connection that the process opened is for the
    /// request on whose behalf something was sent.
    fn client_turn(&mut self, direction: Direction, working_for: Option<RequestId>) -> Turn {
        match (direction, self.caller) {
            (Direction::Send, _) => {
                if working_for.is_some() {
                    self.caller = working_for;
                }
                Turn::Stay
            }
            (Direction::Recv, Some(request)) => Turn::To(Owner::Request(request)),
            (Direction::Recv, None) => Turn::Stay,
        }
    }

    fn count_not_http(&mut self, out: &mut Vec<Attributed>) {
        if !self.not_http_counted
            && self.session.role() == Some(Role::Server)
            && matches!(self.session.verdict(), Verdict::NotHttp(_))
        {
            self.not_http_counted = true;
            out.push(Attributed::ConnCount(ConnCount::NotHttp));
        }
    }
}
