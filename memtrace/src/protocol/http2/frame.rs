//! Frame headers (RFC 9113, 4.1): nine bytes come in, what the frame is goes
//! out, and whether a frame can look like that.

use crate::message::Side;

/// Bytes of a frame header.
pub(super) const HEADER: usize = 9;

/// Largest length of a frame of an unknown kind that is believed: the default of
/// SETTINGS_MAX_FRAME_SIZE.
const UNKNOWN_KIND_MAX: u32 = 16_384;

/// What a frame is (RFC 9113, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension; whoever does not know it ignores it.
    Other,
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    flags: u8,
    /// The reserved bit is set, which no sender does.
    reserved: bool,
    /// 0 is the connection itself.
    pub(super) stream: u32,
    /// Bytes of the payload.
    pub(super) len: u32,
}

impl Frame {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Frame {
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                2 => Kind::Priority,
                3 => Kind::Reset,
                4 => Kind::Settings,
                5 => Kind::PushPromise,
                6 => Kind::Ping,
                7 => Kind::GoAway,
                8 => Kind::WindowUpdate,
                9 => Kind::Continuation,
                _ => Kind::Other,
            },
            flags,
            reserved: s0 & 0x80 != 0,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            len: u32::from_be_bytes([0, l0, l1, l2]),
        }
    }

    /// The sender's last frame of the stream.
    pub(super) fn ends_stream(self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & 0x1 != 0
    }

    /// The last frame of a header block.
    pub(super) fn ends_headers(self) -> bool {
        self.flags & 0x4 != 0
    }

    /// Its first byte is the number of its last bytes that are padding.
    pub(super) fn is_padded(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::PushPromise) && self.flags & 0x8 != 0
    }

    /// Bytes before its header block, the length of the padding not included.
    pub(super) fn before_block(self) -> usize {
        match self.kind {
            // Dependency and weight.
            Kind::Headers if self.flags & 0x20 != 0 => 5,
            // The promised stream.
            Kind::PushPromise => 4,
            _ => 0,
        }
    }

    /// It belongs to the message of an exchange.
    pub(super) fn is_message(self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers | Kind::Continuation)
    }

    /// Whether `side` can have sent such a frame: kinds have their lengths and
    /// streams (RFC 9113, 6.1 to 6.10).
    pub(super) fn is_plausible(self, side: Side) -> bool {
        let on_stream = self.stream != 0;
        !self.reserved
            && match self.kind {
                Kind::Data | Kind::Continuation => on_stream,
                // Even streams are those that a server pushes.
                Kind::Headers => on_stream && (side == Side::Server || self.stream % 2 == 1),
                Kind::Priority => on_stream && self.len == 5,
                Kind::Reset => on_stream && self.len == 4,
                Kind::Settings => {
                    let is_ack = self.flags & 0x1 != 0;
                    !on_stream && self.len.is_multiple_of(6) && (self.len == 0 || !is_ack)
                }
                Kind::PushPromise => side == Side::Server && self.stream % 2 == 1 && self.len >= 4,
                Kind::Ping => !on_stream && self.len == 8,
                Kind::GoAway => !on_stream && self.len >= 8,
                Kind::WindowUpdate => self.len == 4,
                Kind::Other => self.len <= UNKNOWN_KIND_MAX,
            }
    }
}
