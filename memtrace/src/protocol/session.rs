//! One traced socket as a protocol conversation: which end the traced process
//! is, and so which direction carries requests.
//!
//! In: bytes with the direction that the process saw. Out: HTTP/1 messages of
//! connections on which the process is the server. Connections on which it is
//! the client are recognised, and not parsed.

use crate::{
    event::Direction,
    protocol::http1::{Bytes, Connection, Message, Side, Verdict},
};

/// Sockets followed at once; one more is not followed, and counted.
pub const SESSIONS_MAX: usize = 100_000;

/// Which end of a connection the traced process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers requests.
    Server,
    /// It sends requests.
    Client,
}

/// A conversation on one socket.
#[derive(Debug)]
pub struct Session {
    role: Option<Role>,
    /// Boxed: most sockets of a client never need it.
    http1: Option<Box<Connection>>,
}

impl Session {
    /// A connection that the process accepted.
    pub fn accepted() -> Self {
        Session {
            role: Some(Role::Server),
            http1: Some(Box::new(Connection::new())),
        }
    }

    /// A connection that the process opened.
    pub fn connected() -> Self {
        Session {
            role: Some(Role::Client),
            http1: None,
        }
    }

    /// A connection met in the middle. `accepted`: as far as can be told, the
    /// process accepted it.
    pub fn found(accepted: bool) -> Self {
        Session {
            role: accepted.then_some(Role::Server),
            http1: accepted.then(|| Box::new(Connection::picked_up())),
        }
    }

    /// The end that the process is, once known.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// What the conversation turned out to be.
    pub fn verdict(&self) -> Verdict {
        self.http1
            .as_ref()
            .map_or(Verdict::Unknown, |http1| http1.is_http())
    }

    /// Takes in bytes and adds what they amount to to `out`.
    pub fn feed(&mut self, direction: Direction, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        self.learn_role(direction, bytes.payload);
        if let Some(http1) = &mut self.http1 {
            http1.feed(side(direction), bytes, out);
        }
    }

    /// Like [`Session::feed`], and masks private content in place. Returns how
    /// many leading bytes of `payload` may be stored.
    pub fn feed_masking(
        &mut self,
        direction: Direction,
        len: u64,
        payload: &mut [u8],
        tail: &mut [u8],
        out: &mut Vec<Message>,
    ) -> usize {
        self.learn_role(direction, payload);
        match &mut self.http1 {
            Some(http1) => http1.feed_masking(side(direction), len, payload, tail, out),
            None => {
                // Enough of the opening stays for the role to be learnt again
                // from what is stored; none of it is private.
                let kept = opening_len(payload);
                payload[kept..].fill(0);
                tail.fill(0);
                kept
            }
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

    fn learn_role(&mut self, direction: Direction, payload: &[u8]) {
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

fn opening_len(payload: &[u8]) -> usize {
    std::iter::once(&RESPONSE_OPENING)
        .chain(&REQUEST_OPENINGS)
        .find(|opening| payload.starts_with(opening))
        .map_or(0, |opening| opening.len())
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
        assert_eq!(session.role(), None);
        let out = feed(&mut session, Direction::Recv, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(session.role(), Some(Role::Server));
        assert!(matches!(out[0], Message::RequestBegin { .. }), "{out:?}");
    }

    #[test]
    fn a_sent_request_makes_the_process_a_client_that_is_not_parsed() {
        let mut session = Session::found(false);
        let out = feed(&mut session, Direction::Send, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(session.role(), Some(Role::Client));
        assert_eq!(out, []);
        let out = feed(&mut session, Direction::Recv, b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(out, []);
    }

    #[test]
    fn of_a_clients_bytes_only_the_opening_is_kept() {
        let mut session = Session::connected();
        let mut payload = *b"POST /secret HTTP/1.1\r\n";
        let mut out = Vec::new();
        let kept = session.feed_masking(Direction::Send, 23, &mut payload, &mut [], &mut out);
        assert_eq!(&payload[..kept], b"POST ");
        assert!(payload[kept..].iter().all(|byte| *byte == 0));
    }
}
