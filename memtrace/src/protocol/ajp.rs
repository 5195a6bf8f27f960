//! AJP 1.3 between a web server and its application, seen at the application:
//! the bytes of one connection come in, where its requests and responses begin
//! and end goes out as [`Message`]s.
//!
//! A connection carries one request after another, each in a FORWARD_REQUEST
//! packet and, if it has a body, in packets of data: the first at once, others
//! when they are asked for (GET_BODY_CHUNK). Its first such packet opens it; pings
//! are passed over. Bytes count with their packets' headers.
//!
//! Events within a response are not looked for.

mod forward;

use self::forward::Forward;
use super::http1::{Bytes, method_name};
use crate::message::{Abandoned, ExchangeId, Message, Protocol, Side};

/// Bytes of a packet's header: two that say who sends it, its length in two.
const HEADER: usize = 4;

/// Bytes held of a FORWARD_REQUEST: twice the usual limit of a packet (8 KiB).
const FORWARD_MAX: usize = 16 << 10;

/// Bytes held of other payloads: the code and a number.
const SHORT: usize = 3;

/// Codes of payloads that a client sends without a request: shutdown, and two
/// forms of a ping.
const WITHOUT_REQUEST: [u8; 3] = [7, 8, 10];

/// Codes of payloads that a server sends (CPONG apart).
const SEND_BODY_CHUNK: u8 = 3;
const SEND_HEADERS: u8 = 4;
const END_RESPONSE: u8 = 5;
const GET_BODY_CHUNK: u8 = 6;

/// An END_RESPONSE packet, but for its last byte.
const END: &[u8; 5] = b"AB\0\x02\x05";

/// One direction.
#[derive(Debug)]
struct Packets {
    magic: [u8; 2],
    header: [u8; HEADER],
    header_len: usize,
    /// Bytes of the payload under way that have not come.
    left: usize,
    /// The first bytes of the payload under way.
    held: Vec<u8>,
    /// The position is unknown.
    lost: bool,
}

/// What the bytes at hand have brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    More,
    /// A whole packet.
    Packet,
}

/// A request that is not over.
#[derive(Debug)]
struct Exchange {
    id: ExchangeId,
    /// Bytes of the body that have not come, if that is known.
    body_left: Option<u64>,
    received: bool,
    responding: bool,
    status: Option<u16>,
    request_bytes: u64,
    response_bytes: u64,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    client: Packets,
    server: Packets,
    next: u32,
    open: Option<Exchange>,
    /// The client's next packet is data.
    data_due: bool,
    /// The FORWARD_REQUEST under way has opened its request.
    opening: bool,
}

/// Whether bytes that a client sends open a conversation: `None` if more of them
/// are needed to tell.
pub fn opens(bytes: &[u8]) -> Option<bool> {
    let fits = bytes
        .iter()
        .zip([0x12, 0x34])
        .all(|(byte, magic)| *byte == magic);
    match *bytes {
        _ if !fits => Some(false),
        [_, _, high, low, code, ..] => {
            let len = u16::from_be_bytes([high, low]);
            Some(opens_request(len, code) || (WITHOUT_REQUEST.contains(&code) && len == 1))
        }
        _ => None,
    }
}

/// The shortest FORWARD_REQUEST has empty strings and no headers.
fn opens_request(len: u16, code: u8) -> bool {
    code == forward::CODE && len > 16
}

impl Packets {
    fn new(magic: [u8; 2], lost: bool) -> Self {
        Packets {
            magic,
            header: [0; HEADER],
            header_len: 0,
            left: 0,
            held: Vec::new(),
            lost,
        }
    }

    fn restart(&mut self) {
        *self = Packets::new(self.magic, false);
    }

