//! One traced socket as a protocol conversation: which end the traced process
//! is, and so which direction carries requests, and which protocol it speaks.
//!
//! In: bytes with the direction that the process saw. Out: the messages of
//! connections on which the process is the server. Connections on which it is
//! the client are recognised, and not parsed.
//!
//! What opens a connection that was accepted tells its protocol: HTTP/1 unless
//! the bytes can only be another. A connection that was open before it was seen
//! is HTTP/1 until a request of another protocol opens a piece. HTTP/1 gives way
//! to HTTP/2 where the client opens with it, or both agree on it.

use crate::{
    event::Direction,
    message::{ExchangeId, Foreign, Message, Role, Side},
    protocol::{
        ajp, fastcgi,
        http1::{self, Bytes, Handover, Http2Start, Other, Verdict},
        http2, uwsgi,
    },
};

/// Sockets followed at once; one more is not followed, and counted.
pub const SESSIONS_MAX: usize = 100_000;

/// A conversation on one socket.
#[derive(Debug)]
pub struct Session {
    role: Option<Role>,
    /// Boxed where it is large: most sockets of a client never need it.
    spoken: Spoken,
    /// That it carries something else was said.
    foreign_told: bool,
}

/// What is spoken on a connection.
#[derive(Debug)]
enum Spoken {
    /// Not followed: the process is the client, or it is not known which end.
    Unheard,
    /// The client's first bytes, which may open several protocols.
    Opening(Vec<u8>),
    /// Also whatever is not recognised.
    Http1(Box<http1::Connection>),
    Http2(Box<http2::Connection>),
    FastCgi(Box<fastcgi::Connection>),
    Uwsgi(Box<uwsgi::Connection>),
    Ajp(Box<ajp::Connection>),
}

impl Spoken {
    fn http1(connection: http1::Connection) -> Self {
        Spoken::Http1(Box::new(connection))
    }

    /// HTTP/2 that was spoken before it was seen.
    fn http2_picked_up() -> Self {
        Spoken::Http2(Box::new(http2::Connection::picked_up(ExchangeId(0))))
    }

    /// What a client's first bytes open; `None`: more of them are needed.
    fn opened_by(bytes: &[u8]) -> Option<Spoken> {
        let looks = [
            fastcgi::opens(bytes),
            uwsgi::opens(bytes),
            ajp::opens(bytes),
        ];
        Some(match looks {
            [Some(true), ..] => Spoken::FastCgi(Box::default()),
            [_, Some(true), _] => Spoken::Uwsgi(Box::default()),
            [.., Some(true)] => Spoken::Ajp(Box::default()),
            [Some(false), Some(false), Some(false)] => Spoken::http1(http1::Connection::new()),
            [..] => return None,
        })
    }

    /// What a piece opens in the middle of a connection, if that is a request of
    /// a protocol whose connections are kept.
    fn picked_up_by(bytes: &[u8]) -> Option<Spoken> {
        if fastcgi::opens(bytes) == Some(true) {
            Some(Spoken::FastCgi(Box::default()))
        } else if ajp::opens(bytes) == Some(true) {
            Some(Spoken::Ajp(Box::default()))
        } else {
            None
        }
    }

    fn feed(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        match self {
            Spoken::Unheard | Spoken::Opening(_) => {}
            Spoken::Http1(http1) => {
                http1.feed(side, bytes, out);
                if let Some(handover) = http1.take_handover() {
                    self.take_over(side, bytes, *handover, out);
                }
            }
            Spoken::Http2(http2) => http2.feed(side, bytes, out),
            Spoken::FastCgi(fastcgi) => fastcgi.feed(side, bytes, out),
            Spoken::Uwsgi(uwsgi) => uwsgi.feed(side, bytes, out),
            Spoken::Ajp(ajp) => ajp.feed(side, bytes, out),
        }
    }

    /// HTTP/1 has given way to HTTP/2 within these bytes.
    fn take_over(
        &mut self,
        side: Side,
        bytes: Bytes<'_>,
        handover: Handover,
        out: &mut Vec<Message>,
    ) {
        let mut http2 = match handover.start {
            Http2Start::Preface(seen) => http2::Connection::in_preface(seen, handover.next),
            Http2Start::Upgrade {
                exchange,
                request_bytes,
                response_bytes,
            } => http2::Connection::upgraded(exchange, request_bytes, response_bytes),
        };
        let rest = Bytes {
            len: bytes.len.saturating_sub(handover.taken as u64),
            payload: bytes.captured().get(handover.taken..).unwrap_or(&[]),
            tail: bytes.tail,
        };
        http2.feed(side, rest, out);
        *self = Spoken::Http2(Box::new(http2));
    }
}

