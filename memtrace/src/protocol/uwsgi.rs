//! uwsgi between a web server and its application, seen at the application: the
//! bytes of one connection come in, where its requests and responses begin and
//! end goes out as [`Message`]s.
//!
//! A request is a header (modifier, length of the variables in two bytes, the
//! lower first, second modifier), the variables, and a body of the length that
//! they tell. The response is HTTP/1, or whatever is sent until the close: that
//! is [`http1`]'s to follow.

use super::cgi::{Coding, Facts, Variables};
use super::http1::{self, Bytes, RequestFacts};
use crate::message::{Message, Protocol, Side};

/// Bytes of the header.
const HEADER: usize = 4;

/// First modifiers of requests whose variables are followed by a body: Python,
/// Perl, Lua, Ruby, the JVM, CGI and PHP.
const REQUESTS: [u8; 7] = [0, 5, 6, 7, 8, 9, 14];

/// Longest name that may come first, bytes.
const NAME_MAX: u16 = 64;

/// Where in its stream the client stands.
#[derive(Debug)]
enum At {
    /// After this many bytes of a header.
    Header([u8; HEADER], usize),
    /// In the variables, with this many bytes left.
    Variables(Box<Variables>, u16),
    /// Behind them.
    Body,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    at: At,
    head_bytes: u64,
    http1: http1::Connection,
}

/// Whether bytes that a client sends open a request: `None` if more of them are
/// needed to tell.
pub fn opens(bytes: &[u8]) -> Option<bool> {
    let mut bytes = bytes.iter().copied();
    let modifier = bytes.next()?;
    if !REQUESTS.contains(&modifier) {
        return Some(false);
    }
    let size = u16::from_le_bytes([bytes.next()?, bytes.next()?]);
    if bytes.next()? != 0 {
        return Some(false);
    }
    let name = u16::from_le_bytes([bytes.next()?, bytes.next()?]);
    if !(2..=NAME_MAX).contains(&name) || size < name.saturating_add(4) {
        return Some(false);
    }
    let is_name = |byte: u8| matches!(byte, b'A'..=b'Z' | b'_');
    Some(is_name(bytes.next()?) && is_name(bytes.next()?))
}

impl Connection {
    /// A connection of which the next byte from the client opens a request.
    pub fn new() -> Self {
        Connection {
            at: At::Header([0; HEADER], 0),
            head_bytes: 0,
            http1: http1::Connection::new(),
        }
    }

    /// Takes in bytes that `side` sent and adds what they amount to to `out`.
    pub fn feed(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let mut rest = bytes.captured();
        let mut len = bytes.len;
        while side == Side::Client && !rest.is_empty() && self.is_in_head() {
            let used = self.head(rest, out);
            rest = rest.get(used..).unwrap_or(&[]);
            len -= used as u64;
        }
        if side == Side::Client && self.is_in_head() {
            self.skip(len, out);
        } else if len > 0 {
            let bytes = Bytes {
                len,
                payload: rest,
                tail: bytes.tail,
            };
            self.http1.feed(side, bytes, out);
        }
    }

    /// `side` sends no more.
    pub fn close_side(&mut self, side: Side, out: &mut Vec<Message>) {
        self.http1.close_side(side, out);
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        self.http1.close(out);
    }

    /// The next byte from the client belongs to a request's head.
    fn is_in_head(&mut self) -> bool {
        if matches!(self.at, At::Body) && self.http1.awaits_request() {
            self.at = At::Header([0; HEADER], 0);
        }
        !matches!(self.at, At::Body)
    }

    /// Takes in bytes of a head, and returns how many.
    fn head(&mut self, bytes: &[u8], out: &mut Vec<Message>) -> usize {
        let used = match &mut self.at {
            At::Header(header, len) => {
                if *len == 0 {
                    self.head_bytes = 0;
                    self.http1.open_request(out);
                }
                let used = bytes.len().min(HEADER - *len);
                for (slot, byte) in header.iter_mut().skip(*len).zip(bytes) {
                    *slot = *byte;
                }
                *len += used;
                if *len == HEADER {
                    let size = u16::from_le_bytes([header[1], header[2]]);
                    self.at = At::Variables(Box::new(Variables::new(Coding::Uwsgi)), size);
                }
                used
            }
            At::Variables(variables, left) => {
                let used = bytes.len().min(usize::from(*left));
                variables.feed(bytes.get(..used).unwrap_or(&[]));
                *left -= used as u16;
                used
            }
            At::Body => 0,
        };
        self.count(used as u64);
        self.end_head(out);
        used
    }

    /// Passes over bytes that were not captured.
    fn skip(&mut self, bytes: u64, out: &mut Vec<Message>) {
        match &mut self.at {
            At::Variables(variables, left) if bytes > 0 => {
                let skipped = u64::from(*left).min(bytes);
                variables.skip(skipped);
                *left -= skipped as u16;
                // What follows them is not known to be a body.
                self.count(bytes);
                self.end_head(out);
            }
            At::Header(..) | At::Variables(..) | At::Body => {}
        }
    }

    fn count(&mut self, bytes: u64) {
        self.head_bytes = self.head_bytes.saturating_add(bytes);
        self.http1.count_head(bytes);
    }

