//! WebSocket (RFC 6455): the bytes of one direction after the handshake come in,
//! where its messages begin and end goes out.
//!
//! A message is one data frame, or several if it is fragmented; control frames
//! (ping, pong, close) are none. Payloads are passed over by their lengths and
//! not looked at, so masks and compression do not matter.
//!
//! Where a frame's header was not captured the position is lost. It is found
//! again at bytes that are whole frames from their first to their last.

use super::http1::Bytes;
use crate::message::Side;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its first frame opens.
    Begin,
    /// It ended, after so many bytes, headers included.
    End(u64),
    /// Bytes moved of which it is not known what messages they are.
    Untold,
}

/// Most bytes of a frame's header: two, a length of eight, a mask of four.
const HEADER_MAX: usize = 14;

/// Longest payload of a control frame (5.5).
const CONTROL_MAX: u64 = 125;

/// Where in its stream a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a header.
    Header,
    /// In a payload with this many bytes left.
    Payload(u64),
    /// Anywhere.
    Lost,
}

/// One direction of a WebSocket.
#[derive(Clone, Debug)]
pub struct Frames {
    from: Side,
    at: At,
    header: [u8; HEADER_MAX],
    header_len: u8,
    /// The frame under way ends its message.
    last: bool,
    /// The frame under way is a control frame.
    control: bool,
    /// Bytes of the data message under way.
    message: Option<u64>,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    last: bool,
    control: bool,
    /// It goes on with a message.
    continued: bool,
    len: u64,
}

/// What the bytes of a header amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It has more bytes.
    More,
    Whole(Header),
    Invalid,
}

impl Frames {
    /// The direction in which `from` sends, from its first byte after the
    /// handshake.
    pub fn new(from: Side) -> Self {
        Frames {
            from,
            at: At::Header,
            header: [0; HEADER_MAX],
            header_len: 0,
            last: false,
            control: false,
            message: None,
        }
    }

    /// Takes in bytes.
    pub fn feed(&mut self, bytes: Bytes<'_>, mut say: impl FnMut(Progress)) {
        if self.at == At::Lost && !self.find(bytes) {
            if bytes.len > 0 {
                say(Progress::Untold);
            }
            return;
        }
        let payload = bytes.captured();
        let mut rest = payload;
        while !rest.is_empty() && self.at != At::Lost {
            match self.at {
                At::Payload(left) => {
                    let take =
                        usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    rest = &rest[take..];
                    self.pass(take as u64, left, &mut say);
                }
                At::Header | At::Lost => {
                    let (first, after) = rest.split_at(1);
                    rest = after;
                    self.step_header(first[0], &mut say);
                }
            }
        }
        let missing = bytes.len - payload.len() as u64;
        match self.at {
            At::Payload(left) if left >= missing => self.pass(missing, left, &mut say),
            At::Header if missing == 0 => {}
            At::Header | At::Payload(_) | At::Lost => {
                self.at = At::Lost;
                self.message = None;
                say(Progress::Untold);
            }
        }
    }

    /// `bytes` of the `left` of a payload moved.
    fn pass(&mut self, bytes: u64, left: u64, say: &mut impl FnMut(Progress)) {
        if !self.control {
            self.message = self.message.map(|before| before.saturating_add(bytes));
        }
        if left > bytes {
            self.at = At::Payload(left - bytes);
        } else {
            self.end_frame(say);
        }
    }

    fn end_frame(&mut self, say: &mut impl FnMut(Progress)) {
        self.at = At::Header;
        self.header_len = 0;
        if self.last
            && !self.control
            && let Some(bytes) = self.message.take()
        {
            say(Progress::End(bytes));
        }
    }

    fn step_header(&mut self, byte: u8, say: &mut impl FnMut(Progress)) {
        let at = usize::from(self.header_len);
        if let Some(slot) = self.header.get_mut(at) {
            *slot = byte;
        }
        self.header_len += 1;
        let seen = self.header.get(..=at).unwrap_or(&self.header);
        // A data frame opens its message with its first byte.
        let opens = at == 0 && matches!(byte & 0x0f, 1 | 2);
        match look(self.from, seen) {
            Look::Invalid => self.at = At::Lost,
            Look::More if opens && self.message.is_none() => {
                self.message = Some(0);
                say(Progress::Begin);
            }
            Look::More => {}
            Look::Whole(header) if header.continued && self.message.is_none() => {
                // The rest of a message of which the beginning was not seen.
                self.begin_frame(header, say);
            }
            Look::Whole(header) => {
                if !header.control {
                    let len = u64::from(self.header_len);
                    self.message = self.message.map(|before| before.saturating_add(len));
                }
                self.begin_frame(header, say);
            }
        }
    }

    fn begin_frame(&mut self, header: Header, say: &mut impl FnMut(Progress)) {
        self.last = header.last;
        self.control = header.control;
        self.at = At::Payload(header.len);
        if header.len == 0 {
            self.end_frame(say);
        }
    }

    /// Whether bytes at an unknown position are whole frames: then the next one
    /// is known to open with them.
    fn find(&mut self, bytes: Bytes<'_>) -> bool {
        let payload = bytes.captured();
        let mut offset = 0_u64;
        loop {
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|at| payload.get(at..))
                .unwrap_or(&[]);
            let header = (1..=HEADER_MAX.min(rest.len()))
                .map(|len| (len, look(self.from, &rest[..len])))
                .find(|(_, look)| *look != Look::More);
            let Some((len, Look::Whole(header))) = header else {
                return false;
            };
            let end = offset.checked_add(len as u64);
            match end.and_then(|end| end.checked_add(header.len)) {
                Some(end) if end < bytes.len => offset = end,
                Some(end) if end == bytes.len => break,
                Some(_) | None => return false,
            }
        }
        *self = Frames::new(self.from);
        true
    }
}

/// Looks at the first bytes of a frame (5.2).
fn look(from: Side, seen: &[u8]) -> Look {
    let &[first, ref rest @ ..] = seen else {
        return Look::More;
    };
    let opcode = first & 0x0f;
    let (last, control) = (first & 0x80 != 0, opcode >= 8);
    // Of the reserved bits only that of compression (RFC 7692) is in use.
    let reserved = if opcode == 0 || control { 0x70 } else { 0x30 };
    if first & reserved != 0 || !matches!(opcode, 0..=2 | 8..=10) || (control && !last) {
        return Look::Invalid;
    }
    let &[second, ref rest @ ..] = rest else {
        return Look::More;
    };
    // Clients mask, servers do not (5.1).
    let masked = second & 0x80 != 0;
    if masked != (from == Side::Client) {
        return Look::Invalid;
    }
    let (len, rest) = match (second & 0x7f, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
            (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
        }
        (126 | 127, _) => return Look::More,
        (len, rest) => (u64::from(len), rest),
    };
    if len >> 63 != 0 || (control && len > CONTROL_MAX) {
        return Look::Invalid;
    }
    if masked && rest.len() < 4 {
        return Look::More;
    }
    Look::Whole(Header {
        last,
        control,
        continued: opcode == 0,
        len,
    })
}

#[cfg(test)]
mod tests;
