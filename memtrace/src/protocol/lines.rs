//! The lines of a head that may come in pieces: bytes come in, whole lines go
//! out, without their ends.
//!
//! A line that lies in one piece is not copied. One that does not is held until
//! its end has come, up to [`LINE_MAX`] bytes of it. What a line says is not
//! judged here.

use memchr::memchr;

/// Bytes held of a line that comes in pieces. Common servers refuse longer ones
/// (8 KiB in nginx and Apache).
pub const LINE_MAX: usize = 8192;

/// A line under way.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// The line is longer than what is held of it.
    cut: bool,
    /// The held line has been handed out.
    ended: bool,
}

/// A whole line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes without LF or CR LF.
    pub text: &'a [u8],
    /// There was more of it than `text`.
    pub cut: bool,
}

impl Lines {
    /// Takes the next line's bytes off `bytes`, up to its end or their own.
    /// Returns how many that are, and the line if that is whole.
    pub fn take<'a>(&'a mut self, bytes: &'a [u8]) -> (usize, Option<Line<'a>>) {
        if std::mem::take(&mut self.ended) {
            self.held.clear();
            self.cut = false;
        }
        let Some(end) = memchr(b'\n', bytes) else {
            self.hold(bytes);
            return (bytes.len(), None);
        };
        let last = &bytes[..end];
        let text = if self.held.is_empty() {
            last
        } else {
            self.hold(last);
            self.ended = true;
            &self.held
        };
        let line = Line {
            text: text.strip_suffix(b"\r").unwrap_or(text),
            cut: self.cut,
        };
        (end + 1, Some(line))
    }

    /// What is there of a line that has not ended.
    pub fn pending(&self) -> &[u8] {
        if self.ended { &[] } else { &self.held }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.held.len());
        self.cut |= bytes.len() > room;
        self.held.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of these pieces.
    fn lines(pieces: &[&str]) -> Vec<(String, bool)> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in pieces {
            let mut rest = piece.as_bytes();
            while !rest.is_empty() {
                let (used, line) = lines.take(rest);
                if let Some(Line { text, cut }) = line {
                    all.push((String::from_utf8_lossy(text).into_owned(), cut));
                }
                rest = &rest[used..];
            }
        }
        all
    }

    #[test]
    fn pieces_make_no_difference() {
        let expected: Vec<(String, bool)> = ["one", "", "two", "three"]
            .map(|line| (line.to_owned(), false))
            .to_vec();
        assert_eq!(lines(&["one\r\n\ntwo\nthree\r\nfo"]), expected);
        let single: Vec<String> = "one\r\n\ntwo\nthree\r\nfo"
            .chars()
            .map(String::from)
            .collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(lines(&single), expected);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let long = "x".repeat(LINE_MAX + 1);
        assert_eq!(
            lines(&[&long, "y\r\n", "z", "\n"]),
            [("x".repeat(LINE_MAX), true), ("z".to_owned(), false)]
        );
        // One that lies in a piece is handed out as it is.
        assert_eq!(lines(&[&format!("{long}\n")]), [(long, false)]);
    }
}
