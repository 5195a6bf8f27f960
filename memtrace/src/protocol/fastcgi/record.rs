//! The records of one direction of a FastCGI connection (FastCGI 1.0, 3.3):
//! bytes come in, headers and runs of content go out.
//!
//! It knows where in its stream it stands. What a record means is for the
//! connection to say.

use crate::message::Side;

/// Bytes of a header.
pub(super) const HEADER: usize = 8;

/// The kinds of records that matter here, by their numbers (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Abort,
    End,
    Params,
    Stdin,
    Stdout,
    /// Management, STDERR, DATA: passed over.
    Other,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Which of the connection's requests; 0: the connection itself.
    pub(super) request: u16,
    pub(super) len: u16,
    padding: u8,
}

impl Record {
    /// Reads a header that `from` may send.
    pub(super) fn read(from: Side, header: &[u8]) -> Option<Record> {
        let &[1, kind, high, low, len_high, len_low, padding, _] = header else {
            return None;
        };
        let (request, len) = (
            u16::from_be_bytes([high, low]),
            u16::from_be_bytes([len_high, len_low]),
        );
        let kind = match (from, kind) {
            (Side::Client, 1) if len == 8 => Kind::Begin,
            (Side::Client, 2) if len == 0 => Kind::Abort,
            (Side::Client, 4) => Kind::Params,
            (Side::Client, 5) => Kind::Stdin,
            (Side::Client, 8 | 9) => Kind::Other,
            (Side::Server, 3) if len == 8 => Kind::End,
            (Side::Server, 6) => Kind::Stdout,
            (Side::Server, 7 | 10 | 11) => Kind::Other,
            _ => return None,
        };
        Some(Record {
            kind,
            request,
            len,
            padding,
        })
    }
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Part of a header, or what cannot be placed.
    Nothing,
    /// The rest of a header.
    Header(Record),
    /// Content.
    Content(Record),
    /// Padding.
    Padding(Record),
}

/// One direction.
#[derive(Clone, Debug)]
pub(super) struct Records {
    from: Side,
    header: [u8; HEADER],
    /// Bytes of a header that is not whole.
    pub(super) header_len: usize,
    /// The record under way, with what is left of its content and padding.
    record: Option<(Record, u32, u32)>,
    /// The position is unknown.
    pub(super) lost: bool,
}

impl Records {
    pub(super) fn new(from: Side, lost: bool) -> Self {
        Records {
            from,
            header: [0; HEADER],
            header_len: 0,
            record: None,
            lost,
        }
    }

    /// The next byte opens a record.
    pub(super) fn restart(&mut self) {
        *self = Records::new(self.from, false);
    }

    /// Takes the bytes off `bytes`, which are not empty, that are of one kind.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Piece) {
        if self.lost {
            return (bytes.len(), Piece::Nothing);
        }
        if self.record.is_some() {
            return self.pass(bytes.len() as u64);
        }
        let used = (HEADER - self.header_len).min(bytes.len());
        if let (Some(room), Some(new)) = (
            self.header.get_mut(self.header_len..self.header_len + used),
            bytes.get(..used),
        ) {
            room.copy_from_slice(new);
        }
        self.header_len += used;
        if self.header_len < HEADER {
            return (used, Piece::Nothing);
        }
        self.header_len = 0;
        let Some(record) = Record::read(self.from, &self.header) else {
            self.lost = true;
            return (used, Piece::Nothing);
        };
        let left = (record, u32::from(record.len), u32::from(record.padding));
        self.record = (left.1 + left.2 > 0).then_some(left);
        (used, Piece::Header(record))
    }

    /// Passes over up to `bytes` of the record under way. Returns how many that
    /// were, and what.
    pub(super) fn pass(&mut self, bytes: u64) -> (usize, Piece) {
        let Some((record, content, padding)) = &mut self.record else {
            return (0, Piece::Nothing);
        };
        let (left, piece) = if *content > 0 {
            (content, Piece::Content(*record))
        } else {
            (padding, Piece::Padding(*record))
        };
        let take = u64::from(*left).min(bytes) as u32;
        *left -= take;
        if matches!(self.record, Some((_, 0, 0))) {
            self.record = None;
        }
        (take as usize, piece)
    }
}
