//! The chunked coding of a body: bytes come in, and go out as data or framing,
//! until the last chunk and its trailers are past. What extensions and trailers
//! say is passed over.

use super::Bytes;
use crate::protocol::lines::{Line, Lines};

/// What ends a chunked body without trailers, with the line end before it.
pub(super) const LAST_CHUNK: &[u8; 7] = b"\r\n0\r\n\r\n";

/// Digits of the largest size that fits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in the coding the next byte stands.
#[derive(Clone, Debug)]
pub(super) enum Chunk {
    /// In a size, after this many digits.
    Size { digits: u8, size: u64 },
    /// In what follows a size on its line.
    Extension { size: u64 },
    /// After the CR that ends a size.
    SizeEnd { size: u64 },
    /// In data with this many bytes left, at least 1.
    Data(u64),
    /// After data.
    DataEnd,
    /// After data and a CR.
    DataEndCr,
    /// After the last chunk.
    Trailers(Lines),
}

/// What bytes did to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
    Malformed,
}

impl Chunk {
    pub(super) fn new() -> Self {
        Chunk::Size { digits: 0, size: 0 }
    }

    /// Takes in bytes as far as they are of one kind. Returns how many that
    /// were, whether they are data, and what they did.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool, Progress) {
        let mut used = 0;
        while let Some(&byte) = bytes.get(used) {
            match self {
                Chunk::Data(_) if used > 0 => break,
                Chunk::Data(left) => {
                    let take = usize::try_from(*left).map_or(bytes.len(), |n| n.min(bytes.len()));
                    *left -= take as u64;
                    if *left == 0 {
                        *self = Chunk::DataEnd;
                    }
                    return (take, true, Progress::More);
                }
                Chunk::Trailers(lines) => {
                    let (took, line) = lines.take(&bytes[used..]);
                    used += took;
                    if matches!(line, Some(Line { text: [], .. })) {
                        return (used, false, Progress::Done);
                    }
                }
                _ => {
                    used += 1;
                    if self.step(byte) == Progress::Malformed {
                        return (used, false, Progress::Malformed);
                    }
                }
            }
        }
        (used, false, Progress::More)
    }

    /// The next byte of a size line or of what ends data.
    fn step(&mut self, byte: u8) -> Progress {
        let next = match (&*self, byte) {
            (&Chunk::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if digits < SIZE_DIGITS_MAX =>
            {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Chunk::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (&Chunk::Size { digits: 1.., size }, b' ' | b'\t' | b';') => Chunk::Extension { size },
            (&Chunk::Size { digits: 1.., size }, b'\r') => Chunk::SizeEnd { size },
            (
                &(Chunk::Size { digits: 1.., size }
                | Chunk::Extension { size }
                | Chunk::SizeEnd { size }),
                b'\n',
            ) => after_size(size),
            (&Chunk::Extension { size }, _) => Chunk::Extension { size },
            (Chunk::DataEnd, b'\r') => Chunk::DataEndCr,
            (Chunk::DataEnd | Chunk::DataEndCr, b'\n') => Chunk::new(),
            (_, _) => return Progress::Malformed,
        };
        *self = next;
        Progress::More
    }

    /// Whether these bytes are whole chunks, but for the last one.
    pub(super) fn fills(bytes: Bytes<'_>) -> bool {
        let mut chunk = Chunk::new();
        let mut rest = bytes.captured();
        let missing = bytes.len - rest.len() as u64;
        while !rest.is_empty() {
            let (used, _, progress) = chunk.take(rest);
            if progress != Progress::More {
                return false;
            }
            rest = &rest[used..];
        }
        bytes.len > 0 && chunk.skip(missing, bytes.tail) == Progress::More && chunk.is_between()
    }

    /// The next byte would open a chunk.
    pub(super) fn is_between(&self) -> bool {
        matches!(self, Chunk::Size { digits: 0, .. })
    }

    /// Passes over bytes that were not captured; `tail` is the end of what came
    /// with them. Says whether the body is still under way at a known position,
    /// ended, or its position is lost (`Malformed`).
    pub(super) fn skip(&mut self, mut bytes: u64, tail: &[u8]) -> Progress {
        while bytes > 0 {
            match self {
                Chunk::Data(left) if *left > bytes => {
                    *left -= bytes;
                    bytes = 0;
                }
                Chunk::Data(left) => {
                    bytes -= *left;
                    *self = Chunk::DataEnd;
                }
                // The coding leaves nothing else but a CR and a LF here.
                Chunk::DataEnd => {
                    bytes -= 1;
                    *self = Chunk::DataEndCr;
                }
                Chunk::DataEndCr => {
                    bytes -= 1;
                    *self = Chunk::new();
                }
                Chunk::Size { digits: 0, .. } if bytes == 5 && tail.ends_with(b"0\r\n\r\n") => {
                    return Progress::Done;
                }
                Chunk::Trailers(_) if tail.ends_with(b"\r\n\r\n") => return Progress::Done,
                Chunk::Size { .. }
                | Chunk::Extension { .. }
                | Chunk::SizeEnd { .. }
                | Chunk::Trailers(_) => {
                    return if tail.ends_with(LAST_CHUNK) {
                        Progress::Done
                    } else {
                        Progress::Malformed
                    };
                }
            }
        }
        Progress::More
    }
}

fn after_size(size: u64) -> Chunk {
    match size {
        0 => Chunk::Trailers(Lines::default()),
        size => Chunk::Data(size),
    }
}
