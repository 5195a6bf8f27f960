//! One traced socket as a protocol conversation: which end the traced process
//! is, and so which direction carries requests.
//!
//! In: bytes with the direction that the process saw. Out: HTTP/1 messages of
//! connections on which the process is the server. Connections on which it is
//! the client are recognised, and not parsed.

use crate::{
    event::Direction,
    message::{Foreign, Message, Role, Side},
    protocol::http1::{Bytes, Connection, Other, Verdict},
};

/// Sockets followed at once; one more is not followed, and counted.
pub const SESSIONS_MAX: usize = 100_000;

/// A conversation on one socket.
#[derive(Debug)]
pub struct Session {
    role: Option<Role>,
    /// Boxed: most sockets of a client never need it.
    http1: Option<Box<Connection>>,
    /// That it carries something else was said.
    foreign_told: bool,
}

impl Session {
    /// A connection that the process accepted.
    pub fn accepted() -> Self {
        Session {
            role: Some(Role::Server),
            http1: Some(Box::new(Connection::new())),
            foreign_told: false,
        }
    }

    /// A connection that the process opened.
    pub fn connected() -> Self {
        Session {
            role: Some(Role::Client),
            http1: None,
            foreign_told: false,
        }
    }

    /// A connection met in the middle. `accepted`: as far as can be told, the
    /// process accepted it.
    pub fn found(accepted: bool) -> Self {
        Session {
            role: accepted.then_some(Role::Server),
            http1: accepted.then(|| Box::new(Connection::picked_up())),
            foreign_told: false,
        }
    }

    /// Takes in bytes and adds what they amount to to `out`.
    pub fn feed(&mut self, direction: Direction, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        self.learn_role(direction, bytes.payload, out);
        let Some(http1) = &mut self.http1 else { return };
        http1.feed(side(direction), bytes, out);
        if !self.foreign_told
            && let Verdict::NotHttp(other) = http1.is_http()
        {
            self.foreign_told = true;
            out.push(Message::Foreign(match other {
                Other::Tls => Foreign::Tls,
                Other::Http2 => Foreign::Unknown,
            }));
        }
    }

    /// One direction ended.
    pub fn close_direction(&mut self, direction: Direction, out: &mut Vec<Message>) {
        if let Some(http1) = &mut self.http1 {
            http1.close_side(side(direction), out);
        }
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        if let Some(http1) = &mut self.http1 {
            http1.close(out);
        }
    }

    fn learn_role(&mut self, direction: Direction, payload: &[u8], out: &mut Vec<Message>) {
        if self.role.is_some() {
            return;
        }
        self.role = match (direction, opening(payload)) {
            (Direction::Recv, Some(Opening::Request))
            | (Direction::Send, Some(Opening::Response)) => {
                self.http1 = Some(Box::new(Connection::picked_up()));
                Some(Role::Server)
            }
            (Direction::Send, Some(Opening::Request))
            | (Direction::Recv, Some(Opening::Response)) => Some(Role::Client),
            (Direction::Recv | Direction::Send, None) => None,
        };
        out.extend(self.role.map(Message::Role));
    }
}

fn side(direction: Direction) -> Side {
    match direction {
        Direction::Recv => Side::Client,
        Direction::Send => Side::Server,
    }
}

enum Opening {
    Request,
    Response,
}

const RESPONSE_OPENING: &[u8] = b"HTTP/1.";
const REQUEST_OPENINGS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
];

fn opening(payload: &[u8]) -> Option<Opening> {
    if payload.starts_with(RESPONSE_OPENING) {
        return Some(Opening::Response);
    }
    REQUEST_OPENINGS
        .iter()
        .any(|opening| payload.starts_with(opening))
        .then_some(Opening::Request)
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

    #[test]
    fn a_received_request_makes_the_process_a_server() {
        let mut session = Session::found(false);
        let out = feed(&mut session, Direction::Recv, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(out[0], Message::Role(Role::Server));
        assert!(matches!(out[1], Message::RequestBegin { .. }), "{out:?}");
    }

    #[test]
    fn a_sent_request_makes_the_process_a_client_that_is_not_parsed() {
        let mut session = Session::found(false);
        let out = feed(&mut session, Direction::Send, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(out, [Message::Role(Role::Client)]);
        let out = feed(&mut session, Direction::Recv, b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(out, []);
    }
}