    fn end_head(&mut self, out: &mut Vec<Message>) {
        let At::Variables(variables, 0) = &self.at else {
            return;
        };
        let Facts {
            method,
            target,
            content_length,
            complete,
        } = variables.facts();
        let facts = RequestFacts {
            method,
            target,
            protocol: Protocol::Uwsgi,
            keep_alive: false,
            head_bytes: self.head_bytes,
        };
        self.at = At::Body;
        self.http1
            .end_foreign_head(facts, content_length, complete, out);
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::cgi::tests::coded;
    use crate::protocol::check;

    fn asks(uri: &str, body: &[u8]) -> Vec<u8> {
        let variables = coded(
            Coding::Uwsgi,
            &[
                ("QUERY_STRING", "q=secret"),
                ("REQUEST_METHOD", "POST"),
                ("CONTENT_LENGTH", &body.len().to_string()),
                ("REQUEST_URI", uri),
                ("HTTP_COOKIE", "secret"),
            ],
        );
        let [low, high] = (variables.len() as u16).to_le_bytes();
        [&[0, low, high, 0], &variables[..], body].concat()
    }

    fn feed(connection: &mut Connection, side: Side, bytes: &[u8], limit: usize) -> Vec<Message> {
        let mut out = Vec::new();
        let payload = &bytes[..limit.min(bytes.len())];
        let bytes = Bytes {
            len: bytes.len() as u64,
            payload,
            tail: &[],
        };
        connection.feed(side, bytes, &mut out);
        out
    }

    #[test]
    fn the_response_is_http_or_lasts_until_the_close() {
        let request = asks("/users/7?q=secret", b"body");
        let expected_request = [
            "begin 0".to_owned(),
            "head 0 uwsgi POST /users/7?q".to_owned(),
            format!("end 0 {}", request.len()),
        ];
        for size in [1, usize::MAX] {
            let mut connection = Connection::new();
            let mut out = Vec::new();
            for piece in request.chunks(size.min(request.len())) {
                out.extend(feed(&mut connection, Side::Client, piece, usize::MAX));
            }
            assert_eq!(check::short(&out), expected_request);
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";
            let mut out = feed(&mut connection, Side::Server, head, usize::MAX);
            out.extend(feed(&mut connection, Side::Server, &[b'x'; 900], 10));
            connection.close(&mut out);
            assert_eq!(
                check::short(&out),
                [
                    "answer 0".to_owned(),
                    "status 0 200".to_owned(),
                    format!("done 0 {} {}", head.len() + 900, request.len()),
                ]
            );
        }
    }

    #[test]
    fn a_connection_may_be_used_again() {
        let mut connection = Connection::new();
        for id in 0..2 {
            let said = check::short(&feed(
                &mut connection,
                Side::Client,
                &asks("/", b""),
                usize::MAX,
            ));
            assert_eq!(said[0], format!("begin {id}"));
            let response = b"HTTP/1.1 204 No\r\n\r\n";
            let said = check::short(&feed(&mut connection, Side::Server, response, usize::MAX));
            assert!(said[2].starts_with(&format!("done {id} ")), "{said:?}");
        }
    }

    #[test]
    fn a_head_that_was_not_captured_to_its_end_is_settled_by_the_response() {
        let mut connection = Connection::new();
        let said = check::short(&feed(
            &mut connection,
            Side::Client,
            &asks("/a", b"body"),
            90,
        ));
        assert_eq!(said, ["begin 0", "head 0 uwsgi POST /a cut"]);
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let said = check::short(&feed(&mut connection, Side::Server, response, usize::MAX));
        assert!(
            said.iter().any(|line| line.starts_with("done 0")),
            "{said:?}"
        );
    }

    #[test]
    fn only_an_opening_is_one() {
        let request = asks("/", b"");
        for len in 0..8 {
            assert_eq!(opens(&request[..len]), None);
        }
        assert_eq!(opens(&request), Some(true));
        for bad in [
            &b"\x01\x20\0\0\x0c\0QU"[..],
            b"\0\x20\0\x01\x0c\0QU",
            b"\0\x05\0\0\x0c\0QU",
            b"\0\x20\0\0\x0c\0qu",
            b"\0\0\x12\x04\0\0\0\0",
        ] {
            assert_eq!(opens(bad), Some(false), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_exchange_has_one_end(
            feeds in vec((any::<bool>(), prop_oneof![
                "[a-z/?=]{0,9}".prop_map(|uri| asks(&uri, b"body")),
                Just(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_vec()),
                vec(any::<u8>(), 0..30),
            ], prop_oneof![2 => Just(usize::MAX), 1 => 0..60_usize], 1..40_usize), 0..12),
        ) {
            let mut connection = Connection::new();
            let mut out = Vec::new();
            for (client, bytes, limit, size) in &feeds {
                let side = if *client { Side::Client } else { Side::Server };
                for piece in bytes.chunks(*size) {
                    out.extend(feed(&mut connection, side, piece, *limit));
                }
            }
            connection.close(&mut out);
            check::each_exchange_has_one_end(&out, true);
            let told = format!("{out:?}");
        prop_assert!(!told.contains("secret"), "{}", told);
        }
    }
}
