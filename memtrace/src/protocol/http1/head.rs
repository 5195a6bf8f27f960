//! The head of one message, line by line: bytes come in, and what the head says
//! is remembered.
//!
//! Nothing is held but a line that comes in pieces and the reduced target, so
//! heads may be of any length and arrive in pieces of any size. It does not
//! decide what follows the head; see `framing`.

use super::fields::{Fields, Framing};
use super::probe::{METHOD_MAX, VERSION_PREFIX, is_token_byte, known_method};
use super::{Defect, Side};
use crate::protocol::lines::{Line, Lines};
use crate::protocol::target::{self, NAME_MASK};

/// What bytes did to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
    Malformed(Defect),
}

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The line has not come.
    Awaited,
    /// Of a request.
    Request {
        /// `None`: not known by name.
        method: Option<&'static str>,
        /// Reduced; see [`target::reduce`].
        target: String,
        /// The 1 of HTTP/1.1.
        minor_version: u8,
    },
    /// Of a response.
    Response {
        /// Its code.
        status: u16,
    },
}

/// A head under way.
#[derive(Clone, Debug)]
pub(super) struct Head {
    side: Side,
    /// Bytes of the head so far.
    pub(super) bytes: u64,
    pub(super) start: Start,
    lines: Lines,
    fields: Fields,
}

impl Head {
    pub(super) fn new(side: Side) -> Self {
        Head {
            side,
            bytes: 0,
            start: Start::Awaited,
            lines: Lines::default(),
            fields: Fields::new(),
        }
    }

    /// What the fields so far say.
    pub(super) fn framing(&self) -> Framing {
        self.fields.framing()
    }

    /// The start line is complete.
    pub(super) fn in_fields(&self) -> bool {
        self.start != Start::Awaited
    }

    /// Nothing follows that could be captured. Says whether enough is known to
    /// name the message: a request's method and part of its target, or a
    /// response's status.
    pub(super) fn cut(&mut self) -> bool {
        if self.start == Start::Awaited {
            let line = Line {
                text: self.lines.pending(),
                cut: true,
            };
            if let Ok(start) = start(self.side, line) {
                self.start = start;
            }
        }
        self.start != Start::Awaited
    }

    /// Takes in bytes, up to the end of the head. Returns how many that were.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let mut rest = bytes;
        let mut progress = Progress::More;
        while progress == Progress::More && !rest.is_empty() {
            let (used, line) = self.lines.take(rest);
            rest = &rest[used..];
            progress = match line {
                Some(line) if self.start == Start::Awaited => match start(self.side, line) {
                    Ok(start) => {
                        self.start = start;
                        Progress::More
                    }
                    Err(defect) => Progress::Malformed(defect),
                },
                Some(Line { text: [], .. }) => Progress::Done,
                Some(line) => {
                    self.fields.line(line);
                    Progress::More
                }
                None if self.start == Start::Awaited => {
                    match early_defect(self.side, self.lines.pending()) {
                        Some(defect) => Progress::Malformed(defect),
                        None => Progress::More,
                    }
                }
                None => Progress::More,
            };
        }
        let used = bytes.len() - rest.len();
        self.bytes += used as u64;
        (used, progress)
    }
}

fn start(side: Side, line: Line<'_>) -> Result<Start, Defect> {
    match side {
        Side::Client => request_line(line),
        Side::Server => status_line(line.text)
            .map(|status| Start::Response { status })
            .ok_or(Defect::StatusLine),
    }
}

/// `METHOD target HTTP/1.x`; of a cut line, as far as it goes.
fn request_line(line: Line<'_>) -> Result<Start, Defect> {
    let (method, rest) = split_word(line.text);
    if !is_method(method) || rest.is_none() {
        return Err(Defect::Method);
    }
    let rest = rest.unwrap_or(b"").trim_ascii_start();
    let (target, version) = split_word(rest);
    if target.iter().any(|&byte| byte < b' ' || byte == 0x7f) {
        return Err(Defect::Target);
    }
    let minor_version = match version {
        _ if target.is_empty() => None,
        // Whatever follows, nothing newer speaks this syntax.
        _ if line.cut => Some(1),
        Some(version) => minor_version(version.trim_ascii_end()),
        // A line without a version: HTTP/0.9, or no HTTP at all.
        None => None,
    };
    let method = known_method(method);
    Ok(Start::Request {
        method,
        target: match method {
            // Its target is a host.
            Some("CONNECT") => String::new(),
            Some(_) | None => target::reduce(target, line.cut && version.is_none()),
        },
        minor_version: minor_version.ok_or(Defect::Version)?,
    })
}

fn minor_version(version: &[u8]) -> Option<u8> {
    match version.strip_prefix(VERSION_PREFIX)? {
        [minor @ b'0'..=b'9'] => Some(minor - b'0'),
        _ => None,
    }
}

/// The code of `HTTP/1.x code reason`.
fn status_line(line: &[u8]) -> Option<u16> {
    let (version, rest) = split_word(line);
    minor_version(version)?;
    match rest?.trim_ascii_start() {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..]
            if rest.first().is_none_or(|&byte| byte == b' ') =>
        {
            let digit = |byte: u8| u16::from(byte - b'0');
            Some(digit(*a) * 100 + digit(*b) * 10 + digit(*c))
        }
        _ => None,
    }
}

/// What is wrong already with the beginning of a start line.
fn early_defect(side: Side, pending: &[u8]) -> Option<Defect> {
    match side {
        Side::Client => {
            let (method, rest) = split_word(pending);
            let fits = method.len() <= METHOD_MAX
                && method.iter().all(|&byte| is_token_byte(byte))
                && !(method.is_empty() && rest.is_some());
            (!fits).then_some(Defect::Method)
        }
        Side::Server => {
            let shown = pending.len().min(VERSION_PREFIX.len());
            (pending[..shown] != VERSION_PREFIX[..shown]).then_some(Defect::StatusLine)
        }
    }
}

fn is_method(word: &[u8]) -> bool {
    (1..=METHOD_MAX).contains(&word.len()) && word.iter().all(|&byte| is_token_byte(byte))
}

/// What comes before the first space, and what after it.
fn split_word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == b' ') {
        Some(end) => (&text[..end], text.get(end + 1..)),
        None => (text, None),
    }
}

/// The name of a method in messages.
pub(in crate::protocol) fn method_name(method: Option<&'static str>) -> String {
    method.map_or_else(|| NAME_MASK.to_string(), str::to_owned)
}