impl Session {
    /// A connection that the process accepted.
    pub fn accepted() -> Self {
        Session::new(Some(Role::Server), Spoken::Opening(Vec::new()))
    }

    /// A connection that the process opened.
    pub fn connected() -> Self {
        Session::new(Some(Role::Client), Spoken::Unheard)
    }

    /// A connection met in the middle. `accepted`: as far as can be told, the
    /// process accepted it.
    pub fn found(accepted: bool) -> Self {
        if accepted {
            let http1 = http1::Connection::picked_up();
            Session::new(Some(Role::Server), Spoken::http1(http1))
        } else {
            Session::new(None, Spoken::Unheard)
        }
    }

    fn new(role: Option<Role>, spoken: Spoken) -> Self {
        Session {
            role,
            spoken,
            foreign_told: false,
        }
    }

    /// Takes in bytes and adds what they amount to to `out`.
    pub fn feed(&mut self, direction: Direction, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        self.learn_role(direction, bytes, out);
        // The answers are not followed, but nobody is to take them for an answer
        // to what was asked last.
        if self.role == Some(Role::Client)
            && direction == Direction::Send
            && bytes.captured().starts_with(http2::PREFACE)
        {
            out.push(Message::Multiplexed);
        }
        let side = side(direction);
        self.recognise(side, bytes, out);
        self.spoken.feed(side, bytes, out);
        if !self.foreign_told
            && let Spoken::Http1(http1) = &self.spoken
            && http1.is_http() == Verdict::NotHttp(Other::Tls)
        {
            self.tell_tls(out);
        }
    }

    /// Records of some streams were lost, perhaps of this one: what they may have
    /// changed is unknown from here on.
    pub fn lose(&mut self) {
        if let Spoken::Http2(http2) = &mut self.spoken {
            http2.lose();
        }
    }

    /// Its bytes are TLS records: a TLS library moved them.
    pub fn carries_tls(&mut self, out: &mut Vec<Message>) {
        self.spoken = Spoken::Unheard;
        self.tell_tls(out);
    }

    fn tell_tls(&mut self, out: &mut Vec<Message>) {
        if !self.foreign_told {
            self.foreign_told = true;
            out.push(Message::Foreign(Foreign::Tls));
        }
    }

    /// One direction ended.
    pub fn close_direction(&mut self, direction: Direction, out: &mut Vec<Message>) {
        let side = side(direction);
        match &mut self.spoken {
            Spoken::Unheard | Spoken::Opening(_) => {}
            Spoken::Http1(http1) => http1.close_side(side, out),
            Spoken::Http2(http2) => http2.close_side(side, out),
            Spoken::FastCgi(fastcgi) => fastcgi.close_side(side, out),
            Spoken::Uwsgi(uwsgi) => uwsgi.close_side(side, out),
            Spoken::Ajp(ajp) => ajp.close_side(side, out),
        }
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        self.close_direction(Direction::Recv, out);
        self.close_direction(Direction::Send, out);
    }

    /// Learns from these bytes what is spoken, as long as that is open.
    fn recognise(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let payload = bytes.captured();
        match &mut self.spoken {
            Spoken::Opening(seen) => {
                let before = seen.len();
                if side == Side::Client {
                    seen.extend_from_slice(payload);
                }
                // Of bytes that were not captured, or once the server speaks,
                // there is nothing more to learn.
                let is_all = side == Side::Server || (payload.len() as u64) < bytes.len;
                let spoken = Spoken::opened_by(seen)
                    .or_else(|| is_all.then(|| Spoken::http1(http1::Connection::new())));
                if let Some(mut spoken) = spoken {
                    seen.truncate(before);
                    if !seen.is_empty() {
                        let held = Bytes {
                            len: before as u64,
                            payload: seen,
                            tail: &[],
                        };
                        spoken.feed(Side::Client, held, out);
                    }
                    self.spoken = spoken;
                }
            }
            Spoken::Http1(http1) if http1.is_http() == Verdict::Unknown => {
                if http2::sender_of(payload, bytes.len) == Some(side) {
                    self.spoken = Spoken::http2_picked_up();
                } else if side == Side::Client
                    && let Some(spoken) = Spoken::picked_up_by(payload)
                {
                    self.spoken = spoken;
                }
            }
            Spoken::Unheard
            | Spoken::Http1(_)
            | Spoken::Http2(_)
            | Spoken::FastCgi(_)
            | Spoken::Uwsgi(_)
            | Spoken::Ajp(_) => {}
        }
    }

