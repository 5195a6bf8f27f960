//! The field lines of a head or of chunked trailers, byte by byte: the original
//! byte comes in, the byte to store goes out, and what frames the message is
//! remembered.
//!
//! Field values are masked, apart from the few that framing and reporting need.
//! Names are kept if their colon is in the same feed; the names that matter are
//! followed across feeds. It is lenient: a line that is no field is passed over,
//! as servers differ in what they refuse. Masking masked fields changes nothing.

use super::probe::is_token_byte;
use super::{NAME_MASK, VALUE_MASK};

/// The fields whose values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ContentLength,
    TransferEncoding,
    Connection,
    /// Kept for the report, and read by nothing here.
    Upgrade,
    Expect,
    ContentType,
}

/// Names of the fields, in lower case.
const FIELDS: [(&[u8], Field); 7] = [
    (b"content-length", Field::ContentLength),
    (b"transfer-encoding", Field::TransferEncoding),
    (b"connection", Field::Connection),
    (b"proxy-connection", Field::Connection),
    (b"upgrade", Field::Upgrade),
    (b"expect", Field::Expect),
    (b"content-type", Field::ContentType),
];

/// Longest token that is compared with anything (`100-continue`), bytes.
const TOKEN_MAX: usize = 12;

/// Where in the lines the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    /// After a CR that opened a line.
    LineStartCr,
    Name,
    Value,
}

/// A comma-separated member under way, in lower case.
#[derive(Clone, Copy, Debug)]
struct Token {
    bytes: [u8; TOKEN_MAX],
    /// More than `TOKEN_MAX`: no token we know.
    len: u8,
}

impl Token {
    const EMPTY: Token = Token {
        bytes: [0; TOKEN_MAX],
        len: 0,
    };

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            *slot = byte.to_ascii_lowercase();
        }
        self.len = self.len.saturating_add(1);
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(b"?")
    }
}

/// What the field lines say about the framing of their message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// Length of the body, bytes.
    pub(super) content_length: Option<u64>,
    /// A length that is no number, or several that differ.
    pub(super) bad_length: bool,
    /// The last transfer coding is `chunked`.
    pub(super) chunked: bool,
    /// The last transfer coding is neither `chunked` nor `identity`.
    pub(super) other_coding: bool,
    /// `Connection: close`
    pub(super) close: bool,
    /// `Connection: keep-alive`
    pub(super) keep_alive: bool,
    /// `Expect: 100-continue`
    pub(super) expect_continue: bool,
}

/// Field lines under way.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    at: At,
    /// Bytes of the name so far; stops counting when it can match no more.
    name_len: u8,
    /// One bit for each of `FIELDS` that the name so far fits.
    candidates: u8,
    name_visible: bool,
    field: Option<Field>,
    token: Token,
    /// Digits of a length under way.
    number: Option<u64>,
    /// This length line has shown a number.
    number_seen: bool,
    /// Within parameters, after a `;`.
    parameters: bool,
    framing: Framing,
}

