//! The head of one message, byte by byte: the original byte comes in, the byte
//! to store goes out, and what the head says is remembered.
//!
//! Nothing is buffered but the method and the (bounded) target, so heads may be
//! of any length and arrive in pieces of any size. It does not decide what
//! follows the head; see `connection`.

use super::fields::{Fields, Framing};
use super::probe::{METHOD_MAX, VERSION_PREFIX, is_method_prefix, is_token_byte, known_method};
use super::target::Target;
use super::{BAD_MASK, Defect, NAME_MASK, Side};

/// Where in the head the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Method,
    Target,
    /// After this many bytes of `HTTP/1.` and the minor version.
    Version(u8),
    AfterVersion,
    /// After this many digits of the status code.
    Status(u8),
    ReasonPhrase,
    /// After the CR of the start line.
    LineEnd,
    Fields,
}

/// What a byte did to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
    Malformed(Defect),
}

/// A head under way.
#[derive(Clone, Debug)]
pub(super) struct Head {
    side: Side,
    at: At,
    /// Bytes of the head so far.
    pub(super) bytes: u64,
    method: [u8; METHOD_MAX],
    method_len: u8,
    target: Target,
    /// The 1 of HTTP/1.1.
    pub(super) minor_version: u8,
    /// The status code, once the start line is complete.
    pub(super) status: u16,
    fields: Fields,
}

impl Head {
    pub(super) fn new(side: Side) -> Self {
        Head {
            side,
            at: match side {
                Side::Client => At::Method,
                Side::Server => At::Version(0),
            },
            bytes: 0,
            method: [0; METHOD_MAX],
            method_len: 0,
            target: Target::new(false),
            minor_version: 1,
            status: 0,
            fields: Fields::new(),
        }
    }

    /// The method as far as it is known by name; masked beyond.
    pub(super) fn method(&self) -> &[u8] {
        self.method
            .get(..usize::from(self.method_len))
            .unwrap_or(&[])
    }

    /// The masked target; ends in `…` if it was not received whole.
    pub(super) fn target(&self) -> String {
        self.target.text(self.at == At::Target)
    }

    /// What the fields so far say.
    pub(super) fn framing(&self) -> Framing {
        self.fields.framing()
    }

    /// The start line is complete.
    pub(super) fn in_fields(&self) -> bool {
        self.at == At::Fields
    }

    /// Enough is known to name the message: a request's method and part of its
    /// target, or a response's status.
    pub(super) fn is_named(&self) -> bool {
        match self.at {
            At::Method | At::Status(_) => false,
            At::Target => !self.target.is_empty(),
            At::Version(_) | At::AfterVersion => self.side == Side::Client,
            At::ReasonPhrase | At::LineEnd | At::Fields => true,
        }
    }

    /// The next byte, which opens `rest`: its masked form, and what it did.
    pub(super) fn step(&mut self, rest: &[u8], byte: u8) -> (u8, Progress) {
        self.bytes += 1;
        match self.at {
            At::Fields => {
                let (masked, done) = self.fields.step(rest, byte);
                let progress = if done { Progress::Done } else { Progress::More };
                (masked, progress)
            }
            At::Method => self.step_method(byte),
            At::Target => self.step_target(rest, byte),
            At::Version(seen) => self.step_version(byte, seen),
            At::AfterVersion => match (self.side, byte) {
                (Side::Client, b' ') => (byte, Progress::More),
                (Side::Server, b' ') => self.turn(At::Status(0), byte),
                (Side::Client, b'\r') => self.turn(At::LineEnd, byte),
                (Side::Client, b'\n') => self.turn(At::Fields, byte),
                (Side::Client, _) => malformed(Defect::Version),
                (Side::Server, _) => malformed(Defect::StatusLine),
            },
            At::Status(digits) => self.step_status(byte, digits),
            At::ReasonPhrase => match byte {
                b'\n' => self.turn(At::Fields, byte),
                _ => (byte, Progress::More),
            },
            At::LineEnd => match byte {
                b'\n' => self.turn(At::Fields, byte),
                _ => malformed(match self.side {
                    Side::Client => Defect::Version,
                    Side::Server => Defect::StatusLine,
                }),
            },
        }
    }

    fn turn(&mut self, at: At, byte: u8) -> (u8, Progress) {
        self.at = at;
        (byte, Progress::More)
    }

    fn step_method(&mut self, byte: u8) -> (u8, Progress) {
        if byte == b' ' && self.method_len > 0 {
            self.target = Target::new(known_method(self.method()) == Some("CONNECT"));
            return self.turn(At::Target, byte);
        }
        let len = usize::from(self.method_len);
        let Some(slot) = self.method.get_mut(len).filter(|_| is_token_byte(byte)) else {
            return malformed(Defect::Method);
        };
        *slot = byte;
        if !is_method_prefix(&self.method[..=len]) {
            self.method[len] = NAME_MASK;
        }
        self.method_len += 1;
        (self.method[len], Progress::More)
    }

    fn step_target(&mut self, rest: &[u8], byte: u8) -> (u8, Progress) {
        match byte {
            b' ' if self.target.is_empty() => (byte, Progress::More),
            b' ' => self.turn(At::Version(0), byte),
            // A line without a version: HTTP/0.9, or no HTTP at all.
            b'\r' | b'\n' => (byte, Progress::Malformed(Defect::Version)),
            0..b' ' | 0x7f => malformed(Defect::Target),
            _ => (self.target.step(rest, byte), Progress::More),
        }
    }

    fn step_version(&mut self, byte: u8, seen: u8) -> (u8, Progress) {
        match VERSION_PREFIX.get(usize::from(seen)) {
            Some(&expected) if byte == expected => self.turn(At::Version(seen + 1), byte),
            None if byte.is_ascii_digit() => {
                self.minor_version = byte - b'0';
                self.turn(At::AfterVersion, byte)
            }
            Some(_) | None => malformed(match self.side {
                Side::Client => Defect::Version,
                Side::Server => Defect::StatusLine,
            }),
        }
    }

    fn step_status(&mut self, byte: u8, digits: u8) -> (u8, Progress) {
        match (digits, byte) {
            (0, b' ') => (byte, Progress::More),
            (0..=2, b'0'..=b'9') => {
                self.status = self.status * 10 + u16::from(byte - b'0');
                if digits == 2 && self.status < 100 {
                    return (byte, Progress::Malformed(Defect::StatusLine));
                }
                self.turn(At::Status(digits + 1), byte)
            }
            (3, b' ') => self.turn(At::ReasonPhrase, byte),
            (3, b'\r') => self.turn(At::LineEnd, byte),
            (3, b'\n') => self.turn(At::Fields, byte),
            (_, _) => malformed(Defect::StatusLine),
        }
    }
}

/// A byte that fits nowhere is stored as one that fits nowhere either, so that
/// the masked bytes fail at the same place.
fn malformed(defect: Defect) -> (u8, Progress) {
    (BAD_MASK, Progress::Malformed(defect))
}