    fn learn_role(&mut self, direction: Direction, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        if self.role.is_some() {
            return;
        }
        let payload = bytes.captured();
        if let [0x14..=0x17, 0x03, 0x00..=0x04, ..] = payload {
            self.tell_tls(out);
            return;
        }
        let opening = sender(payload);
        let Some(sender) = opening.or_else(|| http2::sender_of(payload, bytes.len)) else {
            return;
        };
        let role = if side(direction) == sender {
            self.spoken = if opening.is_some() {
                Spoken::http1(http1::Connection::picked_up())
            } else {
                Spoken::http2_picked_up()
            };
            Role::Server
        } else {
            Role::Client
        };
        self.role = Some(role);
        out.push(Message::Role(role));
        if role == Role::Client && opening.is_none() {
            out.push(Message::Multiplexed);
        }
    }
}

fn side(direction: Direction) -> Side {
    match direction {
        Direction::Recv => Side::Client,
        Direction::Send => Side::Server,
    }
}

const RESPONSE_OPENING: &[u8] = b"HTTP/1.";
const REQUEST_OPENINGS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    // HTTP/2 opens like a request.
    b"PRI * HTTP/2.0",
];

/// Which end sends bytes that open like these.
fn sender(payload: &[u8]) -> Option<Side> {
    if payload.starts_with(RESPONSE_OPENING) {
        return Some(Side::Server);
    }
    let is_http1 = REQUEST_OPENINGS
        .iter()
        .any(|opening| payload.starts_with(opening));
    let is_request = is_http1
        || fastcgi::opens(payload) == Some(true)
        || uwsgi::opens(payload) == Some(true)
        || ajp::opens(payload) == Some(true);
    is_request.then_some(Side::Client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(session: &mut Session, direction: Direction, bytes: &[u8]) -> Vec<Message> {
        let mut out = Vec::new();
        let bytes = Bytes {
            len: bytes.len() as u64,
            payload: bytes,
            tail: &[],
        };
        session.feed(direction, bytes, &mut out);
        out
    }

    const FASTCGI: &[u8] = b"\x01\x01\0\x01\0\x08\0\0\0\x01\x01\0\0\0\0\0";
    const AJP: &[u8] = b"\x12\x34\0\x20\x02\x02\0\x08HTTP/1.1\0\0\x01/\0";
    const UWSGI: &[u8] = b"\0\x20\0\0\x0c\0QUERY_STRING";

    #[test]
    fn a_received_request_makes_the_process_a_server() {
        for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], FASTCGI, AJP] {
            let mut session = Session::found(false);
            let out = feed(&mut session, Direction::Recv, request);
            assert_eq!(out[0], Message::Role(Role::Server));
            assert!(matches!(out[1], Message::RequestBegin { .. }), "{out:?}");
        }
    }

    #[test]
    fn a_sent_request_makes_the_process_a_client_that_is_not_parsed() {
        for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], FASTCGI, AJP, UWSGI] {
            let mut session = Session::found(false);
            let out = feed(&mut session, Direction::Send, request);
            assert_eq!(out, [Message::Role(Role::Client)]);
            let out = feed(&mut session, Direction::Recv, b"HTTP/1.1 200 OK\r\n\r\n");
            assert_eq!(out, []);
        }
    }

    #[test]
    fn the_opening_tells_what_is_spoken_however_it_comes() {
        for (request, is_spoken) in [
            (
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                (|spoken| matches!(spoken, Spoken::Http1(_))) as fn(&Spoken) -> bool,
            ),
            (FASTCGI, |spoken| matches!(spoken, Spoken::FastCgi(_))),
            (AJP, |spoken| matches!(spoken, Spoken::Ajp(_))),
            (UWSGI, |spoken| matches!(spoken, Spoken::Uwsgi(_))),
            (b"\0\0\x12\x04\0\0", |spoken| {
                matches!(spoken, Spoken::Http1(_))
            }),
        ] {
            for size in [1, request.len()] {
                let mut session = Session::accepted();
                let mut out = Vec::new();
                for piece in request.chunks(size) {
                    out.extend(feed(&mut session, Direction::Recv, piece));
                }
                assert!(is_spoken(&session.spoken), "{request:?}: {session:?}");
                let begins = out
                    .iter()
                    .filter(|message| matches!(message, Message::RequestBegin { .. }));
                assert_eq!(
                    begins.count(),
                    usize::from(request.len() > 6),
                    "{request:?}"
                );
            }
        }
    }

    #[test]
    fn kept_connections_are_picked_up_at_their_next_request() {
        for request in [FASTCGI, AJP] {
            let mut session = Session::found(true);
            let out = feed(&mut session, Direction::Recv, b"the rest of something");
            assert_eq!(out, []);
            let out = feed(&mut session, Direction::Send, b"\x01\x06\0\x01\0\x01\0\0x");
            assert_eq!(out, []);
            let out = feed(&mut session, Direction::Recv, request);
            assert!(matches!(out[0], Message::RequestBegin { .. }), "{out:?}");
        }
    }

    #[test]
    fn tls_is_told_once_whichever_end_the_process_is() {
        for mut session in [Session::accepted(), Session::found(false)] {
            let out = feed(&mut session, Direction::Recv, b"\x16\x03\x01\x02\x00");
            assert_eq!(out, [Message::Foreign(Foreign::Tls)]);
            let out = feed(&mut session, Direction::Send, b"\x16\x03\x03\x00\x7a");
            assert_eq!(out, []);
        }
    }

    #[test]
    fn what_a_tls_library_moves_is_not_read() {
        let mut session = Session::accepted();
        let mut out = Vec::new();
        session.carries_tls(&mut out);
        session.carries_tls(&mut out);
        assert_eq!(out, [Message::Foreign(Foreign::Tls)]);
        let out = feed(&mut session, Direction::Recv, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(out, []);
    }

    fn names(messages: &[Message]) -> Vec<String> {
        let name = |message: &Message| {
            let text = format!("{message:?}");
            let end = text.find([' ', '(']).unwrap_or(text.len());
            text[..end].to_owned()
        };
        messages.iter().map(name).collect()
    }

    /// `GET /` without a body, on stream 1 and on stream 3.
    const GET_1: &[u8] = b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";
    const GET_3: &[u8] = b"\0\0\x03\x01\x05\0\0\0\x03\x82\x86\x84";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const OK_1: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x01\x88";

    #[test]
    fn http2_begins_with_its_preface_however_it_comes() {
        let opening = [http2::PREFACE, SETTINGS, GET_1].concat();
        let whole = feed(&mut Session::accepted(), Direction::Recv, &opening);
        let begun = [
            "Multiplexed",
            "RequestBegin",
            "Numbered",
            "Carries",
            "RequestHead",
            "RequestEnd",
        ];
        assert_eq!(names(&whole), begun);
        let mut session = Session::accepted();
        let in_pieces: Vec<Message> = opening
            .iter()
            .flat_map(|byte| feed(&mut session, Direction::Recv, &[*byte]))
            .filter(|message| {
                !matches!(message, Message::Carries { .. } | Message::Numbered { .. })
            })
            .collect();
        assert_eq!(
            names(&in_pieces),
            ["Multiplexed", "RequestBegin", "RequestHead", "RequestEnd"]
        );
        // Of a TLS session nobody knows which end the process is.
        let out = feed(&mut Session::found(false), Direction::Recv, &opening);
        assert_eq!(out[0], Message::Role(Role::Server));
        assert_eq!(out[1..], whole);
    }

    #[test]
    fn http2_is_recognised_in_the_middle() {
        for accepted in [true, false] {
            let mut session = Session::found(accepted);
            assert_eq!(feed(&mut session, Direction::Recv, SETTINGS), []);
            let mut out = feed(&mut session, Direction::Recv, GET_3);
            out.retain(|message| !matches!(message, Message::Role(Role::Server)));
            assert_eq!(
                names(&out)[1..],
                [
                    "RequestBegin",
                    "Numbered",
                    "Carries",
                    "RequestHead",
                    "RequestEnd"
                ]
            );
        }
        let mut session = Session::found(false);
        let out = feed(&mut session, Direction::Recv, OK_1);
        assert_eq!(out, [Message::Role(Role::Client), Message::Multiplexed]);
    }

    #[test]
    fn a_client_of_http2_says_so() {
        let opening = [http2::PREFACE, SETTINGS].concat();
        let out = feed(&mut Session::connected(), Direction::Send, &opening);
        assert_eq!(out, [Message::Multiplexed]);
        let mut session = Session::found(false);
        let out = feed(&mut session, Direction::Send, &opening);
        assert_eq!(out, [Message::Role(Role::Client), Message::Multiplexed]);
        assert_eq!(feed(&mut session, Direction::Recv, OK_1), []);
    }

    #[test]
    fn an_upgrade_to_http2_hands_its_request_over() {
        let mut session = Session::accepted();
        let asked = b"GET /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n\
            Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
        let out = feed(&mut session, Direction::Recv, asked);
        assert_eq!(names(&out), ["RequestBegin", "RequestHead", "RequestEnd"]);
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
            Upgrade: h2c\r\n\r\n";
        // The server's frames may follow at once, before the client's preface.
        let answer = [&switch[..], SETTINGS, OK_1].concat();
        let out = feed(&mut session, Direction::Send, &answer);
        assert_eq!(
            names(&out),
            [
                "ResponseBegin",
                "Interim",
                "Multiplexed",
                "Carries",
                "ResponseHead",
                "ResponseEnd"
            ]
        );
        let next = [http2::PREFACE, SETTINGS, GET_3].concat();
        let out = feed(&mut session, Direction::Recv, &next);
        assert_eq!(
            out[0],
            Message::RequestBegin {
                exchange: ExchangeId(1)
            }
        );
    }
}