    /// Takes bytes off `bytes`, which are not empty, up to the end of a packet.
    fn take(&mut self, bytes: &[u8]) -> (usize, Step) {
        if self.lost {
            return (bytes.len(), Step::More);
        }
        if self.header_len < HEADER {
            let used = bytes.len().min(HEADER - self.header_len);
            for (slot, byte) in self.header.iter_mut().skip(self.header_len).zip(bytes) {
                *slot = *byte;
            }
            self.header_len += used;
            if self.header_len == HEADER {
                let [first, second, high, low] = self.header;
                self.lost = [first, second] != self.magic;
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.held = Vec::new();
                if self.left == 0 && !self.lost {
                    return (used, self.end_packet());
                }
            }
            return (used, Step::More);
        }
        let used = bytes.len().min(self.left);
        let payload = bytes.get(..used).unwrap_or(&[]);
        let is_forward = self.held.first().or(payload.first()) == Some(&forward::CODE);
        let limit = if is_forward { FORWARD_MAX } else { SHORT };
        let room = limit.saturating_sub(self.held.len()).min(used);
        self.held.extend_from_slice(&payload[..room]);
        (used, self.pass(used))
    }

    /// `bytes` of the payload are past.
    fn pass(&mut self, bytes: usize) -> Step {
        self.left -= bytes;
        if self.left == 0 {
            self.end_packet()
        } else {
            Step::More
        }
    }

    fn end_packet(&mut self) -> Step {
        self.header_len = 0;
        Step::Packet
    }

    /// A payload is under way.
    fn in_payload(&self) -> bool {
        !self.lost && self.header_len == HEADER
    }
}

impl Connection {
    /// A connection of which the next byte from the client opens a packet.
    pub fn new() -> Self {
        Connection {
            client: Packets::new([0x12, 0x34], false),
            server: Packets::new(*b"AB", true),
            next: 0,
            open: None,
            data_due: false,
            opening: false,
        }
    }

    /// Takes in bytes that `side` sent and adds what they amount to to `out`.
    pub fn feed(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let payload = bytes.captured();
        self.look_at_start(side, payload);
        let mut rest = payload;
        while !rest.is_empty() {
            let (used, step) = self.packets(side).take(rest);
            rest = rest.get(used..).unwrap_or(&[]);
            if side == Side::Client {
                self.begin(out);
            }
            self.apply(side, step, out);
        }
        let missing = bytes.len - payload.len() as u64;
        if missing == 0 {
            return;
        }
        let packets = self.packets(side);
        let left = packets.left as u64;
        if packets.in_payload() && missing <= left {
            let step = packets.pass(missing as usize);
            self.apply(side, step, out);
            return;
        }
        packets.lost = true;
        let ends = bytes
            .tail
            .strip_suffix(&[0])
            .or(bytes.tail.strip_suffix(&[1]));
        if side == Side::Server && ends.is_some_and(|tail| tail.ends_with(END)) {
            self.end_response(out);
            self.server.restart();
        }
    }

    /// `side` sends no more.
    pub fn close_side(&mut self, side: Side, out: &mut Vec<Message>) {
        if side == Side::Server {
            self.leave(out);
        }
        self.packets(side).lost = true;
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        self.close_side(Side::Client, out);
        self.close_side(Side::Server, out);
    }

