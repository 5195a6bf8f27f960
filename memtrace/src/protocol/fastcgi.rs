//! FastCGI 1.0 between a web server and its application, seen at the
//! application: the bytes of one connection come in, where its requests and
//! responses begin and end goes out as [`Message`]s.
//!
//! A connection may carry one request after another, or several at once. Bytes
//! count with their records' headers and padding. The status is that of the
//! response's `Status` line; without one it is 200, or 302 if there is a
//! `Location` (RFC 3875, 6.3). Servers often end a response in the call that
//! sends the last of it, behind what was captured: exactly the bytes of an
//! END_REQUEST record, with a body that is one, are taken for it.
//!
//! STDERR, DATA and management records are passed over.

mod exchange;
mod record;
mod response;

use std::collections::VecDeque;

use self::exchange::Exchange;
use self::record::{HEADER, Kind, Piece, Record, Records};
use super::http1::Bytes;
use crate::message::{ExchangeId, Message, Side};

/// Requests that a connection may carry at once; one more is given up. Few web
/// servers send more than one.
const AT_ONCE_MAX: usize = 64;

/// Bytes of an END_REQUEST record.
const END: u64 = 16;

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    client: Records,
    server: Records,
    next: u32,
    open: VecDeque<Exchange>,
}

/// Whether bytes that a client sends open a request, and a record of their own:
/// `None` if more of them are needed to tell.
pub fn opens(bytes: &[u8]) -> Option<bool> {
    const SHAPE: [Option<u8>; HEADER] = [Some(1), None, None, None, Some(0), None, None, Some(0)];
    let fits = bytes
        .iter()
        .zip(SHAPE)
        .all(|(byte, shape)| shape.is_none_or(|shape| shape == *byte));
    match bytes.get(..HEADER) {
        _ if !fits || bytes.get(1).is_some_and(|kind| *kind != 1) => Some(false),
        None => None,
        Some(header) => Some(
            Record::read(Side::Client, header)
                .is_some_and(|record| record.kind == Kind::Begin && record.request != 0),
        ),
    }
}

impl Connection {
    /// A connection of which the next byte from the client opens a request.
    pub fn new() -> Self {
        Connection {
            client: Records::new(Side::Client, false),
            server: Records::new(Side::Server, true),
            next: 0,
            open: VecDeque::new(),
        }
    }

    /// Takes in bytes that `side` sent and adds what they amount to to `out`.
    pub fn feed(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let payload = bytes.captured();
        self.look_at_start(side, payload);
        let mut rest = payload;
        while !rest.is_empty() {
            let (used, piece) = self.records(side).take(rest);
            let (taken, after) = rest.split_at(used);
            rest = after;
            self.apply(side, piece, Some(taken), used as u64, &[], out);
        }
        let mut missing = bytes.len - payload.len() as u64;
        while missing > 0 {
            let (passed, piece) = self.records(side).pass(missing);
            if passed == 0 {
                self.lose(side, missing, bytes.tail, out);
                return;
            }
            missing -= passed as u64;
            // What ends the piece, not what follows it.
            let ends =
                usize::try_from(missing).map_or(0, |after| bytes.tail.len().saturating_sub(after));
            let tail = bytes.tail.get(..ends).unwrap_or(&[]);
            self.apply(side, piece, None, passed as u64, tail, out);
        }
    }

    /// `side` sends no more.
    pub fn close_side(&mut self, side: Side, out: &mut Vec<Message>) {
        if side == Side::Server {
            for exchange in std::mem::take(&mut self.open) {
                exchange.close(self.server.lost, out);
            }
        }
        self.records(side).lost = true;
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        self.close_side(Side::Client, out);
        self.close_side(Side::Server, out);
    }

    fn records(&mut self, side: Side) -> &mut Records {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The start of a feed is where a record is looked for when the position is
    /// not known.
    fn look_at_start(&mut self, side: Side, start: &[u8]) {
        if !self.records(side).lost {
            return;
        }
        let found = match side {
            Side::Client => opens(start) == Some(true),
            Side::Server => start
                .get(..HEADER)
                .and_then(|header| Record::read(side, header))
                .is_some_and(|record| self.open.iter().any(|open| open.wire == record.request)),
        };
        if found {
            self.records(side).restart();
        }
    }

    /// `bytes` of the stream were this; `content` if they were captured.
    fn apply(
        &mut self,
        side: Side,
        piece: Piece,
        content: Option<&[u8]>,
        bytes: u64,
        tail: &[u8],
        out: &mut Vec<Message>,
    ) {
        let (record, header, padding) = match piece {
            Piece::Nothing => return,
            Piece::Header(record) => (record, true, false),
            Piece::Content(record) => (record, false, false),
            Piece::Padding(record) => (record, false, true),
        };
        if header && record.kind == Kind::Begin {
            self.begin(record.request, out);
        }
        let several = self.open.len() > 1;
        let Some(at) = self
            .open
            .iter()
            .position(|open| open.wire == record.request)
        else {
            return;
        };
        let exchange = &mut self.open[at];
        // The whole header counts when its last byte is there.
        exchange.count(side, if header { HEADER as u64 } else { bytes });
        if several && !padding {
            out.push(Message::Carries {
                exchange: exchange.id,
            });
        }
        let ended = match (record.kind, header, padding) {
            (_, _, true) | (Kind::Begin | Kind::Other, _, _) => false,
            (Kind::Abort, _, _) => {
                exchange.aborted(out);
                true
            }
            (Kind::Params, _, _) if record.len == 0 => {
                exchange.end_variables(out);
                false
            }
            (Kind::Stdin, _, _) if record.len == 0 => {
                exchange.end_request(out);
                false
            }
            (Kind::Params, false, _) => {
                exchange.variables(content, bytes);
                false
            }
            (Kind::Stdout, false, _) => {
                exchange.stdout(content, bytes, tail, out);
                false
            }
            (Kind::End, false, _) => exchange.end_body(content, bytes, out),
            (Kind::Params | Kind::Stdin | Kind::Stdout | Kind::End, _, _) => false,
        };
        if ended {
            self.open.remove(at);
        }
    }

    fn begin(&mut self, wire: u16, out: &mut Vec<Message>) {
        // The end of the one before was not seen.
        if let Some(at) = self.open.iter().position(|open| open.wire == wire)
            && let Some(before) = self.open.remove(at)
        {
            before.close(true, out);
        }
        if self.open.is_empty() {
            // Nothing is being sent: the server's next byte opens a record.
            self.server.restart();
        } else if self.open.len() >= AT_ONCE_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.give_up(out);
        }
        let id = ExchangeId(self.next);
        self.next = self.next.wrapping_add(1);
        out.push(Message::RequestBegin { exchange: id });
        self.open.push_back(Exchange::new(id, wire));
    }

    /// Bytes that no record is known to hold. Of a server that answers a single
    /// request they may be its end.
    fn lose(&mut self, side: Side, missing: u64, tail: &[u8], out: &mut Vec<Message>) {
        let records = self.records(side);
        let left = missing.saturating_add(records.header_len as u64);
        let found = std::mem::replace(&mut records.lost, true);
        if side == Side::Client || found || self.open.len() != 1 {
            return;
        }
        // Empty records may end STDOUT and STDERR first (5.3).
        let is_end = (0..=2).any(|empty| left == END + empty * HEADER as u64);
        let [_, _, _, _, status, reserved @ ..] = tail else {
            return;
        };
        if is_end
            && *status <= 3
            && *reserved == [0, 0, 0]
            && let Some(mut exchange) = self.open.pop_front()
        {
            exchange.count(side, left);
            exchange.end(*status, out);
            self.server.restart();
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
