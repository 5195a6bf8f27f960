//! One connection: how far its requests have come, and what its bytes mean for
//! whoever moves them.
//!
//! In: bytes that have moved, and what was asked on whose behalf. Out: what the
//! strand that moved them turns to ([`Turn`]). Messages are taken in next door
//! (`messages`).

use std::collections::VecDeque;

use super::{AfterWrite, Asking, Caller, Turn};
use crate::{
    attribute::{
        Attributed, Claim, ConnKind, How, Owner, ProcessIndex, Reason, carried::Carried,
        series::Series,
    },
    event::{Data, Direction},
    id::{ConnId, RequestId},
    message::{ExchangeId, Role},
};

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) kind: ConnKind,
    pub(super) told: Told,
    /// The process that last moved bytes on it.
    pub(super) process: ProcessIndex,
    /// Which end the process is, once known.
    pub(super) role: Option<Role>,
    /// Requests without a whole response, in order.
    pub(super) exchanges: VecDeque<Exchange>,
    /// The first of them before the messages that the next [`Data`] brought.
    pub(super) front_before: Option<Option<RequestId>>,
    /// Of a connection that carries several exchanges at once: those of which
    /// the next [`Data`] has bytes.
    pub(super) carried: Option<Carried>,
    /// The thread that moved bytes on it first, and whether another has since.
    pub(super) mover: Option<(u32, bool)>,
    /// The request that ended last.
    pub(super) ended: Option<RequestId>,
    /// The request that upgraded the connection and keeps it.
    pub(super) upgraded: Option<Upgraded>,
    /// The messages within an exchange.
    pub(super) series: Option<Series>,
    /// For connections on which the process is the client: on whose behalf bytes
    /// were last sent, or the connection opened.
    pub(super) caller: Option<Caller>,
    /// How far the asking has come.
    pub(super) asking: Asking,
    /// Requests under way on whose behalf bytes were sent, and of which it is not
    /// known that their answer has come.
    pub(super) askers: Vec<RequestId>,
    /// How many contexts were known when it was accepted; `None` if that was not
    /// seen.
    pub(super) accepted_after: Option<u64>,
    /// A request has begun on it.
    pub(super) used: bool,
    pub(super) malformed: bool,
    /// The peer has closed its side, or a call on it has failed for good.
    pub(super) peer_gone: bool,
    /// It carries something that is not followed.
    pub(super) foreign: bool,
    /// What the socket carries is TLS.
    pub(super) tls: Option<Tls>,
}

/// What was stated of a connection's existence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: a TLS session without a socket may be tied to one before its
    /// first request.
    Nothing,
    /// That it has begun.
    Begin,
    /// That it has ended.
    End,
}

/// What is seen of the TLS on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// Records alone, so far.
    Records,
    /// The plaintext of its session.
    Plaintext,
}

