//! A request target, byte by byte: the original byte comes in, the byte to store
//! goes out.
//!
//! Kept: the scheme, the path, names of query and path parameters, and the
//! separators. Masked: authority (hosts and any user information), parameter
//! values, parameters without `=` (they may be values), fragments, and targets
//! of no known form. A name counts as a name only if its `=` is in the same
//! feed, so a name that is cut by the end of a feed is masked: its first piece
//! leaves before the second is known.
//!
//! Masking a masked target changes nothing; the parser relies on it.

use super::{NAME_MASK, VALUE_MASK};

/// Longest parameter name kept, bytes. Longer ones are rather values, such as a
/// bare token that ends in `=`.
const NAME_MAX: usize = 40;

/// Bytes of a target that are remembered; the rest is replaced by `…`.
pub(super) const TARGET_MAX: usize = 2048;

/// Where in the target the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Start,
    /// Within `http://` or `https://`, after this many bytes.
    Scheme {
        at: u8,
        secure: bool,
    },
    Authority,
    Path,
    /// Before the first byte of a name.
    NameStart(Within),
    Name {
        within: Within,
        visible: bool,
    },
    Value(Within),
    /// Masked to the end: a fragment, or no known form.
    Masked,
}

/// The kind of parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Path,
    Query,
}

/// A target under way.
#[derive(Clone, Debug)]
pub(super) struct Target {
    part: Part,
    /// The method takes a host and port as its target.
    authority: bool,
    seen: Vec<u8>,
    cut: bool,
}

impl Target {
    /// `authority` says that the method takes a host and port as its target.
    pub(super) fn new(authority: bool) -> Self {
        Target {
            part: Part::Start,
            authority,
            seen: Vec::new(),
            cut: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The next byte, which opens `rest`; the masked byte comes back.
    pub(super) fn step(&mut self, rest: &[u8], byte: u8) -> u8 {
        let masked = self.mask(rest, byte);
        if self.seen.len() < TARGET_MAX {
            self.seen.push(masked);
        } else {
            self.cut = true;
        }
        masked
    }

    /// The masked target; ends in `…` if it was too long or `incomplete`.
    pub(super) fn text(&self, incomplete: bool) -> String {
        let mut text = String::from_utf8_lossy(&self.seen).into_owned();
        if self.cut || incomplete {
            text.push('…');
        }
        text
    }

    fn mask(&mut self, rest: &[u8], byte: u8) -> u8 {
        match self.part {
            Part::Start if self.authority => self.turn(Part::Masked, VALUE_MASK),
            Part::Start => match byte {
                b'/' => self.turn(Part::Path, byte),
                b'*' => self.turn(Part::Masked, byte),
                b'h' | b'H' => self.turn(
                    Part::Scheme {
                        at: 1,
                        secure: false,
                    },
                    byte,
                ),
                _ => self.turn(Part::Masked, VALUE_MASK),
            },
            Part::Scheme { at, secure } => self.scheme(byte, at, secure),
            Part::Authority => match byte {
                b'/' => self.turn(Part::Path, byte),
                b'?' => self.turn(Part::NameStart(Within::Query), byte),
                b'#' => self.turn(Part::Masked, byte),
                _ => VALUE_MASK,
            },
            Part::Path => match byte {
                b'?' => self.turn(Part::NameStart(Within::Query), byte),
                b';' => self.turn(Part::NameStart(Within::Path), byte),
                b'#' => self.turn(Part::Masked, byte),
                _ => byte,
            },
            Part::NameStart(within) => {
                let visible = name_is_closed(rest, within);
                self.part = Part::Name { within, visible };
                self.name(byte, within, visible)
            }
            Part::Name { within, visible } => self.name(byte, within, visible),
            Part::Value(within) => self.separator(byte, within).unwrap_or(VALUE_MASK),
            Part::Masked => VALUE_MASK,
        }
    }

    fn turn(&mut self, part: Part, byte: u8) -> u8 {
        self.part = part;
        byte
    }

    fn scheme(&mut self, byte: u8, at: u8, secure: bool) -> u8 {
        let lower = byte.to_ascii_lowercase();
        if at == 4 && lower == b's' && !secure {
            return self.turn(Part::Scheme { at, secure: true }, byte);
        }
        if b"http://".get(usize::from(at)) != Some(&lower) {
            return self.turn(Part::Masked, VALUE_MASK);
        }
        let next = match at {
            6 => Part::Authority,
            _ => Part::Scheme { at: at + 1, secure },
        };
        self.turn(next, byte)
    }

    fn name(&mut self, byte: u8, within: Within, visible: bool) -> u8 {
        if byte == b'=' {
            return self.turn(Part::Value(within), byte);
        }
        match self.separator(byte, within) {
            Some(byte) => byte,
            None if visible => byte,
            None => NAME_MASK,
        }
    }

    /// Moves on if `byte` ends a parameter.
    ///
    /// A `;` does not end a query parameter: today's servers split at `&` only,
    /// and what follows a `;` in a value would pass for a name.
    fn separator(&mut self, byte: u8, within: Within) -> Option<u8> {
        let next = match (within, byte) {
            (_, b'#') => Part::Masked,
            (Within::Query, b'&') | (Within::Path, b';') => Part::NameStart(within),
            (Within::Path, b'/') => Part::Path,
            (Within::Path, b'?') => Part::NameStart(Within::Query),
            _ => return None,
        };
        Some(self.turn(next, byte))
    }
}

/// Does the name that opens `rest` end in `=` within these bytes?
fn name_is_closed(rest: &[u8], within: Within) -> bool {
    let ends = |byte: u8| match within {
        Within::Query => matches!(byte, b'&' | b'#'),
        Within::Path => matches!(byte, b';' | b'/' | b'?' | b'#'),
    };
    for &byte in rest.iter().take(NAME_MAX + 1) {
        if byte == b'=' {
            return true;
        }
        if byte <= b' ' || byte == 0x7f || ends(byte) {
            return false;
        }
    }
    false
}
