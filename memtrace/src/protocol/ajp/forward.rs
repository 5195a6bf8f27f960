//! An AJP FORWARD_REQUEST packet (AJPv13, "Request Packet Structure"): its
//! payload comes in, method, target and length of the body go out.

use crate::protocol::target;

/// The code that opens such a payload.
pub(super) const CODE: u8 = 2;

/// Methods by their codes, from 1.
const METHODS: [&str; 27] = [
    "OPTIONS",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "TRACE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "ACL",
    "REPORT",
    "VERSION-CONTROL",
    "CHECKIN",
    "CHECKOUT",
    "UNCHECKOUT",
    "SEARCH",
    "MKWORKSPACE",
    "UPDATE",
    "LABEL",
    "MERGE",
    "BASELINE-CONTROL",
    "MKACTIVITY",
];

/// The code of the header `content-length`.
const CONTENT_LENGTH: u16 = 0xA008;

/// Codes of attributes: the query, the size of a key (a number), one with a
/// name, the end.
const QUERY: u8 = 0x05;
const KEY_SIZE: u8 = 0x0B;
const NAMED: u8 = 0x0A;
const END: u8 = 0xFF;

/// What the packet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forward {
    /// `None`: not known by its code, or not captured.
    pub(super) method: Option<&'static str>,
    /// Path and names of query parameters.
    pub(super) target: String,
    /// Bytes of the body, if that was said.
    pub(super) content_length: Option<u64>,
    /// The packet was captured and understood to its end.
    pub(super) complete: bool,
}

/// Reads a payload, as far as it was captured.
pub(super) fn read(payload: &[u8]) -> Forward {
    let mut forward = Forward::default();
    let mut parts = Parts::default();
    forward.complete = parts.read(&mut Reader(payload), &mut forward).is_some();
    forward.target =
        target::reduce_parts(parts.path.unwrap_or(b""), parts.query, !forward.complete);
    forward
}

#[derive(Debug, Default)]
struct Parts<'a> {
    path: Option<&'a [u8]>,
    query: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// `None` as soon as something is missing.
    fn read(&mut self, reader: &mut Reader<'a>, forward: &mut Forward) -> Option<()> {
        if reader.byte()? != CODE {
            return None;
        }
        let method = reader.byte()?;
        forward.method = METHODS.get(usize::from(method).wrapping_sub(1)).copied();
        reader.string()?; // the protocol
        self.path = reader.string()?;
        // Address and name of the client, name and port of the server, TLS.
        for _ in 0..3 {
            reader.string()?;
        }
        reader.take(3)?;
        for _ in 0..reader.number()? {
            let code = reader.number()?;
            if code & 0xFF00 != 0xA000 {
                reader.take(usize::from(code) + 1)?;
            }
            let value = reader.string()?.unwrap_or(b"");
            if code == CONTENT_LENGTH {
                forward.content_length = str::from_utf8(value).ok().and_then(|n| n.parse().ok());
            }
        }
        loop {
            match reader.byte()? {
                END => return Some(()),
                KEY_SIZE => {
                    reader.take(2)?;
                }
                NAMED => {
                    reader.string()?;
                    reader.string()?;
                }
                QUERY => self.query = reader.string()?,
                _ => {
                    reader.string()?;
                }
            }
        }
    }
}

/// The rest of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A string: its length, its bytes, a zero; a length of 0xFFFF means none.
    fn string(&mut self) -> Option<Option<&'a [u8]>> {
        match self.number()? {
            0xFFFF => Some(None),
            len => {
                let text = self.take(usize::from(len))?;
                self.take(1)?;
                Some(Some(text))
            }
        }
    }
}
