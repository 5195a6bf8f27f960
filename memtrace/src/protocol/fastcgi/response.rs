//! The head of a CGI response (RFC 3875, 6): bytes come in, its status and
//! whether it is a stream of events go out.

use crate::protocol::lines::{Line, Lines};

/// A head under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    lines: Lines,
    facts: Facts,
    /// Bytes so far.
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    status: Option<u16>,
    location: bool,
    event_stream: bool,
}

impl Head {
    /// Takes in bytes. Returns how many belong to the head, if it has ended.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (used, line) = self.lines.take(rest);
            at += used;
            self.bytes += used as u64;
            match line {
                Some(Line { text: [], .. }) => return Some(at),
                Some(line) => self.facts.line(line.text),
                None => {}
            }
        }
        None
    }

    /// The status code of a head that is whole.
    pub(super) fn code(&self) -> u16 {
        let default = if self.facts.location { 302 } else { 200 };
        self.facts.status.unwrap_or(default)
    }

    /// The body is a stream of events.
    pub(super) fn is_event_stream(&self) -> bool {
        self.facts.event_stream
    }
}

impl Facts {
    fn line(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            self.status = value
                .get(..3)
                .and_then(|code| str::from_utf8(code).ok()?.parse().ok())
                .filter(|code| *code >= 100);
        } else if name.eq_ignore_ascii_case(b"location") {
            self.location = true;
        } else if name.eq_ignore_ascii_case(b"content-type") {
            let end = value.iter().position(|&byte| byte == b';');
            let kind = value[..end.unwrap_or(value.len())].trim_ascii();
            self.event_stream = kind.eq_ignore_ascii_case(b"text/event-stream");
        }
    }
}
