//! The field lines of a head or of chunked trailers: lines come in, what they
//! say about their message is remembered.
//!
//! Only the fields that framing and reporting need are looked at. It is lenient:
//! a line that is no field is passed over, as servers differ in what they
//! refuse.

use crate::protocol::lines::Line;

/// The fields whose values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    Upgrade,
    ContentType,
    ContentEncoding,
    /// Any other.
    Other,
}

impl Field {
    /// By its name in any case.
    fn named(name: &[u8]) -> Field {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            6 if is(b"expect") => Field::Expect,
            7 if is(b"upgrade") => Field::Upgrade,
            10 if is(b"connection") => Field::Connection,
            12 if is(b"content-type") => Field::ContentType,
            14 if is(b"content-length") => Field::ContentLength,
            16 if is(b"content-encoding") => Field::ContentEncoding,
            16 if is(b"proxy-connection") => Field::Connection,
            17 if is(b"transfer-encoding") => Field::TransferEncoding,
            _ => Field::Other,
        }
    }
}

/// What the field lines say about their message.
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
    /// `Upgrade: websocket`
    pub(super) websocket: bool,
    /// `Upgrade: h2c`
    pub(super) http2: bool,
    /// `Content-Type: text/event-stream`
    pub(super) event_stream: bool,
    /// The content is coded (compressed).
    pub(super) coded: bool,
}

/// Field lines under way.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// The field that a folded line goes on with.
    last: Field,
    framing: Framing,
}

impl Fields {
    pub(super) fn new() -> Self {
        Fields {
            last: Field::Other,
            framing: Framing::default(),
        }
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Takes in the next line, which is not empty.
    pub(super) fn line(&mut self, line: Line<'_>) {
        let value = match line.text {
            [b' ' | b'\t', ..] => line.text,
            text => {
                let colon = text.iter().position(|&byte| byte == b':');
                let Some((name, value)) = colon.and_then(|colon| text.split_at_checked(colon))
                else {
                    self.last = Field::Other;
                    return;
                };
                self.last = Field::named(name);
                value.get(1..).unwrap_or(b"")
            }
        };
        if self.last != Field::Other {
            self.value(value, line.cut);
        }
    }

    fn value(&mut self, value: &[u8], cut: bool) {
        let framing = &mut self.framing;
        match self.last {
            Field::ContentLength => {
                framing.bad_length |= cut;
                for number in members(value) {
                    let number = length(number);
                    let before = framing.content_length;
                    framing.bad_length |=
                        number.is_none() || before.is_some_and(|before| number != Some(before));
                    framing.content_length = before.or(number);
                }
                framing.bad_length |= framing.content_length.is_none();
            }
            Field::TransferEncoding => {
                for coding in members(value) {
                    let is = |known: &[u8]| coding.eq_ignore_ascii_case(known);
                    framing.chunked = is(b"chunked") && !cut;
                    framing.other_coding = cut || !is(b"chunked") && !is(b"identity");
                }
            }
            Field::Connection => {
                for option in members(value) {
                    framing.close |= option.eq_ignore_ascii_case(b"close");
                    framing.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Field::Expect => {
                framing.expect_continue |=
                    members(value).any(|member| member.eq_ignore_ascii_case(b"100-continue"));
            }
            Field::Upgrade => {
                for protocol in members(value) {
                    framing.websocket |= protocol.eq_ignore_ascii_case(b"websocket");
                    framing.http2 |= protocol.eq_ignore_ascii_case(b"h2c");
                }
            }
            Field::ContentType => {
                framing.event_stream = members(value)
                    .next()
                    .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
            }
            Field::ContentEncoding => {
                framing.coded |=
                    members(value).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
            }
            Field::Other => {}
        }
    }
}

/// The members of a comma-separated list, without their parameters; empty ones
/// are passed over.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(|member| {
            let end = member.iter().position(|&byte| byte == b';');
            member[..end.unwrap_or(member.len())].trim_ascii()
        })
        .filter(|member| !member.is_empty())
}

fn length(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(lines: &[&str]) -> Framing {
        let mut fields = Fields::new();
        for line in lines {
            fields.line(Line {
                text: line.as_bytes(),
                cut: false,
            });
        }
        fields.framing()
    }

    #[test]
    fn lengths_must_agree() {
        assert_eq!(framing(&["CONTENT-length:  17 "]).content_length, Some(17));
        for bad in [
            &["content-length: 1, 2"][..],
            &["content-length: 1", "content-length: 2"],
            &["content-length: "],
            &["content-length: +1"],
            &["content-length: 99999999999999999999"],
        ] {
            assert!(framing(bad).bad_length, "{bad:?}");
        }
        assert!(!framing(&["content-length: 1, 1", "content-length: 1"]).bad_length);
    }

    #[test]
    fn the_last_coding_decides() {
        assert!(framing(&["transfer-encoding: gzip, Chunked"]).chunked);
        let other = framing(&["transfer-encoding: chunked", "transfer-encoding: gzip;q=1"]);
        assert!(!other.chunked && other.other_coding);
        let folded = framing(&["transfer-encoding: gzip,", " chunked"]);
        assert!(folded.chunked && !folded.other_coding);
    }

    #[test]
    fn series_are_announced() {
        assert!(framing(&["Upgrade: h2c, WebSocket"]).websocket);
        assert!(framing(&["Content-Type: text/event-stream; charset=utf-8"]).event_stream);
        assert!(!framing(&["Content-Type: text/html, text/event-stream"]).event_stream);
        assert!(framing(&["Content-Encoding: gzip"]).coded);
        assert!(!framing(&["Content-Encoding: identity"]).coded);
    }
}