impl Fields {
    pub(super) fn new() -> Self {
        Fields {
            at: At::LineStart,
            name_len: 0,
            candidates: 0,
            name_visible: false,
            field: None,
            token: Token::EMPTY,
            number: None,
            number_seen: false,
            parameters: false,
            framing: Framing::default(),
        }
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// The next byte, which opens `rest`: its masked form, and whether it ended
    /// the lines.
    pub(super) fn step(&mut self, rest: &[u8], byte: u8) -> (u8, bool) {
        match (self.at, byte) {
            (At::LineStart | At::LineStartCr, b'\n') => (byte, true),
            (At::LineStart, b'\r') => {
                self.at = At::LineStartCr;
                (byte, false)
            }
            // A folded line goes on with the value of the one before.
            (At::LineStart, b' ' | b'\t') => {
                self.at = At::Value;
                (byte, false)
            }
            (At::LineStart | At::LineStartCr, _) => {
                self.at = At::Name;
                self.name_len = 0;
                self.candidates = u8::MAX;
                self.name_visible = name_is_closed(rest);
                self.field = None;
                (self.name(byte), false)
            }
            (At::Name, b'\n') => {
                self.at = At::LineStart;
                (byte, false)
            }
            (At::Name, _) => (self.name(byte), false),
            (At::Value, b'\n') => {
                self.end_value();
                self.at = At::LineStart;
                (byte, false)
            }
            (At::Value, b'\r') => {
                self.end_token();
                self.end_number();
                (byte, false)
            }
            (At::Value, _) => (self.value(byte), false),
        }
    }

    fn name(&mut self, byte: u8) -> u8 {
        if byte == b':' {
            let len = usize::from(self.name_len);
            self.field = FIELDS
                .iter()
                .enumerate()
                .find(|(index, (name, _))| self.candidates & (1 << index) != 0 && name.len() == len)
                .map(|(_, &(_, field))| field);
            self.at = At::Value;
            self.token = Token::EMPTY;
            self.number = None;
            self.number_seen = false;
            self.parameters = false;
            return byte;
        }
        let lower = byte.to_ascii_lowercase();
        for (index, (name, _)) in FIELDS.iter().enumerate() {
            if name.get(usize::from(self.name_len)) != Some(&lower) {
                self.candidates &= !(1 << index);
            }
        }
        self.candidates &= (1 << FIELDS.len()) - 1;
        if self.candidates != 0 {
            // At most the length of the longest known name.
            self.name_len += 1;
        }
        if self.candidates != 0 || byte == b'\r' || (self.name_visible && is_token_byte(byte)) {
            byte
        } else {
            NAME_MASK
        }
    }

    fn value(&mut self, byte: u8) -> u8 {
        match self.field {
            None => VALUE_MASK,
            Some(Field::ContentLength) => self.length(byte),
            Some(Field::TransferEncoding | Field::Connection | Field::Expect) => match byte {
                b',' => {
                    self.end_token();
                    self.parameters = false;
                    byte
                }
                b' ' | b'\t' => {
                    self.end_token();
                    byte
                }
                _ if self.parameters => VALUE_MASK,
                b';' => {
                    self.end_token();
                    self.parameters = true;
                    byte
                }
                _ => {
                    let kept = if is_token_byte(byte) {
                        byte
                    } else {
                        VALUE_MASK
                    };
                    self.token.push(kept);
                    kept
                }
            },
            Some(Field::Upgrade | Field::ContentType) => {
                if self.parameters {
                    return VALUE_MASK;
                }
                self.parameters = byte == b';';
                if is_token_byte(byte) || b" \t/,;".contains(&byte) {
                    byte
                } else {
                    VALUE_MASK
                }
            }
        }
    }

    fn length(&mut self, byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => {
                let number = self.number.unwrap_or(0).checked_mul(10);
                self.number = number.and_then(|n| n.checked_add(u64::from(byte - b'0')));
                self.framing.bad_length |= self.number.is_none();
                self.number_seen = true;
                byte
            }
            b' ' | b'\t' | b',' => {
                self.end_number();
                byte
            }
            _ => {
                self.framing.bad_length = true;
                VALUE_MASK
            }
        }
    }

    fn end_number(&mut self) {
        if let Some(number) = self.number.take() {
            let before = self.framing.content_length.replace(number);
            self.framing.bad_length |= before.is_some_and(|before| before != number);
        }
    }

    fn end_token(&mut self) {
        let token = std::mem::replace(&mut self.token, Token::EMPTY);
        let framing = &mut self.framing;
        match (self.field, token.text()) {
            (_, b"") => {}
            (Some(Field::TransferEncoding), coding) => {
                framing.chunked = coding == b"chunked";
                framing.other_coding = coding != b"chunked" && coding != b"identity";
            }
            (Some(Field::Connection), b"close") => framing.close = true,
            (Some(Field::Connection), b"keep-alive") => framing.keep_alive = true,
            (Some(Field::Expect), b"100-continue") => framing.expect_continue = true,
            (
                Some(
                    Field::Connection
                    | Field::Expect
                    | Field::ContentLength
                    | Field::Upgrade
                    | Field::ContentType,
                )
                | None,
                _,
            ) => {}
        }
    }

    fn end_value(&mut self) {
        self.end_token();
        if self.field == Some(Field::ContentLength) {
            self.end_number();
            self.framing.bad_length |= !self.number_seen;
        }
    }
}

/// Does a field name with its colon open these bytes?
fn name_is_closed(rest: &[u8]) -> bool {
    rest.iter().find(|&&byte| !is_token_byte(byte)) == Some(&b':')
}
