//! Does this look like the start of a head? Bytes come in one at a time, a
//! verdict goes out as soon as it is certain.
//!
//! Used where the position in the stream is unknown: at the first bytes of a
//! connection, after an attach in mid-stream, after malformed or uncaptured
//! bytes. It looks only at the start of a feed, as a head inside other content
//! cannot be told from content.

use memchr::memchr;

use super::Side;

/// Methods known by name, in their order: the IANA registry and what common
/// servers add. Others are followed all the same, but their names are masked,
/// since what stands in a method's place may be stray content.
pub(super) const METHODS: [&str; 44] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Longest method name followed, bytes.
pub(super) const METHOD_MAX: usize = 32;

/// What every version 1 protocol name starts with.
pub(super) const VERSION_PREFIX: &[u8; 7] = b"HTTP/1.";

/// What an HTTP/2 connection opens with.
const HTTP2_PREFACE: &[u8; 14] = b"PRI * HTTP/2.0";

/// Room for the longest method, a space and one byte of target.
const PROBE_MAX: usize = 24;

/// May `byte` stand in a token (RFC 9110, 5.6.2)?
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Does some known method start with these bytes?
pub(super) fn is_method_prefix(bytes: &[u8]) -> bool {
    METHODS
        .iter()
        .any(|method| method.as_bytes().starts_with(bytes))
}

/// The known method of this name.
pub(in crate::protocol) fn known_method(bytes: &[u8]) -> Option<&'static str> {
    let at = METHODS.binary_search_by(|method| method.as_bytes().cmp(bytes));
    METHODS.get(at.ok()?).copied()
}

/// Does a whole valid request line open these bytes, whatever its method?
pub(super) fn opens_with_request_line(bytes: &[u8]) -> bool {
    let Some(end) = memchr(b'\n', bytes) else {
        return false;
    };
    let line = &bytes[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    (1..=METHOD_MAX).contains(&method.len())
        && method.iter().all(|&byte| is_token_byte(byte))
        && !target.is_empty()
        && target.iter().all(|&byte| byte > b' ' && byte != 0x7f)
        && version
            .strip_prefix(VERSION_PREFIX)
            .is_some_and(|minor| minor.len() == 1 && minor[0].is_ascii_digit())
}

/// Does a status line as far as its code open these bytes?
pub(super) fn opens_with_status(bytes: &[u8]) -> bool {
    bytes.get(..12).is_some_and(|start| {
        let mut probe = Probe::new();
        start
            .iter()
            .any(|&byte| matches!(probe.push(Side::Server, byte), Look::Head))
    })
}

/// What the bytes so far look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Could still become something known.
    Undecided,
    /// A request or a response starts with them.
    Head,
    /// An HTTP/2 connection starts with them.
    Http2,
    /// They are the header of a TLS record.
    Tls,
    /// Nothing known starts like this.
    Nothing,
}

/// The bytes looked at so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    bytes: [u8; PROBE_MAX],
    len: u8,
}

impl Probe {
    pub(super) fn new() -> Self {
        Probe {
            bytes: [0; PROBE_MAX],
            len: 0,
        }
    }

    /// The bytes that have been pushed.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Adds a byte that `side` sent.
    pub(super) fn push(&mut self, side: Side, byte: u8) -> Look {
        let Some(slot) = self.bytes.get_mut(usize::from(self.len)) else {
            return Look::Nothing;
        };
        *slot = byte;
        self.len += 1;
        let seen = self.bytes();
        match side {
            Side::Client => look_at_request(seen),
            Side::Server => look_at_response(seen),
        }
    }
}

fn look_at_request(seen: &[u8]) -> Look {
    if let Some(space) = seen.iter().position(|&byte| byte == b' ') {
        match known_method(&seen[..space]) {
            Some("CONNECT") => return Look::Head,
            // Text such as `GET well soon` must not pass for a request.
            Some(_) => {
                return match seen.get(space + 1) {
                    None => Look::Undecided,
                    Some(b'/' | b'*' | b'h' | b'H') => Look::Head,
                    Some(_) => Look::Nothing,
                };
            }
            None => {}
        }
    } else if is_method_prefix(seen) {
        return Look::Undecided;
    }
    if seen == HTTP2_PREFACE {
        Look::Http2
    } else if HTTP2_PREFACE.starts_with(seen) {
        Look::Undecided
    } else {
        look_at_tls(seen)
    }
}

fn look_at_response(seen: &[u8]) -> Look {
    const SHAPE: &[u8; 12] = b"HTTP/1.0 000";
    let fits = |(&byte, &shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        shape => byte == shape,
    };
    // No status is below 100.
    let below = seen.get(9) == Some(&b'0');
    if seen.len() <= SHAPE.len() && !below && seen.iter().zip(SHAPE).all(fits) {
        if seen.len() == SHAPE.len() {
            Look::Head
        } else {
            Look::Undecided
        }
    } else {
        look_at_tls(seen)
    }
}

/// A TLS record starts with its type (20..=23) and its version (3, 0..=4).
fn look_at_tls(seen: &[u8]) -> Look {
    match seen {
        [0x14..=0x17] | [0x14..=0x17, 0x03] => Look::Undecided,
        [0x14..=0x17, 0x03, 0x00..=0x04] => Look::Tls,
        _ => Look::Nothing,
    }
}
