//! The chunked coding of a body, byte by byte: the original byte comes in, the
//! byte to store goes out, until the last chunk and its trailers are past.
//!
//! Sizes are kept, extensions masked, trailers treated like head fields. Chunk
//! data does not pass through here; the caller takes it off in bulk.

use super::BAD_MASK;
use super::fields::Fields;

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
    Trailers(Fields),
}

/// What a byte did to the body.
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

    /// The next byte, which opens `rest`: its masked form, and what it did.
    pub(super) fn step(&mut self, rest: &[u8], byte: u8) -> (u8, Progress) {
        let next = match (&mut *self, byte) {
            (Chunk::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if *digits < SIZE_DIGITS_MAX =>
            {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Chunk::Size {
                    digits: *digits + 1,
                    size: *size << 4 | u64::from(digit),
                }
            }
            (Chunk::Size { digits: 1.., size }, b' ' | b'\t' | b';') => {
                Chunk::Extension { size: *size }
            }
            (Chunk::Size { digits: 1.., size }, b'\r') => Chunk::SizeEnd { size: *size },
            (Chunk::Size { digits: 1.., size }, b'\n') => after_size(*size),
            (Chunk::Size { .. }, _) => return (BAD_MASK, Progress::Malformed),
            (Chunk::Extension { size }, b'\n') => after_size(*size),
            (Chunk::Extension { .. }, b'\r') => return (byte, Progress::More),
            (Chunk::Extension { .. }, _) => return (super::VALUE_MASK, Progress::More),
            (Chunk::SizeEnd { size }, b'\n') => after_size(*size),
            (Chunk::Data(1), _) => {
                *self = Chunk::DataEnd;
                return (0, Progress::More);
            }
            (Chunk::Data(left), _) => {
                *left -= 1;
                return (0, Progress::More);
            }
            (Chunk::DataEnd, b'\r') => Chunk::DataEndCr,
            (Chunk::DataEnd | Chunk::DataEndCr, b'\n') => Chunk::new(),
            (Chunk::SizeEnd { .. } | Chunk::DataEnd | Chunk::DataEndCr, _) => {
                return (BAD_MASK, Progress::Malformed);
            }
            (Chunk::Trailers(fields), _) => {
                let (masked, done) = fields.step(rest, byte);
                let progress = if done { Progress::Done } else { Progress::More };
                return (masked, progress);
            }
        };
        *self = next;
        (byte, Progress::More)
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
        0 => Chunk::Trailers(Fields::new()),
        size => Chunk::Data(size),
    }
}