    fn packets(&mut self, side: Side) -> &mut Packets {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The start of a feed is where a packet is looked for when the position is
    /// not known.
    fn look_at_start(&mut self, side: Side, start: &[u8]) {
        let found = match (side, start) {
            _ if !self.packets(side).lost => false,
            (Side::Client, start) => opens(start) == Some(true),
            (Side::Server, [b'A', b'B', _, _, code, ..]) => {
                (SEND_BODY_CHUNK..=GET_BODY_CHUNK).contains(code)
            }
            (Side::Server, _) => false,
        };
        if found {
            self.packets(side).restart();
            if side == Side::Client {
                self.data_due = false;
            }
        }
    }

    /// The first byte of a FORWARD_REQUEST opens a request.
    fn begin(&mut self, out: &mut Vec<Message>) {
        let is_forward = self.client.held.first() == Some(&forward::CODE);
        if self.opening || self.data_due || self.client.lost || !is_forward {
            return;
        }
        // The end of the one before was not seen.
        self.leave(out);
        self.opening = true;
        self.server.restart();
        let id = ExchangeId(self.next);
        self.next = self.next.wrapping_add(1);
        out.push(Message::RequestBegin { exchange: id });
        self.open = Some(Exchange {
            id,
            body_left: None,
            received: false,
            responding: false,
            status: None,
            request_bytes: 0,
            response_bytes: 0,
        });
    }

    fn apply(&mut self, side: Side, step: Step, out: &mut Vec<Message>) {
        if step == Step::More {
            return;
        }
        let packets = self.packets(side);
        let held = std::mem::take(&mut packets.held);
        let [.., high, low] = packets.header;
        let len = u16::from_be_bytes([high, low]);
        if let Some(open) = &mut self.open {
            let bytes = HEADER as u64 + u64::from(len);
            match side {
                Side::Client => open.request_bytes += bytes,
                Side::Server => open.response_bytes += bytes,
            }
        }
        match side {
            Side::Client if std::mem::take(&mut self.opening) => {
                let mut forward = forward::read(&held);
                forward.complete &= held.len() == usize::from(len);
                self.head(forward, out);
            }
            Side::Client if std::mem::take(&mut self.data_due) => self.data(&held, out),
            Side::Client => {}
            Side::Server => self.answer(&held, out),
        }
    }

    fn head(&mut self, forward: Forward, out: &mut Vec<Message>) {
        let Some(open) = &mut self.open else { return };
        out.push(Message::RequestHead {
            exchange: open.id,
            method: method_name(forward.method),
            target: forward.target,
            protocol: Protocol::Ajp,
            keep_alive: true,
            expect_continue: false,
            head_bytes: open.request_bytes,
            complete: forward.complete,
        });
        open.body_left = forward.content_length;
        match forward.content_length {
            // The first of its data comes without being asked for.
            Some(1..) => self.data_due = true,
            Some(0) => open.end_request(out),
            // Chunked, or no body at all: the response will show.
            None => {}
        }
    }

    /// A packet of data: its length in two bytes, and as many.
    fn data(&mut self, held: &[u8], out: &mut Vec<Message>) {
        let Some(open) = &mut self.open else { return };
        let len = match held {
            [high, low, ..] => u64::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        open.body_left = open.body_left.map(|left| left.saturating_sub(len));
        // An empty packet ends a body of unknown length.
        if len == 0 || open.body_left == Some(0) {
            open.end_request(out);
        }
    }

    fn answer(&mut self, held: &[u8], out: &mut Vec<Message>) {
        let Some(open) = &mut self.open else { return };
        match *held {
            [GET_BODY_CHUNK, ..] => self.data_due = true,
            [SEND_HEADERS, high, low] => {
                open.begin_response(out);
                let status = u16::from_be_bytes([high, low]);
                open.status = Some(status);
                out.push(Message::ResponseHead {
                    exchange: open.id,
                    status,
                    head_bytes: open.response_bytes,
                });
            }
            [SEND_BODY_CHUNK, ..] => open.begin_response(out),
            [END_RESPONSE, ..] => self.end_response(out),
            _ => {}
        }
    }

    fn end_response(&mut self, out: &mut Vec<Message>) {
        self.data_due = false;
        if let Some(mut open) = self.open.take() {
            open.begin_response(out);
            open.end_request(out);
            out.push(Message::ResponseEnd {
                exchange: open.id,
                response_bytes: open.response_bytes,
                request_bytes: open.request_bytes,
            });
        }
    }

    /// Nothing more is sent for the request that is open.
    fn leave(&mut self, out: &mut Vec<Message>) {
        if self.server.lost && self.open.as_ref().is_some_and(|open| open.responding) {
            self.end_response(out);
        } else if let Some(open) = self.open.take() {
            let how = match (open.responding, open.received) {
                (true, _) => Abandoned::PartialResponse,
                (false, true) => Abandoned::NoResponse,
                (false, false) => Abandoned::PartialRequest,
            };
            out.push(Message::RequestAbandoned {
                exchange: open.id,
                how,
                request_bytes: open.request_bytes,
                response_bytes: open.response_bytes,
                status: open.status,
            });
        }
        self.opening = false;
        self.data_due = false;
    }
}

impl Exchange {
    fn begin_response(&mut self, out: &mut Vec<Message>) {
        if !std::mem::replace(&mut self.responding, true) {
            out.push(Message::ResponseBegin { exchange: self.id });
        }
    }

    fn end_request(&mut self, out: &mut Vec<Message>) {
        if !std::mem::replace(&mut self.received, true) {
            out.push(Message::RequestEnd {
                exchange: self.id,
                request_bytes: self.request_bytes,
            });
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
