//! Server-sent events: the content of a response comes in, where its events
//! begin and end goes out (WHATWG HTML, 9.2.6).
//!
//! An event is a block of lines with `data` among them, up to an empty line; a
//! block without, such as a comment that keeps the connection alive, is none.
//! Content that was not captured belongs to the event under way, or to one that
//! opens with it, and ends it if its last bytes are an empty line. Several events
//! that are sent at once so count as one as far as they were not captured.
//!
//! What an event says is not looked at.

use memchr::memchr2;

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is clear that the block under way is an event.
    Begin,
    /// It ended, after so many bytes.
    End(u64),
}

/// Where in its line the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// After so many bytes of a line, all of them those of `data`.
    Name(u8),
    /// After other bytes.
    Line,
    /// After a CR that ended a line.
    Cr,
}

/// The name that makes an event.
const DATA: &[u8; 4] = b"data";

/// The events of one response.
#[derive(Clone, Debug)]
pub struct Events {
    at: At,
    /// Bytes of the block under way.
    bytes: u64,
    /// The block under way has data.
    has_data: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// No byte of the content was seen.
    pub fn new() -> Self {
        Events {
            at: At::Name(0),
            bytes: 0,
            has_data: false,
        }
    }

    /// Takes in content.
    pub fn feed(&mut self, content: &[u8], mut say: impl FnMut(Progress)) {
        let mut rest = content;
        while let Some((&byte, after)) = rest.split_first() {
            match (self.at, byte) {
                (At::Cr, b'\n') => {
                    // Still the end of that line. That of an event was counted.
                    self.count(u64::from(self.bytes > 0));
                    self.at = At::Name(0);
                    rest = after;
                }
                (At::Cr, _) => self.at = At::Name(0),
                (At::Name(0), b'\r' | b'\n') => {
                    // The LF of a CR LF belongs to the event, if it is there.
                    let end = 1 + usize::from(rest.starts_with(b"\r\n"));
                    rest = &rest[end..];
                    self.at = if byte == b'\r' && end == 1 {
                        At::Cr
                    } else {
                        At::Name(0)
                    };
                    self.end_block(end as u64, &mut say);
                }
                (At::Name(seen), b':' | b'\r' | b'\n') if usize::from(seen) == DATA.len() => {
                    self.begin_data(&mut say);
                    self.at = At::Line;
                }
                (At::Name(seen), _) if DATA.get(usize::from(seen)) == Some(&byte) => {
                    self.count(1);
                    self.at = At::Name(seen + 1);
                    rest = after;
                }
                (At::Name(_) | At::Line, _) => match memchr2(b'\r', b'\n', rest) {
                    Some(end) => {
                        self.count(end as u64 + 1);
                        self.at = if rest[end] == b'\r' {
                            At::Cr
                        } else {
                            At::Name(0)
                        };
                        rest = &rest[end + 1..];
                    }
                    None => {
                        self.count(rest.len() as u64);
                        self.at = At::Line;
                        rest = &[];
                    }
                },
            }
        }
    }

    /// Passes over content that was not captured; `tail` is its end.
    pub fn skip(&mut self, bytes: u64, tail: &[u8], mut say: impl FnMut(Progress)) {
        if bytes == 0 {
            return;
        }
        self.begin_data(&mut say);
        let ends = [&b"\n\n"[..], b"\r\r", b"\r\n\r\n"];
        if ends.iter().any(|end| tail.ends_with(end)) {
            self.at = At::Name(0);
            self.end_block(bytes, &mut say);
        } else {
            self.count(bytes);
            self.at = At::Line;
        }
    }

    fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn begin_data(&mut self, say: &mut impl FnMut(Progress)) {
        if !self.has_data {
            self.has_data = true;
            say(Progress::Begin);
        }
    }

    fn end_block(&mut self, bytes: u64, say: &mut impl FnMut(Progress)) {
        if self.has_data {
            say(Progress::End(self.bytes.saturating_add(bytes)));
        }
        self.has_data = false;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of the events in these pieces, and of the one that is open.
    fn events(pieces: &[&[u8]]) -> (Vec<u64>, bool) {
        let mut events = Events::new();
        let mut ended = Vec::new();
        let mut open = false;
        for piece in pieces {
            events.feed(piece, |progress| match progress {
                Progress::Begin => {
                    assert!(!open);
                    open = true;
                }
                Progress::End(bytes) => {
                    assert!(open);
                    open = false;
                    ended.push(bytes);
                }
            });
        }
        (ended, open)
    }

    #[test]
    fn an_event_has_data_and_ends_in_an_empty_line() {
        for (content, expected) in [
            ("data: one\n\ndata: two\n\n", vec![11, 11]),
            ("event: x\r\ndata\r\n\r\n", vec![18]),
            ("data: a\r\rdata: b\r\r", vec![9, 9]),
            (": ping\n\n\n\nretry: 5\n\ndata:x\n\n", vec![8]),
            ("database: x\n\n data: x\n\n", vec![]),
            ("data: a\ndata: b\nid: 7\n\n", vec![23]),
        ] {
            assert_eq!(
                events(&[content.as_bytes()]),
                (expected, false),
                "{content:?}"
            );
        }
        assert_eq!(events(&[b"data: one"]), (vec![], true));
    }

    #[test]
    fn what_was_not_captured_belongs_to_the_event_under_way() {
        let mut events = Events::new();
        let mut said = Vec::new();
        events.feed(b"data: lo", |progress| said.push(progress));
        events.skip(1000, b"ngngngng", |progress| said.push(progress));
        events.skip(500, b"longer\n\n", |progress| said.push(progress));
        events.skip(300, b"second\n\n", |progress| said.push(progress));
        assert_eq!(
            said,
            [
                Progress::Begin,
                Progress::End(1508),
                Progress::Begin,
                Progress::End(300)
            ]
        );
    }

    proptest! {
        /// However the content is cut, the events are the same; only the LF of
        /// a last CR LF may come too late to count.
        #[test]
        fn pieces_make_no_difference(
            content in "(data(:|\n)|d|x: y|:|a|\r\n|\n|\r|\n\n|data: x\n\n){0,30}",
            at in prop::collection::vec(0..40_usize, 0..6),
        ) {
            let bytes = content.as_bytes();
            let mut cuts: Vec<usize> = at.iter().map(|at| at % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            let (whole, open) = events(&[bytes]);
            let (cut, still_open) = events(&pieces);
            prop_assert_eq!(open, still_open);
            prop_assert_eq!(whole.len(), cut.len());
            for (whole, cut) in whole.iter().zip(&cut) {
                prop_assert!(whole - cut <= 1, "{} {}", whole, cut);
            }
        }
    }
}