#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    pub(super) request: RequestId,
    /// Its route, once it is named.
    pub(super) route: String,
    /// Bytes of the request, once it is there.
    pub(super) request_bytes: u64,
    /// Bytes of the response's head, once it is there.
    pub(super) head_bytes: u64,
    /// A byte of its response was seen.
    pub(super) responding: bool,
    /// A task of its own was spawned for it.
    pub(super) handed_on: bool,
    /// The number by which the protocol knows it, if it has one.
    pub(super) number: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Upgraded {
    pub(super) id: ExchangeId,
    pub(super) request: RequestId,
    pub(super) route: String,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl Conn {
    /// Whether several exchanges are under way, in no certain order.
    pub(super) fn has_several(&self) -> bool {
        self.carried.is_some() && self.exchanges.len() > 1
    }

    pub(super) fn tell(&mut self, out: &mut Vec<Attributed>) {
        if self.told == Told::Nothing {
            self.told = Told::Begin;
            out.push(Attributed::ConnBegin {
                conn: self.id,
                kind: self.kind,
            });
        }
    }

    pub(super) fn tell_end(&mut self, out: &mut Vec<Attributed>) {
        if self.told == Told::Begin {
            self.told = Told::End;
            out.push(Attributed::ConnEnd { conn: self.id });
        }
    }

    /// The socket carries TLS.
    pub(super) fn carries_tls(&mut self, out: &mut Vec<Attributed>) {
        if self.tls.is_none() {
            self.tls = Some(Tls::Records);
            if self.role != Some(Role::Client) {
                out.push(Attributed::TlsConnection {
                    process: self.process,
                });
            }
        }
    }

    /// TLS records moved: what they say is stated as plaintext.
    pub(super) fn records(
        &mut self,
        data: &Data,
        process: ProcessIndex,
        tls: Tls,
        tls_is_read: bool,
    ) -> Turn {
        self.process = process;
        let closed = data.direction == Direction::Recv && data.len == 0;
        self.peer_gone |= closed;
        if data.direction == Direction::Send {
            return Turn::Stay;
        }
        match (self.exchanges.len(), self.front(), &self.upgraded) {
            (_, _, Some(upgraded)) => Turn::To(received(upgraded.request, How::Received)),
            // Of several under way nobody knows yet which it is for.
            (1, Some(request), None) => Turn::To(received(request, How::Received)),
            _ if closed => Turn::To(Owner::Reason(Reason::ConnectionClosed)),
            _ if !tls_is_read => Turn::To(Owner::Reason(Reason::TlsUnread)),
            _ => Turn::Toward(match tls {
                Tls::Records => Reason::TlsHandshake,
                Tls::Plaintext => Reason::BetweenRequests,
            }),
        }
    }

    pub(super) fn data(&mut self, data: &Data, process: ProcessIndex) -> Turn {
        self.process = process;
        self.peer_gone |= data.direction == Direction::Recv && data.len == 0;
        let front_before = self.front_before.take().unwrap_or_else(|| self.front());
        if let (Some(series), None) = (&mut self.series, front_before) {
            return match data.direction {
                Direction::Send => match series.take_wrote() {
                    Some((request, true)) => Turn::Pushed(request, AfterWrite::Ended),
                    Some((request, false)) => Turn::Pushed(request, AfterWrite::Same),
                    None => Turn::Stay,
                },
                Direction::Recv => match series.current() {
                    Some(request) => Turn::To(received(request, How::Received)),
                    None if data.len == 0 => Turn::To(Owner::Reason(Reason::ConnectionClosed)),
                    None => Turn::Stay,
                },
            };
        }
        if let Some(upgraded) = &mut self.upgraded {
            match data.direction {
                Direction::Recv => {
                    upgraded.request_bytes = upgraded.request_bytes.saturating_add(data.len);
                }
                Direction::Send => {
                    upgraded.response_bytes = upgraded.response_bytes.saturating_add(data.len);
                }
            }
            return Turn::To(received(upgraded.request, How::Received));
        }
        match self.role {
            Some(Role::Server) => match self.carried.take() {
                Some(mut carried) if data.direction == Direction::Send || data.len > 0 => {
                    let is_open =
                        |request| self.exchanges.iter().any(|open| open.request == request);
                    let turn = carried.turn(data.direction, data.more, is_open);
                    self.carried = Some(carried);
                    turn
                }
                carried => {
                    self.carried = carried;
                    self.server_turn(data, front_before)
                }
            },
            // Answers to several come back in no certain order.
            Some(Role::Client) if self.carried.is_some() => Turn::Stay,
            Some(Role::Client) | None => self.client_turn(data.direction),
        }
    }

    pub(super) fn front(&self) -> Option<RequestId> {
        self.exchanges.front().map(|exchange| exchange.request)
    }

    pub(super) fn server_turn(&self, data: &Data, front_before: Option<RequestId>) -> Turn {
        let front = self.front();
        match data.direction {
            Direction::Recv => Turn::To(match front {
                Some(request) => received(request, How::Received),
                None if data.len == 0 => Owner::Reason(Reason::ConnectionClosed),
                None if self.malformed => Owner::Reason(Reason::MalformedHead),
                None if self.foreign => Owner::Reason(Reason::NotHttp),
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

    /// What comes back on a connection that the process opened is for whoever
    /// had something sent.
    pub(super) fn client_turn(&mut self, direction: Direction) -> Turn {
        match (direction, self.caller) {
            (Direction::Send, Some(caller)) if self.asking == Asking::Opened => Turn::Began(caller),
            (Direction::Send, Some(caller)) if self.asking == Asking::Sent => {
                Turn::Continued(caller)
            }
            (Direction::Send, _) => Turn::Asked,
            (Direction::Recv, caller) => {
                self.asking = Asking::Nothing;
                caller.map_or(Turn::Stay, Turn::Answered)
            }
        }
    }
}

fn received(request: RequestId, how: How) -> Owner {
    Owner::Request(Claim { request, how })
}
